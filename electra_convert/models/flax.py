"""ELECTRA in Flax (nnx): every head that transformers had, with the names of its parameters.

A reference model, to be read beside its PyTorch and TensorFlow twins. The graph is that of Google's
`model/modeling.py` and `run_pretraining.py`; the names of modules are those in `flax_model.msgpack`, so a parameter's
path in the nnx state, joined by "/", is its name in the file. Matrices are multiplied at the highest precision JAX has.

Shapes: B batch, S sequence (T where it is attended to), E embedding, H hidden, A attention heads, D = H / A,
F intermediate, V vocabulary, L labels, C choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from electra_convert.config import ElectraConfig
from electra_convert.errors import OptionError
from electra_convert.models.files import load_tensors, read_config, save_model

PRECISION = jax.lax.Precision.HIGHEST
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


class FlaxBaseModelOutput(NamedTuple):
    """What the backbone returns.

    Args:
        last_hidden_state: [B, S, H].
        hidden_states: The embeddings' output, then each layer's, [B, S, H] each; None unless asked for.
        attentions: Each layer's softmax weights, [B, A, S, T] each; None unless asked for.
    """

    last_hidden_state: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


class FlaxElectraForPreTrainingOutput(NamedTuple):
    """What the discriminator returns: the logits, [B, S], are high where a token was replaced."""

    loss: Array | None
    logits: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


class FlaxMaskedLMOutput(NamedTuple):
    """What the masked language model returns: logits [B, S, V]."""

    loss: Array | None
    logits: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


class FlaxCausalLMOutput(NamedTuple):
    """What the causal language model returns: logits [B, S, V]."""

    loss: Array | None
    logits: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


class FlaxSequenceClassifierOutput(NamedTuple):
    """What the sequence classifier returns: logits [B, L]."""

    loss: Array | None
    logits: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


class FlaxMultipleChoiceModelOutput(NamedTuple):
    """What multiple choice returns: logits [B, C]; the others have one row per choice, [B * C, ...]."""

    loss: Array | None
    logits: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


class FlaxTokenClassifierOutput(NamedTuple):
    """What the token classifier returns: logits [B, S, L]."""

    loss: Array | None
    logits: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


class FlaxQuestionAnsweringModelOutput(NamedTuple):
    """What question answering returns: start and end logits, [B, S] each."""

    loss: Array | None
    start_logits: Array
    end_logits: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


# Activations, and the modules Flax has, set up as ELECTRA needs them

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "linear": lambda x: x,
}
"""The activations of `hidden_act`, looked up when a model is built; GELU is the exact one."""


class Build(NamedTuple):
    """What every module is built from.

    Args:
        config: The sizes.
        dtype: Dtype of every parameter, and so of every computation.
        rngs: Streams of first values (`params`) and of dropout (`dropout`).
    """

    config: ElectraConfig
    dtype: Any
    rngs: nnx.Rngs

    def dense(self, inputs: int, outputs: int) -> nnx.Linear:
        """Return x @ kernel + bias; the kernel is [inputs, outputs]."""
        return nnx.Linear(
            inputs,
            outputs,
            kernel_init=self._first_values(),
            param_dtype=self.dtype,
            precision=PRECISION,
            rngs=self.rngs,
        )

    def table(self, rows: int, width: int) -> nnx.Embed:
        """Return a table of embeddings."""
        return nnx.Embed(rows, width, embedding_init=self._first_values(), param_dtype=self.dtype, rngs=self.rngs)

    def norm(self, width: int) -> nnx.LayerNorm:
        """Return a layer norm; Flax's fast variance errs by 1e-2 where the mean is far from zero."""
        epsilon = self.config.layer_norm_eps
        return nnx.LayerNorm(width, epsilon=epsilon, use_fast_variance=False, param_dtype=self.dtype, rngs=self.rngs)

    def dropout(self, rate: float | None = None) -> nnx.Dropout:
        """Return a dropout; the rate is `hidden_dropout_prob` unless given."""
        return nnx.Dropout(self.config.hidden_dropout_prob if rate is None else rate, rngs=self.rngs)

    def _first_values(self) -> Any:
        """Return a normal distribution cut at two deviations (`modeling.py`, `create_initializer`)."""
        return nnx.initializers.truncated_normal(stddev=self.config.initializer_range)


