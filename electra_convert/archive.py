"""Archives from anywhere: what is wanted of them is unpacked, and nothing beyond what they declare."""

from __future__ import annotations

import errno
import gzip
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

import msgspec

from electra_convert.errors import CorruptCheckpointError, DiskSpaceError
from electra_convert.output import in_bytes
from electra_convert.progress import Advance, Progress
from electra_convert.whole_file import NAME_LIMIT, open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Limit = Callable[[str], float]

CHUNK = 1 << 20
MOST_MEMBERS = 2_000
"""Files in an archive; that of a training run has hundreds."""
MOST_DEPTH = 32
"""Folders within one another in an archive."""
MOST_HEADERS = 1 << 24
"""Bytes of an archive that say what is in it."""
MOST_MEMBER_HEADERS = 1 << 16
"""Bytes of a tar that describe one member."""
MOST_DIRECTORY = 1 << 21
"""Bytes of a zip's central directory, which is read at once."""
MOST_RECORDS = 64
"""Records that extend the header of a tar's member."""
LONG_NUMBER = re.compile(rb"[0-9]{65}")
"""No header has one, with which `tarfile` of Python before 3.11.10 would take as long as the square of its length."""
MOST_PADDING = 1 << 20
"""Zeros at the end of a tar."""
GZIP_MAGIC = b"\x1f\x8b"
MOST_DEFLATED = 1032
"""Times its size that deflated data can become (zlib's technical details)."""
LOCAL_HEADER_SIZE = 30
"""Least bytes of a zip before the data of each member."""
ENCRYPTED = 1
"""Flag of a zip's member."""
UNPACKING_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,  # a kind of compression that zipfile does not know
    OverflowError,  # an offset that no file has
    RuntimeError,  # a member that is encrypted, or headers within headers
    IndexError,  # a header of a tar that ends too soon
)


