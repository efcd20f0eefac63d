"""From a plan to jobs: sources are expanded, templates filled in, and each job has all it needs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from electra_convert.batch.checks import faults_of
from electra_convert.batch.plan_file import ALL_HEADS, DEFAULT_OUTPUT, JobPlan, TokenizerPlan, VerifyPlan, read_plan
from electra_convert.batch.report import JobReport, Outcome
from electra_convert.errors import ElectraConvertError, OptionError, PlanError, SourceError
from electra_convert.formats import TargetFormat
from electra_convert.hub.names import check_repo_id, place_name
from electra_convert.hub.publication import UploadOptions
from electra_convert.inventory import PARTS
from electra_convert.options import ConvertOptions
from electra_convert.parity.probes import BUDGET
from electra_convert.parity.verify import VerifyOptions
from electra_convert.remote.place import is_url, open_remote, shown
from electra_convert.report.card import CardMetadata
from electra_convert.source import archive_suffix, expand_source, locate, step_of
from electra_convert.template import fill

SAMPLE = {"part": "discriminator", "head": "pretraining", "format": "pytorch"}
"""What placeholders may stand for that only a checkpoint decides."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """How the output of a job is proven.

    Args:
        frameworks: The frameworks to run; none means all that were written.
        text: Real text to try assumptions on.
        budget: Floating-point operations that one head may cost in one framework.
        mappings: A folder of mappings to use instead of the package's own.
    """

    frameworks: tuple[TargetFormat, ...] = ()
    text: Path | None = None
    budget: float = BUDGET
    mappings: Path | None = None

    def options(self, source: str) -> VerifyOptions:
        """Return it as a verification takes it."""
        return VerifyOptions(source=source, **msgspec.structs.asdict(self))


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint of a batch, with all that is to be done with it.

    Args:
        id: What it is called in reports: `ko-small/1000`; no other job that can be done is called so.
        name: The `{name}` of templates.
        step: The `{step}` of templates, if the checkpoint's name has one.
        source: The checkpoint.
        place: Where it goes, as the plan says it, filled in.
        output: Where that is: a directory or a URL.
        convert: How it is converted.
        proof: How it is proven; `None` if it is not.
        upload: How it is published; `None` if it is not.
        fault: Why it cannot be done at all: its source is not there, say.
    """

    id: str
    name: str
    step: int | None
    source: str
    place: str
    output: str
    convert: ConvertOptions
    proof: Proof | None
    upload: UploadOptions | None
    fault: str = ""

    @property
    def names(self) -> dict[str, str | None]:
        """What the placeholders of templates stand for."""
        return {"name": self.name, "step": None if self.step is None else str(self.step)}

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """The repositories and branches it publishes, as far as that can be told without its checkpoint."""
        if self.upload is None:
            return ()
        part = self.convert.part
        parts = PARTS if part == "both" else (part or "{part}",)
        values = ({"part": each, "head": "{head}", "format": "{format}", **self.names} for each in parts)
        return tuple((fill(self.upload.repo, each), fill(self.upload.revision, each)) for each in values)


def report_on(job: Job, outcome: Outcome, **more: Any) -> JobReport:
    """Return a report on a job, which tells nothing that is secret in its URLs.

    Args:
        job: The job.
        outcome: What became of it.
        more: The other fields of the report.
    """
    return JobReport(id=job.id, source=shown(job.source), output=shown(job.output), outcome=outcome, **more)


