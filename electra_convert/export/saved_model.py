"""SavedModel: the graph of the Keras model, with the signature `serving_default`, for any batch and length.

Its parameters are in it once, as `<layer>/<parameter>` of `model.keras`. The same model is the same
bytes, but for `fingerprint.pb`, which TensorFlow draws anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from electra_convert.export.keras import build_model
from electra_convert.mapping import Mappings
from electra_convert.model_directory import ModelDirectory


def write(model: ModelDirectory, mappings: Mappings, place: Path) -> None:  # noqa: ARG001  # the same verb in each
    """Write a model.

    Args:
        model: The model.
        mappings: The mappings.
        place: The folder; it must not exist.
    """
    built = build_model(model)

    def serve(input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        return built(inputs, training=False)

    signature = [tf.TensorSpec(each.shape, tf.int32, name) for name, each in built.input.items()]
    function = tf.function(serve, input_signature=signature, autograph=False)
    tf.saved_model.save(_parameters(built), str(place), signatures={"serving_default": function})


def _parameters(built: Any) -> Any:
    """Return the parameters of a Keras model as a tree: Keras' own export of it writes each of them twice."""
    root = tf.Module()
    for variable in built.trainable_variables:
        layer, _, parameter = variable.path.partition("/")
        if not hasattr(root, layer):
            setattr(root, layer, tf.Module())
        setattr(getattr(root, layer), parameter, variable.value)
    return root
