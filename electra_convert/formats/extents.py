"""Tensors into a file, each at its place.

All formats are headers and raw arrays, so a format only has to say where each array goes. Arrays are written by
two threads, straight from the mapped source where they need no change, else a few megabytes at a time. The room is set
aside before, and the disk begins on each array once it is written: together that halves the time.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from electra_convert.errors import OutputError
from electra_convert.progress import Advance
from electra_convert.tensor import ITEM_SIZES, Tensor, numpy_dtype

if TYPE_CHECKING:
    import numpy as np

    from electra_convert.tensor import Array

THREADS = 2
BLOCK = 1 << 20
"""Elements that are made contiguous at a time."""
TILE = 256
PADDING = 16
"""Width of the tiles of a transposition, and how far their rows are moved apart: rows whose distance is a power of
two fall into the same cache lines, which makes it several times slower."""
SYNC_FILE_RANGE_WRITE = 2
"""Flag of Linux' `sync_file_range`: start to write, and do not wait."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A tensor and where in the file its bytes begin."""

    offset: int
    tensor: Tensor


def write_extents(descriptor: int, extents: Iterable[Extent], dtype: str, advance: Advance) -> None:
    """Write tensors to an open file.

    Args:
        descriptor: The file, open for writing.
        extents: The tensors and their places.
        dtype: The dtype to write them in.
        advance: Is told of the bytes written.

    Raises:
        OutputError: A value is too large for the dtype.
    """
    target = numpy_dtype(dtype)
    placed = list(extents)

    def write(extent: Extent) -> None:
        offset = extent.offset
        for block in _blocks(extent.tensor, target):
            write_at(descriptor, block.data, offset)
            offset += block.nbytes
            advance(block.nbytes)
        _start_sync(descriptor, extent.offset, offset)

    _reserve(descriptor, placed, ITEM_SIZES[dtype])
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(write, placed):
            pass


def write_at(descriptor: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of `data` at `offset`, however many calls that takes."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _reserve(descriptor: int, extents: Sequence[Extent], item_size: int) -> None:
    """Set the room of all extents aside at once; a page at a time costs the file system more.

    Not `os.posix_fallocate`, which writes into every block where a file system cannot do that.
    """
    begin = min((extent.offset for extent in extents), default=0)
    end = max((extent.offset + extent.tensor.size * item_size for extent in extents), default=0)
    _linux("fallocate")(descriptor, 0, ctypes.c_int64(begin), ctypes.c_int64(end - begin))


def _start_sync(descriptor: int, begin: int, end: int) -> None:
    """Let the disk begin on what was written, so that little is left for the `fsync` at the end of a file."""
    _linux("sync_file_range")(descriptor, ctypes.c_int64(begin), ctypes.c_int64(end - begin), SYNC_FILE_RANGE_WRITE)


@cache
def _linux(name: str) -> Callable[..., int]:
    """Return a function of Linux' C library that makes writing faster; where there is none, one that does nothing.

    What they return does not matter: where they fail, `pwrite` and `fsync` do all the work, or tell what is wrong.
    """
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return lambda *_: -1
    return function


def _blocks(tensor: Tensor, dtype: np.dtype[np.generic]) -> Iterator[Array]:
    import numpy as np

    try:
        with np.errstate(over="raise"):
            for block in contiguous_blocks(np.atleast_1d(tensor.load()), dtype):
                yield block.reshape(-1).view(np.uint8)
    except FloatingPointError as error:
        raise OutputError(
            f"{tensor.name} holds values that {dtype.name} cannot hold",
            hint="choose a dtype with a wider range: --dtype float32 or bfloat16",
        ) from error


def contiguous_blocks(array: Array, dtype: np.dtype[np.generic]) -> Iterator[Array]:
    """Yield an array in C order and in `dtype`, in pieces along its first axis.

    An array that is so already is one piece, not copied. The others are made piece by piece, so that memory stays
    small. The array must have an axis.
    """
    import numpy as np

    if array.dtype == dtype and array.flags.c_contiguous:
        yield array
    elif array.ndim == 2 and array.flags.f_contiguous:
        yield from _transposed_blocks(array.T, dtype)
    else:
        rows = max(1, BLOCK // max(1, array[:1].size))
        for start in range(0, len(array), rows):
            yield np.ascontiguousarray(array[start : start + rows], dtype)


def _transposed_blocks(source: Array, dtype: np.dtype[np.generic]) -> Iterator[Array]:
    """Yield the transpose of a `[in, out]` array in C order, `TILE` rows at a time."""
    import numpy as np

    length, width = source.shape
    tile = np.empty((TILE, TILE + PADDING), source.dtype)
    for column in range(0, width, TILE):
        columns = min(TILE, width - column)
        block = np.empty((columns, length), dtype)
        for row in range(0, length, TILE):
            rows = min(TILE, length - row)
            tile[:rows, :columns] = source[row : row + rows, column : column + columns]
            block[:, row : row + rows] = tile[:rows, :columns].T
        yield block
