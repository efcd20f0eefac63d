"""Prove a checkpoint for Google's code: `record -> sources -> checks -> runs -> verdict`.

It is read back as any other checkpoint of Google's code. Its tensors must be those of what it was made of, bit for bit,
and the oracle, on the variables that were written, must compute what the models compute that it was made of, each run
by its own framework.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from electra_convert.config_file import read_config_file
from electra_convert.errors import CheckpointNotFoundError, ConfigError, ElectraConvertError, OptionError
from electra_convert.formats import TargetFormat
from electra_convert.formats.google_tf1 import GoogleCheckpoint, open_checkpoint
from electra_convert.google.conversion import model_of
from electra_convert.google.hparams import HPARAMS_FILE
from electra_convert.google.target import PREFIX
from electra_convert.inventory import Part
from electra_convert.mapping import Mappings, load_mappings
from electra_convert.models.files import read_json
from electra_convert.opening import Opened, open_located
from electra_convert.output import scratch_folder
from electra_convert.parity.checks import check_tensors
from electra_convert.parity.directories import Directory, RecordedField, RecordedSource, as_directory, mask_id
from electra_convert.parity.gates import Gates, gates
from electra_convert.parity.heads import Subject, run_heads
from electra_convert.parity.probes import Probe, describe, make_probes
from electra_convert.parity.reference import OracleReference, require_oracle
from electra_convert.parity.report import ORDER, Check, HeadReport, PartReport, Run, Status, VerificationReport
from electra_convert.parity.verdict import machine, verdict, versions
from electra_convert.parity.verification import file_hashes
from electra_convert.parity.workers import Lend, Worker, installed
from electra_convert.part import Checkpoint, SourcePart, recognise
from electra_convert.plan import RECORD_FILE
from electra_convert.progress import Progress
from electra_convert.remote.place import is_url
from electra_convert.source import locate

if TYPE_CHECKING:
    from electra_convert.parity.verify import VerifyOptions

NO_FIELDS = frozenset({"num_labels", "labels"})
"""What Google's hparams do not say."""


class RecordedPart(RecordedSource, frozen=True, kw_only=True):
    """What a part was made of: a head of a source."""

    head: str
    config: dict[str, RecordedField]


class GoogleRecord(msgspec.Struct, frozen=True):
    """What `conversion.json` says of a checkpoint for Google's code, as far as a verification needs it."""

    topology: str
    parts: dict[Part, RecordedPart]
    assumed: dict[Part, dict[str, Any]]


def is_google_output(output: Path) -> bool:
    """Say whether a directory is a checkpoint that was written for Google's code."""
    record = output / RECORD_FILE
    return record.is_file() and (output / f"{PREFIX}.index").is_file()


def verify_google(
    output: Path, options: VerifyOptions, progress: Progress, lend: Lend
) -> tuple[VerificationReport, Mapping[Path, Mapping[str, str]]]:
    """Return what was found, and the hashes of the files from before they were read.

    Raises:
        ElectraConvertError: It cannot be verified at all.
    """
    began = time.monotonic()
    if options.text:
        raise OptionError(
            "a text is tried on models, and this is a checkpoint for Google's code",
            hint="leave --text out, or verify a model that was converted from it",
        )
    require_oracle()
    mappings, record, hashes = load_mappings(options.mappings), _record(output), file_hashes(output)
    with ExitStack() as stack:
        written = _Written.read(output, mappings, record)
        origins = _origins(output, mappings, record, options, stack, progress)
        wanted = [origin.target for origin in origins if origin.target]
        if options.frameworks:
            wanted = [target for target in wanted if target in options.frameworks]
        scratch = stack.enter_context(scratch_folder())
        workers = stack.enter_context(lend([target for target in dict.fromkeys(wanted) if installed(target)]))
        turn = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="oracle"))
        proof = _Proof(written, record, options, workers, gates(options.loosened), scratch, turn)
        heads = tuple(proof.head(origin) for origin in origins)
    report = VerificationReport(
        output=output,
        source=" and ".join(dict.fromkeys(origin.recorded.checkpoint for origin in origins)),
        identity=origins[0].recorded.identity,
        topology=written.checkpoint.topology.says,
        status=min((head.status for head in heads), key=ORDER.index),
        verdict="",
        parts=tuple(proof.parts),
        heads=heads,
        gates=proof.gate.report(),
        frameworks=tuple(workers),
        missing=tuple(dict.fromkeys(target for target in wanted if target not in workers)),
        versions=versions(list(dict.fromkeys(wanted))),
        machine=machine(),
        seconds=time.monotonic() - began,
    )
    says = verdict(report)
    if report.status == "proven" and not report.frameworks:
        says = "proven: the variables are those of the source, bit for bit"
    return msgspec.structs.replace(report, verdict=says), {output: hashes}


