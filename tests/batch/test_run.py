"""Batches, in processes of their own: what is done, what is not done again, and what is left by whatever ends them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from electra_convert import BatchOptions, BatchReport, run_batch
from electra_convert.batch import run as run_module
from electra_convert.batch import worker as worker_module
from electra_convert.batch.jobs import plan_jobs
from electra_convert.batch.messages import Request
from electra_convert.batch.report import JobReport
from electra_convert.batch.state import StateFile
from electra_convert.batch.watch import NoWatch
from electra_convert.batch.worker import run_job
from electra_convert.child import Child
from electra_convert.cli import main
from electra_convert.errors import OptionError, OutputError
from electra_convert.parity.workers import Pool
from tests.batch.conftest import Begin, until, workers_of
from tests.hub.server import Fault, HubServer, Phase

FILES = ("model.safetensors", "tf_model.h5", "flax_model.msgpack")
"""The weights of a model, in the order in which they are written."""
LONG: dict[str, Any] = {
    "heads": ["token_classification"],
    "num_labels": 40_000,
    "targets": ["pytorch", "tensorflow", "flax"],
}
"""What makes the conversion of a tiny checkpoint write for some tenths of a second."""
PUBLISHED = {"upload": {"repo_id": "org/{name}", "allow_unverified": True}}
COMMIT = "/commit/"
"""What is in the path of the request that publishes."""


def command(*arguments: str | Path) -> Result:
    """Run the command in this process; its workers are processes all the same."""
    return CliRunner().invoke(main, ["batch", *map(str, arguments)])


def outcomes(report: BatchReport) -> dict[str, str]:
    """Return what became of each job."""
    return {job.id: job.outcome for job in report.jobs}


def outcomes_in(path: Path) -> dict[str, str]:
    """Return what became of each job, as a report in JSON tells."""
    return {job["id"]: job["outcome"] for job in json.loads(path.read_text())["jobs"]}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every path below a folder, with what changes when it is written anew."""
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def only(report: BatchReport) -> JobReport:
    """Return the only job of a report."""
    (job,) = report.jobs
    return job


def state_of(plan: Path) -> StateFile:
    """Return the state file of a plan."""
    return StateFile(plan.with_name("plan.yaml.state.jsonl"))


