"""Two tensors, compared a few megabytes at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from electra_convert.diff.report import Fate, TensorDifference
from electra_convert.formats.extents import contiguous_blocks
from electra_convert.parity.diagnosis import same_bits
from electra_convert.progress import Advance
from electra_convert.tensor import ITEM_SIZES, Tensor, numpy_dtype

if TYPE_CHECKING:
    from electra_convert.tensor import Array


class Largest(msgspec.Struct, frozen=True):
    """The largest difference of two tensors.

    Args:
        value: How large it is; infinite where one of the values is no number.
        at: Where it is, counted in C order.
    """

    value: float
    at: int


def compare_tensors(a: Mapping[str, Tensor], b: Mapping[str, Tensor], advance: Advance) -> Iterator[TensorDifference]:
    """Yield the tensors that are not equal bit for bit, in the order of A, then those that only B has.

    Args:
        a: The tensors of the one, by name.
        b: Those of the other.
        advance: Is told of the bytes that were compared.
    """
    for name in dict.fromkeys([*a, *b]):
        if difference := _difference(name, a.get(name), b.get(name), advance):
            yield difference


def bytes_compared(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> int:
    """Return how many bytes `compare_tensors` tells of."""
    return sum(a[name].nbytes for name in a.keys() & b.keys() if a[name].shape == b[name].shape)


def _difference(name: str, a: Tensor | None, b: Tensor | None, advance: Advance) -> TensorDifference | None:
    if a is None or b is None:
        fate: Fate = "missing in A" if a is None else "missing in B"
        return TensorDifference(name=name, fate=fate, a=_described(a), b=_described(b))
    if a.shape != b.shape:
        return TensorDifference(name=name, fate="another shape", a=_described(a), b=_described(b))
    largest = _largest(a, b, advance)
    if largest is None and a.dtype == b.dtype:
        return None
    return _differing(a, b, largest)


def _differing(a: Tensor, b: Tensor, largest: Largest | None) -> TensorDifference:
    import numpy as np

    at = None if largest is None else tuple(int(axis) for axis in np.unravel_index(largest.at, a.shape))
    return TensorDifference(
        name=a.name,
        fate="cast" if largest is None else "differs",
        a=_described(a),
        b=_described(b),
        largest=None if largest is None or not np.isfinite(largest.value) else largest.value,
        at=at,
    )


def _described(tensor: Tensor | None) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}" if tensor else ""


def _largest(a: Tensor, b: Tensor, advance: Advance) -> Largest | None:
    """Return the largest difference; none if the tensors are equal, rounded to the narrower of their dtypes."""
    found: Largest | None = None
    start = 0
    for one, other in _aligned(a, b):
        if not _equal(one, other):
            here = _largest_of(one, other)
            if found is None or here.value > found.value:
                found = Largest(here.value, start + here.at)
        start += one.size
        advance(one.nbytes)
    return found


def _aligned(a: Tensor, b: Tensor) -> Iterator[tuple[Array, Array]]:
    """Yield the values of both in C order, as many of the one as of the other at a time."""
    ones, others = _flat(a), _flat(b)
    one, other = next(ones, None), next(others, None)
    while one is not None and other is not None:
        size = min(one.size, other.size)
        yield one[:size], other[:size]
        one = one[size:] if size < one.size else next(ones, None)
        other = other[size:] if size < other.size else next(others, None)


def _flat(tensor: Tensor) -> Iterator[Array]:
    for block in contiguous_blocks(tensor.values(), numpy_dtype(tensor.dtype)):
        yield block.reshape(-1)


def _equal(one: Array, other: Array) -> bool:
    """Say whether values are the same bits, once those of the wider dtype are rounded to the narrower."""
    import numpy as np

    narrow = min(one.dtype, other.dtype, key=lambda dtype: ITEM_SIZES[dtype.name])
    with np.errstate(all="ignore"):
        return same_bits(one.astype(narrow, copy=False), other.astype(narrow, copy=False))


def _largest_of(one: Array, other: Array) -> Largest:
    """Return the largest difference of some values, or the first that differs in the bits alone."""
    import numpy as np

    with np.errstate(all="ignore"):
        left, right = one.astype("f8"), other.astype("f8")
        apart = np.abs(left - right)
        apart[(left == right) | (np.isnan(left) & np.isnan(right))] = 0
        apart[np.isnan(apart)] = np.inf
        place = int(apart.argmax())
        if not apart[place]:
            place = int((left.view("u8") != right.view("u8")).argmax())
    return Largest(float(apart[place]), place)
