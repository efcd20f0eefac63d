"""Carry out a plan: jobs side by side, each in a process; none that fails stops the others."""

from __future__ import annotations

import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import zip_longest
from pathlib import Path

import msgspec

from electra_convert._version import __version__
from electra_convert.batch.job_key import job_key
from electra_convert.batch.jobs import Job, Shard, choose_jobs, plan_jobs, report_on
from electra_convert.batch.messages import Answer, Event, Request, decode
from electra_convert.batch.report import BatchReport, JobReport, Stage
from electra_convert.batch.state import StateFile
from electra_convert.batch.watch import NoWatch, Watch
from electra_convert.child import Child
from electra_convert.errors import ElectraConvertError, OptionError, OutputError
from electra_convert.hub.client import without_token
from electra_convert.hub.names import place_name
from electra_convert.options import take_paths

STATE_SUFFIX = ".state.jsonl"
GRACE = 5.0
"""Seconds a process has to clean up when it is to end."""


Watching = Callable[[int], AbstractContextManager[Watch]]
"""Begins to watch so many jobs."""


def unwatched(_total: int) -> AbstractContextManager[Watch]:
    """Show nothing."""
    return nullcontext(NoWatch())


class BatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a plan is carried out.

    Args:
        jobs: How many jobs run side by side.
        shard: Every so manieth job only: `2/4`; empty for all.
        only: Patterns of the names of jobs.
        state: The state file; by default beside the plan.
        fresh: Look at every job again, whatever the state file says.

    Raises:
        OptionError: They are wrong.
    """

    jobs: int = 1
    shard: str = ""
    only: tuple[str, ...] = ()
    state: Path | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        take_paths(self, "state")
        if self.jobs < 1:
            raise OptionError(f"{self.jobs} jobs are to run side by side", hint="at least 1")
        if self.shard:
            Shard.parse(self.shard)


def run_batch(
    plan: str | os.PathLike[str],
    options: BatchOptions = BatchOptions(),  # noqa: B008  # it is immutable
    *,
    dry_run: bool = False,
    watching: Watching = unwatched,
) -> BatchReport:
    """Carry out a plan.

    ::

        from electra_convert import run_batch

        report = run_batch("plan.yaml")
        assert not report.failed

    Args:
        plan: The plan, a YAML file.
        options: How it is carried out.
        dry_run: Only say what would be done.
        watching: Begins to watch so many jobs; yields what is told how it goes.

    Returns:
        What became of each job; jobs that fail raise nothing.

    Raises:
        PlanError: The plan is wrong.
        OptionError: The options are.
        OutputError: The state file cannot be read, or is something else.
    """
    began = time.monotonic()
    path = Path(plan)
    shard = Shard.parse(options.shard) if options.shard else None
    jobs = choose_jobs(plan_jobs(path), shard=shard, only=options.only)
    state = StateFile(options.state or path.with_name(path.name + STATE_SUFFIX))
    with suppress(OSError):  # it is not there yet, or cannot be read, of which `read` tells
        if state.path.samefile(path):
            raise OutputError(f"the state file {state.path} is the plan itself", hint="choose another with --state")
    if not dry_run:
        state.check()  # before the work, not after it
    if dry_run:
        reports = _planned(jobs, state, fresh=options.fresh)
    else:
        with watching(len(jobs)) as watch:
            reports = _Batch(jobs, state, options, watch).run()
    return BatchReport(
        plan=path.name,
        electra_convert=__version__,
        shard=options.shard,
        dry_run=dry_run,
        jobs=tuple(reports),
        seconds=time.monotonic() - began,
    )


def _planned(jobs: Sequence[Job], state: StateFile, *, fresh: bool) -> list[JobReport]:
    finished = state.read()
    reports = []
    for job in jobs:
        try:
            done = None if job.fault else finished.get(job_key(job))
            fault = job.fault
        except ElectraConvertError as error:
            fault = str(error)
        if fault:
            reports.append(report_on(job, "failed", stage="converting", error=fault))
            continue
        if done and not fresh and done.holds(job):
            reports.append(report_on(job, "already done", places=done.places))
        else:
            reports.append(report_on(job, "planned", places=tuple(place_name(*place) for place in job.places)))
    return reports


def _impossible(job: Job) -> JobReport:
    return report_on(job, "failed", stage="converting", error=job.fault)


class _Batch:
    """Jobs that are being done."""

    def __init__(self, jobs: Sequence[Job], state: StateFile, options: BatchOptions, watch: Watch) -> None:
        self.jobs, self.watch, self.fresh = jobs, watch, options.fresh
        count = min(options.jobs, len(jobs))
        threads = max(1, (os.cpu_count() or 1) // max(1, count))
        self.slots = [_Slot(state.path, threads, watch) for _ in range(count)]
        self.stopping = threading.Event()

    def run(self) -> list[JobReport]:
        """Do all of them; Ctrl-C ends those that run, and leaves out the rest."""
        free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for slot in self.slots:
            free.put(slot)
        futures: list[Future[JobReport]] = []
        with ThreadPoolExecutor(max(1, len(self.slots))) as threads:
            try:
                futures += (threads.submit(self._do, job, free) for job in self.jobs)
                wait(futures)
            except BaseException as stop:
                self._stop(futures)
                if not isinstance(stop, KeyboardInterrupt):
                    raise
            finally:
                self._end()
        for slot in self.slots:  # no thread reads from them any more
            slot.close()
        return [
            report_on(job, "interrupted") if future is None or future.cancelled() else future.result()
            for job, future in zip_longest(self.jobs, futures)
        ]

    def _do(self, job: Job, free: queue.SimpleQueue[_Slot]) -> JobReport:
        slot = free.get()
        try:
            self.watch.started(job.id)
            report = _impossible(job) if job.fault else slot.do(Request(job=job, fresh=self.fresh))
        except Exception:  # noqa: BLE001  # a bug that meets one job must not end the others
            fault = without_token(f"this is a bug, please report it:\n{traceback.format_exc()}")
            report = report_on(job, "failed", stage="converting", error=fault)
        finally:
            free.put(slot)
        if self.stopping.is_set() and report.outcome == "failed":
            report = report_on(job, "interrupted")
        self.watch.finished(report)
        return report

    def _stop(self, futures: Sequence[Future[JobReport]]) -> None:
        self.stopping.set()
        for future in futures:
            future.cancel()

    def _end(self) -> None:
        with ThreadPoolExecutor(max(1, len(self.slots))) as threads:
            list(threads.map(_Slot.end, self.slots))


class _Slot:
    """A process that does one job after the other; one that dies is replaced.

    Args:
        state: The state file.
        threads: Threads that each of its frameworks may compute with.
        watch: Is told how it goes.
    """

    def __init__(self, state: Path, threads: int, watch: Watch) -> None:
        self._arguments = (str(state), str(threads))
        self._watch = watch
        self._child: Child | None = None
        self._lock = threading.Lock()
        self._ended = False

    def do(self, request: Request) -> JobReport:
        """Do a job; one whose process dies has failed."""
        began = time.monotonic()
        job = request.job
        child = self._running()
        if child is None:
            return report_on(job, "interrupted")
        stage: Stage = "converting"
        try:
            child.send(request.encode())
            while line := child.receive():
                message = decode(line)
                if isinstance(message, Answer):
                    return message.report
                stage = message.stage or stage
                self._tell(job.id, message)
        except BaseException:
            child.end()  # it is busy with this job, and would answer the next with it
            raise
        fault = without_token(f"the process of this job {child.last_words()}")
        return report_on(job, "failed", stage=stage, error=fault, seconds=time.monotonic() - began)

    def end(self) -> None:
        """End the process, and begin no other; it has a moment to clean up."""
        with self._lock:
            self._ended = True
        if self._child is not None:
            self._child.end(patience=GRACE)

    def close(self) -> None:
        """Close what is open, once nobody reads from it."""
        if self._child is not None:
            self._child.close()

    def _running(self) -> Child | None:
        """Return a process that runs; none, when it has come to an end."""
        with self._lock:
            if self._ended:
                return None
            if self._child is not None and not self._child.alive:
                self._child.close()
                self._child = None
            if self._child is None:
                quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # they would stand where a dying process says why
                self._child = Child("electra_convert.batch.worker", *self._arguments, environment=quiet, detached=True)
            return self._child

    def _tell(self, job: str, event: Event) -> None:
        if event.stage:
            self._watch.stage(job, event.stage, event.says)
        else:
            self._watch.told(job, event.says)
