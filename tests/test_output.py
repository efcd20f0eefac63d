"""Directories that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import electra_convert
from electra_convert import DiskSpaceError, OutputError, OutputExistsError
from electra_convert.output import (
    LOCK,
    NEW,
    OLD,
    in_bytes,
    replace_document,
    require_space,
    scratch_folder,
    sync_path,
    whole_directory,
    write_document,
    write_report,
)

READ_AS_THEY_ARE = {
    "export/alone.py": "what was written for it",
    "export/proof.py": "what it had written",
    "formats/hdf5.py": "what the system says of memory",
    "parity/self_test.py": "what it has just written",
}
"""The modules that read files whole and without a limit, and which files these are."""


def test_a_directory_appears_when_it_is_complete(tmp_path: Path) -> None:
    """Until the block ends nothing has the target's name; then everything is there."""
    target = tmp_path / "a" / "b"
    with whole_directory(target, overwrite=False) as staged:
        write_document(staged / "file", b"content")
        assert not target.exists()
    assert (target / "file").read_bytes() == b"content"
    assert [path.name for path in target.parent.iterdir()] == ["b"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    """When the block fails, neither the target nor the directories above it stay."""
    with pytest.raises(KeyError), whole_directory(tmp_path / "a" / "b", overwrite=False) as staged:
        write_document(staged / "file", b"content")
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_what_is_there_is_not_touched(tmp_path: Path, kind: str) -> None:
    """Something at the target is an error, and stays as it was."""
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("old")
    else:
        target.mkdir()
        (target / "old").write_text("old")
    with pytest.raises(OutputExistsError, match="exists already"), whole_directory(target, overwrite=False) as staged:
        write_document(staged / "file", b"new")
    assert (target if kind == "file" else target / "old").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_overwriting_exchanges(tmp_path: Path) -> None:
    """With `overwrite` the old directory gives way as a whole, and is removed."""
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("old")
    with whole_directory(target, overwrite=True) as staged:
        write_document(staged / "new", b"new")
        assert (target / "old").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_overwriting_works_where_names_cannot_be_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without `renameat2` does it in renames."""
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    target = tmp_path / "target"
    target.mkdir()
    with whole_directory(target, overwrite=True) as staged:
        write_document(staged / "new", b"new")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    """A staged directory whose owner is gone is cleared away; that of a running one is not."""
    abandoned = tmp_path / ".target.deadbeef.partial"
    abandoned.mkdir()
    (abandoned / "half").write_text("half")
    with whole_directory(tmp_path / "target", overwrite=False) as first:
        assert not abandoned.exists()
        write_document(first / "file", b"first")
        with whole_directory(tmp_path / "other", overwrite=False) as second:
            write_document(second / "file", b"second")
        with pytest.raises(KeyError), whole_directory(tmp_path / "target", overwrite=False):
            assert first.exists()
            raise KeyError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "target"]


def test_whatever_a_killed_run_was_to_make_is_removed(tmp_path: Path) -> None:
    """What nobody holds is cleared away by the next that writes there, be it to make a directory or a file."""
    for name in (".other.0123abcd.partial", "..note.json.0123abcd.partial"):
        (tmp_path / name / NEW).mkdir(parents=True)
    mine = tmp_path / ".mine.partial"
    mine.mkdir()
    replace_document(tmp_path / "file", b"content")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.partial", "file"]


def test_what_a_killed_run_put_aside_comes_back(tmp_path: Path) -> None:
    """Where names cannot be exchanged, a run can be killed while neither directory has the name: the old gets it."""
    aside = tmp_path / ".target.with.dots.0123abcd.partial" / OLD
    aside.mkdir(parents=True)
    (aside / "old").write_text("old")
    replace_document(tmp_path / "file", b"content")
    assert (tmp_path / "target.with.dots" / "old").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "target.with.dots"]


@pytest.mark.parametrize("failing", [1, 2])
def test_overwriting_that_fails_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """Where names cannot be exchanged, and either rename fails, the old directory has its name."""
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("old")
    rename, calls = os.rename, itertools.count(1)

    def fail(*names: Path) -> None:
        if next(calls) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(*names)

    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OutputError, match="Input/output error"), whole_directory(target, overwrite=True) as staged:
        write_document(staged / "new", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (target / "old").read_text() == "old"


def test_a_folder_that_another_run_takes_for_abandoned_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is locked a new folder may be taken away; then it is made once more."""
    lock = fcntl.flock
    taken: list[Path] = []

    def take(descriptor: int, how: int) -> None:
        if not taken:
            taken.extend(tmp_path.iterdir())
            shutil.rmtree(taken[0])
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", take)
    with whole_directory(tmp_path / "target", overwrite=False) as staged:
        write_document(staged / "file", b"content")
    assert len(taken) == 1
    assert (tmp_path / "target" / "file").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_lock_that_lost_its_name_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that take a new folder for abandoned, one may hold a lock of that name: then the folder is its own."""
    lock = fcntl.flock
    others: list[int] = []

    def take(descriptor: int, how: int) -> None:
        if not others:
            (folder,) = tmp_path.iterdir()
            (folder / LOCK).unlink()
            others.append(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT))
            lock(others[0], how)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", take)
    with whole_directory(tmp_path / "target", overwrite=False) as staged:
        write_document(staged / "file", b"content")
        assert len(list(tmp_path.iterdir())) == 2
    assert (tmp_path / "target" / "file").read_bytes() == b"content"
    assert len(list(tmp_path.iterdir())) == 2, "what another holds stays"
    os.close(others[0])


def test_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is empty and gone at the end; it clears away what killed runs left, and nothing that is in use."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    abandoned = tmp_path / "electra-convert-0123abcd"
    abandoned.mkdir()
    (abandoned / "half").write_text("half")
    with scratch_folder() as first:
        assert not abandoned.exists()
        assert not list(first.iterdir())
        with scratch_folder() as second:
            assert first.exists()
            (second / "file").write_text("content")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_cannot_sync_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some that are shared refuse it: a directory appears all the same. That a file cannot be synced is an error."""
    sync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) or refuse_files:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    refuse_files = False
    with whole_directory(tmp_path / "target", overwrite=False) as staged:
        write_document(staged / "file", b"content")
    assert (tmp_path / "target" / "file").read_bytes() == b"content"
    refuse_files = True
    with pytest.raises(OSError, match="Invalid argument"):
        sync_path(tmp_path / "target" / "file")


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be locked directories appear all the same, and nothing is taken for abandoned."""

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".other.0123abcd.partial").mkdir()
    with whole_directory(tmp_path / "target", overwrite=False) as staged:
        write_document(staged / "file", b"content")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.0123abcd.partial", "target"]


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (errno.ENOSPC, DiskSpaceError, "is full"),
        (errno.EDQUOT, DiskSpaceError, "is full"),
        (errno.EROFS, OutputError, "cannot be written: Read-only file system"),
        (errno.EACCES, OutputError, "cannot be written: Permission denied"),
    ],
)
def test_what_the_system_refuses_is_one_message(
    tmp_path: Path, code: int, error: type[Exception], message: str
) -> None:
    """A full disk and a missing permission are errors of this package, and nothing stays."""
    with pytest.raises(error, match=message), whole_directory(tmp_path / "target", overwrite=False) as staged:
        write_document(staged / "file", b"content")
        raise OSError(code, os.strerror(code))
    assert not list(tmp_path.iterdir())


def test_too_little_space_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message gives what is needed and what there is."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 5_000_000))
    require_space(tmp_path / "a" / "b", 5_000_000)
    with pytest.raises(DiskSpaceError, match=r"needs 1\.34 GB, but its disk has 5.00 MB free"):
        require_space(tmp_path / "a" / "b", 1_340_000_000)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (14_700_000, "14.7 MB"),
        (999_900_000, "1000 MB"),
        (1_340_000_000, "1.34 GB"),
        (5e15, "5000 TB"),
    ],
)
def test_bytes_are_written_as_people_do(count: float, text: str) -> None:
    """Three digits and a unit."""
    assert in_bytes(count) == text


@pytest.mark.parametrize("kind", ["file", "link"])
def test_overwriting_what_is_no_directory_leaves_nothing_behind(tmp_path: Path, kind: str) -> None:
    """A file or a link that gives way is gone; what the link led to is not touched."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("old")
    else:
        target.symlink_to(tmp_path / "mine")
    with whole_directory(target, overwrite=True) as staged:
        write_document(staged / "new", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "target"]
    assert [path.name for path in target.iterdir()] == ["new"]
    assert (tmp_path / "mine" / "file").read_text() == "mine"


