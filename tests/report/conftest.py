"""Verification reports as they come, one for each verdict."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from electra_convert.formats import TARGETS, TargetFormat
from electra_convert.parity.report import (
    HISTOGRAM_EDGES,
    PRECISIONS,
    ArrayResult,
    Candidate,
    Check,
    Coverage,
    Divergence,
    Element,
    GateReport,
    HeadReport,
    Look,
    LookedAt,
    Outcome,
    Pair,
    PartReport,
    Precision,
    ProbeReport,
    Ranking,
    Run,
    Status,
    VerificationReport,
)

HEADS = (
    "base",
    "pretraining",
    "masked_lm",
    "causal_lm",
    "sequence_classification",
    "multiple_choice",
    "token_classification",
    "question_answering",
)
LAYERS = 12
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}
DRIFT: dict[TargetFormat, float] = {"pytorch": 3.1, "tensorflow": 2.2, "flax": 1.4}
CAUSE = "the pytorch model computes with the tanh approximation of GELU"
GIVEN = {"num_attention_heads": 4, "lowercase": True}


def limit(precision: Precision, depth: int) -> float:
    """Return what a gate allows at some depth."""
    return 1e-10 if precision == "float64" else 64 * UNIT["float32"] * 3.0 * depth


def array(name: str, precision: Precision, depth: int, difference: float) -> ArrayResult:
    """Return the worst of one array."""
    allowed = limit(precision, depth)
    worst = Element(index=(3, 41, 17), expected=0.8125, got=0.8125 + (difference if math.isfinite(difference) else 0))
    return ArrayResult(
        array=name,
        probe="length 128",
        elements=18_944,
        difference=difference,
        limit=allowed,
        worst=worst,
        passed=difference <= allowed,
    )


def make_run(framework: TargetFormat, precision: Precision, *, wrong_from: int | None = None) -> Run:
    """Return a run; from one depth on it may be wrong."""
    names = ["embeddings", *(f"layer {layer}" for layer in range(1, LAYERS + 1)), "logits"]
    arrays = []
    for depth, name in enumerate(names, 1):
        wave = 1 + 0.3 * math.sin(1.7 * depth + DRIFT[framework])
        rounding = UNIT[precision] * DRIFT[framework] * 3.0 * depth * wave
        wrong = wrong_from is not None and depth >= wrong_from
        arrays.append(array(name, precision, depth, 4.1e-4 * depth if wrong else rounding))
    first = next((each for each in arrays if not each.passed), None)
    middle = 16 if wrong_from else round(math.log10(UNIT[precision])) + 19
    histogram = [round(90_000 * math.exp(-((place - middle) ** 2))) for place in range(len(HISTOGRAM_EDGES) - 1)]
    histogram[0] += 12_000
    outcome: Outcome = "failed" if first else "passed"
    divergence = (
        Divergence(
            probe=first.probe, array=first.array, difference=first.difference, limit=first.limit, worst=first.worst
        )
        if first
        else None
    )
    return Run(
        framework=framework,
        precision=precision,
        outcome=outcome,
        arrays=tuple(arrays),
        divergence=divergence,
        histogram=tuple(histogram),
        needed=max(each.share for each in arrays),
    )


def make_checks() -> tuple[Check, ...]:
    """Return the checks of a directory that pass."""
    return (
        Check(name="source", passed=True, says="the checkpoint is the one that was converted"),
        *(
            Check(name="round trip", framework=target, passed=True, says="199 tensors equal the source bit for bit")
            for target in TARGETS
        ),
        Check(name="config", passed=True, says="22 fields are as the conversion understood them"),
        Check(name="tokenizer", passed=True, says="vocab.txt, tokenizer.json: as built again, lower-cased"),
    )


def make_pairs() -> tuple[Pair, ...]:
    """Return the frameworks of a directory against one another."""
    pairs: tuple[tuple[TargetFormat, TargetFormat], ...] = (
        ("pytorch", "tensorflow"),
        ("pytorch", "flax"),
        ("tensorflow", "flax"),
    )
    return tuple(
        Pair(
            first=first,
            second=second,
            precision=precision,
            passed=True,
            array="layer 7",
            difference=3.7e-15 if precision == "float64" else 9.5e-7,
            limit=2 * limit(precision, 8),
        )
        for first, second in pairs
        for precision in PRECISIONS
    )


def make_head(head: str, **changes: Any) -> HeadReport:
    """Return a directory in which everything passed."""
    sound = HeadReport(
        directory=Path("/converted/discriminator") / head,
        part="discriminator",
        head=head,
        status="proven",
        checks=make_checks(),
        runs=tuple(make_run(target, precision) for target in TARGETS for precision in PRECISIONS),
        pairs=make_pairs(),
        initialised=0 if head in {"base", "pretraining"} else 4,
    )
    return replace(sound, **changes)


def make_part() -> PartReport:
    """Return what is known of a discriminator, looked at and tried on text."""
    scores = (0.02, 0.01, 0.93, 0.04, 0.01, 0.03, 0.11, 0.02, 0.01)
    tokens = ("[CLS]", "the", "economist", "cook", "##ed", "a", "good", "meal", "[SEP]")
    return PartReport(
        part="discriminator",
        config={"hidden_size": 256, "layer_norm_eps": 1e-12, "num_attention_heads": 4, "num_hidden_layers": LAYERS},
        origins={"hidden_size": "electra/embeddings_project/kernel [128, 256]", "num_attention_heads": "assumed"},
        given=GIVEN,
        native_head="pretraining",
        source_tensors={"ignored": 412, "other part": 101, "used": 199},
        coverage=Coverage(
            probes=(
                ProbeReport(name="length 1", shape=(4, 1), says="4 x 1, segments"),
                ProbeReport(name="length 128", shape=(4, 128), says="4 x 128, padding, segments, [MASK]"),
                ProbeReport(name="length 512", shape=(1, 512), says="1 x 512, segments, [MASK]"),
            ),
            tokens=1028,
            positions=1.0,
            vocabulary=0.0331,
            token_types=1.0,
            scaled="1 of length 512 in place of 4 rows, to stay within the budget",
        ),
        rankings=(
            Ranking(
                field="num_attention_heads",
                assumed=4,
                finding="confirmed",
                candidates=(
                    Candidate(value=4, loss=0.2213, margin=0.0),
                    Candidate(value=8, loss=0.2641, margin=5.2),
                    Candidate(value=2, loss=0.2977, margin=8.8),
                    Candidate(value=16, loss=0.4102, margin=21.0),
                ),
                tokens=4096,
                says="4 heads do best by 5.2 standard errors",
            ),
        ),
        look=Look(
            head="pretraining",
            sentence="the chef cooked a good meal",
            tokens=tuple(
                LookedAt(token=piece, score=score, replaced=piece == "economist")
                for piece, score in zip(tokens, scores, strict=True)
            ),
        ),
    )


def make_generator() -> PartReport:
    """Return what is known of a generator that was looked at."""
    guesses = (("meal", 0.41), ("dinner", 0.22), ("lunch", 0.09), ("cake", 0.04), ("dish", 0.02))
    tokens = ("[CLS]", "the", "chef", "cooked", "a", "good", "[MASK]", "[SEP]")
    return replace(
        make_part(),
        part="generator",
        native_head="masked_lm",
        given={"num_attention_heads": 1},
        rankings=(),
        look=Look(
            head="masked_lm",
            sentence="the chef cooked a good meal",
            tokens=tuple(LookedAt(token=piece, guesses=guesses if piece == "[MASK]" else ()) for piece in tokens),
        ),
    )


def make_report(**changes: Any) -> VerificationReport:
    """Return a report on eight heads that are proven."""
    sound = VerificationReport(
        output=Path("/converted"),
        source="electra_small",
        identity="7225cec2ec6792ae48e5b0c6fc481c218e0d5c9935a21ba9427ac0b0e64fd705",
        topology="a discriminator and a generator that share their embeddings",
        status="proven",
        verdict="proven, given assumed: num_attention_heads = 4, lowercase = true",
        parts=(make_part(), make_generator()),
        heads=tuple(make_head(head) for head in HEADS),
        gates=(
            GateReport(precision="float64", rule="1e-10", reason="a right mapping agrees to 1e-12 or better"),
            GateReport(
                precision="float32",
                rule="64 x 2**-24 x scale x depth",
                reason="rounding grows with the depth of the graph and the size of the values",
            ),
        ),
        frameworks=TARGETS,
        versions={"electra-convert": "0.1.0", "numpy": "2.4.6", "torch": "2.13.0+cpu"},
        machine="x86_64, 2 cores, Linux",
        seconds=83.4,
    )
    return replace(sound, **changes)


def failed_report() -> VerificationReport:
    """Return a report in which a model diverges, a file is damaged, and a model does not run."""
    sound = make_report()
    diverging = make_head(
        "masked_lm",
        status="failed",
        runs=(
            *(make_run("pytorch", precision, wrong_from=5) for precision in PRECISIONS),
            *make_head("masked_lm").runs[2:],
        ),
        pairs=(replace(make_pairs()[0], passed=False, array="layer 4", difference=2.1e-3), *make_pairs()[1:]),
        causes=(CAUSE,),
    )
    faults = ("electra/embeddings/word_embeddings: 1 of 76,800 elements differs: [3, 7] is 0.5, expected 0.25", "two")
    broken = replace(make_checks()[3], passed=False, says="2 of 199 tensors differ", faults=faults)
    damaged = make_head(
        "token_classification",
        status="failed",
        checks=(*make_checks()[:3], broken, *make_checks()[4:]),
        runs=(
            *make_head("base").runs[:4],
            *(
                Run(framework="flax", precision=precision, outcome="failed", message="the process died: signal 9")
                for precision in PRECISIONS
            ),
        ),
        pairs=make_pairs()[:2],
        causes=(f"the flax weights: {faults[0]} (and 1 more)",),
    )
    changed = {diverging.head: diverging, damaged.head: damaged}
    heads = tuple(changed.get(head.head, head) for head in sound.heads)
    return replace(sound, status="failed", verdict="failed: 2 of 8 heads not proven", heads=heads)


def incomplete_report() -> VerificationReport:
    """Return a report without Flax."""
    sound = make_report()
    heads = tuple(
        replace(
            head,
            status="incomplete",
            runs=tuple(
                Run(framework="flax", precision=run.precision, outcome="missing", message="flax is not installed")
                if run.framework == "flax"
                else run
                for run in head.runs
            ),
            pairs=head.pairs[:2],
        )
        for head in sound.heads
    )
    return replace(
        sound,
        status="incomplete",
        verdict="incomplete: not all was run, for flax is not installed",
        heads=heads,
        frameworks=("pytorch", "tensorflow"),
        missing=("flax",),
        notes=('flax is not installed: pip install "electra-convert[flax]"',),
    )


def audited_report() -> VerificationReport:
    """Return a report on one directory whose source nobody knows."""
    part = replace(
        make_part(), part=None, origins={}, given={}, native_head=None, source_tensors={}, rankings=(), look=None
    )
    head = make_head("base", part=None, status="audited", runs=make_head("base").runs[1:], checks=make_checks()[1:])
    return make_report(
        source="",
        identity="",
        topology="",
        status="audited",
        verdict="audited: consistent with itself; nothing is proven, for no source is known",
        parts=(part,),
        heads=(head,),
        notes=("no source is known, so nothing here is proven against Google's code: name it with --source",),
    )


def unverified_report() -> VerificationReport:
    """Return a report with a loosened gate."""
    sound = make_report()
    return replace(
        sound,
        status="unverified",
        verdict="unverified: all passed, but with loosened gates (float32 x 10)",
        gates=(sound.gates[0], replace(sound.gates[1], loosened=10.0)),
        heads=tuple(replace(head, status="unverified") for head in sound.heads),
    )


REPORTS: dict[Status, Callable[[], VerificationReport]] = {
    "proven": make_report,
    "failed": failed_report,
    "incomplete": incomplete_report,
    "audited": audited_report,
    "unverified": unverified_report,
}


@pytest.fixture(params=list(REPORTS))
def any_report(request: pytest.FixtureRequest) -> VerificationReport:
    """A report of each verdict in turn."""
    return REPORTS[request.param]()


@pytest.fixture
def report_of() -> Callable[[Status], VerificationReport]:
    """Make the report of a verdict."""
    return lambda status: REPORTS[status]()
