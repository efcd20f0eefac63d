"""Tensors into a file, each at its place.

All formats are headers and raw arrays, so a format only has to say where each array goes. Arrays are read, changed and
written by two threads, a few megabytes at a time. The room is set aside before, and the disk begins on each block once
it is written: together that halves the time.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import msgspec

from electra_convert.errors import OutputError
from electra_convert.formats.stored import StoredArray
from electra_convert.progress import Advance
from electra_convert.tensor import ITEM_SIZES, Tensor, numpy_dtype

if TYPE_CHECKING:
    import numpy as np

    from electra_convert.tensor import Array, Values

THREADS = 2
READ_SIZE = 1 << 24
"""Bytes of a matrix that are read before they are transposed."""
WRITE_SIZE = 1 << 20
"""Elements that are written at a time."""
STRIP_SIZE, STRIP_WIDTH = 1 << 18, 64
"""Elements of a matrix that are transposed at a time, so that they are in a cache of the processor when they are
written; and how many of its columns at least."""
TILE = 256
PADDING = 16
"""Width and height of the tiles of a transposition, and how far their rows are moved apart: rows whose distance is a
power of two fall into the same cache lines, which makes it several times slower."""
WIDER = {"float16": "float32 or bfloat16", "bfloat16": "float32"}
"""Dtypes with a wider range than one has."""
SYNC_FILE_RANGE_WRITE = 2
"""Flag of Linux' `sync_file_range`: start to write, and do not wait."""


class Extent(msgspec.Struct, frozen=True):
    """A tensor and where in the file its bytes begin."""

    offset: int
    tensor: Tensor


class Written:
    """Where the tensors lie that are in files of one format and dtype already: the next gets copies of their bytes.

    The files are held open until it is closed, so that it does not matter what becomes of their names. Nothing else may
    write to them meanwhile: what they hold is not looked at again.
    """

    def __init__(self) -> None:
        self._places: dict[Hashable, tuple[int, int]] = {}
        self._held = ExitStack()

    def add(self, descriptor: int, extents: Iterable[Extent]) -> None:
        """Note where the tensors of a file lie, those that say what they are made of."""
        places = {extent.tensor.origin: extent.offset for extent in extents if extent.tensor.origin}
        new = places.keys() - self._places.keys()
        if new:
            held = os.dup(descriptor)
            self._held.callback(os.close, held)
            self._places |= {origin: (held, places[origin]) for origin in new}

    def close(self) -> None:
        """Let go of the files."""
        self._places.clear()
        self._held.close()

    def copy(self, extent: Extent, nbytes: int, descriptor: int) -> bool:
        """Copy a tensor within the kernel, which may share the blocks on disk; return whether that was possible."""
        place = self._places.get(extent.tensor.origin) if extent.tensor.origin else None
        if place is None or not hasattr(os, "copy_file_range"):
            return False
        source, begin = place
        done = 0
        while done < nbytes:
            try:
                count = os.copy_file_range(source, descriptor, nbytes - done, begin + done, extent.offset + done)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                    raise
                return False  # not on this file system, or not from that one
            if not count:
                return False
            done += count
        return True


def write_extents(
    descriptor: int, extents: Iterable[Extent], dtype: str, advance: Advance, written: Written | None = None
) -> None:
    """Write tensors to an open file.

    Args:
        descriptor: The file, open for writing, and for reading if `written` is given.
        extents: The tensors and their places.
        dtype: The dtype to write them in.
        advance: Is told of the bytes written.
        written: What other files of this format and dtype hold already; is told what this one holds.

    Raises:
        OutputError: A value is too large for the dtype.
    """
    target = numpy_dtype(dtype)
    placed = list(extents)

    def write(extent: Extent) -> None:
        offset, nbytes = extent.offset, extent.tensor.size * ITEM_SIZES[dtype]
        if written and written.copy(extent, nbytes, descriptor):
            _start_sync(descriptor, offset, nbytes)
            advance(nbytes)
            return
        write_blocks(descriptor, cast_blocks(extent.tensor, target), offset, advance)

    if placed:
        begin = min(extent.offset for extent in placed)
        end = max(extent.offset + extent.tensor.size * ITEM_SIZES[dtype] for extent in placed)
        reserve(descriptor, begin, end)
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(write, placed):
            pass
    if written:
        written.add(descriptor, placed)


def write_blocks(descriptor: int, blocks: Iterable[Array], offset: int, advance: Advance) -> None:
    """Write arrays of bytes one behind the other, from `offset` on; tell of each."""
    for block in blocks:
        write_at(descriptor, block.data, offset)
        _start_sync(descriptor, offset, block.nbytes)
        offset += block.nbytes
        advance(block.nbytes)


