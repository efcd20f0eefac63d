"""Values in a file, read when they are needed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from electra_convert.errors import CorruptCheckpointError, SourceError
from electra_convert.formats.stored import StoredArray, StoredFile

if TYPE_CHECKING:
    from electra_convert.tensor import Array

BEFORE = b"abc"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stored")


def stored(array: Array, path: Path) -> StoredArray:
    path.write_bytes(BEFORE + array.tobytes() + b"after")
    return StoredArray(StoredFile.find(path), array.dtype.name, len(BEFORE), array.shape)


@settings(deadline=None)  # disks take the time they take
@given(
    shape=array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6),
    steps=st.lists(st.one_of(st.just("T"), st.slices(7).filter(lambda rows: rows.step in (None, 1))), max_size=5),
)
def test_parts_and_transposes_are_those_of_numpy(
    shape: tuple[int, ...], steps: list[str | slice], scratch: Path
) -> None:
    """However rows are taken and axes reversed, what is read is what NumPy has in memory."""
    expected = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    found = stored(expected, scratch / "array")
    for step in steps:
        found, expected = (found.T, expected.T) if isinstance(step, str) else (found[step], expected[step])
        assert found.shape == expected.shape
        np.testing.assert_array_equal(np.asarray(found), expected, strict=True)
        np.testing.assert_array_equal(np.asarray(found.ravel()), expected.ravel(), strict=True)


def test_a_number_is_an_array_without_axes(tmp_path: Path) -> None:
    """As NumPy has it."""
    found = stored(np.array(2.5, np.float32), tmp_path / "number")
    np.testing.assert_array_equal(np.asarray(found, np.float64), np.array(2.5), strict=True)


def test_an_array_in_a_file_is_never_one_without_a_copy(tmp_path: Path) -> None:
    """NumPy's protocol asks for an error."""
    with pytest.raises(ValueError, match="without a copy"):
        np.array(stored(np.zeros(3), tmp_path / "array"), copy=False)


def test_a_file_that_became_shorter_is_told(tmp_path: Path) -> None:
    """It is an error with the name of the file, where mapped memory would end the process."""
    found = stored(np.zeros(1000), tmp_path / "array")
    np.asarray(found[:1])
    os.truncate(tmp_path / "array", 900)
    with pytest.raises(CorruptCheckpointError, match="array became shorter while it was read"):
        np.asarray(found)


@pytest.mark.parametrize("change", [b"xyz" + bytes(8), b"xyz"], ids=["same size", "shorter"])
def test_a_file_that_was_written_to_is_told(tmp_path: Path, change: bytes) -> None:
    """Also if it has its size again."""
    found = stored(np.zeros(1), tmp_path / "array")
    np.asarray(found)
    found.file.require_unchanged()
    (tmp_path / "array").write_bytes(change)
    os.utime(tmp_path / "array", ns=(0, found.file.stamp[1] + 1))
    with pytest.raises(CorruptCheckpointError, match="array changed while it was read"):
        found.file.require_unchanged()


def test_a_file_stays_the_one_that_was_opened(tmp_path: Path) -> None:
    """Another one under its name, or none, makes no difference once a value was read."""
    found = stored(np.ones(3), tmp_path / "array")
    np.asarray(found)
    (tmp_path / "array").unlink()
    np.testing.assert_array_equal(np.asarray(found), np.ones(3))
    found.file.require_unchanged()


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    """With its name, and what the system says."""
    found = stored(np.ones(3), tmp_path / "array")
    (tmp_path / "array").unlink()
    with pytest.raises(SourceError, match=r"cannot read .*array: No such file"):
        np.asarray(found)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_another_file_in_its_place_is_told(tmp_path: Path, moment: str) -> None:
    """Where none was read of it yet: of the same size and time, too, for it is another one."""
    path, other = tmp_path / "array", tmp_path / "other"
    found = stored(np.ones(3), path)
    stored(np.zeros(3), other)
    os.utime(other, ns=(0, found.file.stamp[1]))
    if moment == "before":
        other.rename(path)
        with pytest.raises(CorruptCheckpointError, match="array changed while it was read"):
            np.asarray(found)
    else:
        np.asarray(found)
        other.rename(path)
        np.testing.assert_array_equal(np.asarray(found), np.ones(3))


@pytest.mark.parametrize(
    ("make", "says"), [(os.mkfifo, "a pipe"), (lambda path: path.symlink_to("/dev/zero"), "a device")]
)
def test_what_is_no_file_is_told(tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    """It is not waited for."""
    found = stored(np.ones(3), tmp_path / "array")
    (tmp_path / "array").unlink()
    make(tmp_path / "array")
    with pytest.raises(SourceError, match=f"cannot read .*array: .*{says}"):
        np.asarray(found)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the byte: as of a disk that fails."""

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    found = stored(np.ones(3), tmp_path / "array")
    monkeypatch.setattr("os.preadv", failing)
    with pytest.raises(SourceError, match=r"cannot read .* at byte 3: Input/output error"):
        np.asarray(found)


def test_files_are_closed(tmp_path: Path) -> None:
    """With the last array that is in them."""
    found = stored(np.ones(3), tmp_path / "array")
    np.asarray(found)
    descriptor = found.file.descriptor
    os.fstat(descriptor)
    del found
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
