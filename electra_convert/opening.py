"""A source that was located, open: its files, and the checkpoint they are, whatever its format."""

from __future__ import annotations

from typing import NamedTuple

from electra_convert.formats.google_tf1 import GoogleCheckpoint, open_checkpoint
from electra_convert.mapping import Mappings
from electra_convert.model_checkpoint import ModelCheckpoint, ModelFiles, trained_part
from electra_convert.model_directory import open_model_directory
from electra_convert.part import Checkpoint, recognise
from electra_convert.source import Location


class Opened(NamedTuple):
    """A source, open.

    Args:
        files: Its files.
        checkpoint: What they hold.
    """

    files: GoogleCheckpoint | ModelFiles
    checkpoint: Checkpoint | ModelCheckpoint


def open_located(location: Location, mappings: Mappings, part: str | None = None) -> Opened:
    """Open a source; no values are read.

    Args:
        location: Where it is.
        mappings: The mappings.
        part: The part that is asked for, which a model without a pretraining head is taken for.

    Raises:
        ElectraConvertError: The subclass says what went wrong.
    """
    if location.is_model:
        directory = open_model_directory(location.prefix, mappings, file=location.file)
        return Opened(
            ModelFiles(directory), ModelCheckpoint(mappings, directory, trained_part(mappings, directory.head, part))
        )
    files = open_checkpoint(location.prefix)
    return Opened(files, recognise(mappings, files.tensors, files.unreadable, name=files.prefix))
