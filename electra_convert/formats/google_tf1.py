"""Google's checkpoints: TensorFlow's tensor bundle, read and written without TensorFlow.

A checkpoint is files with a common prefix. `<prefix>.index` is a sorted string table from the names of
tensors to entries, which are protocol buffers: dtype, shape, data file, offset, size, checksum. The data
files, `<prefix>.data-00000-of-00001` and so on, hold the bytes of the tensors, little-endian and in C
order. A partitioned tensor has one entry that lists its slices, and one for each slice, under a key made of
the name and the slice. The layout is that of TensorFlow's
`tensorflow/core/util/tensor_bundle/tensor_bundle.cc` and `tensorflow/core/protobuf/tensor_bundle.proto`.

Opening reads the index alone, and checks all it says against the sizes of the data files. Values are read when
they are loaded.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise, product
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from electra_convert.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    SourceError,
    UnsupportedCheckpointError,
)
from electra_convert.formats.extents import cast_blocks, contiguous_blocks, reserve, write_blocks
from electra_convert.formats.ordered_code import ordered_integer, ordered_number, ordered_string
from electra_convert.formats.sstable import CompressedBlockError, masked, read_table, write_table
from electra_convert.formats.stored import StoredArray, StoredFile
from electra_convert.formats.wire import DamageError, Message, bytes_field, fixed32_field, number_field
from electra_convert.printable import printable
from electra_convert.tensor import FLOATING, ITEM_SIZES, Tensor, numpy_dtype
from electra_convert.whole_file import read_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from electra_convert.progress import Advance
    from electra_convert.tensor import Array, Values

    Box = tuple[tuple[int, int], ...]
    """The start and length of a slice on each axis."""
    _State = Literal["damaged", "not finite", "good"]
    """What values are: not those that were saved, no numbers, or neither."""

HEADER_KEY = b""
SLICE_KEY_START = b"\0"
"""First byte of the key of a slice (`EncodeTensorNameSlice`), and of no name."""
OBJECT_GRAPH_KEY = b"_CHECKPOINTABLE_OBJECT_GRAPH"
FORMAT_VERSION = 1
"""`kTensorBundleVersion`, the same since 2016."""
FULL_LENGTH = -1
"""Length of a slice that takes all of an axis (`TensorSlice::kFullExtent`)."""

MAX_INDEX_SIZE = 1 << 22
"""Bytes; the index of a large ELECTRA with its optimiser takes about a hundred thousand."""
MAX_RANK = 32
"""Axes an array of NumPy 1 can have."""
MAX_AXES = 254
"""Axes a tensor of TensorFlow can have (`tensor_shape.h`)."""
MAX_PARTITIONED_RANK = 8
MAX_ELEMENTS = 1 << 59
CHUNK_SIZE = 1 << 20
"""Bytes that are checked at a time: they should be in a cache of the processor when they are looked at again."""
THREADS = 2

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
"""Element types by their number (`tensorflow/core/framework/types.proto`)."""
DTYPE_NUMBERS = {dtype: number for number, dtype in DTYPES.items()}
OTHER_DTYPES = {
    7: "string",
    8: "complex64",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    15: "qint16",
    16: "quint16",
    17: "uint16",
    18: "complex128",
    20: "resource",
    21: "variant",
    22: "uint32",
    23: "uint64",
}
"""Element types that no weight has."""

READ_HINT = "see that it is a file of a checkpoint, and that you may read it"
DAMAGED_HINT = "copy or download the checkpoint again, and compare the sizes of its files with the originals"
DIVERGED_HINT = "the training diverged: convert a checkpoint from before, for instance with --step"
RESAVE_HINT = (
    "load the weights into the graph of google-research/electra and save them by name, with "
    "tf.compat.v1.train.Saver on a little-endian machine"
)


@dataclass(frozen=True, slots=True, eq=False)
class GoogleCheckpoint:
    """An open checkpoint: what it holds now, its values when they are loaded.

    Args:
        prefix: What the names of its files begin with: `electra_small/model.ckpt-30`.
        identity: SHA-256 of the index, which holds the checksum of every tensor.
        files: The index, then the data files.
        tensors: The tensors by name, sorted. Their values are in the data files; those of a partitioned one are put
            together in memory.
        unreadable: Tensors that cannot be read although nothing is damaged, by name: the reason, which is the
            element type as a rule.
    """

    prefix: Path
    identity: str
    files: tuple[Path, ...]
    tensors: Mapping[str, Tensor] = field(repr=False)
    unreadable: Mapping[str, str] = field(repr=False)
    _pieces: Mapping[str, Sequence[_Piece]] = field(repr=False)
    _states: _States = field(repr=False)
    identified_by: ClassVar[str] = "index_sha256"
    """The key of the identity in the record of a conversion."""

    @property
    def name(self) -> str:
        """What to call it: the name its files begin with."""
        return self.prefix.name

    def check(self, names: Iterable[str]) -> None:
        """Compare the bytes of tensors with their checksums, and see that they are numbers.

        Tensors whose values were read meanwhile, from the first to the last, are known already; the others are read.

        Args:
            names: The tensors, each a key of `tensors`.

        Raises:
            CorruptCheckpointError: Some differ, or are NaN or infinite; it lists all that do or are. Or a file changed.
        """
        pieces = [(name, piece) for name in names for piece in self._pieces[name]]
        self._states.examine(piece for _, piece in pieces)
        self.require_unchanged()
        for state, what, hint in (
            ("damaged", "differ from their checksums", DAMAGED_HINT),
            ("not finite", "hold NaN or infinite values", DIVERGED_HINT),
        ):
            faulty = [f"{name}: {piece}" for name, piece in pieces if self._states[piece] == state]
            _require_none(faulty, f"tensors of the checkpoint {self.prefix} {what}", hint)

    def require_unchanged(self) -> None:
        """Check that the data files that were read are those that were opened.

        Raises:
            CorruptCheckpointError: One was written to since.
        """
        for file in {piece.file for pieces in self._pieces.values() for piece in pieces}:
            file.require_unchanged()


def open_checkpoint(prefix: Path) -> GoogleCheckpoint:
    """Open a checkpoint: read its index, and check that the data files can hold what it says.

    No value is read, and NumPy is not imported.

    Args:
        prefix: What the names of its files begin with: `electra_small/model.ckpt-30`.

    Raises:
        CheckpointNotFoundError: There is no index.
        UnsupportedCheckpointError: It is object-based (TensorFlow 2), big-endian, compressed or too new.
        CorruptCheckpointError: The index is damaged, or data files are missing or truncated.
    """
    index = index_path(prefix)
    data = _read_index(index)
    try:
        table = read_table(data)
        shard_count = _shard_count(table)
        _require_kind(table, prefix)
    except CompressedBlockError as error:
        raise UnsupportedCheckpointError(f"cannot read {index}: {error}", hint=RESAVE_HINT) from error
    except DamageError as error:
        raise CorruptCheckpointError(f"{index} is damaged: {error}", hint=DAMAGED_HINT) from error
    entries = _entries(table, index)
    shards = _shards(entries, prefix, shard_count)
    states = _States()
    tensors, pieces = _tensors(entries, shards, index, states)
    return GoogleCheckpoint(
        prefix=prefix,
        identity=hashlib.sha256(data).hexdigest(),
        files=(index, *(shard.path for shard in shards.values())),
        tensors=MappingProxyType(tensors),
        unreadable=MappingProxyType(_unreadable(entries)),
        _pieces=MappingProxyType(pieces),
        _states=states,
    )


def write_checkpoint(
    prefix: Path, tensors: Iterable[Tensor], *, dtype: str | None = None, advance: Advance = lambda _: None
) -> None:
    """Write a new checkpoint with one data file, synced to disk; TensorFlow reads it by name.

    Tensors lie in the order given; they are read and written by two threads, a few megabytes at a time. The index comes
    last: without it there is no checkpoint. The same tensors give the same bytes; sorted by name, those TensorFlow's
    `Saver` writes.

    Args:
        prefix: What the names of the files begin with; the files must not exist, their directory must.
        tensors: The tensors, each name once.
        dtype: The dtype of all floating-point tensors; by default each keeps its own.
        advance: Is told of the bytes that were written, from any thread.

    Raises:
        OutputError: A value is too large for the dtype.
    """
    placed = _placed(tensors, dtype)
    with shard_path(prefix, 0, 1).open("xb") as file:
        reserve(file.fileno(), 0, sum(entry.size for _, entry in placed))
        with ThreadPoolExecutor(THREADS) as pool:
            checksums = list(pool.map(partial(_write_values, file.fileno(), advance=advance), placed))
        os.fsync(file.fileno())
    entries = {HEADER_KEY: number_field(1, 1) + bytes_field(3, number_field(1, FORMAT_VERSION))}
    for (tensor, entry), checksum in zip(placed, checksums, strict=True):
        entries[tensor.name.encode()] = msgspec.structs.replace(entry, checksum=checksum).serialize()
    with index_path(prefix).open("xb") as file:
        file.write(write_table(entries))
        file.flush()
        os.fsync(file.fileno())


def index_path(prefix: Path) -> Path:
    """Return the path of the index of a checkpoint."""
    return prefix.with_name(f"{prefix.name}.index")


def shard_path(prefix: Path, number: int, count: int) -> Path:
    """Return the path of a data file of a checkpoint (`tensor_bundle/naming.cc`)."""
    return prefix.with_name(f"{prefix.name}.data-{number:05d}-of-{count:05d}")


def _read_index(index: Path) -> bytes:
    try:
        return read_whole(index, MAX_INDEX_SIZE)
    except FileNotFoundError as error:
        raise CheckpointNotFoundError(
            f"there is no {index}",
            hint="name the directory of a checkpoint, or what the names of its files begin with",
        ) from error
    except OSError as error:
        raise SourceError(f"cannot read {index}: {error.strerror}", hint=READ_HINT) from error


def _shard_count(table: Mapping[bytes, bytes]) -> int:
    if HEADER_KEY not in table:
        raise DamageError("it has no header")
    count = Message(table[HEADER_KEY]).number(1)
    if count < 1:
        raise DamageError(f"its header counts {count} data files")
    return count


def _require_kind(table: Mapping[bytes, bytes], prefix: Path) -> None:
    """Raise unless a checkpoint is of the kind this module reads."""
    header = Message(table[HEADER_KEY])
    is_big_endian, version = header.number(2), header.submessage(3).number(2)
    fault = ""
    if is_big_endian:
        fault = "its values are big-endian; only little-endian ones are read"
    elif version > FORMAT_VERSION:
        fault = f"it is for readers of format version {version}; this one reads version {FORMAT_VERSION}"
    elif OBJECT_GRAPH_KEY in table:
        fault = (
            "it is an object-based TensorFlow 2 checkpoint, from tf.train.Checkpoint or Keras save_weights: "
            "its tensors are named after Python attributes, not after the variables of Google's graph"
        )
    if fault:
        raise UnsupportedCheckpointError(f"cannot read the checkpoint {prefix}: {fault}", hint=RESAVE_HINT)


# What the index says


class _Entry(msgspec.Struct, frozen=True):
    """A `BundleEntryProto`: a tensor, a slice of a partitioned one, or how one is partitioned."""

    dtype_number: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    slices: tuple[Box, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> _Entry:
        """Return the entry in some bytes.

        Raises:
            DamageError: They are no entry, or its shape is impossible.
        """
        message = Message(data)
        return cls(
            dtype_number=message.number(1),
            shape=_shape(b"".join(message.parts(2))),
            shard=message.number(3),
            offset=message.number(4),
            size=message.number(5),
            checksum=message.number(6),
            slices=tuple(_box(part) for part in message.submessages(7)),
        )

    def serialize(self) -> bytes:
        """Return the bytes TensorFlow writes for an entry that is not partitioned."""
        shape = b"".join(bytes_field(2, number_field(1, length)) for length in self.shape)
        return (
            number_field(1, self.dtype_number)
            + bytes_field(2, shape)
            + number_field(3, self.shard)
            + number_field(4, self.offset)
            + number_field(5, self.size)
            + fixed32_field(6, self.checksum)
        )

    @property
    def dtype(self) -> str:
        """Name of the element type."""
        return DTYPES.get(self.dtype_number) or OTHER_DTYPES.get(self.dtype_number, f"number {self.dtype_number}")

    @property
    def fault(self) -> str:
        """Why the tensor cannot be read although it is whole; nothing if it can."""
        if self.dtype_number not in DTYPES:
            return f"its element type is {self.dtype}"
        most = MAX_PARTITIONED_RANK if self.slices else MAX_RANK
        return f"it has {len(self.shape)} axes; at most {most} are read" if len(self.shape) > most else ""


@lru_cache
def _shape(data: bytes) -> tuple[int, ...]:
    """Return the lengths in a `TensorShapeProto`; a checkpoint has many tensors of few shapes."""
    message = Message(data)
    axes = message.parts(2)
    if len(axes) > MAX_AXES:
        raise DamageError(f"it has {len(axes)} axes; a tensor has at most {MAX_AXES}")
    shape = tuple(Message(axis).number(1) for axis in axes)
    if message.number(3) or any(length < 0 for length in shape):
        raise DamageError(f"its shape {list(shape)} is not known in full")
    if math.prod(length or 1 for length in shape) > MAX_ELEMENTS:
        raise DamageError(f"its shape {list(shape)} is larger than any memory")
    return shape


def _box(message: Message) -> Box:
    """Return the starts and lengths in a `TensorSliceProto`."""
    return tuple((axis.number(1), axis.number(2, default=FULL_LENGTH)) for axis in message.submessages(1))


def _entries(table: Mapping[bytes, bytes], index: Path) -> dict[bytes, _Entry]:
    """Return the entry of each key but the header."""
    entries: dict[bytes, _Entry] = {}
    problems = []
    for key, value in table.items():
        if key != HEADER_KEY:
            try:
                entries[key] = _Entry.parse(value)
            except DamageError as error:
                problems.append(f"{printable(key)}: {error}")
    _require_none(problems, f"{index} is damaged")
    return entries


def _shards(entries: Mapping[bytes, _Entry], prefix: Path, count: int) -> dict[int, StoredFile]:
    """Return the data files that entries refer to, by number."""
    numbers = sorted({entry.shard for entry in entries.values() if not entry.slices})
    outside = [f"data file {number} of {count}" for number in numbers if not 0 <= number < count]
    _require_none(outside, f"{index_path(prefix)} is damaged: it refers to data files that cannot be")
    paths = {number: shard_path(prefix, number, count) for number in numbers}
    missing = [str(path) for path in paths.values() if not os.path.lexists(path)]
    _require_none(missing, f"the checkpoint {prefix} is incomplete: data files are missing")
    others = [str(path) for path in paths.values() if not path.is_file()]
    _require_none(others, f"the checkpoint {prefix} is incomplete: data files are no files that can be read")
    return {number: StoredFile.find(path) for number, path in paths.items()}


def _unreadable(entries: Mapping[bytes, _Entry]) -> dict[str, str]:
    return {printable(key): entry.fault for key, entry in entries.items() if entry.fault and not _is_slice(key)}


def _tensors(
    entries: Mapping[bytes, _Entry], shards: Mapping[int, StoredFile], index: Path, states: _States
) -> tuple[dict[str, Tensor], dict[str, Sequence[_Piece]]]:
    """Return each readable tensor and the pieces it is made of, by name."""
    tensors: dict[str, Tensor] = {}
    pieces: dict[str, Sequence[_Piece]] = {}
    problems = _stray_slices(entries)
    for key, entry in entries.items():
        if entry.fault or _is_slice(key):
            continue
        try:
            name = key.decode()
            pieces[name] = _locate(key, entries, shards)
            tensors[name] = Tensor(name, entry.shape, entry.dtype, partial(_values, pieces[name], entry, states))
        except UnicodeDecodeError:
            problems.append(f"{printable(key)}: the name is not UTF-8")
        except DamageError as error:
            problems.append(f"{printable(key)}: {error}")
    problems += _overlaps(pieces)
    _require_none(problems, f"{index} is damaged, or data files are truncated")
    return tensors, pieces


def _overlaps(pieces: Mapping[str, Sequence[_Piece]]) -> Iterator[str]:
    """Yield what claims bytes of another tensor."""
    placed = [(piece.file.path, piece.offset, name, piece) for name in pieces for piece in pieces[name] if piece.size]
    for (path, _, name, piece), (other, start, follower, _) in pairwise(sorted(placed, key=lambda place: place[:3])):
        if path == other and start < piece.offset + piece.size:
            yield f"{follower}: it begins at byte {start} of {path.name}, within {name}"


def _stray_slices(entries: Mapping[bytes, _Entry]) -> list[str]:
    """Return the slices that no tensor lists."""
    listed = {_slice_key(key, box) for key, entry in entries.items() for box in entry.slices}
    return [f"{printable(key)}: no tensor has such a slice" for key in entries if _is_slice(key) and key not in listed]


def _locate(key: bytes, entries: Mapping[bytes, _Entry], shards: Mapping[int, StoredFile]) -> list[_Piece]:
    """Return the pieces of a tensor: itself, or its slices."""
    entry = entries[key]
    if not entry.slices:
        return [_piece(entry, shards, tuple((0, length) for length in entry.shape))]
    boxes = [_resolve(box, entry.shape) for box in entry.slices]
    if not _tile(entry.shape, boxes):
        raise DamageError(f"its slices {_text(boxes)} do not make up its shape {list(entry.shape)}")
    keys = [_slice_key(key, box) for box in entry.slices]
    absent = [box for slice_key, box in zip(keys, boxes, strict=True) if slice_key not in entries]
    if absent:
        raise DamageError(f"there is no entry for its slices {_text(absent)}")
    for slice_key, box in zip(keys, boxes, strict=True):
        _require_slice(entries[slice_key], entry, box)
    return [_piece(entries[slice_key], shards, box) for slice_key, box in zip(keys, boxes, strict=True)]


def _require_slice(part: _Entry, entry: _Entry, box: Box) -> None:
    """Raise unless an entry is what a slice of another must be."""
    shape = tuple(length for _, length in box)
    if part.slices or part.dtype != entry.dtype or part.shape != shape:
        raise DamageError(
            f"its slice {_text([box])} is {part.dtype} of shape {list(part.shape)}, "
            f"not {entry.dtype} of shape {list(shape)}"
        )


def _piece(entry: _Entry, shards: Mapping[int, StoredFile], box: Box) -> _Piece:
    """Return where the bytes of an entry are, once they are as many as it needs and in its file."""
    shard = shards[entry.shard]
    needed = math.prod(entry.shape) * ITEM_SIZES[entry.dtype]
    if entry.size != needed:
        raise DamageError(f"it has {entry.size} bytes; {entry.dtype} of shape {list(entry.shape)} takes {needed}")
    end = entry.offset + entry.size
    if entry.offset < 0 or end > shard.size:
        raise DamageError(f"it is at bytes {entry.offset} to {end} of {shard.path.name}, which has {shard.size}")
    return _Piece(shard, entry.dtype, entry.offset, entry.size, entry.checksum, box)


# Slices


def _is_slice(key: bytes) -> bool:
    return key.startswith(SLICE_KEY_START)


def _slice_key(name: bytes, box: Box) -> bytes:
    """Return the key of a slice's entry (`EncodeTensorNameSlice` of `saved_tensor_slice_util.cc`)."""
    extents = b"".join(ordered_integer(start) + ordered_integer(length) for start, length in box)
    return SLICE_KEY_START + ordered_string(name) + ordered_number(len(box)) + extents


