"""The pipeline to a checkpoint of Google's code: one source in, or one for each part; one directory out.

`read -> understand -> plan -> write -> check`, as for models. The directory appears whole, when it is known that the
values of all sources are what was saved.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_convert._version import __version__
from electra_convert.config_file import ConfigFile, check_scope, read_config_file
from electra_convert.convert import ConversionReport, HeadReport, PartReport, Status, choose_parts, known_labels
from electra_convert.errors import (
    ConfigError,
    OptionError,
    OutputError,
    OutputExistsError,
    TensorMismatchError,
)
from electra_convert.formats.google_tf1 import GoogleCheckpoint, index_path, shard_path
from electra_convert.google.heads import GivenPart
from electra_convert.google.hparams import FINE_TUNING_FILE, HPARAMS_FILE
from electra_convert.google.target import PREFIX, STATE_FILE, GoogleModel, google_model
from electra_convert.google.vocabulary import GoogleVocabulary, choose_vocabulary, place_of_vocabulary
from electra_convert.inventory import PARTS, Part
from electra_convert.mapping import Mappings, load_mappings
from electra_convert.model_checkpoint import ModelCheckpoint, ModelFiles
from electra_convert.model_directory import is_model_directory, nearby_model_directories
from electra_convert.models.files import read_json
from electra_convert.opening import open_located
from electra_convert.options import NATIVE_HEAD, ConvertOptions
from electra_convert.output import (
    clear_abandoned,
    exists_error,
    require_space,
    whole_directory,
    write_document,
)
from electra_convert.part import ASSUMED, SOURCE_FORMAT, Checkpoint, SourcePart
from electra_convert.plan import RECORD_FILE, to_json
from electra_convert.progress import Progress, no_progress
from electra_convert.remote.place import is_url
from electra_convert.source import Location, locate
from electra_convert.tokenizer import CONFIG_FILE as TOKENIZER_CONFIG_FILE
from electra_convert.tokenizer import VOCABULARY_FILE
from electra_convert.whole_file import read_whole

Source = str | os.PathLike[str]

OWN_FILES = (
    index_path(Path(PREFIX)).name,
    shard_path(Path(PREFIX), 0, 1).name,
    STATE_FILE,
    HPARAMS_FILE,
    FINE_TUNING_FILE,
    VOCABULARY_FILE,
    RECORD_FILE,
    "verification.json",
)
"""All that a checkpoint for Google's code may consist of."""
MOST_NAMED = 10
NOTE = "for Google's code"
BACKBONE = "base"
BYTES_BESIDE = 1 << 20
"""What the index and the documents take, at most; the vocabulary comes on top."""


def convert_to_google(
    source: Source,
    out: Path | None,
    options: ConvertOptions,
    *,
    dry_run: bool = False,
    exist_ok: bool = False,
    progress: Progress = no_progress,
) -> ConversionReport:
    """Write a checkpoint for Google's code.

    Args:
        source: The source: of one part, of both, or of the discriminator, where the options name one of the generator.
        out: The directory; by default `<name>-google` in the working directory.
        options: What to write, and how.
        dry_run: Only plan.
        exist_ok: That it is there already, made by this very conversion, is no error.
        progress: Shows progress.

    Raises:
        ElectraConvertError: The subclass says what went wrong. Nothing is written then.
    """
    mappings = load_mappings(options.mappings)
    with ExitStack() as stack:
        opened: list[OpenPart] = []
        for each, part in _sources(source, options):
            location = stack.enter_context(locate(each, step=options.step, progress=progress))
            opened += _open(mappings, location, part, options)
        conversion = GoogleConversion.prepare(mappings, opened, out, options)
        conversion.require_apart()
        if not dry_run:
            clear_abandoned(conversion.out.parent)
        there = conversion.is_there(exist_ok=exist_ok)
        if not there:
            require_space(conversion.out, conversion.model.nbytes + BYTES_BESIDE)
        if not dry_run and not there:
            conversion.run(progress)
        return conversion.report("already there" if there else "planned" if dry_run else "written")


