"""The comparison of two checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator

from electra_convert.diff.options import DiffOptions
from electra_convert.diff.report import Difference, FieldDifference
from electra_convert.diff.sides import Side, open_side
from electra_convert.diff.tensors import bytes_compared, compare_tensors
from electra_convert.diff.tokenizer import compare_tokenizers, compared_files
from electra_convert.mapping import load_mappings
from electra_convert.progress import Progress, no_progress


def diff_checkpoints(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    options: DiffOptions = DiffOptions(),  # noqa: B008  # it is immutable
    *,
    progress: Progress = no_progress,
) -> Difference:
    """Say in what two checkpoints differ, each in any format.

    Each is a checkpoint of Google's code, named as for a conversion, or a directory with `config.json` and weights of
    PyTorch, TensorFlow or Flax, whoever wrote it. Values are read a few megabytes at a time.

    Args:
        a: The one.
        b: The other.
        options: How.
        progress: Shows progress.

    Raises:
        ElectraConvertError: The subclass says why they cannot be compared.
    """
    mappings = load_mappings(options.mappings)
    of_a, of_b = options.sides()
    with open_side(a, mappings, of_a, progress) as one, open_side(b, mappings, of_b, progress) as other:
        return compare_sides(one, other, progress)


def compare_sides(a: Side, b: Side, progress: Progress) -> Difference:
    """Compare two open checkpoints."""
    config = [*_config_differences(a, b)]
    with progress("comparing", bytes_compared(a.tensors, b.tensors)) as advance:
        different = [*compare_tensors(a.tensors, b.tensors, advance)]
    for side in (a, b):
        side.check()
    tokenizer = [*compare_tokenizers(a, b)]
    return Difference(
        equal=not (config or different or tokenizer),
        a=a.described,
        b=b.described,
        fields=len(a.config) + len(a.extras.keys() & b.extras.keys()),
        config=config,
        tensors=len(a.tensors.keys() | b.tensors.keys()),
        different=different,
        files=compared_files(a, b),
        tokenizer=tokenizer,
    )


def _config_differences(a: Side, b: Side) -> Iterator[FieldDifference]:
    """Yield the fields that differ: those of every ELECTRA, and what else both files say."""
    for field, value in a.config.items():
        if value != b.config[field]:
            assumed = tuple(name for name, side in (("A", a), ("B", b)) if field in side.assumed)
            yield FieldDifference(field=field, a=value, b=b.config[field], assumed=assumed)
    for field, value in a.extras.items():
        if field in b.extras and value != b.extras[field]:
            yield FieldDifference(field=field, a=value, b=b.extras[field])
