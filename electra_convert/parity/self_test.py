"""Check the checker: damage a tiny model, one fault at a time, and see that every fault is caught.

The model is made here: a Google checkpoint of both parts, every tensor off its starting value, so that each fault
changes bytes; one that does not is an error of this test, not a pass.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from electra_convert.config import ElectraConfig
from electra_convert.convert import convert_checkpoint
from electra_convert.errors import OptionError
from electra_convert.formats import FRAMEWORKS, Contents, TargetFormat, module_of, read_weights
from electra_convert.formats.google_tf1 import write_checkpoint
from electra_convert.inventory import PARTS, Part, TensorSpec
from electra_convert.mapping import Mappings, load_mappings
from electra_convert.models.files import CONFIG_FILE, read_json
from electra_convert.options import ConvertOptions
from electra_convert.output import scratch_folder
from electra_convert.parity.directories import Directory, find_directories
from electra_convert.parity.gates import gates
from electra_convert.parity.heads import Found, Subject, run_heads
from electra_convert.parity.known import KnownSource, open_source
from electra_convert.parity.probes import BUDGET
from electra_convert.parity.worker import Fault
from electra_convert.parity.workers import EXTRAS, installed, running
from electra_convert.plan import RECORD_FILE
from electra_convert.progress import Progress, no_progress
from electra_convert.tensor import Tensor

if TYPE_CHECKING:
    from electra_convert.tensor import Array

CONFIG = ElectraConfig(
    vocab_size=67,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=16,
)
"""Both parts: both project, so that one's projection can be taken for the other's."""
NATIVE: dict[Part, str] = {"discriminator": "pretraining", "generator": "masked_lm"}
NUDGE = 1e-3
SPREAD = 0.3
"""Standard deviation of the values: large enough that activations and softmaxes are far from linear."""

Weights = dict[str, "Array"]
"""The tensors of a model by canonical name."""


@dataclass(frozen=True)
class Case:
    """One fault in one head in one format.

    Args:
        fault: What is done.
        where: To which tensor, or part of the model.
        directory: The directory it is done to a copy of.
        framework: The format it is done in.
        damage: Changes the weights; they are not changed if there is none.
        config: Fields of `config.json` to change.
        code: A fault to put into the model's code.
        dropped: Tensors to leave out.
    """

    fault: str
    where: str
    directory: Directory
    framework: TargetFormat
    damage: Callable[[Weights], Weights] | None = None
    config: dict[str, Any] | None = None
    code: Fault | None = None
    dropped: tuple[str, ...] = ()


class CaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """What caught one fault.

    Args:
        fault: What was done.
        where: To which tensor, or part of the model.
        head: In which head.
        framework: In which format.
        caught_by: The checks that failed: `round trip`, `config`, `loading`, `float64`, `float32`.
        needed: The multiple of each gate that would have let it pass, by precision.
    """

    fault: str
    where: str
    head: str
    framework: TargetFormat
    caught_by: tuple[str, ...]
    needed: dict[str, float]


class SelfTestReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the self-test found.

    Args:
        passed: Whether the undamaged model passed, and every fault was caught.
        cases: What caught each fault.
        undamaged: What is wrong with the undamaged model; empty if it passed.
        frameworks: The frameworks that took part.
        seconds: How long it took.
    """

    passed: bool
    cases: tuple[CaseReport, ...]
    undamaged: tuple[str, ...]
    frameworks: tuple[TargetFormat, ...]
    seconds: float


