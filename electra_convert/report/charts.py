"""Where things are in a chart: numbers in, coordinates out; templates only place them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MOST_TICKS = 7
MOST_LABELS = 14
"""Layers that are labelled on an x axis; of more, every second, every third."""
LABEL_GAP = 14.0
"""Height of a label at the end of a line."""


class Tick(NamedTuple):
    """A mark on an axis, and what it says."""

    at: float
    label: str


class Mark(NamedTuple):
    """A point of a line: its place, its shape as an SVG path, and what it says when pointed at."""

    shape: str
    says: str


class Curve(NamedTuple):
    """What is drawn as one line: a value for each place on the x axis, `None` where there is none."""

    key: str
    label: str
    values: Sequence[float | None]


class Line(NamedTuple):
    """A drawn line: its path, its points, and where its label is."""

    key: str
    label: str
    path: str
    marks: tuple[Mark, ...]
    label_y: float


class LayerChart(NamedTuple):
    """Lines over the layers of a model, the y axis in powers of ten, with the gate and the height of its label."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    gate: str
    gate_y: float


class Bar(NamedTuple):
    """A bar of a histogram; `beyond` if it is on the far side of the gate."""

    x: float
    y: float
    width: float
    height: float
    beyond: bool
    says: str


class HistogramChart(NamedTuple):
    """Bars over powers of ten, their heights in powers of ten too: one bad element of a million is to be seen."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    bars: tuple[Bar, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    gate_x: float | None


class Decades(NamedTuple):
    """A vertical axis in powers of ten, with a place below for what is exactly equal and above for what is infinite."""

    low: int
    high: int
    zero: bool
    infinite: bool
    top: float
    bottom: float

    def y(self, value: float) -> float:
        """Return the height of a value."""
        low, high = self.low - self.zero, self.high + self.infinite
        if value <= 0:
            return self.bottom
        power = math.log10(value) if math.isfinite(value) else high
        return round(self.bottom - (power - low) / (high - low) * (self.bottom - self.top), 1)

    def ticks(self) -> tuple[Tick, ...]:
        """Return the marks: powers of ten, `0` and infinity where they are needed."""
        step = -(-(self.high - self.low) // MOST_TICKS) or 1
        ticks = [Tick(self.y(10.0**power), power_of_ten(power)) for power in range(self.low, self.high + 1, step)]
        if self.zero:
            ticks.insert(0, Tick(self.y(0.0), "0"))
        if self.infinite:
            ticks.append(Tick(self.y(math.inf), "∞"))
        return tuple(ticks)


def power_of_ten(power: int) -> str:
    """Spell a power of ten: `10⁻¹⁴`."""
    return {0: "1", 1: "10"}.get(power, f"10{str(power).translate(SUPERSCRIPTS)}")


def decades(values: Sequence[float], *, top: float, bottom: float) -> Decades:
    """Return an axis that holds all of some values."""
    powers = [math.log10(value) for value in values if value > 0 and math.isfinite(value)]
    low, high = (math.floor(min(powers)), math.ceil(max(powers))) if powers else (-1, 0)
    return Decades(
        low=low,
        high=max(high, low + 1),
        zero=any(value <= 0 for value in values),
        infinite=any(not math.isfinite(value) for value in values),
        top=top,
        bottom=bottom,
    )


def layer_chart(
    arrays: Sequence[str], curves: Sequence[Curve], limits: Sequence[float | None], spell: Callable[[float], str]
) -> LayerChart:
    """Draw how far models are from the oracle, layer after layer.

    Args:
        arrays: What is on the x axis: `embeddings`, `layer 1` and so on, `outputs`.
        curves: The lines, each with a value for each of `arrays`.
        limits: What the gate allows in each of `arrays`.
        spell: How a value is spelt.
    """
    width, height, left, right, top, bottom = 520.0, 264.0, 52.0, 436.0, 14.0, 226.0
    series = [*(curve.values for curve in curves), limits]
    axis = decades([value for values in series for value in values if value is not None], top=top, bottom=bottom)
    places = [
        round(left + 12 + (right - left - 24) * index / max(len(arrays) - 1, 1), 1) for index in range(len(arrays))
    ]
    *ends, gate_y = spread([axis.y(_last(values)) for values in series], LABEL_GAP, lowest=bottom)
    lines = tuple(
        Line(curve.key, curve.label, _path(places, curve.values, axis), _marks(curve, arrays, places, axis, spell), end)
        for curve, end in zip(curves, ends, strict=True)
    )
    return LayerChart(
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_ticks=_array_ticks(arrays, places),
        y_ticks=axis.ticks(),
        lines=lines,
        gate=_path(places, limits, axis),
        gate_y=gate_y,
    )


def spread(wanted: Sequence[float], gap: float, *, lowest: float) -> list[float]:
    """Move labels apart, as little as needed, so that none covers another; none goes below `lowest`."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = list(wanted)
    for before, index in pairwise(order):
        placed[index] = max(placed[index], placed[before] + gap)
    room = lowest
    for index in reversed(order):
        placed[index] = round(min(placed[index], room), 1)
        room = placed[index] - gap
    return placed


