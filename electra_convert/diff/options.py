"""What a comparison may be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from electra_convert.errors import OptionError
from electra_convert.formats import TargetFormat
from electra_convert.inventory import Part
from electra_convert.options import take_paths


class SideOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How one side is to be opened.

    Args:
        format: The format to read, of a directory of a model.
        part: The part, of a checkpoint of Google's code; it is about such a one, too, what the others say.
        step: The step to use.
        config: Google's hparams, or a `bert_config.json` or `config.json`.
        task: The fine-tuned task whose head is compared.
    """

    format: TargetFormat | None = None
    part: Part | None = None
    step: int | None = None
    config: Path | None = None
    task: str | None = None


class DiffOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How two checkpoints are to be compared.

    Args:
        formats: The format to read of directories that hold several: one for both sides, or one for each. By default
            the first of PyTorch, TensorFlow and Flax that is there.
        parts: The part of Google's checkpoints that hold two: one for both sides, or one for each.
        step: The step of Google's checkpoints; by default the latest.
        config: Google's hparams, or a `bert_config.json` or `config.json`, for Google's checkpoints.
        task: The task of Google's checkpoints that were fine-tuned on several.
        mappings: A folder of mappings to use instead of the package's own.
    """

    formats: tuple[TargetFormat, ...] = ()
    parts: tuple[Part, ...] = ()
    step: int | None = None
    config: Path | None = None
    task: str | None = None
    mappings: Path | None = None

    def __post_init__(self) -> None:
        take_paths(self, "config", "mappings")

    def sides(self) -> tuple[SideOptions, SideOptions]:
        """Return what is said of each side.

        Raises:
            OptionError: Something is given for more than two sides.
        """
        formats, parts = _each("format", self.formats), _each("part", self.parts)
        common: dict[str, Any] = {"step": self.step, "config": self.config, "task": self.task}
        a, b = (SideOptions(format=formats[side], part=parts[side], **common) for side in (0, 1))
        return a, b


def _each(option: str, given: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return what was given for each side."""
    if len(given) > 2:
        raise OptionError(
            f"there are {len(given)} of --{option}: {', '.join(given)}; two checkpoints are compared",
            hint="give one for both, or one for each: A,B",
        )
    return (given[0], given[-1]) if given else (None, None)
