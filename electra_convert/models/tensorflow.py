"""ELECTRA in Keras 3 on TensorFlow: every head, with the names of its parameters.

A reference model, to be read beside its PyTorch and Flax twins. The graph is that of Google's `model/modeling.py` and
`run_pretraining.py`; the names of layers are those in `tf_model.h5`, so a variable's path without the model's own name,
followed by ":0", is its name in the file.

Shapes: B batch, S sequence (T where it is attended to), E embedding, H hidden, A attention heads, D = H / A,
F intermediate, V vocabulary, L labels, C choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypedDict, Unpack

import keras
import msgspec
import numpy as np
import tensorflow as tf

from electra_convert.config import ElectraConfig
from electra_convert.errors import OptionError
from electra_convert.models.files import load_tensors, read_config, save_model

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"Keras runs on {keras.backend.backend()}, and these models on TensorFlow: set KERAS_BACKEND=tensorflow in the "
        "environment before Keras is imported"
    )

DTYPES = ("float32", "float64", "float16", "bfloat16")
IGNORED = -100
"""The label of a position that no loss counts."""


# Outputs


class OutputOptions(TypedDict, total=False):
    """What a model returns besides, each False unless asked for.

    Args:
        output_hidden_states: The embeddings and what each layer makes of them.
        output_attentions: The attention weights of each layer.
    """

    output_hidden_states: bool
    output_attentions: bool


class TFBaseModelOutput(NamedTuple):
    """What the backbone returns.

    Args:
        last_hidden_state: [B, S, H].
        hidden_states: The embeddings' output, then each layer's, [B, S, H] each; None unless asked for.
        attentions: Each layer's softmax weights, [B, A, S, T] each; None unless asked for.
    """

    last_hidden_state: tf.Tensor
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


class TFElectraForPreTrainingOutput(NamedTuple):
    """What the discriminator returns: the logits, [B, S], are high where a token was replaced."""

    loss: tf.Tensor | None
    logits: tf.Tensor
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


class TFMaskedLMOutput(NamedTuple):
    """What the masked language model returns: logits [B, S, V]."""

    loss: tf.Tensor | None
    logits: tf.Tensor
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


class TFCausalLMOutput(NamedTuple):
    """What the causal language model returns: logits [B, S, V]."""

    loss: tf.Tensor | None
    logits: tf.Tensor
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


class TFSequenceClassifierOutput(NamedTuple):
    """What the sequence classifier returns: logits [B, L]."""

    loss: tf.Tensor | None
    logits: tf.Tensor
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


class TFMultipleChoiceModelOutput(NamedTuple):
    """What multiple choice returns: logits [B, C]; the others have one row per choice, [B * C, ...]."""

    loss: tf.Tensor | None
    logits: tf.Tensor
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


class TFTokenClassifierOutput(NamedTuple):
    """What the token classifier returns: logits [B, S, L]."""

    loss: tf.Tensor | None
    logits: tf.Tensor
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


class TFQuestionAnsweringModelOutput(NamedTuple):
    """What question answering returns: start and end logits, [B, S] each."""

    loss: tf.Tensor | None
    start_logits: tf.Tensor
    end_logits: tf.Tensor
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


# Activations, and the layers Keras has, set up as ELECTRA needs them


def _gelu(x: tf.Tensor) -> tf.Tensor:
    """Return the exact GELU; those of Keras and TensorFlow round sqrt(2) to float32, which errs by 5e-9 in float64."""
    return 0.5 * x * (1.0 + tf.math.erf(x / tf.constant(math.sqrt(2.0), x.dtype)))


ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "gelu": _gelu,
    "relu": tf.nn.relu,
    "tanh": tf.math.tanh,
    "linear": tf.identity,
}
"""The activations of `hidden_act`, looked up when a model is built; GELU is the exact one."""


class Build(NamedTuple):
    """What every layer is built from.

    A layer that it returns has its parameters already; their paths start with the name scope it was built in.

    Args:
        config: The sizes.
        dtype: Dtype of every parameter and computation.
    """

    config: ElectraConfig
    dtype: str

    def dense(self, inputs: int, outputs: int, name: str) -> Any:
        """Return x @ kernel + bias; the kernel is [inputs, outputs]."""
        layer = keras.layers.Dense(outputs, kernel_initializer=self.first_values(), name=name, dtype=self.dtype)
        layer.build((None, inputs))
        return layer

    def table(self, rows: int, width: int, name: str) -> Any:
        """Return a table of embeddings."""
        layer = keras.layers.Embedding(
            rows, width, embeddings_initializer=self.first_values(), name=name, dtype=self.dtype
        )
        layer.build(None)
        return layer

    def norm(self, width: int) -> Any:
        """Return a layer norm."""
        epsilon = self.config.layer_norm_eps
        layer = keras.layers.LayerNormalization(epsilon=epsilon, name="LayerNorm", dtype=self.dtype)
        layer.build((None, width))
        return layer

    def dropout(self, rate: float | None = None) -> Any:
        """Return a dropout; the rate is `hidden_dropout_prob` unless given."""
        return keras.layers.Dropout(self.config.hidden_dropout_prob if rate is None else rate, dtype=self.dtype)

    def first_values(self) -> Any:
        """Return a normal distribution cut at two deviations (`modeling.py`, `create_initializer`)."""
        deviation = self.config.initializer_range
        return keras.initializers.TruncatedNormal(stddev=deviation) if deviation else keras.initializers.Zeros()


class Part(keras.layers.Layer):
    """A layer of several: they are added when it is made, in the name scope of its name.

    Args:
        build: What to build from.
        name: Its name, a level of its parameters' names.
        **given: What `add` takes besides.
    """

    add: Callable[..., None]
    """Adds the layers."""

    def __init__(self, build: Build, name: str, **given: Any) -> None:
        super().__init__(name=name, dtype=build.dtype)
        with keras.name_scope(name, caller=self):  # the caller, so that `add_weight` does not open it again
            self.add(build, **given)
        self.built = True


# Embeddings


class TFElectraWordEmbeddings(Part):
    """The word table, which the language models' heads use too."""

    def add(self, build: Build) -> None:
        """Add the table, [V, E]."""
        shape = (build.config.vocab_size, build.config.embedding_size)
        self.weight = self.add_weight(shape=shape, initializer=build.first_values(), name="weight")

    def call(self, input_ids: tf.Tensor) -> tf.Tensor:
        """Return the rows, [B, S, E], of the ids, [B, S]."""
        return tf.gather(tf.convert_to_tensor(self.weight), input_ids)