class Shard(msgspec.Struct, frozen=True):
    """Every so manieth job: one machine's of several.

    Args:
        index: Which, from 1.
        count: Of how many.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/4`.

        Raises:
            OptionError: It is not like that.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise OptionError(f"--shard {text}: expected a number of a shard and their count", hint="--shard 2/4")
        return cls(int(index), int(count))


def plan_jobs(plan: Path) -> list[Job]:
    """Return the jobs of a plan, in its order; those of one pattern in the order of their steps.

    Raises:
        PlanError: It is no plan, or its jobs get in each other's way; all faults are listed.
    """
    faults: list[str] = []
    jobs: list[Job] = []
    for number, entry in enumerate(read_plan(plan)):
        try:
            faults += (f"jobs[{number}]: {fault}" for fault in faults_of(entry))
            jobs += _jobs(entry, plan.absolute().parent)
        except ElectraConvertError as error:
            faults.append(f"jobs[{number}]: " + "; ".join((error.message, *error.problems)))
    faults += _collisions(jobs)
    if faults:
        raise PlanError(f"{plan} cannot be carried out", problems=faults, hint="correct the plan")
    return jobs


def choose_jobs(jobs: Sequence[Job], *, shard: Shard | None = None, only: Sequence[str] = ()) -> list[Job]:
    """Return the jobs of one shard whose names match one of the patterns, if there are some.

    Raises:
        OptionError: A pattern matches no job at all.
    """
    if unmatched := [pattern for pattern in only if not any(fnmatchcase(job.id, pattern) for job in jobs)]:
        raise OptionError(
            f"no job is called {' or '.join(unmatched)}",
            problems=[job.id for job in jobs[:20]],
            hint="a pattern is compared with the whole name: --only 'ko-*'; --dry-run lists all names",
        )
    mine = jobs if shard is None else jobs[shard.index - 1 :: shard.count]
    return [job for job in mine if not only or any(fnmatchcase(job.id, pattern) for pattern in only)]


def _jobs(entry: JobPlan, folder: Path) -> Iterator[Job]:
    given = _resolved(entry.source, folder)
    try:
        sources = [str(source) for source in expand_source(given)]
    except SourceError as error:
        yield _impossible(entry, given, error)
        return
    for source in sources:
        try:
            yield _job(entry, source, folder)
        except SourceError as error:
            yield _impossible(entry, source, error)


def _job(entry: JobPlan, source: str, folder: Path) -> Job:
    try:
        source.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"the name of {source!a} is not UTF-8", hint="rename it") from error
    found, step = _name_and_step(source)
    name = entry.name or found
    names: dict[str, str | None] = {"name": name, "step": None if step is None else str(step)}
    place = fill(_output_template(entry, step), names)
    return Job(
        id=name if step is None else f"{name}/{step}",
        name=name,
        step=step,
        source=source,
        place=place,
        output=_resolved(place, folder),
        convert=_convert_options(entry, folder),
        proof=_proof(entry, folder),
        upload=_upload_options(entry, folder, names),
    )


def _name_and_step(source: str) -> tuple[str, int | None]:
    """Return what a checkpoint is called, and its step if its name has one; an archive is not unpacked for that."""
    path = _path_in(source)
    if suffix := archive_suffix(path.name):
        return path.name.removesuffix(suffix), None
    if (step := step_of(path.name)) is not None and not _is_folder(source):
        return path.parent.name, step
    with locate(source, values=False) as location:
        return location.name, step_of(location.prefix.name)


def _path_in(source: str) -> PurePosixPath:
    """Return the path of a source; that of a URL begins with the server, or the bucket."""
    return PurePosixPath(*open_remote(source).names) if is_url(source) else PurePosixPath(source)


def _is_folder(source: str) -> bool:
    """Say whether a source is known to be no prefix; the Hub and stores are not asked."""
    return open_remote(source).is_root if is_url(source) else Path(source).is_dir()


def _output_template(entry: JobPlan, step: int | None) -> str:
    """Return the template of the output; the default has no folder for a step where there is none."""
    return entry.output.removesuffix("/{step}") if step is None and entry.output == DEFAULT_OUTPUT else entry.output


def _impossible(entry: JobPlan, source: str, error: SourceError) -> Job:
    """Return a job that fails: others of the batch are not stopped by a source that is not there."""
    path = _path_in(source)
    stands_for_several = has_magic(path.name)
    name = entry.name or (path.parent if stands_for_several else path).name
    name = name.encode(errors="backslashreplace").decode()
    return Job(
        id=f"{name}/{path.name}" if stands_for_several else name,
        name=name,
        step=None,
        source=source.encode(errors="backslashreplace").decode(),
        place="",
        output="",
        convert=ConvertOptions(),
        proof=None,
        upload=None,
        fault=str(error),
    )


def _resolved(text: str, folder: Path) -> str:
    """Return a path as seen from anywhere; a plan's are relative to it."""
    return text if is_url(text) else os.path.normpath(folder / Path(text).expanduser())


