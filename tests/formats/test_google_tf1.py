"""Google's checkpoints, read and written."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from electra_convert.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    OutputError,
    SourceError,
    UnsupportedCheckpointError,
)
from electra_convert.formats import google_tf1
from electra_convert.formats.google_tf1 import index_path, open_checkpoint, shard_path, write_checkpoint
from electra_convert.formats.sstable import masked, read_table, write_table
from electra_convert.formats.wire import bytes_field, fixed32_field, number_field, varint
from electra_convert.tensor import ITEM_SIZES, Tensor, numpy_dtype

if TYPE_CHECKING:
    from electra_convert.tensor import Array

FIXTURES = Path(__file__).parents[2] / "fixtures"
BUNDLES = FIXTURES / "bundles"
GENUINE = sorted(path.with_suffix("") for path in FIXTURES.glob("*/*.index"))
MANY_SHARDS = FIXTURES / "electra_tiny_sharded" / "model.ckpt-30"
SMALL = FIXTURES / "finetuned_sts" / "model.ckpt-90"
HEADER = number_field(1, 1) + bytes_field(3, number_field(1, 1))

each_checkpoint = pytest.mark.parametrize("prefix", GENUINE, ids=lambda path: path.parent.name)


def tensor(name: str, array: Array) -> Tensor:
    """Return a tensor with values that are there already."""
    return Tensor(name, array.shape, array.dtype.name, lambda: array)


def copied(prefix: Path, directory: Path) -> Path:
    """Copy the files of a checkpoint, to be damaged."""
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        shutil.copyfile(path, directory / path.name)
    return directory / prefix.name


def bundle(directory: Path, entries: Mapping[bytes, bytes], *, header: bytes = HEADER, size: int = 64) -> Path:
    """Write a checkpoint with those entries, whose data file is zeros."""
    prefix = directory / "ckpt"
    index_path(prefix).write_bytes(write_table({b"": header, **entries}))
    shard_path(prefix, 0, 1).write_bytes(bytes(size))
    return prefix


def entry(dtype: int = 1, shape: tuple[int, ...] = (2, 2), *, size: int = 16, **fields: int) -> bytes:
    """Return an entry: by default of four floats at the start of the first data file."""
    return b"".join(
        [
            number_field(1, dtype),
            bytes_field(2, b"".join(bytes_field(2, signed_field(1, length)) for length in shape)),
            signed_field(3, fields.get("shard", 0)),
            signed_field(4, fields.get("offset", 0)),
            signed_field(5, size),
            fixed32_field(6, fields.get("checksum", masked(google_crc32c.value(bytes(max(0, min(size, 99))))))),
        ]
    )


def signed_field(number: int, value: int) -> bytes:
    """Encode a number, negative ones as protobuf does."""
    return varint(number << 3) + varint(value % 2**64)


def sliced(shape: tuple[int, ...], *boxes: tuple[tuple[int, int | None], ...], dtype: int = 1) -> bytes:
    """Return the entry of a partitioned tensor; a length of None is all of an axis."""
    extents = [
        [signed_field(1, start) + (b"" if length is None else signed_field(2, length)) for start, length in box]
        for box in boxes
    ]
    slices = [bytes_field(7, b"".join(bytes_field(1, extent) for extent in box)) for box in extents]
    return entry(dtype, shape, size=0) + b"".join(slices)


def slice_key(name: bytes, *box: tuple[int, int]) -> bytes:
    """Return the key of a slice whose numbers are all from -1 to 63."""
    numbers = bytes(0x7F if number == -1 else 0x80 | number for extent in box for number in extent)
    return b"\0" + name + b"\0\1" + bytes([1, len(box)]) + numbers


# Genuine checkpoints


@each_checkpoint
def test_genuine_checkpoints_open_and_are_intact(prefix: Path) -> None:
    """Each has its tensors in the order of their names, and the checksum of each is right."""
    checkpoint = open_checkpoint(prefix)
    assert list(checkpoint.tensors) == sorted(checkpoint.tensors)
    assert len(checkpoint.tensors) > 50
    assert not checkpoint.unreadable
    assert checkpoint.identity == hashlib.sha256(index_path(prefix).read_bytes()).hexdigest()
    checkpoint.check(checkpoint.tensors)


@each_checkpoint
def test_values_are_as_described(prefix: Path) -> None:
    """Shape and dtype are those the index gives."""
    for name, found in open_checkpoint(prefix).tensors.items():
        array = found.load()
        assert (name, array.shape, array.dtype) == (found.name, found.shape, numpy_dtype(found.dtype))


@each_checkpoint
def test_genuine_checkpoints_are_written_again_byte_for_byte(prefix: Path, tmp_path: Path) -> None:
    """What TensorFlow 1.15 wrote, this package writes; several data files become one."""
    checkpoint = open_checkpoint(prefix)
    again = tmp_path / "again"
    write_checkpoint(again, checkpoint.tensors.values())
    shards = checkpoint.files[1:]
    if len(shards) == 1:
        assert index_path(again).read_bytes() == index_path(prefix).read_bytes()
        assert shard_path(again, 0, 1).read_bytes() == shards[0].read_bytes()
    else:
        assert_equal_checkpoints(again, prefix)


def assert_equal_checkpoints(first: Path, second: Path) -> None:
    """Compare names, shapes, dtypes and bits."""
    one, other = open_checkpoint(first).tensors, open_checkpoint(second).tensors
    assert [(t.name, t.shape, t.dtype) for t in one.values()] == [(t.name, t.shape, t.dtype) for t in other.values()]
    assert all(one[name].load().tobytes() == other[name].load().tobytes() for name in one)


def test_data_files_make_no_difference() -> None:
    """The same variables in one data file and in four are the same tensors."""
    assert_equal_checkpoints(MANY_SHARDS, FIXTURES / "electra_tiny" / "model.ckpt-30")
    assert [path.name[-19:] for path in open_checkpoint(MANY_SHARDS).files[1:]] == [
        f"data-0000{number}-of-00004" for number in range(4)
    ]


def test_what_is_loaded_belongs_to_the_caller() -> None:
    """Whoever changes it changes nothing for others."""
    found = open_checkpoint(SMALL).tensors["electra/embeddings/word_embeddings"]
    kept, changed = found.load(), found.load()
    changed += 1
    np.testing.assert_array_equal(found.load(), kept, strict=True)


def test_opening_imports_no_numpy() -> None:
    """So that looking into a checkpoint is quick."""
    script = (
        "import sys; from pathlib import Path; from electra_convert.formats.google_tf1 import open_checkpoint; "
        f"open_checkpoint(Path({str(SMALL)!r})); print('numpy' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


# Every kind of tensor


def test_the_bundles_are_those_described() -> None:
    """`README.md` has the sha256 of each file `make.py` wrote."""
    described = (BUNDLES / "README.md").read_text().split("```")[1].split()
    found = {path.relative_to(BUNDLES).as_posix(): path for path in BUNDLES.glob("*/*")}
    assert dict(zip(described[1::2], described[::2], strict=True)) == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()
    }


def test_partitioned_tensors_are_joined() -> None:
    """Along either axis; `make.py` says what values to expect."""
    tensors = open_checkpoint(BUNDLES / "partitioned" / "model.ckpt-7").tensors
    assert list(tensors) == ["part/columns", "part/rows", "part/vector", "whole"]
    for found in tensors.values():
        expected = np.arange(found.size).reshape(found.shape) / 8 - sum(found.shape)
        np.testing.assert_array_equal(found.load(), expected.astype(np.float32), strict=True)


def test_slices_may_divide_several_axes() -> None:
    """Five slices that no single cut divides are one tensor."""
    checkpoint = open_checkpoint(BUNDLES / "tiled" / "model.ckpt-7")
    expected = (np.arange(25).reshape(5, 5) / 8 - 10).astype(np.float32)
    np.testing.assert_array_equal(checkpoint.tensors["tile"].load(), expected, strict=True)
    checkpoint.check(["tile"])


def test_every_element_type_is_read() -> None:
    """All that this package knows, aligned in the file or not, and empty ones."""
    checkpoint = open_checkpoint(BUNDLES / "dtypes" / "model.ckpt-7")
    tensors = dict(checkpoint.tensors)
    assert tensors.pop("scalar").load() == np.float32(2.5)
    assert tensors.pop("empty").load().shape == (0, 3)
    assert set(tensors) == set(ITEM_SIZES)
    for dtype, found in tensors.items():
        expected = np.array([[0, 1, 2]]).astype(numpy_dtype(dtype))
        np.testing.assert_array_equal(found.load(), expected, strict=True)
    checkpoint.check(checkpoint.tensors)


def test_other_element_types_are_reported() -> None:
    """They are no tensors, and no error either."""
    assert open_checkpoint(BUNDLES / "dtypes" / "model.ckpt-7").unreadable == {
        "complex64": "its element type is complex64",
        "string": "its element type is string",
    }


def test_element_types_yet_to_come_are_reported(tmp_path: Path) -> None:
    """TensorFlow adds some now and then."""
    checkpoint = open_checkpoint(bundle(tmp_path, {b"new": entry(dtype=24)}))
    assert checkpoint.unreadable == {"new": "its element type is number 24"}


@pytest.mark.parametrize(("partitioned", "most"), [(False, 32), (True, 8)])
def test_too_many_axes_are_reported(tmp_path: Path, most: int, *, partitioned: bool) -> None:
    """An array cannot have them."""
    shape = (1,) * (most + 1)
    value = sliced(shape, ((0, None),) * len(shape)) if partitioned else entry(shape=shape, size=4)
    keys = {slice_key(b"deep", *((0, -1),) * len(shape)): entry(shape=shape, size=4)} if partitioned else {}
    checkpoint = open_checkpoint(bundle(tmp_path, {b"deep": value, **keys}))
    assert checkpoint.unreadable == {"deep": f"it has {most + 1} axes; at most {most} are read"}


# Kinds of checkpoint that are not read


def test_object_based_checkpoints_are_refused() -> None:
    """The message says what it is, and what to do."""
    with pytest.raises(
        UnsupportedCheckpointError, match=r"object-based TensorFlow 2 .* Keras save_weights(.|\n)*Saver"
    ):
        open_checkpoint(BUNDLES / "object_based" / "ckpt-1")


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (number_field(1, 1) + number_field(2, 1), "big-endian"),
        (
            number_field(1, 1) + bytes_field(3, number_field(2, 2)),
            "readers of format version 2; this one reads version 1",
        ),
    ],
)
def test_other_kinds_of_bundle_are_refused(tmp_path: Path, header: bytes, complaint: str) -> None:
    """Big-endian ones, and newer ones."""
    with pytest.raises(UnsupportedCheckpointError, match=complaint):
        open_checkpoint(bundle(tmp_path, {b"a": entry()}, header=header))


def test_compressed_indexes_are_refused(tmp_path: Path) -> None:
    """TensorFlow's own writer compresses none."""
    prefix = copied(SMALL, tmp_path)
    data = bytearray(index_path(prefix).read_bytes())
    end = data.index(struct.pack("<II", 0, 1)) - 5  # the block of metadata follows the data block
    data[end : end + 5] = b"\1" + struct.pack("<I", masked(google_crc32c.value(bytes(data[:end]) + b"\1")))
    index_path(prefix).write_bytes(data)
    with pytest.raises(UnsupportedCheckpointError, match="block at byte 0 is compressed"):
        open_checkpoint(prefix)


