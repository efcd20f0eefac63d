"""The export of a model: `open -> write, each in a process of its own -> load, compare -> publish`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from electra_convert.child import Child
from electra_convert.errors import CheckpointNotFoundError, ExportError, OptionError, OutputError, SourceError
from electra_convert.export.model import locate_model, specs_of
from electra_convert.export.options import ExportOptions
from electra_convert.export.proof import Proof
from electra_convert.export.report import Agreement, Exported, ExportReport
from electra_convert.export.targets import (
    DESCRIBED,
    ExportTarget,
    load_call,
    require_installed,
    targets_in,
    versions_of,
)
from electra_convert.export.writer import Job
from electra_convert.formats import TargetFormat
from electra_convert.mapping import Mappings, load_mappings
from electra_convert.model_directory import ModelDirectory, open_model_directory
from electra_convert.models.files import ARCHITECTURES, CONFIG_FILE
from electra_convert.output import (
    exists_error,
    require_space,
    scratch_folder,
    sync_path,
    whole_directory,
    write_document,
)
from electra_convert.parity.heads import room_told
from electra_convert.parity.probes import make_probes
from electra_convert.parity.worker import Answer
from electra_convert.parity.workers import environment
from electra_convert.progress import Progress, no_progress
from electra_convert.tokenizer import MAX_FILE_BYTES, TOKENIZER_FILES, VOCABULARY_FILE, read_vocabulary
from electra_convert.whole_file import read_whole

COPIED = (CONFIG_FILE, *TOKENIZER_FILES)
"""Files that are copied beside an export: the labels' names are in the one, what makes ids of text in the others."""
ITEM_SIZE = 4
ROOM_FOR_OTHERS = 50_000_000
"""Bytes that graph, tokenizer and the like take at most."""


def export_model(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: ExportOptions = ExportOptions(),  # noqa: B008  # it is immutable
    *,
    progress: Progress = no_progress,
) -> ExportReport:
    """Write a model for the library of a framework alone, and prove that it computes the same.

    ::

        from electra_convert import ExportOptions, export_model

        export_model("out/pretraining", "exported", ExportOptions(targets=("keras",)))

    Args:
        model: A directory with `config.json` and weights of PyTorch, TensorFlow or Flax, whoever wrote it; one of its
            files of weights; or `hf://org/name`.
        output: The directory to write. It appears when all that is in it was loaded, run and found right.
        options: What to write.
        progress: Shows progress.

    Raises:
        ExportError: What was written does not compute what the model computes; nothing appears.
        ElectraConvertError: The subclass says what else went wrong.
    """
    target, mappings = Path(output), load_mappings(options.mappings)
    require_installed(options.targets)
    if os.path.lexists(target) and not options.overwrite:
        raise exists_error([target])
    with locate_model(model, progress) as location:
        _require_apart(location.prefix, target)
        opened = open_model_directory(location.prefix, mappings, options.format, file=location.file)
        opened.require_whole()
        export = _Export(os.fspath(model), opened, location.file, mappings, options, target)
        require_space(target, len(options.targets) * ITEM_SIZE * export.parameters + ROOM_FOR_OTHERS)
        copied = export.copied  # before the work, not after it
        with scratch_folder() as scratch, whole_directory(target, overwrite=options.overwrite) as staged:
            return export.run(staged, scratch, copied, progress)


def verify_export(
    output: str | os.PathLike[str],
    model: str | os.PathLike[str],
    options: ExportOptions = ExportOptions(),  # noqa: B008  # it is immutable
    *,
    progress: Progress = no_progress,
) -> ExportReport:
    """Load what was exported once more, and compare it with the model it was made from.

    Args:
        output: The directory of the export; all targets in it are loaded, each by its library alone.
        model: The model, as for `export_model`.
        options: How the model is read; its targets count for nothing.
        progress: Shows progress.

    Raises:
        CheckpointNotFoundError: Nothing was exported to this directory.
        ExportError: It does not compute what the model computes, or its other files are not the model's.
        ElectraConvertError: The subclass says what else went wrong.
    """
    place, mappings = Path(output), load_mappings(options.mappings)
    targets = targets_in(place)
    if not targets:
        raise CheckpointNotFoundError(
            f"there is no export in {place}: none of {', '.join(each.place for each in DESCRIBED.values())}",
            hint="name the OUT of `electra-convert export`",
        )
    require_installed(targets)
    with locate_model(model, progress) as location, scratch_folder() as scratch:
        opened = open_model_directory(location.prefix, mappings, options.format, file=location.file)
        opened.require_whole()
        options = msgspec.structs.replace(options, targets=targets)
        return _Export(os.fspath(model), opened, location.file, mappings, options, place).verify(scratch, progress)


