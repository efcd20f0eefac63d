"""Files to tensors and back: one module for each format, the same verbs in each, and no framework anywhere.

A format is there if it has a module here and a mapping of its name. Every target format has `SINGLE`, `SHARD` and
`INDEX`, the names of its files, `DTYPES`, what it can hold, `write(path, contents)`, and `read(path)`, which gives the
tensors back by the names of the format.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias, cast, get_args

import msgspec

from electra_convert.errors import CheckpointNotFoundError, CorruptCheckpointError, SourceError
from electra_convert.formats.extents import Written
from electra_convert.json_text import read_json_file
from electra_convert.mapping import default_directory
from electra_convert.progress import Advance
from electra_convert.tensor import Tensor

TargetFormat: TypeAlias = str
"""A key of `TARGETS`."""
Framework = Literal["pytorch", "tensorflow", "flax"]
FRAMEWORKS: tuple[TargetFormat, ...] = get_args(Framework)
"""The formats of frameworks, which can run what is in them."""
FRAMEWORK_NAMES: dict[TargetFormat, str] = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "flax": "Flax"}
GOOGLE: Final = "google_tf1"
"""The format of Google's code, whose files are no files of a head."""


def _others() -> list[TargetFormat]:
    """Return the formats of no framework: what has a module here, and a mapping."""
    modules = {path.stem for path in Path(__file__).parent.glob("*.py")}
    mapped = {path.stem for path in default_directory().glob("*.yaml")}
    return sorted((modules & mapped) - {*FRAMEWORKS, GOOGLE})


TARGETS: tuple[TargetFormat, ...] = (*FRAMEWORKS, *_others())
"""All that can be written, those of frameworks first."""
MOST_SHARDS = 200
"""Files of one model's weights; each is open while its values may be read."""


class Contents(msgspec.Struct, frozen=True):
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
    repeated: Mapping[str, Sequence[str]] = {}
    sharded: bool = False


class Reader(Protocol):
    """The module of a kind of files that are read."""

    SINGLE: str
    INDEX: str

    @staticmethod
    def read(path: Path) -> dict[str, Tensor]:
        """Return the tensors of a file, by the names of the format."""


class Format(Reader, Protocol):
    """The module of a target format."""

    SHARD: str
    DTYPES: Sequence[str]

    @staticmethod
    def write(path: Path, contents: Contents, advance: Advance, written: Written | None = None) -> None:
        """Write a new file of weights, synced to disk."""


def module_of(target: TargetFormat) -> Format:
    """Return the module of a format, imported on first use."""
    return cast(Format, import_module(f"electra_convert.formats.{target}"))


def weight_files(directory: Path, target: TargetFormat) -> list[Path]:
    """Return the files of weights that a directory holds in one format, as this package writes it; none, if none.

    Raises:
        CorruptCheckpointError: The index of sharded weights cannot be read.
    """
    return files_of(directory, module_of(target))


def read_weights(directory: Path, target: TargetFormat) -> dict[str, Tensor]:
    """Return the weights that a directory holds in one format, by the names of the format.

    Nothing that the files say is believed unseen, and no values are read before they are needed. Tensors of integers
    are no weights, but buffers of old versions of transformers, and are left out.

    Raises:
        CheckpointNotFoundError: There is no such file.
        SourceError: A file cannot be read.
        CorruptCheckpointError: A file is damaged, or a shard is not what the index says.
    """
    module = module_of(target)
    if not files_of(directory, module):
        raise CheckpointNotFoundError(
            f"there is no {module.SINGLE} and no {module.INDEX} in {directory}",
            hint=f"name a directory that holds {target} weights",
        )
    return {name: each for name, each in read_files(directory, module).items() if each.dtype != "int64"}


def files_of(directory: Path, module: Reader) -> list[Path]:
    """Return the files of weights of one kind that a directory holds, whether they are there or the index names them.

    Raises:
        CorruptCheckpointError: The index cannot be read.
    """
    if (directory / module.SINGLE).is_file():
        return [directory / module.SINGLE]
    index = directory / module.INDEX
    if not index.is_file():
        return []
    return [directory / name for name in sorted(set(_weight_map(index, module.SINGLE).values()))]


def read_files(directory: Path, module: Reader) -> dict[str, Tensor]:
    """Return the tensors of the files of one kind, which are in a directory.

    Raises:
        SourceError: A file cannot be read.
        CorruptCheckpointError: A file is damaged, or a shard is not what the index says.
    """
    if (directory / module.SINGLE).is_file():
        return module.read(directory / module.SINGLE)
    index = directory / module.INDEX
    weight_map = _weight_map(index, module.SINGLE)
    shards = sorted(set(weight_map.values()))
    missing = [
        str(directory / shard)
        for shard in shards
        if not os.path.isfile(directory / shard)  # noqa: PTH113 says no, where Path.is_file() raises
    ]
    if missing:
        raise CorruptCheckpointError(f"{index} names files that are not there", problems=missing, hint="copy them all")
    return _joined(index, weight_map, {shard: module.read(directory / shard) for shard in shards})


def _joined(
    index: Path, weight_map: Mapping[str, str], shards: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the tensors of all shards, once it is sure that each lies where the index says, and nowhere else."""
    said = set(_unscoped(weight_map, [name for tensors in shards.values() for name in tensors]).items())
    held = {(name, shard) for shard, tensors in shards.items() for name in tensors}
    problems = [f"{name} is not in {shard}, where the index says it is" for name, shard in sorted(said - held)]
    problems += [f"{name} is in {shard}; the index does not say so" for name, shard in sorted(held - said)]
    if problems:
        raise CorruptCheckpointError(
            f"the shards beside {index} are not those of the index", problems=problems, hint="copy all files again"
        )
    return {name: tensor for tensors in shards.values() for name, tensor in tensors.items()}


def _unscoped(weight_map: Mapping[str, str], held: Collection[str]) -> Mapping[str, str]:
    """Return the map with the names in the shards, which lack the model's scope that TensorFlow's index has."""
    if not weight_map.keys().isdisjoint(held):
        return weight_map
    return {name.partition("/")[2] or name: shard for name, shard in weight_map.items()}


def _weight_map(index: Path, single: str) -> dict[str, str]:
    """Return the file of each tensor: names of files beside the index, of the same kind as `single`."""
    try:
        content = read_json_file(index)
    except OSError as error:
        raise SourceError(f"cannot read {index}: {error.strerror}") from error
    except ValueError as error:
        raise _no_index(index, str(error)) from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise _no_index(index, "there is no such map")
    kind = Path(single).suffix
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(kind) or "\0" in shard:
            raise _no_index(index, f"{name!r} is in {shard!r}; expected the name of a {kind} file")
        if not name.isprintable() or not shard.isprintable():
            raise _no_index(index, f"{name!r} in {shard!r} cannot be printed")
    if (count := len(set(weight_map.values()))) > MOST_SHARDS:
        raise _no_index(index, f"it names {count} files; expected at most {MOST_SHARDS}")
    return weight_map


def _no_index(index: Path, fault: str) -> CorruptCheckpointError:
    return CorruptCheckpointError(
        f"{index} is no index of sharded weights, a weight_map of tensor names to file names beside it: {fault}",
        hint="copy the file again, or convert again",
    )
