"""What an ELECTRA model is, in numbers: the sizes, and what no tensor shows.

The sizes follow from the shapes in a checkpoint. The head count, the activation, the epsilon of the layer
norms and the casing are in no tensor: they come from a config file, or from the rule of Google's code, and
what came from the rule is *assumed* and said so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from electra_convert.errors import ConfigError

Activation = Literal["gelu", "relu", "tanh", "linear"]
"""The activations Google's code knows (`model/modeling.py`, `get_activation`); its GELU is the exact one."""

DIMENSIONS = (
    "vocab_size",
    "embedding_size",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "num_labels",
)
"""The fields that are lengths of axes."""

LABELLED_HEADS = ("sequence_classification", "token_classification")
"""The heads with one output for each label."""


_NUMBER_RULES: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("layer_norm_eps", "greater than 0", lambda value: value > 0),
    ("initializer_range", "0 or greater", lambda value: value >= 0),
    ("hidden_dropout_prob", "at least 0 and less than 1", lambda value: 0 <= value < 1),
    ("attention_probs_dropout_prob", "at least 0 and less than 1", lambda value: 0 <= value < 1),
)


class ElectraConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The config of one part. Names and meanings are those of transformers' `config.json`.

    Args:
        vocab_size: Rows of the word table.
        embedding_size: Width of the embedding tables.
        hidden_size: Width of the encoder.
        num_hidden_layers: Layers of the encoder.
        num_attention_heads: Heads of each layer; `hidden_size` is a multiple of it.
        intermediate_size: Width between the two dense modules of a layer.
        hidden_act: Activation between them, and in the pretraining heads.
        hidden_dropout_prob: Dropout of embeddings and dense modules, in training.
        attention_probs_dropout_prob: Dropout of attention weights, in training.
        max_position_embeddings: Rows of the position table: the longest input, in tokens.
        type_vocab_size: Rows of the token type table.
        initializer_range: Deviation of first values.
        layer_norm_eps: Added to the variance in every layer norm.
        labels: Names of the outputs of the heads that have labels.
    """

    vocab_size: int
    embedding_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int = 3072
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")

    def __post_init__(self) -> None:
        counts = {field: getattr(self, field) for field in (*DIMENSIONS, "num_hidden_layers", "num_attention_heads")}
        problems = [f"{field} is {value}; it must be at least 1" for field, value in counts.items() if value < 1]
        if self.num_attention_heads > 0 and self.hidden_size % self.num_attention_heads:
            problems.append(
                f"num_attention_heads is {self.num_attention_heads}; it must divide hidden_size, {self.hidden_size}"
            )
        problems += (
            f"{field} is {value}; it must be {rule}"
            for field, rule, right in _NUMBER_RULES
            if not (math.isfinite(value := getattr(self, field)) and right(value))
        )
        if problems:
            raise ConfigError("this config describes no model", problems=problems)

    @property
    def projects_embeddings(self) -> bool:
        """Say whether a dense module takes the embeddings to the encoder's width."""
        return self.embedding_size != self.hidden_size

    @property
    def num_labels(self) -> int:
        """Number of outputs of the heads that have labels."""
        return len(self.labels)


def label_names(count: int) -> tuple[str, ...]:
    """Return the names that labels have when nobody gave any, as transformers spells them."""
    return tuple(f"LABEL_{index}" for index in range(count))


def head_config(config: ElectraConfig, *, head: str, architecture: str, pad_token_id: int) -> dict[str, Any]:
    """Return the `config.json` of one head, as every version of transformers reads it.

    Every size is written out, for transformers' defaults are those of electra-small. `id2label` is there only
    where the outputs are labels: question answering must have two, which is the default. `classifier_dropout`
    is left out: TensorFlow's sequence classification fails with any value. With one label, the
    classifier of sequences is a regressor.
    """
    fields = {field: getattr(config, field) for field in config.__struct_fields__ if field != "labels"}
    labels: dict[str, Any] = {}
    if head in LABELLED_HEADS:
        labels = {
            "id2label": {str(index): label for index, label in enumerate(config.labels)},
            "label2id": {label: index for index, label in enumerate(config.labels)},
        }
    if head == "sequence_classification" and config.num_labels == 1:
        labels["problem_type"] = "regression"
    return {
        "architectures": [architecture],
        "model_type": "electra",
        **fields,
        **labels,
        **({"is_decoder": True} if head == "causal_lm" else {}),
        "pad_token_id": pad_token_id,
        "position_embedding_type": "absolute",
        "summary_activation": "gelu",
        "summary_last_dropout": 0.1,
        "summary_type": "first",
        "summary_use_proj": True,
        "tie_word_embeddings": True,
    }
