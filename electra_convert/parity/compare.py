"""What two models computed, compared array by array in the order of the graph.

Comparing says how far apart they are and where; the gates say whether that is too far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from electra_convert.parity.gates import Gates
from electra_convert.parity.report import HISTOGRAM_EDGES, ArrayResult, Divergence, Element, Precision

if TYPE_CHECKING:
    from electra_convert.tensor import Array

HIDDEN_STATES = "hidden_states"
OUTPUTS = ("last_hidden_state", "logits", "start_logits", "end_logits")
"""What heads compute, in the order it is compared."""
SAMPLE = 20_000
"""Elements of one array, at most, that go into a histogram."""


class Computed(NamedTuple):
    """An array that a model computed on one probe, and its place in the graph."""

    name: str
    depth: int
    values: Array


class Difference(NamedTuple):
    """The largest difference between two arrays, and where it is."""

    largest: float
    scale: float
    worst: Element


def read_outputs(folder: Path, probe: int) -> list[Computed]:
    """Return the arrays of one probe in the order of the graph, mapped from disk.

    Args:
        folder: Where a model wrote its outputs.
        probe: The number of the probe.
    """
    import numpy as np

    places = {name: folder / f"{probe}.{name}.npy" for name in (HIDDEN_STATES, *OUTPUTS)}
    return as_computed({name: np.load(path, mmap_mode="r") for name, path in places.items() if path.exists()})


def as_computed(arrays: Mapping[str, Array]) -> list[Computed]:
    """Return the outputs of a model on one probe, by name, in the order of the graph."""
    states = arrays[HIDDEN_STATES]
    names = ["embeddings", *(f"layer {layer}" for layer in range(1, len(states)))]
    computed = [Computed(name, depth, state) for depth, (name, state) in enumerate(zip(names, states, strict=True), 1)]
    outputs = (name for name in OUTPUTS if name in arrays)
    return computed + [Computed(name.replace("_", " "), len(states) + 1, arrays[name]) for name in outputs]


def difference(expected: Array, got: Array) -> Difference:
    """Return the largest difference between two arrays of the same shape; what is not finite differs infinitely."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        apart = np.abs(np.subtract(got, expected, dtype=np.float64))
    apart[~np.isfinite(apart)] = np.inf
    magnitudes = np.abs(expected[np.isfinite(expected)])
    place = np.unravel_index(int(apart.argmax()), apart.shape)
    index = tuple(int(axis) for axis in place)
    worst = Element(index=index, expected=float(expected[place]), got=float(got[place]))
    return Difference(float(apart[place]), float(magnitudes.max(initial=0.0)), worst)


def histogram(expected: Array, got: Array) -> Array:
    """Count how many elements of two arrays differ by how much: `HISTOGRAM_EDGES`, a sample of large arrays."""
    import numpy as np

    step = -(-expected.size // SAMPLE)
    with np.errstate(invalid="ignore"):
        apart = np.abs(np.subtract(got, expected, dtype=np.float64).reshape(-1)[::step])
    powers = np.log10(np.clip(apart, 10.0 ** HISTOGRAM_EDGES[0], 10.0 ** HISTOGRAM_EDGES[-1]))
    return np.histogram(np.nan_to_num(powers, nan=HISTOGRAM_EDGES[-1]), HISTOGRAM_EDGES)[0]


@dataclass
class Comparison:
    """The comparison of one model with the oracle, probe after probe.

    Args:
        gates: The gates.
        precision: The dtype the model computed in.
    """

    gates: Gates
    precision: Precision
    arrays: dict[str, ArrayResult] = field(default_factory=dict)
    divergence: Divergence | None = None
    counts: Any = 0
    needed: float = 0.0
    problems: list[str] = field(default_factory=list)

    def add(self, probe: str, expected: Sequence[Computed], got: Sequence[Computed]) -> None:
        """Compare what was computed on one probe."""
        shapes = [[(array.name, array.values.shape) for array in arrays] for arrays in (expected, got)]
        if shapes[0] != shapes[1]:
            self.problems.append(f"on {probe}, it computes {_listed(shapes[1])}; expected {_listed(shapes[0])}")
            return
        for right, other in zip(expected, got, strict=True):
            self._add(probe, right, other)

    def _add(self, probe: str, expected: Computed, got: Computed) -> None:
        found = difference(expected.values, got.values)
        limit = self.gates.limit(self.precision, scale=found.scale, depth=expected.depth)
        passed = found.largest <= limit
        self.counts = self.counts + histogram(expected.values, got.values)
        result = ArrayResult(
            array=expected.name,
            probe=probe,
            elements=expected.values.size,
            difference=found.largest,
            limit=limit,
            worst=found.worst,
            passed=passed,
        )
        self.needed = max(self.needed, result.share)
        self._keep(result)
        if not passed and self.divergence is None:
            self.divergence = Divergence(
                probe=probe, array=expected.name, difference=found.largest, limit=limit, worst=found.worst
            )

    def _keep(self, result: ArrayResult) -> None:
        """Keep the worse of two results for one array, and the number of elements of both."""
        before = self.arrays.get(result.array)
        if before is None:
            self.arrays[result.array] = result
            return
        worse = max(before, result, key=lambda each: each.share)
        self.arrays[result.array] = msgspec.structs.replace(
            worse, elements=before.elements + result.elements, passed=before.passed and result.passed
        )

    @property
    def passed(self) -> bool:
        """Whether something was compared, and all of it was within its limit."""
        return bool(self.arrays) and not self.problems and all(result.passed for result in self.arrays.values())


def _listed(shapes: Sequence[tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes) or "nothing"