# Embeddings


class FlaxElectraEmbeddings(nnx.Module):
    """Word + position + token type, normalised (`modeling.py`, `embedding_lookup` and `embedding_postprocessor`)."""

    def __init__(self, build: Build) -> None:
        config = build.config
        self.word_embeddings = build.table(config.vocab_size, config.embedding_size)
        self.position_embeddings = build.table(config.max_position_embeddings, config.embedding_size)
        self.token_type_embeddings = build.table(config.type_vocab_size, config.embedding_size)
        self.LayerNorm = build.norm(config.embedding_size)
        self.dropout = build.dropout()

    def __call__(self, words: Array, token_type_ids: Array, position_ids: Array) -> Array:
        """Return [B, S, E] of the words' rows, [B, S, E], and the ids, [B, S] each."""
        x = words + self.position_embeddings(position_ids) + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(x))


# Self-attention


class FlaxElectraSelfAttention(nnx.Module):
    """Attention with several heads (`modeling.py`, `attention_layer`)."""

    def __init__(self, build: Build) -> None:
        hidden = build.config.hidden_size
        self.heads = build.config.num_attention_heads
        self.query = build.dense(hidden, hidden)
        self.key = build.dense(hidden, hidden)
        self.value = build.dense(hidden, hidden)
        self.dropout = build.dropout(build.config.attention_probs_dropout_prob)

    def __call__(self, x: Array, bias: Array) -> tuple[Array, Array]:
        """Return what each position attends to, [B, S, H], and the weights, [B, A, S, T].

        Args:
            x: [B, S, H].
            bias: Added to the scores, [B, 1, 1 or S, T].
        """
        query, key, value = (self._split(project(x)) for project in (self.query, self.key, self.value))
        scores = jnp.einsum("bsad,btad->bast", query, key, precision=PRECISION) / math.sqrt(query.shape[-1])
        weights = jax.nn.softmax(scores + bias, axis=-1)  # [B, A, S, T]
        context = jnp.einsum("bast,btad->bsad", self.dropout(weights), value, precision=PRECISION)
        return context.reshape(x.shape), weights  # [B, S, A, D] -> [B, S, H]

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)  # [B, S, H] -> [B, S, A, D]


class FlaxElectraOutput(nnx.Module):
    """Dense, dropout, and the layer norm of the sum with what came in."""

    def __init__(self, build: Build, width: int) -> None:
        self.dense = build.dense(width, build.config.hidden_size)
        self.LayerNorm = build.norm(build.config.hidden_size)
        self.dropout = build.dropout()

    def __call__(self, x: Array, residual: Array) -> Array:
        """Return [B, S, H] of [B, S, width] and the residual, [B, S, H]."""
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class FlaxElectraAttention(nnx.Module):
    """Self-attention and its output."""

    def __init__(self, build: Build) -> None:
        self.self = FlaxElectraSelfAttention(build)
        self.output = FlaxElectraOutput(build, build.config.hidden_size)

    def __call__(self, x: Array, bias: Array) -> tuple[Array, Array]:
        """Return [B, S, H] and the weights, [B, A, S, T]."""
        context, weights = self.self(x, bias)
        return self.output(context, x), weights


# Layer and encoder


class FlaxElectraIntermediate(nnx.Module):
    """Dense to the intermediate width, and the activation."""

    def __init__(self, build: Build) -> None:
        self.dense = build.dense(build.config.hidden_size, build.config.intermediate_size)
        self.activation = ACTIVATIONS[build.config.hidden_act]

    def __call__(self, x: Array) -> Array:
        """Return [B, S, F] of [B, S, H]."""
        return self.activation(self.dense(x))


