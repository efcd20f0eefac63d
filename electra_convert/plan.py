"""What a conversion will write: every directory, every file, every tensor, before anything is written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from electra_convert._version import __version__
from electra_convert.config import ElectraConfig, head_config
from electra_convert.config_file import ConfigFile
from electra_convert.errors import SourceError
from electra_convert.formats import Contents, TargetFormat, module_of
from electra_convert.initialize import initial_tensor
from electra_convert.inventory import Part, TensorSpec
from electra_convert.json_text import indented_json
from electra_convert.mapping import Mappings
from electra_convert.mirrored import Mirrored
from electra_convert.model_checkpoint import ModelCheckpoint
from electra_convert.models.files import CONFIG_FILE, read_json
from electra_convert.options import ConvertOptions
from electra_convert.part import ASSUMED, Checkpoint, Fate, SourcePart
from electra_convert.tensor import ITEM_SIZES, Tensor
from electra_convert.tokenizer import (
    MAX_FILE_BYTES,
    TOKENIZER_FILES,
    VOCABULARY_FILE,
    Vocabulary,
    check_casing,
    check_fits,
    tokenizer_files,
)
from electra_convert.whole_file import read_whole

TensorFate = Literal["copied", "constructed", "tied", "initialised"]

RECORD_FILE = "conversion.json"
NATIVE = "native head"
FINE_TUNED = "fine-tuned on"
BYTES_PER_TENSOR = 2048
"""What a format needs for a tensor beside its values, at most; a little more is asked for than will be used."""


class WeightFile(msgspec.Struct, frozen=True):
    """A file of weights.

    Args:
        path: Its place in the head's directory.
        target: Its format.
        contents: What it holds.
        backbone: It is the backbone that all heads of a part share.
    """

    path: PurePosixPath
    target: TargetFormat
    contents: Contents
    backbone: bool = False

    @property
    def value_bytes(self) -> int:
        """Bytes its values take."""
        return sum(tensor.size for tensor in self.contents.tensors) * ITEM_SIZES[self.contents.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes it takes on disk, at most."""
        return self.value_bytes + BYTES_PER_TENSOR * (len(self.contents.tensors) + 8)


class HeadPlan(msgspec.Struct, frozen=True):
    """The directory of one head.

    Args:
        part: The part.
        head: The head.
        directory: Its place, from the output directory.
        architecture: Its class, without a framework's prefix.
        fates: What each of its tensors is, by canonical name, with the explanation.
        parameters: How many numbers the model has.
        weights: Its files of weights.
        documents: Its other files, by their place.
        note: What a user should know about this head.
    """

    part: Part
    head: str
    directory: Path
    architecture: str
    fates: Mapping[str, tuple[TensorFate, str]]
    parameters: int
    weights: tuple[WeightFile, ...]
    documents: Mapping[PurePosixPath, bytes]
    note: str

    def count(self, fate: TensorFate) -> int:
        """Count the tensors with this fate."""
        return sum(found == fate for found, _ in self.fates.values())


class Tokenizer(msgspec.Struct, frozen=True):
    """What the tokenizer adds to every directory.

    Args:
        files: Its files, by name; none, if no tokenizer is written.
        lowercase: Whether it lower-cases.
        origin: How that is known.
        strip_accents: Whether it strips accents; `None` means exactly when it lower-cases.
        pad_token_id: Id of the padding token.
        notes: What a user should know.
        copied: They are those of the model that is converted, and not made from its vocabulary.
    """

    files: Mapping[str, bytes] = {}
    lowercase: bool = True
    origin: str = ""
    strip_accents: bool | None = None
    pad_token_id: int = 0
    notes: tuple[str, ...] = ()
    copied: bool = False

    @property
    def assumed(self) -> dict[str, Any]:
        """What follows Google's default because nothing shows it."""
        return {"lowercase": self.lowercase} if self.origin == ASSUMED else {}

    @property
    def record(self) -> dict[str, Any] | None:
        """What the record of a conversion says of it."""
        if not self.files or self.copied:
            return None
        return {
            "lowercase": {"value": self.lowercase, "from": self.origin},
            "strip_accents": self.strip_accents,
            "vocabulary_sha256": hashlib.sha256(self.files[VOCABULARY_FILE]).hexdigest(),
            "notes": self.notes,
        }


def plan_tokenizer(
    options: ConvertOptions, config_file: ConfigFile | None, vocabulary: Vocabulary | None, config: ElectraConfig
) -> Tokenizer:
    """Build the tokenizer's files.

    Args:
        options: The request.
        config_file: What the user says about the model.
        vocabulary: The vocabulary, if there is one.
        config: The part's config.

    Raises:
        VocabularyError: The vocabulary does not fit the model.
    """
    if not options.tokenizer:
        return Tokenizer()
    if vocabulary is None:
        return Tokenizer(notes=("there is no vocab.txt beside the checkpoint, so no tokenizer: give one with --vocab",))
    lowercase, origin = _casing(options, config_file)
    files = tokenizer_files(
        vocabulary, lowercase=lowercase, strip_accents=options.strip_accents, max_length=config.max_position_embeddings
    )
    checks = check_fits(vocabulary, config.vocab_size), check_casing(vocabulary, lowercase=lowercase)
    notes = (*vocabulary.notes, *filter(None, checks))
    return Tokenizer(files, lowercase, origin, options.strip_accents, vocabulary.tokens.index("[PAD]"), notes)