def self_test(
    *, frameworks: Sequence[TargetFormat] = (), every: int = 1, progress: Progress = no_progress
) -> SelfTestReport:
    """Damage a tiny model in every way, and see what catches it.

    Args:
        frameworks: The frameworks to run; none means all.
        every: Take one fault of a single tensor in so many; the faults of a whole model are always taken.
        progress: Shows progress.

    Raises:
        OptionError: A framework is not installed.
        AssertionError: A fault changes nothing.
    """
    wanted = tuple(target for target in FRAMEWORKS if not frameworks or target in frameworks)
    if absent := [target for target in wanted if not installed(target)]:
        raise OptionError(
            f"the self-test needs {' and '.join(absent)}, not installed here",
            hint=f'install it: pip install "electra-convert[{",".join(EXTRAS[name] for name in absent)}]", or name '
            "others with --frameworks",
        )
    began = time.monotonic()
    with scratch_folder() as folder:
        undamaged, cases = _SelfTest(folder, load_mappings(), wanted, every).run(progress)
    passed = not undamaged and bool(cases) and all(case.caught_by for case in cases)
    return SelfTestReport(
        passed=passed, cases=cases, undamaged=undamaged, frameworks=wanted, seconds=time.monotonic() - began
    )


@dataclass(frozen=True)
class _SelfTest:
    folder: Path
    mappings: Mappings
    frameworks: Sequence[TargetFormat]
    every: int

    def run(self, progress: Progress) -> tuple[tuple[str, ...], tuple[CaseReport, ...]]:
        """Return what is wrong with the undamaged model, and what caught each fault."""
        source, out = self.folder / "source", self.folder / "out"
        make_tiny_checkpoint(source, self.mappings)
        convert_checkpoint(source, out, ConvertOptions(part="both", targets=tuple(self.frameworks)))
        directories = find_directories(out, self.mappings.inventory)
        options: dict[str, Any] = {
            "source": source,
            "step": None,
            "config": None,
            "budget": BUDGET,
            "progress": no_progress,
        }
        with open_source(directories, self.mappings, **options) as known, running(self.frameworks) as workers:
            assert known is not None  # noqa: S101  # the source is named
            cases = [*list(self._tensor_cases(directories))[:: self.every], *self._model_cases(directories, known)]
            subjects = [known.subject(each, each.record) for each in directories if each.record is not None]
            with progress("undamaged", len(subjects) * 2 * len(self.frameworks), unit="models") as advance:
                runs = run_heads(subjects, workers, (), gates(), self.folder / "undamaged", advance)
                undamaged = tuple(
                    f"{found.subject.directory.head}: {', '.join(caught)}"
                    for found in runs
                    if (caught := _caught(found))
                )
            with progress("damaged", len(cases) * 2, unit="models") as advance:
                damaged = (self._damaged(number, case, known) for number, case in enumerate(cases))
                found = run_heads(damaged, workers, (), gates(), self.folder / "runs", advance, ahead=len(workers))
                return undamaged, tuple(_report(case, each) for case, each in zip(cases, found, strict=True))

    def _tensor_cases(self, directories: Sequence[Directory]) -> Iterator[Case]:
        """Yield every fault of every tensor: all of one native head's model, and what each other head adds to it."""
        for directory in directories:
            assert directory.record is not None  # noqa: S101  # just converted
            native = NATIVE[directory.record.part] == directory.head
            whole = native and directory.record.part == "discriminator"
            for spec in self._specs(directory.head, own=not whole):
                for fault, damage in tensor_faults(spec, drawn=not native):
                    for framework in self.frameworks:  # they take turns, so that all are busy
                        yield Case(fault, spec.name, directory, framework, damage)

    def _model_cases(self, directories: Sequence[Directory], known: KnownSource) -> Iterator[Case]:
        """Yield the faults of a whole model, in the discriminator's native head."""
        other_projection = self._other_projection(known)
        for directory in directories:
            if directory.record and (directory.record.part, directory.head) == ("discriminator", "pretraining"):
                for framework in self.frameworks:
                    yield from _model_faults(directory, framework, other_projection)

    def _other_projection(self, known: KnownSource) -> Weights:
        generator = known.checkpoint.understand(["generator"])["generator"]
        canonical = generator.canonical(known.files.tensors)
        return {name: canonical[name].load() for name in canonical if name.startswith("embeddings.project.")}

    def _specs(self, head: str, *, own: bool) -> list[TensorSpec]:
        """Return the tensors of a head: all of them, or those it adds to the backbone."""
        inventory = self.mappings.inventory
        backbone = [] if own else inventory.backbone_tensors(CONFIG)
        return [*backbone, *inventory.head_tensors(head, CONFIG)]

    def _damaged(self, number: int, case: Case, known: KnownSource) -> Subject:
        """Damage a copy, and return it as it is to be run."""
        path = self.folder / "damaged" / str(number)
        path.mkdir(parents=True)
        for name in (CONFIG_FILE, RECORD_FILE, module_of(case.framework).SINGLE):
            shutil.copyfile(case.directory.path / name, path / name)
        before = [file.read_bytes() for file in sorted(path.iterdir())]
        self._damage(path, case)
        after = [file.read_bytes() for file in sorted(path.iterdir())]
        assert case.code or before != after, f"{case.fault} of {case.where} changes nothing"  # noqa: S101  # an error of this test
        directory = msgspec.structs.replace(case.directory, path=path, formats=(case.framework,))
        assert directory.record is not None  # noqa: S101
        subject = known.subject(directory, directory.record)
        return Subject(directory, subject.probes, subject.reference, subject.checks, case.code)

    def _damage(self, path: Path, case: Case) -> None:
        if case.config:
            said = read_json(path / CONFIG_FILE) | case.config
            (path / CONFIG_FILE).write_text(json.dumps(said))
        if case.damage or case.dropped:
            self._rewrite(path, case)

    def _rewrite(self, path: Path, case: Case) -> None:
        """Write the weights of a directory again, damaged."""
        head, target = case.directory.head, case.framework
        mapping, module = self.mappings.formats[target], module_of(target)
        specs = self._specs(head, own=False)
        bindings = mapping.bind(specs, mapping.resolve({"head": head, "layout": "single"}))
        held = read_weights(path, target)
        weights = {
            tensor.name: tensor.load().copy() for binding in bindings for tensor in binding.unpack(held[binding.name])
        }
        damaged = case.damage(weights) if case.damage else weights
        canonical = {name: _tensor(name, values) for name, values in damaged.items()}
        packed = [binding.pack(canonical) for binding in bindings]
        kept = [
            tensor
            for tensor, binding in zip(packed, bindings, strict=True)
            if binding.specs[0].name not in case.dropped
        ]
        architecture = self.mappings.inventory.heads[self.mappings.inventory.origin(head)].architecture
        (path / module.SINGLE).unlink()
        module.write(path / module.SINGLE, Contents(kept, "float32", architecture), lambda _: None)