class FlaxElectraLayer(nnx.Module):
    """One layer (`modeling.py`, `transformer_model`)."""

    def __init__(self, build: Build) -> None:
        self.attention = FlaxElectraAttention(build)
        self.intermediate = FlaxElectraIntermediate(build)
        self.output = FlaxElectraOutput(build, build.config.intermediate_size)

    def __call__(self, x: Array, bias: Array) -> tuple[Array, Array]:
        """Return [B, S, H] and the attention weights, [B, A, S, T]."""
        attended, weights = self.attention(x, bias)
        return self.output(self.intermediate(attended), attended), weights


class FlaxElectraEncoder(nnx.Module):
    """The layers, one after another."""

    def __init__(self, build: Build) -> None:
        self.layer = nnx.List([FlaxElectraLayer(build) for _ in range(build.config.num_hidden_layers)])

    def __call__(self, x: Array, bias: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Return the input and what each layer makes of it, [B, S, H] each, and each layer's weights."""
        hidden_states, attentions = [x], []
        for layer in self.layer:
            x, weights = layer(x, bias)
            hidden_states.append(x)
            attentions.append(weights)
        return tuple(hidden_states), tuple(attentions)


# Backbone


class FlaxElectraBackbone(nnx.Module):
    """Embeddings, their projection where the encoder is of another width, and the encoder.

    Args:
        build: What to build from.
        causal: Whether a position attends to none after it.
    """

    def __init__(self, build: Build, *, causal: bool = False) -> None:
        config = build.config
        self.config = config
        self.dtype = build.dtype
        self.causal = causal
        self.embeddings = FlaxElectraEmbeddings(build)
        if config.projects_embeddings:
            self.embeddings_project = build.dense(config.embedding_size, config.hidden_size)
        self.encoder = FlaxElectraEncoder(build)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        inputs_embeds: Array | None = None,
        **options: Unpack[OutputOptions],
    ) -> FlaxBaseModelOutput:
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
            OptionError: The model is a float64 one, and JAX is not set up for float64.
        """
        checked_dtype(self.dtype)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if input_ids is None:
            words = jnp.asarray(inputs_embeds, self.dtype)
        else:
            words = self.embeddings.word_embeddings(jnp.asarray(input_ids))  # [B, S, E]
        batch, length = words.shape[:2]
        if length > (longest := self.config.max_position_embeddings):
            raise ValueError(f"the sequence has {length} positions; max_position_embeddings is {longest}")
        x = self.embeddings(
            words,
            jnp.zeros((batch, length), int) if token_type_ids is None else jnp.asarray(token_type_ids),
            jnp.arange(length)[None] if position_ids is None else jnp.asarray(position_ids),
        )
        if self.config.projects_embeddings:
            x = self.embeddings_project(x)  # [B, S, H]
        hidden_states, attentions = self.encoder(x, self._bias(_mask(attention_mask, (batch, length))))
        return FlaxBaseModelOutput(
            hidden_states[-1],
            hidden_states if options.get("output_hidden_states") else None,
            attentions if options.get("output_attentions") else None,
        )

    def _bias(self, mask: Array) -> Array:
        """Return what is added to attention scores: Google's -10000 where there is nothing to attend to."""
        allowed = mask[:, None, None, :].astype(self.dtype)  # [B, 1, 1, T]
        if self.causal:
            allowed = allowed * jnp.tri(mask.shape[1], dtype=self.dtype)  # [B, 1, S, T]
        return (1 - allowed) * -10000


# Heads


class FlaxElectraDiscriminatorPredictions(nnx.Module):
    """One logit a position (`run_pretraining.py`, `_get_discriminator_output`)."""

    def __init__(self, build: Build) -> None:
        self.dense = build.dense(build.config.hidden_size, build.config.hidden_size)
        self.dense_prediction = build.dense(build.config.hidden_size, 1)
        self.activation = ACTIVATIONS[build.config.hidden_act]

    def __call__(self, x: Array) -> Array:
        """Return [B, S] of [B, S, H]."""
        return self.dense_prediction(self.activation(self.dense(x)))[..., 0]


