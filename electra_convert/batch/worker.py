"""A process that does the jobs of a batch: `python -m electra_convert.batch.worker STATE THREADS`.

Jobs come as lines of JSON on stdin; each is answered by lines on stdout: what it is at, and at last what became of it.
When stdin ends, so does the worker, in the middle of a job too: then nobody is there any more who wants it, and the
next run must not meet it.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, get_args

import msgspec

from electra_convert._version import __version__
from electra_convert.batch.job_key import job_key
from electra_convert.batch.jobs import Job, Proof, report_on
from electra_convert.batch.messages import Answer, Event, Request, encode
from electra_convert.batch.report import JobReport, ModelResult, Stage
from electra_convert.batch.state import Finished, StateFile
from electra_convert.child import claim_answers
from electra_convert.convert import ConversionReport, convert_checkpoint
from electra_convert.errors import ElectraConvertError, OutputError, OutputExistsError, PartialUploadError, PublishError
from electra_convert.hub.client import Doing, Hub, without_token
from electra_convert.hub.publication import UploadOptions
from electra_convert.hub.upload import UploadReport, upload_output
from electra_convert.mapping import load_mappings
from electra_convert.output import scratch_folder
from electra_convert.parity.directories import Directory, find_directories
from electra_convert.parity.reference import require_oracle
from electra_convert.parity.report import Status
from electra_convert.parity.verification import Verification, read_verification
from electra_convert.parity.verify import verify_output
from electra_convert.parity.workers import Pool
from electra_convert.remote.copy import copy_directory
from electra_convert.remote.place import is_url, shown

GRACE = 3.0
"""Seconds a worker has to clean up when nobody wants its job any more."""
NOT_VERIFIED = "not verified"
ON_REQUEST = tuple(status for status in get_args(Status) if status != "failed")
"""The verdicts that may be published on request."""

Tell = Callable[[Event], None]


class _Run:
    """One run of a job, with what it has come to so far."""

    def __init__(self, job: Job, pool: Pool, tell: Tell) -> None:
        self.job, self.pool, self.tell = job, pool, tell
        self.owned = False
        """What is in the output was written by an earlier run of this job, and may be replaced."""
        self.stage: Stage = "converting"
        self.found: dict[str, Any] = {}

    def enter(self, stage: Stage, says: str = "") -> None:
        """Note and tell that a stage begins."""
        self.stage = stage
        self.tell(Event(stage=stage, says=says))

    def run(self) -> None:
        """Do the job."""
        job = self.job
        if job.proof is not None:
            require_oracle()  # before the work, not after it
        if job.upload is not None:
            Hub().require_token(Doing("commit", job.upload.repo))
        with _local(job.output) as output:
            self.enter("converting")
            options = msgspec.structs.replace(job.convert, overwrite=job.convert.overwrite or self.owned)
            converted = convert_checkpoint(job.source, output, options, exist_ok=True)
            self.found["notes"] = tuple(converted.notes)
            self.found["models"] = _models(converted, keep=not is_url(job.output))
            directories = self._directories(output, converted)
            if job.proof is not None:
                self._verify(output, converted, directories)
            if is_url(job.output):
                self.enter("copying", shown(job.output))
                copied = copy_directory(output, job.output, overwrite=job.convert.overwrite)
                self.found["copied"] = tuple(copied.sent)
            if job.upload is not None:
                self.enter("uploading")
                self._upload(output, job.upload)

    def _upload(self, output: Path, options: UploadOptions) -> None:
        """Publish the output; what was published is noted even where another part of it could not be."""
        uploaded = None
        try:
            uploaded = upload_output(
                output, options, names=self.job.names, notify=lambda text: self.tell(Event(says=text))
            )
        except PartialUploadError as error:
            uploaded = error.report
            raise
        finally:
            if uploaded is not None:
                self.found["repos"] = _without_paths(uploaded) if is_url(self.job.output) else uploaded.repos

    def _directories(self, output: Path, converted: ConversionReport) -> list[Directory]:
        """Return the models in the output, which must all be this job's: what else is there is not its to publish."""
        found = find_directories(output, load_mappings(self.job.convert.mappings).inventory)
        own = [head.directory for head in converted.heads]
        others = [str(each.path) for each in found if not any(each.path.is_relative_to(path) for path in own)]
        if others:
            raise OutputExistsError(
                f"{output} holds models that are not this job's",
                problems=others,
                hint="remove them, or give the job another output",
            )
        return found

    def _verify(self, output: Path, converted: ConversionReport, directories: Sequence[Directory]) -> None:
        """Prove the output, unless it was proven before and nothing has changed."""
        assert self.job.proof is not None  # noqa: S101  # for the type checker
        options = self.job.proof.options(self.job.source)
        if not all(self._is_proven(directory, converted) for directory in directories):
            self.enter("verifying")
            report = verify_output(output, options, lend=self.pool.lend)
            self.found["notes"] += report.notes
        proofs = {str(each.path): read_verification(each.path) for each in directories}
        self.found["models"] = tuple(
            _judged(model, proofs, str(head.directory))
            for model, head in zip(self.found["models"], converted.heads, strict=True)
        )
        upload = self.job.upload
        enough = ON_REQUEST if upload is not None and upload.allow_unverified else ("proven",)
        bad = [
            f"{model.part} {model.head}: {model.verdict}"
            for model in self.found["models"]
            if model.status not in enough
        ]
        if bad:
            raise PublishError("it is not proven", problems=list(dict.fromkeys(bad)), hint="see its verification.json")

    def _is_proven(self, directory: Directory, converted: ConversionReport) -> bool:
        """Say whether an earlier proof is the one that is asked for, and holds."""
        assert self.job.proof is not None  # noqa: S101  # for the type checker
        try:
            proof = read_verification(directory.path)
        except ElectraConvertError:
            return False
        if proof is None or proof.status != "proven" or proof.electra_convert != __version__:
            return False
        wanted = self.job.proof.frameworks or directory.formats
        usual = Proof(frameworks=self.job.proof.frameworks)  # of others, a proof does not say how it was made
        return (
            self.job.proof == usual
            and proof.index_sha256 == converted.identity
            and not set(proof.left_out) & set(wanted)
            and not proof.changes(directory.path)
        )


