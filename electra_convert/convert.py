"""The pipeline: a checkpoint in, a directory for every head out.

`read -> understand -> plan -> write -> check`. Nothing is written before it is known which tensors go where, that none
is left over, and that the disk has room. No head appears before it is known that the bytes of all are what was saved:
they are checked as they are read to be written.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from electra_convert.config import ElectraConfig
from electra_convert.config_file import ConfigFile, check_scope, read_config_file
from electra_convert.errors import OptionError, OutputError, OutputExistsError
from electra_convert.formats import GOOGLE, module_of
from electra_convert.formats.extents import Written
from electra_convert.formats.google_tf1 import GoogleCheckpoint
from electra_convert.inventory import PARTS, Part
from electra_convert.label_map import find_label_map, read_label_map
from electra_convert.mapping import load_mappings
from electra_convert.model_checkpoint import ModelCheckpoint, ModelFiles
from electra_convert.models.files import CONFIG_FILE
from electra_convert.opening import open_located
from electra_convert.options import NATIVE_HEAD, ConvertOptions, PartChoice
from electra_convert.origin import Origin, remember
from electra_convert.output import clear_abandoned, exists_error, require_space, whole_directory, write_document
from electra_convert.part import Checkpoint, SourcePart
from electra_convert.plan import HeadPlan, Planner, Tokenizer, WeightFile, copied_tokenizer, plan_tokenizer
from electra_convert.printable import printable
from electra_convert.progress import Advance, Progress, no_progress
from electra_convert.remote.place import is_url
from electra_convert.source import Location, locate
from electra_convert.task import task_notes
from electra_convert.tokenizer import read_vocabulary
from electra_convert.whole_file import read_whole

LONGEST_SAID = 300
"""Characters of what a config says besides that a note shows."""
TAGGER = "token_classification"
EXACT = {"float32": ("float16", "bfloat16"), "float16": (), "bfloat16": ()}
"""Other dtypes whose every value a dtype holds."""

Status = Literal["written", "already there", "planned"]


class HeadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one head.

    Args:
        part: The part.
        head: The head.
        directory: Where it is.
        architecture: Its class, without a framework's prefix.
        copied: How many tensors came from the checkpoint.
        constructed: How many were made of tensors of another module of the checkpoint.
        tied: How many are another tensor of the model.
        initialised: How many were drawn or filled in, for the checkpoint lacks them.
        parameters: How many numbers the model has.
        nbytes: Bytes of its weights, in all formats.
        note: What to know about it.
        status: Whether it was written.
    """

    part: Part
    head: str
    directory: Path
    architecture: str
    copied: int
    tied: int
    initialised: int
    parameters: int
    nbytes: int
    note: str
    status: Status
    constructed: int = 0


class PartReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one part.

    Args:
        part: The part.
        native_head: The head it was trained on, if it has one that can be converted.
        config: Its config.
        origins: What each field is known from.
        assumed: What follows Google's rule, for nothing shows it.
        source_tensors: How many tensors of the checkpoint met each fate.
    """

    part: Part
    native_head: str | None
    config: dict[str, Any]
    origins: dict[str, str]
    assumed: dict[str, Any]
    source_tensors: dict[str, int]


class ConversionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversion did, or would do.

    Args:
        source: Name of the checkpoint's files, or of the model's directory.
        identity: SHA-256 of its index; of a model, of the hashes of its config and weights.
        topology: What it is, in a sentence.
        output: The output directory.
        parts: What is known of each part.
        heads: What became of each head.
        notes: What else a user should know.
        nbytes: Bytes that were, or would be, written.
        options: The request.
    """

    source: str
    identity: str
    topology: str
    output: Path
    parts: list[PartReport]
    heads: list[HeadReport]
    notes: list[str]
    nbytes: int
    options: ConvertOptions


