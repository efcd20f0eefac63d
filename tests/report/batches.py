"""Batches as they come, for the tests of how they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from electra_convert.batch.report import BatchReport, JobReport, ModelResult
from electra_convert.hub.upload import Change, RepoReport
from electra_convert.inventory import Part

VERDICT = "proven, given assumed: num_attention_heads = 4"
SECRET_FOLDER = Path("/home/somebody/private")
"""A folder of the machine, which no page may name."""
NATIVE: dict[Part, str] = {"discriminator": "pretraining", "generator": "masked_lm"}


def make_repo(part: Part, step: int, **changes: Any) -> RepoReport:
    """Return what became of a repository: a commit of three files, if nothing else is said."""
    repo_id = f"org/ko-small-{part}"
    report = RepoReport(
        repo_id=repo_id,
        revision=f"step-{step}",
        directory=SECRET_FOLDER / part,
        part=part,
        head=NATIVE[part],
        note="native head",
        status="proven",
        outcome="committed",
        created=("branch",),
        changes=(
            Change(path="README.md", kind="added", nbytes=4_100),
            Change(path="config.json", kind="unchanged", nbytes=700),
            Change(path="model.safetensors", kind="added", nbytes=54_000_000),
        ),
        left_alone=(),
        left_behind=(),
        notes=(),
        oid=f"{step:08x}9d41c7e2",
        url=f"https://hub.example/{repo_id}/tree/step-{step}",
    )
    return replace(report, **changes)


def make_job(step: int, **changes: Any) -> JobReport:
    """Return a job that was done: both parts proven and published, if nothing else is said."""
    parts: tuple[Part, ...] = ("discriminator", "generator")
    report = JobReport(
        id=f"ko-small/{step}",
        source=f"runs/ko-small/model.ckpt-{step}",
        output=f"out/ko-small/{step}",
        outcome="done",
        models=tuple(
            ModelResult(
                directory=str(SECRET_FOLDER / part),
                part=part,
                head=NATIVE[part],
                note="native",
                status="proven",
                verdict=VERDICT,
            )
            for part in parts
        ),
        repos=tuple(make_repo(part, step) for part in parts),
        seconds=12.0 + step % 7,
    )
    return replace(report, **changes)


def failed_jobs() -> tuple[JobReport, ...]:
    """Return a job with a broken source, one that met a full disk, and one whose upload was refused."""
    return (
        make_job(
            300,
            outcome="failed",
            stage="converting",
            error="model.ckpt-300.data-00000-of-00001 is damaged\n"
            "  - discriminator/embeddings: the checksum is 5f2e, expected 99ab\n"
            "  - electra/encoder/layer_0/output/dense/kernel: 1,024 bytes are missing\n"
            "What to do: copy the checkpoint again",
            models=(),
            repos=(),
            seconds=1.4,
        ),
        make_job(
            700,
            outcome="failed",
            stage="converting",
            error="out/ko-small/700 needs 108 MB, and the disk has 12 MB\nWhat to do: make room",
            models=(),
            repos=(),
            seconds=0.8,
        ),
        make_job(
            1100,
            outcome="failed",
            stage="uploading",
            error="the Hub does not let this token write to org/ko-small-generator (403)\n"
            "What to do: use a token that may write to it",
            repos=(make_repo("discriminator", 1100),),
            seconds=34.9,
        ),
    )


def make_batch(*jobs: JobReport, **changes: Any) -> BatchReport:
    """Return a batch of jobs."""
    report = BatchReport(plan="plan.yaml", electra_convert="0.1.0", shard="", dry_run=False, jobs=jobs, seconds=125.0)
    return replace(report, **changes)


def batch_of_24(**changes: Any) -> BatchReport:
    """Return a batch of 24 jobs, of which three failed and four were done before."""
    failed = {job.id: job for job in failed_jobs()}
    jobs = [make_job(step) for step in range(100, 2500, 100)]
    for number in range(4):
        jobs[number] = replace(
            jobs[number],
            outcome="already done",
            models=(),
            repos=(),
            places=tuple(f"org/ko-small-{part} at step-{100 * number + 100} (1a2b3c4d)" for part in NATIVE),
            seconds=0.0,
        )
    done = (failed.get(job.id, job) for job in jobs)
    return make_batch(*done, **changes)


def dry_run() -> BatchReport:
    """Return a dry run of two jobs, one of which was done before."""
    places = ("org/ko-small-discriminator at step-100", "org/ko-small-generator at step-100")
    planned = make_job(100, outcome="planned", models=(), repos=(), places=places, seconds=0.0)
    done = make_job(200, outcome="already done", models=(), repos=(), places=("org/x (1a2b3c4d)",), seconds=0.0)
    return make_batch(planned, done, dry_run=True, seconds=0.2)
