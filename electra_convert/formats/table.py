"""What a file of weights holds, as a table: what each tensor is called, and where in the file its values lie.

The readers of all formats make such a table from a few headers, without a look at the values. Whatever it says comes
from the file, so nothing is believed before `stored_tensors` has seen that it fits the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from electra_convert.errors import CorruptCheckpointError, SourceError
from electra_convert.formats.stored import StoredArray, StoredFile
from electra_convert.printable import printable
from electra_convert.tensor import FLOATING, ITEM_SIZES, Tensor
from electra_convert.whole_file import open_file

MOST_TENSORS = 10_000
"""In one file; an ELECTRA of 24 layers has 400."""
MOST_AXES = 8
MOST_LEVELS = 32
"""Groups within groups; an ELECTRA's names have 8."""
LONGEST_NAME = 1_000
POINTER = b"version https://git-lfs.github.com/spec/"
"""With which a small file begins that Git has in the place of a large one."""
KINDS = {
    ".safetensors": "safetensors file",
    ".h5": "file of Keras weights",
    ".msgpack": "tree of Flax parameters",
    ".bin": "file of PyTorch weights",
}
STATE_DTYPES = (*FLOATING, "int64")
"""What a state dict of PyTorch may hold: weights, and buffers that count something."""


class Row(msgspec.Struct, frozen=True):
    """A tensor, and where its values begin.

    Args:
        name: Its name.
        dtype: NumPy's name of its element type, or `"bfloat16"`; little-endian.
        shape: Length of each axis, in C order.
        offset: Byte of the file at which its values begin.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def takes(self, size: int) -> bool:
        """Say whether its values take so many bytes; those of another dtype may take any."""
        return self.dtype not in FLOATING or size == self.end - self.offset

    @property
    def end(self) -> int:
        """Byte of the file at which its values end."""
        return self.offset + math.prod(self.shape) * ITEM_SIZES[self.dtype]


def found_file(path: Path) -> StoredFile:
    """Return a file of weights as it is now.

    Raises:
        SourceError: It is not there.
    """
    try:
        return StoredFile.find(path)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error


def stored_tensors(file: StoredFile, rows: Sequence[Row], dtypes: Sequence[str] = FLOATING) -> list[Tensor]:
    """Return the tensor of each row, once it is sure that all of them lie in the file, and none on another.

    Raises:
        CorruptCheckpointError: They do not, or are no tensors of a model. All that do not are listed.
    """
    require_rows(file, rows, dtypes)
    if problems := [*_overlaps(rows)]:
        raise damaged(file.path, "its tensors are not what they should be", problems)
    return [_tensor(file, row) for row in rows]


def require_rows(file: StoredFile, rows: Sequence[Row], dtypes: Sequence[str] = FLOATING) -> None:
    """Check that rows can be tensors of a file: their number, and of each its name, dtype, shape and place.

    Raises:
        CorruptCheckpointError: They cannot. All that cannot are listed.
    """
    if len(rows) > MOST_TENSORS:
        raise damaged(file.path, f"it holds {len(rows)} tensors; expected at most {MOST_TENSORS}")
    problems = [
        f"{printable(row.name, LONGEST_NAME) or repr('')} {fault}"
        for row in rows
        if (fault := _fault(row, file.size, dtypes))
    ]
    if problems:
        raise damaged(file.path, "its tensors are not what they should be", problems)


def damaged(
    path: Path, fault: str, problems: Sequence[str] = (), hint: str = "copy it again, or convert again"
) -> CorruptCheckpointError:
    """Return the error of a file that is not what it should be."""
    if _is_pointer(path):
        return CorruptCheckpointError(
            f"{path} is a pointer of Git LFS, not the file it stands for", hint="fetch the file: git lfs pull"
        )
    return CorruptCheckpointError(
        f"{path} is no {KINDS.get(path.suffix, 'file of weights')}, or a damaged one: {fault}",
        problems=problems,
        hint=hint,
    )


def _is_pointer(path: Path) -> bool:
    try:
        with open_file(path) as file:
            return file.read(len(POINTER)) == POINTER
    except OSError:
        return False


def _fault(row: Row, size: int, dtypes: Sequence[str]) -> str:
    """Return what is wrong with a row by itself; nothing, if nothing is."""
    if not row.name.isprintable() or not 0 < len(row.name) <= LONGEST_NAME:
        return "is no name of a tensor"
    if row.dtype not in dtypes:
        return f"is {row.dtype!r}; expected one of {', '.join(dtypes)}"
    if len(row.shape) > MOST_AXES:
        return f"has {len(row.shape)} axes; expected at most {MOST_AXES}"
    if any(not 0 < length <= size for length in row.shape):
        return f"has the shape {list(row.shape)}, and the file {size} bytes"
    if row.offset < 0 or row.end > size:
        return f"{list(row.shape)} takes bytes {row.offset} to {row.end} of a file that has {size}"
    return ""


def _overlaps(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the tensors whose values begin before those of the tensor before them end."""
    ordered = sorted(rows, key=lambda row: row.offset)
    for before, row in pairwise(ordered):
        if row.offset < before.end:
            yield f"{row.name} begins at byte {row.offset}, within {before.name}, which ends at byte {before.end}"


def _tensor(file: StoredFile, row: Row) -> Tensor:
    values = StoredArray(file, row.dtype, row.offset, row.shape)
    return Tensor(row.name, row.shape, row.dtype, lambda: values)