def run_job(job: Job, state: StateFile, pool: Pool, tell: Tell, *, fresh: bool = False) -> JobReport:
    """Do a job, unless it was done; what fails is told in the report.

    Args:
        job: The job.
        state: What was finished before.
        pool: Runs models.
        tell: Is told what the job is at.
        fresh: Do it whatever the state file says.
    """
    began = time.monotonic()
    run = _Run(job, pool, tell)
    try:
        key = job_key(job)
        earlier = state.read()
        finished = None if fresh else earlier.get(key)
        if finished and finished.holds(job):
            return report_on(job, "already done", places=finished.places)
        run.owned = any(each.wrote(job) for each in earlier.values())
        run.run()
        report = report_on(job, "done", seconds=time.monotonic() - began, **run.found)
        report = _noted(key, report, state)
    except ElectraConvertError as error:
        fault = str(error)
    except (OSError, MemoryError) as error:
        fault = f"the machine failed: {type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  # a bug in one job must not stop the others
        fault = f"this is a bug, please report it:\n{shown(traceback.format_exc())}"
    else:
        return report
    seconds = time.monotonic() - began
    return report_on(job, "failed", stage=run.stage, error=without_token(fault), seconds=seconds, **run.found)


@contextmanager
def _local(output: str) -> Iterator[Path]:
    """Yield where a job writes: its output, or for a URL a folder that is removed in the end."""
    if is_url(output):
        with scratch_folder() as folder:
            yield folder / "out"
    else:
        yield Path(output)


def _models(converted: ConversionReport, *, keep: bool) -> tuple[ModelResult, ...]:
    return tuple(
        ModelResult(
            directory=str(head.directory) if keep else "",
            part=head.part,
            head=head.head,
            note=head.note,
            status=NOT_VERIFIED,
        )
        for head in converted.heads
    )


def _judged(model: ModelResult, proofs: dict[str, Verification | None], directory: str) -> ModelResult:
    """Return a model with the verdict on it: the worst, where each format has a directory of its own."""
    found = [proof for path, proof in proofs.items() if proof and Path(path).is_relative_to(directory)]
    worst = next((proof for proof in found if proof.status != "proven"), found[0] if found else None)
    if worst is None:
        return model
    return msgspec.structs.replace(model, status=worst.status, verdict=worst.verdict)


def _without_paths(uploaded: UploadReport) -> Any:
    """Return what was published from a folder that is gone, without the folder."""
    return tuple(msgspec.structs.replace(repo, directory=Path()) for repo in uploaded.repos)


def _noted(key: str, report: JobReport, state: StateFile) -> JobReport:
    """Note that a job is finished; that it could not be noted does not undo it."""
    finished = Finished(
        key=key,
        job=report.id,
        outputs=tuple(model.directory for model in report.models if model.directory),
        places=tuple(repo.place for repo in report.repos),
    )
    try:
        state.add(finished)
    except OutputError as error:
        note = f"{error.message}: the next run will look at this job again"
        return msgspec.structs.replace(report, notes=(*report.notes, note))
    return report


def main(state: str, threads: str) -> None:
    """Answer jobs until there are no more."""
    send_line = claim_answers()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nothing is left behind

    def send(message: Event | Answer) -> None:
        send_line(encode(message))

    with closing(Pool(int(threads))) as pool:
        for line in _lines():
            request = Request.decode(line)
            report = run_job(request.job, StateFile(Path(state)), pool, send, fresh=request.fresh)
            send(Answer(report=report))


def _lines() -> Iterator[bytes]:
    """Yield the lines of stdin; when it ends while one is dealt with, so does the process."""
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        for line in os.fdopen(0, "rb", buffering=0, closefd=False):  # unlike sys.stdin, it has no lock to hold at exit
            lines.put(line)
        if lines.unfinished_tasks:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(GRACE)
            os._exit(1)
        lines.put(b"")

    threading.Thread(target=read, daemon=True).start()
    while line := lines.get():
        yield line
        lines.task_done()


if __name__ == "__main__":
    main(*sys.argv[1:])
