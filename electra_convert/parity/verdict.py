"""The verdict in words: conditional, for a proof is given what no tensor shows."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from electra_convert._version import __version__
from electra_convert.formats import TargetFormat
from electra_convert.parity.report import HeadReport, PartReport, VerificationReport
from electra_convert.parity.workers import NEEDS

PACKAGES = ("numpy", "scipy", "h5py", "msgpack", "tokenizers")


def is_refuted(part: PartReport) -> bool:
    """Say whether text speaks against what was assumed of a part."""
    return any(ranking.finding == "refuted" for ranking in part.rankings)


def verdict(report: VerificationReport) -> str:
    """Return the verdict on an output."""
    failed = [head for head in report.heads if head.status == "failed"]
    if failed:
        refuted = [ranking.says for part in report.parts for ranking in part.rankings if ranking.finding == "refuted"]
        return _failure(f"{len(failed)} of {len(report.heads)} heads", refuted)
    return _passed(report, _given(report.parts))


def head_verdict(head: HeadReport, report: VerificationReport) -> str:
    """Return the verdict on one directory."""
    parts = [part for part in report.parts if part.part == head.part]
    if head.status == "failed":
        refuted = [ranking.says for part in parts for ranking in part.rankings if ranking.finding == "refuted"]
        return _failure(f"{head.head}", [*head.causes, *refuted])
    if head.status == "incomplete" and not head.runs:
        return "incomplete: nothing of it was run"
    return _passed(report, _given(parts))


def _failure(what: str, causes: Sequence[str]) -> str:
    return f"failed: {what} not proven" + (f": {'; '.join(causes)}" if causes else "")


def _passed(report: VerificationReport, given: str) -> str:
    if report.missing:
        return f"incomplete: not all was run, for {listed(report.missing)} {_are(report.missing)} not installed"
    if not report.identity:
        return "audited: consistent with itself; nothing is proven, for no source is known"
    if not report.frameworks:
        return "incomplete: no framework was run"
    loosened = [f"{gate.precision} x {gate.loosened:g}" for gate in report.gates if gate.loosened != 1]
    if loosened:
        return f"unverified: all passed, but with loosened gates ({', '.join(loosened)})"
    only = (
        f" in {' and '.join(report.frameworks)} ({' and '.join(report.left_out)} left out)" if report.left_out else ""
    )
    return f"proven{only}" + (f", given assumed: {given}" if given else "; nothing had to be assumed")


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them: `a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _given(parts: Sequence[PartReport]) -> str:
    """Say what was assumed; parts that differ are told apart."""
    told = {_fields(part.given): part.part for part in parts if part.given}
    if len(told) < 2:
        return next(iter(told), "")
    return "; ".join(f"{fields} ({part})" for fields, part in told.items())


def _fields(given: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{field} = {value if isinstance(value, str) else json.dumps(value)}" for field, value in given.items()
    )


def machine() -> str:
    """Say what a verification ran on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def versions(frameworks: Sequence[TargetFormat]) -> dict[str, str]:
    """Return the version of everything that takes part in a verification."""
    found = {"electra-convert": __version__, "python": platform.python_version()}
    for package in (*PACKAGES, *(name for framework in frameworks for name in NEEDS[framework])):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