def test_a_place_that_cannot_be_is_told_before_work_begins(tmp_path: Path) -> None:
    """A file in the way, a link that leads nowhere and a name that is too long are errors of this package."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="is a file, not a directory"):
        require_space(tmp_path / "file" / "out", 1)
    with pytest.raises(OutputError, match="cannot be written"):
        require_space(tmp_path / "link" / "out", 1)
    with pytest.raises(OutputError, match="cannot be written"):
        require_space(tmp_path / ("x" * 300), 1)


def test_a_report_follows_links(tmp_path: Path) -> None:
    """What a link leads to is replaced or made, and the link stays."""
    link, place = tmp_path / "link", tmp_path / "there" / "report.xml"
    link.symlink_to(place)
    for text in ("first", "second"):
        write_report(link, text)
        assert place.read_text() == text
    assert link.is_symlink()
    assert [path.name for path in place.parent.iterdir()] == ["report.xml"]


def test_a_report_to_a_pipe_is_written_to_it(tmp_path: Path) -> None:
    """A pipe stays one, and who reads from it gets the report."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()), daemon=True)
    reader.start()
    write_report(pipe, "report")
    assert pipe.is_fifo()
    reader.join(10)
    assert got == ["report"]
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_report_to_what_stdout_goes_to_is_part_of_it(tmp_path: Path) -> None:
    """A log that is stdout is not replaced: what was said before and after stays."""
    program = "from electra_convert.output import write_report; from pathlib import Path; import sys\n"
    program += "print('before'); write_report(Path(sys.argv[1]), 'report\\n'); print('after')"
    for name in ("/dev/stdout", str(tmp_path / "log")):
        with (tmp_path / "log").open("wb") as log:
            subprocess.run([sys.executable, "-c", program, name], stdout=log, check=True)
        assert (tmp_path / "log").read_text() == "before\nreport\nafter\n"
        assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_report_to_a_device_is_written_to_it(tmp_path: Path) -> None:
    """One that takes nothing says so, and stays what it was."""
    link = tmp_path / "report.xml"
    link.symlink_to("/dev/full")
    with pytest.raises(DiskSpaceError, match="is full"):
        write_report(link, "report")
    assert link.is_char_device()
    assert link.is_symlink()


def test_files_from_outside_are_read_with_a_limit() -> None:
    """Nothing reads them as `pathlib` does, which waits for pipes and fills the memory; other files are listed."""
    package = Path(electra_convert.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\.read_(?:text|bytes)\(", path.read_text())
    }
    assert found == READ_AS_THEY_ARE.keys()
