"""`PLAN.yaml`: what a batch is to do, as typed and checked data.

::

    version: 1
    defaults:
      config: hparams.json
      upload: {license: apache-2.0, language: [ko]}
    jobs:
      - source: runs/ko-small/model.ckpt-*
        part: both
        upload: {repo_id: "my-org/{name}-{part}", revision: "step-{step}"}

A job takes what it does not say from `defaults`, key by key. Paths are relative to the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from electra_convert.errors import MappingError, PlanError
from electra_convert.formats import FRAMEWORKS, TARGETS, Framework
from electra_convert.mapping import Layout
from electra_convert.options import MOST_LABELS, NATIVE_HEAD, Dtype, PartChoice
from electra_convert.yaml import read_yaml

ALL_HEADS = "all"
DEFAULT_OUTPUT = "out/{name}/{step}"
Count = Annotated[int, Meta(ge=1, le=MOST_LABELS)]
if TYPE_CHECKING:
    PlannedTarget = str
else:
    PlannedTarget = Literal[TARGETS]


def _about(text: str) -> Any:
    return Meta(description=text)


class TokenizerPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the tokenizer is made."""

    vocab: Annotated[str | None, _about("The vocab.txt; by default the one beside the checkpoint.")] = None
    lowercase: Annotated[bool | None, _about("Text is lower-cased. By default what the hparams say, else yes.")] = None
    strip_accents: Annotated[bool | None, _about("Accents are stripped. By default if text is lower-cased.")] = None


class VerifyPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How what was written is proven."""

    frameworks: Annotated[tuple[Framework, ...], _about("Frameworks to run; by default all that were written.")] = ()
    text: Annotated[str | None, _about("Real text, UTF-8, to try the head count and the casing on.")] = None
    budget: Annotated[float | None, _about("Floating-point operations one head may cost in one framework.")] = None


class UploadPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is published on the Hub. Templates have {part}, {head}, {format}, {step} and {name}."""

    repo_id: Annotated[str | None, _about("The repository, a template: org/{name}-{part}.")] = None
    revision: Annotated[str, _about("The branch, a template: step-{step}. It is made if there is none.")] = "main"
    heads: Annotated[tuple[str, ...], _about("Heads to publish; by default the native head.")] = ()
    private: Annotated[bool, _about("Make the repository private; refuse one that is public.")] = False
    create_pr: Annotated[bool, _about("Open a pull request in place of a commit.")] = False
    commit_message: Annotated[str, _about("Title of the commit.")] = ""
    allow_unverified: Annotated[bool, _about("Publish what was never proven; its card says so.")] = False
    include: Annotated[tuple[str, ...], _about("Other files to publish beside each model: a license.")] = ()
    license: Annotated[str | None, _about("License of the model, for its card: apache-2.0.")] = None
    language: Annotated[tuple[str, ...], _about("Languages of the model: [ko, en].")] = ()
    tags: Annotated[tuple[str, ...], _about("Tags beside those that follow from the model.")] = ()
    datasets: Annotated[tuple[str, ...], _about("Datasets on the Hub it was trained on.")] = ()
    base_model: Annotated[str | None, _about("The model on the Hub it was made from.")] = None
    card_template: Annotated[str | None, _about("A Jinja template for the card, in place of the own one.")] = None


class JobDefaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job may leave to `defaults`."""

    part: Annotated[PartChoice | None, _about("The part; needed only where a checkpoint has two.")] = None
    heads: Annotated[
        Annotated[tuple[str, ...], Meta(min_length=1)] | Literal["native", "all"],
        _about("Heads to convert: native, all, or a list of names."),
    ] = NATIVE_HEAD
    task: Annotated[str | None, _about("The fine-tuned task, NAME or NAME=HEAD; needed where there are several.")] = (
        None
    )
    targets: Annotated[tuple[PlannedTarget, ...], _about("Formats to write.")] = FRAMEWORKS
    config: Annotated[str | None, _about("Google's hparams JSON, a bert_config.json or config.json.")] = None
    tokenizer: Annotated[TokenizerPlan | bool, _about("How the tokenizer is made; false for none.")] = TokenizerPlan()
    labels: Annotated[tuple[str, ...], _about("Names of labels, for classification heads.")] = ()
    num_labels: Annotated[Count | None, _about("Number of labels, where they have no names.")] = None
    label_map: Annotated[str | None, _about("A tagger's <task>_label_mapping.pkl, in place of labels.")] = None
    seed: Annotated[int, Meta(ge=0, description="Seed of the heads that the checkpoint lacks.")] = 0
    layout: Annotated[Layout, _about("One file a head, or one backbone hard-linked into all heads.")] = "single"
    split_formats: Annotated[bool, _about("One directory for each format.")] = False
    dtype: Annotated[Dtype, _about("Dtype to write.")] = "float32"
    mappings: Annotated[str | None, _about("A folder of mappings instead of the package's own.")] = None
    output: Annotated[
        str, _about("The output directory, a template with {name} and {step}; or a URL, such as gs://bucket/{name}.")
    ] = DEFAULT_OUTPUT
    overwrite: Annotated[bool, _about("Replace head directories that exist.")] = False
    verify: Annotated[VerifyPlan | bool, _about("How the output is proven; false to leave it unproven.")] = VerifyPlan()
    upload: Annotated[UploadPlan | None, _about("What is published on the Hub; by default nothing.")] = None

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads as a list, `native` and `all` among them."""
        return (self.heads,) if isinstance(self.heads, str) else self.heads


class JobPlan(JobDefaults, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One checkpoint, or all that a pattern matches."""

    source: Annotated[
        str,
        _about(
            "A checkpoint: a directory, prefix, archive or URL of one (hf://org/name, google://electra-small); or a "
            "pattern, such as model.ckpt-*."
        ),
    ]
    name: Annotated[str | None, _about("What to call it; by default the name of the checkpoint's directory.")] = None


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan: defaults, and jobs."""

    version: Annotated[Literal[1], _about("The version of this schema.")]
    defaults: Annotated[JobDefaults, _about("What every job begins with.")] = JobDefaults()
    jobs: Annotated[tuple[JobPlan, ...], Meta(min_length=1, description="The jobs.")]


def read_plan(path: Path) -> tuple[JobPlan, ...]:
    """Return the jobs of a plan, each with its defaults.

    Raises:
        PlanError: It cannot be read, or is no plan; all faults are listed.
    """
    try:
        content = read_yaml(path)
    except MappingError as error:
        raise PlanError(error.message, problems=error.problems, hint=error.hint) from error
    faults = list(_faults(content))
    if faults:
        raise PlanError(
            f"{path} is no plan of a batch",
            problems=faults,
            hint="correct it; `electra-convert batch --schema` prints what may stand there, for editors too",
        )
    return tuple(_job(content, job) for job in content["jobs"])


def plan_schema() -> dict[str, Any]:
    """Return the JSON Schema of a plan."""
    return msgspec.json.schema(BatchPlan)


def _faults(content: Any) -> Iterator[str]:
    """Yield what is wrong with a plan, one thing for each of its parts."""
    if not isinstance(content, dict):
        yield "it is not a mapping with version, defaults and jobs"
        return
    defaults = content.get("defaults", {})
    try:
        msgspec.convert(defaults, JobDefaults)
    except msgspec.ValidationError as error:
        yield f"defaults: {error}"
        content = {**content, "defaults": {}}
    jobs = content.get("jobs")
    for number, job in enumerate(jobs if isinstance(jobs, list) else []):
        try:
            _job(content, job)
        except msgspec.ValidationError as error:
            yield f"jobs[{number}]: {error}"
    rest = {key: value for key, value in content.items() if key not in {"defaults", "jobs"}}
    try:
        msgspec.convert({**rest, "jobs": [{"source": "."}] if isinstance(jobs, list) and jobs else jobs}, BatchPlan)
    except msgspec.ValidationError as error:
        yield str(error)


def _job(content: Mapping[str, Any], job: Any) -> JobPlan:
    merged = _merged(content.get("defaults", {}), job) if isinstance(job, dict) else job
    return msgspec.convert(merged, JobPlan)


def _merged(defaults: Any, own: Any) -> Any:
    """Return what a job says, over what the defaults say; mappings are merged key by key."""
    if not (isinstance(defaults, Mapping) and isinstance(own, Mapping)):
        return own
    return {**defaults, **{key: _merged(defaults.get(key), value) for key, value in own.items()}}
