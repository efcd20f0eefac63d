"""What a batch has finished, by content: the state file that makes running it again cheap.

A line of JSON for each finished job. Its key is a hash of all that decides the result, so that a changed checkpoint,
option, config or version of this package is a new job. Lines are only ever added, each in one write, so that several
batches may share a file, and a line that a killed run left unfinished is no job: the next that is added replaces it.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

from electra_convert.batch.jobs import Job
from electra_convert.errors import OutputError
from electra_convert.remote.place import is_url
from electra_convert.whole_file import read_whole

LARGEST = 1_000_000_000
"""Bytes of a state file; a job takes some hundreds."""
BEGINNING = b'{"key":"'
"""What each line begins with."""
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON that is wrong raises."""


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was finished.

    Args:
        key: The hash of all that decided its result.
        job: What it was called.
        outputs: Its directories; none, if they were copied elsewhere.
        places: Where it was published: `org/name at step-30`.
    """

    key: str
    job: str
    outputs: tuple[str, ...]
    places: tuple[str, ...]

    def holds(self, job: Job) -> bool:
        """Say whether the job need not be done again: it is published, copied, or still in its place."""
        return job.upload is not None or is_url(job.output) or all(Path(path).is_dir() for path in self.outputs)

    def wrote(self, job: Job) -> bool:
        """Say whether this is an earlier run of a job, with other options say, which wrote to the same output."""
        return self.job == job.id and any(Path(path).is_relative_to(job.output) for path in self.outputs)


class StateFile:
    """A state file.

    Args:
        path: Where it is; it is made with the first job that is finished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Finished]:
        """Return the finished jobs by their keys.

        Raises:
            OutputError: It cannot be read, or is no state file.
        """
        try:
            *lines, last = read_whole(self.path, LARGEST).split(b"\n")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise OutputError(
                f"the state file {self.path} cannot be read: {error.strerror}", hint="choose another with --state"
            ) from error
        if last and not _is_broken_off(last):
            lines.append(last)
        jobs = (self._job(number, line) for number, line in enumerate(lines, 1))
        return {job.key: job for job in jobs}

    def _job(self, number: int, line: bytes) -> Finished:
        try:
            return msgspec.json.decode(line, type=Finished)
        except UNREADABLE as error:
            raise OutputError(
                f"line {number} of {self.path} is no line of a state file: {error}",
                hint="if this is a state file, remove that line; if not, choose another with --state",
            ) from error

    def check(self) -> None:
        """Check that it can be read and written.

        Raises:
            OutputError: It cannot.
        """
        self.read()
        existing = self.path if self.path.exists() else next(each for each in self.path.parents if each.exists())
        if not os.access(existing, os.W_OK):
            raise OutputError(f"the state file {self.path} cannot be written", hint="choose another with --state")

    def add(self, job: Finished) -> None:
        """Note that a job is finished, synced to disk.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                with suppress(OSError):  # this disk has no locks
                    fcntl.flock(file, fcntl.LOCK_EX)
                file.write(_end_last_line(file) + msgspec.json.encode(job) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"the state file {self.path} cannot be written: {error.strerror}", hint="choose another with --state"
            ) from error


def _is_broken_off(line: bytes) -> bool:
    """Say whether this is the beginning of a line, and not all of it: the last words of a killed run."""
    if not (line.startswith(BEGINNING) or BEGINNING.startswith(line)):
        return False
    try:
        msgspec.json.decode(line)
    except UNREADABLE:
        return True
    return False


def _end_last_line(file: IO[bytes]) -> bytes:
    """Return what ends the last line, if it lacks its end; one that a killed run left unfinished is removed."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return b""
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return b""
    file.seek(0)
    last = file.read().rpartition(b"\n")[2]
    if not _is_broken_off(last):
        return b"\n"
    file.truncate(size - len(last))
    return b""
