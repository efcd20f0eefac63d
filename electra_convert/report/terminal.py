"""A verification on the terminal: a table, what failed in full, and the verdict as the last thing one reads."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from electra_convert.formats import FRAMEWORK_NAMES, TARGETS, TargetFormat
from electra_convert.parity.report import (
    PRECISIONS,
    Check,
    HeadReport,
    Look,
    PartReport,
    Ranking,
    Run,
    Status,
    VerificationReport,
)
from electra_convert.report.words import (
    Finding,
    figure,
    gate_rule,
    head_findings,
    head_name,
    needed,
    percent,
    plural,
    share,
)

STYLES: dict[Status, str] = {
    "proven": "bold green",
    "failed": "bold red",
    "incomplete": "bold yellow",
    "unverified": "bold yellow",
    "audited": "bold cyan",
}
WIDE = 116
"""Columns from which there is room for two digits and the share of the gate."""
MOST_LINES = 12
"""Lines of one finding that are printed."""


def show_verification(report: VerificationReport, console: Console) -> None:
    """Print what a verification found.

    Args:
        report: What was found.
        console: Where to print; one that takes no text for markup.
    """
    _show_subject(report, console)
    console.print()
    console.print(_table(report, console))
    _show_findings(report, console)
    console.print()
    for part in report.parts:
        _show_coverage(part, report, console)
    _show_gates(report, console)
    for part in report.parts:
        for ranking in part.rankings:
            _show_ranking(ranking, console)
        if part.look:
            _show_look(part.look, console)
    for note in report.notes:
        console.print(Text.assemble(("note: ", "yellow"), note))
    console.print()
    _show_verdict(report, console)


def _marks(console: Console) -> tuple[str, str, str]:
    """Return the marks of what passed, what failed, and what was not run, as the terminal can show them."""
    return ("✓", "✗", "·") if console.encoding.lower().startswith("utf") else ("+", "X", "-")


def _show_subject(report: VerificationReport, console: Console) -> None:
    about = f": {report.topology}" if report.topology else ""
    source = f", against {report.source} (sha256 {report.identity[:16]})" if report.identity else ""
    console.print(Text.assemble((str(report.output), "bold"), source, about), soft_wrap=not console.is_terminal)


def _table(report: VerificationReport, console: Console) -> Table:
    wide = console.width >= WIDE
    ran = [target for target in TARGETS if target in {*report.frameworks, *report.missing}]
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("head", no_wrap=True)
    table.add_column("files", justify="center", min_width=5)
    for target in ran:
        heading = "  float64  float32  gate" if wide else "    f64   f32"
        table.add_column(Text.assemble((FRAMEWORK_NAMES[target], "bold"), "\n", (heading, "dim")), no_wrap=True)
    parts = list(dict.fromkeys(head.part for head in report.heads))
    for part in parts:
        if len(parts) > 1:
            table.add_row(Text(part or "unknown part", style="bold"), *[""] * (1 + len(ran)))
        for head in (head for head in report.heads if head.part == part):
            cells = [_cell(head, target, console, wide=wide) for target in ran]
            name = ("  " if len(parts) > 1 and wide else "") + head.head
            table.add_row(Text(name, style=_head_style(head)), _files(head.checks, console), *cells)
    return table


def _head_style(head: HeadReport) -> str:
    return "bold red" if head.status == "failed" else ""


def _files(checks: Sequence[Check], console: Console) -> Text:
    """Return the mark of a directory's files: the weights, the config and the tokenizer."""
    passed, failed, absent = _marks(console)
    if not checks:
        return Text(absent, style="dim")
    return Text(passed, style="green") if all(check.passed for check in checks) else Text(failed, style="bold red")


def _cell(head: HeadReport, target: TargetFormat, console: Console, *, wide: bool) -> Text:
    passed, failed, absent = _marks(console)
    runs = {run.precision: run for run in head.runs if run.framework == target}
    if not runs or all(run.outcome == "missing" for run in runs.values()):
        return Text(f"{absent} not installed" if runs else absent, style="yellow" if runs else "dim")
    good = all(run.outcome == "passed" for run in runs.values())
    cell = Text(f"{passed if good else failed} ", style="green" if good else "bold red")
    for number, precision in enumerate(PRECISIONS):
        cell.append(" " * (2 if wide else 1) if number else "")
        cell.append(*_difference(runs.get(precision), absent, width=7 if wide else 5))
    if wide:
        shares = [run.needed for run in runs.values() if run.arrays]
        cell.append(f"  {share(max(shares)).rjust(4) if shares else ''}", style="dim" if good else "red")
    return cell


def _difference(run: Run | None, absent: str, *, width: int) -> tuple[str, str]:
    """Return the worst difference of a run, and its style."""
    if run is None or not run.arrays:
        says, style = (absent, "dim") if run is None else ("none", "bold red")
        return says.rjust(width), style
    worst = max(run.arrays, key=lambda each: each.share)
    says = figure(worst.difference, digits=2 if width > 5 else 1)
    return says.rjust(width), "not bold default" if run.outcome == "passed" else "bold red"


