"""A verification as one page to look at: no script, nothing loaded from elsewhere, light and dark, and it prints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from electra_convert.formats import FRAMEWORK_NAMES, TARGETS, TargetFormat
from electra_convert.parity.report import (
    HISTOGRAM_EDGES,
    PRECISIONS,
    ArrayResult,
    Candidate,
    Check,
    GateReport,
    HeadReport,
    Look,
    LookedAt,
    Pair,
    PartReport,
    Precision,
    Ranking,
    Run,
    Status,
    VerificationReport,
)
from electra_convert.report.charts import Curve, HistogramChart, LayerChart, histogram_chart, layer_chart
from electra_convert.report.words import (
    SYMBOLS,
    Finding,
    check_name,
    duration,
    exact,
    figure,
    gate_rule,
    head_findings,
    head_name,
    needed,
    pair_line,
    percent,
    place,
    plural,
    run_name,
    share,
    value,
)

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = Path(__file__).with_name("verification.html.j2")
ASSUMED = "assumed"
"""The origin of a field that nothing tells."""
OUTPUTS = "outputs"
"""The last place on the x axis of a chart by layer: all of a head's outputs."""
FAR = 10.0
"""Standard errors at which the bar of a candidate is full."""


class Verdict(NamedTuple):
    """The verdict as it is set: the word, the rest of the sentence, and a symbol for who cannot tell its colour."""

    status: Status
    symbol: str
    word: str
    rest: str


class Summary(NamedTuple):
    """One precision at a glance: how many runs passed, and what came closest to its gate."""

    precision: Precision
    passed: int
    runs: int
    worst: ArrayResult | None
    elements: int


class Cell(NamedTuple):
    """One head in one framework at one precision; `worst` is what came closest to its gate, or furthest beyond."""

    precision: Precision
    run: Run | None
    worst: ArrayResult | None
    width: float
    absent: str


class Row(NamedTuple):
    """One head of the matrix, with its cells by framework."""

    head: HeadReport
    name: str
    bad_checks: int
    cells: dict[TargetFormat, tuple[Cell, ...]]


class Group(NamedTuple):
    """The rows of one part; `name` is empty where there is only one."""

    name: str
    rows: tuple[Row, ...]


class LayerPanel(NamedTuple):
    """A chart by layer."""

    precision: Precision
    chart: LayerChart


class HistogramPanel(NamedTuple):
    """A histogram of one framework at one precision."""

    framework: TargetFormat
    precision: Precision
    chart: HistogramChart
    elements: int


class Failure(NamedTuple):
    """What failed in one directory, with its charts."""

    head: HeadReport
    name: str
    findings: tuple[Finding, ...]
    panels: tuple[LayerPanel, ...]


class PairRow(NamedTuple):
    """One head's frameworks against one another, by the columns of the table."""

    name: str
    pairs: dict[tuple[TargetFormat, TargetFormat, Precision], Pair]


class CheckRow(NamedTuple):
    """One head's checks, by the columns of the table."""

    name: str
    checks: dict[str, Check]
    initialised: int


class Segment(NamedTuple):
    """A part of a bar, `width` in percent of the whole."""

    fate: str
    tensors: int
    width: float


class ConfigRow(NamedTuple):
    """A field of a config, with a value and an origin for each part."""

    field: str
    entries: tuple[ConfigEntry | None, ...]


class ConfigEntry(NamedTuple):
    """A value, where it is known from, and whether it was assumed."""

    value: str
    origin: str
    assumed: bool


class GateCard(NamedTuple):
    """A gate with what would have been enough."""

    gate: GateReport
    rule: str
    needed: float | None


class Try(NamedTuple):
    """A candidate of a ranking; its bar is how much worse than the best it is."""

    candidate: Candidate
    value: str
    assumed: bool
    width: float


def render_html(report: VerificationReport) -> str:
    """Return a verification as a self-contained page.

    Args:
        report: What a verification found.
    """
    frameworks = [target for target in TARGETS if target in {*_ran(report), *report.missing}]
    return (
        environment()
        .get_template(TEMPLATE.name)
        .render(
            report=report,
            verdict=_verdict(report),
            proven=sum(head.status == "proven" for head in report.heads),
            summaries=[_summary(report, precision) for precision in PRECISIONS],
            frameworks=frameworks,
            precisions=PRECISIONS,
            groups=_groups(report, frameworks),
            failures=list(_failures(report)),
            panels=layer_panels(report.heads),
            histograms=_histograms(report),
            pair_columns=_pair_columns(report),
            pair_rows=_pair_rows(report),
            check_columns=list(dict.fromkeys(check_name(check) for head in report.heads for check in head.checks)),
            check_rows=_check_rows(report),
            ledgers=[(part, _ledger(part)) for part in report.parts if part.source_tensors],
            gates=[GateCard(gate, gate_rule(gate), needed(report, gate)) for gate in report.gates],
            config_rows=_config_rows(report.parts),
        )
    )


