"""Directories and files that appear whole or not at all.

What is written grows in a folder beside its place, is synced, and is renamed. Whoever fills such a folder holds the
lock in it. The lock dies with its process, and so the next that writes there knows what a killed one left, and removes
it, whatever it was to become. It is the lock of a file, which other machines see too where they share a disk.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from electra_convert.errors import DiskSpaceError, OutputError, OutputExistsError

STAGING = ".{name}.{mark}.partial"
"""Name of the folder in which something grows that is to be called `name`."""
SCRATCH = "electra-convert-{mark}"
"""Name of a temporary folder."""
MARK = "[0-9a-f]" * 8
"""The random part of these names, as a pattern."""
NEW, OLD, LOCK = "new.partial", "old.partial", "lock"
"""What lies in such a folder: what grows, what it replaces where that takes two renames, and the lock."""
LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
RENAME_EXCHANGE = 2
"""Flag of Linux' `renameat2`: swap two names in one step."""
AT_FDCWD = -100


@contextmanager
def whole_directory(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty directory that becomes `target` when the block ends well, and vanishes when it does not.

    Args:
        target: Where the directory is to appear.
        overwrite: Replace what is there; the old directory goes when the new one is in its place.

    Raises:
        OutputExistsError: Something is there and is not to be replaced.
        DiskSpaceError: The disk is full.
        OutputError: The target cannot be written for another reason.
    """
    with _told(target), _parents_of(target), _staging(target) as folder:
        staged = folder / NEW
        staged.mkdir()
        yield staged
        sync_tree(staged)
        _publish(staged, target, overwrite=overwrite)
        sync_path(target.parent)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new temporary folder, which is removed at the end; those that killed runs left are removed, too.

    Raises:
        OSError: It cannot be made.
    """
    parent = Path(tempfile.gettempdir())
    _remove_abandoned(parent, SCRATCH.format(mark=MARK))
    with _held(lambda mark: parent / SCRATCH.format(mark=mark)) as folder:
        inside = folder / NEW
        inside.mkdir()
        yield inside


def require_space(target: Path, needed: int) -> None:
    """Check that `target` can be written, and that its disk has room.

    Raises:
        OutputError: It lies in a file, or where one may not write.
        DiskSpaceError: The disk has too little room.
    """
    with _told(target):
        with suppress(FileNotFoundError, NotADirectoryError):
            target.lstat()  # tells of names that are too long, and of directories one may not search
        existing = next(path for path in (target.absolute(), *target.absolute().parents) if os.path.lexists(path))
        existing.stat()  # tells of links that lead nowhere
        if not existing.is_dir():
            raise OutputError(f"{existing} is a file, not a directory", hint="choose another OUT")
        if not os.access(existing, os.W_OK | os.X_OK):
            code = errno.EROFS if os.statvfs(existing).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(code, os.strerror(code))
        free = shutil.disk_usage(existing).free
    if free < needed:
        raise DiskSpaceError(
            f"{target} needs {in_bytes(needed)}, but its disk has {in_bytes(free)} free",
            hint="free some space, choose another disk, fewer heads (--head) or formats (--to), or one backbone for "
            "all heads (--layout shared)",
        )


def in_bytes(count: float) -> str:
    """Return a number of bytes as a person writes it: `1.34 GB`."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = max(0, min(len(units) - 1, (len(str(round(count))) - 1) // 3))
    scaled = count / 1000**power
    decimals = 0 if not power or scaled >= 100 else 1 if scaled >= 10 else 2  # three digits in all
    return f"{scaled:.{decimals}f} {units[power]}"


def sync_tree(directory: Path) -> None:
    """Sync every directory of a tree; the files in it are synced already."""
    for folder, _, _ in os.walk(directory):
        sync_path(Path(folder))


def sync_path(path: Path) -> None:
    """Sync a file, or a directory, so that the names in it survive a crash; some disks cannot sync directories."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def write_document(path: Path, content: bytes) -> None:
    """Write a small new file, synced to disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_document(path: Path, content: bytes) -> None:
    """Write a small file, synced to disk, in place of what is there: whole or not at all.

    Raises:
        DiskSpaceError: The disk is full.
        OutputError: It cannot be written for another reason.
    """
    with replacing(path) as beside:
        write_document(beside, content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new path, for a file that takes the place of `path` when the block ends well.

    Raises:
        DiskSpaceError: The disk is full.
        OutputError: It cannot be written for another reason.
    """
    with _told(path), _staging(path) as folder:
        yield folder / NEW
        (folder / NEW).replace(path)
        sync_path(path.parent)


def write_report(path: Path, text: str) -> None:
    """Write a report, in place of what is there; the directories above it are made.

    A link is followed. To a pipe or a device it is written, as a shell does it, and to a file that is this process's
    stdout or stderr too.

    Raises:
        OutputError: It cannot be written; the subclass says if the disk is full.
    """
    with _told(path):
        if (stream := _stream_to(path)) is not None:
            stream.write(text)
            return
        if path.exists() and not path.is_file():
            path.write_text(text, "utf-8")
            return
    place = Path(os.path.realpath(path))
    make_directory(place.parent)
    replace_document(place, text.encode())


def _stream_to(path: Path) -> TextIO | None:
    """Return this process's stdout or stderr, if it goes to what a path names."""
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        with suppress(OSError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return stream
    return None


def make_directory(directory: Path) -> None:
    """Make a directory and those above it, where they are not there.

    Raises:
        OutputError: It cannot be made; the subclass says if the disk is full.
    """
    with _told(directory):
        directory.mkdir(parents=True, exist_ok=True)


@contextmanager
def _parents_of(target: Path) -> Iterator[None]:
    """Make the directories above `target`; remove those that hold nothing in the end."""
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)  # another run may need it, too
            sync_path(parent.parent)
        yield
    finally:
        for parent in missing:
            with suppress(OSError):  # it holds something by now
                parent.rmdir()


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; remove it at the end, and now all that nobody holds there any more."""
    clear_abandoned(target.parent)
    with _held(lambda mark: target.parent / STAGING.format(name=target.name, mark=mark)) as folder:
        yield folder


@contextmanager
def _held(place: Callable[[str], Path]) -> Iterator[Path]:
    """Make a folder, whose place follows from its mark, and hold it; remove it at the end."""
    folder, lock = place(secrets.token_hex(4)), None
    try:
        while lock is None:
            folder.mkdir(0o700)
            if (lock := _lock(folder)) is None:
                folder = place(secrets.token_hex(4))  # the first may still be in the hands of who clears it away
        yield folder
    finally:
        try:
            _clear(folder)
        finally:
            _clear(folder)  # the rest of it, where Ctrl-C came in the middle
            if lock is not None:
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """Return the lock of a new folder, to be closed; nothing if another run took the folder for abandoned."""
    try:
        lock = os.open(folder / LOCK, LOCK_FLAGS, 0o600)
    except FileNotFoundError:
        return None
    with suppress(OSError):  # this disk has no locks; nothing is ever taken for abandoned there
        fcntl.flock(lock, fcntl.LOCK_EX)
    if _is_at(folder / LOCK, lock):
        return lock
    os.close(lock)
    return None


def _is_at(path: Path, descriptor: int) -> bool:
    """Say whether a path leads to an open file, and not to none, or to another by now."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def clear_abandoned(parent: Path) -> None:
    """Remove what killed runs left in a folder, and put back what they were about to replace."""
    _remove_abandoned(parent, STAGING.format(name="*", mark=MARK))


def _remove_abandoned(parent: Path, pattern: str) -> None:
    folders: list[Path] = []
    with suppress(OSError):  # no such name can be, or one may not look
        folders += parent.glob(pattern)
    for folder in folders:
        with suppress(OSError):
            if folder.is_symlink():
                continue
            lock = os.open(folder / LOCK, LOCK_FLAGS, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _clear(folder)
            finally:
                os.close(lock)


def _clear(folder: Path) -> None:
    """Remove a folder with all in it, but for what it was to replace where nothing is in its place yet."""
    if os.path.lexists(folder / OLD):
        name = folder.name.removeprefix(".").rsplit(".", 2)[0]
        if not os.path.lexists(folder.with_name(name)):
            (folder / OLD).rename(folder.with_name(name))
    shutil.rmtree(folder, ignore_errors=True)


def _publish(staged: Path, target: Path, *, overwrite: bool) -> None:
    try:
        if overwrite and os.path.lexists(target):
            _exchange(staged, target)
        else:
            staged.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise exists_error([target]) from error
        raise


def exists_error(targets: list[Path]) -> OutputExistsError:
    """Return the error that says that targets are there already."""
    return OutputExistsError(
        f"{len(targets)} outputs exist already" if len(targets) > 1 else f"{targets[0]} exists already",
        problems=[str(target) for target in targets] if len(targets) > 1 else (),
        hint="choose another OUT, or replace what is there with --overwrite (in a plan, overwrite: true)",
    )


def _exchange(staged: Path, target: Path) -> None:
    """Swap two names in one step where the system can, in two renames where it cannot."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        names = (AT_FDCWD, os.fsencode(staged), AT_FDCWD, os.fsencode(target))
        if library.renameat2(*names, RENAME_EXCHANGE) == 0:
            return
    except (OSError, AttributeError):
        pass  # no such library or function: not Linux, or an old one
    target.rename(staged.with_name(OLD))
    staged.rename(target)


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """Turn what the system says about a target into one of our errors."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error  # HDF5 says more, but names what will be gone
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskSpaceError(
                f"the disk of {target} is full: {reason}",
                hint="free some space, or choose another disk",
            ) from error
        raise OutputError(
            f"{target} cannot be written: {reason}",
            hint="choose an OUT where you may write",
        ) from error