def _show_findings(report: VerificationReport, console: Console) -> None:
    for head in report.heads:
        name = head_name(head, report)
        findings = list(head_findings(head, name))
        if not findings:
            continue
        console.print()
        console.print(Text.assemble((name, "bold red"), f" {_failed(findings)}"))
        for finding in findings:
            _show_finding(finding, console)
        for cause in head.causes:
            console.print(Padding(Text.assemble(("likely cause: ", "yellow"), cause), (0, 0, 0, 2), expand=False))


def _failed(findings: Sequence[Finding]) -> str:
    return f"fails {plural(len(findings), 'check')}:"


def _show_finding(finding: Finding, console: Console) -> None:
    _, failed, _ = _marks(console)
    console.print(
        Padding(Text.assemble((f"{failed} ", "bold red"), (finding.what, "bold")), (0, 0, 0, 2), expand=False)
    )
    for line in finding.says[:MOST_LINES]:
        console.print(Padding(Text(line), (0, 0, 0, 4), expand=False))
    if len(finding.says) > MOST_LINES:
        console.print(
            Padding(
                Text(f"and {len(finding.says) - MOST_LINES} more: --json lists them all"), (0, 0, 0, 4), expand=False
            )
        )


def _show_coverage(part: PartReport, report: VerificationReport, console: Console) -> None:
    coverage = part.coverage
    name = f"{part.part} " if part.part and len(report.parts) > 1 else ""
    reach = ", ".join(
        f"{percent(reached)} of {what}"
        for what, reached in (
            ("positions", coverage.positions),
            ("token types", coverage.token_types),
            ("the vocabulary", coverage.vocabulary),
        )
    )
    what = f"{plural(len(coverage.probes), 'probe')}, {plural(coverage.tokens, 'token')}: {reach}"
    console.print(Text.assemble((f"{name}probes  ", "dim"), what, f"; {coverage.scaled}" if coverage.scaled else ""))
    if part.drift:
        head, drift = max(part.drift.items(), key=lambda item: item[1])
        says = f"the lower dtype moves outputs by up to {figure(drift)} ({head}); shown, not gated"
        console.print(Text.assemble(("drift  ", "dim"), says))


def _show_gates(report: VerificationReport, console: Console) -> None:
    for gate in report.gates:
        enough = needed(report, gate)
        would = "nothing was compared" if enough is None else f"{figure(enough)} times that would have passed"
        console.print(Text.assemble((f"gate {gate.precision}  ", "dim"), f"{gate_rule(gate)}; {would}"))
        if gate.loosened != 1:
            console.print(
                Text(f"  LOOSENED {gate.loosened:g} times on request: this counts as unverified", "bold yellow")
            )


def _show_ranking(ranking: Ranking, console: Console) -> None:
    style = {"confirmed": "green", "refuted": "bold red", "undecided": "yellow"}[ranking.finding]
    console.print()
    console.print(Text.assemble((f"{ranking.field} {ranking.finding}", style), f": {ranking.says}"))
    table = Table(box=None, padding=(0, 2, 0, 2), show_edge=False)
    table.add_column("value")
    for heading in ("loss", "standard errors from the best"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for each in ranking.candidates:
        mark = "assumed" if each.value == ranking.assumed else ""
        table.add_row(str(each.value), f"{each.loss:.4f}", f"{each.margin:.1f}" if each.margin else "", mark)
    console.print(table)


def _show_look(look: Look, console: Console) -> None:
    """Print a sentence as a native head sees it: each token with its score, or the guesses for `[MASK]`."""
    console.print()
    what = "how likely each token was put there" if look.head == "pretraining" else "the likeliest for [MASK]"
    console.print(Text.assemble(("a look, not gated: ", "dim"), what))
    line = Text("  ")
    for token in look.tokens:
        style = "" if token.score is None else "red" if token.score >= 0.5 else "green"
        line.append(f"{token.token}", style=f"{style} underline" if token.replaced else style)
        line.append(f" {100 * token.score:.0f}%  " if token.score is not None else " ", style="dim")
    console.print(line)
    for token in look.tokens:
        guesses = ", ".join(f"{guess} {100 * probability:.0f}%" for guess, probability in token.guesses)
        if guesses:
            console.print(Text.assemble((f"  {token.token}: ", "dim"), guesses))
    if any(token.replaced for token in look.tokens):
        replaced = ", ".join(token.token for token in look.tokens if token.replaced)
        console.print(Text(f"  replaced: {replaced}", style="dim"))


def _show_verdict(report: VerificationReport, console: Console) -> None:
    passed, failed, absent = _marks(console)
    mark = {"proven": passed, "failed": failed}.get(report.status, absent)
    told, colon, rest = report.verdict.partition(report.status)
    says = (rest, "") if not told and colon else (f": {report.verdict}", "")
    style = STYLES[report.status]
    console.print(Text.assemble((f"{mark} ", style), (report.status, style), says), soft_wrap=True)
