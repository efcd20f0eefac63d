"""ELECTRA in PyTorch: every head, with the names of parameters that `model.safetensors` has.

A reference model, to be read beside its TensorFlow and Flax twins. The graph is that of Google's `model/modeling.py`
and `run_pretraining.py`. A parameter's name in the state dict is its name in the file; the word table, which is also
the output matrix of the language models, is one parameter and is there once.

Shapes: B batch, S sequence (T where it is attended to), E embedding, H hidden, A attention heads, D = H / A,
F intermediate, V vocabulary, L labels, C choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self, TypedDict, Unpack

import torch
from torch import nn
from torch.nn import functional

from electra_convert.config import ElectraConfig
from electra_convert.errors import OptionError
from electra_convert.models.files import load_tensors, read_config, save_model
from electra_convert.tensor import numpy_dtype

if TYPE_CHECKING:
    from electra_convert.tensor import Array, Tensor

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
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


class BaseModelOutput(NamedTuple):
    """What the backbone returns.

    Args:
        last_hidden_state: [B, S, H].
        hidden_states: The embeddings' output, then each layer's, [B, S, H] each; None unless asked for.
        attentions: Each layer's softmax weights, [B, A, S, T] each; None unless asked for.
    """

    last_hidden_state: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class ElectraForPreTrainingOutput(NamedTuple):
    """What the discriminator returns: the logits, [B, S], are high where a token was replaced."""

    loss: torch.Tensor | None
    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class MaskedLMOutput(NamedTuple):
    """What the masked language model returns: logits [B, S, V]."""

    loss: torch.Tensor | None
    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class CausalLMOutput(NamedTuple):
    """What the causal language model returns: logits [B, S, V]."""

    loss: torch.Tensor | None
    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class SequenceClassifierOutput(NamedTuple):
    """What the sequence classifier returns: logits [B, L]."""

    loss: torch.Tensor | None
    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class MultipleChoiceModelOutput(NamedTuple):
    """What multiple choice returns: logits [B, C]; the others have one row per choice, [B * C, ...]."""

    loss: torch.Tensor | None
    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class TokenClassifierOutput(NamedTuple):
    """What the token classifier returns: logits [B, S, L]."""

    loss: torch.Tensor | None
    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class QuestionAnsweringModelOutput(NamedTuple):
    """What question answering returns: start and end logits, [B, S] each."""

    loss: torch.Tensor | None
    start_logits: torch.Tensor
    end_logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


# Activations, and the modules torch has, set up as ELECTRA needs them


def _unchanged(x: torch.Tensor) -> torch.Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "tanh": torch.tanh,
    "linear": _unchanged,
}
"""The activations of `hidden_act`, looked up when a model is built; GELU is the exact one."""


def draw(values: torch.Tensor, config: ElectraConfig) -> None:
    """Draw first values: normal, cut at two deviations (`modeling.py`, `create_initializer`)."""
    with torch.no_grad():
        nn.init.trunc_normal_(values).mul_(config.initializer_range)


class Dense(nn.Linear):
    """x @ weight.T + bias; the weight is [outputs, inputs]."""

    def __init__(self, config: ElectraConfig, inputs: int, outputs: int) -> None:
        self.config = config
        super().__init__(inputs, outputs)

    def reset_parameters(self) -> None:
        """Give first values."""
        draw(self.weight, self.config)
        nn.init.zeros_(self.bias)


class Table(nn.Embedding):
    """A table of embeddings, [rows, E]."""

    def __init__(self, config: ElectraConfig, rows: int) -> None:
        self.config = config
        super().__init__(rows, config.embedding_size)

    def reset_parameters(self) -> None:
        """Give first values."""
        draw(self.weight, self.config)


class Norm(nn.LayerNorm):
    """A layer norm with the config's epsilon; it starts with ones and zeros."""

    def __init__(self, config: ElectraConfig, width: int) -> None:
        super().__init__(width, eps=config.layer_norm_eps)


# Embeddings


class ElectraEmbeddings(nn.Module):
    """Word + position + token type, normalised (`modeling.py`, `embedding_lookup` and `embedding_postprocessor`)."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.word_embeddings = Table(config, config.vocab_size)
        self.position_embeddings = Table(config, config.max_position_embeddings)
        self.token_type_embeddings = Table(config, config.type_vocab_size)
        self.LayerNorm = Norm(config, config.embedding_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, words: torch.Tensor, token_type_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Return [B, S, E] of the words' rows, [B, S, E], and the ids, [B, S] each."""
        x = words + self.position_embeddings(position_ids) + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(x))


