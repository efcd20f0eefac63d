"""A checkpoint that outputs are proven against, understood as their conversions understood it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from electra_convert.config import ElectraConfig
from electra_convert.config_file import ConfigFile, read_config_file
from electra_convert.errors import CheckpointNotFoundError, ConfigError, ElectraConvertError, OptionError
from electra_convert.formats.google_tf1 import GoogleCheckpoint
from electra_convert.initialize import initial_tensor
from electra_convert.inventory import Part, TensorSpec
from electra_convert.mapping import Mappings
from electra_convert.model_checkpoint import ModelCheckpoint, ModelFiles
from electra_convert.opening import Opened, open_located
from electra_convert.origin import recall
from electra_convert.parity.checks import check_config, check_round_trip, check_tokenizer
from electra_convert.parity.directories import Directory, Record, RecordedTask, as_directory, mask_id
from electra_convert.parity.heads import Subject
from electra_convert.parity.probes import Probe, make_probes
from electra_convert.parity.reference import OracleReference, require_oracle
from electra_convert.parity.report import Check
from electra_convert.part import ASSUMED, UNPROVEN, Checkpoint
from electra_convert.plan import RECORD_FILE
from electra_convert.progress import Progress
from electra_convert.source import Location, locate
from electra_convert.tensor import Tensor

SHOWN_BY_OUTPUTS = ("num_attention_heads", "hidden_act", "layer_norm_eps")
"""Fields that no tensor shows, and that decide what the model computes."""

PartKey = tuple[Part, str, str, int, tuple[str, ...], RecordedTask | None]


@dataclass(frozen=True)
class KnownPart:
    """One part as a conversion understood it.

    Args:
        record: The record of a conversion of it.
        checkpoint: The checkpoint, with the task that was converted.
        config: Its config: what the tensors show, and for the rest what the record, or a config file, says.
        origins: What each field is known from.
        native_head: The head it was trained on.
        held: The canonical tensors that the checkpoint holds.
        reference: The oracle on it.
        probes: The probes.
        damage: What its checksums say; empty if they are right.
    """

    record: Record
    checkpoint: Checkpoint | ModelCheckpoint
    config: ElectraConfig
    origins: Mapping[str, str]
    native_head: str | None
    held: Mapping[str, Tensor]
    reference: OracleReference
    probes: Sequence[Probe]
    damage: str

    @property
    def given(self) -> dict[str, Any]:
        """What was assumed, and decides what the model computes or which ids it is given."""
        assumed = {field: getattr(self.config, field) for field in SHOWN_BY_OUTPUTS if self.origins[field] == ASSUMED}
        tokenizer = self.record.tokenizer
        if tokenizer is not None and tokenizer.lowercase.origin == ASSUMED:
            assumed["lowercase"] = tokenizer.lowercase.value
        return assumed


@dataclass(frozen=True)
class KnownSource:
    """An open checkpoint.

    Args:
        mappings: The mappings.
        files: Its files.
        checkpoint: What they hold.
        location: Where it was found.
        config_file: What the user says about the model now, if anything.
        budget: Of the probes.
        turn: The thread the oracle computes in.
    """

    mappings: Mappings
    files: GoogleCheckpoint | ModelFiles
    checkpoint: Checkpoint | ModelCheckpoint
    location: Location
    config_file: ConfigFile | None
    budget: float
    turn: ThreadPoolExecutor
    _parts: dict[PartKey, KnownPart] = field(default_factory=dict)

    @property
    def model(self) -> Directory | None:
        """The model that was converted, as it is run; `None` for a checkpoint of Google's code."""
        return as_directory(self.files)

    def part(self, directory: Directory, record: Record) -> KnownPart:
        """Return the part that a directory was converted from, understood once for all its heads."""
        options = record.options
        key = (record.part, repr(record.config), options.dtype, options.seed, record.labels, record.task)
        if key not in self._parts:
            self._parts[key] = self._understand(record, mask_id(directory))
        return self._parts[key]

    def _understand(self, record: Record, mask_id: int | None) -> KnownPart:
        task = record.task
        checkpoint = self.checkpoint.with_task(f"{task.name}={task.head}") if task else self.checkpoint
        source = checkpoint.understand([record.part], config_file=self.config_file, labels=record.labels)
        part = source[record.part]
        said = {} if self.config_file else {name: record.config[name] for name in UNPROVEN if name in record.config}
        config = _with(part.config, {name: entry.value for name, entry in said.items()})
        origins = {**part.origins, **{name: entry.origin for name, entry in said.items()}}
        probes = make_probes(config, mask_id=mask_id, budget=self.budget)
        cast = None if record.options.dtype == "float32" else record.options.dtype
        variables, given = checkpoint.variables(part)
        reference = OracleReference(
            variables,
            config,
            record.part,
            probes,
            cast=cast,
            seed=record.options.seed,
            turn=self.turn,
            task=(task.name, task.head) if task else None,
            given=given,
        )
        held = part.canonical(self.files.tensors)
        damage = self._damage(checkpoint, record.part)
        return KnownPart(record, checkpoint, config, origins, part.native_head, held, reference, probes, damage)

    def subject(self, directory: Directory, record: Record) -> Subject:
        """Return what is to be run for a directory, with what can be checked before."""
        part = self.part(directory, record)
        specs = self.mappings.inventory.tensors(record.head, part.config)
        expected = {spec.name: part.held.get(spec.name) or self._drawn(spec, record, part.config) for spec in specs}
        checks = [self._check_identity(record, part.damage)]
        checks += (
            check_round_trip(directory, target, self.mappings.of(target), specs, expected)
            for target in directory.formats
        )
        checks += filter(None, (check_config(directory, part.config), check_tokenizer(directory)))
        return Subject(directory, part.probes, part.reference, tuple(checks))

    def initialised(self, directory: Directory, record: Record) -> int:
        """Count the tensors of a head that the checkpoint does not hold."""
        part, inventory = self.part(directory, record), self.mappings.inventory
        return sum(spec.name not in part.held for spec in inventory.head_tensors(record.head, part.config))

    def _damage(self, checkpoint: Checkpoint | ModelCheckpoint, part: Part) -> str:
        """Return what the checksums of the tensors that a part uses say; nothing if they are right."""
        used = [name for name, (fate, _) in checkpoint.ledger(part).items() if fate == "used"]
        try:
            self.files.check(used)
        except ElectraConvertError as error:
            return str(error)
        return ""

    def _check_identity(self, record: Record, damage: str) -> Check:
        was, now = record.source, self.files
        faults = [damage] if damage else []
        if was.identity != now.identity:
            faults.append(
                f"it was converted from {was.checkpoint}, whose SHA-256 is {was.identity}; that of {now.name} is "
                f"{now.identity}"
            )
        says = "the checkpoint is the one that was converted, and its checksums are right"
        return Check(name="source", passed=not faults, says=says, faults=tuple(faults))

    def _drawn(self, spec: TensorSpec, record: Record, config: ElectraConfig) -> Tensor:
        how = self.mappings.inventory.initializers[spec.leaf]
        return initial_tensor(spec, how, seed=record.options.seed, deviation=config.initializer_range)