@cache
def environment() -> Environment:
    """Return what renders the pages of this package: all that is put in is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "figure": figure,
        "share": share,
        "exact": exact,
        "place": place,
        "value": value,
        "plural": plural,
        "percent": percent,
        "duration": duration,
        "framework": lambda target: FRAMEWORK_NAMES[target],
        "pair_line": pair_line,
        "run_name": run_name,
        "tries": _tries,
        "beside": _beside,
        "masked": _masked,
        "piece": _piece,
        "bar": bar_width,
    }
    return found


def bar_width(part: float) -> float:
    """Return the width of a bar in percent: full from 1 on, and never so thin that it cannot be seen."""
    if not math.isfinite(part):
        return 100.0
    return round(min(max(100 * part, 1.5 if part else 0.0), 100.0), 1)


def _ran(report: VerificationReport) -> set[TargetFormat]:
    return {*report.frameworks, *(run.framework for head in report.heads for run in head.runs)}


def _verdict(report: VerificationReport) -> Verdict:
    starts = report.verdict.startswith(report.status)
    rest = report.verdict.removeprefix(report.status) if starts else f": {report.verdict}"
    return Verdict(report.status, SYMBOLS[report.status], report.status, rest)


def _summary(report: VerificationReport, precision: Precision) -> Summary:
    runs = [run for head in report.heads for run in head.runs if run.precision == precision]
    arrays = [array for run in runs for array in run.arrays]
    return Summary(
        precision=precision,
        passed=sum(run.outcome == "passed" for run in runs),
        runs=len(runs),
        worst=max(arrays, key=lambda array: array.share, default=None),
        elements=sum(array.elements for array in arrays),
    )


def _groups(report: VerificationReport, frameworks: Sequence[TargetFormat]) -> list[Group]:
    parts = list(dict.fromkeys(head.part for head in report.heads))
    return [
        Group(
            name=(part or "unknown part") if len(parts) > 1 else "",
            rows=tuple(_row(head, frameworks) for head in report.heads if head.part == part),
        )
        for part in parts
    ]


def _row(head: HeadReport, frameworks: Sequence[TargetFormat]) -> Row:
    cells = {target: tuple(_cell(head, target, precision) for precision in PRECISIONS) for target in frameworks}
    return Row(head, head.head, sum(not check.passed for check in head.checks), cells)


def _cell(head: HeadReport, framework: TargetFormat, precision: Precision) -> Cell:
    run = next((run for run in head.runs if (run.framework, run.precision) == (framework, precision)), None)
    worst = max(run.arrays, key=lambda array: array.share, default=None) if run else None
    return Cell(precision, run, worst, bar_width(worst.share) if worst else 0.0, _absent(head, framework, run))


def _absent(head: HeadReport, framework: TargetFormat, run: Run | None) -> str:
    """Say why there are no figures: in an audit, what the others are compared with is not compared itself."""
    if run is not None:
        return {"passed": "nothing compared", "failed": "could not be run", "missing": "not installed"}[run.outcome]
    ran = any(run.framework == framework for run in head.runs)
    return "the reference" if ran and head.status == "audited" else "not run"


def _failures(report: VerificationReport) -> Iterator[Failure]:
    for head in report.heads:
        name = head_name(head, report)
        findings = tuple(head_findings(head, name))
        if findings or head.status == "failed":
            beyond = any(run.divergence for run in head.runs) and len(report.heads) > 1  # of one, the page has a chart
            yield Failure(head, name, findings, tuple(layer_panels([head])) if beyond else ())


def _beside(finding: Finding) -> tuple[str, ...]:
    """Return what a finding says beside its divergence, which is shown field by field."""
    return (*finding.says[:-4], finding.says[-1]) if finding.divergence else finding.says


def layer_panels(heads: Sequence[HeadReport]) -> list[LayerPanel]:
    """Return a chart by layer for each precision: of several heads, what is worst in each array."""
    panels = []
    for precision in PRECISIONS:
        runs = [run for head in heads for run in head.runs if run.precision == precision and run.arrays]
        if not runs:
            continue
        arrays = _array_names(runs)
        frameworks = [target for target in TARGETS if any(run.framework == target for run in runs)]
        curves = [
            Curve(target, FRAMEWORK_NAMES[target], _worst([run for run in runs if run.framework == target], arrays))
            for target in frameworks
        ]
        panels.append(LayerPanel(precision, layer_chart(arrays, curves, _tightest(runs, arrays), figure)))
    return panels


def _array_names(runs: Sequence[Run]) -> list[str]:
    """Return the places on the x axis in the order of the graph, the longest model's if they differ."""
    longest = max(runs, key=lambda run: len(run.arrays))
    return list(dict.fromkeys(_place_of(array) for array in longest.arrays))