def copied_tokenizer(directory: Path) -> Tokenizer:
    """Return the files of a model's tokenizer, as they are.

    Raises:
        SourceError: One cannot be read.
    """
    pad_token_id = read_json(directory / CONFIG_FILE).get("pad_token_id", 0)
    try:
        files = {
            name: read_whole(directory / name, MAX_FILE_BYTES)
            for name in TOKENIZER_FILES
            if os.path.lexists(directory / name)
        }
    except OSError as error:
        raise SourceError(
            f"{error.filename} of the model's tokenizer cannot be read: {error.strerror}",
            hint="see that you may read it, or leave the tokenizer out with --no-tokenizer",
        ) from error
    notes = () if files else (f"there is no tokenizer in {directory}, so none is written: give one with --vocab",)
    return Tokenizer(files, pad_token_id=pad_token_id if isinstance(pad_token_id, int) else 0, notes=notes, copied=True)


def _casing(options: ConvertOptions, config_file: ConfigFile | None) -> tuple[bool, str]:
    """Return whether text is lower-cased, and how that is known."""
    if options.lowercase is not None:
        return options.lowercase, "the options"
    if config_file is not None and config_file.lowercase is not None:
        return config_file.lowercase, f"{config_file.name}: do_lower_case"
    return True, ASSUMED


