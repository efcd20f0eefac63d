"""What transformers saves again, compared with what it read."""

from __future__ import annotations

from pathlib import Path

from electra_convert import DiffOptions, diff_checkpoints, load_mappings
from electra_convert.formats import TargetFormat
from electra_convert.model_directory import ModelDirectory, open_model_directory


def assert_same_weights(read: Path, saved: Path, target: TargetFormat) -> None:
    """Assert that two directories have the same config and, bit for bit, the same tensors."""
    report = diff_checkpoints(read, saved, DiffOptions(formats=(target,)))
    assert not report.config
    assert not report.different
    assert report.tensors >= 55


def assert_same_model(ours: Path, saved: Path, target: TargetFormat, files: str) -> ModelDirectory:
    """Assert that a directory is whole, as a model in this format, and has the config and the tensors of ours.

    Args:
        ours: What this package wrote.
        saved: What another library wrote.
        target: The format in which both are read.
        files: The beginning of the names of the files that must be read.
    """
    expected, found = (open_model_directory(path, load_mappings(), target) for path in (ours, saved))
    found.require_whole()
    assert all(file.name.startswith(files) for file in found.files)
    assert found.head == expected.head
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].load().tobytes() == tensor.load().tobytes(), name
    assert_same_weights(ours, saved, target)
    return found