@dataclass(frozen=True)
class OpenPart:
    """A part of a source, understood.

    Args:
        location: Where the source is.
        files: Its files.
        checkpoint: What they hold.
        source: The part.
        head: The head that is written.
    """

    location: Location
    files: GoogleCheckpoint | ModelFiles
    checkpoint: Checkpoint | ModelCheckpoint
    source: SourcePart
    head: str

    @property
    def given(self) -> GivenPart:
        """The part as a target takes it."""
        source = self.source
        name = f"the {source.part} in {self.files.prefix}"
        return GivenPart(source.part, self.head, source.config, source.canonical(self.files.tensors), name)

    @property
    def task(self) -> str | None:
        """The task whose head it has, where the source says; of a model, the record of its conversion."""
        if self.head != self.source.native_head:
            return None
        if self.checkpoint.task:
            return self.checkpoint.task.name
        record = self.location.prefix / RECORD_FILE
        task = read_json(record).get("task") if self.location.is_model and record.is_file() else None
        said = task.get("name") if isinstance(task, dict) and task.get("head") == self.head else None
        return said if isinstance(said, str) else None

    @property
    def lowercase(self) -> bool | None:
        """Whether the model saw lower-cased text, where its tokenizer says."""
        file = self.location.prefix / TOKENIZER_CONFIG_FILE
        if not self.location.is_model or not file.is_file():
            return None
        said = read_json(file).get("do_lower_case")
        return said if isinstance(said, bool) else None

    @property
    def record(self) -> dict[str, Any]:
        """What identifies it."""
        return {
            "format": self.checkpoint.format,
            "checkpoint": self.files.name,
            self.files.identified_by: self.files.identity,
            "topology": self.checkpoint.topology_key,
            "head": self.head,
            "config": {
                field: {"value": getattr(self.source.config, field), "from": origin}
                for field, origin in sorted(self.source.origins.items())
            },
            "tensors": {
                name: {"fate": fate, "why": why}
                for name, (fate, why) in self.checkpoint.ledger(self.source.part).items()
            },
        }

    def check(self) -> None:
        """Check that what was read is what was saved."""
        self.files.check(sorted({binding.name for binding in self.source.bindings}))


