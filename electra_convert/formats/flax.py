"""Flax weights: `flax_model.msgpack`, as `flax.serialization.to_bytes` writes a tree of parameters.

A map of maps with sorted keys; each leaf is extension type 1, whose payload is itself msgpack: shape, dtype name,
values in C order. Leaves over 2**30 bytes are cut into chunks. msgpack's own writer takes each leaf as bytes; this
one writes the heads around it and leaves room for the values.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_convert.errors import CorruptCheckpointError
from electra_convert.formats import Contents
from electra_convert.formats.extents import Extent, write_at, write_extents
from electra_convert.progress import Advance
from electra_convert.tensor import ITEM_SIZES, Tensor, numpy_dtype

if TYPE_CHECKING:
    from electra_convert.tensor import Array

SINGLE = "flax_model.msgpack"
SHARD = "flax_model-{number:05d}-of-{count:05d}.msgpack"
INDEX = "flax_model.msgpack.index.json"
DTYPES = ("float32", "float16", "bfloat16")

NDARRAY = 1
"""Extension type of arrays (`flax/serialization.py`, `_MsgpackExtType`)."""
MAX_CHUNK_SIZE = 2**30
"""Bytes above which a leaf is cut (`flax/serialization.py`)."""


def write(path: Path, contents: Contents, advance: Advance) -> None:
    """Write a new msgpack file, synced to disk.

    Args:
        path: The file; it must not exist.
        contents: What it holds.
        advance: Is told of the bytes written.
    """
    offset, extents = 0, []
    with path.open("xb") as file:
        for piece in _pieces(_tree(contents.tensors), contents.dtype):
            if isinstance(piece, bytes):
                write_at(file.fileno(), piece, offset)
                offset += len(piece)
            else:
                extents.append(Extent(offset, piece))
                offset += piece.size * ITEM_SIZES[contents.dtype]
        write_extents(file.fileno(), extents, contents.dtype, advance)
        os.fsync(file.fileno())


def _tree(tensors: Any) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for tensor in tensors:
        *path, leaf = tensor.name.split("/")
        node = root
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = tensor
    return root


def _pieces(node: Any, dtype: str) -> Iterator[bytes | Tensor]:
    """Yield what the file holds, in order: msgpack, and tensors where their values go."""
    import msgpack

    packer = msgpack.Packer()
    if not isinstance(node, Tensor):
        yield packer.pack_map_header(len(node))
        for key in sorted(node):
            yield packer.pack(key)
            yield from _pieces(node[key], dtype)
    elif node.size * ITEM_SIZES[dtype] <= MAX_CHUNK_SIZE:
        yield from _leaf(node, dtype)
    else:
        chunks = dict(enumerate(_chunks(node, MAX_CHUNK_SIZE // ITEM_SIZES[dtype])))
        yield packer.pack_map_header(3) + packer.pack("__msgpack_chunked_array__") + packer.pack(True)  # noqa: FBT003
        yield packer.pack("shape") + packer.pack({str(axis): length for axis, length in enumerate(node.shape)})
        yield packer.pack("chunks") + packer.pack_map_header(len(chunks))
        for number, chunk in chunks.items():
            yield packer.pack(str(number))
            yield from _leaf(chunk, dtype)


def _leaf(tensor: Tensor, dtype: str) -> Iterator[bytes | Tensor]:
    import msgpack

    packer = msgpack.Packer()
    nbytes = tensor.size * ITEM_SIZES[dtype]
    head = packer.pack_array_header(3) + packer.pack(tensor.shape) + packer.pack(dtype)
    head += _sized(nbytes, codes=(0xC4, 0xC5, 0xC6))
    yield _extension_header(len(head) + nbytes) + head
    yield tensor


def _chunks(tensor: Tensor, size: int) -> Iterator[Tensor]:
    def load(start: int) -> Array:
        return tensor.load().reshape(-1)[start : start + size]

    for start in range(0, tensor.size, size):
        shape = (min(size, tensor.size - start),)
        yield Tensor(tensor.name, shape, tensor.dtype, lambda start=start: load(start))  # type: ignore[misc]


def _extension_header(length: int) -> bytes:
    """Return the head of an extension (msgpack specification, "ext format family")."""
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}
    head = bytes([fixed[length]]) if length in fixed else _sized(length, codes=(0xC7, 0xC8, 0xC9))
    return head + bytes([NDARRAY])


def _sized(length: int, codes: tuple[int, int, int]) -> bytes:
    """Return a code and a length in one, two or four bytes, the fewest that hold it."""
    for code, layout, bits in zip(codes, (">BB", ">BH", ">BI"), (8, 16, 32), strict=True):
        if length < 1 << bits:
            return struct.pack(layout, code, length)
    raise AssertionError(length)  # leaves are cut at MAX_CHUNK_SIZE


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a msgpack file, their paths joined by `/`; the whole file is read into memory.

    Raises:
        CorruptCheckpointError: It is damaged, or holds something else than a tree of arrays.
    """
    import msgpack

    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=_array, strict_map_key=True)
        return {name: _tensor(name, leaf) for name, leaf in _flattened(tree, "")}
    except (ValueError, TypeError, AttributeError, KeyError, msgpack.UnpackException) as error:
        raise CorruptCheckpointError(
            f"{path} is no tree of Flax parameters, or a damaged one: {error}", hint="copy it again, or convert again"
        ) from error


def _array(kind: int, payload: bytes) -> Array:
    import msgpack
    import numpy as np

    if kind != NDARRAY:
        raise ValueError(f"extension type {kind} is no array")
    shape, dtype, values = msgpack.unpackb(payload)
    return np.frombuffer(values, numpy_dtype(dtype)).reshape(shape)


def _flattened(node: Any, path: str) -> Iterator[tuple[str, Array]]:
    if not isinstance(node, dict):
        yield path.removeprefix("/"), node
    elif "__msgpack_chunked_array__" in node:
        yield path.removeprefix("/"), _whole(node["shape"], node["chunks"])
    else:
        for key, child in node.items():
            if "/" in key:
                raise ValueError(f"the key {key!r} is a path; each level is a map of its own")
            yield from _flattened(child, f"{path}/{key}")


def _whole(shape: dict[str, int], chunks: dict[str, Array]) -> Array:
    """Put together a leaf that was cut."""
    import numpy as np

    pieces = [chunks[str(number)] for number in range(len(chunks))]
    return np.concatenate(pieces).reshape([shape[str(axis)] for axis in range(len(shape))])


def _tensor(name: str, leaf: Any) -> Tensor:
    return Tensor(name, leaf.shape, leaf.dtype.name, lambda: leaf)
