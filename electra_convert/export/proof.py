"""Whether an export computes what the model computes: loaded by its library alone, run on probes, compared.

What is right, the package's reference model computes in float64 on the model's own directory; the export computes in
float32, and passes the gate of `parity/gates.yaml` or does not. Orbax holds values and no graph: they are compared bit
for bit, and run in the reference model of Flax.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from electra_convert.child import LAST_WORDS
from electra_convert.errors import ExportError
from electra_convert.export.model import named_tensors, specs_of
from electra_convert.export.report import Agreement
from electra_convert.export.targets import ExportTarget
from electra_convert.formats import TARGETS, TargetFormat
from electra_convert.mapping import Mappings
from electra_convert.model_directory import ModelDirectory
from electra_convert.models.files import save_model
from electra_convert.parity.compare import OUTPUTS, Comparison, Computed
from electra_convert.parity.gates import gates
from electra_convert.parity.heads import stopped
from electra_convert.parity.probes import Probe, save_probes
from electra_convert.parity.report import ArrayResult, Precision
from electra_convert.parity.worker import MOST_POSITIONS, Job
from electra_convert.parity.workers import environment, installed, running
from electra_convert.report.words import figure, place

if TYPE_CHECKING:
    from electra_convert.tensor import Array

ALONE = Path(__file__).with_name("alone.py")
HEAD_DEPTH = 2
"""How much deeper the outputs of a head are than the number of layers (`parity/gates.yaml`)."""


@dataclass(frozen=True)
class Proof:
    """What one model computes, and the exports of it that are held to it.

    Args:
        model: The model.
        mappings: The mappings.
        probes: The probes.
        scratch: A folder for what models compute.
    """

    model: ModelDirectory
    mappings: Mappings
    probes: Sequence[Probe]
    scratch: Path

    def start(self) -> TargetFormat:
        """Compute what is right; return the framework that did.

        Raises:
            ExportError: The reference model cannot be run.
        """
        framework, directory = self._reference()
        save_probes(self.scratch / "probes.npz", self.probes)
        save_probes(self.scratch / "shaped.npz", [_shaped(probe, self.model.head) for probe in self.probes])
        if fault := self._run(framework, directory, "float64", "reference"):
            raise ExportError(
                f"{self.model.path} cannot be run, so that there is nothing to compare an export with: {fault}",
                hint="`electra-convert verify` says more of it",
            )
        return framework

    def compare(self, target: ExportTarget, exported: Path) -> tuple[list[Agreement], list[str]]:
        """Load an export and compare it; return how far its outputs are, and what is wrong."""
        fault = self._load(target, exported)
        if not fault and target == "orbax":
            problems = [*self._tree_faults()]
            fault = "; ".join(problems) or self._run_tree()
        if fault:
            return [], [f"{target}: {fault}"]
        found = self._compared(self.scratch / target)
        problems = [*found.problems, *(_told(result) for result in found.arrays.values() if not result.passed)]
        if not found.arrays and not problems:
            problems = ["nothing was compared"]
        return [_agreement(result) for result in found.arrays.values()], [f"{target}: {each}" for each in problems]

    def _reference(self) -> tuple[TargetFormat, Path]:
        """Return the framework that computes what is right, and what it reads: the model's own files if it can."""
        own = next((each for each in (self.model.target, *self.model.others) if installed(each)), None)
        repeated = len(self.model.tensors) > len(
            specs_of(self.model, self.mappings)
        )  # a tied one, which no model loads
        if own is not None and not repeated:
            return own, self.model.path
        framework = next(each for each in TARGETS if installed(each))  # the targets need one
        directory = self.scratch / "model"
        self._save(directory, framework, dict(named_tensors(self.model, self.mappings, framework)))
        return framework, directory

    def _run(self, framework: TargetFormat, directory: Path, precision: Precision, name: str) -> str:
        """Run a reference model on the probes; return what went wrong."""
        out = self.scratch / name
        out.mkdir(exist_ok=True)
        job = Job(
            directory=directory.absolute(),
            head=self.model.head,
            precision=precision,
            probes=self.scratch / "probes.npz",
            out=out,
        )
        with running([framework]) as workers:
            answer = workers[framework].submit(job).result()
        if answer.stopped:
            raise stopped(answer.error)
        return answer.error.strip().rpartition("\n")[2] if "Traceback" in answer.error else answer.error

    def _load(self, target: ExportTarget, exported: Path) -> str:
        """Load and run an export in a process of its library alone; return what went wrong."""
        out = self.scratch / ("tree" if target == "orbax" else target)
        out.mkdir()
        job = {
            "model": str(exported.absolute()),
            "probes": str(self.scratch / "shaped.npz"),
            "out": str(out),
            "most": MOST_POSITIONS,
        }
        file = self.scratch / f"{target}.json"
        file.write_text(json.dumps(job), "utf-8")
        return run_alone(target, file)

    def _tree_faults(self) -> Iterator[str]:
        """Yield what differs in a restored tree, bit for bit."""
        restored = self._restored()
        for name, values in named_tensors(self.model, self.mappings, "flax"):
            got = restored.pop(name, None)
            if got is None:
                yield f"{name} is missing in the tree that was restored"
            elif got.dtype != values.dtype or got.shape != values.shape or got.tobytes() != values.tobytes():
                yield f"{name} is restored with other values"
        yield from (f"{name} is unexpected in the tree that was restored" for name in restored)

    def _run_tree(self) -> str:
        """Run the reference model of Flax on a restored tree; return what went wrong."""
        self._save(self.scratch / "flax", "flax", self._restored())
        return self._run("flax", self.scratch / "flax", "float32", "orbax")

    def _restored(self) -> dict[str, Array]:
        import numpy as np

        names = json.loads((self.scratch / "tree" / "names.json").read_text("utf-8"))
        return {
            name: np.load(self.scratch / "tree" / f"{number}.npy", mmap_mode="r") for number, name in enumerate(names)
        }

    def _save(self, directory: Path, target: TargetFormat, tensors: dict[str, Array]) -> None:
        save_model(directory, target, self.model.head, self.model.config, tensors)

    def _compared(self, got: Path) -> Comparison:
        comparison = Comparison(gates(), "float32")
        depth = self.model.config.num_hidden_layers + HEAD_DEPTH
        for number, probe in enumerate(self.probes):
            right, found = (_outputs(folder, number, depth) for folder in (self.scratch / "reference", got))
            comparison.add(probe.name, right, found)
        return comparison