def convert_checkpoint(
    source: str | os.PathLike[str] = ".",
    out: str | os.PathLike[str] | None = None,
    options: ConvertOptions = ConvertOptions(),  # noqa: B008  # it is immutable
    *,
    dry_run: bool = False,
    exist_ok: bool = False,
    progress: Progress = no_progress,
) -> ConversionReport:
    """Convert a Google checkpoint, or a model of a framework.

    ::

        from electra_convert import ConvertOptions, convert_checkpoint

        report = convert_checkpoint("electra_small", "out", ConvertOptions(part="discriminator"))

    Args:
        source: A checkpoint: its directory, prefix, one of its files, an archive of it, or the URL of one of these; or
            the directory of a model with `config.json` and weights in any format, or its file of weights.
        out: The output directory; by default `<name>-<part>` in the working directory, or `<name>-converted`.
        options: What to convert, and how.
        dry_run: Only plan.
        exist_ok: That all of it is there already, made by this very conversion, is no error, and nothing of it is made
            again.
        progress: Shows progress.

    Returns:
        What was done.

    Raises:
        ElectraConvertError: The subclass says what went wrong. Heads that were finished stay.
    """
    if GOOGLE in options.targets:
        from electra_convert.google.conversion import convert_to_google  # which needs this module

        place = None if out is None else Path(out)
        return convert_to_google(source, place, options, dry_run=dry_run, exist_ok=exist_ok, progress=progress)
    with locate(source, step=options.step, values=not dry_run, progress=progress) as location:
        conversion = Conversion.prepare(location, None if out is None else Path(out), options)
        conversion.require_apart(source)
        if not dry_run:
            conversion.clear_abandoned()
        there = conversion.find_finished(exist_ok=exist_ok)
        if dry_run:
            return conversion.report("planned", there=there)
        report = conversion.run(there, progress)
    try:
        remember(report.output, report.identity, Origin(source, options.step))
    except OutputError as error:
        note = f"where the source lies was not noted, so give verify --source: {error.message}"
        return msgspec.structs.replace(report, notes=[*report.notes, note])
    return report


