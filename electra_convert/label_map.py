"""The names of a tagger's labels, from the file in which Google's code keeps their numbers.

`finetune/tagging/tagging_tasks.py` pickles a dict of names to numbers, `<task>_label_mapping.pkl`. It is never
unpickled, for that may run any code: its opcodes are read, and any that are not needed to spell such a dict are
refused.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from electra_convert.errors import ConfigError
from electra_convert.whole_file import read_whole

LARGEST_LABEL_MAP = 16_000_000
"""Bytes such a file takes at most."""
NAMES = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING", "STRING"}
)
NUMBERS = frozenset({"BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4"})
FRAMEWORK = frozenset(
    {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "MARK", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"}
)
"""Opcodes that put a dict together, and change nothing else."""
DICTS = frozenset({"EMPTY_DICT", "DICT"})


def read_label_map(path: Path) -> tuple[str, ...]:
    """Return the names of labels, in the order of their numbers.

    Raises:
        ConfigError: The file cannot be read, holds anything but names and whole numbers, or the numbers have gaps.
    """
    hint = "give the file <task>_label_mapping.pkl that Google's code wrote, or name the labels with --labels"
    try:
        numbers = dict(_pairs(read_whole(path, LARGEST_LABEL_MAP)))
        return _in_order(numbers)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} is no map of labels: {why}", hint=hint) from error


def find_label_map(directory: Path, task: str) -> Path | None:
    """Return the map of a task's labels, where it lies beside a checkpoint or where Google's code keeps it.

    `run_finetuning.py` writes the checkpoint to `<model>/finetuning_models/<tasks>_model_1/`, and the map to
    `<model>/finetuning_tfrecords/<tasks>_tfrecords/` (`configure_finetuning.py`).

    Args:
        directory: The directory of the checkpoint.
        task: The task.
    """
    name = f"{task}_label_mapping.pkl"
    model = directory.absolute().parent.parent
    places = [directory / name, *sorted(model.glob(f"finetuning_tfrecords/*_tfrecords/{glob.escape(name)}"))]
    return next((place for place in places if os.path.isfile(place)), None)  # noqa: PTH113  # false, where it raises


def _pairs(content: bytes) -> Iterator[tuple[str, int]]:
    """Yield the items of a pickled dict of names to numbers."""
    import pickletools  # which few conversions need

    name: str | None = None
    dicts = 0
    for opcode, argument, position in pickletools.genops(content):
        if opcode.name in NAMES and name is None:
            name = str(argument)
        elif opcode.name in NUMBERS and name is not None and isinstance(argument, int):
            yield name, argument
            name = None
        elif opcode.name == "STOP":
            break
        elif opcode.name not in FRAMEWORK:
            raise ValueError(f"there is {opcode.name} at byte {position}, where a dict of names to numbers has none")
        dicts += opcode.name in DICTS
    if name is not None or dicts != 1:
        raise ValueError("it holds something else than one dict of names to numbers")


def _in_order(numbers: Mapping[str, int]) -> tuple[str, ...]:
    names = {number: name for name, number in numbers.items()}
    if not names or len(names) < len(numbers) or sorted(names) != list(range(len(names))):
        raise ValueError(f"its {len(numbers)} names must have the numbers 0 to {len(numbers) - 1}, each once")
    return tuple(names[number] for number in range(len(names)))
