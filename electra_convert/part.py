"""One part of a Google checkpoint, understood: its config, what shows it, and where its tensors are.

Everything here works on names and shapes; no tensor is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec

from electra_convert.config import ElectraConfig, label_names
from electra_convert.config_file import Claims, ConfigFile, heads_by_rule
from electra_convert.errors import ConfigError, PartNotFoundError, SourceError, TensorMismatchError
from electra_convert.inventory import Module, Part, TensorSpec, is_layered, module_tensors
from electra_convert.mapping import Binding, FormatMapping, Mappings, Topology
from electra_convert.mirrored import Mirrored, mirrored
from electra_convert.task import Task, choose_task, find_tasks
from electra_convert.tensor import Tensor

Fate = Literal["used", "other part", "other task", "ignored", "unsupported"]

SOURCE_FORMAT = "google_tf1"
ASSUMED = "assumed"
WEIGHT_DTYPES = ("float32", "float64", "float16", "bfloat16")
SCOPES_SHOWN = 12
UNPROVEN = (
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
)
"""The fields of a config that no tensor's shape shows."""


class Evidence(msgspec.Struct, frozen=True):
    """A size, and the tensor that shows it."""

    value: int
    tensor: str


class SourcePart(msgspec.Struct, frozen=True):
    """One part of a checkpoint.

    Args:
        part: Which part.
        config: Its config.
        origins: What each field of the config is from: a tensor, a key of a config file, or `"assumed"`.
        native_head: The head it was trained on, where the checkpoint holds one that can be converted.
        bindings: Its tensors: embeddings, encoder and native head.
    """

    part: Part
    config: ElectraConfig
    origins: Mapping[str, str]
    native_head: str | None
    bindings: tuple[Binding | Mirrored, ...]

    def canonical(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return its canonical tensors, made of those of the checkpoint when they are loaded."""
        unpacked = (tensor for binding in self.bindings for tensor in binding.unpack(tensors[binding.name]))
        return {tensor.name: tensor for tensor in unpacked}

    @property
    def assumed(self) -> dict[str, Any]:
        """What follows Google's rule because nothing shows it, by field."""
        return {field: getattr(self.config, field) for field, origin in self.origins.items() if origin == ASSUMED}


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a Google checkpoint, and what they say about it.

    Args:
        mappings: The mappings.
        tensors: Every tensor that can be read, by Google's name.
        unreadable: The others, with the reason.
        topology_key: Name of the topology in `google_tf1.yaml`.
        topology: What kind of checkpoint this is.
        name: What messages call it.
        tasks: What it was fine-tuned on.
        task: The task of these whose head is converted.
    """

    mappings: Mappings
    tensors: Mapping[str, Tensor]
    unreadable: Mapping[str, str]
    topology_key: str
    topology: Topology
    name: object = "the checkpoint"
    tasks: tuple[Task, ...] = ()
    task: Task | None = None

    @property
    def format(self) -> str:
        """The format of its names."""
        return SOURCE_FORMAT

    @cached_property
    def mapping(self) -> FormatMapping:
        """The mapping of Google's names, with those of the task's head."""
        mapping = self.mappings.formats[SOURCE_FORMAT]
        return mapping.with_modules(self.task.modules) if self.task else mapping

    @cached_property
    def native_heads(self) -> dict[Part, str | None]:
        """The head each part was trained on, where it can be converted."""
        return {part: self.task.head if self.task else head for part, head in self.topology.parts.items()}

    @cached_property
    def names(self) -> dict[Part, PartNames]:
        """What each part calls its tensors."""
        return {part: PartNames(self, part, head) for part, head in self.native_heads.items()}

    def with_task(self, wanted: str | None = None, heads: Collection[str] = ("base",)) -> Checkpoint:
        """Return this checkpoint with the task that is to be converted, if there is one.

        Args:
            wanted: `NAME` or `NAME=HEAD`; by default the only one there is.
            heads: The heads that are asked for; none means all.

        Raises:
            OptionError: It is not there or cannot be converted, or it is not clear which one is meant, or what it is.
        """
        tasks = tuple(find_tasks(self.mappings, self.mapping, self.tensors, wanted)) if wanted else self.tasks
        return replace(self, tasks=tasks, task=choose_task(tasks, wanted, heads))

    @cached_property
    def unknown(self) -> list[str]:
        """Tensors that belong to no part and that no rule explains."""
        bound = {name for part in self.names.values() for name in part.present}
        return [name for name in self.tensors if name not in bound and self.explain(name) is None]

    def understand(
        self,
        parts: Collection[Part],
        *,
        config_file: ConfigFile | None = None,
        labels: tuple[str, ...] | None = None,
    ) -> dict[Part, SourcePart]:
        """Work out parts of the checkpoint.

        Args:
            parts: The parts.
            config_file: What the user says about the model.
            labels: Names of labels, for the heads that have some.

        Raises:
            PartNotFoundError: A part is not there.
            ConfigError: The file or the labels contradict the tensors, or the config describes no model.
            TensorMismatchError: Tensors are missing, unknown, or of the wrong shape; all of them.
        """
        for part in parts:
            self.require_part(part)
        if config_file is not None:
            self._refuse_other_runs(config_file)
        unsized = [fault for part in parts for fault in self.names[part].faults_of_size()]
        self._require_tensors(unsized, also_unknown=bool(unsized))
        understood = {part: self.names[part].understand(config_file, labels) for part in parts}
        faults = [fault for part in understood.values() for fault in self._faults(part)]
        self._require_tensors(faults, also_unknown=True)
        return understood

    def variables(self, source: SourcePart) -> tuple[Mapping[str, Tensor], None]:  # noqa: ARG002  # they are all
        """Return what the oracle computes a part with: the variables, and no head that Google's graph has not."""
        return self.tensors, None

    def used(self, part: Part) -> Collection[str]:
        """Return the names of the tensors of a part."""
        return self.names[part].present

    def owners(self, name: str) -> dict[Part, str]:
        """Return the parts that have a tensor, each with its canonical name there."""
        return {part: names.present[name] for part, names in self.names.items() if name in names.present}

    def explain(self, name: str) -> tuple[Fate, str] | None:
        """Say why a tensor that is in no part may be left behind; `None` if nothing says so."""
        if rule := self.mapping.explain(name):
            return rule
        task = next((task for task in self.tasks if name.startswith(task.scope)), None)
        return task.explain(name, self.task) if task else None

    def ledger(self, part: Part) -> dict[str, tuple[Fate, str]]:
        """Say of every tensor what becomes of it when `part` is converted.

        Returns:
            Fate and explanation by name: the canonical names of what is used, else the part or task it belongs to or
            the reason. A tensor that both parts use is used.
        """
        fates: dict[str, tuple[Fate, str]] = {name: ("unsupported", why) for name, why in self.unreadable.items()}
        for name in self.tensors:
            owners = self.owners(name)
            if part in owners:
                fates[name] = ("used", owners[part])
            elif owners:
                fates[name] = ("other part", next(iter(owners)))
            elif explained := self.explain(name):
                fates[name] = explained
        return dict(sorted(fates.items()))

    def require_part(self, part: Part) -> None:
        """Check that a part is there.

        Raises:
            PartNotFoundError: It is not; the message says which are.
        """
        require_part(self.topology, part)

    def _refuse_other_runs(self, config_file: ConfigFile) -> None:
        """Refuse hparams of a run that would have written other variables."""
        kind = self.topology
        shown = [next(name for name in self.tensors if name.startswith(prefix)) for prefix in kind.has[1:]]
        lacking = [f"nothing in {prefix}" for prefix in kind.lacks]
        problems = [
            f"{key}: {config_file.name} says {str(said).lower()}, or leaves it at that; the checkpoint calls for "
            f"{str(kind.hparams[key]).lower()}, for it holds {', '.join(shown + lacking)}"
            for key, said in config_file.switches().items()
            if said != kind.hparams.get(key, said)
        ]
        if problems:
            raise ConfigError(
                f"{config_file.name} is of another run: this checkpoint holds {kind.says}",
                problems=problems,
                hint="give the hparams this checkpoint was trained with, or leave --config out",
            )

    def _faults(self, source: SourcePart) -> Iterator[str]:
        for binding in source.bindings:
            tensor = self.tensors.get(binding.name)
            if tensor is None:
                yield self.absence(binding.name, list(binding.shape))
            elif tensor.dtype not in WEIGHT_DTYPES:
                yield f"{binding.name} is {tensor.dtype}; weights are {', '.join(WEIGHT_DTYPES)}"
            elif tensor.shape != binding.shape:
                yield f"{binding.name} has shape {list(tensor.shape)}; the other tensors call for {list(binding.shape)}"

    def absence(self, name: str, shape: object) -> str:
        """Say that a tensor is not there to be read, and why."""
        unreadable = self.unreadable.get(name)
        return f"{name} {shape} cannot be read: {unreadable}" if unreadable else f"{name} {shape} is missing"

    def _require_tensors(self, faults: list[str], *, also_unknown: bool) -> None:
        unknown = [f"{name} {list(self.tensors[name].shape)} is in no mapping" for name in self.unknown if also_unknown]
        problems = list(dict.fromkeys(faults + unknown))
        if not problems:
            return
        tensors = "1 tensor does" if len(problems) == 1 else f"{len(problems)} tensors do"
        raise TensorMismatchError(
            f"{tensors} not fit an ELECTRA model: {self.name} holds {self.topology.says}",
            problems=problems,
            hint="if variables were renamed or added on purpose, say so in a copy of the mappings and give it with "
            "--mappings; otherwise the checkpoint is incomplete. `electra-convert inspect` lists every tensor",
        )


def require_part(topology: Topology, part: Part) -> None:
    """Check that a checkpoint of this kind has a part.

    Raises:
        PartNotFoundError: It has not; the message says which it has.
    """
    if part not in topology.parts:
        there = list(topology.parts)
        raise PartNotFoundError(
            f"this checkpoint has no {part}: it holds {topology.says}",
            hint=f"its {' and '.join(there)} can be converted: --part {there[0]}",
        )


def recognise(
    mappings: Mappings,
    tensors: Mapping[str, Tensor],
    unreadable: Mapping[str, str] = MappingProxyType({}),
    *,
    name: object = "the checkpoint",
) -> Checkpoint:
    """Tell from the names in a checkpoint what it is.

    Args:
        mappings: The mappings.
        tensors: The tensors that can be read, by Google's name.
        unreadable: The others, with the reason.
        name: What a message calls the checkpoint.

    Raises:
        SourceError: It is nothing that is known.
    """
    found = mappings.formats[SOURCE_FORMAT].topology(tensors)
    if found is None:
        scopes = sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in tensors})
        shown = ", ".join(scopes[:SCOPES_SHOWN]) + (", ..." if len(scopes) > SCOPES_SHOWN else "")
        raise SourceError(
            f"{name} does not hold the variables of an ELECTRA model: it holds {shown or 'none'}",
            hint="what google-research/electra writes holds electra/ and one of discriminator_predictions/, "
            "generator_predictions/ and task_specific/",
        )
    tasks = find_tasks(mappings, mappings.formats[SOURCE_FORMAT], tensors)
    return Checkpoint(mappings, tensors, unreadable, *found, name, tuple(tasks))