class Conversion(msgspec.Struct, frozen=True):
    """A conversion that was planned and can be run.

    Args:
        files: The checkpoint's files.
        checkpoint: What they hold.
        parts: The parts to convert, understood.
        tokenizers: The tokenizer of each.
        heads: The plan of each head.
        out: The output directory.
        options: The request.
        notes: What a user should know.
    """

    files: GoogleCheckpoint | ModelFiles
    checkpoint: Checkpoint | ModelCheckpoint
    parts: Mapping[Part, SourcePart]
    tokenizers: Mapping[Part, Tokenizer]
    heads: Sequence[HeadPlan]
    out: Path
    options: ConvertOptions
    notes: tuple[str, ...] = ()

    @classmethod
    def prepare(cls, location: Location, out: Path | None, options: ConvertOptions) -> Conversion:
        """Plan a conversion; nothing is written, and no tensor is read."""
        mappings = load_mappings(options.mappings)
        files, checkpoint = open_located(location, mappings, options.part)
        checkpoint = checkpoint.with_task(options.task, options.heads)
        parts = choose_parts(options.part, checkpoint)
        config_file = read_config_file(options.config) if options.config else None
        if config_file:
            check_scope(config_file, parts, one_transformer=checkpoint.topology.one_transformer)
        labels = known_labels(options, checkpoint, location.prefix.parent)
        understood = checkpoint.understand(parts, config_file=config_file, labels=labels.names)
        _require_activation(understood, options)
        tokenizers = {
            part: _tokenizer(options, config_file, location, source.config) for part, source in understood.items()
        }
        identity = {
            "format": checkpoint.format,
            "checkpoint": files.name,
            files.identified_by: files.identity,
            "topology": checkpoint.topology_key,
        }
        heads = []
        for part, source in understood.items():
            planner = Planner(checkpoint, identity, source, options, tokenizers[part])
            folder = Path(part) if len(parts) > 1 else Path()
            names = choose_heads(options.heads, mappings.inventory.heads, native=source.native_head)
            heads += [planner.plan(name, folder / name) for name in names]
        out = out or Path(f"{location.name}-{'converted' if location.is_model else options.part or parts[0]}")
        notes = [note for tokenizer in tokenizers.values() for note in tokenizer.notes]
        notes += filter(None, [labels.note])
        notes += _notes(checkpoint, understood, options, files)
        notes += task_notes(checkpoint.tasks, checkpoint.task, [head.head for head in heads])
        return cls(files, checkpoint, understood, tokenizers, heads, out, options, tuple(dict.fromkeys(notes)))

    def run(self, there: Sequence[HeadPlan], progress: Progress) -> ConversionReport:
        """Write every head that is not there yet, as `find_finished` said."""
        missing = [head for head in self.heads if head not in there]
        with (
            closing(_Shards()) as shards,
            progress("writing", sum(file.value_bytes for file in _files(missing, there))) as advance,
        ):
            for head in there:
                shards.remember(head, self.out / head.directory, self.out / head.directory)
            for head in missing:
                self._write(head, shards, advance)
        self._require_written()
        return self.report("written", there=there, notes=shards.notes)

    def _require_written(self) -> None:
        gone = [str(self.out / head.directory) for head in self.heads if not (self.out / head.directory).is_dir()]
        if gone:
            raise OutputError(
                f"what was written to {self.out} is not there any more: something moved or removed it meanwhile",
                problems=gone,
                hint="convert again",
            )

    def report(self, status: Status, *, there: Sequence[HeadPlan] = (), notes: Sequence[str] = ()) -> ConversionReport:
        """Describe this conversion."""
        heads = [self._head_report(head, "already there" if head in there else status) for head in self.heads]
        return ConversionReport(
            source=self.files.name,
            identity=self.files.identity,
            topology=self.checkpoint.topology.says,
            output=self.out,
            parts=[self._part_report(part) for part in self.parts],
            heads=heads,
            notes=[*self.notes, *notes],
            nbytes=self._bytes_written(there)
            if status == "written"
            else _bytes_needed([head for head in self.heads if head not in there], there),
            options=self.options,
        )

    def _bytes_written(self, there: Sequence[HeadPlan]) -> int:
        """Add up the files this run wrote; a file under several names counts once."""
        sizes: dict[bool, dict[tuple[int, int], int]] = {True: {}, False: {}}
        for head in self.heads:
            for path in (self.out / head.directory).rglob("*"):
                with suppress(FileNotFoundError):  # another run replaces it
                    stat = path.stat()
                    sizes[head in there][stat.st_dev, stat.st_ino] = stat.st_size if path.is_file() else 0
        return sum(size for inode, size in sizes[False].items() if inode not in sizes[True])

    def _head_report(self, head: HeadPlan, status: Status) -> HeadReport:
        return HeadReport(
            part=head.part,
            head=head.head,
            directory=self.out / head.directory,
            architecture=head.architecture,
            copied=head.count("copied"),
            constructed=head.count("constructed"),
            tied=head.count("tied"),
            initialised=head.count("initialised"),
            parameters=head.parameters,
            nbytes=sum(file.value_bytes for file in head.weights),
            note=head.note,
            status=status,
        )

    def _part_report(self, part: Part) -> PartReport:
        source = self.parts[part]
        fates = [fate for fate, _ in self.checkpoint.ledger(source.part).values()]
        return PartReport(
            part=source.part,
            native_head=source.native_head,
            config={field: getattr(source.config, field) for field in source.config.__struct_fields__},
            origins=dict(source.origins),
            assumed=source.assumed | self.tokenizers[part].assumed,
            source_tensors={fate: fates.count(fate) for fate in dict.fromkeys(fates)},
        )

    def require_apart(self, source: str | os.PathLike[str]) -> None:
        """Check that nothing that is read would be replaced.

        Raises:
            OptionError: It lies where a head is to be written.
        """
        read = [
            *self.files.files,
            self.options.vocab,
            self.options.config,
            self.options.label_map,
            self.options.mappings,
        ]
        read += [] if is_url(source) else [Path(source)]
        places = [(self.out / head.directory).resolve() for head in self.heads]
        inside = {path for path in filter(None, read) for place in places if path.resolve().is_relative_to(place)}
        if inside:
            raise OptionError(
                f"heads are to be written to {self.out}, where files are that are read for them",
                problems=sorted(map(str, inside)),
                hint="choose another OUT",
            )

    def clear_abandoned(self) -> None:
        """Remove what killed runs left where this one writes."""
        for folder in {(self.out / head.directory).parent for head in self.heads}:
            clear_abandoned(folder)

    def find_finished(self, *, exist_ok: bool = False) -> list[HeadPlan]:
        """Return the heads that an earlier run of this very conversion finished; check that the others can be written.

        Args:
            exist_ok: That these are all of them is no error.

        Raises:
            OutputExistsError: Something else is there, or all of them are.
            OutputError: The output directory cannot be written, or its disk has too little room.
        """
        there = self._already_there(exist_ok=exist_ok)
        require_space(self.out, _bytes_needed([head for head in self.heads if head not in there], there))
        return there

    def _already_there(self, *, exist_ok: bool) -> list[HeadPlan]:
        existing = [head for head in self.heads if os.path.lexists(self.out / head.directory)]
        if not existing or (self.options.overwrite and not exist_ok):
            return []
        foreign = [head for head in existing if not _is_this(head, self.out / head.directory)]
        if foreign and self.options.overwrite:
            return [head for head in existing if head not in foreign]
        if foreign:
            raise exists_error([self.out / head.directory for head in foreign])
        if len(existing) == len(self.heads) and not exist_ok:
            raise OutputExistsError(
                f"everything asked for is in {self.out} already, made from this checkpoint with these options",
                hint="there is nothing to do; to make it again, give --overwrite",
            )
        return existing

    def _write(self, head: HeadPlan, shards: _Shards, advance: Advance) -> None:
        target = self.out / head.directory
        with whole_directory(target, overwrite=self.options.overwrite) as staged:
            try:
                self._write_weights(head, staged, shards, advance)
            except OutputError:
                self._check()  # values that are not those that were saved need not fit into any dtype
                raise
            for place, content in head.documents.items():
                write_document(staged / place, content)
            self._check()
            shards.remember(head, staged, target)

    def _write_weights(self, head: HeadPlan, staged: Path, shards: _Shards, advance: Advance) -> None:
        for file in head.weights:
            path = staged / file.path
            path.parent.mkdir(exist_ok=True)
            if not shards.link(head.part, file, path):
                module_of(file.target).write(path, file.contents, advance, shards.written[head.part, file.target])

    def _check(self) -> None:
        """Check the tensors of all heads: none appears if another would have to fail."""
        self.files.check(sorted({binding.name for part in self.parts.values() for binding in part.bindings}))


