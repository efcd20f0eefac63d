"""Mutators that know a layout, so that inputs get past checksums and lengths to what they guard.

Each takes an input, a mutator of plain bytes, and a source of chance. Most often it changes a part, and computes the
checksums and lengths around it; now and then it changes the input as it is, for checksums must be tried too.
"""

from __future__ import annotations

import gzip
import io
import json as library_json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from tests.fuzz.readers import join_bundle, split_bundle

Mutate = Callable[[bytes], bytes]
Mutator = Callable[[bytes, Mutate, Random], bytes]

NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    14,
    19,
    31,
    63,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**59,
    2**60,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
"""Counts, offsets and lengths that stand at a border of something."""


def seeded(seed: int) -> Random:
    """Return a source of chance that is the same each time."""
    return Random(seed)  # noqa: S311  # nothing here is a secret


def plain(data: bytes, mutate: Mutate, _: Random) -> bytes:
    """Change the input as it is."""
    return mutate(data)


def table(data: bytes, mutate: Mutate, random: Random) -> bytes:
    """Change a table, or its entries; the checksums of its blocks are right most of the time."""
    changed = mutate(data) if random.random() < 0.5 else _entries(data, mutate, random)
    return changed if random.random() < 0.1 else with_checksums(changed)


def bundle(data: bytes, mutate: Mutate, random: Random) -> bytes:
    """Change what an index says of tensors, or the data file."""
    index, values = split_bundle(data)
    chance = random.random()
    if chance < 0.1:
        return mutate(data)
    if chance < 0.2:
        return join_bundle(index, mutate(values))
    return join_bundle(_entries(index, mutate, random), values)


def index(data: bytes, mutate: Mutate, random: Random) -> bytes:
    """Change what an index says of tensors."""
    return mutate(data) if random.random() < 0.02 else _entries(data, mutate, random)


def _entries(data: bytes, mutate: Mutate, random: Random) -> bytes:
    """Change an entry of a table, or its key, or leave it out, or add another."""
    from electra_convert.formats.sstable import read_table, write_table
    from electra_convert.formats.wire import DamageError

    try:
        entries = read_table(data)
    except DamageError:
        return mutate(data)
    if not entries:
        return write_table({mutate(b"a"): mutate(b"")})
    key = random.choice(list(entries))
    chance = random.random()
    if chance < 0.1:
        del entries[key]
    elif chance < 0.2:
        entries[mutate(key)] = entries[key]
    elif chance < 0.3:
        entries[mutate(key)] = entries.pop(key)
    elif chance < 0.4:
        entries[key] = entries[random.choice(list(entries))]
    elif chance < 0.7:
        entries[key] += _field(random)
    else:
        entries[key] = mutate(entries[key])
    return write_table(entries)


def _field(random: Random) -> bytes:
    """Return a field of an entry, which counts in place of the one before, or another axis of its shape."""
    from electra_convert.formats.wire import bytes_field, varint

    def number(field: int) -> bytes:
        return varint(field << 3) + varint(random.choice(NUMBERS))

    axis = bytes_field(2, bytes_field(2, number(1)))
    part = bytes_field(7, bytes_field(1, number(1) + number(2)))
    return random.choice((axis, part, *map(number, range(1, 7))))


def with_checksums(data: bytes) -> bytes:
    """Return a table in which the checksum of every block that can be found is right."""
    import google_crc32c

    from electra_convert.formats.sstable import BLOCK_TRAILER_SIZE, FOOTER_SIZE, MAGIC, masked
    from electra_convert.formats.wire import DamageError, read_varint

    source = data[: -len(MAGIC)] + MAGIC
    table = bytearray(source)

    def mend(position: int) -> tuple[int, int, int]:
        """Mend the block that a handle finds; return where the handle ends, and where the block lies."""
        begin, position = read_varint(source, position)
        size, position = read_varint(source, position)
        end = begin + size
        if end + BLOCK_TRAILER_SIZE > len(source) - FOOTER_SIZE:
            raise DamageError("the block is not in the table")
        struct.pack_into("<I", table, end + 1, masked(google_crc32c.value(source[begin : end + 1])))
        return position, begin, end

    with suppress(DamageError):
        position, _, _ = mend(max(0, len(source) - FOOTER_SIZE))
        _, position, end = mend(position)
        restarts = int.from_bytes(source[end - 4 : end], "little")
        while position < end - 4 * (restarts + 1):
            _, position = read_varint(source, position)
            key_size, position = read_varint(source, position)
            handle_size, position = read_varint(source, position)
            mend(position + key_size)
            position += key_size + handle_size
    return bytes(table)


def zip_archive(data: bytes, mutate: Mutate, random: Random) -> bytes:
    """Change a member of an archive and pack it again, or what the archive says of its members."""
    chance = random.random()
    if chance < 0.3:
        return mutate(data)
    if chance < 0.6:
        return _zip_field(data, random)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as pack:
            members = [(info, pack.read(info)) for info in pack.infolist()]
    except Exception:  # noqa: BLE001  # whatever an archive that is no longer one does to zipfile
        return mutate(data)
    chosen = random.randrange(len(members)) if members else -1
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as pack:
        for number, (info, content) in enumerate(members):
            name, held = info.filename, content
            if number == chosen and random.random() < 0.5:
                name = mutate(name.encode(errors="replace"))[:99].decode(errors="replace")
            elif number == chosen:
                held = mutate(content)
            with warnings.catch_warnings(action="ignore"):  # of names that are there twice
                pack.writestr(zipfile.ZipInfo(name), held)
    return packed.getvalue()


