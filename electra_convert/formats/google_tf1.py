"""Google's checkpoints: the TensorFlow tensor bundle, read and written without TensorFlow.

A bundle is `<prefix>.index`, a LevelDB table of one protocol buffer for each tensor, and `<prefix>.data-<n>-of-<m>`,
the values (TensorFlow: `core/util/tensor_bundle/tensor_bundle.h`, `core/protobuf/tensor_bundle.proto`,
`core/lib/io/table_format.txt`). The index is read whole and checked; values are memory mapped and read when asked for.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_convert.errors import CorruptCheckpointError, UnsupportedCheckpointError
from electra_convert.tensor import ITEM_SIZES, Tensor, numpy_dtype

if TYPE_CHECKING:
    from electra_convert.tensor import Array

MAGIC = 0xDB4775248B80FB57
FOOTER_SIZE = 48
TRAILER_SIZE = 5
"""After each block: a byte that names its compression, and its masked CRC-32C."""
BLOCK_SIZE = 4096
"""Bytes after which the writer starts a new block."""
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
THREADS = 2

# DataType of types.proto.
DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    19: "float16",
}
DTYPE_CODES = {name: code for code, name in DTYPES.items()}
OTHER_DTYPES = {7: "string", 8: "complex64", 17: "uint16", 18: "complex128", 20: "resource", 21: "variant"}


@dataclass(frozen=True, slots=True)
class Extent:
    """Where the bytes of a tensor, or of a slice of one, lie."""

    shard: int
    offset: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a partitioned variable: where it begins on each axis, and its extent."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    extent: Extent


@dataclass(frozen=True)
class GoogleCheckpoint:
    """An open checkpoint.

    Args:
        prefix: Path of its files, without `.index`.
        identity: SHA-256 of its index, which holds the CRC of every tensor.
        tensors: Every tensor, sorted by name.
        unreadable: Tensors of dtypes that no model has, with the reason.
        shards: The data files.
        slices: The pieces of each tensor; one, unless the variable was partitioned.
    """

    prefix: Path
    identity: str
    tensors: Mapping[str, Tensor]
    unreadable: Mapping[str, str]
    shards: tuple[Shard, ...]
    slices: Mapping[str, tuple[Slice, ...]]

    def check(self, names: Iterable[str], advance: Callable[[int], None] = lambda _: None) -> None:
        """Compare the bytes of tensors with their CRCs.

        Args:
            names: The tensors.
            advance: Is told of the bytes checked.

        Raises:
            CorruptCheckpointError: Some differ; all of them are listed.
        """
        pieces = [(name, piece) for name in names for piece in self.slices[name]]

        def fault(item: tuple[str, Slice]) -> str | None:
            name, piece = item
            shard = self.shards[piece.extent.shard]
            good = masked_crc(shard.bytes[piece.extent.offset :][: piece.extent.size]) == piece.extent.crc
            advance(piece.extent.size)
            return None if good else f"{name}: {shard.path.name}, {piece.extent.size} bytes at {piece.extent.offset}"

        with ThreadPoolExecutor(THREADS) as pool:
            faults = [found for found in pool.map(fault, pieces) if found is not None]
        if faults:
            raise CorruptCheckpointError(
                f"the data of {self.prefix.name} is damaged: bytes do not match their checksum",
                problems=faults,
                hint="copy the checkpoint again from where it was trained",
            )


@dataclass(frozen=True)
class Shard:
    """A data file, mapped into memory on first use."""

    path: Path
    size: int

    @cached_property
    def bytes(self) -> Array:
        """The whole file, read-only: uint8, `[size]`."""
        import numpy as np

        if not self.size:
            return np.empty(0, np.uint8)
        mapped: Array = np.memmap(self.path, np.uint8, mode="r")
        return mapped


def open_checkpoint(prefix: Path) -> GoogleCheckpoint:
    """Read the index of a checkpoint.

    Args:
        prefix: Path of its files, without `.index`.

    Raises:
        CorruptCheckpointError: The index is damaged, or data files are missing or too short.
        UnsupportedCheckpointError: It is a checkpoint of another kind.
    """
    path = prefix.with_name(f"{prefix.name}.index")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorruptCheckpointError(f"{path} cannot be read: {error.strerror}") from error
    try:
        table = dict(_table(content))
        return _Index(prefix, table).checkpoint(hashlib.sha256(content).hexdigest())
    except _Damage as damage:
        raise CorruptCheckpointError(
            f"{path.name} is damaged: {damage}", hint="copy the checkpoint again from where it was trained"
        ) from damage


class _Damage(Exception):  # noqa: N818  # it becomes a CorruptCheckpointError
    """What is wrong with an index, and where."""


# The index: a table of key and value


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(content) < FOOTER_SIZE:
        raise _Damage(f"it has {len(content)} bytes, fewer than the footer of a table")
    footer = content[-FOOTER_SIZE:]
    (magic,) = struct.unpack("<Q", footer[-8:])
    if magic != MAGIC:
        raise _Damage(f"it ends in {magic:#x}, not in the mark of a table, {MAGIC:#x}")
    position = 0
    for _ in range(2):  # past the handle of the metadata index
        _, position = _varint(footer, position)
    offset, position = _varint(footer, position)
    size, _ = _varint(footer, position)
    for _, handle in _block(content, offset, size):
        block_offset, position = _varint(handle, 0)
        block_size, _ = _varint(handle, position)
        yield from _block(content, block_offset, block_size)


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    end = offset + size
    if end + TRAILER_SIZE + FOOTER_SIZE > len(content) or size < 4:
        raise _Damage(f"a block of {size} bytes at {offset} does not fit into {len(content)} bytes")
    compression = content[end]
    (stored,) = struct.unpack_from("<I", content, end + 1)
    if masked_crc(content[offset : end + 1]) != stored:
        raise _Damage(f"the block of {size} bytes at {offset} does not match its checksum")
    if compression:
        raise _Damage(f"the block at {offset} is compressed (type {compression}); TensorFlow writes it plain")
    (restarts,) = struct.unpack_from("<I", content, end - 4)
    if 4 * (restarts + 1) > size:
        raise _Damage(f"the block at {offset} claims {restarts} restart points in {size} bytes")
    yield from _entries(content[offset : end - 4 * (restarts + 1)], offset)


def _entries(block: bytes, place: int) -> Iterator[tuple[bytes, bytes]]:
    """Undo the prefix compression of keys."""
    key, position = b"", 0
    while position < len(block):
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        end = position + unshared + length
        if shared > len(key) or end > len(block):
            raise _Damage(f"an entry at byte {place + position} runs past its block")
        key = key[:shared] + block[position : position + unshared]
        yield key, block[position + unshared : end]
        position = end


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number in base 128, low groups first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise _Damage("a number runs past its end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _Damage("a number has more than ten bytes")


def masked_crc(data: Any) -> int:
    """Return a CRC-32C as TensorFlow stores it: rotated, plus a constant (`core/lib/hash/crc32c.h`, `Mask`)."""
    import google_crc32c

    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# The entries: protocol buffers


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field: an int, or bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(message, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise _Damage(f"an entry has a field of unknown wire type {wire}")
        if position + length > len(message):
            raise _Damage("a field runs past its entry")
        data = message[position : position + length]
        yield number, data if wire == 2 else int.from_bytes(data, "little")
        position += length


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise _Damage(f"a field holds {value!r} where {kind.__name__} belongs")
    return value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


@dataclass(slots=True)
class _Entry:
    """BundleEntryProto."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    slices: tuple[tuple[tuple[int, int | None], ...], ...] = ()

    @classmethod
    def parse(cls, message: bytes) -> _Entry:
        entry = cls()
        numbers = {1: "dtype", 3: "shard", 4: "offset", 5: "size", 6: "crc"}
        for number, value in _fields(message):
            if number in numbers:
                setattr(entry, numbers[number], _expect(value, int))
            elif number == 2:
                entry.shape = tuple(_shape(_expect(value, bytes)))
            elif number == 7:
                entry.slices += (tuple(_slice(_expect(value, bytes))),)
        return entry