@contextmanager
def open_source(
    directories: Sequence[Directory],
    mappings: Mappings,
    *,
    source: str | Path | None,
    step: int | None,
    config: Path | None,
    budget: float,
    progress: Progress,
) -> Iterator[KnownSource | None]:
    """Yield the checkpoint that directories were converted from: the one named, or the one noted; else `None`.

    Raises:
        OptionError: They come from several checkpoints, or were not converted by this package though one is named.
        ElectraConvertError: The checkpoint, or the config file, cannot be used.
    """
    with ExitStack() as stack:
        if source is not None:
            _require_records(directories)
            location = stack.enter_context(locate(source, step=step, progress=progress))
            opened = open_located(location, mappings, _part(directories))
        elif noted := _noted(directories, mappings, stack, progress):
            location, opened = noted
        else:
            yield None
            return
        require_oracle()
        config_file = read_config_file(config) if config else None
        turn = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="oracle"))
        yield KnownSource(mappings, *opened, location, config_file, budget, turn)


def _part(directories: Sequence[Directory]) -> Part | None:
    """Return the part that was converted, which a model need not show."""
    return next((directory.record.part for directory in directories if directory.record), None)


def _with(config: ElectraConfig, said: Mapping[str, Any]) -> ElectraConfig:
    """Return a config with what a record says of it.

    Raises:
        ConfigError: The record says what no config can.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(config) | dict(said), ElectraConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{RECORD_FILE} describes no model: {error}", hint="convert again") from error


def _require_records(directories: Sequence[Directory]) -> None:
    others = [str(directory.path) for directory in directories if directory.record is None]
    if others:
        raise OptionError(
            "only what this package converted can be compared with a checkpoint: there is no conversion.json",
            problems=others,
            hint="leave --source out: the directory is then audited",
        )


def _noted(
    directories: Sequence[Directory], mappings: Mappings, stack: ExitStack, progress: Progress
) -> tuple[Location, Opened] | None:
    """Return the source that was noted when the directories were written, if it is still there and the same.

    Raises:
        ElectraConvertError: It is there, and cannot be read: whoever waits for a proof is not to get less in silence.
    """
    identities = {directory.record and directory.record.source.identity for directory in directories}
    if len(identities) > 1:
        sources = {each.path: each.record.source.checkpoint if each.record else "unknown" for each in directories}
        raise OptionError(
            "these directories come from several sources",
            problems=[f"{path}: {checkpoint}" for path, checkpoint in sources.items()],
            hint="verify the outputs of one source at a time",
        )
    identity = identities.pop()
    origin = identity and recall(directories[0].path, identity)
    if not origin:
        return None
    try:
        location = stack.enter_context(locate(origin.source, step=origin.step, progress=progress))
    except CheckpointNotFoundError:
        return None
    opened = open_located(location, mappings, _part(directories))
    return (location, opened) if opened.files.identity == identity else None