def _resolve(box: Box, shape: tuple[int, ...]) -> Box:
    """Return a slice of a tensor of that shape, the length of a full axis filled in."""
    if len(box) != len(shape):
        raise DamageError(f"its slice {_text([box])} has not the {len(shape)} axes of its shape {list(shape)}")
    resolved = tuple(
        (start, whole if length == FULL_LENGTH else length) for (start, length), whole in zip(box, shape, strict=True)
    )
    if any(start < 0 or length < 0 for start, length in resolved):
        raise DamageError(f"its slice {_text([box])} has a negative start or length")
    return resolved


def _tile(shape: tuple[int, ...], boxes: Iterable[Box]) -> bool:
    """Return whether boxes cover a shape, every element once.

    A box is determined by its corners, with signs that alternate along its edges. Boxes add up to a larger
    one exactly if the corners do, the inner ones cancelling out.
    """
    corners = _corners(tuple((0, length) for length in shape))
    for box in boxes:
        corners.subtract(_corners(box))
    return not any(corners.values())


def _corners(box: Box) -> Counter[tuple[int, ...]]:
    corners: Counter[tuple[int, ...]] = Counter()
    for sides in product((0, 1), repeat=len(box)):
        corner = tuple(start + side * length for (start, length), side in zip(box, sides, strict=True))
        corners[corner] += (-1) ** sum(sides)
    return corners