def _shape(message: bytes) -> Iterator[int]:
    """Parse TensorShapeProto."""
    for number, dimension in _fields(message):
        if number == 3 and dimension:
            raise _Damage("a tensor has a shape of unknown rank")
        if number == 2:
            yield _signed(next((value for field, value in _fields(_expect(dimension, bytes)) if field == 1), 0))


def _slice(message: bytes) -> Iterator[tuple[int, int | None]]:
    """Parse TensorSliceProto: start and length on each axis; no length means all of it."""
    for number, extent in _fields(message):
        if number == 1:
            fields = dict(_fields(_expect(extent, bytes)))
            yield _expect(fields.get(1, 0), int), fields.get(2)


@dataclass(frozen=True)
class _Index:
    """A parsed table, being turned into a checkpoint."""

    prefix: Path
    table: Mapping[bytes, bytes]

    def checkpoint(self, identity: str) -> GoogleCheckpoint:
        if OBJECT_GRAPH.encode() in self.table:
            raise UnsupportedCheckpointError(
                f"{self.prefix.name} is an object-based TensorFlow 2 checkpoint (it holds {OBJECT_GRAPH})",
                hint="Google's ELECTRA code writes name-based checkpoints: restore the model in TensorFlow and save "
                "it with tf.compat.v1.train.Saver",
            )
        shards = self._shards()
        tensors, slices, unreadable = {}, {}, {}
        for key, value in self.table.items():
            if not key or key.startswith(b"\0"):
                continue  # the header, and slices, which are looked up from their variable
            name, entry = _decode(key), _Entry.parse(value)
            if entry.dtype not in DTYPES:
                unreadable[name] = f"dtype {OTHER_DTYPES.get(entry.dtype, entry.dtype)}"
                continue
            slices[name] = tuple(self._slices(name, key, entry, shards))
            tensors[name] = _tensor(name, entry, slices[name], shards)
        return GoogleCheckpoint(self.prefix, identity, dict(sorted(tensors.items())), unreadable, shards, slices)

    def _shards(self) -> tuple[Shard, ...]:
        header = dict(_fields(self.table.get(b"", b"")))
        if b"" not in self.table:
            raise _Damage("it has no header")
        if header.get(2, 0):
            raise _Damage("its data is big-endian; TensorFlow wrote it on a machine of another kind")
        count = _expect(header.get(1, 0), int)
        if not 0 < count < 100_000:
            raise _Damage(f"its header counts {count} data files")
        paths = [self.prefix.with_name(f"{self.prefix.name}.data-{n:05d}-of-{count:05d}") for n in range(count)]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise CorruptCheckpointError(
                f"{self.prefix.name} lacks {len(missing)} of its {count} data files",
                problems=[f"{name} is missing" for name in missing],
                hint=f"copy every {self.prefix.name}.data-* of the checkpoint into one directory",
            )
        return tuple(Shard(path, path.stat().st_size) for path in paths)

    def _slices(self, name: str, key: bytes, entry: _Entry, shards: Sequence[Shard]) -> Iterator[Slice]:
        if any(length < 0 for length in entry.shape):
            raise _Damage(f"{name} has the impossible shape {list(entry.shape)}")
        whole = tuple((0, None) for _ in entry.shape)
        for axes in entry.slices or (whole,):
            if len(axes) != len(entry.shape):
                raise _Damage(f"a slice of {name} has {len(axes)} axes, but its shape is {list(entry.shape)}")
            piece = entry
            if entry.slices:
                slice_key = encode_slice_key(key, axes)
                if slice_key not in self.table:
                    raise _Damage(f"{name} is partitioned, and the slice at {list(axes)} is missing")
                piece = _Entry.parse(self.table[slice_key])
            start = tuple(begin for begin, _ in axes)
            lengths = zip(axes, entry.shape, strict=True)
            shape = tuple(total if length is None else length for (_, length), total in lengths)
            if any(begin + length > total for begin, length, total in zip(start, shape, entry.shape, strict=True)):
                raise _Damage(f"a slice of {name} at {list(start)} of {list(shape)} lies outside {list(entry.shape)}")
            yield Slice(start, shape, _extent(name, piece, shape, shards))