# Damage to files


def test_a_missing_index_is_told(tmp_path: Path) -> None:
    """With the path that was looked for."""
    with pytest.raises(CheckpointNotFoundError, match=r"there is no .*nothing\.index"):
        open_checkpoint(tmp_path / "nothing")


def test_an_index_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Here it is a directory."""
    index_path(tmp_path / "odd").mkdir()
    with pytest.raises(SourceError, match=r"cannot read .*odd\.index: Is a directory"):
        open_checkpoint(tmp_path / "odd")


def test_an_enormous_index_is_not_read(tmp_path: Path) -> None:
    """It would fill the memory."""
    prefix = tmp_path / "huge"
    with index_path(prefix).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SourceError, match=r"huge\.index: it has more than 4194304 bytes"):
        open_checkpoint(prefix)


def test_all_missing_data_files_are_told_at_once(tmp_path: Path) -> None:
    """Not just the first."""
    prefix = copied(MANY_SHARDS, tmp_path)
    for number in (1, 3):
        shard_path(prefix, number, 4).unlink()
    with pytest.raises(CorruptCheckpointError, match="data files are missing") as error:
        open_checkpoint(prefix)
    assert error.value.problems == tuple(str(shard_path(prefix, number, 4)) for number in (1, 3))


def test_all_tensors_of_a_truncated_data_file_are_told_at_once(tmp_path: Path) -> None:
    """By name, each with where it should be."""
    prefix = copied(SMALL, tmp_path)
    shard = shard_path(prefix, 0, 1)
    size = shard.stat().st_size
    with shard.open("r+b") as file:
        file.truncate(size - 260)
    with pytest.raises(CorruptCheckpointError, match="truncated") as error:
        open_checkpoint(prefix)
    assert len(error.value.problems) == 2
    assert error.value.problems[-1] == (
        f"task_specific/sts/dense/kernel: it is at bytes {size - 256} to {size} of {shard.name}, which has {size - 260}"
    )


def test_a_data_file_that_shrinks_after_opening_is_told(tmp_path: Path) -> None:
    """Reading beyond the end of a mapped file would end the process."""
    prefix = copied(SMALL, tmp_path)
    checkpoint = open_checkpoint(prefix)
    with shard_path(prefix, 0, 1).open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(CorruptCheckpointError, match="changed while it was read"):
        checkpoint.check(checkpoint.tensors)


@pytest.mark.parametrize("leave", ["nothing", "an empty file"])
def test_a_data_file_that_vanishes_after_opening_is_told(tmp_path: Path, leave: str) -> None:
    """In one message that names it."""
    prefix = copied(SMALL, tmp_path)
    checkpoint = open_checkpoint(prefix)
    shard_path(prefix, 0, 1).unlink()
    if leave == "an empty file":
        shard_path(prefix, 0, 1).touch()
    with pytest.raises(SourceError, match=shard_path(prefix, 0, 1).name):
        next(iter(checkpoint.tensors.values())).load()


def test_every_truncation_of_an_index_is_told(tmp_path: Path) -> None:
    """At each length the file can be cut to."""
    prefix = copied(SMALL, tmp_path)
    data = index_path(prefix).read_bytes()
    for size in range(len(data)):
        index_path(prefix).write_bytes(data[:size])
        with pytest.raises(CorruptCheckpointError, match=r"model\.ckpt-90\.index is damaged"):
            open_checkpoint(prefix)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the examples of one property share."""
    return tmp_path_factory.mktemp("scratch")