class FlaxElectraGeneratorPredictions(nnx.Module):
    """Back to the embeddings' width (`run_pretraining.py`, `_get_masked_lm_output`)."""

    def __init__(self, build: Build) -> None:
        self.dense = build.dense(build.config.hidden_size, build.config.embedding_size)
        self.LayerNorm = build.norm(build.config.embedding_size)
        self.activation = ACTIVATIONS[build.config.hidden_act]

    def __call__(self, x: Array) -> Array:
        """Return [B, S, E] of [B, S, H]."""
        return self.LayerNorm(self.activation(self.dense(x)))


class FlaxElectraLMHead(nnx.Module):
    """The product with the word table, which belongs to the embeddings, and a bias."""

    def __init__(self, build: Build) -> None:
        self.bias = nnx.Param(jnp.zeros(build.config.vocab_size, build.dtype))

    def __call__(self, x: Array, table: Array) -> Array:
        """Return [B, S, V] of [B, S, E] and the word table, [V, E]."""
        return jnp.einsum("bse,ve->bsv", x, table, precision=PRECISION) + self.bias[...]


class FlaxElectraClassificationHead(nnx.Module):
    """Dropout, dense, GELU whatever `hidden_act` is, dropout, dense."""

    def __init__(self, build: Build) -> None:
        self.dense = build.dense(build.config.hidden_size, build.config.hidden_size)
        self.out_proj = build.dense(build.config.hidden_size, build.config.num_labels)
        self.activation = ACTIVATIONS["gelu"]
        self.before = build.dropout()
        self.after = build.dropout()

    def __call__(self, x: Array) -> Array:
        """Return [B, L] of the first position, [B, H]."""
        return self.out_proj(self.after(self.activation(self.dense(self.before(x)))))


class FlaxElectraSequenceSummary(nnx.Module):
    """Dense, GELU whatever `hidden_act` is, dropout (transformers' `summary_*`)."""

    def __init__(self, build: Build) -> None:
        self.summary = build.dense(build.config.hidden_size, build.config.hidden_size)
        self.activation = ACTIVATIONS["gelu"]
        self.dropout = build.dropout(0.1)

    def __call__(self, x: Array) -> Array:
        """Return [B, H] of the first position, [B, H]."""
        return self.dropout(self.activation(self.summary(x)))


# What all models have


class FlaxElectraPreTrainedModel(nnx.Module):
    """What every model does: it is built from a config, loaded and saved.

    Args:
        config: The sizes.
        dtype: Dtype of every parameter and computation.
        rngs: Streams of first values and of dropout.

    A model that was built is in training mode, as nnx has it; one that was loaded is in evaluation mode.
    """

    head: ClassVar[str]
    backbone: ClassVar[str] = "electra/"

    def __init__(self, config: ElectraConfig, *, dtype: Any = "float32", rngs: nnx.Rngs) -> None:
        self.config = config
        self.build(Build(config, checked_dtype(dtype), rngs))

    def build(self, build: Build) -> None:
        """Add the modules."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        dtype: str | None = None,
        initialize_head: bool = False,
        ignore_mismatched_sizes: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> Self:
        """Load a model; it is in evaluation mode.

        Args:
            directory: Holds `flax_model.msgpack`, or its shards and index, and `config.json`.
            dtype: What to compute in: float32, float64, float16 or bfloat16; the file's by default.
            initialize_head: Draw what is missing of the head, and leave another head's tensors behind.
            ignore_mismatched_sizes: Draw what has another shape in the files.
            rngs: Streams of what is drawn and of dropout; seed 0 by default.

        Returns:
            The model.

        Raises:
            TensorMismatchError: Tensors are missing, unknown or of another shape. It lists them all.
            OptionError: The dtype is unknown, or float64 and JAX is not set up for it.
        """
        directory, rngs = Path(directory), rngs or nnx.Rngs(0)
        streams = {"params": rngs.params(), "dropout": rngs.dropout()}
        config = read_config(directory, cls.head)
        wanted = checked_dtype(dtype or "float32")

        def construct() -> Any:
            return cls(config, dtype=wanted, rngs=nnx.Rngs(**streams))

        model: Self = nnx.eval_shape(construct)  # shapes only: nothing is drawn
        expected = {name: tuple(parameter.shape) for name, parameter in parameters(model).items()}
        tensors = load_tensors(
            directory,
            "flax",
            expected,
            own={name for name in expected if not name.startswith(cls.backbone)},
            initialize_head=initialize_head,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
        )
        dtypes = {checked_dtype(tensor.dtype) for tensor in tensors.values()} if dtype is None else set()
        if dtypes - {wanted}:
            wanted = jnp.result_type(*dtypes)
            model = nnx.eval_shape(construct)
        absent = expected.keys() - tensors.keys()
        drawn = jax.jit(lambda: _values(construct(), absent))() if absent else {}  # only these: the compiler sees to it
        for name, parameter in parameters(model).items():
            # A copy, for JAX would keep a view of the mapped file.
            value = drawn[name] if name in absent else jnp.array(tensors[name].load(), wanted, copy=True)
            parameter.set_value(value)
        nnx.reseed(model, dropout=streams["dropout"])
        model.eval()
        return model

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `flax_model.msgpack` and `config.json`.

        Args:
            directory: Where to.
        """
        tensors = {name: np.asarray(parameter[...]) for name, parameter in parameters(self).items()}
        save_model(Path(directory), "flax", self.head, self.config, tensors)


