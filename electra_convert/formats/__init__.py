"""Files to tensors and back: one module for each format, the same verbs in each, and no framework anywhere.

Every target format has `SINGLE`, `SHARD` and `INDEX`, the file names transformers expects, `DTYPES`, what it can
hold, and `write(path, contents)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, cast, get_args

from electra_convert.progress import Advance
from electra_convert.tensor import Tensor

TargetFormat = Literal["pytorch", "tensorflow", "flax"]
TARGETS: tuple[TargetFormat, ...] = get_args(TargetFormat)


@dataclass(frozen=True, slots=True)
class Contents:
    """What one file of weights holds.

    Args:
        tensors: The tensors, by the names of the format; their values may have another dtype.
        dtype: The dtype in the file.
        model: Architecture these are the weights of, without a framework's prefix: `ElectraForMaskedLM`.
        repeated: Names that a group lists beside its own, by group (TensorFlow).
        sharded: This file is one of several.
    """

    tensors: Sequence[Tensor]
    dtype: str
    model: str
    repeated: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sharded: bool = False


class Writer(Protocol):
    """The module of a target format."""

    SINGLE: str
    SHARD: str
    INDEX: str
    DTYPES: Sequence[str]

    @staticmethod
    def write(path: Path, contents: Contents, advance: Advance) -> None:
        """Write a new file of weights, synced to disk."""


def writer(target: TargetFormat) -> Writer:
    """Return the module of a format, imported on first use."""
    return cast(Writer, import_module(f"electra_convert.formats.{target}"))
