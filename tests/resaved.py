"""What transformers saves again, compared with what it read."""

from __future__ import annotations

from pathlib import Path

from electra_convert import DiffOptions, diff_checkpoints
from electra_convert.formats import TargetFormat


def assert_same_weights(read: Path, saved: Path, target: TargetFormat) -> None:
    """Assert that two directories have the same config and, bit for bit, the same tensors."""
    report = diff_checkpoints(read, saved, DiffOptions(formats=(target,)))
    assert not report.config
    assert not report.different
    assert report.tensors >= 55
