"""How a batch tells that it moves on."""

from __future__ import annotations

from typing import Protocol

from electra_convert.batch.report import JobReport, Stage


class Watch(Protocol):
    """Is told what becomes of the jobs of a batch; from any thread."""

    def started(self, job: str) -> None:
        """Hear that a job begins."""

    def stage(self, job: str, stage: Stage, detail: str = "") -> None:
        """Hear what a job is doing.

        Args:
            job: The job.
            stage: What it is doing.
            detail: With what: `PyTorch`, `org/name`.
        """

    def told(self, job: str, text: str) -> None:
        """Hear what a job waits for, until its next stage.

        Args:
            job: The job.
            text: What is waited for, in a sentence.
        """

    def finished(self, report: JobReport) -> None:
        """Hear what became of a job, even of one that was never begun."""


class NoWatch:
    """Show nothing."""

    def started(self, job: str) -> None:
        """Do nothing."""

    def stage(self, job: str, stage: Stage, detail: str = "") -> None:
        """Do nothing."""

    def told(self, job: str, text: str) -> None:
        """Do nothing."""

    def finished(self, report: JobReport) -> None:
        """Do nothing."""
