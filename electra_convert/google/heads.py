"""The heads that Google's code has, and what a part must be to be written as one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from electra_convert.config import LABELLED_HEADS, ElectraConfig
from electra_convert.errors import OptionError, TensorMismatchError
from electra_convert.inventory import Part
from electra_convert.mapping import Binding, Mappings
from electra_convert.mirrored import mirrored
from electra_convert.part import SOURCE_FORMAT
from electra_convert.tensor import Tensor

TASK_NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""What TensorFlow takes for a name within a scope."""


class GivenPart(msgspec.Struct, frozen=True):
    """A part, as canonical tensors.

    Args:
        part: Which part it is to be.
        head: Its head.
        config: Its config.
        tensors: Its tensors, by canonical name; there may be more.
        name: What messages call it.
    """

    part: Part
    head: str
    config: ElectraConfig
    tensors: Mapping[str, Tensor]
    name: object


def in_order(mappings: Mappings, parts: Sequence[GivenPart]) -> list[GivenPart]:
    """Return parts, the discriminator first.

    Raises:
        OptionError: Google's code has no such head as one of them has.
    """
    mapping = mappings.formats[SOURCE_FORMAT]
    known = {"base", *(mapping.tasks.heads if mapping.tasks else ())}
    known |= {head for kind in mapping.topologies.values() for head in kind.parts.values() if head}
    unknown = [part for part in parts if mappings.inventory.origin(part.head) not in known]
    if unknown:
        raise OptionError(
            "Google's code has no such head",
            problems=[f"{part.name} is {part.head}" for part in unknown],
            hint="it can be converted to other formats; of its backbone, write the head `base`",
        )
    return sorted(parts, key=lambda part: part.part)


def require_pair(parts: Mapping[Part, GivenPart], native: Mapping[Part, str | None]) -> None:
    """Check that two parts have the heads they were trained on together.

    Args:
        parts: The parts.
        native: The head of each, as a topology says it.

    Raises:
        OptionError: They have others.
    """
    expected: dict[Part, str | None] = {"discriminator": "pretraining", "generator": "masked_lm"}
    if native != expected:
        raise OptionError(
            "only a pretraining head and a masked_lm head make a checkpoint together",
            problems=[
                f"{part.name} is {part.head}; the {name} must be {expected[name]}" for name, part in parts.items()
            ],
            hint="name the directories of the heads that were trained, or write each part alone",
        )


def require_tensors(mappings: Mappings, part: GivenPart) -> None:
    """Check that a part has all tensors that its config calls for.

    Raises:
        TensorMismatchError: Some are missing, or of another shape; it lists all.
    """
    specs = mappings.inventory.tensors(part.head, part.config)
    problems = [f"{spec.name} {list(spec.shape)} is missing" for spec in specs if spec.name not in part.tensors]
    problems += (
        f"{spec.name} has shape {list(part.tensors[spec.name].shape)}; the config calls for {list(spec.shape)}"
        for spec in specs
        if spec.name in part.tensors and part.tensors[spec.name].shape != spec.shape
    )
    if problems:
        raise TensorMismatchError(
            f"{part.name} is not whole", problems=problems, hint="name a directory whose config.json fits its weights"
        )


def require_task(mappings: Mappings, part: GivenPart, name: str | None) -> None:
    """Check that a task has a name, that it may have, and that its head is one Google's code can have.

    Raises:
        OptionError: That is not so.
    """
    tasks = mappings.formats[SOURCE_FORMAT].tasks
    known = tasks.names.get(name or "") if tasks else None
    outputs = part.config.num_labels if part.head in LABELLED_HEADS else 0
    fault, hint = "", "--task NAME, a name of finetune/task_builder.py or one of your own"
    if name is None:
        fault = f"{part.name} is {part.head}, the head of a task: by what name does Google's code know the task?"
    elif not TASK_NAME.fullmatch(name):
        fault = f"{name!r} is no name of a task; expected letters, digits, '_', '.' and '-'"
    elif known is not None and known.head != part.head:
        fault = f"the task {name} is {known.head} in Google's code, and {part.name} is {part.head}"
    elif known is not None and known.labels and len(known.labels) != outputs:
        fault = f"the task {name} has {len(known.labels)} labels in Google's code, and {part.name} has {outputs}"
    elif mappings.inventory.heads[part.head].mirrored and not _is_mirrored(mappings, part):
        fault = (
            f"{part.name} has two dense modules with GELU between them as its head, where Google's code has one: only "
            "a head that this package made of Google's can become that one again"
        )
        hint = "the backbone can be written: name a directory of its head `base`"
    if fault:
        raise OptionError(fault, hint=hint)


def _is_mirrored(mappings: Mappings, part: GivenPart) -> bool:
    inventory = mappings.inventory
    specs = inventory.source_tensors(part.head, part.config)
    bindings = [Binding(spec.name, (spec,), "identity") for spec in specs]
    made = mirrored(bindings, inventory.head_tensors(part.head, part.config))
    return all(each.is_made(part.tensors) for each in made)


def task_notes(mappings: Mappings, part: GivenPart, name: str) -> Iterator[str]:
    """Yield what a user should know of a task by its name."""
    tasks = mappings.formats[SOURCE_FORMAT].tasks
    known = tasks.names.get(name) if tasks else None
    if known is None:
        yield (
            f"Google's code has no task {name}: add it to finetune/task_builder.py; this package reads it with "
            f"--task {name}={part.head}"
        )
    elif known.labels and part.config.labels != known.labels:
        theirs, ours = ", ".join(known.labels), ", ".join(part.config.labels)
        yield f"Google's code calls the labels of {name} {theirs}; here they are {ours}"
