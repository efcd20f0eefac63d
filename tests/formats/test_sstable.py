"""Sorted string tables."""

from __future__ import annotations

import struct
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_convert.formats.sstable import (
    BLOCK_SIZE,
    FOOTER_SIZE,
    MAGIC,
    CompressedBlockError,
    _separator,
    masked,
    read_table,
    write_table,
)
from electra_convert.formats.wire import DamageError, varint

FIXTURES = Path(__file__).parents[2] / "fixtures"
INDEXES = sorted(FIXTURES.rglob("*.index"))
KEYS = st.one_of(st.binary(max_size=8), st.text("ab/_0", max_size=12).map(str.encode))


def with_footer(blocks: bytes, offset: int, size: int) -> bytes:
    """Append a footer that finds the index block."""
    handles = 2 * (varint(offset) + varint(size))  # the index block may be that of metadata as well
    return blocks + handles.ljust(FOOTER_SIZE - len(MAGIC), b"\0") + MAGIC


def block(entries: bytes, *, restarts: int = 0, compression: int = 0) -> bytes:
    """Return a block with a checksum that is right."""
    content = entries + struct.pack("<I", restarts) + bytes([compression])
    return content + struct.pack("<I", masked(google_crc32c.value(content)))


def entry(shared: int, key: bytes, value: bytes) -> bytes:
    """Return an entry of a block."""
    return varint(shared) + varint(len(key)) + varint(len(value)) + key + value


def table_of(data_block: bytes, *handles: bytes) -> bytes:
    """Return a table of one data block, listed once or as often as there are handles."""
    handles = handles or (varint(0) + varint(len(data_block) - 5),)
    index = block(b"".join(entry(0, bytes([65 + number]), handle) for number, handle in enumerate(handles)))
    return with_footer(data_block + index, len(data_block), len(index) - 5)


@pytest.mark.parametrize("index", INDEXES, ids=lambda path: str(path.relative_to(FIXTURES)))
def test_tensorflows_tables_are_written_again_byte_for_byte(index: Path) -> None:
    """Every index TensorFlow wrote: its entries are read, and make the same table."""
    data = index.read_bytes()
    assert write_table(read_table(data)) == data


@given(entries=st.dictionaries(KEYS, st.binary(max_size=40), max_size=60))
def test_entries_are_read_as_they_were_written(entries: dict[bytes, bytes]) -> None:
    """In the order of their keys."""
    assert list(read_table(write_table(entries)).items()) == sorted(entries.items())


def test_large_tables_have_many_blocks() -> None:
    """More than one data block is written, and read."""
    entries = {f"name/{number:05d}".encode(): bytes(number % 251 for _ in range(60)) for number in range(20_000)}
    table = write_table(entries)
    assert len(table) > 4 * BLOCK_SIZE
    assert read_table(table) == entries
    changed = bytearray(table)
    changed[len(table) // 2] ^= 1
    with pytest.raises(DamageError, match=r"the block at byte [1-9]"):
        read_table(bytes(changed))


@given(keys=st.lists(KEYS, min_size=2, unique=True))
def test_separators_lie_between_keys(keys: list[bytes]) -> None:
    """From a key on, before the next, and no longer than the key."""
    for key, following in pairwise(sorted(keys)):
        separator = _separator(key, following)
        assert key <= separator < following
        assert len(separator) <= len(key)
    assert max(keys) <= _separator(max(keys), None)


@pytest.mark.parametrize("size", [0, 1, FOOTER_SIZE - 1, FOOTER_SIZE])
def test_short_or_foreign_files_are_no_tables(size: int) -> None:
    """Neither nothing, nor less than a footer, nor other bytes."""
    with pytest.raises(DamageError, match=r"footer|not in 57fb808b247547db"):
        read_table(bytes(size))


def test_every_truncation_is_damage() -> None:
    """At each length a file can be cut to."""
    data = INDEXES[0].read_bytes()
    for size in range(len(data)):
        with pytest.raises(DamageError):
            read_table(data[:size])


def test_every_changed_byte_of_a_block_is_damage() -> None:
    """The checksums cover all bytes but those of the footer."""
    data = write_table({b"one": b"1", b"two": b"22"})
    for position in range(len(data) - FOOTER_SIZE):
        changed = bytearray(data)
        changed[position] ^= 0x10
        with pytest.raises(DamageError, match="checksum"):
            read_table(bytes(changed))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (table_of(block(entry(0, b"b", b"") + entry(0, b"a", b""))), "the key a comes after b"),
        (table_of(block(entry(0, b"a", b"") + entry(0, b"a", b""))), "the key a comes after a"),
        (table_of(block(entry(1, b"a", b""))), "the entry at byte 0 does not fit its block"),
        (table_of(block(varint(0) + varint(1) + varint(9) + b"ab")), "the entry at byte 0 does not fit its block"),
        (table_of(block(b"\x80")), "the entry at byte 0 does not fit its block|does not end"),
        (table_of(block(b"", restarts=7)), "claims 7 full keys, more than fit"),
        (table_of(block(b"", restarts=2**32 - 1)), "claims 4294967295 full keys, more than fit"),
        (table_of(block(entry(0, b"a", b"")), varint(0) + varint(2**63)), "of 9223372036854775808 bytes, reaches past"),
        (table_of(block(entry(0, b"a", b"")), varint(2**63) + varint(4)), "at byte 9223372036854775808, of 4 bytes"),
        (with_footer(b"", 0, 0), "the block at byte 0, of 0 bytes, reaches past the end"),
        (with_footer(b"\0" + struct.pack("<I", masked(google_crc32c.value(b"\0"))), 0, 0), "fewer than any block"),
    ],
)
def test_damage_is_told_with_its_place(table: bytes, complaint: str) -> None:
    """Tables whose checksums are right, and whose lengths are not."""
    with pytest.raises(DamageError, match=complaint):
        read_table(table)


def test_blocks_cannot_be_listed_twice() -> None:
    """A small file cannot be made to read as a large one."""
    data_block = block(entry(0, b"a", b""))
    handle = varint(0) + varint(len(data_block) - 5)
    with pytest.raises(DamageError, match="block at byte 0 begins before byte 13, where the one before it ends"):
        read_table(table_of(data_block, handle, handle))


def test_keys_cannot_exhaust_memory() -> None:
    """Each of these keys takes a few bytes and repeats all of the one before."""
    entries = b"".join(entry(number, b"a", b"") for number in range(5000))
    with pytest.raises(DamageError, match="64 times the size of the file"):
        read_table(table_of(block(entries)))


def test_compressed_blocks_are_recognised() -> None:
    """TensorFlow's version 1 checkpoints have them."""
    with pytest.raises(CompressedBlockError, match=r"the block at byte 0 is compressed \(type 1\)"):
        read_table(table_of(block(b"", compression=1)))


@given(data=st.data())
@settings(max_examples=300)
def test_any_entries_with_right_checksums_are_a_table_or_damage(data: st.DataObject) -> None:
    """Nothing else comes of them."""
    content = block(data.draw(st.binary(max_size=40)), restarts=data.draw(st.integers(0, 3)))
    with suppress(DamageError):
        read_table(table_of(content))
