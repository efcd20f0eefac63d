"""A named array whose values are read only when they are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from electra_convert.formats.stored import StoredArray

    Array = NDArray[Any]
    Values: TypeAlias = Array | StoredArray
    """An array in memory, or in a file."""

ITEM_SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Bytes an element takes, by dtype name: the dtypes this package knows."""
FLOATING = ("float64", "float32", "float16", "bfloat16")
"""Those of weights."""


class Tensor(msgspec.Struct, frozen=True):
    """A named array: its description now, its values on `load()`.

    Args:
        name: The name in whatever name set this tensor belongs to.
        shape: Length of each axis.
        dtype: NumPy's name of the element type, or `"bfloat16"`; a key of `ITEM_SIZES`.
        values: Returns an array of that shape and dtype: NumPy's, which need not be contiguous and may be read-only, or
            one in a file, which is read where it is needed.
        origin: What it is made of, if somebody keeps account: tensors with one origin have the same values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    values: Callable[[], Values]
    origin: Hashable = None

    def load(self) -> Array:
        """Return the values as an array of NumPy's."""
        import numpy as np

        return np.asarray(self.values())

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes the values take."""
        return self.size * ITEM_SIZES[self.dtype]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype called `name`; bfloat16, which NumPy lacks, is `ml_dtypes`'."""
    import numpy as np

    if name == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)