def _zip_field(data: bytes, random: Random) -> bytes:
    """Put a number into a header of a member, local or central."""
    places = [place for magic in (b"PK\1\2", b"PK\3\4", b"PK\5\6") for place in _places(data, magic)]
    if not places:
        return data
    changed = bytearray(data)
    place, layout = random.choice(places) + random.randrange(4, 46), random.choice(("<H", "<I"))
    if place + 4 <= len(changed):
        struct.pack_into(layout, changed, place, random.choice(NUMBERS) % (1 << 8 * struct.calcsize(layout)))
    return bytes(changed)


def _places(data: bytes, part: bytes) -> list[int]:
    places, place = [], data.find(part)
    while place >= 0:
        places.append(place)
        place = data.find(part, place + 1)
    return places


def tar_archive(data: bytes, mutate: Mutate, random: Random) -> bytes:
    """Change an archive within its compression; the checksums of its headers are right most of the time."""
    if not data.startswith(b"\x1f\x8b"):
        return _tar(data, mutate, random)
    if random.random() < 0.2:
        return mutate(data)
    try:
        return gzip.compress(_tar(gzip.decompress(data), mutate, random), 1, mtime=0)
    except (OSError, EOFError, zlib.error):
        return mutate(data)


def _tar(data: bytes, mutate: Mutate, random: Random) -> bytes:
    headers = [place - 257 for place in _places(data, b"ustar") if place >= 257 and place % 512 == 257]
    if not headers or random.random() < 0.1:
        return mutate(data)
    changed = bytearray(data)
    place = random.choice(headers)
    begin, end = random.choice(TAR_FIELDS)
    old = bytes(changed[place + begin : place + end])
    changed[place + begin : place + end] = mutate(old)[: end - begin].ljust(end - begin, b"\0")
    for header in headers:
        total = sum(changed[header : header + 148]) + 8 * 32 + sum(changed[header + 156 : header + 512])
        changed[header + 148 : header + 156] = b"%06o\0 " % total
    return bytes(changed)


TAR_FIELDS = ((0, 100), (100, 108), (124, 136), (156, 157), (156, 157), (157, 257), (257, 265), (345, 500), (512, 1024))
"""Name, mode, size, type (which matters most), link, magic and prefix of a member, and what follows its header."""


def safetensors(data: bytes, mutate: Mutate, random: Random) -> bytes:
    """Change the header of a file, whose length is then right."""
    if random.random() < 0.1:
        return mutate(data)
    end = 8 + int.from_bytes(data[:8], "little")
    header, values = data[8:end], data[end:]
    if random.random() < 0.1:
        values = mutate(values)
    else:
        header = mutate(header)
    return struct.pack("<Q", len(header)) + header + values


def msgpack(data: bytes, mutate: Mutate, random: Random) -> bytes:
    """Change a leaf of a tree, or a key, and pack it again."""
    import msgpack as library

    if random.random() < 0.2:
        return mutate(data)
    try:
        tree = library.unpackb(data, ext_hook=library.ExtType, strict_map_key=False)
        changed: bytes = library.packb(_changed(tree, mutate, random))
    except Exception:  # noqa: BLE001  # whatever a tree that is no longer one does to msgpack
        return mutate(data)
    return changed


def json(data: bytes, mutate: Mutate, random: Random) -> bytes:
    """Change a value of a document, or a key, and write it again."""
    if random.random() < 0.5:
        return mutate(data)
    try:
        return library_json.dumps(_changed(library_json.loads(data), mutate, random), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return mutate(data)


def yaml(data: bytes, mutate: Mutate, random: Random) -> bytes:
    """Change a value of a document, or a key, and write it again, as JSON, which is YAML."""
    from yaml import CSafeLoader, YAMLError, load

    if random.random() < 0.5:
        return mutate(data)
    try:
        tree = _changed(load(data, CSafeLoader), mutate, random)
        return library_json.dumps(tree, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError, YAMLError):
        return mutate(data)


def mappings(data: bytes, mutate: Mutate, random: Random) -> bytes:
    """Change an inventory or a format."""
    inventory, divider, mapping = data.partition(b"\n...\n")
    if random.random() < 0.4:
        return yaml(inventory, mutate, random) + divider + mapping
    return inventory + divider + yaml(mapping, mutate, random)


def _changed(node: Any, mutate: Mutate, random: Random) -> Any:
    """Return a tree with one change, somewhere."""
    if random.random() < 0.05:
        return random.choice(({}, [], None, {"a": node}, [node], [node, node], list(ODD)))
    if isinstance(node, dict) and node:
        key = random.choice(list(node))
        if random.random() < 0.2:
            return {**node, mutate(str(key).encode()).decode(errors="replace"): node[key]}
        return {**node, key: _changed(node[key], mutate, random)}
    if isinstance(node, list) and node:
        place = random.randrange(len(node))
        return [*node[:place], _changed(node[place], mutate, random), *node[place + 1 :]]
    return _changed_leaf(node, mutate, random)


ODD = (1e308, 5e-324, -0.0, -1, 2**63, 10**400, 1.5, True, False, None, "", "a" * 300, float("nan"), float("inf"))
"""Values at a border of something."""


def _changed_leaf(node: Any, mutate: Mutate, random: Random) -> Any:
    from msgpack import ExtType, packb, unpackb

    if isinstance(node, ExtType):
        if random.random() < 0.2:
            return ExtType(random.randrange(128), node.data)
        if random.random() < 0.3:
            return ExtType(node.code, mutate(node.data))
        return ExtType(node.code, packb(_changed(unpackb(node.data), mutate, random)))
    if isinstance(node, bytes):
        return mutate(node)
    if isinstance(node, str) and random.random() < 0.8:
        return mutate(node.encode(errors="replace")).decode(errors="replace")
    return random.choice((*NUMBERS, *ODD))
