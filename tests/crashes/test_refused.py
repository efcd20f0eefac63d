"""Disks that are full, refuse or vanish: each ends in one error of ours, and leaves nothing."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from electra_convert import ConvertOptions, DiskSpaceError, ElectraConvertError, OutputError, convert_checkpoint
from electra_convert import convert as convert_module
from electra_convert.formats import flax
from electra_convert.output import whole_directory
from tests.crashes.disks import DISK, MS_RDONLY, NOBODY, mount, remount
from tests.crashes.runs import SOURCE, contents, heads_in, in_child, left_in, plan_once

ONE = ConvertOptions(heads=("pretraining",))
SHARED = ConvertOptions(layout="shared")
GOOGLE = ConvertOptions(targets=("google_tf1",))
TWO = ConvertOptions(heads=("pretraining", "masked_lm"), layout="shared")
CALLS = [
    (os, "fsync", errno.EIO, 1),
    (os, "mkdir", errno.EDQUOT, 1),
    (os, "open", errno.EMFILE, 1),
    (io, "open", errno.EMFILE, 1),
    (os, "pwrite", errno.EDQUOT, 5),
    (os, "rename", errno.EIO, 1),
    (os, "replace", errno.EIO, 1),
    (os, "link", errno.EMLINK, 1),
]
"""Calls of the system, how they fail, and each which of them does."""


def refuse(out: Path, kind: type[OutputError], says: str, options: ConvertOptions = ONE) -> None:
    """Convert, and see that it fails with one error and leaves nothing of what it made."""
    with pytest.raises(OutputError, match=says) as caught:
        convert_checkpoint(SOURCE, out, options)
    assert type(caught.value) is kind
    assert not out.exists()
    assert not left_in(out.parent)


def promise_space() -> None:
    """Let disks seem empty when that is asked, and be full when they are written to."""
    shutil.disk_usage = lambda _: SimpleNamespace(free=1 << 60)  # type: ignore[assignment,return-value]


def test_a_disk_that_is_full_at_any_byte(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pages or files it has room for, the error says that it is full; nothing is left."""
    plan_once(monkeypatch, memory / "out", ONE)

    def work() -> None:
        mount("size=64m")
        convert_checkpoint(SOURCE, DISK / "out", ONE)
        pages = shutil.disk_usage(DISK).used // 4096
        files = len(list((DISK / "out").rglob("*")))
        assert pages > 300
        shutil.rmtree(DISK / "out")
        promise_space()
        for number in range(1, pages - 1, 7):  # without the page of the note, which may fail
            remount(f"size={number * 4096}")
            refuse(DISK / "made" / "out", DiskSpaceError, "is full: No space left on device")
            assert not list(DISK.iterdir())
        for number in range(2, files):
            remount(f"size=64m,nr_inodes={number}")
            refuse(DISK / "made" / "out", DiskSpaceError, "is full: No space left on device")
            assert not list(DISK.iterdir())

    in_child(work)


