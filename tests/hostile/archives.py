"""Archives that are made to do harm, byte by byte where no library makes them."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.hostile.corpus import FIXTURE

FILES = {f"run/{path.name}": path.read_bytes() for path in sorted(FIXTURE.glob("model.ckpt-30.*"))}
"""What a good archive holds."""
ZIP64 = 0xFFFF_FFFF


def zipped(
    *odd: tuple[str | zipfile.ZipInfo, bytes],
    files: Mapping[str, bytes] = FILES,
    compression: int = zipfile.ZIP_DEFLATED,
) -> bytes:
    """Return a zip of a checkpoint, with odd members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as pack:
        for name, content in (*files.items(), *odd):
            pack.writestr(name, content)
    return file.getvalue()


def tarred(*odd: tuple[tarfile.TarInfo | str, bytes], files: Mapping[str, bytes] = FILES) -> bytes:
    """Return a tar of a checkpoint, with odd members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member, content in (*files.items(), *odd):
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = info.size or len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def as_file(name: str, content: bytes | Callable[[], bytes]) -> Callable[[Path], object]:
    """Make a file."""
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content())


def gzipped(content: bytes) -> bytes:
    """Compress, with no time in the header."""
    return gzip.compress(content, 1, mtime=0)


def link_in_zip() -> bytes:
    """Return a zip with a symbolic link, as Unix stores it."""
    member = zipfile.ZipInfo("run/other.index")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped((member, b"/etc/passwd"))


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, link: str = "") -> tarfile.TarInfo:
    """Return the header of a member."""
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member


def tar_with(kind: bytes) -> Callable[[], bytes]:
    """Return what makes a tar with a member of that type, which would reach out of the folder."""
    return lambda: tarred((tar_member("run/other.index", kind, link="../../etc/passwd"), b""))


def header(name: str, kind: bytes, *, size: int) -> bytes:
    """Return the header of a member as bytes; sizes may be negative or enormous, as GNU tar writes them."""
    block = bytearray(tar_member(name, kind).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size.to_bytes(12, "big", signed=True) if size < 0 else (size | 1 << 95).to_bytes(12, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def extended(records: bytes, name: str = "run/a.index") -> bytes:
    """Return a tar whose only member has an extended header."""
    padding = bytes(-len(records) % 512)
    return header("x", tarfile.XHDTYPE, size=len(records)) + records + padding + tarred((name, b""), files={})


def encrypted_zip() -> bytes:
    """Return a zip whose members say that they are encrypted."""
    data = bytearray(zipped())
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + place] |= 1
            at = data.find(signature, at + 1)
    return bytes(data)


def directory_entry(name: bytes, *, size: int, compressed: int, offset: int, method: int = 8) -> bytes:
    """Return an entry of a zip's central directory; what needs 64 bits goes into the extra field."""
    extra = struct.pack("<HHQQ", 1, 16, size, compressed)
    head = struct.pack(
        "<4s6H3I5H2I",
        *(b"PK\1\2", 45, 45, 0, method, 0, 0, 0, ZIP64, ZIP64, len(name), len(extra), 0, 0, 0, 0, offset),
    )
    return head + name + extra


def zip_of(*entries: bytes, before: bytes = b"", count: int | None = None) -> bytes:
    """Return a zip with that central directory."""
    directory = b"".join(entries)
    number = min(0xFFFF, len(entries) if count is None else count)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, number, number, len(directory), len(before), 0)
    return before + directory + end


def overlapping_zip() -> bytes:
    """Return a zip whose members are all the same bytes, as those of the densest zip bombs."""
    good = zipped()
    end = zipfile.ZipFile(io.BytesIO(good)).start_dir
    names = [b"run/model.ckpt-30.data-%05d-of-00050" % number for number in range(50)]
    return zip_of(
        *(directory_entry(name, size=1 << 20, compressed=1 << 10, offset=0) for name in names), before=good[:end]
    )
