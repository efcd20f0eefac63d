"""What a checkpoint was fine-tuned on: the tasks it holds, what head each has, and which one is converted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Literal

import msgspec

from electra_convert.errors import OptionError
from electra_convert.mapping import FormatMapping, KnownTask, Mappings, TaskHead, Tasks
from electra_convert.mirrored import EXPLANATION, misfit
from electra_convert.options import NATIVE_HEAD
from electra_convert.tensor import Tensor

UNTOLD = "nothing in the checkpoint shows which of these it is"


class Task(msgspec.Struct, frozen=True):
    """A task that a checkpoint was fine-tuned on.

    Args:
        name: Its name.
        scope: Where its variables are.
        heads: The heads it may have: one, if that is known.
        outputs: How many outputs it has, where its head does not tell.
        modules: What the modules of its head are called, by row.
        unsupported: Variables that have no place in the head, by the beginning of their names, with the reason.
        refusal: Why it cannot be converted; empty if it can.
        labels: The names Google's code gives its labels.
        notes: What to know about the head.
    """

    name: str
    scope: str
    heads: tuple[str, ...]
    outputs: int | None
    modules: Mapping[str, str] = {}
    unsupported: Mapping[str, str] = {}
    refusal: str = ""
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def head(self) -> str | None:
        """The head it has, if that is known and can be converted."""
        return self.heads[0] if len(self.heads) == 1 and not self.refusal else None

    @property
    def says(self) -> str:
        """What it is, in a phrase."""
        what = " or ".join(self.heads) or "no head that is known"
        outputs = f", {self.outputs} output" + "s" * (self.outputs != 1) if self.outputs else ""
        if self.refusal:
            return f"{what}{outputs}; it cannot be converted: {self.refusal}"
        return what + outputs + (f"; {UNTOLD}" if len(self.heads) > 1 else "")

    def explain(self, name: str, chosen: Task | None) -> tuple[Literal["other task", "unsupported"], str] | None:
        """Say why a variable of this task is left behind, where `chosen` is converted; `None` if nothing says so."""
        if chosen is None or chosen.name != self.name:
            return ("unsupported", self.refusal) if self.refusal else ("other task", self.name)
        return next(
            (("unsupported", why) for begin, why in chosen.unsupported.items() if name.startswith(begin)),
            None,
        )


def find_tasks(mappings: Mappings, mapping: FormatMapping, tensors: Mapping[str, Tensor], said: str = "") -> list[Task]:
    """Return the tasks of a checkpoint, in the order of their names.

    Args:
        mappings: The mappings.
        mapping: That of Google's names.
        tensors: The tensors of the checkpoint.
        said: `NAME=HEAD`: what head the task of that name has.

    Raises:
        OptionError: There is no such head.
    """
    if mapping.tasks is None:
        return []
    name, _, head = said.partition("=")
    if head and head not in mapping.tasks.heads:
        raise OptionError(
            f"--task {said}: {head!r} is no head of a task",
            hint=f"choose from {', '.join(mapping.tasks.heads)}; a regression is sequence_classification with 1 output",
        )
    modules: dict[str, set[str]] = {}
    for variable in tensors:
        if variable.startswith(mapping.tasks.scope) and mapping.explain(variable) is None:
            task, _, rest = variable.removeprefix(mapping.tasks.scope).partition("/")
            modules.setdefault(task, set()).add(rest.rpartition("/")[0])
    return [
        _task(mappings, mapping.tasks, tensors, task, found, head if task == name else "")
        for task, found in sorted(modules.items())
    ]


def choose_task(tasks: Collection[Task], wanted: str | None, heads: Collection[str]) -> Task | None:
    """Return the task to convert: the one that is asked for, or the only one.

    Args:
        tasks: The tasks there are.
        wanted: `NAME` or `NAME=HEAD`, if one is asked for.
        heads: The heads that are asked for; none means all. Where no task could have one of them, none is needed.

    Returns:
        The task; none if there is none, or none is needed, or the only one cannot be converted.

    Raises:
        OptionError: It is not there or cannot be converted, or it is not clear which one is meant, or what it is.
    """
    if wanted is not None:
        return _asked_for(tasks, wanted.partition("=")[0])
    possible = {NATIVE_HEAD, *(head for task in tasks for head in task.heads)}
    if len(tasks) > 1 and (not heads or possible & set(heads)):
        raise OptionError(
            "this checkpoint was fine-tuned on several tasks: which is to be converted?",
            problems=[f"{task.name}: {task.says}" for task in tasks],
            hint=f"--task {next(iter(tasks)).name}, or --head base for the backbone alone",
        )
    if len(tasks) != 1:
        return None
    (task,) = tasks
    if not task.refusal and len(task.heads) > 1 and (not heads or possible & set(heads)):
        raise _untold(task)
    if task.refusal and NATIVE_HEAD in heads:
        raise _refused(task)
    return task if task.head else None


def task_notes(tasks: Collection[Task], chosen: Task | None, heads: Collection[str]) -> Iterator[str]:
    """Yield what a user should know of the tasks of a checkpoint; of the chosen one, if its head is written."""
    if chosen is not None and chosen.head in heads:
        yield from chosen.notes
    for task in tasks:
        if task.refusal and (chosen is None or task.name != chosen.name):
            yield f"its task {task.name} is not converted: {task.refusal}"


def _asked_for(tasks: Collection[Task], name: str) -> Task:
    task = next((task for task in tasks if task.name == name), None)
    if task is None:
        there = f"its tasks are {', '.join(task.name for task in tasks)}" if tasks else "it was not fine-tuned"
        raise OptionError(f"this checkpoint has no task {name!r}: {there}", hint="name another, or leave --task out")
    if task.refusal:
        raise _refused(task)
    if task.head is None:
        raise _untold(task)
    return task


def _refused(task: Task) -> OptionError:
    return OptionError(
        f"the task {task.name} cannot be converted: {task.refusal}",
        hint="the backbone can: leave --task out and give --head base",
    )


def _untold(task: Task) -> OptionError:
    return OptionError(
        f"the task {task.name} has one dense module, which may be {' or '.join(task.heads)}: {UNTOLD}",
        hint=f"say what it is: {' or '.join(f'--task {task.name}={head}' for head in task.heads)} (a regression is "
        "sequence_classification with 1 output)",
    )


def _task(
    mappings: Mappings, mapping: Tasks, tensors: Mapping[str, Tensor], name: str, modules: set[str], head: str
) -> Task:
    """Return a task, with its head if that is said, known by its name, or shown by its modules."""
    known = mapping.names.get(name)
    head = head or (known.head if known else "")
    heads = (head,) if head else tuple(each for each in mapping.heads if _fits(mapping.heads[each], modules))
    scope = f"{mapping.scope}{name}/"
    shape = _kernel_shape(mapping.heads[heads[0]], tensors, scope) if heads else ()
    task = Task(name, scope, heads, shape[-1] if shape else None)
    if not heads:
        return msgspec.structs.replace(
            task, refusal=f"its modules, {', '.join(sorted(modules))}, are those of no head that is known"
        )
    if len(heads) > 1:
        return task
    mirrored = bool(mappings.inventory.heads[heads[0]].mirrored)
    task = _with_head(task, mapping.heads[heads[0]], modules, known if known and known.head == heads[0] else None)
    return msgspec.structs.replace(
        task,
        refusal=task.refusal or (misfit(shape) if mirrored else ""),
        notes=((EXPLANATION,) if mirrored else ()) + task.notes,
    )


def _kernel_shape(entry: TaskHead, tensors: Mapping[str, Tensor], scope: str) -> tuple[int, ...]:
    """Return the shape of the kernel of a head's only module; empty if it has several, or none is there."""
    modules = list(entry.modules.values())
    kernel = tensors.get(f"{scope}{modules[0]}/kernel") if len(modules) == 1 else None
    return kernel.shape if kernel else ()


