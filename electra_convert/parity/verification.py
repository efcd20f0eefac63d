"""`verification.json`: what was proven of a directory, on which files; it holds as long as these files are the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from electra_convert._version import __version__
from electra_convert.digest import sha256_of
from electra_convert.errors import ConfigError, OutputError
from electra_convert.formats import TargetFormat
from electra_convert.inventory import Part
from electra_convert.output import replace_document
from electra_convert.parity.report import (
    Check,
    Coverage,
    Divergence,
    GateReport,
    HeadReport,
    Pair,
    Precision,
    Ranking,
    Run,
    Status,
    VerificationReport,
)
from electra_convert.whole_file import read_whole

VERIFICATION_FILE = "verification.json"
MOST_BYTES = 1 << 24
"""Bytes that are read of one: a model of a hundred layers takes a megabyte."""
BESIDE = frozenset({VERIFICATION_FILE, "README.md"})
"""Files that are about a model, and may change while the proof holds."""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One framework at one precision, in figures.

    Args:
        framework: The framework.
        precision: The dtype it computed in.
        outcome: Whether it passed.
        array: The array that came closest to its limit, or furthest beyond.
        difference: The largest absolute difference in it.
        limit: What the gate allows there.
        needed: The multiple of the gate that would have passed.
        divergence: Where it first failed.
        message: Why it could not be run.
    """

    framework: TargetFormat
    precision: Precision
    outcome: str
    array: str = ""
    difference: float = 0.0
    limit: float = 0.0
    needed: float = 0.0
    divergence: Divergence | None = None
    message: str = ""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What was found for one directory, and on which files.

    Args:
        electra_convert: Version of this package.
        status: The verdict.
        verdict: The verdict in a sentence.
        given: What the proof assumes, by field.
        source: Name of the checkpoint's files; empty in an audit.
        index_sha256: SHA-256 of its index; empty in an audit.
        part: The part.
        head: The head.
        left_out: Frameworks that were left out on request.
        checks: What was checked without running a model.
        runs: What was run.
        pairs: The frameworks against one another.
        causes: The likely causes of what failed.
        rankings: Assumptions that were tried on text.
        gates: The gates.
        coverage: What the probes reached.
        versions: Version of everything that took part.
        files: SHA-256 of each file of the directory.
    """

    electra_convert: str
    status: Status
    verdict: str
    given: dict[str, Any]
    source: str
    index_sha256: str
    part: Part | None
    head: str
    left_out: tuple[TargetFormat, ...]
    checks: tuple[Check, ...]
    runs: tuple[RunRecord, ...]
    pairs: tuple[Pair, ...]
    causes: tuple[str, ...]
    rankings: tuple[Ranking, ...]
    gates: tuple[GateReport, ...]
    coverage: Coverage | None
    versions: dict[str, str]
    files: dict[str, str]

    def changes(self, directory: Path) -> list[str]:
        """List the files of a directory that are not those that were verified; none means that the proof holds."""
        now = file_hashes(directory)
        problems = [f"{name} has changed" for name in self.files.keys() & now.keys() if self.files[name] != now[name]]
        problems += (f"{name} is gone" for name in self.files.keys() - now.keys())
        problems += (f"{name} was not there" for name in now.keys() - self.files.keys())
        return sorted(problems)


def read_verification(directory: Path) -> Verification | None:
    """Return what was found for a directory; `None` if it was never verified.

    Raises:
        ConfigError: The file cannot be read.
    """
    path = directory / VERIFICATION_FILE
    try:
        return msgspec.json.decode(read_whole(path, MOST_BYTES), type=Verification, strict=False)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="run `electra-convert verify` again") from error


def write_verification(head: HeadReport, report: VerificationReport, verdict: str, hashes: Mapping[str, str]) -> None:
    """Write what was found for one directory into it, in place of what an earlier verification wrote.

    Args:
        head: What was found for it.
        report: The whole report.
        verdict: The verdict on this directory in a sentence.
        hashes: The hashes of its files, from before they were read.

    Raises:
        OutputError: It cannot be written, or the directory changed while it was verified.
    """
    if hashes != file_hashes(head.directory):
        raise OutputError(f"{head.directory} changed while it was verified", hint="verify it again")
    if head.status == "audited" and _is_proven(head.directory):
        return  # an audit takes nothing from a proof that still holds
    part = next((part for part in report.parts if part.part == head.part), None)
    content = Verification(
        electra_convert=__version__,
        status=head.status,
        verdict=verdict,
        given=part.given if part else {},
        source=report.source,
        index_sha256=report.identity,
        part=head.part,
        head=head.head,
        left_out=report.left_out,
        checks=head.checks,
        runs=tuple(map(_run_record, head.runs)),
        pairs=head.pairs,
        causes=head.causes,
        rankings=part.rankings if part else (),
        gates=report.gates,
        coverage=part.coverage if part else None,
        versions=report.versions,
        files=dict(hashes),
    )
    encoded = msgspec.json.format(msgspec.json.encode(_spelt(msgspec.to_builtins(content))), indent=2) + b"\n"
    replace_document(head.directory / VERIFICATION_FILE, encoded)


def _is_proven(directory: Path) -> bool:
    try:
        found = read_verification(directory)
    except ConfigError:
        return False
    return found is not None and found.status == "proven" and not found.changes(directory)


def _spelt(value: Any) -> Any:
    """Return plain data with infinities and NaN as text, for JSON has no numbers for them."""
    if isinstance(value, dict):
        return {key: _spelt(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(each) for each in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def file_hashes(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a directory that is part of the model."""
    files = (path for path in sorted(directory.iterdir()) if path.is_file() and path.name not in BESIDE)
    return {path.name: sha256_of(path) for path in files if not path.name.startswith(".")}


def _run_record(run: Run) -> RunRecord:
    record = RunRecord(
        framework=run.framework,
        precision=run.precision,
        outcome=run.outcome,
        needed=run.needed,
        divergence=run.divergence,
        message=run.message,
    )
    if not run.arrays:
        return record
    worst = max(run.arrays, key=lambda each: each.share)
    return msgspec.structs.replace(record, array=worst.array, difference=worst.difference, limit=worst.limit)
