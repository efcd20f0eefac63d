"""SavedModel: the Keras model's graph with the signature `serving_default`, for any batch and length.

Its variables are the same bytes each time; TensorFlow draws the identity in `fingerprint.pb` anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
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
    archive = keras.export.ExportArchive()
    archive.track(built)
    archive.add_endpoint("serving_default", serve, input_signature=signature)
    archive.write_out(str(place), verbose=False)
