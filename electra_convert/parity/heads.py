"""Run one head after another in every framework, and compare what they compute."""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from electra_convert.errors import OutputError
from electra_convert.formats import TargetFormat
from electra_convert.parity.compare import Comparison, read_outputs
from electra_convert.parity.directories import Directory
from electra_convert.parity.gates import Gates
from electra_convert.parity.probes import Probe, save_probes
from electra_convert.parity.reference import FrameworkReference, Reference
from electra_convert.parity.report import PRECISIONS, Check, Pair, Precision, Run
from electra_convert.parity.worker import Answer, Fault, Job
from electra_convert.parity.workers import Worker
from electra_convert.progress import Advance

AHEAD = 1
"""Heads that are started before one is waited for: no framework is idle, and few outputs lie on disk."""

Wanted = tuple[TargetFormat, Precision]


@dataclass(frozen=True)
class Subject:
    """A directory that is to be run, and what it should compute.

    Args:
        directory: The directory.
        probes: The probes.
        reference: What it is measured against.
        checks: What was found without running it.
        fault: A fault to put into the model's code, for the self-test.
    """

    directory: Directory
    probes: Sequence[Probe]
    reference: Reference
    checks: tuple[Check, ...]
    fault: Fault | None = None


@dataclass(frozen=True)
class Found:
    """What running a directory found; `outputs` are on disk until the next one is asked for."""

    subject: Subject
    runs: tuple[Run, ...]
    pairs: tuple[Pair, ...]
    outputs: Path


def run_heads(
    subjects: Iterable[Subject],
    workers: Mapping[TargetFormat, Worker],
    missing: Sequence[TargetFormat],
    gates: Gates,
    scratch: Path,
    advance: Advance,
    *,
    ahead: int = AHEAD,
) -> Iterator[Found]:
    """Yield what each directory computes, in order.

    Args:
        subjects: The directories.
        workers: A process for each framework that is to run them.
        missing: Frameworks that are wanted, and not installed.
        gates: The gates.
        scratch: A folder for what models compute.
        advance: Is told of each run.
        ahead: Directories that are started before one is waited for.
    """
    pending: deque[_Started] = deque()
    for number, subject in enumerate(subjects):
        pending.append(_start(subject, workers, scratch / str(number)))
        if len(pending) > ahead:
            yield from _finish(pending.popleft(), missing, gates, advance)
    while pending:
        yield from _finish(pending.popleft(), missing, gates, advance)


@dataclass(frozen=True)
class _Started:
    subject: Subject
    folder: Path
    reference: Future[Answer]
    runs: Mapping[Wanted, Future[Answer]]


def _start(subject: Subject, workers: Mapping[TargetFormat, Worker], folder: Path) -> _Started:
    """Submit all that is to be computed for one directory."""
    probes = folder / "probes.npz"
    (folder / "reference").mkdir(parents=True)
    save_probes(probes, subject.probes)
    path, head = subject.directory.path.absolute(), subject.directory.head
    reference = subject.reference.start(path, head, probes, folder / "reference")
    runs = {}
    for framework, precision in _wanted(subject, list(workers)):
        out = folder / f"{framework}-{precision}"
        out.mkdir()
        job = Job(directory=path, head=head, precision=precision, probes=probes, out=out, fault=subject.fault)
        runs[framework, precision] = workers[framework].submit(job)
    return _Started(subject, folder, reference, runs)


def _wanted(subject: Subject, frameworks: Sequence[TargetFormat]) -> Iterator[Wanted]:
    """Yield what is to be run: every format the directory has, but for what is the reference itself."""
    for precision in PRECISIONS:
        for framework in frameworks:
            reference = isinstance(subject.reference, FrameworkReference) and subject.reference.framework == framework
            if framework in subject.directory.formats and not (reference and precision == "float64"):
                yield framework, precision


def _finish(started: _Started, missing: Sequence[TargetFormat], gates: Gates, advance: Advance) -> Iterator[Found]:
    """Wait for one directory, compare, and clean up."""
    subject = started.subject
    reference = _answer(started.reference)
    runs = {}
    for (framework, precision), future in started.runs.items():
        answer = _answer(future)
        folder = started.folder / f"{framework}-{precision}"
        error = reference.error and f"there is nothing to compare with: {reference.error}"
        runs[framework, precision] = _run(
            framework, precision, error or answer.error, folder, subject.probes, gates=gates
        )
        advance(1)
    lacking = [framework for framework in missing if framework in subject.directory.formats]
    absent = [
        Run(framework=framework, precision=precision, outcome="missing", message=f"{framework} is not installed")
        for framework in lacking
        for precision in PRECISIONS
    ]
    yield Found(subject, (*runs.values(), *absent), tuple(_pairs(started, runs, gates)), started.folder)
    shutil.rmtree(started.folder)


def _answer(future: Future[Answer]) -> Answer:
    """Wait for an answer.

    Raises:
        OutputError: The machine failed, so that nothing can be said of the model.
    """
    answer = future.result()
    if answer.stopped:
        raise stopped(answer.error)
    return answer


def stopped(error: object) -> OutputError:
    """Return the error that says that a verification could not go on."""
    return OutputError(
        f"the verification could not go on: {error}",
        hint=f"what models compute needs room in {tempfile.gettempdir()}: free some, or set TMPDIR to a larger disk",
    )


@contextmanager
def room_told() -> Iterator[None]:
    """Turn what the system says about the folder for what models compute into `stopped`."""
    try:
        yield
    except OSError as error:
        raise stopped(error) from error


def _run(
    framework: TargetFormat, precision: Precision, error: str, folder: Path, probes: Sequence[Probe], *, gates: Gates
) -> Run:
    """Compare what one framework computed with the reference."""
    if error:
        return Run(framework=framework, precision=precision, outcome="failed", message=error)
    found = _compare(folder.parent / "reference", folder, probes, precision, gates)
    return Run(
        framework=framework,
        precision=precision,
        outcome="passed" if found.passed else "failed",
        arrays=tuple(found.arrays.values()),
        divergence=found.divergence,
        message="; ".join(found.problems) or ("" if found.arrays else "nothing was compared"),
        histogram=tuple(map(int, found.counts)) if found.arrays else (),
        needed=found.needed,
    )


def _pairs(started: _Started, runs: Mapping[Wanted, Run], gates: Gates) -> Iterator[Pair]:
    """Compare every two frameworks; each may be off by its gate, so the two by twice that."""
    doubled = gates.times(2)
    for precision in PRECISIONS:
        ran = [framework for (framework, at), run in runs.items() if at == precision and run.arrays]
        for first, second in combinations(ran, 2):
            one, other = (started.folder / f"{framework}-{precision}" for framework in (first, second))
            found = _compare(one, other, started.subject.probes, precision, doubled)
            worst = max(found.arrays.values(), key=lambda each: each.share)
            yield Pair(
                first=first,
                second=second,
                precision=precision,
                passed=found.passed,
                array=worst.array,
                difference=worst.difference,
                limit=worst.limit,
            )


def _compare(expected: Path, got: Path, probes: Sequence[Probe], precision: Precision, gates: Gates) -> Comparison:
    comparison = Comparison(gates, precision)
    for number, probe in enumerate(probes):
        comparison.add(probe.name, read_outputs(expected, number), read_outputs(got, number))
    return comparison