@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
@settings(deadline=None)  # disks take the time they take
def test_changed_bytes_of_an_index_do_no_harm(flips: list[tuple[float, int]], scratch: Path) -> None:
    """They are told, or do not matter: then all tensors are the same."""
    prefix = copied(SMALL, scratch)
    data = bytearray(index_path(prefix).read_bytes())
    for place, mask in flips:
        data[int(place * len(data))] ^= mask
    index_path(prefix).write_bytes(data)
    with suppress(SourceError):
        assert_equal_checkpoints(prefix, SMALL)


@given(value=st.binary(max_size=48), key=st.sampled_from([b"", b"a", slice_key(b"w", (0, 2), (0, -1))]))
@settings(max_examples=300, deadline=None)  # disks take the time they take
def test_entries_made_to_do_harm_do_none(value: bytes, key: bytes, scratch: Path) -> None:
    """Whatever an entry says, its checksum being right, is told or can be read."""
    entries = {
        b"": HEADER,
        b"w": sliced((4, 2), ((0, 2), (0, None)), ((2, 2), (0, None))),
        slice_key(b"w", (0, 2), (0, -1)): entry(),
        slice_key(b"w", (2, 2), (0, -1)): entry(),
    }
    prefix = bundle(scratch, entries)
    index_path(prefix).write_bytes(write_table({**entries, key: value}))
    with suppress(SourceError):
        checkpoint = open_checkpoint(prefix)
        for found in checkpoint.tensors.values():
            assert found.load().shape == found.shape
        checkpoint.check(checkpoint.tensors)


