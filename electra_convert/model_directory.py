"""A directory of a model, opened in any framework's format as canonical tensors.

It holds `config.json` and weights as any version of transformers has them, whoever wrote them. Names are made from the
mapping of the format and looked up; what nothing is bound to is kept under its own name, and what is missing is told.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from electra_convert.config import ElectraConfig
from electra_convert.errors import CheckpointNotFoundError, ConfigError, OptionError, TensorMismatchError
from electra_convert.formats import TargetFormat
from electra_convert.formats.weights import Weights, find_weights, weight_names
from electra_convert.inventory import Inventory, TensorSpec
from electra_convert.mapping import Binding, FormatMapping, Mappings
from electra_convert.models.files import CONFIG_FILE, config_of, read_json
from electra_convert.printable import printable
from electra_convert.tensor import FLOATING, Tensor
from electra_convert.transforms import TRANSFORMS

WEIGHT_SUFFIXES = (".safetensors", ".h5", ".msgpack", ".bin")
MOST_NAMED = 3
"""Directories that a message names where another was meant."""
LONGEST_SHOWN = 200
"""Characters of what `config.json` says that a message shows."""
ROWS_COMPARED = 4096
"""Rows of a table that are compared at a time with those of the tensor that is tied to it."""


class ModelDirectory(msgspec.Struct, frozen=True):
    """An open directory.

    Args:
        path: Where it is.
        target: The format that was read: whose names the tensors have, whatever files they are in.
        files: The files of weights that were read.
        others: The other formats that are there.
        head: Its head.
        config: What `config.json` says, as this package understands it.
        said: What `config.json` says, as it is written.
        bindings: What the config calls for, by the names of the format.
        tensors: The tensors by canonical name. Where one has another shape than the config calls for, it has that.
        missing: What the config calls for and is not there.
        misshapen: Names of the tensors that have another shape than the config calls for.
        ignored: The tensors that are no weights, or are another one again, with the reason, by the names of the format.
        unknown: The tensors that nothing is bound to, by the names of the format.
        of_heads: The other head that has such a tensor, by the names of the format.
        untied: The tensors that should be another one, and are not, by the names of the format: that one's name.
        stored: All tensors that are there, by the names of the format.
    """

    path: Path
    target: TargetFormat
    files: tuple[Path, ...]
    others: tuple[TargetFormat, ...]
    head: str
    config: ElectraConfig
    said: Mapping[str, Any]
    bindings: tuple[Binding, ...]
    tensors: Mapping[str, Tensor]
    missing: tuple[TensorSpec, ...]
    misshapen: tuple[str, ...]
    ignored: Mapping[str, str]
    unknown: Mapping[str, Tensor]
    of_heads: Mapping[str, str]
    untied: Mapping[str, str]
    stored: Mapping[str, Tensor]

    def require_whole(self) -> None:
        """Check that the tensors are those that the config calls for, no fewer and no others.

        Raises:
            TensorMismatchError: They are not. All that are missing, unknown or of another shape or kind are listed.
        """
        problems = [*dict.fromkeys(self._faults())]
        if not problems:
            return
        tensors = "1 tensor does" if len(problems) == 1 else f"{len(problems)} tensors do"
        raise TensorMismatchError(
            f"{tensors} not fit the model that {self.path / CONFIG_FILE} describes, of the head {self.head}",
            problems=problems,
            hint=f"correct {CONFIG_FILE} if it is of another model; if names were changed or added on purpose, say so "
            "in a copy of the mappings and give it with --mappings; otherwise the files are incomplete",
        )

    def _faults(self) -> Iterator[str]:
        lacking = {spec.name for spec in self.missing}
        for binding in self.bindings:
            for spec in binding.specs:
                yield from self._faults_of(binding, spec, missing=spec.name in lacking)
        yield from (f"{name} is not {other}, to which it should be tied" for name, other in self.untied.items())
        for name, tensor in self.unknown.items():
            head = self.of_heads.get(name)
            yield f"{name} {list(tensor.shape)} is {f'of the head {head}' if head else 'in no mapping'}"

    def _faults_of(self, binding: Binding, spec: TensorSpec, *, missing: bool) -> Iterator[str]:
        expected, tensor = list(binding.shape), self.tensors.get(spec.name)
        if missing:
            yield f"{binding.name} {expected} is missing"
        elif spec.name in self.misshapen and tensor:
            shape = TRANSFORMS[binding.transform].shape(tensor.shape)
            yield f"{binding.name} has shape {list(shape)}; the config calls for {expected}"
        elif tensor and tensor.dtype not in FLOATING:
            yield f"{binding.name} is {tensor.dtype}; weights are {', '.join(FLOATING)}"


def is_model_directory(path: Path) -> bool:
    """Say whether a directory holds a framework's model, and not a checkpoint of Google's code."""
    if not os.path.isdir(path) or any(path.glob("*.index")):  # noqa: PTH112  # as below
        return False  # before the names of weights are asked for, which imports every format
    return any(_is_file(path / name) for name in (CONFIG_FILE, *weight_names()))


def is_weight_file(path: Path) -> bool:
    """Say whether a file is one of the weights of a model, or their index, as far as names tell."""
    return _is_file(path) and (path.suffix in WEIGHT_SUFFIXES or path.name in weight_names())


def nearby_model_directories(path: Path) -> list[Path]:
    """Return the directories of models that may have been meant: the one around a file, those in a folder."""
    if _is_file(path):
        return [path.parent] if is_model_directory(path.parent) and path.suffix in WEIGHT_SUFFIXES else []
    if not os.path.isdir(path) or any(path.glob("*.index")):  # noqa: PTH112  # false, where Path.is_dir() raises
        return []
    return sorted({file.parent for depth in ("*", "*/*") for file in path.glob(f"{depth}/{CONFIG_FILE}")})


def refuse_folder_of_models(path: Path, what: str) -> None:
    """Check that a path is no folder of several models.

    Args:
        path: The path.
        what: What a message says it is not.

    Raises:
        OptionError: It is one.
    """
    if is_model_directory(path) or is_weight_file(path):
        return
    if nearby := nearby_model_directories(path):
        raise OptionError(
            f"{path} is {what}",
            hint=f"name the directory of a model: {' or '.join(map(str, nearby[:MOST_NAMED]))}",
        )


def open_model_directory(
    path: Path, mappings: Mappings, target: TargetFormat | None = None, *, file: Path | None = None
) -> ModelDirectory:
    """Open the weights of a directory; no values are read before they are needed, but those that should be the same.

    The head is the one that `config.json` names; if it names none, the largest whose tensors are all there.

    Args:
        path: The directory.
        mappings: The mappings.
        target: The format to read; by default the first of PyTorch, TensorFlow and Flax that is there.
        file: A file of the weights to read, where there are several.

    Raises:
        CheckpointNotFoundError: There are no weights, or none in this format, or the file is none of them.
        ConfigError: `config.json` cannot be read, or describes no ELECTRA model.
        SourceError: The weights cannot be read, or need a package that is not installed.
        CorruptCheckpointError: The weights are damaged.
        MappingError: The mappings know no such format.
    """
    found = find_weights(path)
    weights = _chosen(path, [each for each in found if file is None or each.holds(file)], target)
    mapping, inventory, said = mappings.of(weights.target), mappings.inventory, read_json(path / CONFIG_FILE)
    head = _named(said, path, inventory)
    config = config_of(said, path / CONFIG_FILE, head or "base")
    tensors = weights.read()
    values = _values(mapping, inventory.backbone_tensors(config), tensors)
    held = _Held(mapping, inventory, config, values, tensors)
    if head is None:
        head = held.shown_head(causal=said.get("is_decoder") is True)
        config = config_of(said, path / CONFIG_FILE, head)
    return ModelDirectory(
        path=path,
        target=weights.target,
        files=weights.files,
        others=tuple(dict.fromkeys(each.target for each in found if each.target != weights.target)),
        head=head,
        config=config,
        said=said,
        **held.accounted(head),
    )


def named_head(path: Path, inventory: Inventory) -> str:
    """Return the head whose class `config.json` names, whatever framework's.

    Raises:
        ConfigError: It cannot be read, or names none.
    """
    said = read_json(path / CONFIG_FILE)
    head = _named(said, path, inventory)
    if head is None:
        raise _names_none(path, said.get("architectures"), inventory)
    return head


def _named(said: Mapping[str, Any], path: Path, inventory: Inventory) -> str | None:
    """Return the head whose class a config names; `None` if it names no class at all."""
    classes = said.get("architectures")
    if not classes:
        return None
    heads = {entry.architecture: head for head, entry in inventory.heads.items()}
    listed = classes if isinstance(classes, list) else []
    names = [str(name).removeprefix("TF").removeprefix("Flax") for name in listed]
    known = [heads[name] for name in names if name in heads]
    if len(known) != 1:
        raise _names_none(path, classes, inventory)
    return known[0]


def _names_none(path: Path, said: Any, inventory: Inventory) -> ConfigError:
    known = ", ".join(entry.architecture for entry in inventory.heads.values())
    return ConfigError(
        f"{path / CONFIG_FILE} names no ELECTRA class: its architectures are {printable(str(said), LONGEST_SHOWN)}",
        hint=f"write one of {known} there",
    )


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  # false, where Path.is_file() raises


def _chosen(path: Path, found: Sequence[Weights], target: TargetFormat | None) -> Weights:
    chosen = next((weights for weights in found if target in (None, weights.target)), None)
    if chosen is None:
        held = ", ".join(dict.fromkeys(weights.target for weights in found))
        raise CheckpointNotFoundError(
            f"there are no {target} weights in {path}, only those of {held}"
            if found
            else f"there are no weights in {path}: none of {', '.join(weight_names(single=True))}",
            hint="name a format that is there"
            if found
            else "name a directory with config.json and weights, as transformers saves them",
        )
    return chosen


class _Held(msgspec.Struct, frozen=True):
    """The tensors of a directory, to be given their canonical names.

    Args:
        mapping: The mapping of the format.
        inventory: The inventory.
        config: The config.
        values: The placeholders of the mapping, resolved.
        found: The tensors, by the names of the format.
    """

    mapping: FormatMapping
    inventory: Inventory
    config: ElectraConfig
    values: Mapping[str, str]
    found: Mapping[str, Tensor]

    def shown_head(self, *, causal: bool) -> str:
        """Return the head of which all tensors are there; the largest, and of two that have the same, what is said."""
        bound = {head: self._bound(self.inventory.head_tensors(head, self.config)) for head in self.inventory.heads}
        whole = {head: len(own) for head, own in bound.items() if all(each.name in self.found for each in own)}
        largest = [head for head in whole if whole[head] == max(whole.values())]
        return "causal_lm" if causal and "causal_lm" in largest else largest[0]

    def accounted(self, head: str) -> dict[str, Any]:
        """Return what there is of a head, and what else there is: fields of a `ModelDirectory`."""
        specs = self.inventory.tensors(head, self.config)
        bindings = self._bound(specs)
        wanted = [*bindings, *self._bound(_tied(self.inventory, head, specs))]
        present = [binding for binding in wanted if binding.name in self.found]
        tensors = {part.name: part for binding in present for part in _canonical(binding, self.found[binding.name])}
        names = {spec.name: binding.name for binding in wanted for spec in binding.specs}
        there = {spec.name for binding in present for spec in binding.specs}
        ties = {tied: other for tied, other in self.inventory.tied_tensors(head).items() if tied in there}
        again = [tied for tied, other in ties.items() if _is_transpose(tensors[tied], tensors.get(other))]
        rest = self.found.keys() - {binding.name for binding in present}
        explained = {name: self.mapping.explain(name) for name in self.found if name in rest}
        unknown = {name: self.found[name] for name, rule in explained.items() if not rule}
        return {
            "bindings": tuple(bindings),
            "tensors": {name: tensor for name, tensor in tensors.items() if name not in again},
            "missing": tuple(spec for spec in specs if spec.name not in there),
            "misshapen": tuple(each.specs[0].name for each in present if self.found[each.name].shape != each.shape),
            "ignored": {names[tied]: f"{names[ties[tied]]} again, to which it is tied" for tied in again}
            | {name: rule[1] for name, rule in explained.items() if rule},
            "unknown": unknown,
            "of_heads": {name: head for name, head in self._owners() if name in unknown},
            "stored": self.found,
            "untied": {names[tied]: names.get(other, other) for tied, other in ties.items() if tied not in again},
        }

    def _owners(self) -> Iterator[tuple[str, str]]:
        """Yield the name of each tensor that a head may have, and the head; of two that share it, the first last."""
        for head in reversed(self.inventory.heads):
            for binding in self._bound(self.inventory.head_tensors(head, self.config)):
                yield binding.name, head

    def _bound(self, specs: Iterable[TensorSpec]) -> list[Binding]:
        return self.mapping.bind(specs, self.values, self.found)


def _values(mapping: FormatMapping, specs: Sequence[TensorSpec], names: Collection[str]) -> dict[str, str]:
    """Return the values of the placeholders that make the most names that are there."""

    def there(values: Mapping[str, str]) -> int:
        return sum(binding.name in names for binding in mapping.bind(specs, values, names))

    return max(_choices(mapping), key=there)


def _choices(mapping: FormatMapping) -> Iterator[dict[str, str]]:
    """Yield every value of every placeholder with every other."""
    cases = [[(name, case.value) for case in cases] for name, cases in mapping.placeholders.items()]
    yield from map(dict, product(*cases))


def _tied(inventory: Inventory, head: str, specs: Sequence[TensorSpec]) -> Iterator[TensorSpec]:
    """Yield the tensors that are another one, which files may hold once more: a kernel that is a table, transposed."""
    shapes = {spec.name: spec.shape for spec in specs}
    for tied, other in inventory.tied_tensors(head).items():
        yield TensorSpec(tied, tied.removesuffix(".kernel"), None, "dense", "kernel", shapes[other][::-1])


def _is_transpose(kernel: Tensor, table: Tensor | None) -> bool:
    """Say whether a kernel is a table, transposed, bit for bit."""
    import numpy as np

    if table is None or len(table.shape) != 2 or (table.shape[::-1], table.dtype) != (kernel.shape, kernel.dtype):
        return False
    one, other = kernel.values().T, table.values()
    rows = (slice(start, start + ROWS_COMPARED) for start in range(0, table.shape[0], ROWS_COMPARED))
    return all(np.asarray(one[part]).tobytes() == np.asarray(other[part]).tobytes() for part in rows)


def _canonical(binding: Binding, tensor: Tensor) -> Iterator[Tensor]:
    """Yield what a tensor is made of; itself, under the first of the names, if it does not fit its binding."""
    if tensor.shape == binding.shape:
        yield from binding.unpack(tensor)
        return
    transform = TRANSFORMS[binding.transform]
    name, shape = binding.specs[0].name, transform.shape(tensor.shape)
    yield Tensor(name, shape, tensor.dtype, lambda: transform.invert(tensor.values()))