@dataclass(frozen=True)
class GoogleConversion:
    """A conversion that was planned and can be run.

    Args:
        parts: The parts, the discriminator first.
        model: What is written.
        documents: What lies beside the weights, by name.
        assumed: What follows Google's rule or default, for nothing shows it, by part.
        out: The directory.
        options: The request.
        notes: What a user should know.
    """

    parts: Sequence[OpenPart]
    model: GoogleModel
    documents: Mapping[str, bytes]
    assumed: Mapping[Part, Mapping[str, Any]]
    out: Path
    options: ConvertOptions
    notes: tuple[str, ...]

    @classmethod
    def prepare(
        cls, mappings: Mappings, opened: Sequence[OpenPart], out: Path | None, options: ConvertOptions
    ) -> GoogleConversion:
        """Plan a conversion; nothing is written. Tensors are read that both parts share, or that a task's head has."""
        parts = sorted(opened, key=lambda each: PARTS.index(each.source.part))
        lowercase, origin = _casing(parts, options)
        vocabulary, notes = _vocabulary(parts, options)
        with _told_of_damage(parts):
            model = _model(mappings, parts, options, lowercase=lowercase)
        casing = {"lowercase": lowercase} if origin == ASSUMED else {}
        assumed = {part.source.part: {**part.source.assumed, **casing} for part in parts}
        record = {
            "electra_convert": __version__,
            "format": SOURCE_FORMAT,
            "topology": model.topology_key,
            "parts": {part.source.part: part.record for part in parts},
            "options": {"optimizer_slots": options.optimizer_slots, "untied_embeddings": options.untied_embeddings},
            "lowercase": {"value": lowercase, "from": origin},
            "vocabulary_sha256": hashlib.sha256(vocabulary).hexdigest() if vocabulary else None,
            "assumed": assumed,
            "mappings": mappings.hashes,
            "notes": model.notes,
            "tensors": model.variables,
        }
        documents = model.documents(vocabulary) | {RECORD_FILE: to_json(record)}
        out = out or Path(f"{parts[0].location.name}-google")
        return cls(parts, model, documents, assumed, out, options, tuple(dict.fromkeys([*notes, *model.notes])))

    def require_apart(self) -> None:
        """Check that nothing that is read would be replaced.

        Raises:
            OptionError: It lies where the checkpoint is to be written.
        """
        options = self.options
        read = [path for part in self.parts for path in part.files.files]
        read += filter(None, [options.vocab, options.config, options.label_map, options.mappings])
        inside = sorted({str(path) for path in read if path.resolve().is_relative_to(self.out.resolve())})
        if inside:
            raise OptionError(
                f"the checkpoint is to be written to {self.out}, where files are that are read for it",
                problems=inside,
                hint="choose another OUT",
            )

    def is_there(self, *, exist_ok: bool) -> bool:
        """Say whether an earlier run of this very conversion wrote it.

        Args:
            exist_ok: That it did is no error.

        Raises:
            OutputExistsError: It did, or something else is there.
        """
        if not os.path.lexists(self.out) or _names_in(self.out) == []:
            return False
        same = self._is_this()
        if self.options.overwrite and not (same and exist_ok):
            self._require_replaceable()
            return False
        if not same:
            raise exists_error([self.out])
        if same and not exist_ok:
            raise OutputExistsError(
                f"{self.out} is this checkpoint already, made from the same source with these options",
                hint="there is nothing to do; to make it again, give --overwrite",
            )
        return same

    def _require_replaceable(self) -> None:
        """Check that all that would be replaced is a checkpoint, and not the directory of a training, say.

        Raises:
            OutputExistsError: Something else is there.
        """
        names = _names_in(self.out)
        if names is None:
            raise OutputExistsError(f"{self.out} is no directory that can be replaced", hint="choose another OUT")
        if others := sorted({*names} - {*OWN_FILES}):
            raise OutputExistsError(
                f"{self.out} holds more than a checkpoint that was written here, and --overwrite would remove it",
                problems=others[:MOST_NAMED],
                hint="choose another OUT, or remove these first",
            )

    def _is_this(self) -> bool:
        try:
            return (
                all(read_whole(self.out / name, len(content)) == content for name, content in self.documents.items())
                and index_path(self.out / PREFIX).is_file()
                and shard_path(self.out / PREFIX, 0, 1).stat().st_size == self.model.nbytes
            )
        except OSError:
            return False

    def run(self, progress: Progress) -> None:
        """Write the checkpoint."""
        with (
            whole_directory(self.out, overwrite=self.options.overwrite) as staged,
            progress("writing", self.model.nbytes) as advance,
        ):
            with _told_of_damage(self.parts):
                self.model.write(staged, advance)
            for name, content in self.documents.items():
                write_document(staged / name, content)
            for part in self.parts:
                part.check()

    def report(self, status: Status) -> ConversionReport:
        """Describe this conversion."""
        names = dict.fromkeys(part.files.name for part in self.parts)
        documents = sum(map(len, self.documents.values()))
        return ConversionReport(
            source=" and ".join(names),
            identity=self.parts[0].files.identity,
            topology=self.model.topology.says,
            output=self.out,
            parts=[self._part_report(part) for part in self.parts],
            heads=[self._head_report(part, status) for part in self.parts],
            notes=list(self.notes),
            nbytes=0 if status == "already there" else self.model.nbytes + documents,
            options=self.options,
        )

    def _part_report(self, part: OpenPart) -> PartReport:
        config = part.source.config
        fates = [fate for fate, _ in part.checkpoint.ledger(part.source.part).values()]
        return PartReport(
            part=part.source.part,
            native_head=part.source.native_head,
            config={field: getattr(config, field) for field in config.__struct_fields__},
            origins=dict(part.source.origins),
            assumed=dict(self.assumed[part.source.part]),
            source_tensors={fate: fates.count(fate) for fate in dict.fromkeys(fates)},
        )

    def _head_report(self, part: OpenPart, status: Status) -> HeadReport:
        mine = [name for name, origins in self.model.variables.items() if part.source.part in origins]
        sizes = {tensor.name: tensor.size for tensor in self.model.tensors}
        head = self.model.topology.parts.get(part.source.part) or part.head
        return HeadReport(
            part=part.source.part,
            head=head,
            directory=self.out,
            architecture=part.checkpoint.mappings.inventory.heads[head].architecture,
            copied=len(mine),
            tied=0,
            initialised=0,
            parameters=sum(sizes[name] for name in mine),
            nbytes=self.model.nbytes,
            note=NOTE,
            status=status,
        )


def _model(mappings: Mappings, parts: Sequence[OpenPart], options: ConvertOptions, *, lowercase: bool) -> GoogleModel:
    return google_model(
        mappings,
        [part.given for part in parts],
        task=(options.task or "").partition("=")[0] or parts[0].task,
        untied=options.untied_embeddings,
        slots=options.optimizer_slots,
        lowercase=lowercase,
    )


@contextmanager
def _told_of_damage(parts: Sequence[OpenPart]) -> Iterator[None]:
    """Tell of values that are not those that were saved, rather than of what does not fit because of them."""
    try:
        yield
    except (TensorMismatchError, OutputError):
        for part in parts:
            part.check()
        raise


def _sources(source: Source, options: ConvertOptions) -> list[tuple[Source, Part | None]]:
    """Return what is to be opened, each with the part it is opened for; none means those that the options ask for."""
    if options.generator is not None:
        return [(source, "discriminator"), (options.generator, "generator")]
    folders = {part: folder for part in PARTS if not is_url(source) and (folder := model_of(Path(source), part))}
    if len(folders) < len(PARTS):
        if options.part == "both" and not is_url(source):
            _refuse_models_of_one_part(Path(source), folders)
        return [(source, None)]
    if options.part is None:
        raise OptionError(
            f"{source} holds a discriminator and a generator: which part is to be written?",
            hint="--part both, or one alone: --part discriminator or --part generator",
        )
    return [(folders[part], part) for part in PARTS if options.part in (part, "both")]


