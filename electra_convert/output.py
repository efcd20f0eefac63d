"""Directories that appear whole or not at all.

A directory is written under another name beside its place, synced, and renamed. What a killed run left behind is
recognised by its lock, which died with it, and removed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from electra_convert.errors import DiskSpaceError, OutputError, OutputExistsError

STAGED = ".{name}.{mark}.partial"
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
    with _told(target):
        made = _make_parents(target)
        _remove_abandoned(target)
        staged = target.parent / STAGED.format(name=target.name, mark=secrets.token_hex(4))
        staged.mkdir()
        lock = os.open(staged, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield staged
            sync_tree(staged)
            _publish(staged, target, overwrite=overwrite)
            sync_directory(target.parent)
        finally:
            os.close(lock)
            _remove(staged)
            for parent in made:
                with suppress(OSError):  # it holds something by now
                    parent.rmdir()


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
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
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
        sync_directory(Path(folder))


def sync_directory(directory: Path) -> None:
    """Sync one directory, so that the names in it survive a crash."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
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
    """Yield a new name beside `path`, for a file that takes its place when the block ends well.

    Raises:
        DiskSpaceError: The disk is full.
        OutputError: It cannot be written for another reason.
    """
    beside = path.with_name(STAGED.format(name=path.name.removeprefix("."), mark=secrets.token_hex(4)))
    with _told(path):
        try:
            yield beside
            beside.replace(path)
            sync_directory(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def write_report(path: Path, text: str) -> None:
    """Write a report, in place of what is there; the directories above it are made.

    Raises:
        OutputError: It cannot be written; the subclass says if the disk is full.
    """
    make_directory(path.parent)
    replace_document(path, text.encode())


def make_directory(directory: Path) -> None:
    """Make a directory and those above it, where they are not there.

    Raises:
        OutputError: It cannot be made; the subclass says if the disk is full.
    """
    with _told(directory):
        directory.mkdir(parents=True, exist_ok=True)


def _make_parents(target: Path) -> list[Path]:
    """Create the directories above `target`; return those that were not there, deepest first."""
    missing = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_abandoned(target: Path) -> None:
    for path in target.parent.glob(STAGED.format(name=_escaped(target.name), mark="*")):
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(lock)


def _remove(path: Path) -> None:
    """Remove whatever is there: a directory with all in it, a file, or a link."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _publish(staged: Path, target: Path, *, overwrite: bool) -> None:
    if overwrite and os.path.lexists(target):
        _exchange(staged, target)
        return
    try:
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
    aside = staged.with_name(f"{staged.name}.old")
    target.rename(aside)
    staged.rename(target)
    aside.rename(staged)


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """Turn what the system says about a target into one of our errors."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskSpaceError(
                f"the disk of {target} is full: {error.strerror}",
                hint="free some space, or choose another disk",
            ) from error
        raise OutputError(
            f"{target} cannot be written: {error.strerror or error}",
            hint="choose an OUT where you may write",
        ) from error
