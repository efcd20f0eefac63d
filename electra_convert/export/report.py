"""What an export wrote, and how closely it was found to compute what the model computes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from electra_convert.export.targets import ExportTarget
from electra_convert.formats import TargetFormat


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """One output of an export, beside the reference's.

    Args:
        output: Its name: `logits`.
        difference: The largest absolute difference.
        limit: What the gate allows there.
        elements: How many elements were compared.
    """

    output: str
    difference: float
    limit: float
    elements: int


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A target that was written.

    Args:
        target: The target.
        place: Where it lies, in the output.
        nbytes: Size of its files.
        call: Loads it.
        versions: The packages that wrote it.
        agreement: How far each of its outputs is from the reference's.
    """

    target: ExportTarget
    place: str
    nbytes: int
    call: str
    versions: dict[str, str]
    agreement: list[Agreement]


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an export did.

    Args:
        model: The directory that was read.
        output: Where it was written.
        architecture: The model's class, without a framework's prefix.
        head: Its head.
        format: The format that was read.
        parameters: Its parameters.
        reference: The framework whose reference model, in float64, it was compared with.
        exported: What was written.
        files: Other files, copied beside it.
        nbytes: Size of all files.
    """

    model: Path
    output: Path
    architecture: str
    head: str
    format: TargetFormat
    parameters: int
    reference: TargetFormat
    exported: list[Exported]
    files: list[str]
    nbytes: int