@dataclass(frozen=True)
class _Export:
    """One export, with all that takes part in it."""

    named: str
    model: ModelDirectory
    file: Path | None
    mappings: Mappings
    options: ExportOptions
    output: Path

    @property
    def parameters(self) -> int:
        """Number of the model's parameters."""
        return sum(self.model.tensors[spec.name].size for spec in specs_of(self.model, self.mappings))

    @property
    def copied(self) -> dict[str, bytes]:
        """What belongs to the model whatever the framework: its files by their names.

        Raises:
            SourceError: One cannot be read.
        """
        try:
            return {
                name: read_whole(self.model.path / name, MAX_FILE_BYTES)
                for name in COPIED
                if os.path.lexists(self.model.path / name)
            }
        except OSError as error:
            raise SourceError(
                f"{error.filename} cannot be read: {error.strerror}", hint="see that it is a file you may read"
            ) from error

    def run(self, staged: Path, scratch: Path, copied: Mapping[str, bytes], progress: Progress) -> ExportReport:
        """Write and prove every target in `staged`, and put a model's other files beside."""
        report, problems = self._prove(staged, scratch, progress, write=True)
        if problems:
            raise ExportError(
                f"what was exported does not compute what {self.named} computes; nothing was written",
                problems=problems,
                hint="report this, with the versions of the frameworks; --to leaves a target out",
            )
        for name, content in copied.items():
            write_document(staged / name, content)
        _sync_files(staged)
        return msgspec.structs.replace(report, files=list(copied), nbytes=_size_of(staged))

    def verify(self, scratch: Path, progress: Progress) -> ExportReport:
        """Prove every target that lies in the output."""
        report, problems = self._prove(self.output, scratch, progress, write=False)
        copied = self.copied
        problems += (
            f"{name} is not that of the model" for name, content in copied.items() if not self._holds(name, content)
        )
        if problems:
            raise ExportError(
                f"what lies in {self.output} is not {self.named}, or does not compute the same",
                problems=problems,
                hint="export the model again",
            )
        return msgspec.structs.replace(report, files=list(copied), nbytes=_size_of(self.output))

    def _holds(self, name: str, content: bytes) -> bool:
        try:
            return read_whole(self.output / name, len(content)) == content
        except OSError:
            return False

    def _prove(self, folder: Path, scratch: Path, progress: Progress, *, write: bool) -> tuple[ExportReport, list[str]]:
        """Load and compare every target in a folder, written before if that is asked for; return what is wrong, too."""
        probes = make_probes(self.model.config, mask_id=self._mask_id())
        proof = Proof(self.model, self.mappings, probes, scratch)
        exported: list[Exported] = []
        problems: list[str] = []
        steps = 1 + (1 + write) * len(self.options.targets)
        with progress("exporting" if write else "verifying", steps, unit="steps") as advance:
            with room_told():
                reference = proof.start()
            advance(1)
            for target in self.options.targets:
                place = folder / DESCRIBED[target].place
                if write:
                    self._write(target, place)
                    advance(1)
                with room_told():
                    agreement, faults = proof.compare(target, place)
                advance(1)
                problems += faults
                exported.append(self._exported(target, place, agreement))
        return self._report(reference, exported), problems

    def _report(self, reference: TargetFormat, exported: list[Exported]) -> ExportReport:
        return ExportReport(
            model=self.named,
            output=self.output,
            architecture=ARCHITECTURES[self.model.head],
            head=self.model.head,
            format=self.model.target,
            parameters=self.parameters,
            reference=reference,
            exported=exported,
            files=[],
            nbytes=0,
        )

    def _write(self, target: ExportTarget, place: Path) -> None:
        """Write a target, in a process of its own.

        Raises:
            ExportError: The framework does not write it.
            OutputError: The disk does not take it.
        """
        place.parent.mkdir(exist_ok=True)
        job = Job(
            model=self.model.path.absolute(),
            format=self.model.target,
            file=self.file and self.file.absolute(),
            mappings=self.options.mappings and self.options.mappings.absolute(),
            place=place.absolute(),
        )
        name = "electra_convert.export.writer"
        with closing(Child(name, target, environment=environment(os.cpu_count() or 1))) as child:
            child.send(msgspec.json.encode(job, enc_hook=str))
            line = child.receive()
            answer = msgspec.json.decode(line, type=Answer) if line else Answer(error=f"it {child.last_words()}")
        if answer.stopped:
            raise OutputError(f"{self.output} cannot be written: {answer.error}", hint="choose an OUT with room")
        if answer.error:
            raise ExportError(
                f"{DESCRIBED[target].title} cannot be written: {answer.error}", hint="--to leaves a target out"
            )

    def _exported(self, target: ExportTarget, place: Path, agreement: list[Agreement]) -> Exported:
        return Exported(
            target=target,
            place=DESCRIBED[target].place,
            nbytes=_size_of(place),
            call=load_call(target, self.output),
            versions=versions_of(target),
            agreement=agreement,
        )

    def _mask_id(self) -> int | None:
        vocabulary = self.model.path / VOCABULARY_FILE
        return read_vocabulary(vocabulary).ids().get("[MASK]") if vocabulary.is_file() else None


def _require_apart(model: Path, output: Path) -> None:
    """Check that the model would not be replaced by its export.

    Raises:
        OptionError: It lies where the export is to be written.
    """
    if model.resolve().is_relative_to(output.resolve()):
        raise OptionError(
            f"the export is to be written to {output}, where the model is that is read", hint="choose another OUT"
        )


def _size_of(place: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


def _sync_files(folder: Path) -> None:
    """Sync every file of a tree; frameworks write them, and do not."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync_path(path)