def _record(output: Path) -> GoogleRecord:
    try:
        return msgspec.convert(read_json(output / RECORD_FILE), GoogleRecord)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{output / RECORD_FILE} is not the record of a checkpoint for Google's code: {error}", hint="convert again"
        ) from error


@dataclass(frozen=True)
class _Origin:
    """What a part was made of, open and understood.

    Args:
        part: The part.
        recorded: What the record says of it.
        opened: Its files, and what they hold.
        source: The part of it.
    """

    part: Part
    recorded: RecordedPart
    opened: Opened
    source: SourcePart

    @property
    def model(self) -> Directory | None:
        """The model it is, as it is run; `None` for a checkpoint of Google's code."""
        return as_directory(self.opened.files)

    @property
    def target(self) -> TargetFormat | None:
        """The framework that runs it."""
        return self.model.formats[0] if self.model else None


def _origins(
    output: Path,
    mappings: Mappings,
    record: GoogleRecord,
    options: VerifyOptions,
    stack: ExitStack,
    progress: Progress,
) -> list[_Origin]:
    """Open what the parts were made of: one of the sources that are named, whichever it is."""
    origins, lost = [], []
    for part, recorded in record.parts.items():
        for source in (options.source, options.generator):
            if source is None:
                continue
            folder = None if is_url(source) else model_of(Path(source), part)
            location = stack.enter_context(locate(folder or source, step=options.step, progress=progress))
            opened = open_located(location, mappings, part)
            if opened.files.identity != recorded.identity:
                continue
            checkpoint = opened.checkpoint.with_task(None, (recorded.head,))
            config_file = read_config_file(options.config) if options.config else None
            understood = checkpoint.understand([part], config_file=config_file)[part]
            origins.append(_Origin(part, recorded, Opened(opened.files, checkpoint), understood))
            break
        else:
            lost.append(f"{part}: {recorded.checkpoint}, of SHA-256 {recorded.identity}")
    if lost:
        raise CheckpointNotFoundError(
            f"{output} is compared with what it was made of, and it was not made of what is named",
            problems=lost,
            hint="name it with --source, and with --generator if that came from a source of its own",
        )
    return origins


@dataclass(frozen=True)
class _Written:
    """The checkpoint, read back.

    Args:
        files: Its files.
        checkpoint: What they hold.
        parts: Its parts, understood with the hparams beside it.
    """

    files: GoogleCheckpoint
    checkpoint: Checkpoint
    parts: Mapping[Part, SourcePart]

    @classmethod
    def read(cls, output: Path, mappings: Mappings, record: GoogleRecord) -> _Written:
        """Open what was written, as any checkpoint of Google's code."""
        files = open_checkpoint(output / PREFIX)
        checkpoint = recognise(mappings, files.tensors, files.unreadable, name=files.prefix)
        heads = [part.head for part in record.parts.values()]
        for task in checkpoint.tasks:
            checkpoint = checkpoint.with_task(f"{task.name}={heads[0]}", heads)
        hparams = read_config_file(output / HPARAMS_FILE)
        return cls(files, checkpoint, checkpoint.understand(list(checkpoint.topology.parts), config_file=hparams))

    def part(self, part: Part) -> SourcePart:
        """Return a part; a backbone alone is the only one there is."""
        return self.parts.get(part) or next(iter(self.parts.values()))


