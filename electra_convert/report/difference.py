"""A comparison of two checkpoints on the terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from electra_convert.diff.report import ComparedSide, Difference, Fate, FieldDifference, TensorDifference
from electra_convert.report.words import plural

MOST_LINES = 36
"""Tensors, or other things, that are listed; of the others, the number is told."""
LONGEST_VALUE = 80
"""Characters of a value of the config that are shown."""
PHRASES: dict[Fate, str] = {
    "cast": "equal after rounding to the narrower dtype",
    "differs": "differing",
    "another shape": "of another shape",
    "missing in A": "missing in A",
    "missing in B": "missing in B",
}
"""What is said of so many tensors, by fate."""


def show_difference(report: Difference, console: Console) -> None:
    """Print in what two checkpoints differ: a line for each of config, tensors and tokenizer, then what differs."""
    for name, side in (("A", report.a), ("B", report.b)):
        console.print(Text.assemble((name, "bold"), f"  {_side(side)}"), soft_wrap=True)
    console.print()
    for name, says, equal in _summaries(report):
        console.print(Text.assemble((f"{name:<9}  ", "bold"), (says, "green" if equal else "red")), soft_wrap=True)
    for lines in (
        [*map(_field_line, report.config)],
        _aligned([*map(_tensor_cells, report.different)]),
        [f"{each.file}: {each.says}" for each in report.tokenizer],
    ):
        _show_lines(lines, console)


def _side(side: ComparedSide) -> str:
    says = f"{side.source}: {side.model}, {side.format}"
    if side.unread:
        says += f" ({' and '.join(side.unread)} beside it not read: --format)"
    if side.unknown:
        says += f"; {plural(len(side.unknown), 'tensor')} in no mapping: {', '.join(side.unknown[:3])}"
        says += ", ..." if len(side.unknown) > 3 else ""
    return says


def _summaries(report: Difference) -> Iterator[tuple[str, str, bool]]:
    """Yield what is compared, what was found, and whether it is equal."""
    yield "config", _of_all(len(report.config), report.fields, "field"), not report.config
    yield "tensors", _tensors(report), not report.different
    files = _of_all(len(report.tokenizer), len(report.files), "file") if report.files else "on neither side"
    yield "tokenizer", files, not report.tokenizer


def _of_all(different: int, count: int, thing: str) -> str:
    return f"{different} of {plural(count, thing)} differ" if different else f"{plural(count, thing)} equal"


def _tensors(report: Difference) -> str:
    equal = report.tensors - len(report.different)
    if not report.different:
        return f"{plural(equal, 'tensor')} equal bit for bit"
    counts = Counter(each.fate for each in report.different)
    found = [f"{counts[fate]} {phrase}" for fate, phrase in PHRASES.items() if fate in counts]
    return f"of {plural(report.tensors, 'tensor')}: {', '.join([f'{equal} equal bit for bit', *found])}"


def _field_line(found: FieldDifference) -> str:
    a, b = (
        _value(value) + " (assumed: --config)" * (side in found.assumed)
        for side, value in (("A", found.a), ("B", found.b))
    )
    return f"{found.field}: {a} in A, {b} in B"


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _tensor_cells(found: TensorDifference) -> tuple[str, str]:
    return found.name, f"{found.fate}: {_detail(found)}"


def _detail(found: TensorDifference) -> str:
    if found.fate != "differs":
        return ", ".join(filter(None, (found.a, found.b)))
    dtypes = "" if found.a == found.b else f", {found.a} and {found.b}"
    at = list(found.at or ())
    if found.largest is None:
        return f"not a finite number at {at} of one{dtypes}"
    return f"by up to {found.largest:.3g}, at {at}" + (" (signs of zeros, or NaN)" * (not found.largest)) + dtypes


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in rows[:MOST_LINES]), default=0)
    return [f"{name:<{width}}  {says}" for name, says in rows]


def _show_lines(lines: Sequence[str], console: Console) -> None:
    """Print some lines after a blank one, and how many more there are."""
    for line in ["", *lines[:MOST_LINES]] if lines else []:
        console.print(Text(f"  {line}" if line else ""), soft_wrap=True)
    if len(lines) > MOST_LINES:
        console.print(Text(f"  and {len(lines) - MOST_LINES} more", "dim"))