# Self-attention


class ElectraSelfAttention(nn.Module):
    """Attention with several heads (`modeling.py`, `attention_layer`)."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = Dense(config, config.hidden_size, config.hidden_size)
        self.key = Dense(config, config.hidden_size, config.hidden_size)
        self.value = Dense(config, config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what each position attends to, [B, S, H], and the weights, [B, A, S, T].

        Args:
            x: [B, S, H].
            bias: Added to the scores, [B, 1, 1 or S, T].
        """
        query, key, value = (self._split(project(x)) for project in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # [B, A, S, D] @ [B, A, D, T]
        weights = torch.softmax(scores + bias, dim=-1)  # [B, A, S, T]
        context = self.dropout(weights) @ value  # [B, A, S, D]
        return context.transpose(1, 2).flatten(2), weights  # [B, S, A, D] -> [B, S, H]

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, S, H] -> [B, S, A, D] -> [B, A, S, D]


class ElectraOutput(nn.Module):
    """Dense, dropout, and the layer norm of the sum with what came in."""

    def __init__(self, config: ElectraConfig, width: int) -> None:
        super().__init__()
        self.dense = Dense(config, width, config.hidden_size)
        self.LayerNorm = Norm(config, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Return [B, S, H] of [B, S, width] and the residual, [B, S, H]."""
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class ElectraAttention(nn.Module):
    """Self-attention and its output."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.self = ElectraSelfAttention(config)
        self.output = ElectraOutput(config, config.hidden_size)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return [B, S, H] and the weights, [B, A, S, T]."""
        context, weights = self.self(x, bias)
        return self.output(context, x), weights


# Layer and encoder


class ElectraIntermediate(nn.Module):
    """Dense to the intermediate width, and the activation."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.dense = Dense(config, config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [B, S, F] of [B, S, H]."""
        return self.activation(self.dense(x))


class ElectraLayer(nn.Module):
    """One layer (`modeling.py`, `transformer_model`)."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.attention = ElectraAttention(config)
        self.intermediate = ElectraIntermediate(config)
        self.output = ElectraOutput(config, config.intermediate_size)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return [B, S, H] and the attention weights, [B, A, S, T]."""
        attended, weights = self.attention(x, bias)
        return self.output(self.intermediate(attended), attended), weights


class ElectraEncoder(nn.Module):
    """The layers, one after another."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([ElectraLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Return the input and what each layer makes of it, [B, S, H] each, and each layer's weights."""
        hidden_states: tuple[torch.Tensor, ...] = (x,)
        attentions: tuple[torch.Tensor, ...] = ()
        for layer in self.layer:
            x, weights = layer(x, bias)
            hidden_states, attentions = (*hidden_states, x), (*attentions, weights)
        return hidden_states, attentions


# Backbone


class ElectraBackbone(nn.Module):
    """Embeddings, their projection where the encoder is of another width, and the encoder.

    Args:
        config: The sizes.
        causal: Whether a position attends to none after it.
    """

    def __init__(self, config: ElectraConfig, *, causal: bool = False) -> None:
        super().__init__()
        self.config = config
        self.causal = causal
        self.embeddings = ElectraEmbeddings(config)
        if config.projects_embeddings:
            self.embeddings_project = Dense(config, config.embedding_size, config.hidden_size)
        self.encoder = ElectraEncoder(config)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> BaseModelOutput:
        """Run the backbone.

        Args:
            input_ids: Rows of the word table, [B, S].
            attention_mask: 1 where a position is attended to, 0 where it is padding, [B, S]; ones by default.
            token_type_ids: Segments, [B, S]; 0 by default.
            position_ids: Positions, [B, S] or [1, S]; 0 to S - 1 by default.
            inputs_embeds: In place of `input_ids`: what stands for the words' rows, [B, S, E].
            output_hidden_states: Return the embeddings and what each layer makes of them.
            output_attentions: Return the attention weights of each layer.

        Returns:
            The last hidden state, and what was asked for.

        Raises:
            ValueError: Neither or both of `input_ids` and `inputs_embeds` are given, or the sequence is too long.
        """
        words = self._words(input_ids, inputs_embeds)  # [B, S, E]
        zeros = torch.zeros(words.shape[:2], dtype=torch.long, device=words.device)  # [B, S]
        positions = torch.arange(words.shape[1], device=words.device)[None]  # [1, S]
        x = self.embeddings(
            words,
            zeros if token_type_ids is None else token_type_ids,
            positions if position_ids is None else position_ids,
        )
        if self.config.projects_embeddings:
            x = self.embeddings_project(x)  # [B, S, H]
        mask = zeros + 1 if attention_mask is None else attention_mask
        hidden_states, attentions = self.encoder(x, self._bias(mask, x.dtype))
        return BaseModelOutput(
            hidden_states[-1],
            hidden_states if output_hidden_states else None,
            attentions if output_attentions else None,
        )

    def _words(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        """Return the words' rows, [B, S, E]."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        table = self.embeddings.word_embeddings
        words = table(input_ids) if inputs_embeds is None else inputs_embeds.to(table.weight.dtype)
        if words.shape[1] > (longest := self.config.max_position_embeddings):
            raise ValueError(f"the sequence has {words.shape[1]} positions; max_position_embeddings is {longest}")
        return words

    def _bias(self, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return what is added to attention scores: Google's -10000 where there is nothing to attend to."""
        allowed = mask[:, None, None, :].to(dtype)  # [B, 1, 1, T]
        if self.causal:
            allowed = allowed.expand(-1, -1, mask.shape[1], -1).tril()  # [B, 1, S, T]
        return (1 - allowed) * -10000


# Heads


class ElectraDiscriminatorPredictions(nn.Module):
    """One logit a position (`run_pretraining.py`, `_get_discriminator_output`)."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.dense = Dense(config, config.hidden_size, config.hidden_size)
        self.dense_prediction = Dense(config, config.hidden_size, 1)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [B, S] of [B, S, H]."""
        return self.dense_prediction(self.activation(self.dense(x))).squeeze(-1)


class ElectraGeneratorPredictions(nn.Module):
    """Back to the embeddings' width (`run_pretraining.py`, `_get_masked_lm_output`)."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.dense = Dense(config, config.hidden_size, config.embedding_size)
        self.LayerNorm = Norm(config, config.embedding_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [B, S, E] of [B, S, H]."""
        return self.LayerNorm(self.activation(self.dense(x)))


class ElectraLMHead(nn.Module):
    """The product with the word table, which belongs to the embeddings, and a bias."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def reset_parameters(self) -> None:
        """Give first values."""
        nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Return [B, S, V] of [B, S, E] and the word table, [V, E]."""
        return x @ table.T + self.bias


class ElectraClassificationHead(nn.Module):
    """Dropout, dense, GELU whatever `hidden_act` is, dropout, dense."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.dense = Dense(config, config.hidden_size, config.hidden_size)
        self.out_proj = Dense(config, config.hidden_size, config.num_labels)
        self.activation = ACTIVATIONS["gelu"]
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [B, L] of the first position, [B, H]."""
        return self.out_proj(self.dropout(self.activation(self.dense(self.dropout(x)))))


class ElectraSequenceSummary(nn.Module):
    """Dense, GELU whatever `hidden_act` is, dropout (transformers' `summary_*`)."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.summary = Dense(config, config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS["gelu"]
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [B, H] of the first position, [B, H]."""
        return self.dropout(self.activation(self.summary(x)))


# What all models have


class ElectraPreTrainedModel(nn.Module):
    """What every model does: it is loaded and saved. It is built from its config.

    A model that was built is in training mode, as torch has it; one that was loaded is in evaluation mode.
    """

    head: ClassVar[str]
    backbone: ClassVar[str] = "electra."
    config: ElectraConfig

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        dtype: str | None = None,
        initialize_head: bool = False,
        ignore_mismatched_sizes: bool = False,
    ) -> Self:
        """Load a model; it is in evaluation mode.

        Args:
            directory: Holds `model.safetensors`, or its shards and index, and `config.json`.
            dtype: What to compute in: float32, float64, float16 or bfloat16; the file's by default.
            initialize_head: Draw what is missing of the head, and leave another head's tensors behind.
            ignore_mismatched_sizes: Draw what has another shape in the files.

        Returns:
            The model.

        Raises:
            TensorMismatchError: Tensors are missing, unknown or of another shape. It lists them all.
            OptionError: The dtype is unknown.
        """
        if dtype is not None and dtype not in DTYPES:
            raise OptionError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
        directory = Path(directory)
        with torch.device("meta"):  # shapes only: nothing is drawn
            model = cls(read_config(directory, cls.head))
        expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        tensors = load_tensors(
            directory,
            "pytorch",
            expected,
            own={name for name in expected if not name.startswith(cls.backbone)},
            initialize_head=initialize_head,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
        )
        wanted = DTYPES[dtype] if dtype else _common_dtype(tensors.values())
        _draw_all_but(model, tensors)
        model.load_state_dict(
            {name: from_array(tensor.load()).to(wanted) for name, tensor in tensors.items()}, strict=False, assign=True
        )
        model.to(wanted).eval()
        return model

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `model.safetensors` and `config.json`.

        Args:
            directory: Where to.

        Raises:
            OutputError: It cannot be written, or the parameters are float64, which the file does not hold.
        """
        tensors = {name: to_array(parameter) for name, parameter in self.named_parameters()}
        save_model(Path(directory), "pytorch", self.head, self.config, tensors)


def from_array(array: Array) -> torch.Tensor:
    """Return a tensor of the array's values and dtype, bfloat16 included, with memory of its own."""
    if str(array.dtype) == "bfloat16":
        return torch.from_numpy(array.view("int16").copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def to_array(tensor: torch.Tensor) -> Array:
    """Return an array of the tensor's values and dtype, bfloat16 included."""
    values = tensor.detach().cpu()
    is_bfloat16 = values.dtype == torch.bfloat16
    array: Array = values.view(torch.int16).numpy().view(numpy_dtype("bfloat16")) if is_bfloat16 else values.numpy()
    return array


def _common_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    dtypes = [DTYPES[tensor.dtype] for tensor in tensors]
    return reduce(torch.promote_types, dtypes) if dtypes else torch.float32


def _draw_all_but(model: nn.Module, names: Collection[str]) -> None:
    """Give first values to the modules of a model on the meta device that have a parameter besides `names`."""
    for path, module in model.named_modules():
        if any(name not in names for name, _ in module.named_parameters(path, recurse=False)):
            module.to_empty(device="cpu", recurse=False).reset_parameters()


# The models


class ElectraModel(ElectraBackbone, ElectraPreTrainedModel):
    """The backbone alone."""

    head = "base"
    backbone = ""


class ElectraForPreTraining(ElectraPreTrainedModel):
    """Tell which tokens were replaced: the discriminator.

    Labels: [B, S], 1 where a token was replaced; the loss is the mean binary cross entropy where `attention_mask` is 1.
    """

    head = "pretraining"

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.config = config
        self.electra = ElectraBackbone(config)
        self.discriminator_predictions = ElectraDiscriminatorPredictions(config)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> ElectraForPreTrainingOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        logits = self.discriminator_predictions(backbone.last_hidden_state)  # [B, S]
        loss = None if labels is None else _replaced_loss(logits, labels, attention_mask)
        return ElectraForPreTrainingOutput(loss, logits, *backbone[1:])


class ElectraForMaskedLM(ElectraPreTrainedModel):
    """Fill in masked tokens: the generator.

    Labels: [B, S]; the loss is the mean cross entropy where they are not -100.
    """

    head = "masked_lm"

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.config = config
        self.electra = ElectraBackbone(config)
        self.generator_predictions = ElectraGeneratorPredictions(config)
        self.generator_lm_head = ElectraLMHead(config)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> MaskedLMOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        table = self.electra.embeddings.word_embeddings.weight
        logits = self.generator_lm_head(self.generator_predictions(backbone.last_hidden_state), table)  # [B, S, V]
        loss = None if labels is None else _cross_entropy(logits, labels)
        return MaskedLMOutput(loss, logits, *backbone[1:])


class ElectraForCausalLM(ElectraPreTrainedModel):
    """Foretell the next token; no position sees those after it.

    Labels: [B, S], the inputs themselves; each position's logits are held against the next label, but where it is -100.
    """

    head = "causal_lm"

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.config = config
        self.electra = ElectraBackbone(config, causal=True)
        self.generator_predictions = ElectraGeneratorPredictions(config)
        self.generator_lm_head = ElectraLMHead(config)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> CausalLMOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        table = self.electra.embeddings.word_embeddings.weight
        logits = self.generator_lm_head(self.generator_predictions(backbone.last_hidden_state), table)  # [B, S, V]
        loss = None if labels is None else _cross_entropy(logits[:, :-1], labels[:, 1:])
        return CausalLMOutput(loss, logits, *backbone[1:])


class ElectraForSequenceClassification(ElectraPreTrainedModel):
    """Classify or score a sequence by its first position.

    Labels: [B] of integers (cross entropy), [B, L] of floats (binary cross entropy), or, where there is one label only,
    [B] of floats (squared error); the loss is the mean.
    """

    head = "sequence_classification"

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.config = config
        self.electra = ElectraBackbone(config)
        self.classifier = ElectraClassificationHead(config)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> SequenceClassifierOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        logits = self.classifier(backbone.last_hidden_state[:, 0])  # [B, L]
        loss = None if labels is None else _classification_loss(logits, labels)
        return SequenceClassifierOutput(loss, logits, *backbone[1:])


class ElectraForMultipleChoice(ElectraPreTrainedModel):
    """Choose among several sequences; every input has an axis of choices, [B, C, S].

    Labels: [B], the right choices; the loss is the mean cross entropy.
    """

    head = "multiple_choice"

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.config = config
        self.electra = ElectraBackbone(config)
        self.sequence_summary = ElectraSequenceSummary(config)
        self.classifier = Dense(config, config.hidden_size, 1)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> MultipleChoiceModelOutput:
        """Run the model; the inputs are the backbone's, with the axis of choices."""
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        choices = next((given.shape[1] for given in (input_ids, inputs_embeds) if given is not None), 0)
        flat = (None if given is None else given.flatten(0, 1) for given in inputs)  # [B, C, ...] -> [B * C, ...]
        backbone = self.electra(*flat, **options)
        scores = self.classifier(self.sequence_summary(backbone.last_hidden_state[:, 0]))  # [B * C, 1]
        logits = scores.view(-1, choices)  # [B, C]
        loss = None if labels is None else _cross_entropy(logits, labels)
        return MultipleChoiceModelOutput(loss, logits, *backbone[1:])


class ElectraForTokenClassification(ElectraPreTrainedModel):
    """Classify each token.

    Labels: [B, S]; the loss is the mean cross entropy where they are not -100.
    """

    head = "token_classification"

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.config = config
        self.electra = ElectraBackbone(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = Dense(config, config.hidden_size, config.num_labels)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> TokenClassifierOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        logits = self.classifier(self.dropout(backbone.last_hidden_state))  # [B, S, L]
        loss = None if labels is None else _cross_entropy(logits, labels)
        return TokenClassifierOutput(loss, logits, *backbone[1:])


class ElectraForQuestionAnswering(ElectraPreTrainedModel):
    """Find where an answer starts and ends.

    Start and end positions: [B] each; the loss is the mean of the two cross entropies. A position outside the sequence
    moves to its nearer bound, 0 or S, and S counts for nothing.
    """

    head = "question_answering"

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.config = config
        self.electra = ElectraBackbone(config)
        self.qa_outputs = Dense(config, config.hidden_size, 2)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> QuestionAnsweringModelOutput:
        """Run the model; the inputs are the backbone's."""
        backbone = self.electra(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        start, end = self.qa_outputs(backbone.last_hidden_state).unbind(-1)  # [B, S, 2] -> [B, S] twice
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (_position_loss(start, start_positions) + _position_loss(end, end_positions)) / 2
        return QuestionAnsweringModelOutput(loss, start, end, *backbone[1:])


MODELS: dict[str, type[ElectraPreTrainedModel]] = {
    model.head: model
    for model in (
        ElectraModel,
        ElectraForPreTraining,
        ElectraForMaskedLM,
        ElectraForCausalLM,
        ElectraForSequenceClassification,
        ElectraForMultipleChoice,
        ElectraForTokenClassification,
        ElectraForQuestionAnswering,
    )
}
"""The model of each head."""


# Losses


def _replaced_loss(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the mean binary cross entropy, over attended positions, of logits and labels, [B, S] each."""
    losses = functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    counted = torch.ones_like(losses) if mask is None else (mask == 1).to(losses.dtype)
    return (losses * counted).sum() / counted.sum()


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor, ignored: int = IGNORED) -> torch.Tensor:
    """Return the mean cross entropy of logits, [..., N], and labels, [...], that are not `ignored`."""
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten().long(), ignore_index=ignored)


def _classification_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return what the kind of the labels asks for, of logits [B, L]."""
    if logits.shape[-1] == 1:
        return functional.mse_loss(logits.flatten(), labels.flatten().to(logits.dtype))
    if labels.is_floating_point():
        return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return _cross_entropy(logits, labels)


def _position_loss(logits: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy of logits, [B, S], and positions, [B], that lie within the sequence."""
    length = logits.shape[-1]
    return _cross_entropy(logits, positions.clamp(0, length), ignored=length)
