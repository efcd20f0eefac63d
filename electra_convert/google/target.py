"""A checkpoint of Google's code, made of canonical tensors: which variables it has, and what lies beside them.

A discriminator alone is what `run_pretraining.py` trains with `uniform_generator`, a generator alone with
`electra_objective=False`. Both together share their embeddings, as is the default; they are one transformer if their
backbones are equal, and each has embeddings of its own if that is asked for. A task's head lies in a scope of its own.
The kinds of checkpoint and all names are those of `mappings/google_tf1.yaml`, by which what is written is recognised as
the kind it was written as.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from electra_convert.diff.report import TensorDifference
from electra_convert.diff.tensors import compare_tensors
from electra_convert.errors import MappingError, OptionError, TensorMismatchError
from electra_convert.formats.google_tf1 import write_checkpoint
from electra_convert.google.heads import (
    GivenPart,
    in_order,
    require_pair,
    require_task,
    require_tensors,
    task_notes,
)
from electra_convert.google.hparams import (
    FINE_TUNING_FILE,
    HPARAMS_FILE,
    fine_tuning_hparams,
    hparams_notes,
    make_hparams,
)
from electra_convert.inventory import Part
from electra_convert.json_text import indented_json
from electra_convert.mapping import Binding, FormatMapping, Mappings, Topology
from electra_convert.mirrored import Mirrored, mirrored
from electra_convert.part import SOURCE_FORMAT
from electra_convert.progress import Advance
from electra_convert.tensor import ITEM_SIZES, Tensor
from electra_convert.tokenizer import VOCABULARY_FILE

DTYPE: Final = "float32"
"""The dtype of all variables of Google's code that are trained."""
PREFIX = "model.ckpt-0"
STATE_FILE = "checkpoint"
STATE = f'model_checkpoint_path: "{PREFIX}"\nall_model_checkpoint_paths: "{PREFIX}"\n'
STEP = "global_step"
SLOTS = ("adam_m", "adam_v")
"""What the optimiser keeps of each variable it trains (`model/optimization.py`): both moments are 0 at the start."""
ONE_TRANSFORMER = {"untied_generator": False}
OWN_EMBEDDINGS = {"untied_generator": True, "untied_generator_embeddings": True}
SHARED_EMBEDDINGS = {"untied_generator": True, "untied_generator_embeddings": False}


