"""Keras 3: `model.keras`, a functional model of Keras' own layers and operations, in float32.

It is read by `keras.models.load_model` with nothing but Keras, on any of its backends. The graph is that of
`electra_convert/models/tensorflow.py`; a layer is called as its module in `mappings/electra.yaml`, with `_` for each
dot. It trains, with dropout; each dropout has a seed of its own.

Shapes: B batch, C choices, S sequence (T where it is attended to), E embedding, H hidden, A attention heads,
D = H / A, V vocabulary. In `einsum`: b, c, s (t), h, a, d. Choices are there in the model of multiple choice alone.
"""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from electra_convert.errors import OptionError
from electra_convert.mapping import Mappings
from electra_convert.model_directory import ModelDirectory
from electra_convert.models.files import ARCHITECTURES

if TYPE_CHECKING:
    from electra_convert.tensor import Array

MASKED = -10000.0
"""What is added to attention scores where there is nothing to attend to (`modeling.py`, `attention_layer`)."""
METADATA_FILE = "metadata.json"
GRAPH_FILE = "config.json"
OPERATIONS = "keras.src.ops."
"""What the modules of operations, which are no layers, begin with."""
DATE = (1980, 1, 1, 0, 0, 0)
"""The date of every file in the archive, and of the archive: the earliest there is, so that the same model is the same
bytes."""


def write(model: ModelDirectory, mappings: Mappings, place: Path) -> None:  # noqa: ARG001  # the same verb in each
    """Write a model.

    Args:
        model: The model.
        mappings: The mappings.
        place: The file; it must not exist.
    """
    dated = place.with_name(f"dated-{place.name}")
    build_model(model).save(dated)
    _copy_archive(dated, place)
    dated.unlink()


def build_model(model: ModelDirectory) -> Any:
    """Return the functional model with its values.

    Raises:
        OptionError: Keras is too old for a language model's head.
    """
    build = _Build(model)
    shape = (None, None) if model.head == "multiple_choice" else (None,)
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {name: keras.Input(shape, dtype="int32", name=name) for name in names}
    outputs = HEADS[model.head](build, build.backbone(**inputs), inputs["input_ids"])
    return keras.Model(inputs, outputs, name=ARCHITECTURES[model.head])


