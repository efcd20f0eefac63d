"""Sources that are broken, or made to do harm: checkpoints, archives, configs, vocabularies, mappings and plans."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import google_crc32c
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_convert.config_file import FIELD_TYPES, read_config_file
from electra_convert.errors import ConfigError, CorruptCheckpointError, MappingError, UnsupportedCheckpointError
from electra_convert.formats import google_tf1, sstable
from electra_convert.formats.google_tf1 import open_checkpoint
from electra_convert.formats.sstable import FOOTER_SIZE, masked, read_table, write_table
from electra_convert.formats.wire import bytes_field, number_field
from electra_convert.inventory import Part
from electra_convert.yaml import read_yaml
from tests.hostile.archives import (
    as_file,
    directory_entry,
    encrypted_zip,
    extended,
    gzipped,
    header,
    link_in_zip,
    overlapping_zip,
    tar_member,
    tar_with,
    tarred,
    zip_of,
    zipped,
)
from tests.hostile.corpus import FIXTURE, ROOT, Case, Outcome, Runner

Make = Callable[[Path], object]
Change = Callable[[bytes], bytes]

RUN = "run"
INDEX = "model.ckpt-30.index"
DATA = "model.ckpt-30.data-00000-of-00001"
INSPECT = ("inspect", RUN)
CONVERT = ("--part", "discriminator", "--head", "base", "--to", "pytorch", RUN, "out")
DOCUMENTS = ("conversion.json", "config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json")
WORDS = b"electra/embeddings/word_embeddings"
POSITIONS = b"electra/embeddings/position_embeddings"
BIAS = b"electra/encoder/layer_0/intermediate/dense/bias"
TABLE = read_table((FIXTURE / INDEX).read_bytes())
ENTRIES = {name: google_tf1._Entry.parse(value) for name, value in TABLE.items() if name}
INDEX_SIZE = (FIXTURE / INDEX).stat().st_size
DATA_SIZE = (FIXTURE / DATA).stat().st_size


# Making broken inputs


def copied(folder: Path, fixture: str = FIXTURE.name) -> Path:
    """Copy a genuine checkpoint, to be damaged."""
    shutil.copytree(ROOT / "fixtures" / fixture, folder / RUN)
    return folder / RUN


def changed(name: str, change: Change) -> Make:
    """Change the bytes of a file of the checkpoint."""

    def make(folder: Path) -> None:
        path = copied(folder) / name
        path.write_bytes(change(path.read_bytes()))

    return make


def cut(name: str, size: int) -> Make:
    """Leave so many bytes of a file; fewer, if the number is negative."""
    return changed(name, lambda content: content[:size])


def flip(name: str, position: int) -> Make:
    """Change one bit of a file."""
    return changed(name, lambda content: content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])


def table(changes: Mapping[bytes, bytes | None]) -> Make:
    """Write the index again, with other entries; one that is None is left out."""
    kept = {**TABLE, **changes}
    return changed(INDEX, lambda _: write_table({key: value for key, value in kept.items() if value is not None}))


def entry(name: bytes = WORDS, **fields: Any) -> Make:
    """Write the index again, with other fields of one entry; numbers may be negative."""
    unsigned: dict[str, Any] = {
        key: value % 2**64 if isinstance(value, int) else value for key, value in fields.items()
    }
    return table({name: msgspec.structs.replace(ENTRIES[name], **unsigned).serialize()})


def built(*keys: bytes, listed: int = 1) -> Make:
    """Write an index of these keys as they come, its block listed so many times."""
    index, block, written = sstable._BlockBuilder(restart_interval=1), sstable._BlockBuilder(), bytearray()
    for key in keys:
        block.add(key, TABLE[key])
    handle = sstable._append_block(written, block)
    for number in range(listed):
        index.add(b"z%d" % number, handle)
    footer = sstable._append_block(written, sstable._BlockBuilder()) + sstable._append_block(written, index)
    content = bytes(written) + footer.ljust(FOOTER_SIZE - len(sstable.MAGIC), b"\0") + sstable.MAGIC
    return changed(INDEX, lambda _: content)


def moved(name: bytes, offset: int) -> Make:
    """Write the index again, with a tensor elsewhere in the data file and the checksum of what is there."""
    data = (FIXTURE / DATA).read_bytes()[offset : offset + ENTRIES[name].size]
    return entry(name, offset=offset, checksum=masked(google_crc32c.value(data)))


def values(name: bytes, content: bytes) -> Make:
    """Change the first values of a tensor, and its checksum."""
    place = ENTRIES[name]

    def make(folder: Path) -> None:
        entry(name)(folder)
        path = folder / RUN / DATA
        data = bytearray(path.read_bytes())
        data[place.offset : place.offset + len(content)] = content
        path.write_bytes(data)
        crc = masked(google_crc32c.value(bytes(data[place.offset : place.offset + place.size])))
        index = {**TABLE, name: msgspec.structs.replace(place, checksum=crc).serialize()}
        (folder / RUN / INDEX).write_bytes(write_table(index))

    return make


def instead(name: str, make: Callable[[Path], object]) -> Make:
    """Put something else where a file of the checkpoint is."""

    def run(folder: Path) -> None:
        path = copied(folder) / name
        path.unlink()
        make(path)

    return run


def beside(name: str, content: bytes | str) -> Make:
    """Put a file beside a good checkpoint."""

    def make(folder: Path) -> None:
        copied(folder)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def mapping(name: str, change: Callable[[str], str]) -> Make:
    """Change a file of a copy of the mappings."""

    def make(folder: Path) -> None:
        copied(folder)
        shutil.copytree(ROOT / "mappings", folder / "maps")
        path = folder / "maps" / name
        path.write_bytes(change(path.read_text()).encode(errors="surrogateescape"))

    return make


def special(name: str, make: Callable[[Path], object]) -> Make:
    """Put something that is no file beside a good checkpoint."""

    def run(folder: Path) -> None:
        copied(folder)
        make(folder / name)

    return run


def listening(path: Path) -> None:
    """Leave a socket there."""
    at = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{at}/{path.name}")
    os.close(at)


def unreadable(path: Path) -> None:
    """Leave a file that nobody may read."""
    path.write_bytes(b"{}")
    path.chmod(0)


def looped(path: Path) -> None:
    """Leave a link to itself."""
    path.symlink_to(path.name)


def link(target: str) -> Callable[[Path], object]:
    """Leave a link."""
    return lambda path: path.symlink_to(target)


def sparse(size: int) -> Callable[[Path], object]:
    """Leave a file that has a size and takes no room."""

    def make(path: Path) -> None:
        path.touch()
        os.truncate(path, size)

    return make


def state_file(make: Callable[[Path], object]) -> Make:
    """Put something that is no file beside the plan of a batch."""

    def run(folder: Path) -> None:
        (folder / "plan.yaml").write_text("version: 1\njobs: [{source: run, output: out}]")
        special("s.jsonl", make)(folder)

    return run


def occupied(folder: Path) -> None:
    """Put pipes where the documents of an output are."""
    copied(folder)
    (folder / "out/base").mkdir(parents=True)
    for name in DOCUMENTS:
        os.mkfifo(folder / "out/base" / name)


def swapped(folder: Path) -> None:
    """Exchange two data files."""
    run = copied(folder, "electra_tiny_sharded")
    one, two = (run / f"model.ckpt-30.data-{number:05d}-of-00004" for number in (1, 2))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)


def without_shard(folder: Path) -> None:
    """Remove one data file of four."""
    (copied(folder, "electra_tiny_sharded") / "model.ckpt-30.data-00002-of-00004").unlink()


def of_another_step(content: bytes) -> bytes:
    """Return other values, as many."""
    return bytes(byte ^ 0x40 for byte in content[:4096]) + content[4096:]


def vocabulary(change: Change) -> Make:
    """Change the vocabulary."""
    return changed("vocab.txt", change)


CONFIG = ("--part", "discriminator", "--config", "c.json", RUN, "out")
PLAN = ("batch", "plan.yaml")
MAPPINGS = ("inspect", "--mappings", "maps", RUN)
VOCABULARY = ("--part", "discriminator", "--head", "base", "--to", "pytorch", "--vocab", "v.txt", RUN, "out")
NO_FILE = (INDEX, "beside it is no file that can be read")
MISSING, OTHER = (DATA, "data files are missing"), (DATA, "data files are no files that can be read")
FLOAT_NAN, FLOAT_INFINITY = struct.pack("<f", float("nan")), struct.pack("<f", float("-inf"))
NAMES = [key.decode() for key in (WORDS, POSITIONS, BIAS)]

BUNDLE = [
    Case("index: empty", cut(INDEX, 0), INSPECT, (INDEX, "0 bytes, fewer than the 48 of a footer")),
    Case("index: one byte", cut(INDEX, 1), INSPECT, (INDEX, "1 bytes, fewer than")),
    Case("index: cut in the first block", cut(INDEX, 1000), INSPECT, (INDEX, "not in 57fb808b247547db")),
    Case("index: cut before the footer", cut(INDEX, -FOOTER_SIZE), INSPECT, (INDEX, "not in 57fb808b247547db")),
    Case("index: cut in the footer", cut(INDEX, -20), INSPECT, (INDEX, "not in 57fb808b247547db")),
    Case("index: one byte short", cut(INDEX, -1), INSPECT, (INDEX, "not in 57fb808b247547db")),
    Case("index: begins too late", changed(INDEX, lambda data: data[7:]), INSPECT, (INDEX, "block at byte")),
    Case("index: wrong checksum", flip(INDEX, 100), INSPECT, (INDEX, "block at byte 0 has checksum")),
    Case("index: wrong checksum of the last block", flip(INDEX, -60), INSPECT, (INDEX, "block at byte", "checksum")),
    Case(
        "index: other bytes", changed(INDEX, lambda data: bytes(len(data))), INSPECT, (INDEX, "not in 57fb808b247547db")
    ),
    Case("index: a web page", changed(INDEX, lambda _: b"<html>404</html>" * 9), INSPECT, (INDEX, "not in 57fb808b")),
    Case("index: no header", table({b"": None}), INSPECT, (INDEX, "it has no header")),
    Case("index: a header that is none", table({b"": b"\xff" * 9}), INSPECT, (INDEX, "does not end")),
    Case("index: no data files", table({b"": number_field(2, 0)}), INSPECT, (INDEX, "counts 0 data files")),
    Case("index: too many data files", table({b"": number_field(1, 2**62)}), INSPECT, ("of-4611686018427387904",)),
    Case(
        "index: big-endian",
        table({b"": number_field(1, 1) + number_field(2, 1)}),
        INSPECT,
        ("model.ckpt-30", "big-endian"),
    ),
    Case(
        "index: of the future",
        table({b"": number_field(1, 1) + bytes_field(3, number_field(2, 9))}),
        INSPECT,
        ("version 9",),
    ),
    Case("index: gigabytes", instead(INDEX, sparse(1 << 40)), INSPECT, (INDEX, "more than 4194304 bytes")),
    Case("index: a directory", instead(INDEX, Path.mkdir), INSPECT, NO_FILE),
    Case("index: missing", instead(INDEX, lambda _: None), INSPECT, (INDEX, "is not beside it")),
    Case("index: a pipe", instead(INDEX, os.mkfifo), INSPECT, NO_FILE),
    Case("index: a socket", instead(INDEX, listening), INSPECT, NO_FILE),
    Case("index: a device", instead(INDEX, link("/dev/zero")), INSPECT, NO_FILE),
    Case("index: a link to itself", instead(INDEX, looped), INSPECT, NO_FILE),
    Case("index: a dangling link", instead(INDEX, link("nowhere")), INSPECT, NO_FILE),
    Case("index: unreadable", instead(INDEX, unreadable), INSPECT, (INDEX, "Permission denied")),
    Case("index: too many entries", table({b"%06d" % n: b"" for n in range(70_000)}), INSPECT, (INDEX, "entries")),
    Case(
        "index: a name of a megabyte",
        table({b"a" * (1 << 20): TABLE[BIAS]}),
        INSPECT,
        (INDEX, "the key aaaa", "1048576 bytes"),
    ),
    Case(
        "index: a name that is not UTF-8",
        table({b"\xff\xfe": TABLE[BIAS]}),
        INSPECT,
        (INDEX, "\\xff\\xfe", "not UTF-8"),
    ),
    Case(
        "index: not a single variable",
        changed(INDEX, lambda _: write_table({b"": TABLE[b""]})),
        INSPECT,
        ("model.ckpt-30", "it holds none"),
    ),
    Case("index: a name twice", built(b"", BIAS, BIAS), INSPECT, (INDEX, f"the key {NAMES[2]} comes after")),
    Case("index: names in disorder", built(b"", BIAS, WORDS), INSPECT, (INDEX, f"the key {NAMES[0]} comes after")),
    Case(
        "index: a block twice", built(b"", BIAS, listed=2), INSPECT, (INDEX, "the block at byte 0 begins before byte")
    ),
    Case("entry: bytes that are none", table({WORDS: b"\x0f"}), INSPECT, (INDEX, NAMES[0], "unknown type 7")),
    Case("entry: an enormous message", table({WORDS: b"\x12\0" * 500_000}), INSPECT, (INDEX, NAMES[0], "fields")),
    Case(
        "entry: an enormous shape",
        table({WORDS: bytes_field(2, b"\x12\0" * 500_000)}),
        INSPECT,
        (INDEX, NAMES[0], "fields"),
    ),
    Case("entry: enormous slices", table({WORDS: b"\x3a\0" * 500_000}), INSPECT, (INDEX, NAMES[0], "fields")),
    Case("entry: negative offset", entry(offset=-4), INSPECT, (INDEX, NAMES[0], "bytes -4 to")),
    Case("entry: enormous offset", entry(offset=2**63 - 1), INSPECT, (INDEX, NAMES[0], "9223372036854775807", DATA)),
    Case("entry: negative size", entry(size=-1), INSPECT, (INDEX, NAMES[0], "-1 bytes")),
    Case("entry: enormous size", entry(size=2**62), INSPECT, (INDEX, NAMES[0], "4611686018427387904 bytes")),
    Case(
        "entry: one byte past the end",
        entry(offset=DATA_SIZE - ENTRIES[WORDS].size + 1),
        INSPECT,
        (INDEX, NAMES[0], DATA),
    ),
    Case("entry: shape that does not fit", entry(shape=(600, 33)), INSPECT, (INDEX, NAMES[0], "[600, 33] takes 79200")),
    Case("entry: negative axis", entry(shape=(2**64 - 600, 2**64 - 32)), INSPECT, (INDEX, NAMES[0], "[-600, -32]")),
    Case("entry: enormous axis", entry(shape=(2**62, 32)), INSPECT, (INDEX, NAMES[0], "larger than any memory")),
    Case(
        "entry: a product past 64 bits",
        entry(shape=(2**32, 2**32, 2**32)),
        INSPECT,
        (INDEX, NAMES[0], "larger than any"),
    ),
    Case("entry: zero times enormous", entry(shape=(0, 2**62), size=0), INSPECT, (INDEX, NAMES[0], "larger than any")),
    Case(
        "entry: other axes, as many bytes",
        entry(shape=(32, 600)),
        CONVERT,
        ("position_embeddings has shape [64, 32]", "[64, 600]"),
    ),
    Case("entry: too many axes", entry(shape=(1,) * 3000 + (600, 32)), CONVERT, (NAMES[0],)),
    Case("entry: unknown dtype", entry(dtype_number=99), CONVERT, (NAMES[0], "element type is number 99")),
    Case("entry: negative dtype", entry(dtype_number=-1), CONVERT, (NAMES[0], "element type is number -1")),
    Case("entry: text", entry(dtype_number=7), CONVERT, (NAMES[0], "element type is string")),
    Case("entry: of data file -1", entry(shard=-1), INSPECT, (INDEX, "data file -1 of 1")),
    Case("entry: of data file 2 of 1", entry(shard=1), INSPECT, (INDEX, "data file 1 of 1")),
    Case("entry: the bytes of another", moved(BIAS, ENTRIES[WORDS].offset), INSPECT, (DATA, NAMES[0], NAMES[2])),
    Case("entry: overlaps another", moved(POSITIONS, ENTRIES[WORDS].offset + 4), INSPECT, (DATA, NAMES[0], NAMES[1])),
    Case("entry: missing", table({WORDS: None}), CONVERT, (NAMES[0], "missing")),
    Case(
        "entry: unknown", table({BIAS: None, b"electra/other": TABLE[BIAS]}), CONVERT, ("electra/other", "no mapping")
    ),
    Case("data: empty", cut(DATA, 0), INSPECT, (DATA, NAMES[0])),
    Case("data: one byte", cut(DATA, 1), INSPECT, (DATA, NAMES[0])),
    Case("data: one byte short", cut(DATA, -1), INSPECT, (DATA, f"which has {DATA_SIZE - 1}")),
    Case("data: missing", instead(DATA, lambda _: None), INSPECT, MISSING),
    Case("data: a directory", instead(DATA, Path.mkdir), INSPECT, OTHER),
    Case("data: a pipe", instead(DATA, os.mkfifo), INSPECT, OTHER),
    Case("data: a device", instead(DATA, link("/dev/zero")), INSPECT, OTHER),
    Case("data: a link to itself", instead(DATA, looped), INSPECT, OTHER),
    Case("data: a dangling link", instead(DATA, link("nowhere")), INSPECT, OTHER),
    Case("data: unreadable", lambda folder: (copied(folder) / DATA).chmod(0), CONVERT, (DATA, "Permission denied")),
    Case("data: wrong checksum", flip(DATA, ENTRIES[WORDS].offset + 40), CONVERT, (NAMES[0], DATA, "checksum")),
    Case("data: of another step", changed(DATA, of_another_step), CONVERT, (DATA, "checksum")),
    Case("data: not a number", values(WORDS, FLOAT_NAN), CONVERT, (NAMES[0], "NaN")),
    Case("data: infinite", values(BIAS, FLOAT_INFINITY), CONVERT, (NAMES[2],)),
    Case("data files: one of four is missing", without_shard, INSPECT, ("data-00002-of-00004", "missing")),
    Case("data files: two are exchanged", swapped, CONVERT, ("-of-00004",)),
    Case("entry: whole numbers for weights", entry(dtype_number=3), CONVERT, (NAMES[0], "int32")),
    Case(
        "index: a name that writes to the terminal",
        table({b"electra/\x1b[2J\nwrong": msgspec.structs.replace(ENTRIES[BIAS], offset=10**9).serialize()}),
        INSPECT,
        (INDEX, r"electra/\x1b[2J\nwrong"),
    ),
]
STATE = [
    Case("checkpoint: empty", cut("checkpoint", 0), INSPECT, ("checkpoint", "names no checkpoint")),
    Case(
        "checkpoint: not text",
        changed("checkpoint", lambda _: bytes(range(256)) * 9),
        INSPECT,
        ("names no checkpoint",),
    ),
    Case("checkpoint: gigabytes", instead("checkpoint", sparse(1 << 40)), INSPECT, ("checkpoint", "bytes, the most")),
    Case("checkpoint: a pipe", instead("checkpoint", os.mkfifo), INSPECT, ("run/checkpoint", "a pipe")),
    Case("checkpoint: a socket", instead("checkpoint", listening), INSPECT, ("run/checkpoint",)),
    Case("checkpoint: a device", instead("checkpoint", link("/dev/zero")), INSPECT, ("run/checkpoint", "a device")),
    Case(
        "checkpoint: blank lines without end",
        changed("checkpoint", lambda _: b"\n \t" * 1_000_000),
        INSPECT,
        ("names no",),
    ),
    Case(
        "checkpoint: the same word without end",
        changed("checkpoint", lambda _: b"model_checkpoint_path\n" * 150_000),
        INSPECT,
        ("names no",),
    ),
    Case(
        "checkpoint: a name without end",
        changed("checkpoint", lambda _: b'model_checkpoint_path: "' + b"a" * 3_000_000 + b'"'),
        INSPECT,
        ("names no",),
    ),
    Case(
        "checkpoint: another",
        changed("checkpoint", lambda _: b'model_checkpoint_path: "../../etc/passwd"'),
        INSPECT,
        ("passwd.index is not beside it",),
    ),
    Case(
        "checkpoint: a folder above",
        changed("checkpoint", lambda _: b'model_checkpoint_path: ".."'),
        INSPECT,
        ("names no checkpoint",),
    ),
    Case(
        "checkpoint: a zero byte",
        changed("checkpoint", lambda _: b'model_checkpoint_path: "a\\000b"'),
        INSPECT,
        ("names no checkpoint",),
    ),
    Case("checkpoint: unreadable", instead("checkpoint", unreadable), INSPECT, ("checkpoint", "Permission denied")),
]
ZIP, TAR, TGZ = ("inspect", "a.zip"), ("inspect", "a.tar"), ("inspect", "a.tgz")
ARCHIVES = [
    Case("zip: empty", as_file("a.zip", b""), ZIP, ("a.zip", "not a zip")),
    Case("zip: cut", as_file("a.zip", lambda: zipped()[:-10]), ZIP, ("a.zip", "not a zip")),
    Case("zip: no members", as_file("a.zip", zip_of), ZIP, ("a.zip", "no directories")),
    Case(
        "zip: damaged member",
        as_file("a.zip", lambda: zipped()[:5000] + b"x" * 50 + zipped()[5050:]),
        ZIP,
        ("a.zip", DATA),
    ),
    Case(
        "zip: traversal",
        as_file("a.zip", lambda: zipped(("../evil.index", b""), ("/evil.json", b""))),
        ZIP,
        ("'../evil.index' lies outside", "'/evil.json'"),
    ),
    Case(
        "zip: deep traversal",
        as_file("a.zip", lambda: zipped(("run/a/../../../evil.index", b""))),
        ZIP,
        ("lies outside the folder",),
    ),
    Case("zip: link", as_file("a.zip", link_in_zip), ZIP, ("'run/other.index' is a link or a device",)),
    Case("zip: twice", as_file("a.zip", lambda: zipped(("./run/" + INDEX, b""))), ZIP, (INDEX, "is there 2 times")),
    Case(
        "zip: a file in a file",
        as_file("a.zip", lambda: zipped((f"run/{INDEX}/a.json", b""))),
        ZIP,
        (f"{INDEX}/a.json' lies in a file",),
    ),
    Case("zip: encrypted", as_file("a.zip", encrypted_zip), ZIP, (INDEX, "is encrypted")),
    Case(
        "zip: other compression",
        as_file("a.zip", lambda: zipped(compression=zipfile.ZIP_LZMA, files={f"run/{INDEX}": b""})),
        ZIP,
        (INDEX, "method 14"),
    ),
    Case(
        "zip: members that overlap", as_file("a.zip", overlapping_zip), ZIP, ("data-00001-of-00050' overlaps another",)
    ),
    Case(
        "zip: a hundred terabytes",
        as_file(
            "a.zip", lambda: zip_of(directory_entry(b"a.data-00000-of-00001", size=10**14, compressed=10**6, offset=0))
        ),
        ZIP,
        ("a.zip unpacks to 100 TB",),
    ),
    Case(
        "zip: an index of gigabytes",
        as_file("a.zip", lambda: zip_of(directory_entry(b"a.index", size=2**32, compressed=10**6, offset=0))),
        ZIP,
        ("'a.index' is said to have 4294967296 bytes",),
    ),
    Case(
        "zip: holds more than it says",
        as_file(
            "a.zip",
            lambda: zipped(("b.index", bytes(100_000))).replace(
                (100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
            ),
        ),
        ZIP,
        ("a.zip", "'b.index'"),
    ),
    Case(
        "zip: too many members",
        as_file(
            "a.zip",
            lambda: zip_of(*[directory_entry(b"%x" % n, size=0, compressed=0, offset=n * 30) for n in range(20_000)]),
        ),
        ZIP,
        ("a.zip", "more than 2000 files"),
    ),
    Case(
        "zip: an enormous directory",
        as_file(
            "a.zip",
            lambda: zip_of(*[directory_entry(b"%x" % n, size=0, compressed=0, offset=0) for n in range(90_000)]),
        ),
        ZIP,
        ("a.zip", "larger than any"),
    ),
    Case(
        "zip: an offset that no file has",
        as_file("a.zip", lambda: zipped().replace(b"PK\5\6", b"PK\5\6", 1)[:-6] + b"\xff" * 4 + b"\0\0"),
        ZIP,
        ("a.zip", "overlaps another"),
    ),
    Case("zip: too deep", as_file("a.zip", lambda: zipped(("a/" * 2000 + "b.index", b""))), ZIP, ("too many folders",)),
    Case(
        "zip: too long a name", as_file("a.zip", lambda: zipped(("a" * 300 + ".index", b""))), ZIP, ("too long a name",)
    ),
    Case("zip: a pipe", lambda folder: os.mkfifo(folder / "a.zip"), ZIP, ("a.zip is no file",)),
    Case("tar: empty", as_file("a.tar", b""), TAR, ("a.tar", "empty file")),
    Case("tar: zeros", as_file("a.tar", bytes(10_240)), TAR, ("a.tar", "no directories")),
    Case("tar: cut", as_file("a.tar", lambda: tarred()[:-700_000]), TAR, ("a.tar", "more than can be in the archive")),
    Case(
        "tar: traversal",
        as_file("a.tar", lambda: tarred(("../evil.index", b""), ("/evil.json", b""))),
        TAR,
        ("'../evil.index' lies outside", "'/evil.json'"),
    ),
    *(
        Case(
            f"tar: {what}",
            as_file("a.tar", tar_with(kind)),
            TAR,
            ("'run/other.index' is a link or a device",),
        )
        for what, kind in (
            ("symbolic link", tarfile.SYMTYPE),
            ("hard link", tarfile.LNKTYPE),
            ("device", tarfile.CHRTYPE),
            ("pipe", tarfile.FIFOTYPE),
        )
    ),
    Case(
        "tar: sparse",
        as_file("a.tar", lambda: extended(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n")),
        TAR,
        ("cannot unpack a.tar",),
    ),
    Case(
        "tar: old sparse",
        as_file("a.tar", lambda: tarred((tar_member("run/a.index", tarfile.GNUTYPE_SPARSE), b""))),
        TAR,
        ("'run/a.index' is sparse",),
    ),
    Case("tar: twice", as_file("a.tar", lambda: tarred((f"./run/{INDEX}", b""))), TAR, (INDEX, "is there 2 times")),
    Case(
        "tar: a hundred terabytes",
        as_file("a.tar", lambda: header("run/a.index", b"0", size=10**14)),
        TAR,
        ("'run/a.index' is said to have 100000000000000 bytes",),
    ),
    Case(
        "tar: a negative size",
        as_file("a.tar", lambda: header("run/a.index", b"0", size=-512) + tarred()),
        TAR,
        ("a.tar", "goes on after the end"),
    ),
    Case(
        "tar: a negative size of another file",
        as_file("a.tar", lambda: header("b", b"0", size=-512) + tarred()),
        TAR,
        ("a.tar", "goes on after the end"),
    ),
    Case(
        "tar: a size past 64 bits",
        as_file("a.tar", lambda: header("b", b"0", size=2**80)),
        TAR,
        ("a.tar", "'b' is said to have"),
    ),
    Case(
        "tar: a name of gigabytes",
        as_file("a.tar", lambda: header("x", tarfile.GNUTYPE_LONGNAME, size=10**10)),
        TAR,
        ("a.tar", "larger than any"),
    ),
    Case(
        "tar: an extended header of gigabytes",
        as_file("a.tar", lambda: header("x", tarfile.XHDTYPE, size=10**10)),
        TAR,
        ("a.tar", "larger than any"),
    ),
    Case(
        "tar: an extended header of a negative size",
        as_file("a.tar", lambda: header("x", tarfile.XHDTYPE, size=-(10**10)) + tarred()),
        TAR,
        ("a.tar", "larger than any"),
    ),
    Case(
        "tar: an extended header of digits",
        as_file("a.tar", lambda: extended(b"1" * 60_000)),
        TAR,
        ("a.tar", "number that is longer than any"),
    ),
    Case(
        "tar: an extended header of many records",
        as_file("a.tar", lambda: extended(b"".join(b"10 %05d=\n" % n for n in range(6000)))),
        TAR,
        ("a.tar", "extended by 6000 records"),
    ),
    Case(
        "tar: headers of headers",
        as_file(
            "a.tar",
            lambda: (header("x", tarfile.GNUTYPE_LONGNAME, size=1) + b"a".ljust(512, b"\0")) * 5000,
        ),
        TAR,
        ("a.tar", "larger than any"),
    ),
    Case(
        "tar: too many members",
        as_file("a.tar", lambda: header("b", b"0", size=0) * 20_000),
        TAR,
        ("a.tar", "more than 2000 files"),
    ),
    Case("tar: too deep", as_file("a.tar", lambda: tarred(("a/" * 2000 + "b.index", b""))), TAR, ("too many folders",)),
    Case("tgz: cut", as_file("a.tgz", lambda: gzipped(tarred())[:-1000]), TGZ, ("a.tgz", "ended before")),
    Case(
        "tgz: damaged",
        as_file("a.tgz", lambda: gzipped(tarred())[:2000] + b"x" * 99 + gzipped(tarred())[2099:]),
        TGZ,
        ("cannot unpack a.tgz",),
    ),
    Case("tgz: wrong checksum", as_file("a.tgz", lambda: gzipped(tarred())[:-8] + bytes(8)), TGZ, ("a.tgz", "CRC")),
    Case("tgz: nothing in it", as_file("a.tgz", lambda: gzipped(b"")), TGZ, ("a.tgz", "empty file")),
    Case(
        "tgz: a hundred terabytes",
        as_file("a.tgz", lambda: gzipped(header("b", b"0", size=10**14) + bytes(10**6))),
        TGZ,
        ("'b' is said to have 100000000000000 bytes",),
    ),
    Case(
        "tgz: a bomb of headers",
        as_file("a.tgz", lambda: gzipped(header("x", tarfile.XHDTYPE, size=3 * 10**7) + bytes(3 * 10**7))),
        TGZ,
        ("a.tgz", "larger than any"),
    ),
]


def config(name: str, content: str | bytes, *words: str) -> Case:
    """Return the case of a config."""
    return Case(f"config: {name}", beside("c.json", content), CONFIG, ("c.json", *words))


HPARAMS = '{"model_size": "small", %s}'
CONFIGS = [
    config("empty", "", "line 1 column 1"),
    config("cut", '{"hidden_size": 6', "line 1 column"),
    config("not UTF-8", b'{"hidden_act": "\xe9"}', "position 16"),
    config("a list", "[1]", "list"),
    config("too deep", "[" * 200_000, "nested too deeply"),
    config("objects without end", "[" + "{}," * 1_300_000 + "{}]", "list"),
    Case("config: gigabytes", special("c.json", sparse(1 << 40)), CONFIG, ("c.json", "bytes, the most")),
    config("a key twice", '{"hidden_size": 64, "hidden_size": 32}', "'hidden_size' stands twice"),
    config("not a number", '{"hidden_size": NaN}', "NaN is no number"),
    config("infinite", '{"hidden_dropout_prob": Infinity}', "Infinity is no number"),
    config("past any float", '{"num_attention_heads": 1e400}', "num_attention_heads is inf"),
    config("a number of many digits", '{"vocab_size": %s}' % ("9" * 5000), "5000 digits"),
    config("an enormous size", '{"num_hidden_layers": 1000000000}', "num_hidden_layers", "shows 3"),
    config("enormous tables", '{"vocab_size": 9007199254740992, "embedding_size": 9007199254740992}', "vocab_size"),
    config("a negative size", '{"hidden_size": -64}', "hidden_size"),
    config("no heads", '{"num_attention_heads": 0}', "num_attention_heads is 0"),
    config("too many heads", '{"num_attention_heads": 9007199254740992}', "must divide hidden_size"),
    config("an enormous share", HPARAMS % '"generator_hidden_size": 1e308', "generator_hidden_size is 1e+308"),
    config(
        "an enormous override",
        HPARAMS % '"model_hparam_overrides": {"hidden_size": 1%s}' % ("0" * 400),
        "hidden_size is 1000",
    ),
    config("half a character", '{"hidden_act": "\\ud800"}', "hidden_act is '\\ud800'"),
    config("a long text", '{"hidden_act": "%s"}' % ("a" * 1_000_000), "hidden_act is 'aaaa"),
    Case("config: a pipe", special("c.json", os.mkfifo), CONFIG, ("c.json", "a pipe")),
    Case("config: a device", special("c.json", link("/dev/zero")), CONFIG, ("c.json", "a device")),
]


def plan(name: str, content: str | bytes, *words: str) -> Case:
    """Return the case of a plan of a batch."""
    return Case(f"plan: {name}", beside("plan.yaml", content), PLAN, ("plan.yaml", *words))


PLANS = [
    plan("empty", "", "not a mapping"),
    plan("not UTF-8", b"version: \xff", "position 9"),
    plan("a zero byte", "version: 1\0", "position 10"),
    plan("an alias", "version: &a 1\njobs: *a", "line 2: *a is an alias"),
    plan("aliases of aliases", "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]", "line 2: *a is an alias"),
    plan("a tag", "version: !!python/object/apply:os.system [ls]", "line 1", "python/object/apply:os.system is a tag"),
    plan("a key twice", "version: 1\nversion: 1", "line 2: the key 'version'"),
    plan("a list as key", "? [a]\n: 1", "line 1: a key is no text"),
    plan("a key that is merged", "<<: {version: 1}", "line 1: a key is no text"),
    plan("too deep", "jobs: " + "[" * 500_000, "line 1: more than 32"),
    plan("values without end", "jobs: [" + "a," * 450_000 + "a]", "line 1: here are more than 100000 values"),
    plan("a value without end", "jobs: " + "a" * 900_000, "line 1: a value has 900000 characters"),
    plan("a number without end", "version: 1" + ":1" * 8000, "line 1: a number has 16001 digits"),
    plan("a date that is none", "version: 2001-99-99", "line 1: '2001-99-99'"),
    plan("a number that is none", "version: 0x_", "base 16"),
    plan(
        "too many labels", "version: 1\njobs: [{source: run, num_labels: 1000000000}]", "jobs[0]", "65536", "num_labels"
    ),
    Case("plan: gigabytes", special("plan.yaml", sparse(1 << 40)), PLAN, ("plan.yaml", "bytes, the most")),
    *(
        Case(f"state of a batch: {what}", state_file(make), (*PLAN, "--state", "s.jsonl"), ("s.jsonl", what))
        for what, make in (("a pipe", os.mkfifo), ("a device", link("/dev/zero")))
    ),
    Case("plan: a pipe", special("plan.yaml", os.mkfifo), PLAN, ("plan.yaml", "a pipe")),
    Case(
        "plan: unknown shape of a job", beside("plan.yaml", "version: 1\njobs: {a: b}"), PLAN, ("plan.yaml", "$.jobs")
    ),
    Case(
        "mappings: not UTF-8", mapping("flax.yaml", lambda text: text + "# \udcff"), MAPPINGS, ("flax.yaml", "position")
    ),
    Case(
        "mappings: a key twice",
        mapping("flax.yaml", lambda text: text + "\nformat: flax\n"),
        MAPPINGS,
        ("flax.yaml", "'format' stands here a second time"),
    ),
    Case("mappings: empty", mapping("electra.yaml", lambda _: ""), MAPPINGS, ("electra.yaml", "got `null`")),
    Case(
        "mappings: cut",
        mapping("electra.yaml", lambda text: text[: len(text) // 2]),
        MAPPINGS,
        ("electra.yaml", "schema"),
    ),
]


def vocab(name: str, content: bytes, *words: str) -> Case:
    """Return the case of a vocabulary."""
    return Case(f"vocabulary: {name}", beside("v.txt", content), VOCABULARY, ("v.txt", *words))


TOKENS = (FIXTURE / "vocab.txt").read_bytes()
VOCABULARIES = [
    vocab("empty", b"", "holds no token"),
    vocab("blank lines", b"\n" * 1000, "holds no token"),
    vocab("blank lines without end", b"\n" * 20_000_000, "20000000 lines"),
    vocab("a line without end", TOKENS + b"a" * 10_000_000, "line 601"),
    vocab("not UTF-8", TOKENS[:2000] + b"\n\xff\n" + TOKENS[2000:], "not UTF-8: line"),
    vocab("no special tokens", b"a\nb\n", "the special token [PAD] is missing"),
    vocab("SentencePiece", b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02" * 9, "SentencePiece model"),
    vocab("more tokens than embeddings", TOKENS + b"zzz\nzzzz\n", "602 lines"),
    Case("vocabulary: gigabytes", special("v.txt", sparse(1 << 40)), VOCABULARY, ("v.txt", "bytes, the most")),
    Case("vocabulary: a pipe", special("v.txt", os.mkfifo), VOCABULARY, ("v.txt", "a pipe")),
    Case("vocabulary: a device", special("v.txt", link("/dev/zero")), VOCABULARY, ("v.txt", "a device")),
    Case(
        "vocabulary: unreadable beside the checkpoint",
        instead("vocab.txt", unreadable),
        CONVERT,
        ("vocab.txt", "Permission denied"),
    ),
    Case("vocabulary: a pipe beside the checkpoint", instead("vocab.txt", os.mkfifo), CONVERT, ("vocab.txt", "a pipe")),
    Case(
        "vocabulary: a dangling link beside the checkpoint",
        instead("vocab.txt", link("nowhere")),
        CONVERT,
        ("vocab.txt", "No such file"),
    ),
    Case("output: pipes for documents", occupied, CONVERT, ("out/base exists already",)),
]
IN_ORDER = sorted(ENTRIES.items(), key=lambda item: item[1].offset)
BOUNDARIES = [
    Case(
        f"data: cut {'in' if short else 'before'} {name.decode()}",
        cut(DATA, place.offset + (place.size - 1 if short else 0)),
        INSPECT,
        (DATA, name.decode(), f"which has {place.offset + (place.size - 1 if short else 0)}"),
    )
    for name, place in IN_ORDER[1::24]
    for short in (False, True)
]
CASES = [*BUNDLE, *BOUNDARIES, *STATE, *ARCHIVES, *CONFIGS, *PLANS, *VOCABULARIES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused(case: Case, refused: Callable[[Case], Outcome]) -> None:
    """One message names file and place, soon, in little memory, and nothing is written."""
    refused(case)


@pytest.mark.parametrize("case", [BUNDLE[0], CONFIGS[0], PLANS[1]], ids=lambda case: case.name)
def test_a_fresh_process_says_the_same(case: Case, refused: Callable[[Case], Outcome], tmp_path: Path) -> None:
    """The command runs here as it does when it is typed."""
    outcome = refused(case)
    command = [sys.executable, "-m", "electra_convert", *case.command]
    typed = subprocess.run(command, cwd=tmp_path / "work", capture_output=True, text=True, check=False)
    assert (typed.returncode, typed.stdout, typed.stderr) == (outcome.code, outcome.stdout, outcome.stderr)


def test_a_good_checkpoint_is_none_of_these(runner: Runner, tmp_path: Path) -> None:
    """The checks can fail: what succeeds and writes is not taken for a refusal."""
    copied(tmp_path / "work")
    outcome = runner.run(CONVERT, tmp_path / "work")
    assert outcome.code == 0
    assert str(tmp_path / "work" / "out") in outcome.written
    for kept in (outcome, replace(outcome, code=1)):
        with pytest.raises(AssertionError):
            kept.require_refused(())


GOOD = Outcome(
    code=1, stdout="", stderr="checking 5 kB\nerror: a.zip is bad\n", seconds=0.1, memory=1 << 20, written=()
)


@pytest.mark.parametrize(
    "bad",
    [
        {"code": 0},
        {"code": 2},
        {"code": -14},
        {"stdout": "fine"},
        {"stderr": "Traceback (most recent call last):\nerror: a.zip is bad"},
        {"stderr": "error: a.zip is bad\nerror: a.zip is bad"},
        {"stderr": "error: it is bad"},
        {"stderr": "error: a.zip" + "a" * 200_000},
        {"seconds": 1.5},
        {"memory": 300 << 20},
        {"written": ("out",)},
    ],
    ids=str,
)
def test_each_check_can_fail(bad: dict[str, Any]) -> None:
    """An outcome is only right if all of it is."""
    GOOD.require_refused(("a.zip",))
    with pytest.raises(AssertionError):
        replace(GOOD, **bad).require_refused(("a.zip",))


def test_memory_and_time_are_those_of_the_command(runner: Runner, tmp_path: Path) -> None:
    """A command that needs more of them is seen to."""
    (tmp_path / "work").mkdir()
    copied(tmp_path / "more")
    least = runner.run(("--version",), tmp_path / "work")
    more = runner.run(("--part", "both", RUN, "out"), tmp_path / "more")
    assert more.code == 0, more.stderr
    assert more.seconds > least.seconds + 0.05
    assert more.memory > least.memory + (1 << 20)


GENUINE = [
    (tensor.name, tensor.shape, tensor.dtype) for tensor in open_checkpoint(FIXTURE / "model.ckpt-30").tensors.values()
]


@given(position=st.integers(0, INDEX_SIZE - 1), mask=st.integers(1, 255))
@settings(deadline=None)
def test_a_changed_byte_of_an_index_is_damage_or_nothing(
    position: int, mask: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Wherever it is, the checkpoint is refused or the same."""
    folder = tmp_path_factory.getbasetemp() / "flipped"
    if not folder.exists():
        shutil.copytree(FIXTURE, folder)
    data = bytearray((FIXTURE / INDEX).read_bytes())
    data[position] ^= mask
    (folder / INDEX).write_bytes(data)
    with suppress(CorruptCheckpointError, UnsupportedCheckpointError):
        tensors = open_checkpoint(folder / "model.ckpt-30").tensors
        assert [(tensor.name, tensor.shape, tensor.dtype) for tensor in tensors.values()] == GENUINE