def _text(boxes: Iterable[Box]) -> str:
    """Return slices as Python writes them: `[0:3, 0:4]`."""
    return ", ".join("[" + ", ".join(f"{start}:{start + length}" for start, length in box) + "]" for box in boxes)


# Values


class _Piece(msgspec.Struct, frozen=True):
    """Bytes of a data file that are a tensor, or a slice of one."""

    file: StoredFile
    dtype: str
    offset: int
    size: int
    checksum: int
    box: Box

    def __str__(self) -> str:
        return f"{self.size} bytes at byte {self.offset} of {self.file.path}"

    def values(self, states: _States) -> StoredArray:
        """Return the elements; what they are is noted once all are read."""
        return StoredArray(self.file, self.dtype, self.offset, self.lengths, follow=_Examination(self, states))

    @property
    def lengths(self) -> tuple[int, ...]:
        """The length of each axis."""
        return tuple(length for _, length in self.box)


class _States(dict["_Piece", "_State"]):
    """What the values of pieces are, as far as it is known."""

    def examine(self, pieces: Iterable[_Piece]) -> None:
        """Read the pieces that were not read yet."""
        unknown = [piece for piece in pieces if piece not in self]
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(self._read, unknown):
                pass

    def _read(self, piece: _Piece) -> None:
        import numpy as np

        values = msgspec.structs.replace(piece.values(self), lengths=(math.prod(piece.lengths),))
        count = CHUNK_SIZE // ITEM_SIZES[piece.dtype]
        buffer = np.empty(min(count, len(values)), numpy_dtype(piece.dtype))
        for start in range(0, max(1, len(values)), count):
            chunk = values[start : start + count]
            chunk.read_into(buffer[: len(chunk)])