def parameters(model: nnx.Module) -> dict[str, nnx.Param]:
    """Return the parameters of a model by the names they have in files."""
    return {"/".join(map(str, path)): node for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Param)}


def checked_dtype(dtype: Any) -> Any:
    """Return a dtype that can be computed in as it is.

    Args:
        dtype: A dtype or its name.

    Raises:
        OptionError: It is unknown, or float64 and JAX would compute in float32.
    """
    name = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
    if name not in DTYPES:
        raise OptionError(f"dtype is {name!r}; it must be one of {', '.join(DTYPES)}")
    if name == "float64" and not jax.config.jax_enable_x64:
        raise OptionError(
            "float64 was asked for, and JAX would compute in float32",
            hint='call jax.config.update("jax_enable_x64", True) first, or set JAX_ENABLE_X64=1',
        )
    return jnp.dtype(name)


def _values(model: nnx.Module, names: set[str]) -> dict[str, Array]:
    return {name: parameter[...] for name, parameter in parameters(model).items() if name in names}


def _mask(attention_mask: Array | None, shape: tuple[int, int]) -> Array:
    return jnp.ones(shape, int) if attention_mask is None else jnp.asarray(attention_mask)  # [B, S]


# The models


class FlaxElectraModel(FlaxElectraBackbone, FlaxElectraPreTrainedModel):
    """The backbone alone."""

    head = "base"
    backbone = ""

    def __init__(self, config: ElectraConfig, *, dtype: Any = "float32", rngs: nnx.Rngs) -> None:
        FlaxElectraBackbone.__init__(self, Build(config, checked_dtype(dtype), rngs))


class FlaxElectraForPreTraining(FlaxElectraPreTrainedModel):
    """Tell which tokens were replaced: the discriminator.

    Labels: [B, S], 1 where a token was replaced; the loss is the mean binary cross entropy where `attention_mask` is 1.
    """

    head = "pretraining"

    def build(self, build: Build) -> None:
        """Add the modules."""
        self.electra = FlaxElectraBackbone(build)
        self.discriminator_predictions = FlaxElectraDiscriminatorPredictions(build)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        inputs_embeds: Array | None = None,
        labels: Array | None = None,
        **options: Unpack[OutputOptions],
    ) -> FlaxElectraForPreTrainingOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        logits = self.discriminator_predictions(backbone.last_hidden_state)  # [B, S]
        loss = None if labels is None else _replaced_loss(logits, labels, attention_mask)
        return FlaxElectraForPreTrainingOutput(loss, logits, *backbone[1:])


