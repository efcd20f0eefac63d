"""What a batch did: plain data, for the terminal, JSON and HTML alike."""

from __future__ import annotations

from typing import Literal

import msgspec

from electra_convert.hub.upload import RepoReport
from electra_convert.inventory import Part

Stage = Literal["converting", "verifying", "copying", "uploading"]
Outcome = Literal["done", "already done", "failed", "interrupted", "planned"]
"""`already done`: the state file has it. `interrupted`: it was stopped, or never begun. `planned`: in a dry run."""


class ModelResult(msgspec.Struct, frozen=True, kw_only=True):
    """One directory that a job wrote.

    Args:
        directory: Where it is; empty if it was copied elsewhere.
        part: The part.
        head: The head.
        note: What to know about the head.
        status: The verdict on it; `not verified` where none was asked for.
        verdict: The verdict in a sentence.
    """

    directory: str
    part: Part
    head: str
    note: str
    status: str
    verdict: str = ""


class JobReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one job.

    Args:
        id: What it is called.
        source: The checkpoint.
        output: Where it went.
        outcome: What became of it.
        stage: Where it failed.
        error: Why it failed, in one message that may have several lines.
        models: The directories it wrote.
        copied: Files that were copied to a URL.
        repos: What was published.
        places: Where it was published by an earlier run, or would be by a dry run's.
        notes: What else a user should know.
        seconds: How long it took.
    """

    id: str
    source: str
    output: str
    outcome: Outcome
    stage: Stage | None = None
    error: str = ""
    models: tuple[ModelResult, ...] = ()
    copied: tuple[str, ...] = ()
    repos: tuple[RepoReport, ...] = ()
    places: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


class BatchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch did.

    Args:
        plan: Name of the plan.
        electra_convert: Version of this package.
        shard: Which shard of the jobs this was: `2/4`; empty for all.
        dry_run: Nothing was done.
        jobs: Each job, in the order of the plan.
        seconds: How long it took.
    """

    plan: str
    electra_convert: str
    shard: str
    dry_run: bool
    jobs: tuple[JobReport, ...]
    seconds: float

    def count(self, outcome: Outcome) -> int:
        """Count the jobs with this outcome."""
        return sum(job.outcome == outcome for job in self.jobs)

    @property
    def failed(self) -> tuple[JobReport, ...]:
        """The jobs that failed."""
        return tuple(job for job in self.jobs if job.outcome == "failed")
