"""Files that are read whole: such as are files, and no larger than they may be."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

NAME_LIMIT = 255
"""Bytes of a file's name (`NAME_MAX` of Linux and macOS)."""


def read_whole(path: Path, most: int) -> bytes:
    """Return the content of a file.

    Args:
        path: The file.
        most: Bytes it may have.

    Raises:
        OSError: It cannot be read, is no file, or is larger; `strerror` says which.
    """
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes, the most that is read", str(path))
    return content


def open_file(path: Path) -> BufferedReader:
    """Open a file to read it. Pipes, sockets and devices are refused, for they may never end, or never begin.

    Raises:
        OSError: It cannot be opened, or is no file; `strerror` says which.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115  # the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file", str(path))
    return file


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to would keep one waiting."""
    return os.open(path, flags | os.O_NONBLOCK)
