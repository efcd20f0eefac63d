"""A verification on GitHub: the summary of a step, the annotations of a run, and the outputs of a step."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple, get_args

from electra_convert.errors import ElectraConvertError
from electra_convert.formats import FRAMEWORK_NAMES, TARGETS, TargetFormat
from electra_convert.parity.report import PRECISIONS, HeadReport, PartReport, Run, Status, VerificationReport
from electra_convert.report.words import (
    SYMBOLS,
    Finding,
    figure,
    gate_rule,
    head_findings,
    head_name,
    needed,
    plural,
    share,
    value,
)

Kind = Literal["error", "warning", "notice"]
KINDS: tuple[Kind, ...] = get_args(Kind)
VERDICT_KINDS: dict[Status, Kind] = {
    "proven": "notice",
    "audited": "warning",
    "unverified": "error",
    "incomplete": "error",
    "failed": "error",
}
"""How loud a verdict is; what ends a run is an error."""
RANKING_KINDS: dict[str, Kind] = {"confirmed": "notice", "undecided": "notice", "refuted": "error"}
MOST_ANNOTATIONS = 10
"""Annotations of a kind that GitHub shows of a step; it drops the others and does not say so."""
MOST_BYTES = 1_000_000
"""Of a summary. GitHub takes 1 MiB of a step, and nothing at all of a longer one."""
MOST_LINES = 12
"""Lines of one finding that are told."""
MARKUP = re.compile(r"[\\`*_{}\[\]()<>#!|~&$@^]")
"""Characters that may mean something in GitHub's Markdown."""


class Annotation(NamedTuple):
    """What GitHub shows beside a run.

    Args:
        kind: How loud it is.
        title: What it is about.
        says: What is to be known, a line each.
    """

    kind: Kind
    title: str
    says: str


def render_annotations(report: VerificationReport) -> Iterator[str]:
    """Yield workflow commands that annotate a run: the verdict, and one for each finding.

    GitHub shows ten of a kind. Where there are more, the tenth says how many.

    Args:
        report: What a verification found.
    """
    told = [_verdict(report), *_findings(report), *_rankings(report), *_notes(report)]
    for kind in KINDS:
        yield from map(_command, _shown([each for each in told if each.kind == kind]))


def render_error(error: ElectraConvertError) -> str:
    """Return the workflow command that annotates a run with what kept it from a verdict."""
    return _command(Annotation("error", "electra-convert", str(error)))


def render_outputs(report: VerificationReport) -> str:
    """Return the outputs of a step: `status` and `verdict`, a line each."""
    return f"status={report.status}\nverdict={_line(report.verdict)}\n"


def render_summary(report: VerificationReport) -> str:
    """Return a verification as the Markdown of a step summary.

    Args:
        report: What a verification found.
    """
    blocks = [f"## {SYMBOLS[report.status]} {_text(report.verdict)}", _subject(report), _matrix(report)]
    blocks += filter(None, ["\n".join(f"- {line}" for line in _given(report))])
    failing = list(_failing(report))
    about = _about(report)
    shown = _fitting(failing, MOST_BYTES - sum(map(_size, [*blocks, about])))
    if len(shown) < len(failing):
        shown.append(
            f"{len(failing) - len(shown)} more fail, for which there is no room here: the HTML report has them all."
        )
    return "\n\n".join([*blocks, *shown, about]) + "\n\n"


def _verdict(report: VerificationReport) -> Annotation:
    return Annotation(VERDICT_KINDS[report.status], f"electra-convert: {report.status}", report.verdict)


def _findings(report: VerificationReport) -> Iterator[Annotation]:
    for head in report.heads:
        for finding in head_findings(head, head_name(head, report)):
            lines = [*_cut(finding.says), *(f"likely cause: {cause}" for cause in head.causes)]
            yield Annotation("error", f"{finding.where}: {finding.what}", "\n".join(lines))


def _rankings(report: VerificationReport) -> Iterator[Annotation]:
    for part in report.parts:
        for ranking in part.rankings:
            yield Annotation(RANKING_KINDS[ranking.finding], f"{ranking.field}: {ranking.finding}", ranking.says)


def _notes(report: VerificationReport) -> Iterator[Annotation]:
    for note in report.notes:
        yield Annotation("warning", "electra-convert", note)


def _shown(told: Sequence[Annotation]) -> Sequence[Annotation]:
    """Return what GitHub shows of annotations of one kind, with the last for those that it does not."""
    if len(told) <= MOST_ANNOTATIONS:
        return told
    shown = told[: MOST_ANNOTATIONS - 1]
    more = f"{len(told) - len(shown)} more are not shown here: the step summary has them"
    return [*shown, Annotation(told[0].kind, "electra-convert", more)]


def _command(annotation: Annotation) -> str:
    """Spell a workflow command; nothing in it can end it or begin another."""
    title = _escaped(annotation.title).replace(":", "%3A").replace(",", "%2C")
    return f"::{annotation.kind} title={title}::{_escaped(annotation.says)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _cut(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"and {len(lines) - MOST_LINES} more: the HTML report has them all"


