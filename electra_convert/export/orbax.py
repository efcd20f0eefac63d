"""Orbax: the tree of parameters as in `flax_model.msgpack`, in a folder.

The leaves are NumPy's, as `flax.serialization` gives them: no device is named in the checkpoint, so that it is restored
on any. Orbax writes times and identities of its own into it: the same tree gives other bytes each time.
"""

from __future__ import annotations

from pathlib import Path

import orbax.checkpoint as ocp

from electra_convert.export.model import named_tensors
from electra_convert.formats.flax import tree_of
from electra_convert.mapping import Mappings
from electra_convert.model_directory import ModelDirectory


def write(model: ModelDirectory, mappings: Mappings, place: Path) -> None:
    """Write a model.

    Args:
        model: The model.
        mappings: The mappings.
        place: The folder; it must not exist.
    """
    tree = tree_of(dict(named_tensors(model, mappings, "flax")))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(place.absolute(), tree)
        checkpointer.wait_until_finished()
