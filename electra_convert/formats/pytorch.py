"""PyTorch weights: `model.safetensors`, as transformers writes it.

The layout is that of the safetensors library, byte for byte: tensors by descending alignment, then by name; the
header padded to eight bytes. The library's own writer takes all arrays at once; this one takes them one at a time.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from electra_convert.errors import CorruptCheckpointError
from electra_convert.formats import Contents
from electra_convert.formats.extents import Extent, Written, write_at, write_extents
from electra_convert.formats.stored import StoredFile
from electra_convert.formats.table import STATE_DTYPES, Row, damaged, found_file, stored_tensors
from electra_convert.json_text import LARGEST, parse_json
from electra_convert.progress import Advance
from electra_convert.tensor import ITEM_SIZES, Tensor

SINGLE = "model.safetensors"
SHARD = "model-{number:05d}-of-{count:05d}.safetensors"
INDEX = "model.safetensors.index.json"

DTYPE_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
DTYPES = tuple(DTYPE_CODES)
READ_CODES = {code: dtype for dtype, code in DTYPE_CODES.items()} | {"F64": "float64", "I64": "int64"}
METADATA = "__metadata__"
ALIGNMENT = 8
SIZE = struct.Struct("<Q")
"""The length of the header, which begins a file."""


def write(path: Path, contents: Contents, advance: Advance, written: Written | None = None) -> None:
    """Write a new safetensors file, synced to disk.

    Args:
        path: The file; it must not exist.
        contents: What it holds.
        advance: Is told of the bytes written.
        written: What other files of this format and dtype hold already; is told what this one holds.
    """
    extents: list[Extent] = []
    table: dict[str, Any] = {METADATA: {"format": "pt"}}
    end = 0
    for tensor in sorted(contents.tensors, key=lambda tensor: tensor.name):
        extents.append(Extent(end, tensor))
        begin, end = end, end + tensor.size * ITEM_SIZES[contents.dtype]
        table[tensor.name] = {
            "dtype": DTYPE_CODES[contents.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    header = SIZE.pack(len(text)) + text
    with path.open("x+b") as file:
        write_at(file.fileno(), header, 0)
        placed = (Extent(len(header) + extent.offset, extent.tensor) for extent in extents)
        write_extents(file.fileno(), placed, contents.dtype, advance, written)
        os.fsync(file.fileno())


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the header says of a tensor; `data_offsets` count from its end."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; a tensor is read when it is loaded.

    Not with the safetensors library, which maps the file: if that becomes shorter meanwhile, the process is killed.

    Raises:
        SourceError: It cannot be read.
        CorruptCheckpointError: It is damaged, or holds something else than floating-point tensors and buffers of int64.
    """
    file = found_file(path)
    header = _header(file)
    file.require_unchanged()
    entries, begin = header.entries, header.size
    others = [f"{name!r} is {entry.dtype!r}" for name, entry in entries.items() if entry.dtype not in READ_CODES]
    if others:
        raise CorruptCheckpointError(
            f"{path} holds tensors of other kinds than {', '.join(READ_CODES)}", problems=others, hint="convert again"
        )
    rows = {
        name: Row(name, READ_CODES[entry.dtype], entry.shape, begin + entry.data_offsets[0])
        for name, entry in entries.items()
    }
    tensors = stored_tensors(file, list(rows.values()), STATE_DTYPES)
    if problems := [*_gaps(entries, rows, begin, file.size)]:
        raise damaged(path, "its header does not fit its values", problems)
    return dict(zip(rows, tensors, strict=True))


def framework_of(path: Path) -> str:
    """Return the framework whose names and orientation a safetensors file has, as its metadata say: `pt` by default.

    Raises:
        SourceError: It cannot be read.
        CorruptCheckpointError: It is damaged.
    """
    return _header(found_file(path)).metadata.get("format", "pt")


class _Header(msgspec.Struct, frozen=True):
    """What a file says of itself.

    Args:
        metadata: What is said of all.
        entries: What is said of each tensor.
        size: Byte at which the values begin.
    """

    metadata: dict[str, str]
    entries: dict[str, _Entry]
    size: int


def _header(file: StoredFile) -> _Header:
    """Return what the header says.

    Raises:
        CorruptCheckpointError: It is no header.
    """
    try:
        return _parsed(file)
    except ValueError as error:
        raise damaged(file.path, str(error)) from error


def _parsed(file: StoredFile) -> _Header:
    """Return what the header says.

    Raises:
        ValueError: It is no header.
    """
    if file.size < SIZE.size:
        raise ValueError(f"it has {file.size} bytes; the header alone should have more")
    (length,) = SIZE.unpack(_read(file, 0, SIZE.size))
    begin = SIZE.size + length
    if length > LARGEST:
        raise ValueError(f"its header should have {length} bytes; expected at most {LARGEST}")
    if begin > file.size:
        raise ValueError(f"its header should end at byte {begin}; it ends at byte {file.size}")
    text = _read(file, SIZE.size, length)
    if not text.startswith(b"{"):
        raise ValueError(f"its header, at byte {SIZE.size}, is no JSON object")
    try:
        table = parse_json(text)
        metadata = msgspec.convert(table.pop(METADATA, {}), dict[str, str])
        return _Header(metadata, msgspec.convert(table, dict[str, _Entry]), begin)
    except ValueError as error:
        raise ValueError(f"its header, at byte {SIZE.size}, is none: {error}") from error


def _read(file: StoredFile, offset: int, length: int) -> bytes:
    import numpy as np

    buffer = np.empty(length, np.uint8)
    file.read_into(buffer, offset)
    return buffer.tobytes()


def _gaps(entries: Mapping[str, _Entry], rows: Mapping[str, Row], begin: int, size: int) -> Iterator[str]:
    """Yield where a tensor does not take the bytes it should, or something lies between them."""
    for name, entry in entries.items():
        said, takes = entry.data_offsets[1] - entry.data_offsets[0], rows[name].end - rows[name].offset
        if said != takes:
            yield f"{name} {list(entry.shape)} takes {takes} bytes; the header gives it {said}"
    end = begin
    for row in sorted(rows.values(), key=lambda row: row.offset):
        if row.offset != end:
            yield f"{row.name} begins at byte {row.offset}; expected byte {end}"
        end = row.end
    if end != size:
        yield f"the values end at byte {end}; the file at byte {size}"