def _subject(report: VerificationReport) -> str:
    source = f", against **{_text(report.source)}** (sha256 `{report.identity[:16]}`)" if report.identity else ""
    about = f": {_text(report.topology)}" if report.topology else ""
    return f"**{_text(str(report.output))}**{source}{about}"


def _matrix(report: VerificationReport) -> str:
    """Return the table of heads and frameworks."""
    ran = [target for target in TARGETS if target in {*report.frameworks, *report.missing}]
    names = [f"{FRAMEWORK_NAMES[target]}<br><sub>float64 / float32 (gate)</sub>" for target in ran]
    rows = [["head", "files", *names], ["---", ":---:", *("---" for _ in ran)]]
    rows += [[_name(head, report), _files(head), *(_cell(head, target) for target in ran)] for head in report.heads]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _name(head: HeadReport, report: VerificationReport) -> str:
    name = _text(head_name(head, report))
    return f"**{name}**" if head.status == "failed" else name


def _files(head: HeadReport) -> str:
    if not head.checks:
        return "·"
    return "✓" if all(check.passed for check in head.checks) else "✗"


def _cell(head: HeadReport, target: TargetFormat) -> str:
    """Return what a framework made of a head: its worst difference in each dtype, and the share of the gate."""
    runs = {run.precision: run for run in head.runs if run.framework == target}
    if not runs:
        return "·"
    if all(run.outcome == "missing" for run in runs.values()):
        return "not installed"
    mark = "✓" if all(run.outcome == "passed" for run in runs.values()) else "✗"
    differences = " / ".join(_difference(runs.get(precision)) for precision in PRECISIONS)
    compared = [run.needed for run in runs.values() if run.arrays]
    return f"{mark} {differences}" + (f" ({share(max(compared))})" if compared else "")


def _difference(run: Run | None) -> str:
    if run is None or not run.arrays:
        return "·" if run is None else "none"
    return figure(max(run.arrays, key=lambda each: each.share).difference)


def _given(report: VerificationReport) -> Iterator[str]:
    """Yield what the verdict rests on that no file shows, what text says of it, and what a user should know."""
    for part in report.parts:
        yield from _assumed(part)
        for ranking in part.rankings:
            yield f"{_text(ranking.field)} **{ranking.finding}**: {_text(ranking.says)}"
    yield from (f"note: {_text(note)}" for note in report.notes)


def _assumed(part: PartReport) -> Iterator[str]:
    if part.given:
        fields = ", ".join(f"{field} = {value(given)}" for field, given in part.given.items())
        yield f"assumed of the {part.part}, for no tensor shows it: {_text(fields)}"


def _failing(report: VerificationReport) -> Iterator[str]:
    """Yield what fails in each directory, to be unfolded."""
    for head in report.heads:
        name = head_name(head, report)
        findings = list(head_findings(head, name))
        if findings:
            heading = f"✗ {_text(name)} fails {plural(len(findings), 'check')}"
            causes = [f"likely cause: **{_text(cause)}**" for cause in head.causes]
            told = "\n\n".join([*causes, *map(_finding, findings)])
            yield f"<details><summary>{heading}</summary>\n\n{told}\n\n</details>"


def _finding(finding: Finding) -> str:
    return f"✗ **{_text(finding.what)}**\n\n<pre>{html.escape(chr(10).join(_cut(finding.says)), quote=False)}</pre>"


def _about(report: VerificationReport) -> str:
    """Return how it was checked, to be unfolded."""
    lines = [f"{plural(len(part.coverage.probes), 'probe')} of the {part.part or 'model'}" for part in report.parts]
    for gate in report.gates:
        enough = needed(report, gate)
        would = "nothing was compared" if enough is None else f"{figure(enough)} times that would have passed"
        lines.append(f"gate of {gate.precision}: {gate_rule(gate)}; {would}")
    lines += [", ".join(" ".join(each) for each in report.versions.items()), report.machine]
    told = "\n".join(f"- {_text(line)}" for line in lines if line)
    return f"<details><summary>How it was checked, in {report.seconds:.0f} s</summary>\n\n{told}\n\n</details>"


def _fitting(blocks: Sequence[str], room: int) -> list[str]:
    """Return those of the blocks, from the first, that fit into so many bytes."""
    ends = accumulate(map(_size, blocks))
    return [block for block, end in zip(blocks, ends, strict=True) if end <= room]


def _size(block: str) -> int:
    return len(f"{block}\n\n".encode("utf-8", "backslashreplace"))


def _line(text: str) -> str:
    return " ".join(text.split())


def _text(text: str) -> str:
    """Return text as one line in which Markdown finds nothing to mark up."""
    return MARKUP.sub(lambda found: f"&#{ord(found[0])};", _line(text))
