"""A process that runs models of one framework: `python -m electra_convert.parity.worker pytorch`.

Jobs come as lines of JSON on stdin; each is answered by a line on stdout when its arrays are on disk. What anything
prints goes to stderr, so that it cannot be taken for an answer. A worker ends when stdin does.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from electra_convert.child import claim_answers
from electra_convert.errors import ElectraConvertError
from electra_convert.formats import TargetFormat
from electra_convert.parity.report import Precision

if TYPE_CHECKING:
    from electra_convert.tensor import Array

MOST_POSITIONS = 64
"""Positions of one probe whose logits over a vocabulary are kept; the head does the same at every position."""


Fault = Literal["tanh_gelu"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to run.

    Args:
        directory: The directory of the model.
        head: The head.
        precision: The dtype to compute in.
        probes: The file of the probes (`.npz`).
        out: The folder for what it computes: `<probe>.<array>.npy`.
        fault: A fault to put into the model's code, for the self-test.
    """

    directory: Path
    head: str
    precision: Precision
    probes: Path
    out: Path
    fault: Fault | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job.

    Args:
        error: What went wrong; empty if nothing did.
        stopped: It was the machine that failed, not the model: a full disk, say.
    """

    error: str = ""
    stopped: bool = False


def read_probes(path: Path) -> list[dict[str, Array]]:
    """Return the inputs of every probe in a file."""
    import numpy as np

    with np.load(path) as arrays:
        count = len(arrays.files) // 3
        fields = ("input_ids", "attention_mask", "token_type_ids")
        return [{field: arrays[f"{number}.{field}"] for field in fields} for number in range(count)]


def write_outputs(out: Path, number: int, outputs: Mapping[str, Array]) -> None:
    """Write what a model computed on one probe."""
    import numpy as np

    for name, array in outputs.items():
        np.save(out / f"{number}.{name}.npy", array)


def kept(logits: Array) -> Array:
    """Return the logits of a probe at evenly spread positions, if they are over a vocabulary: `[B, S, V]`."""
    if logits.ndim < 3 or logits.shape[-1] < MOST_POSITIONS:
        return logits
    return logits[:, :: stride(logits.shape[0] * logits.shape[1])]


def stride(positions: int) -> int:
    """Return every how many positions the logits over a vocabulary are kept."""
    return -(-positions // MOST_POSITIONS)


def run(model: Callable[[Mapping[str, Array]], Mapping[str, Any]], job: Job) -> None:
    """Run a model on every probe of a job.

    Args:
        model: Takes the inputs by name; returns its outputs by name, `hidden_states` as a sequence.
        job: The job.
    """
    import numpy as np

    for number, inputs in enumerate(read_probes(job.probes)):
        outputs = dict(model(_shaped(inputs, job.head)))
        states = [np.asarray(state) for state in outputs.pop("hidden_states")]
        arrays = {name: kept(np.asarray(array)) for name, array in outputs.items()}
        flat = [state.reshape(-1, *state.shape[-2:]) for state in states]
        write_outputs(job.out, number, {"hidden_states": np.stack(flat), **arrays})


def _shaped(inputs: Mapping[str, Array], head: str) -> Mapping[str, Array]:
    """Return a probe as its head takes it: for multiple choice, its rows are the choices of one question."""
    if head != "multiple_choice":
        return inputs
    return {name: array[None] for name, array in inputs.items()}


def pytorch(job: Job) -> None:
    """Run a PyTorch model."""
    import torch

    from electra_convert.models import pytorch as models

    with _gelu(models.ACTIVATIONS, job.fault, lambda x: torch.nn.functional.gelu(x, approximate="tanh")):
        model = models.MODELS[job.head].from_pretrained(job.directory, dtype=job.precision)

    def computed(inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        tensors = {name: torch.from_numpy(array).long() for name, array in inputs.items()}
        with torch.no_grad():
            return _named(model(**tensors, output_hidden_states=True))

    run(computed, job)


def tensorflow(job: Job) -> None:
    """Run a Keras model on the TensorFlow backend."""
    import tensorflow as tf

    from electra_convert.models import tensorflow as models

    with _gelu(models.ACTIVATIONS, job.fault, lambda x: tf.nn.gelu(x, approximate=True)):
        model = models.MODELS[job.head].from_pretrained(job.directory, dtype=job.precision)
    run(lambda inputs: _named(model(**inputs, output_hidden_states=True)), job)


def flax(job: Job) -> None:
    """Run a Flax model, eagerly: what is compiled for one head serves the others."""
    import jax

    jax.config.update("jax_enable_x64", True)  # noqa: FBT003  # JAX takes it so
    from electra_convert.models import flax as models

    with _gelu(models.ACTIVATIONS, job.fault, lambda x: jax.nn.gelu(x, approximate=True)):
        model = models.MODELS[job.head].from_pretrained(job.directory, dtype=job.precision)
    run(lambda inputs: _named(model(**inputs, output_hidden_states=True)), job)


@contextmanager
def _gelu(activations: dict[str, Any], fault: Fault | None, approximate: Callable[[Any], Any]) -> Iterator[None]:
    """Build models with an approximate GELU, if that is the fault."""
    exact = activations["gelu"]
    activations["gelu"] = approximate if fault == "tanh_gelu" else exact
    try:
        yield
    finally:
        activations["gelu"] = exact


def _named(outputs: Any) -> dict[str, Any]:
    """Return what a model computed, by name."""
    return {name: value for name, value in outputs._asdict().items() if value is not None}


RUNNERS: dict[TargetFormat, Callable[[Job], None]] = {"pytorch": pytorch, "tensorflow": tensorflow, "flax": flax}


def main(framework: TargetFormat) -> None:
    """Answer jobs until there are no more."""
    send = claim_answers()
    for line in sys.stdin.buffer:
        send(msgspec.json.encode(_answer(RUNNERS[framework], line)))


def _answer(runner: Callable[[Job], None], line: bytes) -> Answer:
    try:
        runner(msgspec.json.decode(line, type=Job, dec_hook=lambda kind, value: kind(value)))
    except ElectraConvertError as error:
        return Answer(error=str(error))
    except OSError as error:
        return Answer(error=str(error), stopped=True)
    except Exception:  # noqa: BLE001  # whatever a framework raises is an answer
        return Answer(error=traceback.format_exc())
    return Answer()


if __name__ == "__main__":
    main(sys.argv[1])  # the caller is `workers.py`
