"""What a batch and its workers say to one another, a line of JSON each."""

from __future__ import annotations

import msgspec

from electra_convert.batch.jobs import Job
from electra_convert.batch.report import JobReport, Stage


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A job to do.

    Args:
        job: The job.
        fresh: Do it whatever the state file says.
    """

    job: Job
    fresh: bool = False

    def encode(self) -> bytes:
        """Return it as a line."""
        return msgspec.json.encode(self, enc_hook=str)

    @classmethod
    def decode(cls, line: bytes) -> Request:
        """Read it from a line."""
        return msgspec.json.decode(line, type=cls, dec_hook=lambda kind, value: kind(value))


class Event(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """What a job is at.

    Args:
        stage: The stage it has come to; none, if it waits for something.
        says: More about it.
    """

    stage: Stage | None = None
    says: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """What became of a job."""

    report: JobReport


def encode(message: Event | Answer) -> bytes:
    """Return what a worker says as a line."""
    return msgspec.json.encode(message, enc_hook=str)


def decode(line: bytes) -> Event | Answer:
    """Read what a worker says from a line."""
    return msgspec.json.decode(line, type=Event | Answer, dec_hook=lambda kind, value: kind(value))
