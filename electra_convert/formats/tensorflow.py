"""TensorFlow weights: `tf_model.h5`, as transformers' Keras classes read it.

A file of its own has a group for each top layer, whose attribute `weight_names` lists its datasets; they lie under
the name of the model, which the loader drops: `electra/tf_electra_for_masked_lm/electra/embeddings/...`. A shard is
flat: the datasets lie at the root, under the names of the mapping.

h5py lays the file out, with room for every dataset; the values are then written to where HDF5 put that room. That is
what a contiguous dataset is, and it keeps memory constant.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from electra_convert.formats import Contents
from electra_convert.formats.extents import Extent, Written, write_extents
from electra_convert.formats.stored import StoredFile
from electra_convert.formats.table import Row, damaged, found_file, stored_tensors
from electra_convert.progress import Advance
from electra_convert.tensor import Tensor

SINGLE = "tf_model.h5"
SHARD = "tf_model-{number:05d}-of-{count:05d}.h5"
INDEX = "tf_model.h5.index.json"
DTYPES = ("float32", "float16")
"""HDF5 has no bfloat16; h5py would store it as opaque bytes without a word."""
BLOCK = 1 << 20
"""Bytes of two copies that are compared at a time."""


def write(path: Path, contents: Contents, advance: Advance, written: Written | None = None) -> None:
    """Write a new HDF5 file, synced to disk.

    Args:
        path: The file; it must not exist.
        contents: What it holds.
        advance: Is told of the bytes written.
        written: What other files of this format and dtype hold already; is told what this one holds.
    """
    import h5py

    lay_out = _lay_out_shard if contents.sharded else _lay_out_model
    with _errors_of_the_system(), h5py.File(path, "x") as file:
        placed = [(dataset.id.get_offset(), tensor) for dataset, tensor in lay_out(file, contents)]
    extents = [Extent(offset, tensor) for offset, tensor in placed if offset is not None]  # of no elements, no place
    with path.open("r+b") as raw:
        write_extents(raw.fileno(), extents, contents.dtype, advance, written)
        os.fsync(raw.fileno())


@contextmanager
def _errors_of_the_system() -> Iterator[None]:
    """Raise as what it is what h5py makes a `RuntimeError` of: an error of the system while it closes a file."""
    try:
        yield
    except RuntimeError as error:
        code = re.search(r"errno = (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def _lay_out_shard(file: Any, contents: Contents) -> Iterator[tuple[Any, Tensor]]:
    for tensor in contents.tensors:
        yield _create(file, tensor.name, tensor, contents.dtype), tensor
    file.attrs["layer_names"] = [tensor.name for tensor in contents.tensors]


def _lay_out_model(file: Any, contents: Contents) -> Iterator[tuple[Any, Tensor]]:
    scope = _scope(contents.model)
    layers: dict[str, list[Tensor]] = {}
    for tensor in contents.tensors:
        layers.setdefault(_layer(tensor), []).append(tensor)
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

    A tensor that several layers list is one, whether they share it, or have copies, as in files of transformers.

    Raises:
        SourceError: It cannot be read.
        CorruptCheckpointError: It is damaged, or not laid out as transformers lays out weights.
    """
    from electra_convert.formats.hdf5 import read_table  # which is for files that are read

    file = found_file(path)
    rows = list(dict.fromkeys(read_table(file)))
    file.require_unchanged()
    tensors = stored_tensors(file, rows)
    first: dict[str, Row] = {}
    others = [row for row in rows if not _same(file, first.setdefault(row.name, row), row)]
    if others:
        problems = [
            f"{row.name} is another one at byte {row.offset} than at {first[row.name].offset}" for row in others
        ]
        raise damaged(path, "its layers do not agree", problems)
    return {tensor.name: tensor for tensor in tensors}


def _same(file: StoredFile, one: Row, other: Row) -> bool:
    """Say whether two tensors are the same, or a copy of one another."""
    import numpy as np

    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    size = 0 if one is other else one.end - one.offset
    for start in range(0, size, BLOCK):
        blocks = np.empty((2, min(BLOCK, size - start)), np.uint8)
        for block, row in zip(blocks, (one, other), strict=True):
            file.read_into(block, row.offset + start)
        if not np.array_equal(*blocks):
            return False
    return True
