"""Reports for people: tables on stdout, progress on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from electra_convert.formats import FRAMEWORKS, GOOGLE
from electra_convert.output import in_bytes
from electra_convert.plan import is_native
from electra_convert.printable import printable, printable_lines
from electra_convert.progress import Advance, Progress
from electra_convert.report.calls import load_call

if TYPE_CHECKING:
    from electra_convert.convert import ConversionReport, HeadReport, PartReport
    from electra_convert.formats import TargetFormat
    from electra_convert.inspection import InspectedPart, Inspection
    from electra_convert.options import ConvertOptions


def print_json(report: Any) -> None:
    """Print a report as JSON."""
    click.echo(as_json(report))


def as_json(report: Any) -> str:
    """Return a report as JSON."""
    encoded = msgspec.json.encode(report, enc_hook=_spelt_path, order="deterministic")
    return msgspec.json.format(encoded).decode()


def _spelt_path(path: Any) -> str:
    """Return a path as text, even one that is not UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode()


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Yield what shows progress on stderr: a line for each stretch of work, and on a terminal a bar below it."""
    from rich import progress as bars

    console = _PlainConsole(stderr=True)

    @contextmanager
    def stretch(name: str, total: int, *, unit: str = "bytes") -> Iterator[Advance]:
        console.print(f"{name} {in_bytes(total) if unit == 'bytes' else f'{total} {unit}'}", style="dim")
        counts = [bars.DownloadColumn(), bars.TransferSpeedColumn()] if unit == "bytes" else [bars.MofNCompleteColumn()]
        columns = (bars.TextColumn("{task.description:<9}"), bars.BarColumn(), *counts, bars.TimeRemainingColumn())
        with bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
            task = shown.add_task(name, total=total)
            yield lambda count: shown.advance(task, count)

    yield stretch


@contextmanager
def client_progress() -> Iterator[Callable[[str], None]]:
    """Yield what tells on stderr what is waited for; the Hub's client shows its bars on a terminal only."""
    from huggingface_hub.utils import disable_progress_bars

    console = _PlainConsole(stderr=True)
    if not console.is_terminal:
        disable_progress_bars()
    yield lambda text: console.print(text, style="yellow")


def show_conversion(report: ConversionReport, *, dry_run: bool) -> None:
    """Print what a conversion did, or would do."""
    console = stdout_console()
    console.print(Text.assemble((printable(report.source), "bold"), f": {report.topology}"))
    for part in report.parts:
        _show_config(console, part.part, part.config, part.assumed)
    console.print()
    console.print(_head_table(report.heads))
    _show_ledger(console, report.parts)
    _show_notes(console, report)
    count = sum(head.status != "already there" for head in report.heads)
    directories = "1 directory" if count == 1 else f"{count} directories"
    into = "to" if GOOGLE in report.options.targets else f"in {directories} under"
    where = f" {in_bytes(report.nbytes)} {into} {printable(str(report.output))}"
    done = ("Would write", "bold") if dry_run else ("Wrote", "bold green")
    console.print()
    console.print(Text.assemble(done, where), soft_wrap=True)
    if not dry_run:
        _show_calls(console, report)


def show_inspection(inspection: Inspection) -> None:
    """Print what a checkpoint holds."""
    console = stdout_console()
    console.print(Text.assemble((printable(inspection.source), "bold"), f": {inspection.topology}"))
    identity = f"; index sha256 {inspection.identity[:16]}" if inspection.identity else ""
    console.print(f"{len(inspection.tensors)} tensors, {in_bytes(inspection.nbytes)}{identity}")
    if inspection.note:
        console.print(Text.assemble(("note: ", "yellow"), inspection.note))
    for part in inspection.parts:
        _show_part(console, part, "the head of a task" if inspection.tasks else "no head that can be converted")
    for task in inspection.tasks:
        console.print(Text.assemble(("task ", "bold"), (task.name, "bold"), f": {task.says}"))
    click.echo()
    click.echo("\n".join(_tensor_lines(inspection)))


def _tensor_lines(inspection: Inspection) -> Iterator[str]:
    """Yield a line for each tensor; by hand, for a rich table of thousands of rows takes seconds."""
    rows = [("tensor", "shape", "dtype", "canonical name")]
    for tensor in inspection.tensors:
        owners = ", ".join(f"{name} ({part})" for part, name in tensor.canonical.items())
        why = owners or tensor.explanation or "IN NO MAPPING"
        rows.append((tensor.name, str(list(tensor.shape)), tensor.dtype, why))
    rows += [(name, "", "", f"unreadable: {reason}") for name, reason in inspection.unreadable.items()]
    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def stdout_console() -> Console:
    """Return a console on stdout that takes no text for markup: names and paths may hold brackets and colons."""
    console = _PlainConsole()
    return console if console.is_terminal else _PlainConsole(width=160)