class TFElectraEmbeddings(Part):
    """Word + position + token type, normalised (`modeling.py`, `embedding_lookup` and `embedding_postprocessor`)."""

    def add(self, build: Build) -> None:
        """Add the layers."""
        config = build.config
        self.word_embeddings = TFElectraWordEmbeddings(build, "word_embeddings")
        self.position_embeddings = build.table(
            config.max_position_embeddings, config.embedding_size, "position_embeddings"
        )
        self.token_type_embeddings = build.table(config.type_vocab_size, config.embedding_size, "token_type_embeddings")
        self.norm = build.norm(config.embedding_size)
        self.dropout = build.dropout()

    def call(self, words: tf.Tensor, token_type_ids: tf.Tensor, position_ids: tf.Tensor) -> tf.Tensor:
        """Return [B, S, E] of the words' rows, [B, S, E], and the ids, [B, S] each."""
        x = words + self.position_embeddings(position_ids) + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.norm(x))


# Self-attention


class TFElectraSelfAttention(Part):
    """Attention with several heads (`modeling.py`, `attention_layer`)."""

    def add(self, build: Build) -> None:
        """Add the layers."""
        hidden = build.config.hidden_size
        self.heads = build.config.num_attention_heads
        self.size = hidden // self.heads
        self.query = build.dense(hidden, hidden, "query")
        self.key = build.dense(hidden, hidden, "key")
        self.value = build.dense(hidden, hidden, "value")
        self.dropout = build.dropout(build.config.attention_probs_dropout_prob)

    def call(self, x: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return what each position attends to, [B, S, H], and the weights, [B, A, S, T].

        Args:
            x: [B, S, H].
            bias: Added to the scores, [B, 1, 1 or S, T].
        """
        query, key, value = (self._split(project(x)) for project in (self.query, self.key, self.value))
        scores = tf.matmul(query, key, transpose_b=True) / math.sqrt(self.size)  # [B, A, S, T]
        weights = tf.nn.softmax(scores + bias, axis=-1)
        context = tf.transpose(tf.matmul(self.dropout(weights), value), (0, 2, 1, 3))  # [B, S, A, D]
        return tf.reshape(context, tf.shape(x)), weights  # [B, S, H]

    def _split(self, x: tf.Tensor) -> tf.Tensor:
        batch, length = tf.unstack(tf.shape(x)[:2])
        return tf.transpose(tf.reshape(x, (batch, length, self.heads, self.size)), (0, 2, 1, 3))  # [B, A, S, D]


class TFElectraOutput(Part):
    """Dense, dropout, and the layer norm of the sum with what came in."""

    def add(self, build: Build, width: int) -> None:
        """Add the layers."""
        self.dense = build.dense(width, build.config.hidden_size, "dense")
        self.norm = build.norm(build.config.hidden_size)
        self.dropout = build.dropout()

    def call(self, x: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:
        """Return [B, S, H] of [B, S, width] and the residual, [B, S, H]."""
        return self.norm(self.dropout(self.dense(x)) + residual)


class TFElectraAttention(Part):
    """Self-attention and its output."""

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.attend = TFElectraSelfAttention(build, "self")
        self.project = TFElectraOutput(build, "output", width=build.config.hidden_size)

    def call(self, x: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return [B, S, H] and the weights, [B, A, S, T]."""
        context, weights = self.attend(x, bias)
        return self.project(context, x), weights


# Layer and encoder


class TFElectraIntermediate(Part):
    """Dense to the intermediate width, and the activation."""

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.dense = build.dense(build.config.hidden_size, build.config.intermediate_size, "dense")
        self.activation = ACTIVATIONS[build.config.hidden_act]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Return [B, S, F] of [B, S, H]."""
        return self.activation(self.dense(x))


class TFElectraLayer(Part):
    """One layer (`modeling.py`, `transformer_model`)."""

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.attention = TFElectraAttention(build, "attention")
        self.intermediate = TFElectraIntermediate(build, "intermediate")
        self.project = TFElectraOutput(build, "output", width=build.config.intermediate_size)

    def call(self, x: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return [B, S, H] and the attention weights, [B, A, S, T]."""
        attended, weights = self.attention(x, bias)
        return self.project(self.intermediate(attended), attended), weights


class TFElectraEncoder(Part):
    """The layers, one after another."""

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.layer = [TFElectraLayer(build, f"layer_._{index}") for index in range(build.config.num_hidden_layers)]

    def call(self, x: tf.Tensor, bias: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...]]:
        """Return the input and what each layer makes of it, [B, S, H] each, and each layer's weights."""
        hidden_states, attentions = [x], []
        for layer in self.layer:
            x, weights = layer(x, bias)
            hidden_states.append(x)
            attentions.append(weights)
        return tuple(hidden_states), tuple(attentions)


