"""A model that is small enough to be run often, and has every shape that is different from another."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from electra_convert.config import ElectraConfig

CONFIG = ElectraConfig(
    vocab_size=101,
    embedding_size=16,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=40,
    labels=("a", "b", "c"),
)


def build_tensorflow(head: str, dtype: str = "float32", **changes: Any) -> Any:
    """Build a small model of TensorFlow, with values that are far from the first ones."""
    from electra_convert.models import tensorflow as models

    model: Any = models.MODELS[head](msgspec.structs.replace(CONFIG, **changes), dtype=dtype)
    draw = np.random.default_rng(0)
    for _, variable in sorted(models.parameters(model).items()):
        variable.assign(np.asarray(variable) + draw.normal(0, 0.3, variable.shape))
    return model
