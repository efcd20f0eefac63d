"""A directory of a model, opened in any framework's format as canonical tensors.

It holds `config.json` and weights as transformers has them, whoever wrote them. Names are made from the mapping of the
format and looked up; what nothing is bound to is kept under its own name, and what is missing is told.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from electra_convert.config import ElectraConfig
from electra_convert.errors import CheckpointNotFoundError, ConfigError, MappingError, TensorMismatchError
from electra_convert.formats import TARGETS, TargetFormat, module_of, read_weights, weight_files
from electra_convert.inventory import Inventory, TensorSpec
from electra_convert.mapping import Binding, FormatMapping, Mappings
from electra_convert.models.files import CONFIG_FILE, read_config, read_json
from electra_convert.tensor import Tensor
from electra_convert.transforms import TRANSFORMS

WEIGHT_SUFFIXES = (".safetensors", ".h5", ".msgpack")


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """An open directory.

    Args:
        path: Where it is.
        target: The format that was read.
        others: The other formats that are there.
        head: Its head.
        config: What `config.json` says, as this package understands it.
        said: What `config.json` says, as it is written.
        tensors: The tensors by canonical name. Where one has another shape than the config calls for, it has that.
        missing: What the config calls for and is not there.
        misshapen: Names of the tensors that have another shape than the config calls for.
        unknown: The tensors that are in no mapping, by the names of the format.
        bindings: What the tensors that are there and fit are made of.
        tied: The tensors that are another one, and are there all the same: canonical name, and that of the other.
        stored: All tensors, by the names of the format.
    """

    path: Path
    target: TargetFormat
    others: tuple[TargetFormat, ...]
    head: str
    config: ElectraConfig
    said: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    missing: tuple[TensorSpec, ...]
    misshapen: tuple[str, ...]
    unknown: Mapping[str, Tensor]
    bindings: tuple[Binding, ...]
    tied: Mapping[str, tuple[str, str]]
    stored: Mapping[str, Tensor]

    def require_whole(self) -> None:
        """Check that the tensors are those the config calls for.

        Raises:
            TensorMismatchError: Some are missing, unknown, or of the wrong shape; it lists all.
        """
        problems = [f"{spec.name} {list(spec.shape)} is missing" for spec in self.missing]
        problems += (
            f"{name} has shape {list(self.tensors[name].shape)}, which {CONFIG_FILE} does not call for"
            for name in self.misshapen
        )
        problems += (f"{name} {list(tensor.shape)} is in no mapping" for name, tensor in self.unknown.items())
        if problems:
            tensors = "1 tensor does" if len(problems) == 1 else f"{len(problems)} tensors do"
            raise TensorMismatchError(
                f"{tensors} not fit the model that {self.path / CONFIG_FILE} describes",
                problems=problems,
                hint="give a directory whose weights and config.json are of one model",
            )


def is_model_directory(path: Path) -> bool:
    """Say whether a directory holds a framework's model, and not a checkpoint of Google's code."""
    names = [CONFIG_FILE, *(name for target in TARGETS for name in _files(target))]
    return any(_is_file(path / name) for name in names) and not any(path.glob("*.index"))


def named_format(file: Path) -> TargetFormat | None:
    """Return the format of a file of weights, which its name tells; `None`, if it is none."""
    return next((target for target in TARGETS if file.name in _files(target) and _is_file(file)), None)


def nearby_model_directories(path: Path) -> list[Path]:
    """Return the directories of models that may have been meant: the one around a file, those in a folder."""
    if _is_file(path):
        return [path.parent] if is_model_directory(path.parent) and path.suffix in WEIGHT_SUFFIXES else []
    if not os.path.isdir(path) or any(path.glob("*.index")):  # noqa: PTH112  # false, where Path.is_dir() raises
        return []
    return sorted({file.parent for depth in ("*", "*/*") for file in path.glob(f"{depth}/{CONFIG_FILE}")})


def open_model_directory(path: Path, mappings: Mappings, target: TargetFormat | None = None) -> ModelDirectory:
    """Open the weights of a directory; no values are read before they are needed.

    Args:
        path: The directory.
        mappings: The mappings.
        target: The format to read; by default the first of PyTorch, TensorFlow and Flax that is there.

    Raises:
        CheckpointNotFoundError: There are no weights, or none in this format.
        ConfigError: `config.json` cannot be read, or describes no ELECTRA model.
        CorruptCheckpointError: The weights are damaged.
        MappingError: The mappings know no such format.
    """
    there = tuple(target for target in TARGETS if weight_files(path, target))
    target = target or _first(path, there)
    head, config = named_head(path, mappings.inventory), read_config(path)
    stored = read_weights(path, target)
    found = dict(stored)
    specs = [*mappings.inventory.backbone_tensors(config), *mappings.inventory.head_tensors(head, config)]
    tied = [*_tied(mappings.inventory, head, specs)]
    others = mappings.inventory.tied_tensors(head)
    bindings = _bindings(_mapping(mappings, target), [*specs, *tied], found)
    present = [(binding, found.pop(binding.name)) for binding in bindings if binding.name in found]
    tensors = [part for binding, tensor in present for part in _canonical(binding, tensor)]
    names = {spec.name for binding, _ in present for spec in binding.specs}
    return ModelDirectory(
        path=path,
        target=target,
        others=tuple(other for other in there if other != target),
        head=head,
        config=config,
        said=read_json(path / CONFIG_FILE),
        tensors={tensor.name: tensor for tensor in tensors},
        missing=tuple(spec for spec in specs if spec.name not in names),
        misshapen=tuple(binding.specs[0].name for binding, tensor in present if tensor.shape != binding.shape),
        unknown=found,
        bindings=tuple(
            binding
            for binding, tensor in present
            if tensor.shape == binding.shape and binding.specs[0].name not in others
        ),
        tied={
            binding.name: (name, others[name]) for binding, _ in present if (name := binding.specs[0].name) in others
        },
        stored=stored,
    )


def named_head(path: Path, inventory: Inventory) -> str:
    """Return the head whose class `config.json` names, whatever framework's.

    Raises:
        ConfigError: It cannot be read, or names none.
    """
    said = read_json(path / CONFIG_FILE).get("architectures")
    said = said if isinstance(said, list) else []
    heads = {entry.architecture: head for head, entry in inventory.heads.items()}
    names = [str(name).removeprefix("TF").removeprefix("Flax") for name in said]
    known = [heads[name] for name in names if name in heads]
    if len(known) != 1:
        raise ConfigError(
            f"{path / CONFIG_FILE} names no ELECTRA class: its architectures are {said}",
            hint=f"write one of {', '.join(heads)} there",
        )
    return known[0]


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  # false, where Path.is_file() raises


def _files(target: TargetFormat) -> tuple[str, str]:
    module = module_of(target)
    return module.SINGLE, module.INDEX


def _first(path: Path, there: Sequence[TargetFormat]) -> TargetFormat:
    if not there:
        raise CheckpointNotFoundError(
            f"there are no weights in {path}: none of {', '.join(_files(target)[0] for target in TARGETS)}",
            hint="name a directory with config.json and weights; save others, as pytorch_model.bin, as safetensors",
        )
    return there[0]


def _mapping(mappings: Mappings, target: TargetFormat) -> FormatMapping:
    if target not in mappings.formats:
        raise MappingError(
            f"the mappings say nothing of the format {target}: there are {', '.join(mappings.formats)}",
            hint=f"add {target}.yaml to the folder of mappings",
        )
    return mappings.formats[target]


def _bindings(mapping: FormatMapping, specs: Sequence[TensorSpec], names: Collection[str]) -> list[Binding]:
    """Bind tensors with the values of the placeholders that make the most names that are there."""
    bindings = (mapping.bind(specs, values) for values in _choices(mapping))
    return max(bindings, key=lambda bound: sum(binding.name in names for binding in bound))


def _choices(mapping: FormatMapping) -> Iterator[dict[str, str]]:
    """Yield every value of every placeholder with every other."""
    cases = [[(name, case.value) for case in cases] for name, cases in mapping.placeholders.items()]
    yield from map(dict, product(*cases))


def _tied(inventory: Inventory, head: str, specs: Sequence[TensorSpec]) -> Iterator[TensorSpec]:
    """Yield the tensors that are another one, which files may hold once more: a kernel that is a table, transposed."""
    shapes = {spec.name: spec.shape for spec in specs}
    for tied, other in inventory.tied_tensors(head).items():
        yield TensorSpec(tied, tied.removesuffix(".kernel"), None, "dense", "kernel", shapes[other][::-1])


def _canonical(binding: Binding, tensor: Tensor) -> Iterator[Tensor]:
    """Yield what a tensor is made of; itself, under the first of the names, if it does not fit its binding."""
    if tensor.shape == binding.shape:
        yield from binding.unpack(tensor)
        return
    transform = TRANSFORMS[binding.transform]
    name, shape = binding.specs[0].name, transform.shape(tensor.shape)
    yield Tensor(name, shape, tensor.dtype, lambda: transform.invert(tensor.values()))
