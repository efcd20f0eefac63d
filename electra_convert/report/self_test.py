"""The self-test on a terminal: which check caught which kind of fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from electra_convert.parity.verdict import listed

if TYPE_CHECKING:
    from electra_convert.parity.self_test import CaseReport, SelfTestReport

CHECKS = ("round trip", "config", "loading", "float64", "float32")


def show_self_test(report: SelfTestReport, console: Console) -> None:
    """Print what caught each kind of fault."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("fault")
    for heading in ("cases", "caught", *CHECKS):
        table.add_column(heading, justify="right")
    for fault in dict.fromkeys(case.fault for case in report.cases):
        cases = [case for case in report.cases if case.fault == fault]
        caught = sum(bool(case.caught_by) for case in cases)
        counts = [sum(column in case.caught_by for case in cases) for column in CHECKS]
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
    frameworks = listed(report.frameworks)
    said = f"{len(report.cases) - len(missed)} of {len(report.cases)} faults caught in {frameworks}"
    console.print(Text(f"{said}, in {report.seconds:.0f} s", "bold green" if report.passed else "bold red"))


def _unseen(cases: Sequence[CaseReport]) -> Iterator[str]:
    """Yield what no run of a model could see."""
    blind = [case for case in cases if case.caught_by and not {"float64", "float32", "loading"} & set(case.caught_by)]
    places = sorted({case.where for case in blind})
    if places:
        yield f"no output shows a fault in {', '.join(places)}: the files alone do"
