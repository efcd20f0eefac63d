"""A model directory as a source: what a conversion asks of a checkpoint of Google's code, answered by one of a model.

It holds one part, the one whose head it is, and its `config.json` tells what tensors do not show. There is nothing to
recognise but its names, and no checksum: its weights are identified by their hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from electra_convert.config import LABELLED_HEADS, ElectraConfig, head_config
from electra_convert.config_file import ConfigFile
from electra_convert.digest import sha256_of
from electra_convert.errors import CorruptCheckpointError, OptionError, SourceError
from electra_convert.formats import FRAMEWORK_NAMES
from electra_convert.formats.extents import contiguous_blocks
from electra_convert.formats.stored import StoredArray
from electra_convert.inventory import PARTS, Part
from electra_convert.mapping import Mappings, Topology
from electra_convert.model_directory import ModelDirectory
from electra_convert.models.files import CONFIG_FILE, NOT_OF_THE_MODEL
from electra_convert.part import SOURCE_FORMAT, Evidence, Fate, SourcePart, require_labels, require_part
from electra_convert.task import Task
from electra_convert.tensor import Tensor, numpy_dtype

DIVERGED_HINT = "the training diverged: give a model from before"


@dataclass(frozen=True, eq=False)
class ModelFiles:
    """The files of a model directory: what identifies them, and whether their values can be used.

    Args:
        directory: The directory, open.
    """

    directory: ModelDirectory
    identified_by: ClassVar[str] = "files_sha256"
    """The key of the identity in the record of a conversion."""
    unreadable: ClassVar[Mapping[str, str]] = {}
    """Tensors that cannot be read: there are none."""
    _good: set[str] = field(default_factory=set)

    @property
    def prefix(self) -> Path:
        """The directory."""
        return self.directory.path

    @property
    def name(self) -> str:
        """What to call it."""
        return self.prefix.resolve().name

    @property
    def files(self) -> tuple[Path, ...]:
        """The config and the weights."""
        return (self.prefix / CONFIG_FILE, *self.directory.files)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors, by the names of the format."""
        return self.directory.stored

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the hashes of config and weights: all of them are read.

        Raises:
            SourceError: A file cannot be read.
        """
        try:
            return hashlib.sha256("".join(map(sha256_of, self.files)).encode()).hexdigest()
        except OSError as error:
            raise SourceError(f"cannot read {error.filename}: {error.strerror}") from error

    def check(self, names: Iterable[str]) -> None:
        """See that values are numbers, and that no file changed meanwhile.

        Raises:
            CorruptCheckpointError: Some are not; it lists all. Or a file changed.
        """
        new = sorted({*names} - self._good)
        faults = [f"{name} holds NaN or infinite values" for name in new if not _is_finite(self.tensors[name])]
        if faults:
            raise CorruptCheckpointError(
                f"the weights in {self.prefix} are not all numbers", problems=faults, hint=DIVERGED_HINT
            )
        self._good.update(new)
        for tensor in self.tensors.values():
            if isinstance(values := tensor.values(), StoredArray):
                values.file.require_unchanged()


def _is_finite(tensor: Tensor) -> bool:
    import numpy as np

    blocks = contiguous_blocks(tensor.values(), numpy_dtype(tensor.dtype))
    return all(bool(np.isfinite(block).all()) for block in blocks)


@dataclass(frozen=True)
class ModelCheckpoint:
    """What a model directory holds, as a checkpoint of one part.

    Args:
        mappings: The mappings.
        directory: The directory, open.
        part: The part it is.
        tasks: None: what it was fine-tuned on is its head.
        task: None.
    """

    mappings: Mappings
    directory: ModelDirectory
    part: Part
    tasks: tuple[Task, ...] = ()
    task: Task | None = None

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor, by the name of the format."""
        return self.directory.stored

    @property
    def native_head(self) -> str:
        """The head it was trained with."""
        return self.directory.head

    @property
    def native_heads(self) -> dict[Part, str | None]:
        """The head of the part."""
        return {self.part: self.native_head}

    @property
    def topology_key(self) -> str:
        """Its class."""
        return self.mappings.inventory.heads[self.directory.head].architecture

    @property
    def format(self) -> str:
        """Its format."""
        return self.directory.target

    @property
    def topology(self) -> Topology:
        """What it is."""
        says = f"{self.topology_key}, a model of {FRAMEWORK_NAMES.get(self.format, self.format)}"
        return Topology(has=(), parts={self.part: self.native_head}, says=says)

    def with_task(self, wanted: str | None = None, heads: Collection[str] = ()) -> ModelCheckpoint:  # noqa: ARG002
        """Return this checkpoint.

        Raises:
            OptionError: A task is asked for.
        """
        if wanted is not None:
            raise OptionError(
                f"{self.directory.path} is a model with one head, {self.directory.head}: there is no task {wanted!r}",
                hint="leave --task out: the head it has is converted as it is",
            )
        return self

    def understand(
        self,
        parts: Collection[Part],
        *,
        config_file: ConfigFile | None = None,
        labels: tuple[str, ...] | None = None,
    ) -> dict[Part, SourcePart]:
        """Take the config from `config.json`, and see that the tensors are those it calls for.

        Args:
            parts: The parts, of which there is one.
            config_file: There must be none: the model has its own.
            labels: Names of labels, for the heads that have some.

        Raises:
            PartNotFoundError: Another part is asked for.
            OptionError: There is another config.
            ConfigError: The labels are not as many as the head has.
            TensorMismatchError: Tensors are missing, unknown, or of the wrong shape; all of them.
        """
        for part in parts:
            self.require_part(part)
        if config_file is not None:
            raise OptionError(
                f"{config_file.name} is given as the config of a model that has its own {CONFIG_FILE}",
                hint="leave --config out, or correct the model's config.json",
            )
        self.directory.require_whole()
        config = self._labelled(labels)
        origins = dict.fromkeys((name for name in config.__struct_fields__ if name != "labels"), CONFIG_FILE)
        return {self.part: SourcePart(self.part, config, origins, self.native_head, self.directory.bindings)}

    def ledger(self, part: Part) -> dict[str, tuple[Fate, str]]:  # noqa: ARG002  # there is one
        """Say of every tensor what becomes of it: its canonical names, or why it is left behind."""
        used: dict[str, tuple[Fate, str]] = {name: ("used", canonical) for name, canonical in self.present.items()}
        return used | {name: ("ignored", why) for name, why in self.directory.ignored.items()}

    @cached_property
    def present(self) -> dict[str, str]:
        """The tensors that are used: their canonical names, by the name of the format."""
        return {binding.name: " and ".join(spec.name for spec in binding.specs) for binding in self.directory.bindings}

    @property
    def left_out(self) -> dict[str, Any]:
        """What `config.json` says that no conversion writes, and that is more than how the file was made."""
        written = head_config(
            self.directory.config, head=self.native_head, architecture=self.topology_key, pad_token_id=0
        )
        return {
            name: value
            for name, value in self.directory.said.items()
            if name not in written.keys() | NOT_OF_THE_MODEL | {"use_cache", "num_labels"}
            and value not in (None, False)
        }

    def variables(self, source: SourcePart) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor] | None]:
        """Return what the oracle computes the model with.

        Returns:
            Its tensors as Google's variables; and those of its head by canonical name, where Google's graph has none
            such.
        """
        inventory, google = self.mappings.inventory, self.mappings.formats[SOURCE_FORMAT]
        canonical = source.canonical(self.tensors)
        backbone = inventory.backbone_tensors(source.config)
        head = inventory.head_tensors(self.native_head, source.config)
        native = inventory.origin(self.native_head)
        known = any(native in topology.parts.values() for topology in google.topologies.values())
        bindings = google.bind([*backbone, *(head if known else ())], google.resolve({"part": self.part}))
        variables = {binding.name: binding.pack(canonical) for binding in bindings}
        return variables, None if known else {spec.name: canonical[spec.name] for spec in head}

    def used(self, part: Part) -> Collection[str]:  # noqa: ARG002  # there is one
        """Return the names of the tensors of a part."""
        return self.present

    def owners(self, name: str) -> dict[Part, str]:
        """Return the part that has a tensor, with its canonical names."""
        return {self.part: self.present[name]} if name in self.present else {}

    def explain(self, name: str) -> tuple[Fate, str] | None:
        """Say why a tensor that is not used may be left behind; `None` if nothing says so."""
        return ("ignored", self.directory.ignored[name]) if name in self.directory.ignored else None

    def require_part(self, part: Part) -> None:
        """Check that a part is there.

        Raises:
            PartNotFoundError: It is not; the message says which is.
        """
        require_part(self.topology, part)

    def _labelled(self, labels: tuple[str, ...] | None) -> ElectraConfig:
        config = self.directory.config
        if labels is None:
            return config
        if self.directory.head in LABELLED_HEADS:
            require_labels(labels, Evidence(config.num_labels, f"the head {self.directory.head}"))
        return msgspec.structs.replace(config, labels=labels)


def trained_part(mappings: Mappings, head: str, asked: str | None) -> Part:
    """Return the part that a model with this head is: its head's, else the one asked for, else the discriminator."""
    trained = mappings.inventory.origin(head)
    for topology in mappings.formats[SOURCE_FORMAT].topologies.values():
        for part, native in topology.parts.items():
            if native == trained:
                return part
    return next((part for part in PARTS if part == asked), PARTS[0])
