"""PyTorch weights: `model.safetensors`, as transformers writes it.

The layout is that of the safetensors library, byte for byte: tensors by descending alignment, then by name; the
header padded to eight bytes. The library's own writer takes all arrays at once; this one takes them one at a time.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

from electra_convert.formats import Contents
from electra_convert.formats.extents import Extent, write_at, write_extents
from electra_convert.progress import Advance
from electra_convert.tensor import ITEM_SIZES

SINGLE = "model.safetensors"
SHARD = "model-{number:05d}-of-{count:05d}.safetensors"
INDEX = "model.safetensors.index.json"

DTYPE_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
DTYPES = tuple(DTYPE_CODES)
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
