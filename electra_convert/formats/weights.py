"""The weights that a directory holds, in all the kinds of files that transformers has ever written.

A format may be in files of several kinds: PyTorch's in safetensors and in pickles, and a safetensors file may hold any
format, which its metadata name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

import msgspec

from electra_convert.errors import SourceError, UnsupportedCheckpointError
from electra_convert.formats import FRAMEWORK_NAMES, TARGETS, Reader, TargetFormat, files_of, read_files
from electra_convert.formats.pytorch import framework_of
from electra_convert.printable import printable
from electra_convert.tensor import Tensor

SAFETENSORS = "pytorch"
KINDS: dict[str, TargetFormat | None] = {
    SAFETENSORS: None,
    "tensorflow": "tensorflow",
    "flax": "flax",
    "pytorch_bin": "pytorch",
}
"""The modules that read files of frameworks, each with the format its files are in, if it is always the same. A format
is read from the first of them that is there."""
FRAMEWORKS: dict[str, TargetFormat] = {"pt": "pytorch", "mlx": "pytorch", "tf": "tensorflow", "flax": "flax"}
"""The formats by the names that the metadata of safetensors have for them."""
LONGEST_FRAMEWORK = 100
"""Characters of such a name that a message shows."""


class Weights(msgspec.Struct, frozen=True):
    """Weights that a directory holds, in files of one kind.

    Args:
        directory: The directory.
        target: Their format.
        kind: The module that reads the files.
        files: The files, shards included.
    """

    directory: Path
    target: TargetFormat
    kind: str
    files: tuple[Path, ...]

    def holds(self, file: Path) -> bool:
        """Say whether a file is one of these, or their index."""
        return file in (*self.files, self.directory / _reader(self.kind).INDEX)

    def read(self) -> dict[str, Tensor]:
        """Return the tensors, by the names of the format; no values are read before they are needed.

        Raises:
            SourceError: A file cannot be read, or needs a package that is not installed.
            CorruptCheckpointError: A file is damaged, or a shard is not what the index says.
        """
        tensors = read_files(self.directory, _reader(self.kind))
        if self.kind == SAFETENSORS and self.target == "flax":
            return dict(map(_as_path, tensors.values()))
        return tensors


def find_weights(directory: Path) -> list[Weights]:
    """Return the weights that a directory holds: those of PyTorch first, and of each format those to be read first.

    Raises:
        SourceError: An index cannot be read.
        UnsupportedCheckpointError: The metadata of a safetensors file name a format that is not known.
        CorruptCheckpointError: An index is damaged.
    """
    return sorted(_found(directory), key=lambda weights: TARGETS.index(weights.target))


def weight_names(*, single: bool = False) -> list[str]:
    """Return the names that files of weights have; those of indexes too, unless it is `single`."""
    readers = [_reader(kind) for kind in _kinds()]
    return [reader.SINGLE for reader in readers] + ([] if single else [reader.INDEX for reader in readers])


def named_files(directory: Path) -> list[Path]:
    """Return the files of weights that a directory should hold, as names and indexes tell.

    Raises:
        CorruptCheckpointError: An index cannot be read.
    """
    return [file for kind in _kinds() for file in files_of(directory, _reader(kind))]


def _found(directory: Path) -> Iterator[Weights]:
    for kind, target in _kinds().items():
        if files := files_of(directory, _reader(kind)):
            yield Weights(directory, target or _target_of(files), kind, tuple(files))


def _kinds() -> dict[str, TargetFormat | None]:
    """Return the modules that read files; a format of no framework has one kind."""
    return KINDS | {target: target for target in TARGETS if target not in FRAMEWORK_NAMES}


def _reader(kind: str) -> Reader:
    return cast(Reader, import_module(f"electra_convert.formats.{kind}"))


def _target_of(files: Sequence[Path]) -> TargetFormat:
    """Return the format that safetensors files hold, as the first that is there says.

    Damage is told when they are read: other files may be wanted.
    """
    there = next((file for file in files if file.is_file()), None)
    try:
        framework = framework_of(there) if there else "pt"
    except SourceError:
        return "pytorch"
    if framework not in FRAMEWORKS:
        raise UnsupportedCheckpointError(
            f"the metadata of {there} say that it is of the format {printable(repr(framework), LONGEST_FRAMEWORK)}; "
            f"expected {', '.join(FRAMEWORKS)}",
            hint='save it with the framework that made it, or with the metadata {"format": "pt"} if it is a state dict',
        )
    return FRAMEWORKS[framework]


def _as_path(tensor: Tensor) -> tuple[str, Tensor]:
    """Return a tensor by its path in the tree of parameters, whose keys Flax classes join by dots in safetensors."""
    name = "/".join(tensor.name.split("."))
    return name, msgspec.structs.replace(tensor, name=name)
