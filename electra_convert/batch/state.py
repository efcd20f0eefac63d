"""What a batch has finished, by content: the state file that makes running it again cheap.

A line of JSON for each finished job. Its key is a hash of all that decides the result, so that a changed checkpoint,
option, config or version of this package is a new job. Lines are only ever added, each in one write, so that several
batches may share a file, and a line that a killed run left unfinished is no job.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from electra_convert.batch.jobs import Job
from electra_convert.errors import OutputError
from electra_convert.remote.place import is_url


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
            OutputError: It cannot be read.
        """
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise OutputError(
                f"the state file {self.path} cannot be read: {error.strerror}", hint="choose another with --state"
            ) from error
        found = {}
        for line in lines:
            try:
                job = msgspec.json.decode(line, type=Finished)
            except msgspec.DecodeError:
                continue  # a killed run's last words: that job is done again
            found[job.key] = job
        return found

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
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(self._break(file.seek(0, os.SEEK_END)) + msgspec.json.encode(job) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"the state file {self.path} cannot be written: {error.strerror}", hint="choose another with --state"
            ) from error

    def _break(self, size: int) -> bytes:
        """Return what ends a line that a killed run left unfinished."""
        if not size:
            return b""
        with self.path.open("rb") as file:
            file.seek(size - 1)
            return b"" if file.read(1) == b"\n" else b"\n"