class TestAgain:
    def test_what_is_done_is_not_done_again(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
    ) -> None:
        """Jobs are converted in the order of steps; the next run says that they are done, and touches nothing."""
        root = checkpoint("ko", 1000, 900).parent
        plan = write_plan("ko/model.ckpt-*")
        first = run_batch(plan)
        assert list(outcomes(first).items()) == [("ko/900", "done"), ("ko/1000", "done")]
        for step, job in zip((900, 1000), first.jobs, strict=True):
            (model,) = job.models
            assert model.directory == str(root / "out" / "ko" / str(step) / "pretraining")
            assert (model.part, model.head, model.status) == ("discriminator", "pretraining", "not verified")
            assert (Path(model.directory) / "model.safetensors").is_file()
            assert job.seconds > 0
        before = tree(root)
        second = run_batch(plan)
        assert outcomes(second) == {"ko/900": "already done", "ko/1000": "already done"}
        assert not any(job.seconds or job.models for job in second.jobs)
        assert tree(root) == before

    def test_what_changed_is_done(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """A job with another option is another job; those without are not done again."""
        checkpoint("ko", 10, 20)
        jobs: list[dict[str, Any]] = [{"source": f"ko/model.ckpt-{step}"} for step in (10, 20)]
        run_batch(write_plan(*jobs))
        jobs[1]["heads"] = ["pretraining", "base"]
        assert outcomes(run_batch(write_plan(*jobs))) == {"ko/10": "already done", "ko/20": "done"}

    def test_what_changed_is_replaced(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """What an earlier run of a job wrote with other options is replaced; nothing is made again that is the same."""
        root = checkpoint("ko").parent
        job: dict[str, Any] = {"source": "ko", "heads": ["pretraining", "base"]}
        run_batch(write_plan(job))
        weights = root / "out" / "ko" / "30" / "pretraining" / "model.safetensors"
        before = weights.stat().st_size
        assert outcomes(run_batch(write_plan({**job, "dtype": "float16", "targets": ["pytorch"]}))) == {"ko/30": "done"}
        assert weights.stat().st_size < before * 0.6
        made = tree(root / "out")
        assert outcomes(
            run_batch(
                write_plan({**job, "dtype": "float16", "targets": ["pytorch"], "verify": False, "overwrite": True})
            )
        ) == {"ko/30": "done"}
        assert {path: seen for path, seen in tree(root / "out").items() if "conversion" in path} == {
            path: seen for path, seen in made.items() if "conversion" in path
        }

    def test_what_is_gone_is_done_again(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """A job whose output was deleted is done again; the others are not."""
        root = checkpoint("ko", 10, 20).parent
        plan = write_plan("ko/model.ckpt-*")
        run_batch(plan)
        shutil.rmtree(root / "out" / "ko" / "10" / "pretraining")
        assert outcomes(run_batch(plan)) == {"ko/10": "done", "ko/20": "already done"}
        assert (root / "out" / "ko" / "10" / "pretraining" / "model.safetensors").is_file()

    def test_fresh(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """`fresh` looks at every job again, and leaves alone what is there."""
        root = checkpoint("ko").parent
        plan = write_plan("ko")
        run_batch(plan)
        model = root / "out" / "ko" / "30" / "pretraining"
        before = tree(model)
        assert outcomes(run_batch(plan, BatchOptions(fresh=True))) == {"ko/30": "done"}
        assert tree(model) == before

    def test_another_state_file(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path], tmp_path: Path
    ) -> None:
        """A state file that is named is used, made with the folders above it, and shared by shards."""
        checkpoint("ko", 10, 20, 30)
        plan = write_plan("ko/model.ckpt-*")
        state = tmp_path / "states" / "mine.jsonl"
        report = run_batch(plan, BatchOptions(state=state, shard="2/2"))
        assert (report.shard, outcomes(report)) == ("2/2", {"ko/20": "done"})
        assert len(StateFile(state).read()) == 1
        assert not state_of(plan).path.exists()
        assert outcomes(run_batch(plan, BatchOptions(state=state))) == {
            "ko/10": "done",
            "ko/20": "already done",
            "ko/30": "done",
        }


class TestFailures:
    def test_one_stops_no_other(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """A source that is missing, one that is damaged, a file that is not there: told for each; the rest is done."""
        folder = checkpoint("bad")
        (folder / "model.ckpt-30.index").write_bytes(b"no index")
        checkpoint("ko")
        truncated = checkpoint("short") / "model.ckpt-30.data-00000-of-00001"
        truncated.write_bytes(truncated.read_bytes()[:-1000])
        plan = write_plan("none/*", "bad", "short", {"source": "ko", "name": "a", "config": "none.json"}, "ko")
        report = run_batch(plan)
        assert outcomes(report) == {
            "none/*": "failed",
            "bad/30": "failed",
            "short/30": "failed",
            "a/30": "failed",
            "ko/30": "done",
        }
        assert [job.stage for job in report.failed] == ["converting"] * 4
        for job, told in zip(report.failed, ("none/*", "bad/model.ckpt-30", "data-00000", "none.json"), strict=True):
            assert told in job.error
        assert [finished.job for finished in state_of(plan).read().values()] == ["ko/30"]
        assert sorted(path.name for path in (plan.parent / "out").iterdir()) == ["ko"]

    def test_a_job_that_failed_is_tried_again(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
    ) -> None:
        """Once its cause is removed, the same command does it."""
        folder = checkpoint("ko")
        plan = write_plan("ko")
        shutil.move(folder / "model.ckpt-30.data-00000-of-00001", folder / "away")
        assert outcomes(run_batch(plan)) == {"ko/30": "failed"}
        shutil.move(folder / "away", folder / "model.ckpt-30.data-00000-of-00001")
        assert outcomes(run_batch(plan)) == {"ko/30": "done"}

    @pytest.mark.parametrize(("head", "told"), [("pretraining", "exist"), ("base", "not this job's")])
    def test_somebody_elses_models_are_in_the_way(
        self,
        checkpoint: Callable[..., Path],
        write_plan: Callable[..., Path],
        head: str,
        told: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Models of another conversion in the output, of the same head or another, are told and left as they are."""
        monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
        root = checkpoint("ko").parent
        checkpoint("other", 30, fixture="electra_tiny_noproj")
        plan = write_plan(
            {"source": "other", "name": "first", "part": "discriminator", "heads": [head], "output": "out"}
        )
        run_batch(plan)
        before = tree(root / "out" / head)
        job = only(run_batch(write_plan({"source": "ko", "output": "out"}, **PUBLISHED)))
        assert (job.outcome, job.stage, job.repos) == ("failed", "converting", ())
        assert told in job.error.splitlines()[0]
        assert str(root / "out") in job.error
        assert tree(root / "out" / head) == before

    def test_a_bug_is_told_without_the_token(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What nobody expected fails one job, with its traceback, in which no token stands."""
        checkpoint("ko")
        (job,) = plan_jobs(write_plan("ko"))
        token = "hf_" + "ThisMustNotBeShown" * 2
        monkeypatch.setenv("HF_TOKEN", token)

        def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError(f"cannot send {token}")

        monkeypatch.setattr(worker_module, "convert_checkpoint", broken)
        report = run_job(job, state_of(Path(job.source)), Pool(1), lambda _: None)
        assert (report.outcome, report.stage) == ("failed", "converting")
        assert report.error.startswith("this is a bug, please report it:\nTraceback")
        assert "RuntimeError: cannot send" in report.error
        assert token not in report.error

    @pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("no room")])
    def test_a_machine_that_fails_is_told(
        self,
        checkpoint: Callable[..., Path],
        write_plan: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
    ) -> None:
        """A disk or a memory that fails is no bug; the job says what failed."""
        checkpoint("ko")
        (job,) = plan_jobs(write_plan("ko"))

        def broken(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(worker_module, "convert_checkpoint", broken)
        report = run_job(job, state_of(Path(job.source)), Pool(1), lambda _: None)
        assert report.error == f"the machine failed: {type(error).__name__}: {error}"

    def test_a_state_file_that_cannot_be_read_is_one_error(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
    ) -> None:
        """It is told before any work, and once."""
        root = checkpoint("ko").parent
        plan = write_plan("ko")
        for dry_run in (True, False):
            with pytest.raises(OutputError, match="cannot be read"):
                run_batch(plan, BatchOptions(state=root), dry_run=dry_run)
        assert not (root / "out").exists()


class TestPublished:
    def test_no_token(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A job that could not publish for want of a token is told before it converts."""
        root = checkpoint("ko").parent
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_HOME", str(root / "nobody"))
        job = only(run_batch(write_plan("ko", **PUBLISHED)))
        assert job.error.startswith("there is no token for the Hub, so one cannot commit to ")
        assert not (root / "out").exists()

    def test_one_part_of_two_is_refused(
        self, hub: HubServer, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
    ) -> None:
        """What was published is in the report, although another part of the job was refused."""
        checkpoint("ko", fixture="electra_tiny")
        hub.faults.append(Fault("POST", "generator/commit/", "status", status=403))
        upload = {"repo_id": "org/{name}-{part}", "allow_unverified": True}
        job = only(run_batch(write_plan({"source": "ko", "part": "both", "upload": upload})))
        assert (job.outcome, job.stage) == ("failed", "uploading")
        assert [repo.repo_id for repo in job.repos] == ["org/ko-discriminator"]
        assert "1 of 2 repositories could not be published" in job.error

    def test_once(self, hub: HubServer, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """Each step goes to its branch; the next run asks the Hub nothing, and tells where, even without output."""
        root = checkpoint("ko", 10, 20).parent
        upload = {**PUBLISHED["upload"], "revision": "step-{step}"}
        plan = write_plan({"source": "ko/model.ckpt-*", "upload": upload})
        first = run_batch(plan)
        assert outcomes(first) == {"ko/10": "done", "ko/20": "done"}
        assert [repo.revision for job in first.jobs for repo in job.repos] == ["step-10", "step-20"]
        assert set(hub.repos["org/ko"].branches) == {"main", "step-10", "step-20"}
        requests = len(hub.requests)
        shutil.rmtree(root / "out")
        second = run_batch(plan)
        assert outcomes(second) == {"ko/10": "already done", "ko/20": "already done"}
        assert [place.split(" (")[0] for job in second.jobs for place in job.places] == [
            "org/ko at step-10",
            "org/ko at step-20",
        ]
        assert len(hub.requests) == requests

    def test_jobs_overlap(
        self, hub: HubServer, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
    ) -> None:
        """Two jobs side by side are both in mid-upload at one time; a third begins when one of them has ended."""
        for name in "abc":
            checkpoint(name)
        hub.faults.append(Fault("POST", COMMIT, "stall", times=2, seconds=20))
        commits: list[str] = []

        def come(_method: str, path: str, phase: Phase) -> None:
            if COMMIT in path and phase == "done":
                commits.append(path)
                if len(commits) == 2:
                    assert "org/c" not in hub.repos
                    hub.release.set()

        hub.on_request = come
        report = run_batch(write_plan("a", "b", "c", **PUBLISHED), BatchOptions(jobs=2))
        assert outcomes(report) == {"a/30": "done", "b/30": "done", "c/30": "done"}
        assert report.seconds < 15  # the stall ended because the second came
        assert len(commits) == 3


class _Seen(NoWatch):
    """A watch that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, ...]] = []

    def started(self, job: str) -> None:
        self.heard.append(("started", job))

    def stage(self, job: str, stage: str, detail: str = "") -> None:
        self.heard.append((stage, job, detail))

    def finished(self, report: JobReport) -> None:
        self.heard.append((report.outcome, report.id))


def seen_by(watch: NoWatch) -> Callable[[int], AbstractContextManager[NoWatch]]:
    """Have a batch watched."""
    return lambda _total: nullcontext(watch)


def test_how_it_gets_on_is_told(
    hub: HubServer, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
) -> None:
    """A watch hears of each job: that it begins, what it is at, and what became of it, in that order."""
    checkpoint("ko")
    watch = _Seen()
    run_batch(write_plan("none", {"source": "ko", **PUBLISHED}), watching=seen_by(watch))
    assert watch.heard == [
        ("started", "none"),
        ("failed", "none"),
        ("started", "ko/30"),
        ("converting", "ko/30", ""),
        ("uploading", "ko/30", ""),
        ("done", "ko/30"),
    ]
    assert hub.repos["org/ko"]


class TestKilledWorker:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
    def test_its_job_fails_and_the_next_has_another(
        self,
        hub: HubServer,
        checkpoint: Callable[..., Path],
        write_plan: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
        how: signal.Signals,
    ) -> None:
        """A process that is killed in mid-job fails that job, with what it said last; another does the next job."""
        monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
        for name in "abc":
            checkpoint(name)
        plan = write_plan("a", "b", "c", **PUBLISHED)
        killed: list[int] = []

        def kill(_method: str, path: str, phase: Phase) -> None:
            if COMMIT in path and phase == "begin" and not killed:
                (worker,) = workers_of(plan)
                killed.append(worker)
                os.kill(worker, how)

        hub.on_request = kill
        report = run_batch(plan)
        assert outcomes(report) == {"a/30": "failed", "b/30": "done", "c/30": "done"}
        assert report.jobs[0].stage == "uploading"
        ended, _, words = report.jobs[0].error.partition(":\n")
        assert ended == f"the process of this job ended with signal {how.value}"
        assert ("Extension modules" in words) == (how == signal.SIGSEGV)  # what Python says last when it crashes
        assert len(killed) == 1
        assert workers_of(plan) == []

    def test_a_line_that_broke_off(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process that dies in the middle of its answer fails its job, and not the batch."""
        checkpoint("ko", 10, 20)

        class Dying(Child):
            """A process that dies in its first answer."""

            broken = False

            def receive(self) -> bytes:
                line = super().receive()
                if b'"answer"' not in line or Dying.broken:
                    return line
                Dying.broken = True
                self.end()
                return b""

        monkeypatch.setattr(run_module, "Child", Dying)
        report = run_batch(write_plan("ko/model.ckpt-*"))
        assert outcomes(report) == {"ko/10": "failed", "ko/20": "done"}
        assert "the process of this job ended with signal 9" in report.jobs[0].error


# Ends that come from without


def stopped_in_mid_write(plan: Path) -> int:
    """Wait until a worker writes the first of the files of the long job; hold it there, and return it."""

    def is_half_written() -> bool:
        folders = os.walk(plan.parent / "out" / "long")  # it minds no folder that vanishes
        found = {name for folder, _, names in folders if folder.endswith(".partial") for name in names}
        return FILES[0] in found and FILES[2] not in found

    def held() -> int:
        if not is_half_written():
            return 0
        os.kill(worker, signal.SIGSTOP)
        until(lambda: _status(worker, "State").startswith("T"), what="stopped")
        if is_half_written():
            return worker
        os.kill(worker, signal.SIGCONT)
        return 0

    (worker,) = until(lambda: workers_of(plan), what="at work")
    return until(held, what="in mid-write")


def let_go(worker: int, *, when_sent: signal.Signals) -> None:
    """Let a process go on that was stopped, when a signal waits for it."""

    def waits() -> bool:
        return bool(int(_status(worker, "ShdPnd"), 16) & (1 << (when_sent - 1)))

    until(waits, what=f"sent {when_sent.name}")
    os.kill(worker, signal.SIGCONT)


def _status(process: int, field: str) -> str:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:"))


@pytest.fixture
def three(checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> Path:
    """A plan of a short job, a long one, and one that is not begun before that ends."""
    for name in ("first", "long", "last"):
        checkpoint(name)
    return write_plan("first", {"source": "long", **LONG}, "last")


def left_by(plan: Path) -> tuple[list[str], list[Path], list[int]]:
    """Return the outputs of a plan that are there, what is half-written, and who is at work."""
    outputs = sorted(path.name for path in (plan.parent / "out").glob("*"))
    return outputs, list(plan.parent.rglob("*.partial")), workers_of(plan)


def test_ctrl_c(three: Path, begin: Begin) -> None:
    """Ctrl-C ends the job that runs and leaves out the rest: both are named. Nothing is half-written, nobody left."""
    report = three.with_name("report.json")
    batch = begin(three, "--report", str(report))
    worker = stopped_in_mid_write(three)
    assert os.getpgid(worker) != batch.pid  # Ctrl-C is for the batch alone to deal with
    os.killpg(batch.pid, signal.SIGINT)
    let_go(worker, when_sent=signal.SIGTERM)
    said, told = batch.communicate(timeout=20)
    assert batch.returncode == 130
    assert left_by(three) == (["first"], [], [])
    assert outcomes_in(report) == {"first/30": "done", "long/30": "interrupted", "last/30": "interrupted"}
    assert [line.split()[0] for line in said.splitlines() if "! interrupted" in line] == ["long/30", "last/30"]
    assert said.splitlines()[-1].startswith("3 jobs: 1 done, 2 interrupted")
    assert "Traceback" not in said + told
    assert outcomes(run_batch(three)) == {"first/30": "already done", "long/30": "done", "last/30": "done"}


def test_terminated(three: Path, begin: Begin) -> None:
    """A batch that is told to end does so at once; nothing is half-written, and nobody is left."""
    batch = begin(three)
    worker = stopped_in_mid_write(three)
    batch.terminate()
    let_go(worker, when_sent=signal.SIGTERM)
    _, told = batch.communicate(timeout=20)
    assert batch.returncode == 128 + signal.SIGTERM
    assert left_by(three) == (["first"], [], [])
    assert "Traceback" not in told


def test_killed(three: Path, begin: Begin) -> None:
    """The workers of a batch that is killed end by themselves and leave nothing half-written; the next run goes on."""
    batch = begin(three)
    worker = stopped_in_mid_write(three)
    batch.kill()
    batch.communicate(timeout=20)
    os.kill(worker, signal.SIGCONT)
    until(lambda: not workers_of(three), seconds=5, what="ended")
    assert left_by(three) == (["first"], [], [])
    assert [finished.job for finished in state_of(three).read().values()] == ["first/30"]
    assert outcomes(run_batch(three)) == {"first/30": "already done", "long/30": "done", "last/30": "done"}


def test_a_worker_ends_with_its_batch(checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
    """A worker whose batch dies right after it asked for a job ends in mid-job; one that has nothing to do, well."""
    checkpoint("ko")
    plan = write_plan({"source": "ko", **LONG})
    (job,) = plan_jobs(plan)
    command = [sys.executable, "-m", "electra_convert.batch.worker", str(state_of(plan).path), "1"]
    for lines, code in ((Request(job=job).encode() + b"\n", 128 + signal.SIGTERM), (b"", 0)):
        assert subprocess.run(command, input=lines, timeout=20, check=False).returncode == code
    assert left_by(plan) == ([], [], [])


def test_a_process_that_ends_in_a_line_has_said_nothing(tmp_path: Path) -> None:
    """What broke off is no answer."""
    (tmp_path / "broken_off.py").write_text("print('whole'); print('{\"half', end='')")
    child = Child("broken_off", environment={"PYTHONPATH": str(tmp_path)})
    try:
        assert (child.receive(), child.receive()) == (b"whole\n", b"")
        assert child.last_words() == "ended with exit code 0"
    finally:
        child.close()


def test_a_process_that_is_left_in_mid_job_does_no_other(
    checkpoint: Callable[..., Path], write_plan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where telling how it goes fails, its answer is not taken for that of the next job."""
    checkpoint("ko", 10, 20)
    told: list[str] = []

    def fail_once(_: object, name: str, *__: object) -> None:
        told.append(name)
        if len(told) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_module._Slot, "_tell", fail_once)
    report = run_batch(write_plan("ko/model.ckpt-*"))
    assert outcomes(report) == {"ko/10": "failed", "ko/20": "done"}
    assert "No space left on device" in report.jobs[0].error


def test_a_process_that_has_ended_is_sent_nothing(tmp_path: Path) -> None:
    """A process that died while nobody looked is no error before it is asked what it said last."""
    with closing(Child("electra_convert.batch.worker", str(tmp_path / "state.jsonl"), "1")) as child:
        child.end()
        child.send(b"a job")
        assert child.receive() == b""
        assert child.last_words() == "ended with signal 9"


def test_no_process_begins_after_the_end(
    hub: HubServer, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
) -> None:
    """Ctrl-C that comes between the start of a job and that of its process ends the job too."""
    checkpoint("a")
    checkpoint("b")
    hub.faults.append(Fault("POST", COMMIT, "stall"))
    uploading, ended = threading.Event(), threading.Event()

    class Interrupting(_Seen):
        """Holds the second job back until the first was interrupted."""

        def started(self, job: str) -> None:
            super().started(job)
            if job == "b/30":
                assert uploading.wait(20)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                assert ended.wait(20)

        def finished(self, report: JobReport) -> None:
            super().finished(report)
            if report.id == "a/30":
                ended.set()

    def come(_method: str, path: str, phase: Phase) -> None:
        if COMMIT in path and phase == "done":
            uploading.set()

    hub.on_request = come
    plan = write_plan({"source": "a", **PUBLISHED}, "b")
    report = run_batch(plan, BatchOptions(jobs=2), watching=seen_by(Interrupting()))
    assert outcomes(report) == {"a/30": "interrupted", "b/30": "interrupted"}
    assert left_by(plan) == (["a"], [], [])


# The command


class TestCommand:
    def test_all_done(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """Exit 0: each job has a line while it runs, on stderr, and a row at the end, on stdout."""
        checkpoint("ko", 10, 20)
        plan = write_plan("ko/model.ckpt-*")
        result = command(plan)
        assert result.exit_code == 0, result.stderr
        assert "[1/2] ko/10: converting\n" in result.stderr
        assert "[2/2] ko/20: done in " in result.stderr
        assert result.stdout.splitlines()[-1].startswith("2 jobs: 2 done in ")
        again = command(plan, "--only", "ko/1*", "--jobs", "3")
        assert (again.exit_code, again.stdout.splitlines()[-1][:21]) == (0, "1 job: 1 already done")

    def test_some_failed(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """Exit 1: those that failed are told at the end, with what is wrong and what to do."""
        checkpoint("ko")
        result = command(write_plan("runs/none", "ko"))
        assert result.exit_code == 1
        assert "✗ none failed while converting:\n  there is no checkpoint at " in result.stdout
        assert "\n  What to do: " in result.stdout
        assert "2 jobs: 1 done, 1 failed" in result.stdout

    def test_json(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """`--json` prints the report and nothing else on stdout, and returns the same."""
        checkpoint("ko")
        result = command(write_plan("none", "ko"), "--json")
        assert result.exit_code == 1
        report = json.loads(result.stdout)
        assert (report["plan"], report["dry_run"], report["shard"]) == ("plan.yaml", False, "")
        assert [(job["id"], job["outcome"]) for job in report["jobs"]] == [("none", "failed"), ("ko/30", "done")]

    def test_reports(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path], tmp_path: Path) -> None:
        """`--report` writes JSON and HTML, whether jobs fail or not, in folders that are made."""
        checkpoint("ko")
        paths = [tmp_path / "reports" / f"batch.{suffix}" for suffix in ("json", "html")]
        result = command(write_plan("none", "ko"), *(f"--report={path}" for path in paths))
        assert result.exit_code == 1, result.stderr
        assert outcomes_in(paths[0]) == {"none": "failed", "ko/30": "done"}
        page = paths[1].read_text()
        assert page.startswith("<!doctype html>")
        assert "ko/30" in page
        assert "there is no checkpoint at" in page

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (
                ("--report", "x.json", "--report", "batch.txt", "--report", "none"),
                "no report is made as batch.txt, none",
            ),
            (("--shard", "3/2"), "--shard 3/2: expected a number of a shard and their count"),
            (("--only", "kp/*"), "no job is called kp/*"),
            (("--jobs", "0"), "0 is not in the range"),
        ],
    )
    def test_wrong_usage(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path], options: tuple[str, ...], told: str
    ) -> None:
        """Exit 2, before any work."""
        root = checkpoint("ko").parent
        before = tree(root)
        result = command(write_plan("ko"), *options)
        assert result.exit_code == 2
        assert told in result.stderr
        assert not result.stdout
        assert set(tree(root)) - set(before) == {"plan.yaml"}

    def test_a_wrong_plan(self, tmp_path: Path, write_plan: Callable[..., Path]) -> None:
        """Exit 1, with all that is wrong; a plan that is not there is wrong usage."""
        result = command(write_plan({"source": "a", "sed": 1}, {"source": "b", "part": "c"}))
        assert result.exit_code == 1
        assert "jobs[0]: Object contains unknown field `sed`" in result.stderr
        assert "jobs[1]: Invalid enum value 'c'" in result.stderr
        assert command(tmp_path / "none.yaml").exit_code == 2

    def test_dry_run(self, hub: HubServer, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """`--dry-run` says what would be done, from where, to where, and does nothing."""
        root = checkpoint("ko", 10, 20).parent
        upload = {**PUBLISHED["upload"], "revision": "step-{step}"}
        plan = write_plan({"source": "ko/model.ckpt-*", "upload": upload})
        run_batch(plan, BatchOptions(only=("ko/10",)))
        requests, before = len(hub.requests), tree(root)
        result = command(plan, "--dry-run")
        assert result.exit_code == 0, result.stderr
        assert (
            f"ko/20\n  from  {root}/ko/model.ckpt-20\n  to    {root}/out/ko/20\n  as    org/ko at step-20\n"
            in result.stdout
        )
        assert "ko/10  already done\n" in result.stdout
        assert result.stdout.splitlines()[-1].startswith("2 jobs: 1 to do, 1 already done")
        assert (len(hub.requests), tree(root)) == (requests, before)
        assert outcomes(run_batch(plan, BatchOptions(fresh=True), dry_run=True)) == {
            "ko/10": "planned",
            "ko/20": "planned",
        }

    def test_a_dry_run_finds_what_is_missing(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
    ) -> None:
        """A source or a file that is not there fails a dry run too, and stops it for no other job."""
        checkpoint("ko")
        plan = write_plan(
            "none/*", "gone/model.ckpt-7", {"source": "ko", "config": "none.json"}, {"source": "ko", "name": "a"}
        )
        result = command(plan, "--dry-run", "--json")
        assert result.exit_code == 1
        assert {job["id"]: job["outcome"] for job in json.loads(result.stdout)["jobs"]} == {
            "none/*": "failed",
            "gone/7": "failed",
            "ko/30": "failed",
            "a/30": "planned",
        }

    def test_an_empty_shard(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """A shard without jobs is done at once: a matrix may be larger than the plan."""
        checkpoint("ko")
        result = command(write_plan("ko"), "--shard", "2/2", "--json")
        assert (result.exit_code, json.loads(result.stdout)["jobs"]) == (0, [])


def test_options_of_the_library() -> None:
    """A batch without a job at a time, or of a shard that cannot be, is refused when it is asked for."""
    with pytest.raises(OptionError, match="0 jobs are to run side by side"):
        BatchOptions(jobs=0)
    with pytest.raises(OptionError, match="--shard 0/1"):
        BatchOptions(shard="0/1")


# Sources and outputs elsewhere


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the folder of the plan, and keep what is downloaded there."""
    monkeypatch.setenv("ELECTRA_CONVERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_from_a_url_to_a_url(web: str, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
    """An archive on the web is converted, copied to a URL, and published nowhere; the next run knows it."""
    folder = checkpoint("ko")
    root = folder.parent
    shutil.make_archive(str(folder), "zip", folder)
    plan = write_plan({"source": f"{web}/ko.zip", "output": f"file://{root}/bucket/{{name}}"})
    watch = _Seen()
    job = only(run_batch(plan, watching=seen_by(watch)))
    assert (job.id, job.outcome, job.error) == ("ko", "done", "")
    assert ("copying", "ko", f"file://{root}/bucket/ko") in watch.heard
    copied = root / "bucket" / "ko" / "pretraining"
    assert sorted(job.copied) == sorted(f"pretraining/{path.name}" for path in copied.iterdir())
    assert {path.name for path in copied.iterdir()} >= {"model.safetensors", "config.json", "conversion.json"}
    assert [model.directory for model in job.models] == [""]
    assert outcomes(run_batch(plan)) == {"ko": "already done"}


def test_what_is_at_a_url_already_is_not_replaced(
    checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
) -> None:
    """Another model where a job is to copy its own fails the job while it copies, and stays as it is."""
    root = checkpoint("ko").parent
    there = root / "bucket" / "pretraining" / "config.json"
    there.parent.mkdir(parents=True)
    there.write_text("somebody's")
    job = only(run_batch(write_plan({"source": "ko", "output": f"file://{root}/bucket"})))
    assert (job.outcome, job.stage) == ("failed", "copying")
    assert "holds something else already" in job.error
    assert [(path.name, path.read_text()) for path in there.parent.iterdir()] == [("config.json", "somebody's")]
    assert job.copied == ()
