"""What probably happened to a tensor that is not what it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from electra_convert.tensor import Tensor, numpy_dtype

if TYPE_CHECKING:
    from electra_convert.tensor import Array

SHIFTS = (1, -1, 2, -2)


def same_bits(one: Array, other: Array) -> bool:
    """Say whether two arrays of the same shape and dtype are equal bit for bit: -0 is not 0, a NaN is itself."""
    import numpy as np

    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    integer = f"u{one.dtype.itemsize}"
    return bool(np.array_equal(np.ascontiguousarray(one).view(integer), np.ascontiguousarray(other).view(integer)))


def what_happened(name: str, expected: Array, got: Array, others: Mapping[str, Tensor]) -> str:
    """Say in which way `got` differs from `expected`.

    Args:
        name: The tensor's canonical name.
        expected: What it should hold.
        got: What it holds, of the same shape and dtype.
        others: The other tensors of the model, as they should be, by canonical name.
    """
    import numpy as np

    with np.errstate(all="ignore"):
        guesses = (*_guesses(expected), *_swaps(name, expected, others))
        said = next((says for says, values in guesses if same_bits(values(), got)), None)
        if said:
            return f"{name} {said}"
        return f"{name} {_count(expected, got)}"


def _guesses(expected: Array) -> Iterator[tuple[str, Callable[[], Array]]]:
    """Yield what may have been done to a tensor, and what that would give."""
    import numpy as np

    yield "is negated", lambda: -expected
    yield "is all zeros", lambda: np.zeros_like(expected)
    if expected.ndim == 2 and expected.shape[0] == expected.shape[1]:
        yield "is transposed", lambda: expected.T
    for dtype in ("float16", "bfloat16"):
        yield f"was rounded to {dtype}", lambda dtype=dtype: expected.astype(numpy_dtype(dtype)).astype(expected.dtype)  # type: ignore[misc]
    for shift in SHIFTS:
        yield f"is shifted by {shift} along its first axis", lambda shift=shift: np.roll(expected, shift, axis=0)  # type: ignore[misc]


def _swaps(name: str, expected: Array, others: Mapping[str, Tensor]) -> Iterator[tuple[str, Callable[[], Array]]]:
    for other, tensor in others.items():
        if other != name and tensor.shape == expected.shape:
            yield f"holds {other}", lambda tensor=tensor: tensor.load().astype(expected.dtype)  # type: ignore[misc]


def _count(expected: Array, got: Array) -> str:
    """Say how many elements differ, and which first."""
    import numpy as np

    differ = np.argwhere((expected != got) & ~(np.isnan(expected) & np.isnan(got)))
    if not len(differ):
        return "differs in the sign of zeros, or in the bits of NaN"
    place = tuple(int(axis) for axis in differ[0])
    return (
        f"differs in {len(differ)} of {expected.size} elements, first at {list(place)}: "
        f"{float(got[place]):.9g}, expected {float(expected[place]):.9g}"
    )