def test_files_that_may_not_be_so_long(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the length of files, however short, is one error; nothing is left."""
    plan_once(monkeypatch, memory / "out", ONE)

    def work() -> None:
        for limit in (0, 100, 5_000, 100_000, 500_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            refuse(memory / "out", OutputError, "File too large")

    in_child(work)


def test_a_disk_that_is_read_only(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before anything is read."""
    plan_once(monkeypatch, memory / "out", TWO)

    def work() -> None:
        mount("mode=1777")
        remount("", MS_RDONLY)
        refuse(DISK / "out", OutputError, "cannot be written: Read-only file system", TWO)

    in_child(work)


def test_a_folder_of_another_user(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one may not write, that is told, and nothing is changed."""
    plan_once(monkeypatch, memory / "out", ONE)

    def work() -> None:
        mount("mode=755")
        (DISK / "theirs").mkdir()
        (DISK / "theirs").chmod(0o555)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        refuse(DISK / "theirs" / "out", OutputError, "cannot be written: Permission denied")

    in_child(work)


def test_a_folder_that_may_not_be_searched(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one may not even see what is there, that is told."""
    plan_once(monkeypatch, memory / "out", ONE)

    def work() -> None:
        mount("mode=755")
        (DISK / "shut" / "in").mkdir(parents=True)
        (DISK / "shut").chmod(0)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with pytest.raises(OutputError, match="cannot be written: Permission denied"):
            convert_checkpoint(SOURCE, DISK / "shut" / "in" / "out", ONE)

    in_child(work)


@pytest.mark.parametrize("below", ["", "out"])
def test_a_name_that_no_disk_has(memory: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    """A name that is too long is told, be it that of the output or of a folder above it."""
    plan_once(monkeypatch, memory / "out", ONE)
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        convert_checkpoint(SOURCE, memory / ("x" * 300) / below, ONE)


@pytest.mark.parametrize("published", [0, 1, 7])
def test_a_target_whose_folder_vanishes(memory: Path, monkeypatch: pytest.MonkeyPatch, published: int) -> None:
    """When somebody removes all of the output in mid-write, that is one error, and nothing comes back."""
    out = memory / "out"
    plan_once(monkeypatch, out, SHARED)
    write = flax.write

    def vanish(*arguments: Any) -> None:
        if len(heads_in(out)) == published:
            shutil.rmtree(out)
        write(*arguments)

    monkeypatch.setattr(flax, "write", vanish)
    refuse(out, OutputError, "cannot be written: No such file or directory", SHARED)


@pytest.mark.parametrize("published", [1, 8])
def test_heads_that_vanish(memory: Path, monkeypatch: pytest.MonkeyPatch, published: int) -> None:
    """When somebody removes what was published already, that is one error; what came after it stays, whole."""
    out = memory / "out"
    plan_once(monkeypatch, out, SHARED)
    convert_checkpoint(SOURCE, out, SHARED)
    new = heads_in(out)
    shutil.rmtree(out)

    written = count(1)

    @contextmanager
    def vanishing(target: Path, *, overwrite: bool) -> Iterator[Path]:
        with whole_directory(target, overwrite=overwrite) as staged:
            yield staged
        if next(written) == published:
            shutil.rmtree(out)

    monkeypatch.setattr(convert_module, "whole_directory", vanishing)
    with pytest.raises(OutputError, match="is not there any more"):
        convert_checkpoint(SOURCE, out, SHARED)
    heads = heads_in(out)
    assert len(heads) == len(new) - published
    assert all(files == new[head] for head, files in heads.items())
    assert not left_in(memory)


@pytest.mark.parametrize(("module", "name", "code", "each"), CALLS, ids=[name for _, name, _, _ in CALLS])
def test_a_call_that_fails(
    memory: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, code: int, each: int
) -> None:
    """Whichever call of the system fails, it is one error of ours; each head is absent, or as it would be."""
    out = memory / "out"
    plan_once(monkeypatch, out, TWO)
    convert_checkpoint(SOURCE, out, TWO)
    new, files = heads_in(out), contents(out)
    failing = Failing(getattr(module, name), code)
    monkeypatch.setattr(module, name, failing)
    done: list[bool] = []
    while failing.failed:
        shutil.rmtree(out)
        failing.begin(1 + each * len(done))
        try:
            convert_checkpoint(SOURCE, out, TWO)
            said = ""
        except ElectraConvertError as error:
            said = error.message
        done.append(not said)
        failing.end()
        assert all(files == new[head] for head, files in heads_in(out).items())
        assert done[-1] or os.strerror(code) in said
        assert not done[-1] or heads_in(out) == new
        assert out.exists() == bool(heads_in(out))
        assert not left_in(memory)
        out.mkdir(exist_ok=True)
    assert contents(out) == files
    assert done[-1]
    assert len(done) > 1


@pytest.mark.parametrize(("name", "each"), [("fsync", 1), ("mkdir", 1), ("pwrite", 8), ("rename", 1)])
def test_a_call_that_fails_on_the_way_to_googles_code(
    memory: Path, monkeypatch: pytest.MonkeyPatch, name: str, each: int
) -> None:
    """Whichever call of the system fails, it is one error of ours, and the checkpoint is whole or absent."""
    out = memory / "out"
    convert_checkpoint(SOURCE, out, GOOGLE)
    new = contents(out)
    failing = Failing(getattr(os, name), errno.EDQUOT)
    monkeypatch.setattr(os, name, failing)
    said: list[str] = []
    while failing.failed:
        shutil.rmtree(out, ignore_errors=True)
        failing.begin(1 + each * len(said))
        try:
            convert_checkpoint(SOURCE, out, GOOGLE)
            said.append("")
        except ElectraConvertError as error:
            said.append(error.message)
        failing.end()
        assert not said[-1] or os.strerror(errno.EDQUOT) in said[-1]
        assert contents(out) in ({}, new)
        assert not left_in(memory)
    assert len(said) > 1
    assert not said[-1]


class Failing:
    """A call of the system that fails once."""

    def __init__(self, call: Callable[..., Any], code: int) -> None:
        self._call = call
        self._code = code
        self._left = 0
        self.failed = True

    def begin(self, number: int) -> None:
        """Let the call of that number, from now on, fail."""
        self._left, self.failed = number, False

    def end(self) -> None:
        """Let all calls be."""
        self._left = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self._left:
            self._left -= 1
            if not self._left:
                self.failed = True
                raise OSError(self._code, os.strerror(self._code))
        return self._call(*arguments, **named)


def test_writes_that_are_cut_short(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that writes less than it was given, as it may, is given the rest."""
    plan_once(monkeypatch, memory / "out", ONE)
    convert_checkpoint(SOURCE, memory / "out", ONE)
    pwrite, calls = os.pwrite, []

    def cut(descriptor: int, data: Any, offset: int) -> int:
        calls.append(len(data))
        return pwrite(descriptor, memoryview(data)[: max(1, len(data) // 3)], offset)

    monkeypatch.setattr(os, "pwrite", cut)
    convert_checkpoint(SOURCE, memory / "cut", ONE)
    assert len(calls) > 100
    assert contents(memory / "cut") == contents(memory / "out")
