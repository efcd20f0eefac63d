"""A verification on a terminal: a table to glance at, what failed in full, and the verdict last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from electra_convert.formats import TargetFormat
    from electra_convert.parity.report import (
        Check,
        Coverage,
        Divergence,
        Element,
        GateReport,
        HeadReport,
        Look,
        PartReport,
        Ranking,
        Run,
        Status,
        VerificationReport,
    )
    from electra_convert.parity.self_test import CaseReport, SelfTestReport

STYLES: dict[Status, str] = {
    "proven": "bold green",
    "audited": "bold yellow",
    "unverified": "bold yellow",
    "incomplete": "bold yellow",
    "failed": "bold red",
}
PASSED, FAILED, MISSING = "\N{CHECK MARK}", "\N{BALLOT X}", "\N{EM DASH}"
MOST_FAULTS = 5
"""Faults of one check that are printed; the others are counted."""


def show_verification(report: VerificationReport, console: Console) -> None:
    """Print what a verification found."""
    if report.source:
        console.print(Text.assemble((report.source, "bold"), f": {report.topology}"))
    console.print(_matrix(report))
    for head in report.heads:
        _show_failures(console, head)
    console.print()
    for part in report.parts:
        _show_part(console, part, several=len(report.parts) > 1)
    for gate in report.gates:
        _show_gate(console, gate, report.heads)
    for note in report.notes:
        console.print(Text.assemble(("note: ", "yellow"), note))
    console.print()
    console.print(Text(report.verdict, STYLES[report.status]))


def _matrix(report: VerificationReport) -> Table:
    """Return a row for each head: what its files hold, and how far each framework is from the oracle."""
    shown = (*report.frameworks, *report.missing)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("head", overflow="fold")
    table.add_column("files")
    for framework in shown:
        table.add_column(f"{framework}\nfloat64  float32", justify="left", no_wrap=True)
    several = len({head.part for head in report.heads}) > 1
    for head in report.heads:
        name = f"{head.part}/{head.head}" if several else head.head
        cells = [_cell([run for run in head.runs if run.framework == framework]) for framework in shown]
        table.add_row(Text(name, "bold" if head.status == "failed" else ""), _files(head.checks), *cells)
    return table


def _files(checks: Sequence[Check]) -> Text:
    bad = [check for check in checks if not check.passed]
    return Text(f"{FAILED} {len(bad)} of {len(checks)}", "red") if bad else Text(f"{PASSED} {len(checks)}", "green")


def _cell(runs: Sequence[Run]) -> Text:
    """Return both precisions of one framework on one head."""
    if not runs:
        return Text(MISSING, "dim")
    return Text("  ").join(_figure(run) for run in sorted(runs, key=lambda run: run.precision, reverse=True))


def _figure(run: Run) -> Text:
    if run.outcome == "missing":
        return Text("missing", "yellow")
    if not run.arrays:
        return Text(f"{FAILED} error ", "red")
    worst = max(run.arrays, key=lambda each: each.share)
    passed = run.outcome == "passed"
    return Text(f"{PASSED if passed else FAILED} {worst.difference:.0e}", "green" if passed else "red")


def _show_failures(console: Console, head: HeadReport) -> None:
    """Print what failed in one directory, all of it."""
    lines = [*_failures(head)]
    if lines:
        console.print(Text.assemble("\n", (f"{head.head}", "bold red"), f" in {head.directory}"))
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)
    for cause in head.causes if lines else ():
        console.print(Text.assemble(("  likely cause: ", "yellow"), cause), soft_wrap=True)


def _failures(head: HeadReport) -> Iterator[str]:
    for check in head.checks:
        if not check.passed:
            where = f" ({check.framework})" if check.framework else ""
            yield f"{check.name}{where}: {check.says}"
            yield from (f"  {fault}" for fault in check.faults[:MOST_FAULTS])
            if len(check.faults) > MOST_FAULTS:
                yield f"  and {len(check.faults) - MOST_FAULTS} more"
    for run in head.runs:
        if run.outcome == "failed":
            yield f"{run.framework} {run.precision}: {_divergence(run.divergence) if run.divergence else run.message}"
    for pair in head.pairs:
        if not pair.passed:
            yield (
                f"{pair.first} and {pair.second} {pair.precision}: apart by {pair.difference:.3g} in {pair.array}; "
                f"{pair.limit:.3g} is allowed"
            )


def _divergence(found: Divergence) -> str:
    return (
        f"first diverges at {found.array}, on {found.probe}: off by {found.difference:.3g} where {found.limit:.3g} is "
        f"allowed; {_element(found.worst)}"
    )


def _element(element: Element) -> str:
    return f"element {list(element.index)} is {element.got:.9g}, expected {element.expected:.9g}"


def _show_part(console: Console, part: PartReport, *, several: bool) -> None:
    about = f"{part.part}: " if several and part.part else ""
    console.print(Text(f"{about}{_covered(part.coverage)}"))
    for ranking in part.rankings:
        _show_ranking(console, ranking)
    if part.look:
        _show_look(console, part.look)
    if part.drift:
        drift = max(part.drift.values())
        console.print(Text(f"{about}the lower dtype moves outputs by up to {drift:.3g} (shown, not gated)"))


def _covered(coverage: Coverage) -> str:
    lengths = ", ".join(str(probe.shape[1]) for probe in coverage.probes)
    said = (
        f"probes of length {lengths}: {coverage.tokens:,} tokens, {coverage.positions:.0%} of positions, "
        f"{coverage.vocabulary:.1%} of the vocabulary, {coverage.token_types:.0%} of token types"
    )
    return f"{said} ({coverage.scaled})" if coverage.scaled else said


def _show_gate(console: Console, gate: GateReport, heads: Sequence[HeadReport]) -> None:
    needed = [run.needed for head in heads for run in head.runs if run.arrays and run.precision == gate.precision]
    share = f"; {max(needed):.2g} of it would have passed" if needed else ""
    console.print(Text(f"gate of {gate.precision}: {gate.rule}{share}"))
    if gate.loosened != 1:
        console.print(Text(f"  LOOSENED {gate.loosened:g} times on request: this counts as unverified", "bold yellow"))


def _show_ranking(console: Console, ranking: Ranking) -> None:
    style = {"confirmed": "green", "refuted": "red", "undecided": "yellow"}[ranking.finding]
    console.print(
        Text.assemble(f"{ranking.field} = {ranking.assumed}: ", (ranking.finding, style), f" by text: {ranking.says}")
    )
    losses = ", ".join(f"{each.value}: {each.loss:.4f}" for each in ranking.candidates)
    console.print(Text(f"  loss on {ranking.tokens:,} tokens, by {ranking.field}: {losses}", "dim"))


def _show_look(console: Console, look: Look) -> None:
    """Print a sentence as the model sees it."""
    console.print(Text.assemble("a look (shown, not gated): ", (look.sentence, "italic")))
    if look.head == "masked_lm":
        for token in look.tokens:
            if token.guesses:
                guesses = ", ".join(f"{piece} {share:.1%}" for piece, share in token.guesses)
                console.print(Text(f"  at [MASK] it expects: {guesses}"))
        return
    scored = Text("  how likely each token was replaced: ")
    for token in look.tokens:
        score = token.score or 0.0
        mark = "*" if token.replaced else ""
        scored.append(f"{token.token}{mark} {score:.2f}  ", "bold red" if score > 0.5 else "")
    console.print(scored)
    if any(token.replaced for token in look.tokens):
        console.print(Text("  (* was put there in place of another)", "dim"))


def show_self_test(report: SelfTestReport, console: Console) -> None:
    """Print what caught each kind of fault."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    columns = ("round trip", "config", "loading", "float64", "float32")
    table.add_column("fault")
    for heading in ("cases", "caught", *columns):
        table.add_column(heading, justify="right")
    for fault in dict.fromkeys(case.fault for case in report.cases):
        cases = [case for case in report.cases if case.fault == fault]
        caught = sum(bool(case.caught_by) for case in cases)
        counts = [sum(column in case.caught_by for case in cases) for column in columns]
        style = "" if caught == len(cases) else "bold red"
        table.add_row(fault, str(len(cases)), str(caught), *(str(count or "") for count in counts), style=style)
    console.print(table)
    console.print()
    for line in _unseen(report.cases):
        console.print(Text(line))
    for trouble in report.undamaged:
        console.print(Text(f"the undamaged model fails: {trouble}", "red"))
    missed = [case for case in report.cases if not case.caught_by]
    for case in missed:
        console.print(Text(f"not caught: {case.fault} of {case.where} ({case.head}, {case.framework})", "red"))
    said = f"{len(report.cases) - len(missed)} of {len(report.cases)} faults caught in {_listed(report.frameworks)}"
    console.print(Text(f"{said}, in {report.seconds:.0f} s", "bold green" if report.passed else "bold red"))


def _unseen(cases: Sequence[CaseReport]) -> Iterator[str]:
    """Yield what no run of a model could see."""
    blind = [case for case in cases if case.caught_by and not {"float64", "float32", "loading"} & set(case.caught_by)]
    places = sorted({case.where for case in blind})
    if places:
        yield f"no output shows a fault in {', '.join(places)}: the files alone do"


def _listed(frameworks: Sequence[TargetFormat]) -> str:
    return " and ".join(frameworks)
