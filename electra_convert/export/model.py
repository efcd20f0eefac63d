"""The model that is exported: a directory of any framework's format, whole and nothing left over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from electra_convert.errors import OptionError
from electra_convert.formats import TargetFormat
from electra_convert.inventory import TensorSpec
from electra_convert.mapping import Mappings
from electra_convert.model_directory import ModelDirectory, refuse_folder_of_models
from electra_convert.progress import Progress
from electra_convert.remote.place import is_url
from electra_convert.source import Location, locate

if TYPE_CHECKING:
    from electra_convert.tensor import Array


@contextmanager
def locate_model(source: str | os.PathLike[str], progress: Progress) -> Iterator[Location]:
    """Find the model that a source names.

    Raises:
        OptionError: It names several, or a checkpoint of Google's code.
        SourceError: There is none.
    """
    if not is_url(source):
        refuse_folder_of_models(Path(source), "no directory of one model")
    with locate(source, progress=progress) as location:
        if not location.is_model:
            raise OptionError(
                f"{source} is a checkpoint of Google's code, and no directory of a model",
                hint="convert it first (electra-convert --head native SOURCE OUT), and name one head's directory",
            )
        yield location


def specs_of(model: ModelDirectory, mappings: Mappings) -> list[TensorSpec]:
    """Return the canonical tensors that a model's config calls for."""
    return mappings.inventory.tensors(model.head, model.config)


def named_tensors(model: ModelDirectory, mappings: Mappings, target: TargetFormat) -> Iterator[tuple[str, Array]]:
    """Yield the values of a model in float32, by the names they have in one format."""
    import numpy as np

    mapping = mappings.formats[target]
    values = mapping.resolve({"head": model.head, "layout": "single"})
    for binding in mapping.bind(specs_of(model, mappings), values):
        yield binding.name, np.asarray(binding.pack(model.tensors).load()).astype(np.float32)