def tensor_faults(spec: TensorSpec, *, drawn: bool) -> Iterator[tuple[str, Callable[[Weights], Weights]]]:
    """Yield the faults one tensor can have, each with what it does to the weights.

    Args:
        spec: The tensor.
        drawn: It was drawn, so that a bias is zero, which some faults leave as it is.
    """
    import numpy as np

    def changed(change: Callable[[Array], Array]) -> Callable[[Weights], Weights]:
        return lambda weights: weights | {spec.name: change(weights[spec.name])}

    yield "one element nudged", changed(_nudged)
    if drawn and spec.leaf == "bias":
        return
    yield "negated", changed(np.negative)
    yield "zeroed", changed(np.zeros_like)
    if not (drawn and spec.leaf == "scale"):
        yield "rounded to float16", changed(lambda values: values.astype(np.float16).astype(np.float32))
    if len(spec.shape) == 2 and spec.shape[0] == spec.shape[1]:
        yield "transposed", changed(lambda values: values.T.copy())
    if spec.layer is not None:
        twin = spec.row.format(layer=(spec.layer + 1) % CONFIG.num_hidden_layers) + f".{spec.leaf}"
        yield "swapped with its twin in another layer", lambda weights: _exchanged(weights, [(spec.name, twin)])


def _model_faults(directory: Directory, framework: TargetFormat, other_projection: Weights) -> Iterator[Case]:
    """Yield the faults of a whole model."""
    query_and_key = [
        (f"layer.{layer}.attention.query.{leaf}", f"layer.{layer}.attention.key.{leaf}")
        for layer in range(CONFIG.num_hidden_layers)
        for leaf in ("kernel", "bias")
    ]

    def case(fault: str, where: str, **what: Any) -> Case:
        return Case(fault, where, directory, framework, **what)

    yield case("query and key exchanged", "every layer", damage=lambda weights: _exchanged(weights, query_and_key))
    yield case("rows shifted by one", "embeddings.position.table", damage=_shifted)
    yield case("wrong head count", CONFIG_FILE, config={"num_attention_heads": 2 * CONFIG.num_attention_heads})
    yield case("epsilon 1e-5", CONFIG_FILE, config={"layer_norm_eps": 1e-5})
    yield case("tanh-GELU", "the model's code", code="tanh_gelu")
    yield case("the other part's projection", "embeddings.project", damage=lambda weights: weights | other_projection)
    yield case("a bias dropped", "layer.1.ffn.up.bias", dropped=("layer.1.ffn.up.bias",))
    yield case("rounded to float16", "every tensor", damage=_rounded)


