"""TensorFlow weights: `tf_model.h5`, as transformers' Keras classes read it.

A file of its own has a group for each top layer, whose attribute `weight_names` lists its datasets; they lie under
the name of the model, which the loader drops: `electra/tf_electra_for_masked_lm/electra/embeddings/...`. A shard is
flat: the datasets lie at the root, under the names of the mapping.

h5py lays the file out, with room for every dataset; the values are then written to where HDF5 put that room. That is
what a contiguous dataset is, and it keeps memory constant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_convert.errors import CorruptCheckpointError
from electra_convert.formats import Contents
from electra_convert.formats.extents import Extent, write_extents
from electra_convert.progress import Advance
from electra_convert.tensor import Tensor

if TYPE_CHECKING:
    from electra_convert.tensor import Array

SINGLE = "tf_model.h5"
SHARD = "tf_model-{number:05d}-of-{count:05d}.h5"
INDEX = "tf_model.h5.index.json"
DTYPES = ("float32", "float16")
"""HDF5 has no bfloat16; h5py would store it as opaque bytes without a word."""


def write(path: Path, contents: Contents, advance: Advance) -> None:
    """Write a new HDF5 file, synced to disk.

    Args:
        path: The file; it must not exist.
        contents: What it holds.
        advance: Is told of the bytes written.
    """
    import h5py

    with h5py.File(path, "x") as file:
        lay_out = _lay_out_shard if contents.sharded else _lay_out_model
        extents = [Extent(dataset.id.get_offset(), tensor) for dataset, tensor in lay_out(file, contents)]
    with path.open("r+b") as raw:
        write_extents(raw.fileno(), extents, contents.dtype, advance)
        os.fsync(raw.fileno())


def _lay_out_shard(file: Any, contents: Contents) -> Iterator[tuple[Any, Tensor]]:
    for tensor in contents.tensors:
        yield _create(file, tensor.name, tensor, contents.dtype), tensor
    file.attrs["layer_names"] = [tensor.name for tensor in contents.tensors]


def _lay_out_model(file: Any, contents: Contents) -> Iterator[tuple[Any, Tensor]]:
    scope = _scope(contents.model)
    layers = {layer: list(tensors) for layer, tensors in groupby(contents.tensors, _layer)}
    made: dict[str, Any] = {}
    for layer, tensors in layers.items():
        group = file.create_group(layer)
        for tensor in tensors:
            made[tensor.name] = _create(group, f"{scope}/{tensor.name}", tensor, contents.dtype)
            yield made[tensor.name], tensor
        group.attrs["weight_names"] = [f"{scope}/{name}" for name in _listed(layer, tensors, contents.repeated)]
    for layer, names in contents.repeated.items():
        if layer in layers:
            for name in names:
                file[f"{layer}/{scope}/{name}"] = made[name]  # a hard link: no bytes
    file.attrs["layer_names"] = list(layers)
    file.attrs["backend"] = "tensorflow"


def _create(group: Any, name: str, tensor: Tensor, dtype: str) -> Any:
    from h5py import Dataset, h5d, h5p, h5s, h5t

    room = h5p.create(h5p.DATASET_CREATE)
    room.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    room.set_fill_time(h5d.FILL_TIME_NEVER)
    room.set_obj_track_times(False)  # the same bytes on every run
    path = h5p.create(h5p.LINK_CREATE)
    path.set_create_intermediate_group(True)
    kind = {"float32": h5t.IEEE_F32LE, "float16": h5t.IEEE_F16LE}[dtype]
    space = h5s.create_simple(tensor.shape)
    return Dataset(h5d.create(group.id, name.encode(), kind, space, dcpl=room, lcpl=path))


def _listed(layer: str, tensors: list[Tensor], repeated: Mapping[str, Any]) -> list[str]:
    return [*(tensor.name for tensor in tensors), *repeated.get(layer, ())]


def _layer(tensor: Tensor) -> str:
    return tensor.name.partition("/")[0]


def _scope(architecture: str) -> str:
    """Return Keras' name for a model of this class: `TFElectraForMaskedLM` is `tf_electra_for_masked_lm`."""
    words = architecture.replace("LM", "Lm")
    return "tf" + "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in words)


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an HDF5 file of either layout; a tensor is read when it is loaded.

    Raises:
        CorruptCheckpointError: It is damaged, or not laid out as transformers lays out weights.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            places = dict(_places(file))
            return {name: _stored(path, name, file[place]) for name, place in places.items()}
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise CorruptCheckpointError(
            f"{path} is no file of Keras weights, or a damaged one: {error}", hint="copy it again, or convert again"
        ) from error


def _places(file: Any) -> Iterator[tuple[str, str]]:
    """Yield the name of each tensor, without the model's scope, and where it lies; repeated names are one dataset."""
    places: dict[str, str] = {}
    for layer in _texts(file.attrs["layer_names"]):
        if "weight_names" not in file[layer].attrs:
            yield layer, layer
            continue
        for weight in _texts(file[layer].attrs["weight_names"]):
            name, place = weight.partition("/")[2], f"{layer}/{weight}"
            if file[places.setdefault(name, place)] != file[place]:
                raise KeyError(f"{name} stands twice, at {places[name]} and {place}")
    yield from places.items()


def _texts(names: Any) -> Iterator[str]:
    """Yield names as text; some writers store bytes."""
    for name in names:
        yield name.decode() if isinstance(name, bytes) else name


def _stored(path: Path, name: str, dataset: Any) -> Tensor:
    place = dataset.name

    def load() -> Array:
        import h5py

        with h5py.File(path, "r") as file:
            values: Array = file[place][()]
            return values

    return Tensor(name, dataset.shape, dataset.dtype.name, load)