# Backbone


class TFElectraBackbone(Part):
    """Embeddings, their projection where the encoder is of another width, and the encoder."""

    def add(self, build: Build, *, causal: bool = False) -> None:
        """Add the layers.

        Args:
            build: What to build from.
            causal: Whether a position attends to none after it.
        """
        config = build.config
        self.longest = config.max_position_embeddings
        self.causal = causal
        self.embeddings = TFElectraEmbeddings(build, "embeddings")
        self.embeddings_project = (
            build.dense(config.embedding_size, config.hidden_size, "embeddings_project")
            if config.projects_embeddings
            else None
        )
        self.encoder = TFElectraEncoder(build, "encoder")

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> TFBaseModelOutput:
        """Run the backbone.

        Args:
            input_ids: Rows of the word table, [B, S].
            attention_mask: 1 where a position is attended to, 0 where it is padding, [B, S]; ones by default.
            token_type_ids: Segments, [B, S]; 0 by default.
            position_ids: Positions, [B, S] or [1, S]; 0 to S - 1 by default.
            inputs_embeds: In place of `input_ids`: what stands for the words' rows, [B, S, E].
            **options: What to return besides.

        Returns:
            The last hidden state, and what was asked for.

        Raises:
            ValueError: Neither or both of `input_ids` and `inputs_embeds` are given, or the sequence is too long.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        words = self.embeddings.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds  # [B, S, E]
        shape = tf.shape(words)[:2]
        if words.shape[1] is not None and words.shape[1] > self.longest:  # a compiled function may not know it yet
            raise ValueError(f"the sequence has {words.shape[1]} positions; max_position_embeddings is {self.longest}")
        x = self.embeddings(
            words,
            tf.zeros(shape, tf.int32) if token_type_ids is None else token_type_ids,
            tf.range(shape[1])[None] if position_ids is None else position_ids,
        )
        if self.embeddings_project is not None:
            x = self.embeddings_project(x)  # [B, S, H]
        mask = tf.ones(shape, tf.int32) if attention_mask is None else attention_mask
        hidden_states, attentions = self.encoder(x, self._bias(mask))
        return TFBaseModelOutput(
            hidden_states[-1],
            hidden_states if options.get("output_hidden_states") else None,
            attentions if options.get("output_attentions") else None,
        )

    def _bias(self, mask: tf.Tensor) -> tf.Tensor:
        """Return what is added to attention scores: Google's -10000 where there is nothing to attend to."""
        allowed = tf.cast(mask, self.compute_dtype)[:, None, None, :]  # [B, 1, 1, T]
        if self.causal:
            length = tf.shape(mask)[1]
            allowed = allowed * tf.linalg.band_part(tf.ones((length, length), allowed.dtype), -1, 0)  # [B, 1, S, T]
        return (1 - allowed) * -10000