class _Member(msgspec.Struct, frozen=True):
    """A file, or something like a file, in an archive.

    Args:
        name: Its path in the archive.
        size: Bytes it is said to have.
        open: Returns its content.
        oddity: What is odd about it, if that alone is a reason not to unpack it.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]
    oddity: str = ""

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.name)

    def fault(self, most: float) -> str:
        """Say why it must not be unpacked, if there is a reason; `most` are the bytes that it may have."""
        if self.oddity:
            return self.oddity
        parts = self.path.parts
        if self.path.is_absolute() or ".." in parts or "\0" in self.name:
            return "lies outside the folder"
        if len(parts) > MOST_DEPTH or any(len(os.fsencode(part)) > NAME_LIMIT for part in parts):
            return "lies in too many folders, or has too long a name"
        if not 0 <= self.size <= most:
            return f"is said to have {self.size} bytes, which no such file has"
        return ""


def unpack(archive: Path, folder: Path, *, limit: Limit, progress: Progress) -> None:
    """Unpack the files that are wanted, and nothing else.

    Args:
        archive: A zip, or a tar that may be deflated.
        folder: Where to.
        limit: Returns the bytes that a file of some name may have: none, if it is not wanted.
        progress: Shows progress.

    Raises:
        CorruptCheckpointError: The archive is damaged, or a file in it is not what an archive of a checkpoint holds.
        DiskSpaceError: There is no room.
    """
    total = 0
    try:
        with _members(archive) as members:
            wanted = _wanted(members, limit, archive, folder)
            _require_safe(wanted, limit, archive)
            total = sum(member.size for member in wanted)
            with progress("unpacking", total) as advance:
                for member in wanted:
                    _copy(member, folder / member.path, advance)
    except UNPACKING_ERRORS as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _require_space(folder, total, archive)
        why = (isinstance(error, OSError) and error.strerror) or error
        raise CorruptCheckpointError(
            f"cannot unpack {archive}: {why}", hint="download it again, or unpack it yourself"
        ) from error


def _wanted(members: Iterable[_Member], limit: Limit, archive: Path, folder: Path) -> list[_Member]:
    """Return the members that are wanted, as soon as it is clear that there is room for them."""
    wanted = []
    needed = 0
    for count, member in enumerate(members, 1):
        if count > MOST_MEMBERS:
            raise ValueError(f"it has more than {MOST_MEMBERS} files")
        if limit(member.path.name):
            wanted.append(member)
            needed += max(0, member.size)
            _require_space(folder, needed, archive)
    return wanted


def _require_safe(members: Sequence[_Member], limit: Limit, archive: Path) -> None:
    counts = Counter(member.path for member in members)
    faults = [(member.name, member.fault(limit(member.path.name))) for member in members]
    problems = [f"{name[:NAME_LIMIT]!r} {fault}" for name, fault in faults if fault]
    problems += [f"{str(path)!r} is there {count} times" for path, count in counts.items() if count > 1]
    problems += [f"{str(path)!r} lies in a file" for path in counts if not counts.keys().isdisjoint(path.parents)]
    if problems:
        raise CorruptCheckpointError(
            f"{archive} holds what no archive of a checkpoint does", problems=problems, hint="do not trust it"
        )


def _require_space(folder: Path, needed: int, archive: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskSpaceError(
            f"{archive} unpacks to {in_bytes(needed)}, but {tempfile.gettempdir()} has {in_bytes(free)} free",
            hint="free some space, or set TMPDIR to a folder on a larger disk",
        )


def _copy(member: _Member, path: Path, advance: Advance) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = member.open()
    if stream is None:
        raise tarfile.ReadError(f"{member.name} has no content")
    copied = 0
    with stream, path.open("xb") as file:
        while chunk := stream.read(min(CHUNK, member.size + 1 - copied)):
            copied += len(chunk)
            if copied > member.size:
                break
            file.write(chunk)
            advance(len(chunk))
    if copied != member.size:
        more_or_less = "more" if copied > member.size else "less"
        raise tarfile.ReadError(f"{member.name} has {more_or_less} than the {member.size} bytes it declares")


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    with open_file(archive) as file:
        is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        if archive.suffix.lower() == ".zip":
            headers = _Headers(file, most=MOST_HEADERS, in_turn=MOST_DIRECTORY)
            with zipfile.ZipFile(cast("IO[bytes]", headers)) as pack:
                headers.limited = False
                yield _in_zip(pack)
        else:
            with gzip.GzipFile(fileobj=file) if is_gzip else nullcontext(file) as unzipped:
                headers = _Headers(
                    cast("IO[bytes]", unzipped), most=MOST_HEADERS, in_turn=MOST_MEMBER_HEADERS, forbidden=LONG_NUMBER
                )
                most = os.fstat(file.fileno()).st_size * (MOST_DEFLATED if is_gzip else 1)
                with tarfile.open(fileobj=cast("IO[bytes]", headers), mode="r:") as tar:
                    yield _in_tar(tar, headers, most)


class _Headers:
    """A file of which only headers are read, until the limit is lifted.

    What an archive says of its members is read at once, as much of it as the archive says there is.

    Args:
        file: The file.
        most: Bytes that may be read.
        in_turn: Bytes that may be read before the next call of `next_turn`.
        forbidden: What must not be in them.
    """

    def __init__(self, file: IO[bytes], *, most: int, in_turn: int, forbidden: re.Pattern[bytes] | None = None) -> None:
        self._file = file
        self._left = most
        self._forbidden = forbidden
        self._in_turn = self._left_in_turn = in_turn
        self.limited = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def next_turn(self) -> None:
        """Begin with the headers of another member."""
        self._left_in_turn = self._in_turn

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes; the rest, if there are fewer or the size is negative."""
        if not self.limited:
            return self._file.read(size)
        allowed = min(self._left, self._left_in_turn)
        if size > allowed:
            raise ValueError(f"a header at byte {self._file.tell()} is larger than any")
        content = self._file.read(allowed if size < 0 else size)
        if self._forbidden and self._forbidden.search(content):
            raise ValueError(f"a header before byte {self._file.tell()} has a number that is longer than any")
        self._left -= len(content)
        self._left_in_turn -= len(content)
        return content


def _in_zip(pack: zipfile.ZipFile) -> Iterator[_Member]:
    free = 0
    for info in sorted(pack.infolist(), key=lambda info: info.header_offset):
        oddity = _oddity_in_zip(info, free)
        free = info.header_offset + LOCAL_HEADER_SIZE + info.compress_size
        if not info.filename.endswith("/"):
            yield _Member(info.filename, info.file_size, partial(pack.open, info), oddity)


def _oddity_in_zip(info: zipfile.ZipInfo, free: int) -> str:
    """Say what is odd about a member; those before it end where `free` begins."""
    kind = stat.S_IFMT(info.external_attr >> 16)  # archives made on Windows do not say
    if kind not in (0, stat.S_IFREG):
        return "is a link or a device"
    if info.flag_bits & ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {info.compress_type}; only deflate (8) is read"
    return "overlaps another" if info.header_offset < free else ""


def _in_tar(tar: tarfile.TarFile, headers: _Headers, most: int) -> Iterator[_Member]:
    for info in tar:
        name = repr(info.name[:NAME_LIMIT])
        if info.size > most:
            raise ValueError(f"{name} is said to have {info.size} bytes, more than can be in the archive")
        if len(info.pax_headers) > MOST_RECORDS:
            raise ValueError(f"the header of {name} is extended by {len(info.pax_headers)} records")
        if not info.isdir():
            oddity = "is sparse" if info.issparse() else "" if info.isreg() else "is a link or a device"
            yield _Member(info.name, info.size, partial(tar.extractfile, info), oddity)
        headers.next_turn()
    headers.limited = False
    if len(headers.read(MOST_PADDING + 1)) > MOST_PADDING:  # to its end, where the checksum of a gzip is
        raise ValueError("it goes on after the end of the archive")