@dataclass(frozen=True)
class _Proof:
    """A verification, with all that takes part in it."""

    written: _Written
    record: GoogleRecord
    options: VerifyOptions
    workers: Mapping[TargetFormat, Worker]
    gate: Gates
    scratch: Path
    turn: ThreadPoolExecutor

    def head(self, origin: _Origin) -> HeadReport:
        """Check and run what one part was made of."""
        checks = (self._check_source(origin), self._check_config(origin), self._check_tensors(origin))
        runs = tuple(self._runs(origin))
        status: Status = "proven"
        if not all(check.passed for check in checks) or any(run.outcome == "failed" for run in runs):
            status = "failed"
        elif origin.model and not runs:
            status = "incomplete"
        elif self.options.loosened:
            status = "unverified"
        return HeadReport(
            directory=self.written.files.prefix.parent,
            part=origin.part,
            head=origin.recorded.head,
            status=status,
            checks=checks,
            runs=runs,
        )

    @property
    def parts(self) -> Iterator[PartReport]:
        """What is known of each part."""
        for part, recorded in self.record.parts.items():
            source = self.written.part(part)
            fates = [fate for fate, _ in self.written.checkpoint.ledger(source.part).values()]
            yield PartReport(
                part=part,
                config=msgspec.to_builtins(source.config),
                origins=dict(source.origins),
                given=dict(self.record.assumed.get(part, {})),
                native_head=recorded.head,
                source_tensors={fate: fates.count(fate) for fate in dict.fromkeys(fates)},
                coverage=describe(self.probes(part), source.config),
            )

    def probes(self, part: Part) -> Sequence[Probe]:
        """Return the inputs of a part."""
        directory = Directory(path=self.written.files.prefix.parent, head="base", formats=(), record=None)
        config = self.written.part(part).config
        return make_probes(config, mask_id=mask_id(directory), budget=self.options.budget)

    def _check_source(self, origin: _Origin) -> Check:
        faults = []
        for files, part in ((origin.opened.files, origin.source), (self.written.files, self.written.part(origin.part))):
            try:
                files.check(sorted({binding.name for binding in part.bindings}))
            except ElectraConvertError as error:
                faults.append(str(error))
        says = "the source is the one that was converted; what was written has the right checksums"
        return Check(name="source", passed=not faults, says=says, faults=tuple(faults))

    def _check_config(self, origin: _Origin) -> Check:
        config = self.written.part(origin.part).config
        recorded = {name: each.value for name, each in origin.recorded.config.items() if name not in NO_FIELDS}
        faults = tuple(
            f"{HPARAMS_FILE} makes {name} {getattr(config, name)}; the source has {value}"
            for name, value in recorded.items()
            if getattr(config, name) != value
        )
        says = f"{len(recorded)} fields are those of the source"
        return Check(name="config", passed=not faults, says=says, faults=faults)

    def _check_tensors(self, origin: _Origin) -> Check:
        written = self.written.part(origin.part).canonical(self.written.files.tensors)
        held = origin.source.canonical(origin.opened.files.tensors)
        specs = self.written.checkpoint.mappings.inventory.tensors(origin.recorded.head, origin.source.config)
        return check_tensors(written, {spec.name: held[spec.name] for spec in specs}, "float32")

    def _runs(self, origin: _Origin) -> Iterator[Run]:
        """Run the model where it lies, against the oracle on what was written."""
        if origin.model is None or origin.target is None or origin.target not in self.workers:
            return
        if origin.recorded.head != origin.model.head:  # the backbone alone was written
            return
        part, task = self.written.part(origin.part), self.written.checkpoint.task
        probes = self.probes(origin.part)
        reference = OracleReference(
            self.written.files.tensors,
            part.config,
            part.part,
            probes,
            cast=None,
            seed=0,
            turn=self.turn,
            task=(task.name, task.head or "") if task else None,
            given={} if origin.recorded.head == "base" else None,
        )
        subject = Subject(origin.model, probes, reference, ())
        workers = {origin.target: self.workers[origin.target]}
        for found in run_heads([subject], workers, (), self.gate, self.scratch / origin.part, lambda _: None):
            yield from found.runs