class _Examination:
    """Follows the reading of a piece; what is not read in order is not looked at."""

    def __init__(self, piece: _Piece, states: _States) -> None:
        self._piece, self._states = piece, states
        self._crc, self._finite, self._offset = 0, True, piece.offset

    def __call__(self, offset: int, values: Array) -> None:
        """Look at the values that begin at an offset of the file."""
        import google_crc32c
        import numpy as np

        if offset != self._offset or self._piece in self._states:
            return
        self._offset += values.nbytes
        self._crc = google_crc32c.extend(self._crc, values.reshape(-1).view(np.uint8))
        self._finite = self._finite and _is_finite(values)
        if self._offset == self._piece.offset + self._piece.size:
            good: _State = "good" if self._finite else "not finite"
            self._states[self._piece] = good if masked(self._crc) == self._piece.checksum else "damaged"


def _is_finite(values: Array) -> bool:
    import numpy as np

    with np.errstate(invalid="ignore"):  # ml_dtypes warns of NaNs that signal
        return bool(np.isfinite(values).all())


def _values(pieces: Sequence[_Piece], entry: _Entry, states: _States) -> Values:
    """Return the values of a tensor: where they lie in a file, or its slices joined."""
    import numpy as np

    if not entry.slices:
        return pieces[0].values(states)
    array = np.empty(entry.shape, numpy_dtype(entry.dtype))
    for piece in pieces:
        part = array[tuple(slice(start, start + length) for start, length in piece.box)]
        if part.flags.c_contiguous:
            piece.values(states).read_into(part)
        else:
            part[...] = piece.values(states)
    return array


