"""What a verification found: plain data, for the terminal, JSON, JUnit, HTML and `verification.json` alike."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import msgspec

from electra_convert.formats import TargetFormat
from electra_convert.inventory import Part

Precision = Literal["float32", "float64"]
PRECISIONS: tuple[Precision, ...] = ("float64", "float32")
Status = Literal["proven", "failed", "incomplete", "unverified", "audited"]
"""`unverified`: everything passed, but a gate was loosened. `audited`: no source was known."""
ORDER: tuple[Status, ...] = ("failed", "incomplete", "unverified", "audited", "proven")
"""From the worst verdict to the best; an output is as good as its worst head."""
Outcome = Literal["passed", "failed", "missing"]
"""`missing`: the framework is not installed."""

HISTOGRAM_EDGES = tuple(range(-20, 3))
"""Powers of ten that bound the bins of an error histogram; what is exactly equal counts in the first bin."""


class Element(msgspec.Struct, frozen=True, kw_only=True):
    """One element of an array that two models computed.

    Args:
        index: Its place: `[batch, position, ...]`.
        expected: What the oracle computed, or the framework named first.
        got: What the framework computed.
    """

    index: tuple[int, ...]
    expected: float
    got: float


class ArrayResult(msgspec.Struct, frozen=True, kw_only=True):
    """The worst difference of one array over all probes.

    Args:
        array: `embeddings`, `layer 1` and so on, then the head's outputs.
        probe: The probe it was found on.
        elements: How many elements were compared on all probes.
        difference: The largest absolute difference.
        limit: What the gate allows here.
        worst: Where it is.
        passed: Whether every probe was within its limit.
    """

    array: str
    probe: str
    elements: int
    difference: float
    limit: float
    worst: Element
    passed: bool

    @property
    def share(self) -> float:
        """The share of the limit that the difference takes."""
        if not math.isfinite(self.difference) or not self.limit:
            return math.inf if self.difference else 0.0
        return self.difference / self.limit


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model first leaves the oracle.

    Args:
        probe: The probe.
        array: The first array, in the order of the graph, that is beyond its limit.
        difference: The largest difference in it.
        limit: What the gate allows.
        worst: The element.
    """

    probe: str
    array: str
    difference: float
    limit: float
    worst: Element


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One head in one framework at one precision, against the oracle.

    Args:
        framework: The framework.
        precision: The dtype it computed in.
        outcome: Whether it passed.
        arrays: Each array in the order of the graph; none if it could not be run.
        divergence: Where it first fails.
        message: Why it could not be run.
        histogram: How many of the compared elements differ by how much, in the bins of `HISTOGRAM_EDGES`; a sample.
        needed: The multiple of the gate that would have passed.
    """

    framework: TargetFormat
    precision: Precision
    outcome: Outcome
    arrays: tuple[ArrayResult, ...] = ()
    divergence: Divergence | None = None
    message: str = ""
    histogram: tuple[int, ...] = ()
    needed: float = 0.0


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two frameworks on the same head, against one another.

    Args:
        first: One.
        second: The other.
        precision: The dtype both computed in.
        passed: Whether every array was within the sum of both limits.
        array: The worst array.
        difference: The largest absolute difference in it.
        limit: What is allowed there.
    """

    first: TargetFormat
    second: TargetFormat
    precision: Precision
    passed: bool
    array: str
    difference: float
    limit: float


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A check that needs none of the models that were written.

    Args:
        name: `round trip`, `config`, `tokenizer` or `source`; or `model`, which runs the model that was converted.
        framework: The format that was read, where it is about one.
        passed: Whether it found nothing.
        says: What was checked, with figures.
        faults: What it found, each with its likely cause.
    """

    name: str
    passed: bool
    says: str
    framework: TargetFormat | None = None
    faults: tuple[str, ...] = ()


class HeadReport(msgspec.Struct, frozen=True, kw_only=True):
    """One directory.

    Args:
        directory: Where it is.
        part: Its part, where that is known.
        head: Its head.
        status: The verdict on it.
        checks: What was checked without running a model.
        runs: What was run.
        pairs: The frameworks against one another.
        causes: The likely causes of what failed.
        initialised: How many tensors were drawn, for the checkpoint lacks them.
    """

    directory: Path
    part: Part | None
    head: str
    status: Status
    checks: tuple[Check, ...] = ()
    runs: tuple[Run, ...] = ()
    pairs: tuple[Pair, ...] = ()
    causes: tuple[str, ...] = ()
    initialised: int = 0


class ProbeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One probe.

    Args:
        name: Its name.
        shape: `[batch, length]`.
        says: What it is for.
    """

    name: str
    shape: tuple[int, int]
    says: str


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """What all probes of one part reach.

    Args:
        probes: The probes.
        tokens: Tokens in all of them.
        positions: Share of the position table that is looked up, 0 to 1.
        vocabulary: Share of the word table that is looked up.
        token_types: Share of the token type table that is looked up.
        scaled: What was left out to stay within the budget; empty if nothing was.
    """

    probes: tuple[ProbeReport, ...]
    tokens: int
    positions: float
    vocabulary: float
    token_types: float
    scaled: str = ""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One way a model could be meant, and how well it does on text.

    Args:
        value: What is tried: a head count, or a casing.
        loss: Mean loss in nats.
        margin: Standard errors by which it is worse than the best.
    """

    value: Any
    loss: float
    margin: float


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """An assumption that was tried on text.

    Args:
        field: `num_attention_heads` or `lowercase`.
        assumed: What the conversion says.
        finding: `confirmed`, `refuted` or `undecided`.
        candidates: The candidates, the best first.
        tokens: Tokens that were scored.
        says: The finding in a sentence.
    """

    field: str
    assumed: Any
    finding: Literal["confirmed", "refuted", "undecided"]
    candidates: tuple[Candidate, ...]
    tokens: int
    says: str


class LookedAt(msgspec.Struct, frozen=True, kw_only=True):
    """One token of the look: what a person can judge.

    Args:
        token: The piece.
        score: Discriminator: the probability that it was replaced.
        replaced: It was put there in place of another.
        guesses: Generator, at `[MASK]`: the likeliest pieces with their probabilities.
    """

    token: str
    score: float | None = None
    replaced: bool = False
    guesses: tuple[tuple[str, float], ...] = ()


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence as a native head sees it. Shown, not gated.

    Args:
        head: `pretraining` or `masked_lm`.
        sentence: The text.
        tokens: Its tokens.
    """

    head: str
    sentence: str
    tokens: tuple[LookedAt, ...]


class PartReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one part.

    Args:
        part: The part; `None` in an audit of a directory that does not say.
        config: Its config.
        origins: What each field of the config is known from.
        given: What is in no tensor and was assumed, by field: the proof holds given this.
        native_head: The head it was trained on.
        source_tensors: How many tensors of the checkpoint met each fate.
        coverage: What the probes reach.
        rankings: The assumptions that were tried on text.
        look: What it makes of a sentence.
        drift: With a lower dtype: for each head, how far the oracle on cast values is from the oracle on the source's.
    """

    part: Part | None
    config: dict[str, Any]
    origins: dict[str, str] = {}
    given: dict[str, Any] = {}
    native_head: str | None = None
    source_tensors: dict[str, int] = {}
    coverage: Coverage
    rankings: tuple[Ranking, ...] = ()
    look: Look | None = None
    drift: dict[str, float] = {}


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """A gate as it was applied.

    Args:
        precision: The dtype it is for.
        rule: The rule, as a formula.
        reason: Why.
        loosened: The factor by which it was loosened; 1 if it was not.
    """

    precision: Precision
    rule: str
    reason: str
    loosened: float = 1.0


class VerificationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found.

    Args:
        output: The directory that was verified.
        source: Name of the checkpoint's files; empty in an audit.
        identity: SHA-256 of its index; empty in an audit.
        topology: What it is, in a sentence.
        status: The verdict on all heads.
        verdict: The verdict in a sentence, with what it is given.
        parts: What is known of each part.
        heads: What was found for each directory.
        gates: The gates.
        frameworks: The frameworks that were run.
        left_out: The frameworks that were left out on request.
        missing: The frameworks that are needed and not installed.
        versions: Version of everything that took part.
        machine: What it ran on.
        seconds: How long it took.
        notes: What else a user should know.
    """

    output: Path
    source: str
    identity: str
    topology: str
    status: Status
    verdict: str
    parts: tuple[PartReport, ...]
    heads: tuple[HeadReport, ...]
    gates: tuple[GateReport, ...]
    frameworks: tuple[TargetFormat, ...]
    left_out: tuple[TargetFormat, ...] = ()
    missing: tuple[TargetFormat, ...] = ()
    versions: dict[str, str] = {}
    machine: str = ""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
