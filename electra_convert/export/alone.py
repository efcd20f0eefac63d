"""Load an export with the framework's library alone, and run it: `python -P alone.py keras JOB.json`.

It stands for the program of somebody who has neither this package nor transformers: both are barred. So nothing is
imported here but the framework, NumPy and the standard library. The job is an object of `model`, the export; `probes`,
a file of inputs as `parity/probes.py` writes them; `out`, the folder for what is computed, `<probe>.<output>.npy`; and
`most`, the positions whose outputs are kept where they are wide, as `parity/worker.py` keeps them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

BARRED = ("electra_convert", "transformers")
FIELDS = ("input_ids", "attention_mask", "token_type_ids")


def orbax(job: Mapping[str, Any]) -> None:
    """Restore a tree; write its leaves, and their paths to `names.json`."""
    import numpy as np
    import orbax.checkpoint as ocp

    names = []
    for number, (name, leaf) in enumerate(leaves(ocp.StandardCheckpointer().restore(job["model"]))):
        names.append(name)
        np.save(Path(job["out"]) / f"{number}.npy", np.asarray(leaf))
    (Path(job["out"]) / "names.json").write_text(json.dumps(names))


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree with their paths."""
    if not isinstance(node, dict):
        yield path, node
        return
    for key, child in node.items():
        yield from leaves(child, f"{path}/{key}" if path else key)


def keras(job: Mapping[str, Any]) -> None:
    """Run a Keras model."""
    import keras

    model = keras.models.load_model(job["model"])
    run(lambda inputs: model(inputs, training=False), job)


def saved_model(job: Mapping[str, Any]) -> None:
    """Run a SavedModel by its serving signature."""
    import tensorflow as tf

    loaded = tf.saved_model.load(job["model"])
    serve = loaded.signatures["serving_default"]
    run(lambda inputs: serve(**{name: tf.constant(array) for name, array in inputs.items()}), job)


def run(model: Callable[[dict[str, Any]], Mapping[str, Any]], job: Mapping[str, Any]) -> None:
    """Run a model on every probe, and write its outputs."""
    import numpy as np

    with np.load(job["probes"]) as arrays:
        for number in range(len(arrays.files) // len(FIELDS)):
            outputs = model({field: arrays[f"{number}.{field}"] for field in FIELDS})
            for name, output in outputs.items():
                np.save(Path(job["out"]) / f"{number}.{name}.npy", kept(np.asarray(output), job["most"]))


def kept(array: Any, most: int) -> Any:
    """Return the outputs at evenly spread positions, if they are wide: `[B, S, V]`."""
    if array.ndim < 3 or array.shape[-1] < most:
        return array
    return array[:, :: -(-array.shape[0] * array.shape[1] // most)]


if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(BARRED))  # type: ignore[arg-type]  # None: importing it fails
    {"orbax": orbax, "keras": keras, "saved_model": saved_model}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
