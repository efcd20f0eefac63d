"""Flax weights: `flax_model.msgpack`, as `flax.serialization.to_bytes` writes a tree of parameters.

A map of maps with sorted keys; each leaf is extension type 1, whose payload is itself msgpack: shape, dtype name,
values in C order. Leaves over 2**30 bytes are cut into chunks. msgpack's own writer takes each leaf as bytes; this
one writes the heads around it and leaves room for the values.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from electra_convert.formats import Contents
from electra_convert.formats.extents import Extent, Written, write_at, write_extents
from electra_convert.formats.msgpack_tree import ARRAY, Walk
from electra_convert.formats.table import MOST_AXES, Row, damaged, found_file, stored_tensors
from electra_convert.progress import Advance
from electra_convert.tensor import ITEM_SIZES, Tensor

if TYPE_CHECKING:
    from electra_convert.tensor import Array, Values

SINGLE = "flax_model.msgpack"
SHARD = "flax_model-{number:05d}-of-{count:05d}.msgpack"
INDEX = "flax_model.msgpack.index.json"
DTYPES = ("float32", "float16", "bfloat16")

CHUNKED = "__msgpack_chunked_array__"
"""Key that says a map is a leaf that was cut."""
MAX_CHUNK_SIZE = 2**30
"""Bytes above which a leaf is cut (`flax/serialization.py`)."""


def write(path: Path, contents: Contents, advance: Advance, written: Written | None = None) -> None:
    """Write a new msgpack file, synced to disk.

    Args:
        path: The file; it must not exist.
        contents: What it holds.
        advance: Is told of the bytes written.
        written: What other files of this format and dtype hold already; is told what this one holds.
    """
    offset, extents = 0, []
    with path.open("x+b") as file:
        tree = tree_of({tensor.name: tensor for tensor in contents.tensors})
        for piece in _pieces(tree, contents.dtype):
            if isinstance(piece, bytes):
                write_at(file.fileno(), piece, offset)
                offset += len(piece)
            else:
                extents.append(Extent(offset, piece))
                offset += piece.size * ITEM_SIZES[contents.dtype]
        write_extents(file.fileno(), extents, contents.dtype, advance, written)
        os.fsync(file.fileno())


def tree_of(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree of maps of tensors whose names are paths, joined by `/`."""
    root: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *path, leaf = name.split("/")
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
        yield packer.pack_map_header(3) + packer.pack(CHUNKED) + packer.pack(True)  # noqa: FBT003
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
    def values(start: int) -> Values:
        return tensor.values().ravel()[start : start + size]

    for start in range(0, tensor.size, size):
        shape = (min(size, tensor.size - start),)
        yield Tensor(tensor.name, shape, tensor.dtype, partial(values, start))


def _extension_header(length: int) -> bytes:
    """Return the head of an extension (msgpack specification, "ext format family")."""
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}
    head = bytes([fixed[length]]) if length in fixed else _sized(length, codes=(0xC7, 0xC8, 0xC9))
    return head + bytes([ARRAY])


def _sized(length: int, codes: tuple[int, int, int]) -> bytes:
    """Return a code and a length in one, two or four bytes, the fewest that hold it."""
    for code, layout, bits in zip(codes, (">BB", ">BH", ">BI"), (8, 16, 32), strict=True):
        if length < 1 << bits:
            return struct.pack(layout, code, length)
    raise AssertionError(length)  # leaves are cut at MAX_CHUNK_SIZE


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a msgpack file, their paths joined by `/`; a tensor is read when it is loaded.

    Raises:
        SourceError: It cannot be read.
        CorruptCheckpointError: It is damaged, or holds something else than a tree of floating-point arrays.
    """
    file = found_file(path)
    try:
        with open(file.descriptor, "rb", closefd=False) as stream:
            leaves = [*_leaves(Walk(stream).tree(), "")]
    except ValueError as error:
        raise damaged(path, str(error)) from error
    file.require_unchanged()
    stored = iter(stored_tensors(file, [row for leaf in leaves for row in leaf.rows]))
    return {leaf.name: leaf.tensor([next(stored) for _ in leaf.rows]) for leaf in leaves}


class _Leaf(msgspec.Struct, frozen=True):
    """An array of the tree.

    Args:
        name: Its path.
        shape: Length of each axis.
        rows: Where its values lie: itself, or its chunks.
    """

    name: str
    shape: tuple[int, ...]
    rows: tuple[Row, ...]

    def tensor(self, pieces: Sequence[Tensor]) -> Tensor:
        """Return the tensor that its pieces make."""
        if [piece.shape for piece in pieces] == [self.shape]:
            return pieces[0]

        def load() -> Array:
            import numpy as np

            return np.concatenate([piece.load() for piece in pieces]).reshape(self.shape)

        return Tensor(self.name, self.shape, pieces[0].dtype, load)


def _leaves(node: Any, path: str) -> Iterator[_Leaf]:
    if isinstance(node, Row):
        yield _Leaf(path, node.shape, (msgspec.structs.replace(node, name=path),))
    elif isinstance(node, int):
        raise ValueError(f"{path!r} is {node}; expected an array or a map")  # noqa: TRY004  # the file is wrong
    elif CHUNKED in node:
        yield _whole(node, path)
    else:
        for key, child in node.items():
            if "/" in key:
                raise ValueError(f"the key {key!r} is a path; each level is a map of its own")
            yield from _leaves(child, f"{path}/{key}" if path else key)


def _whole(node: Mapping[str, Any], path: str) -> _Leaf:
    """Return a leaf that was cut: its shape by axis, and its chunks by number."""
    try:
        lengths, chunks = node["shape"], node["chunks"]
        shape = tuple(lengths[str(axis)] for axis in range(len(lengths)))
        rows = tuple(chunks[str(number)] for number in range(len(chunks)))
        held = sum(math.prod(row.shape) for row in rows if len(row.shape) == 1)
        fits = held == math.prod(shape) and len({row.dtype for row in rows}) == 1
    except (KeyError, TypeError, AttributeError):
        fits = False
    if not fits or len(shape) > MOST_AXES or not all(isinstance(length, int) and length > 0 for length in shape):
        raise ValueError(f"the chunks of {path!r} are not those of its shape")
    return _Leaf(path, shape, tuple(msgspec.structs.replace(row, name=f"{path}/{CHUNKED}") for row in rows))