def run_alone(target: ExportTarget, job: Path) -> str:
    """Run `alone.py`; return what went wrong: the last of what it wrote to stderr."""
    with tempfile.TemporaryFile() as words:
        code = subprocess.run(  # noqa: S603  # our own script
            [sys.executable, "-P", str(ALONE), target, str(job)],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            check=False,
            env={**os.environ, **environment(os.cpu_count() or 1)},
        ).returncode
        words.seek(0)
        said = words.read().decode(errors="replace").strip()[-LAST_WORDS:]
    if not code:
        return ""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"it cannot be loaded and run: {said.rpartition(chr(10))[2] or how}"


def _shaped(probe: Probe, head: str) -> Probe:
    """Return a probe as the exported model takes it: for multiple choice, its rows are the choices of one question."""
    if head != "multiple_choice":
        return probe
    return Probe(probe.name, probe.says, *(array[None] for array in probe.inputs.values()))


def _outputs(folder: Path, number: int, depth: int) -> list[Computed]:
    import numpy as np

    places = {name: folder / f"{number}.{name}.npy" for name in OUTPUTS}
    return [Computed(name, depth, np.load(path, mmap_mode="r")) for name, path in places.items() if path.exists()]


def _told(result: ArrayResult) -> str:
    worst = result.worst
    if not math.isfinite(worst.expected):
        return f"the model itself computes {worst.expected} in {result.array}: its values are no finite numbers"
    return (
        f"{result.array} differs by {figure(result.difference)} on the probe {result.probe}, at {place(worst)}: "
        f"{worst.got:.6g} where {worst.expected:.6g} is right; rounding makes at most {figure(result.limit)}"
    )


def _agreement(result: ArrayResult) -> Agreement:
    return Agreement(output=result.array, difference=result.difference, limit=result.limit, elements=result.elements)