class _PlainConsole(Console):
    """A console on which text is shown as it is, and obeyed neither by rich nor by the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render something, with what cannot be printed escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable_lines(segment.text))


def _show_part(console: Console, part: InspectedPart, otherwise: str) -> None:
    """Print what a part is; `otherwise` is said of its head where it has no native head that is known."""
    if part.config is None:
        console.print(Text.assemble("\n", (part.part, "bold"), (" cannot be converted", "red"), f": {part.fault}"))
        return
    head = f"native head {part.native_head}" if part.native_head else otherwise
    console.print()
    _show_config(console, part.part, part.config, part.assumed)
    console.print(f"{part.parameters:,} parameters, {head}")


def _show_config(console: Console, name: str, config: dict[str, Any], assumed: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    sizes = (
        f"{config['num_hidden_layers']} layers of {config['hidden_size']}",
        f"{heads} attention head" + "s" * (heads > 1),
        f"intermediate {config['intermediate_size']}",
        f"embeddings {config['embedding_size']}",
        f"{config['vocab_size']:,} tokens",
        f"{config['max_position_embeddings']} positions",
        f"{config['hidden_act']}",
    )
    console.print(Text.assemble((f"{name}: ", "bold"), ", ".join(sizes)))
    if assumed:
        values = ", ".join(f"{field} = {_spelt(value)}" for field, value in assumed.items())
        console.print(Text.assemble(("assumed, for nothing in the checkpoint shows it: ", "yellow"), values))


def _spelt(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _head_table(heads: Sequence[HeadReport]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("head")
    constructed = any(head.constructed for head in heads)
    for heading in ("copied", *(["constructed"] if constructed else []), "tied", "initialised", "parameters"):
        table.add_column(heading, justify="right")
    table.add_column("")
    both = len({head.part for head in heads}) > 1
    for head in heads:
        name = f"{head.part}/{head.head}" if both else head.head
        note = ", ".join(filter(None, (head.note, "already there" if head.status == "already there" else "")))
        numbers = (head.copied, *([head.constructed] if constructed else []), head.tied, head.initialised)
        style = "bold" if is_native(head.note) else ""
        table.add_row(name, *(str(number or "") for number in numbers), f"{head.parameters:,}", note, style=style)
    return table


def _show_ledger(console: Console, parts: Sequence[PartReport]) -> None:
    console.print()
    for part in parts:
        fates = ", ".join(f"{count} {fate}" for fate, count in part.source_tensors.items())
        total = sum(part.source_tensors.values())
        console.print(f"all {total} tensors of the checkpoint, as the {part.part} sees them: {fates}")


def _show_notes(console: Console, report: ConversionReport) -> None:
    for note in report.notes:
        console.print(Text.assemble(("note: ", "yellow"), note))
    if any("num_attention_heads" in part.assumed for part in report.parts):
        console.print(
            Text.assemble(
                ("note: ", "yellow"), "the hparams of the training run settle most of what is assumed: --config FILE"
            )
        )


def _show_calls(console: Console, report: ConversionReport) -> None:
    """Print the calls that load each part's native head, or else the first head, in each framework."""
    if GOOGLE in report.options.targets:
        console.print(f"\nUse it:\n  {_google_call(report)}", soft_wrap=True)
        return
    native = [head for head in report.heads if is_native(head.note)]
    formats = [target for target in report.options.formats if target in FRAMEWORKS]
    if formats:
        console.print("\nLoad it:")
    for head, target in product(native or report.heads[:1], formats):
        console.print(f"  {_call(head, target, report.options)}", soft_wrap=True)


def _google_call(report: ConversionReport) -> str:
    """Return how Google's code takes a checkpoint: as the model of a name in its data directory."""
    from electra_convert.google.hparams import FINE_TUNING_FILE, HPARAMS_FILE

    pretrained = (report.output / FINE_TUNING_FILE).is_file()
    goes_on = pretrained and report.options.optimizer_slots
    script = "run_pretraining.py" if goes_on else "run_finetuning.py"
    hparams = report.output / (FINE_TUNING_FILE if pretrained and not goes_on else HPARAMS_FILE)
    call = f"python {script} --data-dir DATA --model-name NAME --hparams {printable(str(hparams))}"
    return f"{call}  # once it lies in DATA/models/NAME"


def _call(head: HeadReport, target: TargetFormat, options: ConvertOptions) -> str:
    split = options.split_formats
    place, formats = (head.directory / target, (target,)) if split else (head.directory, options.formats)
    return load_call(head.architecture, target, place, formats=formats)
