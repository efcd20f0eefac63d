"""Prove an output: `directories -> source -> checks -> runs -> verdict -> verification.json`.

With its checkpoint, each head is proven against Google's graph. Without, it is audited: its formats against one
another, its config, its tokenizer; that is never called a proof.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from electra_convert.errors import OptionError
from electra_convert.formats import FRAMEWORKS, TargetFormat
from electra_convert.mapping import Mappings, load_mappings
from electra_convert.models.files import read_config
from electra_convert.options import take_paths
from electra_convert.output import require_space, scratch_folder
from electra_convert.parity.causes import likely_causes
from electra_convert.parity.checks import check_formats, check_readable_config, check_tokenizer
from electra_convert.parity.directories import Directory, find_directories, mask_id
from electra_convert.parity.gates import Gates, gates
from electra_convert.parity.google_output import is_google_output, verify_google
from electra_convert.parity.heads import Found, Subject, room_told, run_heads
from electra_convert.parity.known import KnownPart, KnownSource, open_source
from electra_convert.parity.probes import BUDGET, describe, make_probes
from electra_convert.parity.reference import FrameworkReference
from electra_convert.parity.report import (
    ORDER,
    PRECISIONS,
    Check,
    HeadReport,
    PartReport,
    Precision,
    Run,
    Status,
    VerificationReport,
)
from electra_convert.parity.verdict import head_verdict, is_refuted, listed, machine, verdict, versions
from electra_convert.parity.verification import file_hashes, write_verification
from electra_convert.parity.worker import Answer
from electra_convert.parity.workers import EXTRAS, Lend, Worker, installed, running
from electra_convert.progress import Progress, no_progress
from electra_convert.tokenizer import VOCABULARY_FILE, read_vocabulary
from electra_convert.whole_file import read_whole

MODEL_CHECK = "model"
LARGEST_VERIFICATION = 1_000_000
"""Bytes that a `verification.json` takes at most."""
LARGEST_TEXT = 1_000_000_000
"""Bytes of a text that assumptions are tried on."""


class VerifyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to verify, and how.

    Args:
        source: The checkpoint the output was converted from, or its URL; by default the one that was noted then.
        generator: That of the generator, where a checkpoint for Google's code was made of two.
        step: The step of it.
        config: Google's hparams, a `bert_config.json` or `config.json`, in place of what the conversion was told.
        frameworks: The frameworks to run; none means every one that the output has files for.
        text: A text file to try assumptions on, and to look at.
        budget: Floating-point operations that one head may cost in one framework.
        loosened: Factors by which gates are loosened; what passes then counts as unverified.
        mappings: A folder of mappings to use instead of the package's own.

    Raises:
        OptionError: These contradict one another; all contradictions are listed.
    """

    source: str | Path | None = None
    generator: str | Path | None = None
    step: int | None = None
    config: Path | None = None
    frameworks: tuple[TargetFormat, ...] = ()
    text: Path | None = None
    budget: float = BUDGET
    loosened: dict[Precision, float] = {}
    mappings: Path | None = None

    def __post_init__(self) -> None:
        take_paths(self, "config", "text", "mappings")
        problems = [
            f"there is no framework {name!r}: {', '.join(FRAMEWORKS)}"
            for name in self.frameworks
            if name not in FRAMEWORKS
        ]
        problems += (
            f"there is no gate {name!r}: {', '.join(PRECISIONS)}" for name in self.loosened if name not in PRECISIONS
        )
        problems += (
            f"the gate of {name} is to be loosened {factor:g} times; the factor must be more than 1"
            for name, factor in self.loosened.items()
            if not 1 < factor < math.inf
        )
        if not 0 < self.budget < math.inf:
            problems.append(f"budget is {self.budget:g}; it must be a number more than 0")
        if self.step is not None and self.source is None:
            problems.append("a step is named, but no source")
        if problems:
            raise OptionError("this cannot be verified", problems=problems, hint="change these options")