@dataclass(frozen=True)
class Planner:
    """Plans the heads of one part.

    Args:
        checkpoint: The checkpoint.
        identity: What identifies it: prefix and hash.
        source: The part, understood.
        options: The request.
        tokenizer: The tokenizer's files.
    """

    checkpoint: Checkpoint | ModelCheckpoint
    identity: Mapping[str, str]
    source: SourcePart
    options: ConvertOptions
    tokenizer: Tokenizer

    @property
    def mappings(self) -> Mappings:
        """The mappings."""
        return self.checkpoint.mappings

    @cached_property
    def ledger(self) -> dict[str, tuple[Fate, str]]:
        """What becomes of every tensor of the checkpoint in this part."""
        return self.checkpoint.ledger(self.source.part)

    @cached_property
    def held(self) -> dict[str, tuple[Tensor, TensorFate, str]]:
        """The canonical tensors the checkpoint holds: each with its fate, and the name of what it is made of."""
        return {
            tensor.name: (tensor, "constructed" if isinstance(binding, Mirrored) else "copied", binding.name)
            for binding in self.source.bindings
            for tensor in binding.unpack(self.checkpoint.tensors[binding.name])
        }

    def plan(self, head: str, directory: Path) -> HeadPlan:
        """Plan one head."""
        inventory = self.mappings.inventory
        backbone = inventory.backbone_tensors(self.source.config)
        own = inventory.head_tensors(head, self.source.config)
        canonical, fates = self._canonical([*backbone, *own])
        for tied, to in inventory.tied_tensors(head).items():
            fates[tied] = ("tied", to)
        folders = [(PurePosixPath(target), [target]) for target in self.options.formats]
        if not self.options.split_formats:
            folders = [(PurePosixPath(), list(self.options.formats))]
        weights: list[WeightFile] = []
        documents: dict[PurePosixPath, bytes] = {}
        for folder, targets in folders:
            for target in targets:
                files = self._weights(folder, target, head, (backbone, own), canonical)
                weights += files
                if self.options.layout == "shared":
                    documents[folder / module_of(target).INDEX] = _index(files)
            documents |= {folder / name: content for name, content in self._documents(head, fates, targets).items()}
        architecture = inventory.heads[head].architecture
        parameters = sum(tensor.size for tensor in canonical.values())
        note = self._note(head)
        return HeadPlan(
            self.source.part,
            head,
            directory,
            architecture,
            fates,
            parameters,
            tuple(weights),
            documents,
            note,
        )

    def _canonical(self, specs: Sequence[TensorSpec]) -> tuple[dict[str, Tensor], dict[str, tuple[TensorFate, str]]]:
        """Return every tensor of a head by its canonical name: from the checkpoint, or drawn."""
        tensors: dict[str, Tensor] = {}
        fates: dict[str, tuple[TensorFate, str]] = {}
        for spec in specs:
            if spec.name in self.held:
                tensors[spec.name], fate, origin = self.held[spec.name]
                fates[spec.name] = (fate, origin)
            else:
                how = self.mappings.inventory.initializers[spec.leaf]
                deviation = self.source.config.initializer_range
                tensors[spec.name] = initial_tensor(spec, how, seed=self.options.seed, deviation=deviation)
                fates[spec.name] = ("initialised", how)
        return tensors, fates

    def _weights(
        self,
        folder: PurePosixPath,
        target: TargetFormat,
        head: str,
        specs: tuple[list[TensorSpec], list[TensorSpec]],
        canonical: Mapping[str, Tensor],
    ) -> list[WeightFile]:
        """Return the files of one head in one format: one, or a shard of backbone and a shard of head."""
        mapping, module = self.mappings.of(target), module_of(target)
        values = mapping.resolve({"part": self.source.part, "head": head, "layout": self.options.layout})
        backbone, own = ([bound.pack(canonical) for bound in mapping.bind(group, values)] for group in specs)
        repeated = {
            layer: [mapping.name(spec, values) for row in rows for spec in specs[0] if spec.row == row]
            for layer, rows in mapping.repeated.items()
        }
        model = self.mappings.inventory.heads[self.mappings.inventory.origin(head)].architecture

        def file(name: str, tensors: list[Tensor], *, sharded: bool, is_backbone: bool = False) -> WeightFile:
            contents = Contents(tensors, self.options.dtype, model, repeated, sharded)
            return WeightFile(folder / name, target, contents, is_backbone)

        if self.options.layout == "single":
            return [file(module.SINGLE, [*backbone, *own], sharded=False)]
        shards = [shard for shard in (backbone, own) if shard]
        return [
            file(
                module.SHARD.format(number=number, count=len(shards)),
                shard,
                sharded=True,
                is_backbone=shard is backbone,
            )
            for number, shard in enumerate(shards, start=1)
        ]

    def _documents(
        self, head: str, fates: Mapping[str, tuple[TensorFate, str]], targets: Sequence[TargetFormat]
    ) -> dict[str, bytes]:
        architecture = self.mappings.inventory.heads[head].architecture
        config = head_config(
            self.source.config, head=head, architecture=architecture, pad_token_id=self.tokenizer.pad_token_id
        )
        record = {
            "electra_convert": __version__,
            "source": self.identity,
            "part": self.source.part,
            "head": head,
            **self._task_record(),
            "architecture": architecture,
            "options": {
                "formats": targets,
                "layout": self.options.layout,
                "dtype": self.options.dtype,
                "seed": self.options.seed,
            },
            "config": {
                field: {"value": getattr(self.source.config, field), "from": origin}
                for field, origin in sorted(self.source.origins.items())
            },
            "labels": self.source.config.labels,
            "tokenizer": self.tokenizer.record,
            "assumed": self.source.assumed | self.tokenizer.assumed,
            "mappings": self.mappings.hashes,
            "note": self._note(head),
            "tensors": {name: {"fate": fate, "from": why} for name, (fate, why) in fates.items()},
            "source_tensors": {
                name: {"fate": fate, "why": why} for name, (fate, why) in self.head_ledger(fates).items()
            },
        }
        return {CONFIG_FILE: to_json(config), RECORD_FILE: to_json(record), **self.tokenizer.files}

    def _task_record(self) -> dict[str, Any]:
        task = self.checkpoint.task
        return {"task": {"name": task.name, "head": task.head, "notes": task.notes}} if task else {}

    def head_ledger(
        self, fates: Mapping[str, tuple[TensorFate, str]]
    ) -> dict[str, tuple[Fate | Literal["other head"], str]]:
        """Return the ledger of the part as one head sees it: the native head's tensors may be another's."""
        used = {origin for fate, origin in fates.values() if fate in ("copied", "constructed")}
        return {
            name: ("other head", self.source.native_head or "") if fate == "used" and name not in used else (fate, why)
            for name, (fate, why) in self.ledger.items()
        }

    def _note(self, head: str) -> str:
        inventory, native = self.mappings.inventory, self.source.native_head
        if native is None or inventory.origin(head) != inventory.origin(native):
            return "" if head == "base" else "untrained: fine-tune it"
        if head != native:
            return "copied, not trained causally" if head == "causal_lm" else "copied, trained causally"
        return f"{NATIVE}, {FINE_TUNED} {self.checkpoint.task.name}" if self.checkpoint.task else NATIVE


def is_native(note: str) -> bool:
    """Say whether the note on a head says that it is the native one."""
    return note.partition(",")[0] == NATIVE


def _index(files: Sequence[WeightFile]) -> bytes:
    return to_json(
        {
            "metadata": {"total_size": sum(file.value_bytes for file in files)},
            "weight_map": {
                tensor.name: file.path.name
                for file in files
                for tensor in sorted(file.contents.tensors, key=lambda tensor: tensor.name)
            },
        }
    )


def to_json(value: Any) -> bytes:
    """Return indented JSON, the same bytes for the same value."""
    return indented_json(value) + b"\n"