def _nudged(values: Array) -> Array:
    nudged = values.copy()
    nudged.reshape(-1)[values.size // 2] += NUDGE
    return nudged


def _exchanged(weights: Weights, pairs: Sequence[tuple[str, str]]) -> Weights:
    exchanged = dict(weights)
    for one, other in pairs:
        exchanged[one], exchanged[other] = weights[other], weights[one]
    return exchanged


def _shifted(weights: Weights) -> Weights:
    import numpy as np

    name = "embeddings.position.table"
    return weights | {name: np.roll(weights[name], 1, axis=0)}


def _rounded(weights: Weights) -> Weights:
    import numpy as np

    return {name: values.astype(np.float16).astype(np.float32) for name, values in weights.items()}


def _report(case: Case, found: Found) -> CaseReport:
    return CaseReport(
        fault=case.fault,
        where=case.where,
        head=case.directory.head,
        framework=case.framework,
        caught_by=tuple(_caught(found)),
        needed={run.precision: run.needed for run in found.runs if run.arrays},
    )


def _caught(found: Found) -> list[str]:
    """Return the checks that failed."""
    checks = [check.name for check in found.subject.checks if not check.passed]
    failed = [run for run in found.runs if run.outcome == "failed"]
    runs = [run.precision if run.arrays else "loading" for run in failed]
    return list(dict.fromkeys([*checks, *runs]))


def make_tiny_checkpoint(directory: Path, mappings: Mappings) -> None:
    """Write a Google checkpoint of both parts, every tensor of it off its starting value."""
    tensors: dict[str, Tensor] = {}
    mapping, inventory = mappings.formats["google_tf1"], mappings.inventory
    names = ("generator/", "electra/", "generator_predictions/", "discriminator_predictions/")
    for part in PARTS:
        specs = inventory.tensors(NATIVE[part], CONFIG)
        canonical = {spec.name: _tensor(spec.name, _values(spec, part)) for spec in specs}
        for binding in mapping.bind(specs, mapping.resolve({"part": part}, names)):
            tensors.setdefault(binding.name, binding.pack(canonical))
    directory.mkdir(parents=True)
    write_checkpoint(directory / "model.ckpt-1", sorted(tensors.values(), key=lambda tensor: tensor.name))


def _values(spec: TensorSpec, part: Part) -> Array:
    """Draw values that no tensor starts with."""
    import numpy as np

    random = np.random.default_rng([*spec.name.encode(), PARTS.index(part)])
    center = 1.0 if spec.leaf == "scale" else 0.0
    return (center + SPREAD * random.standard_normal(spec.shape)).astype(np.float32)


def _tensor(name: str, values: Array) -> Tensor:
    return Tensor(name, values.shape, str(values.dtype), lambda: values)