# Heads


class TFElectraDiscriminatorPredictions(Part):
    """One logit a position (`run_pretraining.py`, `_get_discriminator_output`)."""

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.dense = build.dense(build.config.hidden_size, build.config.hidden_size, "dense")
        self.dense_prediction = build.dense(build.config.hidden_size, 1, "dense_prediction")
        self.activation = ACTIVATIONS[build.config.hidden_act]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Return [B, S] of [B, S, H]."""
        return self.dense_prediction(self.activation(self.dense(x)))[..., 0]


class TFElectraGeneratorPredictions(Part):
    """Back to the embeddings' width (`run_pretraining.py`, `_get_masked_lm_output`)."""

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.dense = build.dense(build.config.hidden_size, build.config.embedding_size, "dense")
        self.norm = build.norm(build.config.embedding_size)
        self.activation = ACTIVATIONS[build.config.hidden_act]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Return [B, S, E] of [B, S, H]."""
        return self.norm(self.activation(self.dense(x)))


class TFElectraLMHead(Part):
    """The product with the word table, which belongs to the embeddings, and a bias."""

    def add(self, build: Build) -> None:
        """Add the bias, [V]."""
        self.bias = self.add_weight(shape=(build.config.vocab_size,), initializer="zeros", name="bias")

    def call(self, x: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
        """Return [B, S, V] of [B, S, E] and the word table, [V, E]."""
        return tf.einsum("bse,ve->bsv", x, table) + self.bias


class TFElectraClassificationHead(Part):
    """Dropout, dense, GELU whatever `hidden_act` is, dropout, dense."""

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.dense = build.dense(build.config.hidden_size, build.config.hidden_size, "dense")
        self.out_proj = build.dense(build.config.hidden_size, build.config.num_labels, "out_proj")
        self.activation = ACTIVATIONS["gelu"]
        self.before = build.dropout()
        self.after = build.dropout()

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Return [B, L] of the first position, [B, H]."""
        return self.out_proj(self.after(self.activation(self.dense(self.before(x)))))


