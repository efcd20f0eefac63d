"""Sorted string tables, the LevelDB-style files in which TensorFlow keeps the index of a checkpoint.

A table is data blocks, an index block that lists them, and a footer that finds the index block. Blocks hold
keys in order, each stored as what it adds to the key before it, and end in a checksum. The layout is that of
TensorFlow's `tensorflow/core/lib/io`: `format.h`, `table_builder.cc`, `block_builder.cc`.

Nothing here trusts its input: every length is checked against the bytes that are there.
"""

from __future__ import annotations

import struct
from itertools import zip_longest
from typing import TYPE_CHECKING

from electra_convert.formats.wire import DamageError, read_varint, varint
from electra_convert.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
"""The last eight bytes of every table."""
FOOTER_SIZE = 48
BLOCK_TRAILER_SIZE = 5
BLOCK_SIZE = 262_144
"""Bytes after which a block is closed (`table_options.h`)."""
RESTART_INTERVAL = 16
"""Keys after which one is stored in full (`table_options.h`)."""
COUNT = struct.Struct("<I")
MAX_EXPANSION = 64
"""Times its own size that a table's keys may take. Names of variables stay far below; a table made to exhaust
memory does not."""
MAX_KEYS_SIZE = 1 << 24
"""Bytes that a table's keys may take; those of a large ELECTRA with its optimiser take a hundred thousand."""
MAX_KEY_SIZE = 1 << 12
"""Bytes of one name, or of one slice of it."""
MAX_ENTRIES = 1 << 15
"""A large ELECTRA with its optimiser has twelve hundred."""
MAX_SHOWN = 100
"""Bytes of a key that are shown."""


class CompressedBlockError(DamageError):
    """A block is compressed."""


def read_table(data: bytes) -> dict[bytes, bytes]:
    """Return the entries of a table, in the order of their keys.

    Args:
        data: All bytes of the table.

    Raises:
        DamageError: The bytes are no table, or a damaged one.
    """
    entries: dict[bytes, bytes] = {}
    last: bytes | None = None
    room = min(MAX_EXPANSION * len(data), MAX_KEYS_SIZE)
    for begin, end in _data_blocks(data):
        for key, value in _block_entries(data, begin, end):
            if last is not None and key <= last:
                raise DamageError(f"the key {printable(key, MAX_SHOWN)} comes after {printable(last, MAX_SHOWN)}")
            if len(key) > MAX_KEY_SIZE:
                raise DamageError(f"the key {printable(key, MAX_SHOWN)} has {len(key)} bytes, more than any name")
            room -= len(key)
            if room < 0:
                raise DamageError(
                    f"the keys take more than {MAX_EXPANSION} times the size of the file, or {MAX_KEYS_SIZE} bytes"
                )
            entries[key] = value
            last = key
            if len(entries) > MAX_ENTRIES:
                raise DamageError(f"it has more than {MAX_ENTRIES} entries")
    return entries


def write_table(entries: Mapping[bytes, bytes]) -> bytes:
    """Return the table of some entries, byte for byte as TensorFlow writes it."""
    table = bytearray()
    index = _BlockBuilder(restart_interval=1)
    block = _BlockBuilder()
    keys = sorted(entries)
    for key, following in zip_longest(keys, keys[1:]):
        block.add(key, entries[key])
        if following is None or block.size >= BLOCK_SIZE:
            index.add(_separator(key, following), _append_block(table, block))
            block = _BlockBuilder()
    footer = _append_block(table, _BlockBuilder()) + _append_block(table, index)
    return bytes(table) + footer.ljust(FOOTER_SIZE - len(MAGIC), b"\0") + MAGIC


def masked(crc: int) -> int:
    """Return a checksum as TensorFlow stores it (`crc32c.h`, `Mask`): rotated, and moved by a constant."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFF_FFFF


def _data_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the entries of each block begin and end; blocks follow one another, and none is there twice."""
    free = 0
    for _, handle in _block_entries(data, *_index_block(data)):
        (offset, size), _ = _handle(handle, 0)
        if offset < free:
            raise DamageError(f"the block at byte {offset} begins before byte {free}, where the one before it ends")
        yield _block(data, offset, size)
        free = offset + size + BLOCK_TRAILER_SIZE