def verify_output(
    output: str | os.PathLike[str],
    options: VerifyOptions = VerifyOptions(),  # noqa: B008  # it is immutable
    *,
    progress: Progress = no_progress,
    lend: Lend = running,
) -> VerificationReport:
    """Verify what a conversion wrote, or audit a directory whose source is unknown.

    ::

        from electra_convert import VerifyOptions, verify_output

        report = verify_output("out", VerifyOptions(source="electra_small"))
        assert report.status == "proven"

    Args:
        output: The output directory of a conversion, or one head's.
        options: What to verify, and how.
        progress: Shows progress.
        lend: Gives workers that run the models; by default new ones, for this verification alone.

    Returns:
        What was found. `verification.json` says it in each directory.

    Raises:
        ElectraConvertError: It cannot be verified at all; a verification that fails is not an error, but a report.
    """
    prove = verify_google if is_google_output(Path(output)) else _report
    with room_told():
        report, hashes = prove(Path(output), options, progress, lend)
        for head in report.heads:
            write_verification(head, report, head_verdict(head, report), hashes[head.directory])
    return report


def _report(
    output: Path, options: VerifyOptions, progress: Progress, lend: Lend
) -> tuple[VerificationReport, Mapping[Path, Mapping[str, str]]]:
    """Return what was found, and the hashes of each directory's files from before they were read."""
    began = time.monotonic()
    if options.generator is not None:
        raise OptionError(
            f"a generator is named, and {output} is no checkpoint for Google's code, which alone has two sources",
            hint="leave --generator out",
        )
    mappings = load_mappings(options.mappings)
    directories = find_directories(output, mappings.inventory)
    wanted, left_out = _frameworks(directories, options)
    text = None if options.text is None else read_text(options.text)
    directories = [each for each in directories if set(wanted) & set(each.formats) or not runnable(each.formats)]
    for directory in directories:  # before the work, not after it
        require_space(directory.path, LARGEST_VERIFICATION)
    with (
        open_source(
            directories,
            mappings,
            source=options.source,
            step=options.step,
            config=options.config,
            budget=options.budget,
            progress=progress,
        ) as known,
        scratch_folder() as scratch,
        lend([name for name in _run_by(wanted, known) if installed(name)]) as workers,
    ):
        if known is None and (options.config or options.text):
            raise OptionError(
                "a config file or a text says something of a checkpoint, and none is known here",
                hint="name it with --source, or leave --config and --text out to audit the directory",
            )
        run = _Verification(output, options, mappings, directories, known, text, workers, wanted, left_out, scratch)
        hashes = {directory.path: file_hashes(directory.path) for directory in directories}
        return run.report(progress, began), hashes


def runnable(formats: Sequence[TargetFormat]) -> list[TargetFormat]:
    """Return those of some formats that a framework can run."""
    return [target for target in formats if target in FRAMEWORKS]


def _run_by(wanted: Sequence[TargetFormat], known: KnownSource | None) -> list[TargetFormat]:
    """Return the frameworks that are needed: those that are wanted, and that of the model that was converted."""
    model = known.model if known else None
    return list(dict.fromkeys((*wanted, *(runnable(model.formats) if model else ()))))


def _frameworks(
    directories: Sequence[Directory], options: VerifyOptions
) -> tuple[tuple[TargetFormat, ...], tuple[TargetFormat, ...]]:
    """Return the frameworks that are to run, and those that are left out."""
    there = [target for target in FRAMEWORKS if any(target in directory.formats for directory in directories)]
    lacking = [name for name in options.frameworks if name not in there]
    if lacking:
        raise OptionError(
            f"there are no weights for {listed(lacking)}: the output holds {listed(there)}",
            hint="leave --frameworks out to run all of them",
        )
    wanted = options.frameworks or there
    return tuple(name for name in there if name in wanted), tuple(name for name in there if name not in wanted)