class TFElectraSequenceSummary(Part):
    """Dense, GELU whatever `hidden_act` is, dropout (transformers' `summary_*`)."""

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.summary = build.dense(build.config.hidden_size, build.config.hidden_size, "summary")
        self.activation = ACTIVATIONS["gelu"]
        self.dropout = build.dropout(0.1)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Return [B, H] of the first position, [B, H]."""
        return self.dropout(self.activation(self.summary(x)))


# What all models have


class TFElectraPreTrainedModel(keras.Model):
    """What every model does: it is built from a config, loaded and saved.

    Call it with `training=True` for dropout.

    Args:
        config: The sizes.
        dtype: Dtype of every parameter and computation.
    """

    head: ClassVar[str]

    def __init__(self, config: ElectraConfig, *, dtype: str = "float32") -> None:
        super().__init__(dtype=checked_dtype(dtype))
        self.config = config
        with keras.name_scope(self.name):
            self.add(Build(config, dtype))
        self.built = True

    def add(self, build: Build) -> None:
        """Add the layers."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        dtype: str | None = None,
        initialize_head: bool = False,
        ignore_mismatched_sizes: bool = False,
    ) -> Self:
        """Load a model.

        Args:
            directory: Holds `tf_model.h5`, or its shards and index, and `config.json`.
            dtype: What to compute in: float32, float64, float16 or bfloat16; the file's by default.
            initialize_head: Draw what is missing of the head, and leave another head's tensors behind.
            ignore_mismatched_sizes: Draw what has another shape in the files.

        Returns:
            The model.

        Raises:
            TensorMismatchError: Tensors are missing, unknown or of another shape. It lists them all.
            OptionError: The dtype is unknown.
        """
        directory = Path(directory)
        config = read_config(directory, cls.head)
        model = cls(msgspec.structs.replace(config, initializer_range=0.0), dtype=dtype or "float32")  # draws nothing
        expected = {name: tuple(variable.shape) for name, variable in parameters(model).items()}
        tensors = load_tensors(
            directory,
            "tensorflow",
            expected,
            own={name for name in expected if not name.startswith("electra/")},
            initialize_head=initialize_head,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
        )
        dtypes = {tensor.dtype for tensor in tensors.values()}
        wanted = dtype or (dtypes.pop() if len(dtypes) == 1 else "float32")
        if wanted != model.dtype or tensors.keys() != expected.keys():
            model = cls(config, dtype=wanted)
        model.config = config
        variables = parameters(model)
        for name, tensor in tensors.items():
            variables[name].assign(tf.cast(tensor.load(), wanted))
        return model

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `tf_model.h5` and `config.json`.

        Args:
            directory: Where to.
        """
        tensors = {name: np.asarray(variable) for name, variable in parameters(self).items()}
        save_model(Path(directory), "tensorflow", self.head, self.config, tensors)


def parameters(model: keras.Model) -> dict[str, Any]:
    """Return the parameters of a model by the names they have in files."""
    return {variable.path.partition("/")[2] + ":0": variable for variable in model.weights}


def checked_dtype(dtype: str) -> str:
    """Return the name of a dtype that a model can compute in.

    Raises:
        OptionError: It is another.
    """
    if dtype not in DTYPES:
        raise OptionError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    return dtype


# The models


class TFElectraModel(TFElectraPreTrainedModel):
    """The backbone alone."""

    head = "base"

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.electra = TFElectraBackbone(build, "electra")

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> TFBaseModelOutput:
        """Run the model; the inputs are the backbone's."""
        outputs: TFBaseModelOutput = self.electra(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options
        )
        return outputs


