"""Files to tensors and back: one module for each format, the same verbs in each, and no framework anywhere.

Every target format has `SINGLE`, `SHARD` and `INDEX`, the file names transformers expects, `DTYPES`, what it can
hold, `write(path, contents)`, and `read(path)`, which gives the tensors back by the names of the format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

from electra_convert.errors import CheckpointNotFoundError, CorruptCheckpointError
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


class Format(Protocol):
    """The module of a target format."""

    SINGLE: str
    SHARD: str
    INDEX: str
    DTYPES: Sequence[str]

    @staticmethod
    def write(path: Path, contents: Contents, advance: Advance) -> None:
        """Write a new file of weights, synced to disk."""

    @staticmethod
    def read(path: Path) -> dict[str, Tensor]:
        """Return the tensors of a file, by the names of the format."""


def module_of(target: TargetFormat) -> Format:
    """Return the module of a format, imported on first use."""
    return cast(Format, import_module(f"electra_convert.formats.{target}"))


def weight_files(directory: Path, target: TargetFormat) -> list[Path]:
    """Return the files of weights that a directory holds in one format; none, if it holds none.

    Raises:
        CorruptCheckpointError: The index of sharded weights cannot be read.
    """
    module = module_of(target)
    if (directory / module.SINGLE).is_file():
        return [directory / module.SINGLE]
    index = directory / module.INDEX
    return [directory / name for name in sorted(set(_weight_map(index).values()))] if index.is_file() else []


def read_weights(directory: Path, target: TargetFormat) -> dict[str, Tensor]:
    """Return the tensors that a directory holds in one format, by the names of the format.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CorruptCheckpointError: A file is damaged, or a shard is not what the index says.
    """
    module = module_of(target)
    files = weight_files(directory, target)
    if not files:
        raise CheckpointNotFoundError(
            f"there is no {module.SINGLE} and no {module.INDEX} in {directory}",
            hint=f"name a directory that holds {target} weights",
        )
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise CorruptCheckpointError(
            f"{directory / module.INDEX} names files that are not there", problems=missing, hint="copy them all"
        )
    shards = {path.name: module.read(path) for path in files}
    if files[0].name == module.SINGLE:
        return shards[module.SINGLE]
    return _joined(directory / module.INDEX, shards)


def _joined(index: Path, shards: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of all shards, once it is sure that each lies where the index says, and nowhere else."""
    said = set(_weight_map(index).items())
    held = {(name, shard) for shard, tensors in shards.items() for name in tensors}
    problems = [f"{name} is not in {shard}, where the index says it is" for name, shard in sorted(said - held)]
    problems += [f"{name} is in {shard}; the index does not say so" for name, shard in sorted(held - said)]
    if problems:
        raise CorruptCheckpointError(
            f"the shards beside {index} are not those of the index", problems=problems, hint="copy all files again"
        )
    return {name: tensor for tensors in shards.values() for name, tensor in tensors.items()}


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map: Any = json.loads(index.read_bytes())["weight_map"]
        if all(isinstance(shard, str) and Path(shard).name == shard for shard in weight_map.values()):
            return dict(weight_map)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise CorruptCheckpointError(
        f"{index} is no index of sharded weights: it should hold a weight_map of tensor names to file names beside it",
        hint="copy the file again, or convert again",
    )