class FlaxElectraForMaskedLM(FlaxElectraPreTrainedModel):
    """Fill in masked tokens: the generator.

    Labels: [B, S]; the loss is the mean cross entropy where they are not -100.
    """

    head = "masked_lm"

    def build(self, build: Build) -> None:
        """Add the modules."""
        self.electra = FlaxElectraBackbone(build)
        self.generator_predictions = FlaxElectraGeneratorPredictions(build)
        self.generator_lm_head = FlaxElectraLMHead(build)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        inputs_embeds: Array | None = None,
        labels: Array | None = None,
        **options: Unpack[OutputOptions],
    ) -> FlaxMaskedLMOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        table = self.electra.embeddings.word_embeddings.embedding[...]
        logits = self.generator_lm_head(self.generator_predictions(backbone.last_hidden_state), table)  # [B, S, V]
        loss = None if labels is None else _cross_entropy(logits, labels)
        return FlaxMaskedLMOutput(loss, logits, *backbone[1:])


class FlaxElectraForCausalLM(FlaxElectraPreTrainedModel):
    """Foretell the next token; no position sees those after it.

    Labels: [B, S], the inputs themselves; each position's logits are held against the next label, but where it is -100.
    """

    head = "causal_lm"

    def build(self, build: Build) -> None:
        """Add the modules."""
        self.electra = FlaxElectraBackbone(build, causal=True)
        self.generator_predictions = FlaxElectraGeneratorPredictions(build)
        self.generator_lm_head = FlaxElectraLMHead(build)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        inputs_embeds: Array | None = None,
        labels: Array | None = None,
        **options: Unpack[OutputOptions],
    ) -> FlaxCausalLMOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        table = self.electra.embeddings.word_embeddings.embedding[...]
        logits = self.generator_lm_head(self.generator_predictions(backbone.last_hidden_state), table)  # [B, S, V]
        loss = None if labels is None else _cross_entropy(logits[:, :-1], jnp.asarray(labels)[:, 1:])
        return FlaxCausalLMOutput(loss, logits, *backbone[1:])


class FlaxElectraForSequenceClassification(FlaxElectraPreTrainedModel):
    """Classify or score a sequence by its first position.

    Labels: [B] of integers (cross entropy), [B, L] of floats (binary cross entropy), or, where there is one label,
    [B] of floats (mean squared error).
    """

    head = "sequence_classification"

    def build(self, build: Build) -> None:
        """Add the modules."""
        self.electra = FlaxElectraBackbone(build)
        self.classifier = FlaxElectraClassificationHead(build)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        inputs_embeds: Array | None = None,
        labels: Array | None = None,
        **options: Unpack[OutputOptions],
    ) -> FlaxSequenceClassifierOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        logits = self.classifier(backbone.last_hidden_state[:, 0])  # [B, L]
        loss = None if labels is None else _classification_loss(logits, labels)
        return FlaxSequenceClassifierOutput(loss, logits, *backbone[1:])


class FlaxElectraForMultipleChoice(FlaxElectraPreTrainedModel):
    """Choose among several sequences; every input has an axis of choices, [B, C, S].

    Labels: [B], the right choices; the loss is the mean cross entropy.
    """

    head = "multiple_choice"

    def build(self, build: Build) -> None:
        """Add the modules."""
        self.electra = FlaxElectraBackbone(build)
        self.sequence_summary = FlaxElectraSequenceSummary(build)
        self.classifier = build.dense(build.config.hidden_size, 1)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        inputs_embeds: Array | None = None,
        labels: Array | None = None,
        **options: Unpack[OutputOptions],
    ) -> FlaxMultipleChoiceModelOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(
            *(_flat(given) for given in (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)),
            **options,
        )
        choices = jnp.shape(inputs_embeds if input_ids is None else input_ids)[1]
        scores = self.classifier(self.sequence_summary(backbone.last_hidden_state[:, 0]))  # [B * C, 1]
        logits = scores.reshape(-1, choices)  # [B, C]
        loss = None if labels is None else _cross_entropy(logits, labels)
        return FlaxMultipleChoiceModelOutput(loss, logits, *backbone[1:])


