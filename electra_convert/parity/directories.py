"""The directories that a verification is about: each with its head, its formats, and the record of its conversion."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from electra_convert.errors import CheckpointNotFoundError, ConfigError, CorruptCheckpointError, ElectraConvertError
from electra_convert.formats import TARGETS, TargetFormat, module_of, weight_files
from electra_convert.inventory import Inventory, Part
from electra_convert.mapping import Layout
from electra_convert.model_checkpoint import ModelFiles
from electra_convert.model_directory import named_head
from electra_convert.models.files import CONFIG_FILE, read_json
from electra_convert.options import Dtype
from electra_convert.part import SOURCE_FORMAT
from electra_convert.plan import RECORD_FILE, TensorFate
from electra_convert.tokenizer import VOCABULARY_FILE, read_vocabulary

DEPTH = 3
"""Levels below an output directory at which heads lie: part, head, format."""


class RecordedOptions(msgspec.Struct, frozen=True):
    """The options of a conversion that decide what it writes."""

    formats: tuple[TargetFormat, ...]
    layout: Layout
    dtype: Dtype
    seed: int


class RecordedField(msgspec.Struct, frozen=True):
    """A value, and what it was known from."""

    value: Any
    origin: str = msgspec.field(name="from")


class RecordedSource(msgspec.Struct, frozen=True):
    """The checkpoint a conversion read."""

    checkpoint: str
    topology: str
    format: str = SOURCE_FORMAT
    index_sha256: str = ""
    files_sha256: str = ""

    @property
    def identity(self) -> str:
        """What identifies it: the hash of a checkpoint's index, or of a model's files."""
        return self.index_sha256 or self.files_sha256


class RecordedTokenizer(msgspec.Struct, frozen=True):
    """The tokenizer a conversion wrote."""

    lowercase: RecordedField
    vocabulary_sha256: str
    strip_accents: bool | None = None
    notes: tuple[str, ...] = ()


class RecordedTask(msgspec.Struct, frozen=True):
    """The fine-tuned task whose head a conversion wrote."""

    name: str
    head: str
    notes: tuple[str, ...] = ()


class RecordedTensor(msgspec.Struct, frozen=True):
    """A tensor of the model, and where it came from."""

    fate: TensorFate
    origin: str = msgspec.field(name="from")


class Record(msgspec.Struct, frozen=True):
    """What `conversion.json` says, as far as a verification or a model card needs it."""

    electra_convert: str
    source: RecordedSource
    part: Part
    head: str
    options: RecordedOptions
    config: dict[str, RecordedField]
    labels: tuple[str, ...]
    assumed: dict[str, Any]
    tensors: dict[str, RecordedTensor]
    note: str = ""
    tokenizer: RecordedTokenizer | None = None
    task: RecordedTask | None = None


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """A directory that holds one model.

    Args:
        path: Where it is.
        head: Its head.
        formats: The formats it holds weights in.
        record: What its conversion says; none, if something else wrote it.
    """

    path: Path
    head: str
    formats: tuple[TargetFormat, ...]
    record: Record | None


def find_directories(output: Path, inventory: Inventory) -> list[Directory]:
    """Return the models in a directory: itself, or those below it, in the order of the inventory.

    Raises:
        CheckpointNotFoundError: There is none.
        ConfigError: A config or a record cannot be read, or names no head.
        CorruptCheckpointError: The record says there should be weights that are not there.
    """
    marks = (CONFIG_FILE, RECORD_FILE)  # a head that lost the one is known by the other
    paths = [path for path in _candidates(output) if any((path / mark).is_file() for mark in marks)]
    if not paths:
        raise CheckpointNotFoundError(
            f"there is no model in {output}: no {CONFIG_FILE} there, nor in {DEPTH} levels below",
            hint="name the output directory of a conversion, or a directory with config.json and weights",
        )
    found = [_read(path, inventory) for path in paths]
    order = list(inventory.heads)
    return sorted(found, key=lambda each: (str(each.record and each.record.part), order.index(each.head), each.path))


def _candidates(output: Path) -> Iterator[Path]:
    yield output
    for depth in range(1, DEPTH + 1):
        yield from (path for path in sorted(output.glob("/".join("*" * depth))) if _is_visible(path, output))


def _is_visible(path: Path, output: Path) -> bool:
    return path.is_dir() and not any(name.startswith(".") for name in path.relative_to(output).parts)


def _read(path: Path, inventory: Inventory) -> Directory:
    record = _record(path, inventory)
    formats = tuple(target for target in TARGETS if weight_files(path, target))
    if record is not None and (lost := set(record.options.formats) - set(formats)):
        raise CorruptCheckpointError(
            f"{path} has lost its weights for {' and '.join(sorted(lost))}",
            problems=[f"{module_of(target).SINGLE} is not there" for target in sorted(lost)],
            hint="convert again",
        )
    if not formats:
        raise CheckpointNotFoundError(
            f"there are no weights in {path}: none of {', '.join(module_of(target).SINGLE for target in TARGETS)}",
            hint="name a directory with config.json and weights",
        )
    return Directory(
        path=path, head=record.head if record else named_head(path, inventory), formats=formats, record=record
    )


def _record(path: Path, inventory: Inventory) -> Record | None:
    file = path / RECORD_FILE
    if not os.path.lexists(file):
        return None
    said = read_json(file)
    if said.get("format") == SOURCE_FORMAT:
        raise CheckpointNotFoundError(
            f"{path} is a checkpoint for Google's code, and no model of a framework",
            hint=f"name its directory, and what it was made of: electra-convert verify {path} --source SOURCE",
        )
    try:
        record = msgspec.convert(said, Record)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{file} is not the record of a conversion: {error}", hint="convert again, or remove it to audit the rest"
        ) from error
    if record.head not in inventory.heads:
        raise ConfigError(f"{file} names the head {record.head!r}, which there is not", hint="convert again")
    return record


def as_directory(files: object) -> Directory | None:
    """Return a source as what a framework runs, if it is a model; `None` for a checkpoint of Google's code."""
    if not isinstance(files, ModelFiles):
        return None
    model = files.directory
    return Directory(path=model.path, head=model.head, formats=(model.target,), record=None)


def mask_id(directory: Directory) -> int | None:
    """Return the id of `[MASK]`, where the directory has a vocabulary that can be read."""
    file = directory.path / VOCABULARY_FILE
    try:
        return read_vocabulary(file).ids().get("[MASK]") if file.is_file() else None
    except ElectraConvertError:
        return None