# Damage to entries, their checksums being right

HALVES = (((0, 2), (0, None)), ((2, 2), (0, None)))


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (entry(size=12), r"it has 12 bytes; float32 of shape \[2, 2\] takes 16"),
        (entry(size=-16), r"it has -16 bytes; float32 of shape \[2, 2\] takes 16"),
        (entry(shape=(2, -2)), r"its shape \[2, -2\] is not known in full"),
        (entry() + bytes_field(2, number_field(3, 1)), r"its shape \[2, 2\] is not known in full"),
        (entry(shape=(2**40, 2**40)), r"its shape \[1099511627776, 1099511627776\] is larger than any memory"),
        (entry(shape=(0, 2**62), size=0), r"its shape \[0, 4611686018427387904\] is larger than any memory"),
        (entry(offset=56), r"it is at bytes 56 to 72 of ckpt.data-00000-of-00001, which has 64"),
        (entry(offset=49), "it is at bytes 49 to 65"),
        (entry(offset=-8), r"it is at bytes -8 to 8 of"),
        (entry(offset=2**63 - 1), r"it is at bytes 9223372036854775807 to"),
        (entry(shard=1), "data file 1 of 1"),
        (entry(shard=-1), "data file -1 of 1"),
        (b"\x0b", "a: the field at byte 0 is of the unknown type 3"),
    ],
)
def test_wrong_entries_are_told(tmp_path: Path, value: bytes, complaint: str) -> None:
    """Each number of an entry is compared with the others and with the file."""
    with pytest.raises(CorruptCheckpointError, match=complaint):
        open_checkpoint(bundle(tmp_path, {b"a": value}))


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({b"w": sliced((4, 2), *HALVES)}, r"there is no entry for its slices \[0:2, 0:2\], \[2:4, 0:2\]"),
        ({b"w": sliced((4, 2), HALVES[0])}, r"its slices \[0:2, 0:2\] do not make up its shape \[4, 2\]"),
        ({b"w": sliced((4, 2), HALVES[0], HALVES[0])}, "do not make up"),
        ({b"w": sliced((4, 2), HALVES[0], ((1, 2), (0, None)))}, "do not make up"),
        ({b"w": sliced((4, 2), *HALVES, ((4, 2), (0, None)))}, "do not make up"),
        ({b"w": sliced((4, 2), ((0, 2),), ((2, 2),))}, "has not the 2 axes of its shape"),
        ({b"w": sliced((4, 2), ((-2, 2), (0, None)), HALVES[1])}, "has a negative start or length"),
        ({b"w": sliced((4, 2), ((0, -2), (0, None)), HALVES[1])}, "has a negative start or length"),
        ({slice_key(b"w", (0, 2)): entry(shape=(4,))}, "no tensor has such a slice"),
    ],
)
def test_wrong_slices_are_told(tmp_path: Path, entries: dict[bytes, bytes], complaint: str) -> None:
    """They must be there, and cover the tensor once."""
    with pytest.raises(CorruptCheckpointError, match=complaint):
        open_checkpoint(bundle(tmp_path, entries))


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (entry(dtype=2), r"its slice \[0:2, 0:2\] is float64 of shape \[2, 2\], not float32 of shape \[2, 2\]"),
        (entry(shape=(4,)), r"its slice \[0:2, 0:2\] is float32 of shape \[4\], not float32 of shape \[2, 2\]"),
        (sliced((2, 2), ((0, None), (0, None))), "is damaged"),
        (entry(size=8), r"w: it has 8 bytes; float32 of shape \[2, 2\] takes 16"),
    ],
)
def test_wrong_entries_of_slices_are_told(tmp_path: Path, part: bytes, complaint: str) -> None:
    """A slice has the element type of the tensor, and the shape the tensor says."""
    keys = [slice_key(b"w", (start, 2), (0, -1)) for start in (0, 2)]
    entries = {b"w": sliced((4, 2), *HALVES), keys[0]: part, keys[1]: entry()}
    with pytest.raises(CorruptCheckpointError, match=complaint):
        open_checkpoint(bundle(tmp_path, entries))