class _Shards:
    """The backbones that are on disk already, for the next head to link to; and where the tensors lie in them."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.written: defaultdict[tuple[Part, str], Written] = defaultdict(Written)
        self._places: dict[tuple[Part, str], tuple[Path, int]] = {}

    def close(self) -> None:
        """Let go of the files."""
        for written in self.written.values():
            written.close()

    def remember(self, head: HeadPlan, directory: Path, target: Path) -> None:
        """Note where the backbone of a finished head lies, in each format, and which file it is.

        Args:
            head: The head.
            directory: Where it is now.
            target: Where it will be.
        """
        for file in head.weights:
            if file.backbone:
                with suppress(FileNotFoundError):  # then it is written again
                    inode = (directory / file.path).stat().st_ino
                    self._places.setdefault((head.part, file.target), (target / file.path, inode))

    def link(self, part: Part, file: WeightFile, path: Path) -> bool:
        """Make `path` the backbone that is there already, if one is, at no cost in bytes."""
        place, inode = self._places.get((part, file.target), (None, 0)) if file.backbone else (None, 0)
        if place is None:
            return False
        try:
            path.hardlink_to(place)
        except FileNotFoundError:
            return False
        except OSError as error:
            self.notes = [
                f"this disk makes no hard links ({error.strerror}): each head has its own copy of the backbone"
            ]
            return False
        if path.stat().st_ino != inode:  # another run replaced it
            path.unlink()
            return False
        return True


def choose_parts(choice: PartChoice | None, checkpoint: Checkpoint | ModelCheckpoint) -> tuple[Part, ...]:
    """Return the parts that are asked for, or the only one there is.

    Raises:
        OptionError: None is asked for, and there are two.
        PartNotFoundError: One that is asked for is not there.
    """
    there = tuple(checkpoint.topology.parts)
    if choice is None and len(there) > 1:
        raise OptionError(
            f"this checkpoint holds {checkpoint.topology.says}: which part is to be converted?",
            hint="--part discriminator for most uses; --part generator for filling masks; --part both",
        )
    wanted = there if choice is None else PARTS if choice == "both" else (choice,)
    for part in wanted:
        checkpoint.require_part(part)
    return wanted


class KnownLabels(NamedTuple):
    """The names of labels, where anything tells them, and what a user should know of that."""

    names: tuple[str, ...] | None
    note: str = ""


def known_labels(options: ConvertOptions, checkpoint: Checkpoint | ModelCheckpoint, directory: Path) -> KnownLabels:
    """Return the labels that the options name, or those of a tagger that Google's code left beside its checkpoint.

    Args:
        options: The request.
        checkpoint: The checkpoint, with its task.
        directory: Where it lies.

    Raises:
        ConfigError: A map of labels cannot be read.
    """
    names, task = options.label_names(), checkpoint.task
    if names is not None or task is None or task.head != TAGGER:
        return KnownLabels(names)
    file = find_label_map(directory, task.name)
    if file is None:
        return KnownLabels(None)
    names = read_label_map(file)
    if len(names) != task.outputs:
        return KnownLabels(None, f"{file.name} names {len(names)} labels, and the task {task.name} has {task.outputs}")
    return KnownLabels(names, f"the names of the labels are those of {file.name}")


def _tokenizer(
    options: ConvertOptions, config_file: ConfigFile | None, location: Location, config: ElectraConfig
) -> Tokenizer:
    """Return the tokenizer's files: a model's own as they are, if nothing is asked of them, or new ones."""
    asked = options.vocab or options.lowercase is not None or options.strip_accents is not None
    if options.tokenizer and location.is_model and not asked:
        return copied_tokenizer(location.prefix)
    vocab = (options.vocab or location.vocabulary) if options.tokenizer else None
    return plan_tokenizer(options, config_file, read_vocabulary(vocab) if vocab else None, config)


def _require_activation(parts: Mapping[Part, SourcePart], options: ConvertOptions) -> None:
    """Refuse what no class could load: transformers knows the linear activation in PyTorch alone."""
    others = [target for target in options.formats if target != "pytorch"]
    linear = [part for part, source in parts.items() if source.config.hidden_act == "linear"]
    if others and linear:
        raise OptionError(
            f"the activation of the {' and the '.join(linear)} is linear, which transformers' classes for "
            f"{' and '.join(others)} do not know",
            hint="write PyTorch alone: --to pytorch",
        )


def choose_heads(wanted: Sequence[str], heads: Mapping[str, Any], *, native: str | None = None) -> list[str]:
    """Return the heads that are asked for, in the order of the inventory.

    Args:
        wanted: Their names; `native` is the one that was trained. None means all.
        heads: The heads there are.
        native: The head that was trained, if there is one that can be converted.

    Raises:
        OptionError: Some do not exist.
    """
    if NATIVE_HEAD in wanted and native is None:
        raise OptionError("this part has no native head that can be converted", hint=f"choose from {', '.join(heads)}")
    wanted = [native if name == NATIVE_HEAD and native else name for name in wanted]
    unknown = [name for name in wanted if name not in heads]
    if unknown:
        raise OptionError(
            f"there is no head {', '.join(map(repr, unknown))}",
            hint=f"choose from {', '.join(heads)}, or leave --head out for all of them",
        )
    return [name for name in heads if not wanted or name in wanted]


def _files(heads: Sequence[HeadPlan], there: Sequence[HeadPlan] = ()) -> list[WeightFile]:
    """Return the files that heads need on disk: a backbone they share once, or not at all if it is there."""

    def place(head: HeadPlan, file: WeightFile) -> tuple[object, object]:
        return (head.part, file.target) if file.backbone else (head.directory, file.path)

    files = {place(head, file): file for head in heads for file in head.weights}
    for head in there:
        for file in head.weights:
            files.pop(place(head, file), None)
    return list(files.values())


def _bytes_needed(heads: Sequence[HeadPlan], there: Sequence[HeadPlan] = ()) -> int:
    """Add up, rather generously, what heads take on disk."""
    documents = sum(len(content) for head in heads for content in head.documents.values())
    return sum(file.nbytes for file in _files(heads, there)) + documents


def _is_this(head: HeadPlan, directory: Path) -> bool:
    """Say whether a directory is what this plan would write: its documents are the same, its weights are there."""
    try:
        return all(
            read_whole(directory / place, len(content)) == content for place, content in head.documents.items()
        ) and all((directory / file.path).stat().st_size >= file.value_bytes for file in head.weights)
    except OSError:
        return False


def _notes(
    checkpoint: Checkpoint | ModelCheckpoint,
    parts: Mapping[Part, SourcePart],
    options: ConvertOptions,
    files: GoogleCheckpoint | ModelFiles,
) -> Iterator[str]:
    if checkpoint.topology.note:
        yield checkpoint.topology.note
    if isinstance(checkpoint, ModelCheckpoint) and checkpoint.left_out:
        said = ", ".join(f"{name} = {json.dumps(value)}" for name, value in checkpoint.left_out.items())
        yield f"its {CONFIG_FILE} says {printable(said, LONGEST_SAID)}, which is not written"
    for name, reason in files.unreadable.items():
        yield f"{name} is left behind: {reason}"
    used = [files.tensors[binding.name] for part in parts.values() for binding in part.bindings]
    wider = sorted({tensor.dtype for tensor in used} - {options.dtype, *EXACT[options.dtype]})
    if wider:
        yield f"values are {' and '.join(wider)} in the checkpoint and are rounded to {options.dtype}"
    for part in parts.values():
        if part.config.hidden_act != "gelu":
            yield (
                f"the {part.part}'s activation is {part.config.hidden_act}; transformers' masked_lm and causal_lm use "
                "GELU in the head all the same, and so differ from Google's code"
            )