@dataclass(frozen=True)
class _Verification:
    """One verification, with all that takes part in it."""

    output: Path
    options: VerifyOptions
    mappings: Mappings
    directories: Sequence[Directory]
    known: KnownSource | None
    text: str | None
    workers: Mapping[TargetFormat, Worker]
    wanted: Sequence[TargetFormat]
    left_out: tuple[TargetFormat, ...]
    scratch: Path
    _models: dict[int, tuple[Check, ...]] = field(default_factory=dict)

    @property
    def running(self) -> dict[TargetFormat, Worker]:
        """The workers of what is wanted."""
        return {name: worker for name, worker in self.workers.items() if name in self.wanted}

    @property
    def missing(self) -> tuple[TargetFormat, ...]:
        return tuple(name for name in _run_by(self.wanted, self.known) if name not in self.workers)

    def report(self, progress: Progress, began: float) -> VerificationReport:
        """Check, run, compare, and come to a verdict."""
        gate = gates(self.options.loosened)
        subjects = [self._subject(directory, gate) for directory in self.directories]
        heads = tuple(self._heads(subjects, gate, progress))
        parts = tuple(self._parts(subjects))
        refuted = {part.part for part in parts if is_refuted(part)}
        heads = tuple(
            msgspec.structs.replace(head, status="failed") if head.part in refuted else head for head in heads
        )
        report = VerificationReport(
            output=self.output,
            source=self.known.files.name if self.known else "",
            identity=self.known.files.identity if self.known else "",
            topology=self.known.checkpoint.topology.says if self.known else "",
            status=min((head.status for head in heads), key=ORDER.index),
            verdict="",
            parts=parts,
            heads=heads,
            gates=gate.report(),
            frameworks=tuple(self.running),
            left_out=self.left_out,
            missing=self.missing,
            versions=versions(self.wanted),
            machine=machine(),
            seconds=time.monotonic() - began,
            notes=tuple(self._notes()),
        )
        return msgspec.structs.replace(report, verdict=verdict(report))

    def _subject(self, directory: Directory, gate: Gates) -> Subject:
        if self.known is None or directory.record is None:
            return self._audited(directory)
        subject = self.known.subject(directory, directory.record)
        part = self.known.part(directory, directory.record)
        if self.known.model and id(part) not in self._models:
            self._models[id(part)] = tuple(self._check_model(self.known.model, part, gate))
        return replace(subject, checks=(*subject.checks, *self._models.get(id(part), ())))

    def _check_model(self, model: Directory, part: KnownPart, gate: Gates) -> Iterator[Check]:
        """Run the model that was converted in its own framework; yield nothing if that is not installed.

        The oracle has its tensors by the names of its mapping: if the model computes the same, they are right.
        """
        (target,) = model.formats
        if target not in self.workers:
            return
        reference = replace(part.reference, cast=None, _states={})
        subject = Subject(model, part.probes, reference, ())
        found = run_heads([subject], {target: self.workers[target]}, (), gate, self.scratch / "model", lambda _: None)
        runs = [run for each in found for run in each.runs]
        faults = tuple(f"in {run.precision}: {_failure(run)}" for run in runs if run.outcome != "passed")
        off = max((array.difference for run in runs for array in run.arrays), default=math.inf)
        says = f"the model that was converted computes the same where it lies: off by at most {off:.1g}"
        yield Check(name=MODEL_CHECK, framework=target, passed=not faults, says=says, faults=faults)

    def _audited(self, directory: Directory) -> Subject:
        """Return what is to be run for a directory whose source is not known."""
        checks = [check_readable_config(directory)]
        config = read_config(directory.path, directory.head) if checks[0].passed else None
        if config is not None:
            specs = self.mappings.inventory.tensors(directory.head, config)
            formats = {target: self.mappings.of(target) for target in directory.formats}
            checks += check_formats(directory, formats, specs)
        checks += filter(None, [check_tokenizer(directory)])
        first = next((name for name in self.running if name in directory.formats), None)
        if config is None or first is None:
            return Subject(directory, (), _Nothing(), tuple(checks))
        probes = make_probes(config, mask_id=mask_id(directory), budget=self.options.budget)
        return Subject(directory, probes, FrameworkReference(first, self.workers[first]), tuple(checks))

    def _heads(self, subjects: Sequence[Subject], gate: Gates, progress: Progress) -> Iterator[HeadReport]:
        total = sum(len(PRECISIONS) * sum(name in each.directory.formats for name in self.running) for each in subjects)
        with progress("running", total, unit="models") as advance:
            for found in run_heads(subjects, self.running, self.missing, gate, self.scratch, advance):
                yield self._head(found)

    def _head(self, found: Found) -> HeadReport:
        directory = found.subject.directory
        record = directory.record
        head = HeadReport(
            directory=directory.path,
            part=record.part if record else None,
            head=directory.head,
            status="proven",
            checks=found.subject.checks,
            runs=found.runs,
            pairs=found.pairs,
            causes=likely_causes(found),
            initialised=self.known.initialised(directory, record) if self.known and record else 0,
        )
        return msgspec.structs.replace(head, status=self._status(head))

    def _status(self, head: HeadReport) -> Status:
        results = [check.passed for check in head.checks] + [pair.passed for pair in head.pairs]
        if not all(results) or any(run.outcome == "failed" for run in head.runs):
            return "failed"
        if self.known is None:
            return "audited"
        unproven = self.known.model and not any(check.name == MODEL_CHECK for check in head.checks)
        if unproven or not head.runs or any(run.outcome == "missing" for run in head.runs):
            return "incomplete"
        return "unverified" if self.options.loosened else "proven"

    def _parts(self, subjects: Sequence[Subject]) -> Iterator[PartReport]:
        if self.known is None:
            yield from _audited_parts(subjects)
            return
        seen: dict[int, tuple[KnownPart, list[Subject]]] = {}
        for subject in subjects:
            if (record := subject.directory.record) is not None:
                part = self.known.part(subject.directory, record)
                seen.setdefault(id(part), (part, []))[1].append(subject)
        for part, belonging in seen.values():
            yield self._part(part, belonging)

    def _part(self, part: KnownPart, subjects: Sequence[Subject]) -> PartReport:
        fates = [fate for fate, _ in part.checkpoint.ledger(part.record.part).values()]
        heads = [subject.directory.head for subject in subjects]
        report = PartReport(
            part=part.record.part,
            config=msgspec.to_builtins(part.config),
            origins=dict(part.origins),
            given=part.given,
            native_head=part.native_head,
            source_tensors={fate: fates.count(fate) for fate in dict.fromkeys(fates)},
            coverage=describe(part.probes, part.config),
            drift={head: part.reference.drift(head) for head in heads} if part.reference.cast else {},
        )
        return _with_text(report, part, subjects, self.text)

    def _notes(self) -> Iterator[str]:
        if self.known is None:
            yield "no source is known, so nothing here is proven against Google's code: name it with --source"
            records = {each.record.source.checkpoint for each in self.directories if each.record}
            if records:
                yield f"it was converted from {listed(sorted(records))}, which is not where it was, or another by now"
        if self.left_out:
            yield f"{listed(self.left_out)} left out on request"
        for name in self.missing:
            yield f'{name} is not installed: pip install "electra-convert[{EXTRAS[name]}]"'