class GoogleModel(msgspec.Struct, frozen=True):
    """What a checkpoint for Google's code will hold.

    Args:
        topology_key: Name of its topology in `google_tf1.yaml`.
        topology: What kind of checkpoint it is.
        variables: The variables of the model, by Google's name, sorted: what each is made of, as canonical names, in
            each part that has it.
        tensors: All its tensors, sorted by name, the optimiser's among them.
        hparams: The hparams with which Google's code builds the model.
        notes: What a user should know.
    """

    topology_key: str
    topology: Topology
    variables: Mapping[str, Mapping[Part, tuple[str, ...]]]
    tensors: tuple[Tensor, ...]
    hparams: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes its values take."""
        return sum(tensor.size * _item_size(tensor) for tensor in self.tensors)

    def documents(self, vocabulary: bytes | None) -> dict[str, bytes]:
        """Return what lies beside the weights, by name."""
        files = {HPARAMS_FILE: self.hparams, FINE_TUNING_FILE: fine_tuning_hparams(self.hparams)}
        documents = {name: indented_json(dict(hparams)) + b"\n" for name, hparams in files.items() if hparams}
        documents[STATE_FILE] = STATE.encode()
        return documents if vocabulary is None else documents | {VOCABULARY_FILE: vocabulary}

    def write(self, folder: Path, advance: Advance) -> None:
        """Write the weights to a folder that is empty."""
        write_checkpoint(folder / PREFIX, self.tensors, dtype=DTYPE, advance=advance)


def google_model(
    mappings: Mappings,
    parts: Sequence[GivenPart],
    *,
    task: str | None = None,
    untied: bool = False,
    slots: bool = False,
    lowercase: bool = True,
) -> GoogleModel:
    """Make a checkpoint for Google's code of one part, or of a discriminator and a generator.

    Args:
        mappings: The mappings.
        parts: The parts.
        task: The name of the task, where the head is one that is fine-tuned.
        untied: The generator has embeddings of its own, whether they differ or not.
        slots: Whether what the optimiser keeps is there, at its start, so that pre-training goes on from here.
        lowercase: Whether the model saw lower-cased text.

    Raises:
        OptionError: Google's code has no such model, or a task's name is missing or wrong.
        ConfigError: Google's code could not build the parts together.
        TensorMismatchError: Tensors are missing or of another shape, or those differ that both parts share.
    """
    for part in parts:
        require_tensors(mappings, part)
    maker = _Maker(mappings, {part.part: part for part in in_order(mappings, parts)}, task)
    maker.require_heads(slots=slots)
    bound = maker.bound(untied=untied)
    configs = {name: part.config for name, part in maker.parts.items()}
    told = (task, parts[0].head) if task else None
    hparams = make_hparams(bound.topology, configs, lowercase=lowercase, task=told)
    packed = bound.pack()
    return GoogleModel(
        bound.key,
        bound.topology,
        bound.origins,
        tuple(sorted((*packed, *_of_training(packed, slots=slots)), key=lambda tensor: tensor.name)),
        hparams,
        tuple(
            dict.fromkeys(
                [*maker.notes(slots=slots), *hparams_notes(hparams, bound.topology, configs), *_dtype_notes(packed)]
            )
        ),
    )


class _Bound(msgspec.Struct, frozen=True):
    """The bindings of each part, in one kind of checkpoint."""

    key: str
    topology: Topology
    parts: Mapping[Part, GivenPart]
    bindings: Mapping[Part, Mapping[str, Binding | Mirrored]]

    @property
    def origins(self) -> dict[str, dict[Part, tuple[str, ...]]]:
        """The canonical names of each variable, in each part that has it."""
        names = sorted({name for bound in self.bindings.values() for name in bound})
        return {
            name: {
                part: tuple(spec.name for spec in bound[name].specs)
                for part, bound in self.bindings.items()
                if name in bound
            }
            for name in names
        }

    @property
    def shared(self) -> list[str]:
        """The variables of both parts."""
        return [name for name, origins in self.origins.items() if len(origins) > 1]

    def packed(self, part: Part) -> dict[str, Tensor]:
        """Return the variables of one part, by name."""
        return {name: binding.pack(self.parts[part].tensors) for name, binding in self.bindings[part].items()}

    def differences(self) -> Iterator[TensorDifference]:
        """Yield where the parts differ in what they share; one in a narrower dtype may be the other, rounded."""
        first, second = (self.packed(part) for part in self.parts)
        found = compare_tensors({n: first[n] for n in self.shared}, {n: second[n] for n in self.shared}, lambda _: None)
        yield from (difference for difference in found if difference.fate != "cast")

    def pack(self) -> list[Tensor]:
        """Return all variables; of those that both parts have, the one in the wider dtype."""
        packed: dict[str, Tensor] = {}
        for part in self.parts:
            for name, tensor in self.packed(part).items():
                known = packed.get(name)
                if known is None or ITEM_SIZES[tensor.dtype] > ITEM_SIZES[known.dtype]:
                    packed[name] = tensor
        return list(packed.values())


class _Maker(msgspec.Struct, frozen=True):
    """Finds the kind of checkpoint that parts make."""

    mappings: Mappings
    parts: Mapping[Part, GivenPart]
    task: str | None

    @property
    def mapping(self) -> FormatMapping:
        """The mapping of Google's names, with those of the task's head."""
        mapping = self.mappings.formats[SOURCE_FORMAT]
        head = next(iter(self.parts.values())).head
        if self.task is None or mapping.tasks is None:
            return mapping
        return mapping.with_modules(
            {
                row: f"{mapping.tasks.scope}{self.task}/{module}"
                for row, module in mapping.tasks.heads[head].modules.items()
            }
        )

    @property
    def native(self) -> dict[Part, str | None]:
        """The head of each part, as a topology says it."""
        origin = self.mappings.inventory.origin
        return {
            name: None if self.task or part.head == "base" else origin(part.head) for name, part in self.parts.items()
        }

    def require_heads(self, *, slots: bool) -> None:
        """Check that Google's code has these heads, together, and that the task is named where there is one.

        Raises:
            OptionError: It has not, or it is not.
        """
        if len(self.parts) > 1:
            require_pair(self.parts, self.native)
            if self.task:
                raise OptionError("a task is named, but a discriminator and a generator are given", hint="leave it out")
            return
        (part,) = self.parts.values()
        tasks = self.mappings.formats[SOURCE_FORMAT].tasks
        if tasks is not None and part.head in tasks.heads:
            require_task(self.mappings, part, self.task)
        elif self.task:
            raise OptionError(f"{part.name} is {part.head}, which is no head of a task", hint="leave the task out")
        elif part.head == "base" and slots:
            raise OptionError(
                f"{part.name} is a backbone without a head, which no training of Google's code goes on from",
                hint="leave the optimiser's slots out: fine-tuning starts from the backbone as it is",
            )

    def bound(self, *, untied: bool) -> _Bound:
        """Return the bindings in the kind of checkpoint that these parts make.

        Raises:
            TensorMismatchError: They differ in what they share.
        """
        if len(self.parts) == 1:
            return self._of_kind({})
        if untied:
            return self._of_kind(OWN_EMBEDDINGS)
        one, two = (part.config for part in self.parts.values())
        if one.projects_embeddings == two.projects_embeddings and one.num_hidden_layers == two.num_hidden_layers:
            tied = self._of_kind(ONE_TRANSFORMER)
            if next(tied.differences(), None) is None:
                return tied
        shared = self._of_kind(SHARED_EMBEDDINGS)
        _require_none_differ(shared, list(self.parts.values()))
        return shared

    def _of_kind(self, hparams: Mapping[str, bool]) -> _Bound:
        """Return the bindings in the kind of checkpoint that such hparams make of these parts."""
        mapping = self.mapping
        for key, kind in mapping.topologies.items():
            if kind.parts == self.native and hparams.items() <= (dict(hparams) | kind.hparams).items():
                bindings = {part: self._bindings(mapping, part, kind) for part in self.parts}
                names = {name for bound in bindings.values() for name in bound}
                if mapping.topology(names) == (key, kind):
                    return _Bound(key, kind, self.parts, bindings)
        raise MappingError(
            f"{SOURCE_FORMAT}.yaml: no topology fits {self.native} with {dict(hparams)}",
            hint="keep the topologies of the package's own mappings",
        )

    def _bindings(self, mapping: FormatMapping, part: Part, kind: Topology) -> dict[str, Binding | Mirrored]:
        given, inventory = self.parts[part], self.mappings.inventory
        head = inventory.origin(given.head)
        values = mapping.resolve({"part": part}, kind.has)
        own = mapping.bind(inventory.source_tensors(head, given.config), values)
        made: Sequence[Binding | Mirrored] = own
        if inventory.heads[head].mirrored:
            made = mirrored(own, inventory.head_tensors(head, given.config))
        backbone = mapping.bind(inventory.backbone_tensors(given.config), values)
        return {binding.name: binding for binding in (*backbone, *made)}

    def notes(self, *, slots: bool) -> Iterator[str]:
        """Yield what a user should know of the heads."""
        if not slots and any(self.native.values()):
            yield (
                "run_pretraining.py goes on from a checkpoint that has the optimiser's slots, and from no other: "
                "--with-optimizer-slots; run_finetuning.py needs none"
            )
        for part in self.parts.values():
            if self.mappings.inventory.origin(part.head) != part.head:
                yield f"{part.name} is {part.head}, whose variables Google's code trains as a masked language model"
            if part.head == "base":
                yield (
                    f"{part.name} is a backbone without a head: run_finetuning.py starts from it; run_pretraining.py "
                    "goes on from a checkpoint that has the heads, and from no other"
                )
        if self.task:
            yield from task_notes(self.mappings, next(iter(self.parts.values())), self.task)


def _require_none_differ(bound: _Bound, parts: Sequence[GivenPart]) -> None:
    differences = list(bound.differences())
    if not differences:
        return
    problems = []
    for each in differences:
        apart = (
            f"they are {each.a} and {each.b}" if each.fate != "differs" else f"the largest difference is {each.largest}"
        )
        at = f", at {list(each.at)}" if each.at is not None else ""
        problems.append(f"{each.name}: {apart}{at}")
    raise TensorMismatchError(
        f"the embeddings of {parts[0].name} and {parts[1].name} differ, which a discriminator and a generator share",
        problems=problems,
        hint="name parts that were trained together; or give the generator embeddings of its own, with "
        "--untied-embeddings",
    )


def _of_training(variables: Sequence[Tensor], *, slots: bool) -> Iterator[Tensor]:
    """Yield what training adds to the model: the step, and what the optimiser keeps."""
    yield _zeros(STEP, (), "int64")
    if slots:
        yield from (_zeros(f"{tensor.name}/{slot}", tensor.shape, DTYPE) for tensor in variables for slot in SLOTS)


def _zeros(name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
    def values() -> Any:
        import numpy as np

        return np.broadcast_to(np.zeros((), dtype), shape)  # takes no memory

    return Tensor(name, shape, dtype, values)


def _dtype_notes(variables: Sequence[Tensor]) -> Iterator[str]:
    for dtype in sorted({tensor.dtype for tensor in variables} - {DTYPE}):
        exact = ITEM_SIZES[dtype] < ITEM_SIZES[DTYPE]
        how = f"written as {DTYPE}, which holds them exactly" if exact else f"rounded to {DTYPE}"
        yield f"values are {dtype} and are {how}: Google's code has no other"


def _item_size(tensor: Tensor) -> int:
    return ITEM_SIZES[tensor.dtype if tensor.name == STEP else DTYPE]
