"""What a checkpoint is, without reading a tensor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from electra_convert.config_file import read_config_file
from electra_convert.errors import ConfigError, TensorMismatchError
from electra_convert.inventory import Part
from electra_convert.mapping import load_mappings
from electra_convert.model_checkpoint import ModelCheckpoint
from electra_convert.opening import open_located
from electra_convert.part import Checkpoint
from electra_convert.source import locate
from electra_convert.task import Task


class TensorReport(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of a checkpoint.

    Args:
        name: Google's name.
        shape: Lengths of its axes.
        dtype: Its element type.
        canonical: Its canonical name in each part that has it.
        explanation: Why it is in no part: the rule that says so. Empty if it is in one, or if nothing is known of it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    canonical: dict[Part, str]
    explanation: str


class InspectedPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a checkpoint.

    Args:
        part: The part.
        native_head: The head it was trained on, if it has one that can be converted.
        config: Its config; none if it cannot be told.
        origins: What each field of it is known from.
        assumed: What follows Google's rule, for nothing shows it.
        parameters: How many numbers it has.
        fault: Why it cannot be converted; empty if it can.
    """

    part: Part
    native_head: str | None
    config: dict[str, Any] | None
    origins: dict[str, str]
    assumed: dict[str, Any]
    parameters: int
    fault: str


class InspectedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that a checkpoint was fine-tuned on.

    Args:
        name: Its name.
        heads: The head it has; several, if nothing shows which of them.
        outputs: How many outputs it has, where its head does not tell.
        says: What it is, in a phrase.
        refusal: Why it cannot be converted; empty if it can.
    """

    name: str
    heads: tuple[str, ...]
    outputs: int | None
    says: str
    refusal: str


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint is.

    Args:
        source: Name of its files.
        identity: SHA-256 of its index; empty for a model, whose values would have to be read.
        topology: What it is, in a sentence.
        note: What to know about such checkpoints.
        parts: Its parts.
        tasks: What it was fine-tuned on.
        tensors: Its tensors, sorted by name.
        unreadable: Tensors of dtypes that no model has, with the reason.
        nbytes: Bytes of all tensors.
    """

    source: str
    identity: str
    topology: str
    note: str
    parts: list[InspectedPart]
    tasks: list[InspectedTask]
    tensors: list[TensorReport]
    unreadable: dict[str, str]
    nbytes: int


def inspect_checkpoint(
    source: str | os.PathLike[str] = ".",
    *,
    step: int | None = None,
    config: str | os.PathLike[str] | None = None,
    mappings: str | os.PathLike[str] | None = None,
) -> Inspection:
    """Say what a checkpoint is, or a model: what it holds is read, and no values.

    Args:
        source: A checkpoint: its directory, prefix, one of its files, an archive of it, or the URL of one of these; or
            the directory of a model.
        step: The step to inspect; by default the one the `checkpoint` file names.
        config: Google's hparams, or a `bert_config.json` or `config.json`.
        mappings: A folder of mappings to use instead of the package's own.

    Raises:
        ElectraConvertError: The subclass says what went wrong.
    """
    with locate(source, step=step, values=False) as location:
        known = load_mappings(None if mappings is None else Path(mappings))
        files, checkpoint = open_located(location, known)
        checkpoint = checkpoint.with_task()
        file = Path(config) if config is not None else None
        return Inspection(
            source=files.name,
            identity="" if location.is_model else files.identity,
            topology=checkpoint.topology.says,
            note=checkpoint.topology.note,
            parts=[_part(checkpoint, part, file) for part in checkpoint.topology.parts],
            tasks=[_task(task) for task in checkpoint.tasks],
            tensors=[_tensor(checkpoint, name) for name in files.tensors],
            unreadable=dict(files.unreadable),
            nbytes=sum(tensor.nbytes for tensor in files.tensors.values()),
        )


def _part(checkpoint: Checkpoint | ModelCheckpoint, part: Part, config: Path | None) -> InspectedPart:
    known: dict[str, Any] = {"config": None, "origins": {}, "assumed": {}, "fault": ""}
    try:
        source = checkpoint.understand([part], config_file=read_config_file(config) if config else None)[part]
    except (ConfigError, TensorMismatchError) as error:
        known["fault"] = str(error)
    else:
        known["config"] = {field: getattr(source.config, field) for field in source.origins}
        known["origins"], known["assumed"] = dict(source.origins), source.assumed
    return InspectedPart(
        part=part,
        native_head=checkpoint.native_heads[part],
        parameters=sum(checkpoint.tensors[name].size for name in checkpoint.used(part)),
        **known,
    )


def _task(task: Task) -> InspectedTask:
    return InspectedTask(name=task.name, heads=task.heads, outputs=task.outputs, says=task.says, refusal=task.refusal)


def _tensor(checkpoint: Checkpoint | ModelCheckpoint, name: str) -> TensorReport:
    tensor = checkpoint.tensors[name]
    owners = checkpoint.owners(name)
    explained = None if owners else checkpoint.explain(name)
    return TensorReport(
        name=name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        canonical=owners,
        explanation=": ".join(explained) if explained else "",
    )
