"""The cache: a file elsewhere is downloaded once.

It lies under its URL and its identity, which is what its file system tells of its content (an ETag, a hash, a
generation; a time where there is nothing better), so that a file that changed is downloaded again. A download grows
under another name, is synced, and takes its place when it is complete: what has a file's name is the whole file. The
cache holds nothing else, and may be deleted whenever nothing runs.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import msgspec

from electra_convert.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    DiskSpaceError,
    OutputError,
    SourceError,
)
from electra_convert.output import in_bytes, make_directory, sync_path
from electra_convert.progress import Advance, Progress, no_progress
from electra_convert.remote.place import CHUNK, RESUME_HINT, Remote, Seen, is_safe, stream, told

CACHE_VARIABLE = "ELECTRA_CONVERT_CACHE"
SYNCED = 1 << 23
"""Bytes of a download that are synced at once. What a crash leaves beyond the last but one may not be what was sent."""
MIRRORED = 3
"""Folders, from a mirror up, that have the names of those they stand for: as far up as a vocabulary may lie."""


def cache_folder() -> Path:
    """Return the folder in which downloads are kept: `$ELECTRA_CONVERT_CACHE`, or `electra-convert` in the user's."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "electra-convert"


class _Wanted(msgspec.Struct, frozen=True):
    """A file that is to be here.

    Args:
        remote: Where it is.
        seen: What its file system tells of it.
        target: Where it is to be: in the cache, or that of what reads its file system, if it would be known again.
    """

    remote: Remote
    seen: Seen
    target: Path

    @property
    def here(self) -> bool:
        """Whether it is downloaded already; only a file in the cache has the name of its identity."""
        return self.target.is_file()

    @property
    def variable(self) -> str:
        """What is set to have it elsewhere."""
        if self.seen.kept:
            return "HF_HUB_CACHE"
        return CACHE_VARIABLE if self.seen.identity else "TMPDIR"


def fetch(files: Mapping[Path, Remote], progress: Progress = no_progress) -> None:
    """Let paths lead to the content of files elsewhere; what is in the cache is not downloaded again.

    Args:
        files: The files, by the path that is to lead to each; nothing may be there.
        progress: Shows progress.

    Raises:
        SourceError: One is not there, cannot be read, or is not what was announced.
        DiskSpaceError: The disk of the cache has no room.
        OutputError: The cache cannot be written.
    """
    wanted = {path: _wanted(remote, path) for path, remote in files.items()}
    missing = {each.target: each for each in wanted.values() if not each.here}
    _require_space(missing.values())
    kept = [each for each in missing.values() if each.seen.kept]
    ours = [each for each in missing.values() if not each.seen.kept]
    for each in kept:
        with told(each.remote):
            each.remote.fs.keep(each.remote.path)
    if ours:
        with progress("downloading", sum(each.seen.size or 0 for each in ours)) as advance:
            for each in ours:
                _download(each, advance)
    for path, each in wanted.items():
        if path != each.target:
            path.symlink_to(each.target)


def _wanted(remote: Remote, path: Path) -> _Wanted:
    seen = remote.look()
    if seen is None:
        raise CheckpointNotFoundError(f"there is nothing at {remote}", hint="check the address")
    if seen.kept:
        return _Wanted(remote, seen, seen.kept)
    if seen.identity is None:  # it would not be known again
        return _Wanted(remote, seen, path)
    folder = cache_folder().absolute() / _digest(remote.url)
    return _Wanted(remote, seen, folder / _digest(seen.identity))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _require_space(missing: Iterable[_Wanted]) -> None:
    """Make the folders of downloads, and check that their disks have room for all of them."""
    needed: Counter[int] = Counter()
    for each in missing:
        folder = each.target.parent
        make_directory(folder)
        disk = folder.stat().st_dev
        needed[disk] += each.seen.size or 0
        free = shutil.disk_usage(folder).free
        if free < needed[disk]:
            raise DiskSpaceError(
                f"{each.remote} and what else is downloaded has {in_bytes(needed[disk])}, "
                f"but {folder.parent} has {in_bytes(free)} free",
                hint=f"free some space, or set {each.variable} to a folder on a larger disk",
            )


def _download(wanted: _Wanted, advance: Advance) -> None:
    """Download a file; while another process does, wait for it."""
    partial = wanted.target.with_name(f"{wanted.target.name}.partial")
    with _cache_told(partial), _locked(partial.parent):
        if wanted.here:
            advance(wanted.seen.size or 0)
            return
        with partial.open("ab") as file:
            _go_on(wanted, file, advance)
            sync(file)
        _require_whole(wanted, partial)
        partial.replace(wanted.target)
        sync_path(partial.parent)