def _refuse_models_of_one_part(source: Path, folders: Collection[Part]) -> None:
    """Check that a folder of models is not all there is, where both parts are asked for."""
    if nearby := nearby_model_directories(source):
        lacking = " and no folder ".join(part for part in PARTS if part not in folders)
        raise OptionError(
            f"{source} does not hold models of both parts: there is no folder {lacking}",
            problems=[f"{model} is there" for model in nearby[:MOST_NAMED]],
            hint="name a model of each part: the discriminator as SOURCE, the other with --generator DIRECTORY",
        )


def model_of(output: Path, part: Part) -> Path | None:
    """Return the directory of a part's trained head below the output of a conversion of both parts, if it is there."""
    head = {"discriminator": "pretraining", "generator": "masked_lm"}[part]
    places = [output / part / head, output / part]
    return next((place for place in places if is_model_directory(place)), None)


def _open(mappings: Mappings, location: Location, part: Part | None, options: ConvertOptions) -> Iterator[OpenPart]:
    """Open a source and yield its parts: the one that is asked for, or those of the options."""
    if location.is_model and part is None and options.part == "both":
        raise OptionError(
            f"{location.prefix} is one model, of one part",
            hint="name the model of the generator, too: --generator DIRECTORY",
        )
    files, checkpoint = open_located(location, mappings, part or options.part)
    if not location.is_model:
        checkpoint = checkpoint.with_task(options.task, options.heads or (NATIVE_HEAD,))
    parts = choose_parts(part or options.part, checkpoint)
    config_file = read_config_file(options.config) if options.config else None
    if config_file:
        check_scope(config_file, parts, one_transformer=checkpoint.topology.one_transformer)
    labels = known_labels(options, checkpoint, location.prefix.parent)
    understood = checkpoint.understand(parts, config_file=config_file, labels=labels.names)
    for name, source in understood.items():
        yield OpenPart(location, files, checkpoint, source, _head(name, source, checkpoint, options.heads))


def _head(part: Part, source: SourcePart, checkpoint: Checkpoint | ModelCheckpoint, wanted: Collection[str]) -> str:
    """Return the head that is written of a part: the one it has, or none of it, or what has the same tensors."""
    native, origin = source.native_head, checkpoint.mappings.inventory.origin
    name = next(iter(wanted), NATIVE_HEAD)
    if name == BACKBONE or (
        name == NATIVE_HEAD and native is None and set(checkpoint.topology.parts.values()) == {None}
    ):
        return BACKBONE
    if native is None:
        raise OptionError(f"the {part} has no head that can be written", hint="its backbone can be: --head base")
    if name != NATIVE_HEAD and origin(name) != origin(native):
        raise OptionError(
            f"the {part} has the head {native}, not {name}, and a checkpoint for Google's code holds what was trained",
            hint="leave --head out for the head it has, or give --head base for its backbone",
        )
    return native if name == NATIVE_HEAD else name


def _casing(parts: Sequence[OpenPart], options: ConvertOptions) -> tuple[bool, str]:
    """Return whether text is lower-cased, and how that is known.

    Raises:
        ConfigError: The tokenizers of two parts say that it is, and that it is not.
    """
    config_file: ConfigFile | None = read_config_file(options.config) if options.config else None
    if options.lowercase is not None:
        return options.lowercase, "the options"
    if config_file is not None and config_file.lowercase is not None:
        return config_file.lowercase, f"{config_file.name}: do_lower_case"
    said = {part.files.prefix: part.lowercase for part in parts if part.lowercase is not None}
    if len(set(said.values())) > 1:
        raise ConfigError(
            "the tokenizers of discriminator and generator differ",
            problems=[f"{place}: do_lower_case is {value}" for place, value in said.items()],
            hint="say whether text is lower-cased: --uncased or --cased",
        )
    return (next(iter(said.values())), f"{TOKENIZER_CONFIG_FILE}: do_lower_case") if said else (True, ASSUMED)


def _vocabulary(parts: Sequence[OpenPart], options: ConvertOptions) -> GoogleVocabulary:
    """Return the vocabulary, if one is wanted."""
    if not options.tokenizer:
        return GoogleVocabulary(None, ())
    places = [options.vocab] if options.vocab else [place_of_vocabulary(part.location) for part in parts]
    return choose_vocabulary(dict.fromkeys(filter(None, places)), [part.source.config.vocab_size for part in parts])


def _names_in(path: Path) -> list[str] | None:
    """Return what is in a directory; nothing, if it is none that can be read."""
    try:
        return os.listdir(path)  # noqa: PTH208  # names alone
    except OSError:
        return None
