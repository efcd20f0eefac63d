"""What models are measured against: the oracle on a checkpoint, or, in an audit, one of the frameworks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from electra_convert.config import ElectraConfig
from electra_convert.errors import ElectraConvertError, OptionError
from electra_convert.formats import TargetFormat
from electra_convert.inventory import Part
from electra_convert.parity.probes import Probe
from electra_convert.parity.worker import Answer, Job, kept, write_outputs
from electra_convert.parity.workers import Worker
from electra_convert.tensor import Tensor

if TYPE_CHECKING:
    from electra_convert.models.google import Oracle
    from electra_convert.tensor import Array

CAUSAL_HEADS = ("causal_lm",)
DRIFT_LENGTH = 7
"""Length of the probe on which the effect of a lower dtype is shown."""


def require_oracle() -> None:
    """Check that the oracle can be imported.

    Raises:
        OptionError: SciPy is missing.
    """
    from importlib.util import find_spec

    if find_spec("scipy") is None:
        raise OptionError(
            "the oracle needs SciPy, for NumPy has no error function",
            hint='install it: pip install "electra-convert[verify]"',
        )


class Reference(Protocol):
    """Computes what is right, for one head after another."""

    def start(self, directory: Path, head: str, probes: Path, out: Path) -> Future[Answer]:
        """Begin to write the reference outputs of a head to `out`."""


@dataclass(frozen=True)
class OracleReference:
    """Google's graph on one part of a checkpoint.

    Args:
        variables: The variables of the checkpoint, by Google's name.
        config: The part's config.
        part: The part.
        probes: The probes.
        cast: The dtype of the files, where it is not float32: the oracle then runs on the cast values.
        seed: The seed of the heads that were drawn.
        turn: The thread it computes in.
        task: Name and head of the fine-tuned task that supplies a head, if one does.
        given: The head of a model that Google's graph has not, by canonical name.
    """

    variables: Mapping[str, Tensor]
    config: ElectraConfig
    part: Part
    probes: Sequence[Probe]
    cast: str | None
    seed: int
    turn: ThreadPoolExecutor
    task: tuple[str, str] | None = None
    given: Mapping[str, Tensor] | None = None
    _states: dict[tuple[int, bool], Sequence[Array]] = field(default_factory=dict)

    @cached_property
    def oracle(self) -> Oracle:
        """The oracle, in float64."""
        return self.variant(self.config, cast=self.cast)

    def variant(self, config: ElectraConfig, *, cast: str | None) -> Oracle:
        """Return the oracle on another config, or on the values before a cast."""
        from electra_convert.models.google import Oracle, TaskHead

        task = TaskHead(*self.task) if self.task else None
        return Oracle(
            self.variables,
            config,
            part=self.part,
            dtype="float64",
            cast=cast,
            seed=self.seed,
            task=task,
            given=self.given,
        )

    def start(self, directory: Path, head: str, probes: Path, out: Path) -> Future[Answer]:  # noqa: ARG002
        """Begin to write what Google's graph computes."""
        return self.turn.submit(self._write, head, out)

    def drift(self, head: str) -> float:
        """Return how far the head's outputs are from those on the values before the cast, on a short probe."""
        import numpy as np

        probe = min(self.probes, key=lambda each: abs(each.input_ids.shape[1] - DRIFT_LENGTH))
        (_, cast), (_, uncast) = (
            oracle.run(head, _inputs(probe)) for oracle in (self.oracle, self.variant(self.config, cast=None))
        )
        return max(float(np.abs(cast[name] - uncast[name]).max()) for name in cast)

    def _write(self, head: str, out: Path) -> Answer:
        try:
            for number, probe in enumerate(self.probes):
                write_outputs(out, number, self.compute(self.oracle, head, number, probe))
        except ElectraConvertError as error:
            return Answer(error=str(error))
        except OSError as error:
            return Answer(error=str(error), stopped=True)
        return Answer()

    def compute(self, oracle: Oracle, head: str, number: int, probe: Probe) -> dict[str, Array]:
        """Return what an oracle computes on one probe, in the shape the models give it."""
        import numpy as np

        states = self._hidden_states(oracle, number, probe, causal=head in CAUSAL_HEADS)
        outputs = oracle.outputs(head, states)
        if head == "multiple_choice":
            outputs = {name: array[None] for name, array in outputs.items()}
        return {"hidden_states": np.stack(states)} | {name: kept(array) for name, array in outputs.items()}

    def _hidden_states(self, oracle: Oracle, number: int, probe: Probe, *, causal: bool) -> Sequence[Array]:
        """Return the hidden states; all heads but the causal one have the same."""
        if oracle is not self.oracle:
            return oracle.hidden_states(_inputs(probe), causal=causal)
        if (number, causal) not in self._states:
            self._states[number, causal] = oracle.hidden_states(_inputs(probe), causal=causal)
        return self._states[number, causal]


@dataclass(frozen=True)
class FrameworkReference:
    """A framework in float64, where no checkpoint is known.

    Args:
        framework: The framework.
        worker: Its process.
    """

    framework: TargetFormat
    worker: Worker

    def start(self, directory: Path, head: str, probes: Path, out: Path) -> Future[Answer]:
        """Begin to write what the framework computes."""
        return self.worker.submit(Job(directory=directory, head=head, precision="float64", probes=probes, out=out))


def _inputs(probe: Probe) -> Any:
    from electra_convert.models.google import Inputs

    return Inputs(probe.input_ids, probe.attention_mask, probe.token_type_ids)