class FlaxElectraForTokenClassification(FlaxElectraPreTrainedModel):
    """Classify each token.

    Labels: [B, S]; the loss is the mean cross entropy where they are not -100.
    """

    head = "token_classification"

    def build(self, build: Build) -> None:
        """Add the modules."""
        self.electra = FlaxElectraBackbone(build)
        self.dropout = build.dropout()
        self.classifier = build.dense(build.config.hidden_size, build.config.num_labels)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        inputs_embeds: Array | None = None,
        labels: Array | None = None,
        **options: Unpack[OutputOptions],
    ) -> FlaxTokenClassifierOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        logits = self.classifier(self.dropout(backbone.last_hidden_state))  # [B, S, L]
        loss = None if labels is None else _cross_entropy(logits, labels)
        return FlaxTokenClassifierOutput(loss, logits, *backbone[1:])


class FlaxElectraForQuestionAnswering(FlaxElectraPreTrainedModel):
    """Find where an answer starts and ends.

    Labels: `start_positions` and `end_positions`, [B]; the loss is the mean of both cross entropies, over those
    within the sequence.
    """

    head = "question_answering"

    def build(self, build: Build) -> None:
        """Add the modules."""
        self.electra = FlaxElectraBackbone(build)
        self.qa_outputs = build.dense(build.config.hidden_size, 2)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        inputs_embeds: Array | None = None,
        start_positions: Array | None = None,
        end_positions: Array | None = None,
        **options: Unpack[OutputOptions],
    ) -> FlaxQuestionAnsweringModelOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        logits = self.qa_outputs(backbone.last_hidden_state)  # [B, S, 2]
        start, end = logits[..., 0], logits[..., 1]  # [B, S] each
        given = start_positions is not None and end_positions is not None
        loss = (_position_loss(start, start_positions) + _position_loss(end, end_positions)) / 2 if given else None
        return FlaxQuestionAnsweringModelOutput(loss, start, end, *backbone[1:])


MODELS: dict[str, type[FlaxElectraPreTrainedModel]] = {
    model.head: model
    for model in (
        FlaxElectraModel,
        FlaxElectraForPreTraining,
        FlaxElectraForMaskedLM,
        FlaxElectraForCausalLM,
        FlaxElectraForSequenceClassification,
        FlaxElectraForMultipleChoice,
        FlaxElectraForTokenClassification,
        FlaxElectraForQuestionAnswering,
    )
}
"""The model of each head."""


def _flat(given: Array | None) -> Array | None:
    return None if given is None else jnp.reshape(given, (-1, *jnp.shape(given)[2:]))  # [B, C, ...] -> [B * C, ...]


# Losses


def _replaced_loss(logits: Array, labels: Array, attention_mask: Array | None) -> Array:
    """Return the mean binary cross entropy where `attention_mask` is 1."""
    return jnp.mean(_binary_cross_entropy(logits, labels), where=_mask(attention_mask, logits.shape) == 1)


def _binary_cross_entropy(logits: Array, labels: Array) -> Array:
    labels = jnp.asarray(labels, logits.dtype)
    return labels * jax.nn.softplus(-logits) + (1 - labels) * jax.nn.softplus(logits)


def _cross_entropy(logits: Array, labels: Array, ignored: int = IGNORED) -> Array:
    """Return the mean cross entropy of [..., N] logits where the labels, [...], are not `ignored`."""
    counted = jnp.asarray(labels) != ignored
    chosen = jnp.where(counted, labels, 0)[..., None]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), chosen, axis=-1)[..., 0], where=counted)


def _classification_loss(logits: Array, labels: Array) -> Array:
    """Return the loss of [B, L] logits that the kind of labels asks for."""
    labels = jnp.asarray(labels)
    if logits.shape[-1] == 1:
        return jnp.mean((logits[:, 0] - labels.reshape(-1).astype(logits.dtype)) ** 2)
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return _cross_entropy(logits, labels)
    return jnp.mean(_binary_cross_entropy(logits, labels))


def _position_loss(logits: Array, positions: Array) -> Array:
    """Return the mean cross entropy of [B, S] logits; a position at or past the end is not counted."""
    length = logits.shape[1]
    return _cross_entropy(logits, jnp.clip(jnp.asarray(positions), 0, length), ignored=length)