class TFElectraForPreTraining(TFElectraPreTrainedModel):
    """Tell which tokens were replaced: the discriminator.

    Labels: [B, S], 1 where a token was replaced; the loss is the mean binary cross entropy where `attention_mask` is 1.
    """

    head = "pretraining"

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.electra = TFElectraBackbone(build, "electra")
        self.discriminator_predictions = TFElectraDiscriminatorPredictions(build, "discriminator_predictions")

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        labels: tf.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> TFElectraForPreTrainingOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        logits = self.discriminator_predictions(backbone.last_hidden_state)  # [B, S]
        loss = None if labels is None else _replaced_loss(logits, labels, attention_mask)
        return TFElectraForPreTrainingOutput(loss, logits, *backbone[1:])


class TFElectraForMaskedLM(TFElectraPreTrainedModel):
    """Fill in masked tokens: the generator.

    Labels: [B, S]; the loss is the mean cross entropy where they are not -100.
    """

    head = "masked_lm"

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.electra = TFElectraBackbone(build, "electra")
        self.generator_predictions = TFElectraGeneratorPredictions(build, "generator_predictions")
        self.generator_lm_head = TFElectraLMHead(build, "generator_lm_head")

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        labels: tf.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> TFMaskedLMOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        table = self.electra.embeddings.word_embeddings.weight
        logits = self.generator_lm_head(self.generator_predictions(backbone.last_hidden_state), table)  # [B, S, V]
        loss = None if labels is None else _cross_entropy(logits, labels)
        return TFMaskedLMOutput(loss, logits, *backbone[1:])


class TFElectraForCausalLM(TFElectraPreTrainedModel):
    """Foretell the next token; no position sees those after it.

    Labels: [B, S], the inputs themselves; each position's logits are held against the next label, but where it is -100.
    """

    head = "causal_lm"

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.electra = TFElectraBackbone(build, "electra", causal=True)
        self.generator_predictions = TFElectraGeneratorPredictions(build, "generator_predictions")
        self.generator_lm_head = TFElectraLMHead(build, "generator_lm_head")

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        labels: tf.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> TFCausalLMOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        table = self.electra.embeddings.word_embeddings.weight
        logits = self.generator_lm_head(self.generator_predictions(backbone.last_hidden_state), table)  # [B, S, V]
        loss = None if labels is None else _cross_entropy(logits[:, :-1], labels[:, 1:])
        return TFCausalLMOutput(loss, logits, *backbone[1:])


class TFElectraForSequenceClassification(TFElectraPreTrainedModel):
    """Classify or score a sequence by its first position.

    Labels: [B] of integers (cross entropy), [B, L] of floats (binary cross entropy), or, where there is one label,
    [B] of floats (mean squared error).
    """

    head = "sequence_classification"

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.electra = TFElectraBackbone(build, "electra")
        self.classifier = TFElectraClassificationHead(build, "classifier")

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        labels: tf.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> TFSequenceClassifierOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        logits = self.classifier(backbone.last_hidden_state[:, 0])  # [B, L]
        loss = None if labels is None else _classification_loss(logits, labels)
        return TFSequenceClassifierOutput(loss, logits, *backbone[1:])