YAML_PIECES = st.lists(
    st.sampled_from([*"abc019:-[]{},?!&*'\"|>%@#.~_ \n\t", "<<", "!!", "0x", "2001-01-", ": ", "- ", "\0", "\ufeff"]),
    max_size=40,
).map("".join)


@given(text=YAML_PIECES)
@settings(max_examples=150, deadline=None)
def test_any_yaml_is_plain_data_or_an_error(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing else comes of it than what JSON has, too."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text)
    with suppress(MappingError):
        _require_plain(read_yaml(path))


def _require_plain(data: Any) -> None:
    if isinstance(data, dict):
        assert all(isinstance(key, str) for key in data)
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            _require_plain(item)
    else:
        assert data is None or isinstance(data, str | int | float)


NUMBERS = st.one_of(
    st.sampled_from(["1e400", "-1e400", "NaN", "Infinity", "1" * 5000, "0", "-0", "1e308", "9007199254740993", "true"]),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(json.dumps),
    st.sampled_from(['"gelu"', '"\\ud800"', "null", "[]", "{}", '{"hidden_size": 1e400}']),
)
KEYS = ["model_size", "model_hparam_overrides", *FIELD_TYPES, "generator_hidden_size", "generator_layers", "debug"]


@given(values=st.dictionaries(st.sampled_from(KEYS), NUMBERS, max_size=5))
@settings(max_examples=150, deadline=None)
def test_any_numbers_are_a_config_or_an_error(values: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """No number is too large, or none at all, for a message."""
    path = tmp_path_factory.getbasetemp() / "any.json"
    items = ", ".join(f'"{key}": {value}' for key, value in values.items())
    path.write_text(f"{{{items}}}")
    for part in get_args(Part):
        with suppress(ConfigError):
            read_config_file(path).claims(part, one_transformer=False)