# Writing


def _placed(tensors: Iterable[Tensor], dtype: str | None) -> list[tuple[Tensor, _Entry]]:
    """Return each tensor with its entry, but for the checksum: one lies behind the other."""
    placed: list[tuple[Tensor, _Entry]] = []
    names, end = {""}, 0
    for tensor in tensors:
        if tensor.name in names or tensor.name.encode().startswith(SLICE_KEY_START):
            raise ValueError(f"{tensor.name!r} is the name of two tensors, or no name")
        names.add(tensor.name)
        written = dtype if dtype and tensor.dtype in FLOATING else tensor.dtype
        size = tensor.size * ITEM_SIZES[written]
        placed.append((tensor, _Entry(DTYPE_NUMBERS[written], tensor.shape, 0, end, size, 0)))
        end += size
    return placed


def _write_values(descriptor: int, placed: tuple[Tensor, _Entry], *, advance: Advance) -> int:
    """Write the values of a tensor at their place and return their checksum."""
    tensor, entry = placed
    checksum = 0

    def followed() -> Iterator[Array]:
        import google_crc32c

        nonlocal checksum
        for block in _bytes_of(tensor, entry.dtype):
            checksum = google_crc32c.extend(checksum, block)
            yield block

    write_blocks(descriptor, followed(), entry.offset, advance)
    return masked(checksum)


def _bytes_of(tensor: Tensor, dtype: str) -> Iterator[Array]:
    """Yield the bytes of a tensor in C order, a few megabytes at a time."""
    import numpy as np

    values = tensor.values()
    if str(values.dtype) != tensor.dtype or values.shape != tensor.shape:
        raise ValueError(f"{tensor.name} is {values.dtype} {values.shape}, described as {tensor.dtype} {tensor.shape}")
    if dtype != tensor.dtype:
        yield from cast_blocks(msgspec.structs.replace(tensor, values=lambda: values), numpy_dtype(dtype))
        return
    for block in contiguous_blocks(values, numpy_dtype(dtype)):
        yield block.reshape(-1).view(np.uint8)


# Problems


def _require_none(problems: Sequence[str], message: str, hint: str = DAMAGED_HINT) -> None:
    if problems:
        raise CorruptCheckpointError(message, problems=problems, hint=hint)
