"""The model that is exported: a directory of any framework's format, whole and nothing left over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from electra_convert.errors import OptionError, TensorMismatchError
from electra_convert.formats import TargetFormat
from electra_convert.inventory import TensorSpec
from electra_convert.mapping import Mappings
from electra_convert.model_directory import (
    ModelDirectory,
    is_model_directory,
    nearby_model_directories,
    open_model_directory,
)

if TYPE_CHECKING:
    from electra_convert.tensor import Array

MOST_NAMED = 3
"""Directories that a message names where another was meant."""


def open_whole_model(path: Path, mappings: Mappings, target: TargetFormat | None) -> ModelDirectory:
    """Open the directory of a model that has every tensor its config calls for, and no other.

    Raises:
        OptionError: It is no directory of one model.
        TensorMismatchError: Tensors are missing, unknown or of another shape. All of them are listed.
        ElectraConvertError: It cannot be read.
    """
    if not is_model_directory(path):
        raise _no_model(path)
    model = open_model_directory(path, mappings, target)
    problems = [*_faults(model, specs_of(model, mappings))]
    if problems:
        raise TensorMismatchError(
            f"the {model.target} weights in {path} are not those of the {model.head} model that its config.json names",
            problems=problems,
            hint="correct config.json, or convert again; `electra-convert diff` compares two directories",
        )
    return model


def specs_of(model: ModelDirectory, mappings: Mappings) -> list[TensorSpec]:
    """Return the canonical tensors that a model's config calls for."""
    inventory = mappings.inventory
    return [*inventory.backbone_tensors(model.config), *inventory.head_tensors(model.head, model.config)]


def named_tensors(model: ModelDirectory, mappings: Mappings, target: TargetFormat) -> Iterator[tuple[str, Array]]:
    """Yield the values of a model in float32, by the names they have in one format."""
    import numpy as np

    mapping = mappings.formats[target]
    values = mapping.resolve({"head": model.head, "layout": "single"})
    for binding in mapping.bind(specs_of(model, mappings), values):
        yield binding.name, np.asarray(binding.pack(model.tensors).load()).astype(np.float32)


def tree_of(tensors: Mapping[str, Array]) -> dict[str, object]:
    """Return a tree of maps of tensors whose names are paths, joined by `/`."""
    root: dict[str, object] = {}
    for name, tensor in tensors.items():
        *path, leaf = name.split("/")
        node = root
        for key in path:
            node = node.setdefault(key, {})  # type: ignore[assignment]  # no path is the beginning of another
        node[leaf] = tensor
    return root


def _no_model(path: Path) -> OptionError:
    nearby = nearby_model_directories(path)
    if nearby:
        named = " or ".join(map(str, nearby[:MOST_NAMED]))
        return OptionError(f"{path} is no directory of one model", hint=f"name the directory of a model: {named}")
    return OptionError(
        f"{path} is no directory of a model: it has no config.json with weights of PyTorch, TensorFlow or Flax",
        hint="convert a checkpoint of Google's code first (electra-convert --head native SOURCE OUT), and name one "
        "head's directory",
    )


def _faults(model: ModelDirectory, specs: list[TensorSpec]) -> Iterator[str]:
    shapes = {spec.name: spec.shape for spec in specs}
    yield from (f"{spec.name} {list(spec.shape)} is missing" for spec in model.missing)
    for name in model.misshapen:
        expected = f"; expected {list(shapes[name])}" if name in shapes else ""
        yield f"{name} has shape {list(model.tensors[name].shape)}{expected}"
    yield from (f"{name} {list(tensor.shape)} is in no mapping" for name, tensor in model.unknown.items())