def _path(text: str | None, folder: Path) -> Path | None:
    return None if text is None else Path(_resolved(text, folder))


def _convert_options(entry: JobPlan, folder: Path) -> ConvertOptions:
    tokenizer = TokenizerPlan() if isinstance(entry.tokenizer, bool) else entry.tokenizer
    return ConvertOptions(
        part=entry.part,
        heads=() if ALL_HEADS in entry.head_names else entry.head_names,
        task=entry.task,
        targets=entry.targets,
        config=_path(entry.config, folder),
        vocab=_path(tokenizer.vocab, folder),
        tokenizer=entry.tokenizer is not False,
        lowercase=tokenizer.lowercase,
        strip_accents=tokenizer.strip_accents,
        seed=entry.seed,
        labels=entry.labels,
        num_labels=entry.num_labels,
        label_map=_path(entry.label_map, folder),
        layout=entry.layout,
        split_formats=entry.split_formats,
        dtype=entry.dtype,
        mappings=_path(entry.mappings, folder),
        overwrite=entry.overwrite,
    )


def _proof(entry: JobPlan, folder: Path) -> Proof | None:
    if entry.verify is False:
        return None
    asked = VerifyPlan() if entry.verify is True else entry.verify
    proof = Proof(
        frameworks=asked.frameworks,
        text=_path(asked.text, folder),
        budget=BUDGET if asked.budget is None else asked.budget,
        mappings=_path(entry.mappings, folder),
    )
    proof.options(entry.source)  # tells now of what contradicts itself
    return proof


def _upload_options(entry: JobPlan, folder: Path, names: dict[str, str | None]) -> UploadOptions | None:
    upload = entry.upload
    if upload is None:
        return None
    if not upload.repo_id:
        raise OptionError("upload has no repo_id", hint='write repo_id: "org/{name}-{part}"')
    asked = msgspec.structs.asdict(upload)
    card = {name: asked.pop(name) for name in CardMetadata.__struct_fields__}
    template = asked.pop("card_template")
    repo = asked.pop("repo_id")
    check_repo_id(fill(repo, {**SAMPLE, **names}))  # tells now of what could not be filled in later
    fill(upload.revision, {**SAMPLE, **names})
    include = tuple(Path(_resolved(path, folder)) for path in asked.pop("include"))
    return UploadOptions(
        repo=repo,
        card=CardMetadata(**card),
        card_template=_path(template, folder),
        mappings=_path(entry.mappings, folder),
        include=include,
        **asked,
    )


def _collisions(jobs: Sequence[Job]) -> Iterator[str]:
    """Yield what several jobs would write to, or publish as, or be called."""
    outputs = Counter(job.output for job in jobs if job.output)
    names = Counter(job.id for job in jobs if not job.fault)
    places = Counter(place for job in jobs for place in job.places)
    yield from (
        f"{count} jobs write to {shown(output)}: tell them apart with {{name}} and {{step}} in output"
        for output, count in outputs.items()
        if count > 1
    )
    yield from (
        f"{count} jobs publish {place_name(*place)}: tell them apart with {{name}} in repo_id, or {{step}} in revision"
        for place, count in places.items()
        if count > 1
    )
    yield from (f"{count} jobs are called {name}: give each a name" for name, count in names.items() if count > 1)