class FoundTensor(NamedTuple):
    """A tensor of a part, by the names it should have; it is there, or is looked for."""

    name: str
    canonical: str
    dimensions: tuple[str | int, ...]
    layer: int | None
    optional: bool


@dataclass(frozen=True)
class PartNames:
    """What one part calls its tensors: names are made from the mapping and looked up."""

    checkpoint: Checkpoint
    part: Part
    native_head: str | None

    @cached_property
    def values(self) -> dict[str, str]:
        """The placeholders, resolved once."""
        return self.checkpoint.mapping.resolve({"part": self.part}, self.checkpoint.tensors)

    @cached_property
    def rows(self) -> dict[str, Module]:
        """The modules of backbone and native head."""
        inventory = self.checkpoint.mappings.inventory
        return inventory.backbone | (inventory.source_modules(self.native_head) if self.native_head else {})

    @cached_property
    def found(self) -> list[FoundTensor]:
        """The tensors that are there, layer by layer."""
        found = self._present(None)
        for layer in count():
            in_layer = self._present(layer)
            if not in_layer:
                break
            found += in_layer
        return found

    @cached_property
    def present(self) -> dict[str, str]:
        """The tensors that are there: canonical name by name."""
        return {tensor.name: tensor.canonical for tensor in self.found}

    @cached_property
    def evidence(self) -> dict[str, Evidence]:
        """The sizes, each with the first tensor that shows it."""
        evidence: dict[str, Evidence] = {}
        for name, _, dimensions, layer, _ in self.found:
            shape = self.checkpoint.tensors[name].shape
            for dimension, length in zip(dimensions, shape, strict=False):
                if isinstance(dimension, str):
                    evidence.setdefault(dimension, Evidence(length, f"{name} {list(shape)}"))
            if layer is not None:
                evidence["num_hidden_layers"] = Evidence(layer + 1, name)
        return evidence

    def faults_of_size(self) -> list[str]:
        """List the tensors that are missing, if without them a size is shown by nothing."""
        needed = {d for module in self.rows.values() for d in module.shape if isinstance(d, str)}
        if not (needed | {"num_hidden_layers"}) - set(self.evidence):
            return []
        faults = []
        for name, _, dimensions, _, optional in (*self._names(None), *self._names(0)):
            tensor = self.checkpoint.tensors.get(name)
            expected = f"[{', '.join(map(str, dimensions))}]"
            if tensor is None and not optional:
                faults.append(self.checkpoint.absence(name, expected))
            elif tensor is not None and len(tensor.shape) != len(dimensions):
                faults.append(f"{name} has shape {list(tensor.shape)}; expected {expected}")
        return faults

    def understand(self, config_file: ConfigFile | None, labels: tuple[str, ...] | None) -> SourcePart:
        """Settle the config and bind every tensor that it calls for."""
        one_transformer = self.checkpoint.topology.one_transformer
        claims = config_file.claims(self.part, one_transformer=one_transformer) if config_file else {}
        name = config_file.name if config_file else ""
        _refuse_contradictions(self.evidence, claims, name)
        labels = self._labels(labels)
        config, origins = _settle(self.evidence, claims, name, labels)
        return SourcePart(self.part, config, origins, self.native_head, tuple(self._bindings(config)))

    def _bindings(self, config: ElectraConfig) -> Iterator[Binding | Mirrored]:
        inventory, mapping = self.checkpoint.mappings.inventory, self.checkpoint.mapping
        yield from mapping.bind(inventory.backbone_tensors(config), self.values)
        if self.native_head:
            own = mapping.bind(inventory.source_tensors(self.native_head, config), self.values)
            is_mirrored = inventory.heads[self.native_head].mirrored
            yield from mirrored(own, inventory.head_tensors(self.native_head, config)) if is_mirrored else own

    def _labels(self, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Return the names of labels, as many as the tensors of the native head show."""
        shown, task = self.evidence.get("num_labels"), self.checkpoint.task
        if shown is None:
            return given
        require_labels(given, shown)
        known = task.labels if task and len(task.labels) == shown.value else label_names(shown.value)
        return known if given is None else given

    def _present(self, layer: int | None) -> list[FoundTensor]:
        return [tensor for tensor in self._names(layer) if tensor.name in self.checkpoint.tensors]

    def _names(self, layer: int | None) -> Iterator[FoundTensor]:
        """Yield what the tensors of one layer, or of none, should be called."""
        for row, module in self.rows.items():
            if is_layered(row) == (layer is not None):
                for canonical, leaf, dimensions in module_tensors(row, module, layer):
                    spec = TensorSpec(canonical, row, layer, module.kind, leaf, ())
                    name = self.checkpoint.mapping.name(spec, self.values)
                    yield FoundTensor(name, canonical, dimensions, layer, module.when is not None)


def require_labels(given: tuple[str, ...] | None, shown: Evidence) -> None:
    """Check that labels, if any are given, are as many as a head has.

    Raises:
        ConfigError: They are more, or less.
    """
    if given is not None and len(given) != shown.value:
        raise ConfigError(
            f"the labels given are {len(given)}, but {shown.tensor} shows {shown.value}",
            hint=f"name {shown.value} labels in the order of the training, or leave them out",
        )


def _refuse_contradictions(evidence: Mapping[str, Evidence], claims: Claims, file: str) -> None:
    problems = []
    for field, claim in claims.items():
        shown = evidence.get(field)
        if shown is not None and shown.value != claim.value:
            how = "" if claim.origin == field else f" ({claim.origin})"
            problems.append(f"{field}: {file} says {claim.value}{how}, but {shown.tensor} shows {shown.value}")
    if problems:
        raise ConfigError(
            f"{file} contradicts the tensors of the checkpoint",
            problems=problems,
            hint="give the config this checkpoint was trained with, or leave --config out",
        )


def _settle(
    evidence: Mapping[str, Evidence], claims: Claims, file: str, labels: tuple[str, ...] | None
) -> tuple[ElectraConfig, dict[str, str]]:
    """Put a config together: shapes first, then the file, then Google's rule."""
    fields: dict[str, Any] = {field: shown.value for field, shown in evidence.items() if field != "num_labels"}
    origins = {field: shown.tensor for field, shown in evidence.items()} | dict.fromkeys(UNPROVEN, ASSUMED)
    for field in set(claims) & set(UNPROVEN):
        fields[field], origins[field] = claims[field].value, f"{file}: {claims[field].origin}"
    fields.setdefault("num_attention_heads", heads_by_rule(fields["hidden_size"]))
    if labels is not None:
        fields["labels"] = labels
    try:
        return ElectraConfig(**fields), origins
    except ConfigError as error:
        hint = f"correct {file}" if file else "say what the model was trained with: --config FILE"
        raise ConfigError(error.message, problems=error.problems, hint=hint) from error