def write_at(descriptor: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of `data` at `offset`, however many calls that takes."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def reserve(descriptor: int, begin: int, end: int) -> None:
    """Set the room of a file from one byte to another aside at once; a page at a time costs the file system more.

    Not `os.posix_fallocate`, which writes into every block where a file system cannot do that.
    """
    _linux("fallocate")(descriptor, 0, ctypes.c_int64(begin), ctypes.c_int64(end - begin))


def _start_sync(descriptor: int, offset: int, count: int) -> None:
    """Let the disk begin on what was written, so that little is left for the `fsync` at the end of a file."""
    _linux("sync_file_range")(descriptor, ctypes.c_int64(offset), ctypes.c_int64(count), SYNC_FILE_RANGE_WRITE)


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


def cast_blocks(tensor: Tensor, dtype: np.dtype[np.generic]) -> Iterator[Array]:
    """Yield the bytes of a tensor in C order and in `dtype`, a few megabytes at a time.

    Raises:
        OutputError: A value is too large for the dtype.
    """
    import numpy as np

    blocks = contiguous_blocks(tensor.values(), dtype)
    while (block := _next_block(blocks, tensor.name, dtype)) is not None:
        yield block.reshape(-1).view(np.uint8)


def _next_block(blocks: Iterator[Array], name: str, dtype: np.dtype[np.generic]) -> Array | None:
    """Return the next block; what NumPy is to raise is set no longer than that, for it is set for this thread."""
    import numpy as np

    try:
        with np.errstate(over="raise"):
            block = next(blocks, None)
            if block is not None:
                _require_finite(block)
            return block
    except FloatingPointError as error:
        wider = WIDER.get(dtype.name)
        raise OutputError(
            f"{name} holds values that {dtype.name} cannot hold",
            hint=f"choose a dtype with a wider range: --dtype {wider}" if wider else "",
        ) from error


def _require_finite(block: Array) -> None:
    """Raise what NumPy raises for its own dtypes, where a value has become infinite as bfloat16."""
    import numpy as np

    if block.dtype.name == "bfloat16" and not np.isfinite(block).all():
        raise FloatingPointError


def contiguous_blocks(array: Values, dtype: np.dtype[np.generic]) -> Iterator[Array]:
    """Yield an array in C order and in `dtype`, in pieces along its first axis; each is good until the next is taken.

    An array in memory that is so already is one piece, not copied. The others are read and made piece by piece, so that
    memory stays small.
    """
    import numpy as np

    if not array.shape or (isinstance(array, np.ndarray) and array.dtype == dtype and array.flags.c_contiguous):
        yield np.atleast_1d(np.asarray(array, dtype))
        return
    if not prod(array.shape):
        return
    if _is_transposed(array):
        yield from _transposed_blocks(array.T, dtype)
        return
    row_size = prod(array.shape[1:])
    rows = max(1, WRITE_SIZE // row_size)
    buffer = np.empty(min(rows, len(array)) * row_size, numpy_dtype(str(array.dtype)))
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(_in_memory(array[start : start + rows], buffer), dtype)


def _in_memory(array: Values, buffer: Array) -> Array:
    """Return an array, read into the beginning of a flat buffer if it is in a file."""
    if isinstance(array, StoredArray):
        return array.read_into(buffer[: prod(array.lengths)].reshape(array.lengths))
    return array


def _is_transposed(array: Values) -> bool:
    """Return whether an array is a matrix whose columns are together, not its rows."""
    if isinstance(array, StoredArray):
        return len(array.shape) == 2 and array.flipped
    return array.ndim == 2 and array.flags.f_contiguous


def _transposed_blocks(source: Values, dtype: np.dtype[np.generic]) -> Iterator[Array]:
    """Yield the transpose of an `[in, out]` array in C order, some rows at a time."""
    import numpy as np

    length, width = source.shape
    stored = numpy_dtype(str(source.dtype))
    columns = min(width, max(TILE, READ_SIZE // (length * stored.itemsize)))
    rows = min(columns, max(STRIP_WIDTH, STRIP_SIZE // length))
    buffer = np.empty(length * columns, stored)
    block = np.empty((rows, length), dtype)
    for column in range(0, width, columns):
        part = _in_memory(source.T[column : column + columns].T, buffer)
        for begin in range(0, part.shape[1], rows):
            strip = part[:, begin : begin + rows]
            _transpose_into(block[: strip.shape[1]], strip)
            yield block[: strip.shape[1]]


def _transpose_into(target: Array, source: Array) -> None:
    """Write the transpose of an array, tile by tile."""
    import numpy as np

    tile = np.empty((TILE, TILE + PADDING), source.dtype)
    for row, column in product(range(0, source.shape[0], TILE), range(0, source.shape[1], TILE)):
        piece = source[row : row + TILE, column : column + TILE]
        padded = tile[: piece.shape[0], : piece.shape[1]]
        padded[...] = piece
        target[column : column + TILE, row : row + TILE] = padded.T
