"""Values that lie in a file, read when they are needed.

Files are not mapped into memory: a mapped file that becomes shorter, or whose disk fails, kills the process, and no
message says why. They are read, into memory that can be used again.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import msgspec

from electra_convert.errors import CorruptCheckpointError, SourceError
from electra_convert.tensor import ITEM_SIZES, numpy_dtype
from electra_convert.whole_file import open_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from electra_convert.tensor import Array, Values

READ_SIZE = 1 << 18
"""Elements that are read at a time: they are in a cache of the processor when they are looked at."""
CHANGED_HINT = "wait until nothing writes to it any more, and try again"


@dataclass(frozen=True, eq=False)
class StoredFile:
    """A file whose values are read; it is opened when the first is, as the one that was found, and stays that one.

    Args:
        path: The file.
        stamp: Its size in bytes, when it was last changed, and its inode, as they were when it was found.
    """

    path: Path
    stamp: tuple[int, int, int]

    @classmethod
    def find(cls, path: Path) -> StoredFile:
        """Return a file as it is now.

        Raises:
            OSError: It is not there, or cannot be looked at.
        """
        return cls(path, _stamp(path.stat()))

    @property
    def size(self) -> int:
        """Bytes it has."""
        return self.stamp[0]

    @cached_property
    def descriptor(self) -> int:
        """The open file; it is closed with the last reference to this object.

        Raises:
            SourceError: It cannot be read.
            CorruptCheckpointError: It is not the one that was found, or was written to since.
        """
        try:
            file = open_file(self.path)
        except OSError as error:
            raise SourceError(
                f"cannot read {self.path}: {error.strerror}", hint="see that it is a file you may read"
            ) from error
        weakref.finalize(self, file.close)
        self._require_found(file.fileno())
        return file.fileno()

    def read_into(self, buffer: Array, offset: int) -> None:
        """Fill a C-contiguous array with the bytes from `offset` on.

        Raises:
            CorruptCheckpointError: The file ends before, or is not the one that was found.
            SourceError: It cannot be read.
        """
        view = buffer.reshape(-1).view("u1").data
        while view:
            try:
                count = os.preadv(self.descriptor, [view], offset)
            except OSError as error:
                raise SourceError(f"cannot read {self.path} at byte {offset}: {error.strerror}") from error
            if not count:
                raise CorruptCheckpointError(f"{self.path} became shorter while it was read", hint=CHANGED_HINT)
            view, offset = view[count:], offset + count

    def require_unchanged(self) -> None:
        """Check that the file, if it was read, is the one that was found.

        Raises:
            CorruptCheckpointError: It was written to since.
        """
        if "descriptor" in vars(self):
            self._require_found(self.descriptor)

    def _require_found(self, descriptor: int) -> None:
        if _stamp(os.fstat(descriptor)) != self.stamp:
            raise CorruptCheckpointError(f"{self.path} changed while it was read", hint=CHANGED_HINT)


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


class StoredArray(msgspec.Struct, frozen=True, eq=False):
    """An array in a file, which NumPy reads where it needs one: `numpy.asarray(stored[:100])`.

    Args:
        file: The file.
        dtype: Its element type, a key of `ITEM_SIZES`; little-endian.
        offset: Byte at which it begins.
        lengths: Length of each axis, as it lies in the file, in C order.
        pitch: Bytes from the beginning of one run of the last axis to the next; 0 if there is nothing between them.
        flipped: It is shown transposed, its axes in reverse.
        follow: Is told of all values that are read, and of the offset at which they begin.
    """

    file: StoredFile
    dtype: str
    offset: int
    lengths: tuple[int, ...]
    pitch: int = 0
    flipped: bool = False
    follow: Callable[[int, Array], None] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis, as shown."""
        return self.lengths[::-1] if self.flipped else self.lengths

    @property
    def T(self) -> StoredArray:  # noqa: N802  # NumPy's name
        """The transpose."""
        return msgspec.structs.replace(self, flipped=not self.flipped)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> StoredArray:
        """Return some rows: a slice of the first axis, with step 1."""
        start, stop, _ = rows.indices(len(self))
        run = self.pitch or self.lengths[-1] * ITEM_SIZES[self.dtype]
        length = max(0, stop - start)
        if self.flipped or len(self.lengths) == 1:
            begin = self.offset + start * ITEM_SIZES[self.dtype]
            return msgspec.structs.replace(self, offset=begin, lengths=(*self.lengths[:-1], length), pitch=run)
        begin = self.offset + start * run * prod(self.lengths[1:-1])  # whole runs
        return msgspec.structs.replace(self, offset=begin, lengths=(length, *self.lengths[1:]))

    def ravel(self) -> Values:
        """Return the values on one axis."""
        import numpy as np

        if self.flipped or self.pitch:
            return np.asarray(self).ravel()
        return msgspec.structs.replace(self, lengths=(prod(self.lengths),))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:  # noqa: FBT001  # NumPy's protocol
        """Read the values into an array of their own."""
        import numpy as np

        if copy is False:
            raise ValueError("values in a file cannot be an array without a copy")
        array = self.read_into(np.empty(self.lengths, numpy_dtype(self.dtype)))
        return array if dtype is None else array.astype(dtype, copy=False)

    def read_into(self, array: Array) -> Array:
        """Fill an array of shape `lengths` with the values, and return it as it is shown."""
        if not self.pitch or not array.size or self.pitch == array.itemsize * self.lengths[-1]:
            self._read(array, self.offset)
        else:
            for number, row in enumerate(array.reshape(-1, self.lengths[-1])):
                self._read(row, self.offset + number * self.pitch)
        return array.T if self.flipped else array

    def _read(self, values: Array, offset: int) -> None:
        flat = values.reshape(-1)
        for start in range(0, max(1, flat.size), READ_SIZE):
            piece, begin = flat[start : start + READ_SIZE], offset + start * flat.itemsize
            self.file.read_into(piece, begin)
            if self.follow:
                self.follow(begin, piece)