class _Build:
    """The layers of one model.

    Args:
        model: The model.
    """

    def __init__(self, model: ModelDirectory) -> None:
        self.config = model.config
        self.tensors = model.tensors
        self.batch = "bc" if model.head == "multiple_choice" else "b"
        self.causal = model.head == "causal_lm"
        self._dropouts = 0
        self.words = self._word_table(reversible=model.head in ("masked_lm", "causal_lm"))

    # Layers, each with the values of its module

    def dense(self, x: Any, module: str, activation: str = "linear") -> Any:
        """Return activation(x @ kernel + bias)."""
        kernel, bias = self._values(module, "kernel", "bias")
        layer = keras.layers.Dense(kernel.shape[1], activation=activation, name=_spelt(module), dtype="float32")
        return _applied(layer, x, kernel, bias)

    def norm(self, x: Any, module: str) -> Any:
        """Return the layer norm."""
        epsilon = self.config.layer_norm_eps
        layer = keras.layers.LayerNormalization(epsilon=epsilon, name=_spelt(module), dtype="float32")
        return _applied(layer, x, *self._values(module, "scale", "bias"))

    def table(self, ids: Any, module: str) -> Any:
        """Return rows of a table."""
        (table,) = self._values(module, "table")
        layer = keras.layers.Embedding(*table.shape, name=_spelt(module), dtype="float32")
        return _applied(layer, ids, table)

    def dropout(self, x: Any, rate: float | None = None) -> Any:
        """Return x, thinned out in training; the rate is `hidden_dropout_prob` unless given."""
        self._dropouts += 1  # its seed is part of the file: one that is drawn would be another each time
        rate = self.config.hidden_dropout_prob if rate is None else rate
        return keras.layers.Dropout(rate, seed=self._dropouts, dtype="float32")(x)

    def vocabulary_bias(self, ids: Any) -> Any:
        """Return the bias of the vocabulary's logits, [B, 1, V]: a table's only row, for no layer is a bias alone."""
        (bias,) = self._values("generator.output", "bias")
        layer = keras.layers.Embedding(1, len(bias), name=_spelt("generator.output.bias"), dtype="float32")
        first = keras.ops.zeros_like(keras.ops.take(ids, [0], axis=-1))  # [B, 1]
        return _applied(layer, first, bias[None])

    def _word_table(self, *, reversible: bool) -> Any:
        """Return the layer of the word table, which a language model's head uses too."""
        if reversible and not hasattr(keras.layers, "ReversibleEmbedding"):
            raise OptionError(
                f"Keras {keras.__version__} has no ReversibleEmbedding, the layer of a language model's head",
                hint="pip install --upgrade keras",
            )
        kind = keras.layers.ReversibleEmbedding if reversible else keras.layers.Embedding
        shape = self.tensors["embeddings.word.table"].shape
        return kind(*shape, name=_spelt("embeddings.word"), dtype="float32")

    # The graph

    def backbone(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        """Return the last hidden state, [B, S, H]."""
        positions = keras.ops.cumsum(keras.ops.ones_like(input_ids), axis=-1) - 1  # [B, S]
        words = _applied(self.words, input_ids, *self._values("embeddings.word", "table"))
        places = self.table(positions, "embeddings.position")
        x = _sum("embeddings", words, places, self.table(token_type_ids, "embeddings.token_type"))  # [B, S, E]
        x = self.dropout(self.norm(x, "embeddings.norm"))
        if self.config.projects_embeddings:
            x = self.dense(x, "embeddings.project")
        bias = self._bias(attention_mask, positions)
        for number in range(self.config.num_hidden_layers):
            x = self._layer(x, f"layer.{number}", bias)
        return x

    def _bias(self, attention_mask: Any, positions: Any) -> Any:
        """Return what is added to attention scores, [B, 1, 1 or S, T]."""
        allowed = keras.ops.expand_dims(keras.ops.cast(attention_mask, "float32"), -2)  # [B, 1, T]
        if self.causal:
            rows, columns = keras.ops.expand_dims(positions, -1), keras.ops.expand_dims(positions, -2)
            allowed = allowed * keras.ops.cast(keras.ops.less_equal(columns, rows), "float32")  # [B, S, T]
        return keras.ops.expand_dims((1.0 - allowed) * MASKED, -3)

    def _layer(self, x: Any, module: str, bias: Any) -> Any:
        """Return one layer's output, [B, S, H]."""
        attended = self._attend(x, f"{module}.attention", bias)
        x = self.norm(_sum(f"{module}.attention", self.dropout(attended), x), f"{module}.attention.norm")
        wide = self.dense(x, f"{module}.ffn.up", self.config.hidden_act)
        narrow = self.dropout(self.dense(wide, f"{module}.ffn.down"))
        return self.norm(_sum(f"{module}.ffn", narrow, x), f"{module}.ffn.norm")

    def _attend(self, x: Any, module: str, bias: Any) -> Any:
        """Return what each position attends to, [B, S, H]."""
        batch, size = self.batch, self.config.hidden_size // self.config.num_attention_heads
        query, key, value = (self._split(x, f"{module}.{name}") for name in ("query", "key", "value"))
        scores = keras.ops.einsum(f"{batch}sad,{batch}tad->{batch}ast", query, key) * (1.0 / math.sqrt(size))
        weights = keras.layers.Softmax(dtype="float32")(scores + bias)
        weights = self.dropout(weights, self.config.attention_probs_dropout_prob)
        context = keras.ops.einsum(f"{batch}ast,{batch}tad->{batch}sad", weights, value)
        return self._join(context, f"{module}.output")

    def _split(self, x: Any, module: str) -> Any:
        """Return a projection of [B, S, H] by heads, [B, S, A, D]."""
        kernel, bias = self._values(module, "kernel", "bias")
        heads = (self.config.num_attention_heads, -1)
        return self._einsum_dense(
            x, module, "sh,had->", "sad", kernel=kernel.reshape(len(kernel), *heads), bias=bias.reshape(heads)
        )

    def _join(self, x: Any, module: str) -> Any:
        """Return a projection of what the heads have, [B, S, A, D], as [B, S, H]."""
        kernel, bias = self._values(module, "kernel", "bias")
        heads = self.config.num_attention_heads
        return self._einsum_dense(
            x, module, "sad,adh->", "sh", kernel=kernel.reshape(heads, -1, kernel.shape[1]), bias=bias
        )

    def _einsum_dense(self, x: Any, module: str, begin: str, end: str, *, kernel: Array, bias: Array) -> Any:
        layer = keras.layers.EinsumDense(
            f"{self.batch}{begin}{self.batch}{end}",
            output_shape=(*(None,) * len(self.batch), *bias.shape),
            bias_axes=end[1:],
            name=_spelt(module),
            dtype="float32",
        )
        return _applied(layer, x, kernel, bias)

    def _values(self, module: str, *leaves: str) -> list[Array]:
        return [self.tensors[f"{module}.{leaf}"].load().astype("float32") for leaf in leaves]


# Heads: each of the last hidden state, [B, S, H], and the ids


def _base(build: _Build, x: Any, ids: Any) -> dict[str, Any]:  # noqa: ARG001  # as all heads
    return {"last_hidden_state": x}


def _pretraining(build: _Build, x: Any, ids: Any) -> dict[str, Any]:  # noqa: ARG001
    x = build.dense(x, "discriminator.dense", build.config.hidden_act)
    return {"logits": keras.ops.squeeze(build.dense(x, "discriminator.score"), -1)}  # [B, S]


def _language_model(build: _Build, x: Any, ids: Any) -> dict[str, Any]:
    x = build.norm(build.dense(x, "generator.dense", build.config.hidden_act), "generator.norm")  # [B, S, E]
    return {"logits": build.words(x, reverse=True) + build.vocabulary_bias(ids)}  # [B, S, V]


def _sequence_classification(build: _Build, x: Any, ids: Any) -> dict[str, Any]:  # noqa: ARG001
    x = build.dense(build.dropout(_first(x)), "classifier.dense", "gelu")  # GELU whatever `hidden_act` is
    return {"logits": build.dense(build.dropout(x), "classifier.output")}  # [B, L]


def _multiple_choice(build: _Build, x: Any, ids: Any) -> dict[str, Any]:  # noqa: ARG001
    x = build.dropout(build.dense(_first(x), "choice.summary", "gelu"), 0.1)  # as transformers' `summary_*`
    return {"logits": keras.ops.squeeze(build.dense(x, "choice.output"), -1)}  # [B, C]


def _token_classification(build: _Build, x: Any, ids: Any) -> dict[str, Any]:  # noqa: ARG001
    return {"logits": build.dense(build.dropout(x), "tagger.output")}  # [B, S, L]


def _question_answering(build: _Build, x: Any, ids: Any) -> dict[str, Any]:  # noqa: ARG001
    ends = ("start", "end")
    return {f"{end}_logits": keras.ops.squeeze(build.dense(x, f"span.{end}"), -1) for end in ends}  # [B, S] each


HEADS: Mapping[str, Callable[[_Build, Any, Any], dict[str, Any]]] = {
    "base": _base,
    "pretraining": _pretraining,
    "masked_lm": _language_model,
    "causal_lm": _language_model,
    "sequence_classification": _sequence_classification,
    "multiple_choice": _multiple_choice,
    "token_classification": _token_classification,
    "question_answering": _question_answering,
}
"""What each head makes of the last hidden state: its outputs, under the names that transformers gives them."""


def _first(x: Any) -> Any:
    """Return the first position, [B, H]."""
    return keras.ops.take(x, 0, axis=-2)


def _sum(module: str, *terms: Any) -> Any:
    """Return the sum; a dtype of its own keeps what layers share, which has a new number each time, out of the file."""
    return keras.layers.Add(name=_spelt(f"{module}.sum"), dtype="float32")(list(terms))


def _applied(layer: Any, x: Any, *values: Array) -> Any:
    """Apply a layer, and give it its values."""
    output = layer(x)
    layer.set_weights(list(values))
    return output


def _spelt(module: str) -> str:
    """Return a module's name as a layer's, without dots: not every backend of Keras takes them."""
    return "_".join(module.split("."))


# The archive


def _copy_archive(dated: Path, place: Path) -> None:
    """Copy an archive with one date for all that is in it, and a graph that older versions of Keras read."""
    with zipfile.ZipFile(dated) as source, zipfile.ZipFile(place, "w") as target:
        for entry in source.infolist():
            same = zipfile.ZipInfo(entry.filename, DATE)
            same.external_attr = 0o600 << 16
            with source.open(entry) as held, target.open(same, "w", force_zip64=True) as copy:
                if entry.filename == METADATA_FILE:
                    copy.write(json.dumps(json.load(held) | {"date_saved": "1980-01-01@00:00:00"}).encode())
                elif entry.filename == GRAPH_FILE:
                    copy.write(json.dumps(_portable(json.load(held))).encode())
                else:
                    shutil.copyfileobj(held, copy, 1 << 20)


def _portable(node: Any) -> Any:
    """Return a graph without settings that are not set, and without the names that operations are set up with.

    Keras adds such settings to its layers from version to version, and refuses those it does not know; operations are
    set up with names since 3.10 or so. Where they stand in the graph, they have them all the same.
    """
    if isinstance(node, list):
        return [_portable(each) for each in node]
    if not isinstance(node, dict):
        return node
    copy = {key: _portable(value) for key, value in node.items()}
    if not str(node.get("class_name", "__")).startswith("__"):  # no tensor, whose shape is no setting
        left_out = {"name"} if str(node.get("module")).startswith(OPERATIONS) else set()
        settings = copy["config"].items()
        copy["config"] = {key: value for key, value in settings if value is not None and key not in left_out}
    return copy
