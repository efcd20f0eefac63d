"""A process for all broken inputs of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hostile.corpus import Case, Outcome, Runner, running


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """Run commands in a process of their own each."""
    with running() as runner:
        yield runner


@pytest.fixture
def refused(runner: Runner, tmp_path: Path) -> Callable[[Case], Outcome]:
    """Make the input of a case, run its command, and check that it is refused as it must be."""

    def run(case: Case) -> Outcome:
        folder = tmp_path / "work"
        folder.mkdir()
        case.make(folder)
        outcome = runner.run(case.command, folder)
        outcome.require_refused(case.words)
        return outcome

    return run