def _decode(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise _Damage(f"the name {key!r} is not UTF-8") from error


def _extent(name: str, entry: _Entry, shape: tuple[int, ...], shards: Sequence[Shard]) -> Extent:
    if entry.shard >= len(shards):
        raise _Damage(f"{name} lies in data file {entry.shard}, but there are {len(shards)}")
    size = ITEM_SIZES[DTYPES[entry.dtype]] if entry.dtype in DTYPES else 0
    for length in shape:
        size *= length
    if size != entry.size:
        raise _Damage(f"{name} has {entry.size} bytes, but its shape {list(shape)} calls for {size}")
    shard = shards[entry.shard]
    if entry.offset + entry.size > shard.size:
        raise CorruptCheckpointError(
            f"{shard.path.name} is cut short: it has {shard.size} bytes, but {name} ends at {entry.offset + entry.size}",
            hint="copy the checkpoint again from where it was trained",
        )
    return Extent(entry.shard, entry.offset, entry.size, entry.crc)


def _tensor(name: str, entry: _Entry, slices: Sequence[Slice], shards: Sequence[Shard]) -> Tensor:
    dtype = DTYPES[entry.dtype]
    if sum(piece.extent.size for piece in slices) != Tensor(name, entry.shape, dtype, lambda: None).nbytes:  # type: ignore[arg-type, return-value]
        raise _Damage(f"the slices of {name} do not make up its shape {list(entry.shape)}")

    def view(piece: Slice) -> Array:
        data = shards[piece.extent.shard].bytes[piece.extent.offset :][: piece.extent.size]
        return data.view(numpy_dtype(dtype)).reshape(piece.shape)

    def load() -> Array:
        import numpy as np

        if len(slices) == 1:
            return view(slices[0])
        whole = np.empty(entry.shape, numpy_dtype(dtype))
        for piece in slices:
            box = tuple(slice(begin, begin + n) for begin, n in zip(piece.start, piece.shape, strict=True))
            whole[box] = view(piece)
        return whole

    return Tensor(name, entry.shape, dtype, load)


# Keys of slices: TensorFlow's order-preserving code (core/lib/strings/ordered_code.h)


def encode_slice_key(name: bytes, axes: Iterable[tuple[int, int | None]]) -> bytes:
    """Return the key of one slice of a variable (`core/util/saved_tensor_slice_util.cc`, `EncodeTensorNameSlice`).

    Args:
        name: The variable.
        axes: Start and length on each axis; no length means all of it.
    """
    axes = list(axes)
    key = _ordered_number(0) + _ordered_string(name) + _ordered_number(len(axes))
    for start, length in axes:
        key += _ordered_signed(start) + _ordered_signed(-1 if length is None else length)
    return key


def _ordered_number(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(data)]) + data


def _ordered_string(value: bytes) -> bytes:
    return value.replace(b"\0", b"\0\xff").replace(b"\xff", b"\xff\0") if b"\0" in value or b"\xff" in value else value


def _ordered_signed(value: int) -> bytes:
    """Encode a number whose sign and length are in its leading bits."""
    magnitude = ~value if value < 0 else value
    length = max(1, magnitude.bit_length() // 7 + 1)
    encoded = magnitude.to_bytes(length, "big")
    header = ((1 << length) - 1) << (8 * length - length) if length < 8 else 0
    number = int.from_bytes(encoded, "big") | header
    if value < 0:
        number = ~number & ((1 << 8 * length) - 1)
    return number.to_bytes(length, "big")
