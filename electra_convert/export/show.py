"""An export on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from electra_convert.export.report import Exported, ExportReport
from electra_convert.export.targets import DESCRIBED
from electra_convert.formats import FRAMEWORK_NAMES
from electra_convert.output import in_bytes
from electra_convert.report.words import figure, share


def show_export(report: ExportReport, console: Console, *, written: bool = True) -> None:
    """Print what was exported, how closely it agrees, and the calls that load it.

    Args:
        report: The report.
        console: Where to.
        written: It was written now, and not only verified.
    """
    console.print(
        Text.assemble(
            (report.model, "bold"), f": {report.architecture}, {report.parameters:,} parameters, {report.format}"
        ),
        soft_wrap=True,
    )
    console.print()
    console.print(_table(report))
    console.print(
        f"Each was loaded by its library alone, run, and compared with the {FRAMEWORK_NAMES[report.reference]} model "
        "in float64.",
        soft_wrap=True,
    )
    console.print()
    if not written:
        console.print(Text.assemble(("✓ ", "green"), f"proven: {in_bytes(report.nbytes)} in {report.output}"))
        return
    console.print(
        Text.assemble(("Wrote", "bold green"), f" {in_bytes(report.nbytes)} to {report.output}"), soft_wrap=True
    )
    console.print("\nLoad it with:")
    for exported in report.exported:
        console.print(f"  {exported.call}", soft_wrap=True)


def _table(report: ExportReport) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("target", "files", "output", "difference", "gate"):
        table.add_column(heading, justify="right" if heading in ("files", "difference", "gate") else "left")
    for exported in report.exported:
        for row in _rows(exported):
            table.add_row(*row)
    return table


def _rows(exported: Exported) -> list[tuple[str, ...]]:
    """Return a row for each output of a target; the others begin with blanks."""
    size = in_bytes(exported.nbytes)
    begins = [(DESCRIBED[exported.target].title, size), *[("", "")] * len(exported.agreement)]
    return [
        (*begin, found.output, figure(found.difference), share(found.difference / found.limit if found.limit else 0.0))
        for begin, found in zip(begins, exported.agreement, strict=False)
    ]