def _failure(run: Run) -> str:
    """Say how a run failed."""
    off = run.divergence
    if off is None:
        return run.message
    return f"{off.array} of the probe {off.probe} is off by {off.difference:.2g}; the gate allows {off.limit:.2g}"


class _Nothing:
    """The reference of what cannot be run."""

    def start(self, directory: Path, head: str, probes: Path, out: Path) -> Future[Answer]:  # noqa: ARG002
        """Answer that there is nothing to compare with."""
        answer: Future[Answer] = Future()
        answer.set_result(Answer(error="the config describes no model, or no framework is installed"))
        return answer


def _audited_parts(subjects: Sequence[Subject]) -> Iterator[PartReport]:
    """Yield what is known of directories without a source: once for each config."""
    seen = set()
    for subject in subjects:
        if subject.probes:
            config = read_config(subject.directory.path, subject.directory.head)
            if config not in seen:
                seen.add(config)
                record = subject.directory.record
                yield PartReport(
                    part=record.part if record else None,
                    config=msgspec.to_builtins(config),
                    coverage=describe(subject.probes, config),
                )


def _with_text(report: PartReport, part: KnownPart, subjects: Sequence[Subject], text: str | None) -> PartReport:
    """Add what text shows of a part's native head: assumptions that were tried on it, and a look."""
    directory = next((each.directory for each in subjects if each.directory.head == part.native_head), None)
    if directory is None or part.native_head is None or not (directory.path / VOCABULARY_FILE).is_file():
        return report
    from electra_convert.parity.text import look, rank_assumptions

    tokenizer = part.record.tokenizer
    about: dict[str, Any] = {
        "part": part.record.part,
        "native_head": part.native_head,
        "text": text,
        "vocabulary": read_vocabulary(directory.path / VOCABULARY_FILE),
        "lowercase": tokenizer.lowercase.value if tokenizer else True,
        "strip_accents": tokenizer.strip_accents if tokenizer else None,
    }
    rankings = () if text is None else rank_assumptions(part.reference.variables, part.config, **about)
    confirmed = {ranking.field for ranking in rankings if ranking.finding == "confirmed"}
    return msgspec.structs.replace(
        report,
        rankings=rankings,
        look=look(part.reference.variables, part.config, **about),
        given={field: value for field, value in report.given.items() if field not in confirmed},
    )


def read_text(path: Path) -> str:
    """Return the text in a file.

    Raises:
        OptionError: It cannot be read, or is not UTF-8.
    """
    try:
        return read_whole(path, LARGEST_TEXT).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise OptionError(f"{path} is not a text that can be read: {why}", hint="give a UTF-8 text file") from error