def _with_head(task: Task, entry: TaskHead, modules: set[str], known: KnownTask | None) -> Task:
    """Return a task with what follows from its head, and from its name if that is known to have this head."""
    literal = task.scope.replace("{", "{{").replace("}", "}}")
    dropped = {f"{task.scope}{module}/": why for module, why in entry.unsupported.items() if module in modules}
    reasons = dict.fromkeys(dropped.values())
    return msgspec.structs.replace(
        task,
        modules={row: literal + module for row, module in entry.modules.items()},
        unsupported=dropped,
        refusal=_refusal(task.heads[0], entry, modules),
        labels=known.labels if known else (),
        notes=tuple(
            filter(None, (entry.note, known.note if known else "", *(f"left behind: {why}" for why in reasons)))
        ),
    )


def _fits(entry: TaskHead, modules: set[str]) -> bool:
    """Say whether modules may be those of a head, among what makes it another, or has no place in it."""
    return set(entry.modules.values()) <= modules <= {*entry.modules.values(), *entry.lacks, *entry.unsupported}


def _refusal(head: str, entry: TaskHead, modules: set[str]) -> str:
    """Say why modules are not those of a head; nothing if they are."""
    if reasons := [why for module, why in entry.lacks.items() if module in modules]:
        return reasons[0]
    if _fits(entry, modules):
        return ""
    return (
        f"it is {head}, whose modules are {' and '.join(entry.modules.values())}; it holds {', '.join(sorted(modules))}"
    )