def _go_on(wanted: _Wanted, file: BinaryIO, advance: Advance) -> None:
    """Write the rest of a file to what is there of it."""
    kept = max(0, file.tell() // SYNCED - 1) * SYNCED if wanted.seen.identity else 0
    with stream(wanted.remote, wanted.seen, kept) as (chunks, begin):
        file.truncate(begin)
        file.seek(begin)
        advance(begin)
        for data in chunks:
            file.write(data)
            advance(len(data))
            if file.tell() // SYNCED > (file.tell() - len(data)) // SYNCED:
                sync(file)
            if wanted.seen.size is not None and file.tell() > wanted.seen.size:
                break


def sync(file: BinaryIO) -> None:
    """Write what was given to a file to its disk."""
    file.flush()
    os.fsync(file.fileno())


def _require_whole(wanted: _Wanted, partial: Path) -> None:
    """Compare a download with what was announced. What broke off is kept, to go on with; what is wrong is not."""
    remote, seen = wanted.remote, wanted.seen
    size = partial.stat().st_size
    if seen.size is not None and size < seen.size:
        raise SourceError(f"{remote} broke off after {size} of {seen.size} bytes", hint=RESUME_HINT)
    fault = ""
    if seen.size is not None and size > seen.size:
        fault = f"has more than the {seen.size} bytes that were announced"
    elif seen.checksum and digest_of(partial, seen.checksum[0]) != seen.checksum[1]:
        fault = f"is not what was announced: its {seen.checksum[0]} is another"
    elif seen.identity and (now := remote.look()) and now.identity != seen.identity:
        fault = "changed while it was downloaded"
    if fault:
        partial.unlink()
        raise CorruptCheckpointError(f"{remote} {fault}", hint="run it again")


def digest_of(path: Path, algorithm: str) -> bytes:
    """Return the `md5` or `crc32c` of a file."""
    with path.open("rb") as file:
        if algorithm == "md5":
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
        from google_crc32c import Checksum

        checksum = Checksum()
        for _ in checksum.consume(file, CHUNK):
            pass
        return bytes(checksum.digest())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep others from a folder; what they wait for is there when they get it. The lock dies with its process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # this disk has no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _cache_told(path: Path) -> Iterator[None]:
    """Turn what the system says about the cache into one of our errors."""
    try:
        yield
    except OSError as error:
        kind = DiskSpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else OutputError
        raise kind(
            f"what is downloaded cannot be kept in {path.parent}: {error.strerror or error}",
            hint=f"set {CACHE_VARIABLE} to a folder on a disk with room, where you may write",
        ) from error


@dataclass(frozen=True)
class Mirror:
    """A folder here that stands for one elsewhere, so that what is known of folders holds for both.

    Args:
        folder: The folder elsewhere.
        root: An empty folder, which holds the mirror and what is above it.
    """

    folder: Remote
    root: Path

    @cached_property
    def path(self) -> Path:
        """The mirror; it and the two folders above it are called as those elsewhere."""
        path = self.root.joinpath(*list(filter(is_safe, self.folder.names))[-MIRRORED:])
        path.mkdir(parents=True, exist_ok=True)
        return path

    def list(self) -> bool:
        """Make an empty file or folder for each that is there; return whether anything is known to be."""
        names = self.folder.listed()
        for name, is_folder in names.items():
            path = self.path / name
            path.mkdir(exist_ok=True) if is_folder else path.touch()
        return bool(names)

    def place(self, path: Path) -> bool:
        """Make a file of the right size, and no content, if its like is there; return whether it is."""
        seen = self._remote(path).look()
        if seen is None or seen.is_folder:
            return False
        with _cache_told(path):
            path.touch()
            os.truncate(path, seen.size or 0)
        return True

    def fill(self, paths: Iterable[Path], progress: Progress = no_progress) -> None:
        """Download the content of files; see `fetch` for what can go wrong."""
        files = {path: self._remote(path) for path in paths}
        for path in files:
            path.unlink(missing_ok=True)
        fetch(files, progress)

    def _remote(self, path: Path) -> Remote:
        """Return what a path in the mirror, or above it, stands for."""
        remote = self.folder
        for step in Path(os.path.relpath(path, self.path)).parts:
            remote = remote.parent if step == os.pardir else remote.child(step)
        return remote