def _last(values: Sequence[float | None]) -> float:
    return next((value for value in reversed(values) if value is not None), 0.0)


def _path(places: Sequence[float], values: Sequence[float | None], axis: Decades) -> str:
    """Return the path through some values; it breaks off where there is none."""
    path, pen = [], "M"
    for x, value in zip(places, values, strict=True):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{x:g} {axis.y(value):g}")
        pen = "L"
    return "".join(path)


def _marks(
    curve: Curve, arrays: Sequence[str], places: Sequence[float], axis: Decades, spell: Callable[[float], str]
) -> tuple[Mark, ...]:
    return tuple(
        Mark(marker(curve.key, x, axis.y(value)), f"{curve.label}, {array}: {spell(value)}")
        for array, x, value in zip(arrays, places, curve.values, strict=True)
        if value is not None
    )


def marker(key: str, x: float, y: float) -> str:
    """Return the shape that tells a framework without its colour: a circle, a square, a triangle."""
    if key == "tensorflow":
        return f"M{x - 3.2:.1f} {y - 3.2:.1f}h6.4v6.4h-6.4z"
    if key == "flax":
        return f"M{x:.1f} {y - 4.4:.1f}l4.2 7.4h-8.4z"
    return f"M{x - 3.6:.1f} {y:.1f}a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z"


def _array_ticks(arrays: Sequence[str], places: Sequence[float]) -> tuple[Tick, ...]:
    """Label the arrays: the first and the last always, of the layers as many as there is room for."""
    layers = [index for index, array in enumerate(arrays) if array.startswith("layer ")]
    step = -(-len(layers) // MOST_LABELS) or 1
    shown = set(layers[step - 1 :: step])
    short = {"embeddings": "emb", "outputs": "out"}
    return tuple(
        Tick(x, short.get(array, array.removeprefix("layer ")))
        for index, (array, x) in enumerate(zip(arrays, places, strict=True))
        if index in shown or index not in layers
    )


def histogram_chart(counts: Sequence[int], edges: Sequence[int], gate: float | None) -> HistogramChart:
    """Draw how many elements differ by how much.

    Args:
        counts: How many are in each bin.
        edges: The powers of ten that bound the bins, one more than bins; what is equal is in the first bin.
        gate: The widest limit that was applied: what is beyond it has failed.
    """
    width, height, left, right, top, bottom = 300.0, 132.0, 34.0, 292.0, 8.0, 104.0
    step = (right - left) / len(counts)
    highest = max(math.ceil(math.log10(max([*counts, 10]))), 1)
    unit = (bottom - top) / (highest + 0.3)
    beyond = math.log10(gate) if gate else math.inf
    bars = tuple(
        Bar(
            x=round(left + index * step + 0.6, 1),
            y=round(bottom - (math.log10(count) + 0.3) * unit, 1),
            width=round(step - 1.2, 1),
            height=round((math.log10(count) + 0.3) * unit, 1),
            beyond=edges[index] >= beyond,
            says=f"{count:,} " + ("equal or nearly" if index == 0 else f"around {power_of_ten(edges[index])}"),
        )
        for index, count in enumerate(counts)
        if count
    )
    every = [edge for edge in edges if edge % 5 == 0]
    return HistogramChart(
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        bars=bars,
        x_ticks=tuple(Tick(round(left + (edge - edges[0]) * step, 1), power_of_ten(edge)) for edge in every),
        y_ticks=tuple(
            Tick(round(bottom - (power + 0.3) * unit, 1), power_of_ten(power))
            for power in range(0, highest + 1, max(highest // 2, 1))
        ),
        gate_x=round(left + (beyond - edges[0]) * step, 1) if edges[0] <= beyond <= edges[-1] else None,
    )
