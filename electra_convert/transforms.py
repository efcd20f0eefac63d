"""What a format may do to an array, by name, each with its inverse.

A transform never copies: it returns a view, and the writer makes it contiguous as it writes. `join` does copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from electra_convert.tensor import Values

TransformName = Literal["identity", "transpose"]


class Transform(msgspec.Struct, frozen=True):
    """An operation on arrays, its inverse, and what it makes of a shape."""

    apply: Callable[[Values], Values]
    invert: Callable[[Values], Values]
    shape: Callable[[tuple[int, ...]], tuple[int, ...]]


TRANSFORMS: dict[TransformName, Transform] = {
    "identity": Transform(lambda array: array, lambda array: array, lambda shape: shape),
    "transpose": Transform(lambda array: array.T, lambda array: array.T, lambda shape: shape[::-1]),
}


def join(arrays: Sequence[Values]) -> Values:
    """Put arrays side by side on their last axis: `[in, a]` and `[in, b]` make `[in, a + b]`."""
    if len(arrays) == 1:
        return arrays[0]
    import numpy as np

    return np.concatenate([np.asarray(array) for array in arrays], axis=-1)


def joined_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape that `join` gives."""
    return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