class TFElectraForMultipleChoice(TFElectraPreTrainedModel):
    """Choose among several sequences; every input has an axis of choices, [B, C, S].

    Labels: [B], the right choices; the loss is the mean cross entropy.
    """

    head = "multiple_choice"

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.electra = TFElectraBackbone(build, "electra")
        self.sequence_summary = TFElectraSequenceSummary(build, "sequence_summary")
        self.classifier = build.dense(build.config.hidden_size, 1, "classifier")

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        labels: tf.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> TFMultipleChoiceModelOutput:
        """Run the model; the inputs are the backbone's."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        choices = tf.shape(inputs_embeds if input_ids is None else input_ids)[1]
        backbone = self.electra(
            *(_flat(given) for given in (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)),
            **options,
        )
        scores = self.classifier(self.sequence_summary(backbone.last_hidden_state[:, 0]))  # [B * C, 1]
        logits = tf.reshape(scores, (-1, choices))  # [B, C]
        loss = None if labels is None else _cross_entropy(logits, labels)
        return TFMultipleChoiceModelOutput(loss, logits, *backbone[1:])


class TFElectraForTokenClassification(TFElectraPreTrainedModel):
    """Classify each token.

    Labels: [B, S]; the loss is the mean cross entropy where they are not -100.
    """

    head = "token_classification"

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.electra = TFElectraBackbone(build, "electra")
        self.dropout = build.dropout()
        self.classifier = build.dense(build.config.hidden_size, build.config.num_labels, "classifier")

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        labels: tf.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> TFTokenClassifierOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        logits = self.classifier(self.dropout(backbone.last_hidden_state))  # [B, S, L]
        loss = None if labels is None else _cross_entropy(logits, labels)
        return TFTokenClassifierOutput(loss, logits, *backbone[1:])


class TFElectraForQuestionAnswering(TFElectraPreTrainedModel):
    """Find where an answer starts and ends.

    Labels: `start_positions` and `end_positions`, [B]; the loss is the mean of both cross entropies, over those
    within the sequence.
    """

    head = "question_answering"

    def add(self, build: Build) -> None:
        """Add the layers."""
        self.electra = TFElectraBackbone(build, "electra")
        self.qa_outputs = build.dense(build.config.hidden_size, 2, "qa_outputs")

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        start_positions: tf.Tensor | None = None,
        end_positions: tf.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> TFQuestionAnsweringModelOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        logits = self.qa_outputs(backbone.last_hidden_state)  # [B, S, 2]
        start, end = logits[..., 0], logits[..., 1]  # [B, S] each
        given = start_positions is not None and end_positions is not None
        loss = (_position_loss(start, start_positions) + _position_loss(end, end_positions)) / 2 if given else None
        return TFQuestionAnsweringModelOutput(loss, start, end, *backbone[1:])


MODELS: dict[str, type[TFElectraPreTrainedModel]] = {
    model.head: model
    for model in (
        TFElectraModel,
        TFElectraForPreTraining,
        TFElectraForMaskedLM,
        TFElectraForCausalLM,
        TFElectraForSequenceClassification,
        TFElectraForMultipleChoice,
        TFElectraForTokenClassification,
        TFElectraForQuestionAnswering,
    )
}
"""The model of each head."""


def _flat(given: tf.Tensor | None) -> tf.Tensor | None:
    if given is None:
        return None
    return tf.reshape(given, tf.concat([[-1], tf.shape(given)[2:]], axis=0))  # [B, C, ...] -> [B * C, ...]


# Losses


def _replaced_loss(logits: tf.Tensor, labels: tf.Tensor, attention_mask: tf.Tensor | None) -> tf.Tensor:
    """Return the mean binary cross entropy where `attention_mask` is 1."""
    counted = tf.ones(tf.shape(logits), bool) if attention_mask is None else tf.equal(attention_mask, 1)
    return _mean(_binary_cross_entropy(logits, labels), counted)


def _binary_cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)


def _cross_entropy(logits: tf.Tensor, labels: tf.Tensor, ignored: int | tf.Tensor = IGNORED) -> tf.Tensor:
    """Return the mean cross entropy of [..., N] logits where the labels, [...], are not `ignored`."""
    labels = tf.cast(labels, tf.int64)
    counted = tf.not_equal(labels, tf.cast(ignored, tf.int64))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(counted, labels, 0), logits)
    return _mean(losses, counted)


def _mean(losses: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
    weights = tf.cast(counted, losses.dtype)
    return tf.reduce_sum(losses * weights) / tf.reduce_sum(weights)


def _classification_loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the loss of [B, L] logits that the kind of labels asks for."""
    if logits.shape[-1] == 1:
        return tf.reduce_mean((logits[:, 0] - tf.cast(tf.reshape(labels, (-1,)), logits.dtype)) ** 2)
    if labels.dtype.is_integer:
        return _cross_entropy(logits, labels)
    return tf.reduce_mean(_binary_cross_entropy(logits, labels))


def _position_loss(logits: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Return the mean cross entropy of [B, S] logits; a position at or past the end is not counted."""
    length = tf.shape(logits, tf.int64)[1]
    return _cross_entropy(logits, tf.clip_by_value(tf.cast(positions, tf.int64), 0, length), ignored=length)