def _index_block(data: bytes) -> tuple[int, int]:
    if len(data) < FOOTER_SIZE:
        raise DamageError(f"it has {len(data)} bytes, fewer than the {FOOTER_SIZE} of a footer")
    if not data.endswith(MAGIC):
        raise DamageError(f"it ends in {data[-len(MAGIC) :].hex()}, not in {MAGIC.hex()} as an index does")
    metadata, position = _handle(data, len(data) - FOOTER_SIZE)
    index, _ = _handle(data, position)
    _block(data, *metadata)  # it holds nothing, but belongs to an undamaged table
    return _block(data, *index)


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Return the offset and size of a block, and the position after them."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _block(data: bytes, offset: int, size: int) -> tuple[int, int]:
    """Return where the entries of a block begin and end, once its checksum is right."""
    import google_crc32c

    end = offset + size
    if end + BLOCK_TRAILER_SIZE > len(data) - FOOTER_SIZE:
        raise DamageError(f"the block at byte {offset}, of {size} bytes, reaches past the end")
    compression, stored = struct.unpack_from("<BI", data, end)
    computed = masked(google_crc32c.value(data[offset : end + 1]))
    if stored != computed:
        raise DamageError(f"the block at byte {offset} has checksum {computed:08x}, not {stored:08x} as stored")
    if compression:
        raise CompressedBlockError(f"the block at byte {offset} is compressed (type {compression})")
    return offset, _entries_end(data, offset, end)


def _entries_end(data: bytes, offset: int, end: int) -> int:
    """Return where the entries of a block end and the list of its full keys begins."""
    if end - offset < COUNT.size:
        raise DamageError(f"the block at byte {offset} has {end - offset} bytes, fewer than any block")
    restarts: int = COUNT.unpack_from(data, end - COUNT.size)[0]
    entries_end = end - COUNT.size * (restarts + 1)
    if entries_end < offset:
        raise DamageError(f"the block at byte {offset} claims {restarts} full keys, more than fit")
    return entries_end


def _block_entries(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    key = b""
    while position < end:
        start = position
        shared, position = read_varint(data, position)
        unshared, position = read_varint(data, position)
        value_size, position = read_varint(data, position)
        middle = position + unshared
        if shared > len(key) or middle + value_size > end:
            raise DamageError(f"the entry at byte {start} does not fit its block")
        key = key[:shared] + data[position:middle]
        position = middle + value_size
        yield key, data[middle:position]


def _separator(key: bytes, following: bytes | None) -> bytes:
    """Return a short key that is not before `key`, but before `following` if there is one.

    It is what `FindShortestSeparator` and `FindShortSuccessor` of `table_builder.cc` return.
    """
    if following is None:
        common = len(key) - len(key.lstrip(b"\xff"))
        return key[:common] + bytes([key[common] + 1]) if common < len(key) else key
    common = _shared(key, following)
    if common < len(key) and key[common] + 1 < following[common]:
        return key[:common] + bytes([key[common] + 1])
    return key


def _shared(first: bytes, second: bytes) -> int:
    """Return how many bytes two keys begin with in common."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((position for position, (one, other) in pairs if one != other), min(len(first), len(second)))


def _append_block(table: bytearray, block: _BlockBuilder) -> bytes:
    """Append a block to a table and return its handle."""
    import google_crc32c

    content = block.finish()
    handle = varint(len(table)) + varint(len(content))
    uncompressed = b"\0"
    checksum = masked(google_crc32c.value(content + uncompressed))
    table += content + uncompressed + struct.pack("<I", checksum)
    return handle


class _BlockBuilder:
    """Collects the entries of one block, keys in order."""

    def __init__(self, restart_interval: int = RESTART_INTERVAL) -> None:
        self._last_key = b""
        self._interval = restart_interval
        self._count = 0
        self._content = bytearray()
        self._restarts = [0]

    @property
    def size(self) -> int:
        """Bytes the block takes now."""
        return len(self._content) + 4 * (len(self._restarts) + 1)

    def add(self, key: bytes, value: bytes) -> None:
        """Add an entry: what the key shares with the one before, the rest of the key, the value."""
        shared = _shared(self._last_key, key)
        if self._count == self._interval:
            self._restarts.append(len(self._content))
            self._count = shared = 0
        self._content += varint(shared) + varint(len(key) - shared) + varint(len(value))
        self._content += key[shared:] + value
        self._count += 1
        self._last_key = key

    def finish(self) -> bytes:
        """Return the block: its entries, and where the full keys are."""
        restarts = [*self._restarts, len(self._restarts)]
        return bytes(self._content) + struct.pack(f"<{len(restarts)}I", *restarts)