def _place_of(array: ArrayResult) -> str:
    return array.array if array.array == "embeddings" or array.array.startswith("layer ") else OUTPUTS


def _worst(runs: Sequence[Run], arrays: Sequence[str]) -> list[float | None]:
    found = {name: [array for run in runs for array in run.arrays if _place_of(array) == name] for name in arrays}
    return [max((array.difference for array in found[name]), default=None) for name in arrays]


def _tightest(runs: Sequence[Run], arrays: Sequence[str]) -> list[float | None]:
    found = {name: [array for run in runs for array in run.arrays if _place_of(array) == name] for name in arrays}
    return [min((array.limit for array in found[name]), default=None) for name in arrays]


def _histograms(report: VerificationReport) -> list[HistogramPanel]:
    """Return a histogram for each framework and precision, over all heads."""
    panels = []
    for precision in PRECISIONS:
        for framework in TARGETS:
            runs = [run for head in report.heads for run in head.runs if run.histogram]
            runs = [run for run in runs if (run.framework, run.precision) == (framework, precision)]
            if runs:
                counts = [sum(column) for column in zip(*(run.histogram for run in runs), strict=True)]
                gate = max((array.limit for run in runs for array in run.arrays), default=None)
                chart = histogram_chart(counts, HISTOGRAM_EDGES, gate)
                panels.append(HistogramPanel(framework, precision, chart, sum(counts)))
    return panels


def _pair_columns(report: VerificationReport) -> list[tuple[TargetFormat, TargetFormat, Precision]]:
    keys = {(pair.first, pair.second, pair.precision) for head in report.heads for pair in head.pairs}
    return sorted(keys, key=lambda key: (TARGETS.index(key[0]), TARGETS.index(key[1]), PRECISIONS.index(key[2])))


def _pair_rows(report: VerificationReport) -> list[PairRow]:
    return [
        PairRow(head_name(head, report), {(pair.first, pair.second, pair.precision): pair for pair in head.pairs})
        for head in report.heads
        if head.pairs
    ]


def _check_rows(report: VerificationReport) -> list[CheckRow]:
    return [
        CheckRow(head_name(head, report), {check_name(check): check for check in head.checks}, head.initialised)
        for head in report.heads
    ]


def _ledger(part: PartReport) -> list[Segment]:
    """Return what became of a checkpoint's tensors, `used` first, then the more frequent."""
    whole = sum(part.source_tensors.values()) or 1
    fates = sorted(part.source_tensors.items(), key=lambda item: (item[0] != "used", -item[1]))
    return [Segment(fate, count, round(100 * count / whole, 2)) for fate, count in fates]


def _config_rows(parts: Sequence[PartReport]) -> list[ConfigRow]:
    fields = sorted({field for part in parts for field in (*part.config, *part.given)})
    return [ConfigRow(field, tuple(_entry(part, field) for part in parts)) for field in fields]


def _entry(part: PartReport, field: str) -> ConfigEntry | None:
    if field not in part.config and field not in part.given:
        return None
    assumed = field in part.given or part.origins.get(field) == ASSUMED
    held: Any = part.config.get(field, part.given.get(field))
    return ConfigEntry(value(held), "" if assumed else part.origins.get(field, ""), assumed)


def _tries(ranking: Ranking) -> list[Try]:
    return [
        Try(candidate, value(candidate.value), candidate.value == ranking.assumed, bar_width(candidate.margin / FAR))
        for candidate in ranking.candidates
    ]


def _masked(look: Look) -> list[LookedAt]:
    return [token for token in look.tokens if token.guesses]


def _piece(token: str) -> str:
    """Return a piece of a word without the marks that say it continues one."""
    return token.removeprefix("##")
