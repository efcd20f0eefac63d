"""The hash of a job: it changes with all that decides the result, and with nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import fields, replace

from electra_convert.batch import job_key as job_key_module
from electra_convert.batch import jobs
from electra_convert.batch.job_key import job_key
from electra_convert.batch.jobs import Job, plan_jobs
from electra_convert.batch.plan_file import JobPlan, TokenizerPlan, UploadPlan, VerifyPlan
from electra_convert.errors import ElectraConvertError
from electra_convert.mapping import default_directory

PLANNED: dict[str, Any] = {
    "source": "runs/ko/model.ckpt-30",
    "config": "hparams.json",
    "mappings": "mine",
    "tokenizer": {"vocab": "mine.txt"},
    "verify": {"text": "text.txt"},
    "upload": {"repo_id": "org/{name}", "card_template": "card.md"},
}
FILES = ("hparams.json", "mine.txt", "text.txt", "card.md")
CHANGES: dict[str, tuple[Any, ...]] = {
    "source": (),
    "name": ("kim",),
    "part": ("discriminator",),
    "heads": ("all", ["base"], ["base", "pretraining"]),
    "targets": (["pytorch"], ["flax"]),
    "config": (None,),
    "tokenizer": (False, {"vocab": "runs/ko/vocab.txt"}),
    "task": ("mnli", "mnli=token_classification"),
    "labels": (["B", "I"],),
    "label_map": ("hparams.json",),
    "num_labels": (3,),
    "seed": (1,),
    "layout": ("shared",),
    "split_formats": (True,),
    "dtype": ("float16",),
    "mappings": (None,),
    "output": ("elsewhere",),
    "overwrite": (True,),
    "verify": (False, True),
    "upload": (None,),
    "tokenizer.vocab": (None,),
    "tokenizer.lowercase": (True, False),
    "tokenizer.strip_accents": (True, False),
    "verify.frameworks": (["pytorch"], ["flax", "pytorch"]),
    "verify.text": (None,),
    "verify.budget": (1e6,),
    "upload.repo_id": ("org/ko", "org/{name}-{part}"),
    "upload.revision": ("step-{step}",),
    "upload.heads": (["base"],),
    "upload.private": (True,),
    "upload.create_pr": (True,),
    "upload.commit_message": ("Final",),
    "upload.allow_unverified": (True,),
    "upload.include": (["hparams.json"],),
    "upload.license": ("mit",),
    "upload.language": (["ko"],),
    "upload.tags": (["x"],),
    "upload.datasets": (["org/corpus"],),
    "upload.base_model": ("org/base",),
    "upload.card_template": (None,),
}
"""Of each key of a job, values that give another job than `PLANNED`."""


@pytest.fixture
def folder(checkpoint: Callable[..., Path]) -> Path:
    """A folder with all the files that the plan names."""
    folder = checkpoint("runs/ko").parents[1]
    for name in FILES:
        (folder / name).write_text("{}")
    shutil.copytree(default_directory(), folder / "mine")
    return folder


@pytest.fixture
def job(folder: Path, write_plan: Callable[..., Path]) -> Job:
    """A job that names a file wherever one may be named."""
    plan = write_plan(PLANNED, output="out", targets=["pytorch", "flax"])
    assert plan.parent == folder
    return only_job(plan)


def only_job(plan: Path) -> Job:
    """Return the only job of a plan."""
    (job,) = plan_jobs(plan)
    assert not job.fault
    return job


def changed(planned: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a job of a plan with another value at a key; dots lead into mappings."""
    first, _, rest = key.partition(".")
    return {**planned, first: changed(planned[first], rest, value) if rest else value}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in CHANGES.items() for value in values])
def test_each_option_counts(
    job: Job, write_plan: Callable[..., Path], key: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other value of any option gives another hash."""
    monkeypatch.setattr(jobs, "faults_of", lambda _: ())  # one option alone may contradict the others
    other = only_job(write_plan(changed(PLANNED, key, value), output="out", targets=["pytorch", "flax"]))
    assert job_key(other) != job_key(job)


def test_no_option_is_left_out() -> None:
    """Every key that a plan may have is among those that are tried."""
    nested: dict[str, type[msgspec.Struct]] = {"tokenizer": TokenizerPlan, "verify": VerifyPlan, "upload": UploadPlan}
    assert set(CHANGES) == {
        *(field.name for field in fields(JobPlan)),
        *(f"{name}.{field.name}" for name, struct in nested.items() for field in fields(struct)),
    }


def test_a_checkpoint_is_known_by_the_mappings_of_the_job(folder: Path, job: Job) -> None:
    """What the package's own mappings do not know may be what the folder describes."""
    mapping = folder / "mine" / "google_tf1.yaml"
    mapping.write_text(mapping.read_text().replace("electra/", "another/"))
    with pytest.raises(ElectraConvertError, match="does not hold the variables"):
        job_key(job)


@pytest.mark.parametrize("name", [*FILES, "runs/ko/vocab.txt", "mine/pytorch.yaml"])
def test_files_count_by_content(folder: Path, job: Job, name: str) -> None:
    """A file that the plan names, or that belongs to the checkpoint, counts: not when, but what was written."""
    before = job_key(job)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content + b"\n")
    assert job_key(job) != before
    (folder / name).write_bytes(content)
    assert job_key(job) == before


def test_names_in_a_folder_count(folder: Path, job: Job) -> None:
    """Files of a folder count by their names too."""
    (folder / "mine" / "notes").touch()
    before = job_key(job)
    (folder / "mine" / "notes").rename(folder / "mine" / "notes-2")
    assert job_key(job) != before


def test_the_checkpoint_counts(checkpoint: Callable[..., Path], job: Job) -> None:
    """Another checkpoint in the same place, with the same vocabulary, gives another hash."""
    before = job_key(job)
    checkpoint("runs/ko", 30, fixture="electra_tiny_noproj")
    assert job_key(job) != before


def test_the_version_counts(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another version of this package did is done again."""
    before = job_key(job)
    monkeypatch.setattr(job_key_module, "__version__", "99.0")
    assert job_key(job) != before


def test_neither_what_it_is_called_nor_where_it_lies_counts(folder: Path, job: Job) -> None:
    """The same checkpoint in another folder, under another name in reports, is the same job, in any process."""
    shutil.move(folder / "runs" / "ko", folder / "moved")
    moved = replace(job, id="other", source=str(folder / "moved" / "model.ckpt-30"))
    shutil.copytree(folder / "moved", folder / "runs" / "ko")
    assert job_key(moved) == job_key(job)
    shutil.copytree(folder / "mine", folder / "other")
    assert job_key(replace(job, convert=replace(job.convert, mappings=folder / "other"))) == job_key(job)


@pytest.mark.parametrize("name", [*FILES, "runs/ko/model.ckpt-30.index"])
def test_a_file_that_is_not_there_is_told(folder: Path, job: Job, name: str) -> None:
    """A file that is named and missing is an expected error, which names it."""
    (folder / name).unlink()
    with pytest.raises(ElectraConvertError, match=str((folder / name).with_suffix(""))):
        job_key(job)
