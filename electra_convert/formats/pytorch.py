"""PyTorch weights: `model.safetensors`, as transformers writes it.

The layout is that of the safetensors library, byte for byte: tensors by descending alignment, then by name; the
header padded to eight bytes. The library's own writer takes all arrays at once; this one takes them one at a time.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_convert.errors import CorruptCheckpointError
from electra_convert.formats import Contents
from electra_convert.formats.extents import Extent, write_at, write_extents
from electra_convert.progress import Advance
from electra_convert.tensor import ITEM_SIZES, Tensor, numpy_dtype

if TYPE_CHECKING:
    from electra_convert.tensor import Array

SINGLE = "model.safetensors"
SHARD = "model-{number:05d}-of-{count:05d}.safetensors"
INDEX = "model.safetensors.index.json"

DTYPE_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
DTYPES = tuple(DTYPE_CODES)
READ_CODES = {code: dtype for dtype, code in DTYPE_CODES.items()} | {"F64": "float64"}
ALIGNMENT = 8


def write(path: Path, contents: Contents, advance: Advance) -> None:
    """Write a new safetensors file, synced to disk.

    Args:
        path: The file; it must not exist.
        contents: What it holds.
        advance: Is told of the bytes written.
    """
    extents: list[Extent] = []
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
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
    header = struct.pack("<Q", len(text)) + text
    with path.open("xb") as file:
        write_at(file.fileno(), header, 0)
        placed = (Extent(len(header) + extent.offset, extent.tensor) for extent in extents)
        write_extents(file.fileno(), placed, contents.dtype, advance)
        os.fsync(file.fileno())


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; their values are views of it.

    Raises:
        CorruptCheckpointError: It is damaged, or holds something else than floating-point tensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):  # checks the header: shapes, extents, the length of the file
            pass
    except (SafetensorError, OSError) as error:
        raise CorruptCheckpointError(
            f"{path} is no safetensors file, or a damaged one: {error}", hint="copy it again, or convert again"
        ) from error
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        table = json.loads(file.read(length))
    table.pop("__metadata__", None)
    others = [f"{name} is {entry['dtype']}" for name, entry in table.items() if entry["dtype"] not in READ_CODES]
    if others:
        raise CorruptCheckpointError(
            f"{path} holds tensors of other kinds than {', '.join(READ_CODES)}", problems=others, hint="convert again"
        )
    return {name: _mapped(path, name, entry, begin=8 + length) for name, entry in table.items()}


def _mapped(path: Path, name: str, entry: Mapping[str, Any], *, begin: int) -> Tensor:
    shape, dtype = tuple(entry["shape"]), READ_CODES[entry["dtype"]]
    offset = begin + entry["data_offsets"][0]

    def load() -> Array:
        import numpy as np

        if 0 in shape:
            return np.empty(shape, numpy_dtype(dtype))
        return np.memmap(path, numpy_dtype(dtype), "r", offset, shape)

    return Tensor(name, shape, dtype, load)
