"""Faults that are planted are found: a crash, a hang, memory, a value that changes, each in a process of its own.

It needs atheris, so it is run by its name: `make test-fuzz`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.campaign import HANG, run
from tests.fuzz.readers import Read
from tests.fuzz.targets import TARGETS, Target

RUNS = 100_000
"""Far more than it takes; a finding ends the run."""


def wait() -> None:
    """Hang."""
    while True:
        pass


def planted(fault: Callable[[], object]) -> Target:
    """Return a reader of messages with a fault behind a few branches, which no seed takes."""

    def prepare(_: Path) -> Read:
        from electra_convert.formats.wire import Message  # after it was instrumented

        def read(data: bytes) -> None:
            message = Message(data)
            if message.parts(5) and message.number(6) > 1000:
                fault()

        return read

    return Target("wire", prepare, TARGETS["wire"].modules)


PLANTED = {
    "crash": planted(lambda: ()[Path.cwd() == Path()]),
    "hang": planted(wait),
    "memory": planted(lambda: bytes(1 << 29)),
}


@pytest.mark.parametrize(
    ("name", "fault"), [("crash", "IndexError"), ("hang", "timeout after"), ("memory", "MemoryError")]
)
def test_planted_faults_are_found(tmp_path: Path, name: str, fault: str) -> None:
    """The input that has the fault is saved."""
    program = ("-m", "tests.fuzz.check_findings", name)
    hang = 1 if name == "hang" else HANG
    outcome = run(PLANTED[name], runs=RUNS, seed=1, program=program, findings=tmp_path, hang=hang)
    assert fault in outcome.fault, outcome
    assert outcome.finding is not None
    assert 0 < outcome.executions < RUNS
    assert outcome.finding.read_bytes()


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    """The figures are those of the run."""
    outcome = run(TARGETS["wire"], runs=1000, seed=1, findings=tmp_path, hang=HANG)
    assert not outcome.fault
    assert outcome.finding is None
    assert outcome.executions == 1000
    assert outcome.edges > 20
    assert 40 < outcome.lines[0] <= outcome.lines[1]


if __name__ == "__main__":
    from tests.fuzz.fuzz_one import fuzz

    fuzz(PLANTED[sys.argv[1]], sys.argv[3:])  # after the name of the target, which all have