def test_all_wrong_entries_are_told_at_once(tmp_path: Path) -> None:
    """Not just the first."""
    entries = {b"a": entry(size=1), b"b": entry(), b"c": entry(offset=60), b"\xff": entry()}
    with pytest.raises(CorruptCheckpointError) as error:
        open_checkpoint(bundle(tmp_path, entries))
    assert [problem.split(":")[0] for problem in error.value.problems] == ["a", "c", "\\xff"]
    assert error.value.problems[-1] == "\\xff: the name is not UTF-8"


@pytest.mark.parametrize(
    ("header", "complaint"), [(b"", "counts 0 data files"), (b"\x08", "the number at byte 1 does not end")]
)
def test_wrong_headers_are_told(tmp_path: Path, header: bytes, complaint: str) -> None:
    """A checkpoint has at least one data file."""
    with pytest.raises(CorruptCheckpointError, match=complaint):
        open_checkpoint(bundle(tmp_path, {b"a": entry()}, header=header))


def test_an_index_without_a_header_is_told(tmp_path: Path) -> None:
    """It is a table, but not one of tensors."""
    index_path(tmp_path / "ckpt").write_bytes(write_table({b"a": entry()}))
    with pytest.raises(CorruptCheckpointError, match="it has no header"):
        open_checkpoint(tmp_path / "ckpt")


def test_a_count_of_data_files_costs_nothing(tmp_path: Path) -> None:
    """Only files that hold something are looked for."""
    header = number_field(1, 2**31 - 1)
    with pytest.raises(CorruptCheckpointError, match="data files are missing") as error:
        open_checkpoint(bundle(tmp_path, {b"a": entry()}, header=header))
    assert len(error.value.problems) == 1


# Checksums


def damage(prefix: Path, *offsets: int) -> None:
    """Change a byte at each place of the first data file."""
    data = bytearray(shard_path(prefix, 0, 1).read_bytes())
    for offset in offsets:
        data[offset] ^= 1
    shard_path(prefix, 0, 1).write_bytes(data)


