"""Figures and findings in words, the same wherever a verification is shown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from electra_convert.formats import FRAMEWORK_NAMES
from electra_convert.parity.report import (
    Check,
    Divergence,
    Element,
    GateReport,
    HeadReport,
    Pair,
    Run,
    Status,
    VerificationReport,
)

SYMBOLS: dict[Status, str] = {"proven": "✓", "failed": "✗", "incomplete": "◐", "unverified": "!", "audited": "≈"}
"""A verdict at a glance, for those who cannot tell its colour."""


@dataclass(frozen=True)
class Finding:
    """One thing that failed.

    Args:
        where: The directory, as `head_name` names it.
        what: What failed in it: `PyTorch float64`, `round trip, Flax`.
        says: What is wrong, a line each.
        divergence: Where a model first leaves the oracle.
    """

    where: str
    what: str
    says: tuple[str, ...]
    divergence: Divergence | None = None


def figure(value: float, digits: int = 2) -> str:
    """Spell a difference: `3.1e-14`; nothing finite is `inf`, no difference is `0`."""
    if not math.isfinite(value):
        return "inf"
    return f"{value:.{digits - 1}e}" if value else "0"


def share(value: float) -> str:
    """Spell how much of a gate is used: `14%`, or `260 x` where it is beyond."""
    if not math.isfinite(value):
        return "inf"
    if value > 1:
        return f"{value:.3g} x" if value < 1000 else f"{value:.1e} x"
    if 0 < value < 0.01:
        return "<1%"
    return f"{math.floor(100 * value)}%"


def percent(part: float) -> str:
    """Spell a share of a whole: `31%`, `0.4%`."""
    return f"{100 * part:.0f}%" if part >= 0.1 or not part else f"{100 * part:.2g}%"


def duration(seconds: float) -> str:
    """Spell how long something took: `32 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    return f"{minutes} min {int(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def exact(value: float) -> str:
    """Spell a value so that two that differ look different."""
    return f"{value:.17g}"


def place(element: Element) -> str:
    """Spell where an element is: `[0, 3, 17]`."""
    return str(list(element.index))


def value(thing: Any) -> str:
    """Spell a value of a config."""
    return thing if isinstance(thing, str) else json.dumps(thing, default=str)


def plural(count: int, thing: str) -> str:
    """Spell a count: `1 head`, `8 heads`."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def head_name(head: HeadReport, report: VerificationReport) -> str:
    """Name a directory: by its head, and by its part where there is more than one."""
    parts = {each.part for each in report.heads}
    return f"{head.part}/{head.head}" if len(parts) > 1 and head.part else head.head


def run_name(run: Run) -> str:
    """Name a run: `PyTorch float64`."""
    return f"{FRAMEWORK_NAMES[run.framework]} {run.precision}"


def check_name(check: Check) -> str:
    """Name a check: `round trip, PyTorch`."""
    return check.name + (f", {FRAMEWORK_NAMES[check.framework]}" if check.framework else "")


def pair_name(pair: Pair) -> str:
    """Name two frameworks that were compared: `PyTorch and Flax, float64`."""
    return f"{FRAMEWORK_NAMES[pair.first]} and {FRAMEWORK_NAMES[pair.second]}, {pair.precision}"


def gate_rule(gate: GateReport) -> str:
    """Spell a gate: its rule, and by how much it was loosened."""
    return gate.rule + (f", loosened {gate.loosened:g} times" if gate.loosened != 1 else "")


def needed(report: VerificationReport, gate: GateReport) -> float | None:
    """Return the multiple of a gate that every run would have passed; `None` if nothing was compared."""
    runs = [run for head in report.heads for run in head.runs if run.precision == gate.precision and run.arrays]
    return max((run.needed for run in runs), default=None)


def run_lines(run: Run) -> Iterator[str]:
    """Yield what is wrong with a run, a line each."""
    if run.message:
        yield run.message
    found = run.divergence
    if found:
        yield f"{found.array} is the first to diverge, on the probe {found.probe}"
        yield f"difference {figure(found.difference)}, {share_beyond(found)}; the gate allows {figure(found.limit)}"
        yield f"element {place(found.worst)}: expected {exact(found.worst.expected)}, got {exact(found.worst.got)}"
    if run.outcome == "failed" and run.arrays:
        yield f"worst of all: {worst_of(run)}; a gate {run.needed:.3g} times as wide would have passed"


def share_beyond(found: Divergence) -> str:
    """Spell how far beyond its gate a difference is."""
    return f"{found.difference / found.limit:.3g} times the gate" if found.limit else "where none is allowed"


def worst_of(run: Run) -> str:
    """Spell what came closest to its gate, or furthest beyond, and how close."""
    worst = max(run.arrays, key=lambda each: each.share)
    return f"{worst.array} on {worst.probe}, {figure(worst.difference)} where {figure(worst.limit)} is allowed"


def pair_line(pair: Pair) -> str:
    """Spell how far two frameworks are apart."""
    return f"{pair.array} differs by {figure(pair.difference)} where {figure(pair.limit)} is allowed"


def head_findings(head: HeadReport, name: str) -> Iterator[Finding]:
    """Yield what failed in a directory: its files first, then what it computes, then the frameworks on one another."""
    for check in head.checks:
        if not check.passed:
            yield Finding(name, check_name(check), (check.says, *check.faults))
    for run in head.runs:
        if run.outcome == "failed":
            yield Finding(name, run_name(run), tuple(run_lines(run)), run.divergence)
    for pair in head.pairs:
        if not pair.passed:
            yield Finding(name, pair_name(pair), (pair_line(pair),))