def test_all_damaged_tensors_are_told_at_once(tmp_path: Path) -> None:
    """By name, file and place; the others are not."""
    prefix = copied(SMALL, tmp_path)
    shard = shard_path(prefix, 0, 1)
    damage(prefix, 0, shard.stat().st_size - 1)
    checkpoint = open_checkpoint(prefix)
    with pytest.raises(CorruptCheckpointError) as error:
        checkpoint.check(checkpoint.tensors)
    first, last = list(checkpoint.tensors)[:: len(checkpoint.tensors) - 1]
    assert error.value.problems == (
        f"{first}: 256 bytes at byte 0 of {shard}",
        f"{last}: 256 bytes at byte {shard.stat().st_size - 256} of {shard}",
    )


def test_only_the_named_tensors_are_checked(tmp_path: Path) -> None:
    """A damaged tensor that is not used does no harm."""
    prefix = copied(SMALL, tmp_path)
    damage(prefix, 0)
    checkpoint = open_checkpoint(prefix)
    checkpoint.check(list(checkpoint.tensors)[1:])


def test_each_slice_is_checked(tmp_path: Path) -> None:
    """A slice has a checksum of its own, and a place."""
    prefix = copied(BUNDLES / "partitioned" / "model.ckpt-7", tmp_path)
    checkpoint = open_checkpoint(prefix)
    checkpoint.check(checkpoint.tensors)
    damage(prefix, *range(0, shard_path(prefix, 0, 1).stat().st_size, 4))
    with pytest.raises(CorruptCheckpointError) as error:
        open_checkpoint(prefix).check(checkpoint.tensors)
    names = [problem.split(":")[0] for problem in error.value.problems]
    assert names == ["part/columns"] * 2 + ["part/rows"] * 3 + ["part/vector"] * 2 + ["whole"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_told(tmp_path: Path, value: float) -> None:
    """All tensors that hold one, wherever in them it is; the others are right."""
    last = np.zeros(google_tf1.CHUNK_SIZE // 4 + 1, np.float32)
    last[-1] = value
    tensors = [tensor("a", last), tensor("b", np.zeros(2)), tensor("c", np.full(3, value, np.float16))]
    write_checkpoint(tmp_path / "bad", tensors)
    with pytest.raises(CorruptCheckpointError, match="NaN or infinite") as error:
        open_checkpoint(tmp_path / "bad").check("abc")
    assert [problem.partition(":")[0] for problem in error.value.problems] == ["a", "c"]


def test_a_data_file_that_changes_is_told(tmp_path: Path) -> None:
    """Also one that has the size it had, once something was read of it."""
    prefix = copied(SMALL, tmp_path)
    checkpoint = open_checkpoint(prefix)
    checkpoint.check(checkpoint.tensors)
    os.utime(shard_path(prefix, 0, 1))
    with pytest.raises(CorruptCheckpointError, match="changed while it was read"):
        checkpoint.require_unchanged()


class TestWhatWasReadIsKnown:
    @pytest.fixture
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Return where reads began, once there are some."""
        begun: list[int] = []
        preadv = os.preadv

        def note(descriptor: int, buffers: list[memoryview], offset: int) -> int:
            begun.append(offset)
            return preadv(descriptor, buffers, offset)

        monkeypatch.setattr(os, "preadv", note)
        return begun

    def test_values_that_were_loaded_are_not_read_again(self, reads: list[int]) -> None:
        """Nor is what was checked."""
        checkpoint = open_checkpoint(SMALL)
        first, *others = checkpoint.tensors
        checkpoint.tensors[first].load()
        checkpoint.check([first])
        assert len(reads) == 1
        checkpoint.check([first, *others])
        checkpoint.check([first, *others])
        assert len(reads) == 1 + len(others)

    @pytest.mark.parametrize("value", [b"\0\0\xc0\x7f", b"\1"])
    def test_damage_is_seen_while_values_are_loaded(self, tmp_path: Path, reads: list[int], value: bytes) -> None:
        """The check tells of it, and has nothing to read."""
        write_checkpoint(tmp_path / "bad", [tensor("a", np.frombuffer(value.ljust(16, b"\0"), np.float32))])
        if value == b"\1":
            damage(tmp_path / "bad", 0)
        checkpoint = open_checkpoint(tmp_path / "bad")
        checkpoint.tensors["a"].load()
        with pytest.raises(CorruptCheckpointError, match="differ from" if value == b"\1" else "NaN or infinite"):
            checkpoint.check("a")
        assert len(reads) == 1

    @pytest.mark.parametrize("parts", [[slice(0, 2)], [slice(2, 4), slice(0, 2)], [slice(0, 2), slice(3, 4)]])
    def test_values_read_in_part_or_out_of_order_are_not_known(self, tmp_path: Path, parts: list[slice]) -> None:
        """They are read, and what is wrong with them is told."""
        write_checkpoint(tmp_path / "bad", [tensor("a", np.ones((4, 3), np.float32))])
        damage(tmp_path / "bad", 47)
        checkpoint = open_checkpoint(tmp_path / "bad")
        values = checkpoint.tensors["a"].values()
        for part in parts:
            np.asarray(values[part])
        with pytest.raises(CorruptCheckpointError, match="differ from"):
            checkpoint.check("a")

    def test_a_few_bytes_are_read_at_a_time(self, monkeypatch: pytest.MonkeyPatch, reads: list[int]) -> None:
        """However large a tensor is."""
        monkeypatch.setattr(google_tf1, "CHUNK_SIZE", 1000)
        checkpoint = open_checkpoint(SMALL)
        checkpoint.check(checkpoint.tensors)
        assert len(reads) == sum(-(-found.nbytes // 1000) for found in checkpoint.tensors.values())


# Writing

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
DTYPES = st.sampled_from(sorted(ITEM_SIZES))
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def any_array(draw: st.DrawFn) -> Array:
    """Draw an array of any element type, of any bits."""
    dtype, shape = numpy_dtype(draw(DTYPES)), draw(SHAPES)
    data = draw(arrays.arrays(np.uint8, (*shape, dtype.itemsize)))
    return (data % 2).astype(bool)[..., 0] if dtype.kind == "b" else data.reshape(-1).view(dtype).reshape(shape)


@given(values=st.dictionaries(NAMES, any_array(), max_size=5))
@settings(deadline=None)  # disks take the time they take
def test_tensors_are_read_as_they_were_written(values: dict[str, Array], scratch: Path) -> None:
    """Names, shapes, dtypes and bits; NaN and infinity too, which a check refuses."""
    prefix = scratch / "written"
    index_path(prefix).unlink(missing_ok=True)
    shard_path(prefix, 0, 1).unlink(missing_ok=True)
    write_checkpoint(prefix, [tensor(name, array) for name, array in values.items()])
    checkpoint = open_checkpoint(prefix)
    assert list(checkpoint.tensors) == sorted(values)
    with np.errstate(invalid="ignore"):  # NaNs that signal
        endless = [name for name, array in sorted(values.items()) if not np.isfinite(array).all()]
    if endless:
        with pytest.raises(CorruptCheckpointError, match="NaN or infinite") as error:
            checkpoint.check(checkpoint.tensors)
        assert [problem.rpartition(": ")[0] for problem in error.value.problems] == endless
    else:
        checkpoint.check(checkpoint.tensors)
    for name, array in values.items():
        found = checkpoint.tensors[name].load()
        assert (found.shape, found.dtype, found.tobytes()) == (array.shape, array.dtype, array.tobytes())


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3).T, np.arange(6.0)[::2], np.arange(6.0)[::-1]])
def test_arrays_in_any_memory_order_are_written(tmp_path: Path, array: Array) -> None:
    """They are stored in C order."""
    write_checkpoint(tmp_path / "a", [tensor("t", array)])
    np.testing.assert_array_equal(open_checkpoint(tmp_path / "a").tensors["t"].load(), array, strict=True)


def test_arrays_stay_writable(tmp_path: Path) -> None:
    """Writing an array leaves it as it was."""
    array = np.zeros(3, np.float32)
    write_checkpoint(tmp_path / "a", [tensor("t", array)])
    array[0] = 1


def test_writing_tells_of_its_progress(tmp_path: Path) -> None:
    """Of every byte."""
    steps: list[int] = []
    write_checkpoint(tmp_path / "a", open_checkpoint(SMALL).tensors.values(), advance=steps.append)
    assert sum(steps) == shard_path(tmp_path / "a", 0, 1).stat().st_size


class _Values(np.ndarray[Any, Any]):
    """An array one can watch being freed."""


def test_one_tensor_for_each_thread_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """The ones before are gone when the next is loaded."""
    loaded: list[ref[_Values]] = []

    def load() -> Array:
        array = np.zeros(8, np.float32).view(_Values)
        assert sum(before() is not None for before in loaded) < google_tf1.THREADS
        loaded.append(ref(array))
        return array

    write_checkpoint(tmp_path / "a", (Tensor(f"t{number}", (8,), "float32", load) for number in range(5)))
    assert len(loaded) == 5


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_memory_does_not_grow_with_the_tensors(tmp_path: Path, dtype: str, *, flipped: bool) -> None:
    """They are read, transposed, cast, checked and written a few megabytes at a time."""
    zeros = np.broadcast_to(np.zeros((), dtype), (1 << 12, 1 << 12))
    write_checkpoint(tmp_path / "a", [tensor("t", zeros)])
    (stored,) = open_checkpoint(tmp_path / "a").tensors.values()
    turned = Tensor("t", zeros.shape[::-1], dtype, lambda: stored.values().T)
    tracemalloc.start()
    try:
        write_checkpoint(tmp_path / "b", [turned if flipped else stored], dtype="float32")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < zeros.size * 4 / 2
    (found,) = open_checkpoint(tmp_path / "b").tensors.values()
    assert (found.shape, found.dtype) == (turned.shape if flipped else zeros.shape, "float32")


def test_a_dtype_is_that_of_floating_point_tensors_alone(tmp_path: Path) -> None:
    """Values that it cannot hold are refused; what is narrower, it holds exactly."""
    values = [np.full(3, 1.5, np.float16), np.full(3, 0.1), np.arange(3), np.ones(3, bool)]
    write_checkpoint(tmp_path / "a", [tensor(f"t{n}", array) for n, array in enumerate(values)], dtype="float32")
    checkpoint = open_checkpoint(tmp_path / "a")
    checkpoint.check(checkpoint.tensors)
    assert [found.dtype for found in checkpoint.tensors.values()] == ["float32", "float32", "int64", "bool"]
    assert (checkpoint.tensors["t1"].load() == np.full(3, 0.1, np.float32)).all()
    with pytest.raises(OutputError, match="t holds values that float32 cannot hold"):
        write_checkpoint(tmp_path / "b", [tensor("t", np.full(3, 1e300))], dtype="float32")


@pytest.mark.parametrize("names", [["a", "a"], [""], ["\0slice"]])
def test_names_that_are_none_are_refused(tmp_path: Path, names: list[str]) -> None:
    """A caller that gives them has a bug."""
    with pytest.raises(ValueError, match="the name of two tensors, or no name"):
        write_checkpoint(tmp_path / "a", [tensor(name, np.zeros(1, np.float32)) for name in names])


@pytest.mark.parametrize("array", [np.zeros(3, np.float64), np.zeros(2, np.float32)])
def test_values_that_differ_from_their_description_are_refused(tmp_path: Path, array: Array) -> None:
    """A caller that gives them has a bug."""
    with pytest.raises(ValueError, match=r"t is float.*, described as float32"):
        write_checkpoint(tmp_path / "a", [Tensor("t", (3,), "float32", lambda: array)])


def fail() -> Array:
    """Load nothing."""
    raise OSError("the source is gone")


def test_there_is_no_checkpoint_until_it_is_complete(tmp_path: Path) -> None:
    """A failure on the way leaves no index."""
    with pytest.raises(OSError, match="the source is gone"):
        write_checkpoint(tmp_path / "a", [tensor("a", np.zeros(1, np.float32)), Tensor("b", (1,), "float32", fail)])
    assert not index_path(tmp_path / "a").exists()


@pytest.mark.parametrize("path_of", [index_path, lambda prefix: shard_path(prefix, 0, 1)])
def test_existing_files_are_kept(tmp_path: Path, path_of: Callable[[Path], Path]) -> None:
    """Nothing is overwritten."""
    path_of(tmp_path / "a").write_text("precious")
    with pytest.raises(FileExistsError):
        write_checkpoint(tmp_path / "a", [])
    assert path_of(tmp_path / "a").read_text() == "precious"


def test_thousands_of_tensors_are_written_and_read(tmp_path: Path) -> None:
    """The index then has several blocks."""
    array = np.zeros(1, np.float32)
    names = [f"electra/encoder/layer_{number}/attention/self/query/kernel" for number in range(8000)]
    write_checkpoint(tmp_path / "a", [tensor(name, array) for name in names])
    assert list(open_checkpoint(tmp_path / "a").tensors) == sorted(names)


def test_the_index_does_not_depend_on_the_order(tmp_path: Path) -> None:
    """Names are sorted, only the places differ."""
    tensors = open_checkpoint(SMALL).tensors
    write_checkpoint(tmp_path / "a", reversed(list(tensors.values())))
    assert_equal_checkpoints(tmp_path / "a", SMALL)
    assert list(read_table(index_path(tmp_path / "a").read_bytes())) == [b"", *(name.encode() for name in tensors)]
