"""The oracle: Google's graph in NumPy, straight from the variables of Google's checkpoints.

It is what the other models are measured against, and it shares nothing with them or with the converter: it knows
Google's names and scopes itself, reads no mapping, and draws the parameters that no checkpoint supplies by its
own reading of the documented rule. What comes from google-research/electra says which file and function.

Shapes: B batch, S sequence, E embedding, H hidden, A attention heads, D = H / A, F intermediate, V vocabulary,
L labels. A dense kernel is [in, out], as TensorFlow has it. There is no dropout: this is evaluation.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import numpy as np
from scipy.special import erf

from electra_convert.config import ElectraConfig
from electra_convert.errors import PartNotFoundError, TensorMismatchError
from electra_convert.tensor import numpy_dtype

if TYPE_CHECKING:
    from electra_convert.tensor import Array, Tensor

Part = Literal["discriminator", "generator"]
Shapes = dict[str, tuple[int | None, ...]]
"""What variables there must be. None is a length that only the variable itself shows."""
Direction = Literal["both", "left", "right"]
"""What a token sees besides itself: all others, those to its left, or those to its right."""

NATIVE_HEADS: Mapping[Part, str] = {"discriminator": "pretraining", "generator": "masked_lm"}
"""The head that Google's graph puts on a part, in the scope `<part>_predictions`."""
TAGGING_TASKS = ("chunk",)
"""The tasks with a label for each token (`finetune/task_builder.py`, `get_task`): no variable shows it."""


class TaskHead(NamedTuple):
    """A fine-tuned task, as in `task_specific/<task>/`, and the head that it is; regression is a classifier's."""

    task: str
    head: str


class Inputs(NamedTuple):
    """A batch: three integer arrays [B, S]. The mask is 1 for tokens and 0 for padding."""

    input_ids: Array
    attention_mask: Array
    token_type_ids: Array


# Functions


def gelu(x: Array) -> Array:
    """Return x times the normal distribution's share below x (`model/modeling.py`, `gelu`: exact, not tanh)."""
    # In place, for this runs on the largest arrays there are.
    share: Array = erf(x / math.sqrt(2.0))
    share += 1.0
    share *= 0.5
    share *= x
    return share


def tanh_gelu(x: Array) -> Array:
    """Return the approximation of `gelu` that others compute, and Google's code does not."""
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


TANH_GELU = "gelu_tanh"
"""The name of an activation that no config may name: a model that has it all the same is told by it."""
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    TANH_GELU: tanh_gelu,
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "linear": lambda x: x,
}
"""`model/modeling.py`, `get_activation`, and one more."""


def softmax(x: Array) -> Array:
    """Return the softmax over the last axis, computed in the memory of `x`."""
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)
    return x


def normalise(x: Array, epsilon: float) -> Array:
    """Return x with mean 0 and variance 1 on the last axis."""
    x = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(x).mean(axis=-1, keepdims=True)
    x /= np.sqrt(variance + epsilon)
    return x


def visible(attention_mask: Array, direction: Direction) -> Array:
    """Return [B, 1, S, S], 1 where the row's token sees the column's.

    `model/modeling.py`: `create_attention_mask_from_input_mask`, and in `BertModel` the bands of `ltr` and `rtl`.
    Padding is seen by nobody, but sees.
    """
    length = attention_mask.shape[1]
    band = np.ones((length, length), np.int64)
    if direction != "both":
        band = np.tril(band) if direction == "left" else np.triu(band)
    return np.asarray(attention_mask[:, None, None, :] * band)


# Variables


class Parameters:
    """The variables of a checkpoint by Google's name, each loaded and converted once.

    Args:
        variables: All variables of the checkpoint.
        dtype: What they are converted to, which is the dtype of all that is computed with them.
        cast: What they are rounded to before, if to anything.
        config: Supplies the deviation of what is drawn.
        seed: Seeds what is drawn.
        given: Parameters that are not drawn although Google's graph has none such, by canonical name.
    """

    def __init__(
        self,
        variables: Mapping[str, Tensor],
        *,
        dtype: str,
        cast: str | None,
        config: ElectraConfig,
        seed: int,
        given: Mapping[str, Tensor],
    ) -> None:
        self.variables = variables
        self._given = given
        self.dtype = np.dtype(dtype)
        self._cast = cast
        self._deviation = config.initializer_range
        self._seed = seed
        self._converted: dict[str, Array] = {}

    def holds(self, scope: str) -> bool:
        """Say whether any variable's name begins so."""
        return any(name.startswith(scope) for name in self.variables)

    def require(self, expected: Shapes) -> None:
        """Check that variables are there.

        Raises:
            TensorMismatchError: Some are not, or have another shape; it lists all.
        """
        problems = []
        for name, shape in expected.items():
            wanted = f"[{', '.join('any' if length is None else str(length) for length in shape)}]"
            if name not in self.variables:
                problems.append(f"{name} {wanted} is missing")
            elif not _fits(found := self.variables[name].shape, shape):
                problems.append(f"{name} has shape {list(found)}; Google's graph has {wanted} there")
        if problems:
            raise TensorMismatchError(
                "the variables are not those of Google's graph and this config", problems=problems
            )

    def __getitem__(self, name: str) -> Array:
        if name not in self._converted:
            self._converted[name] = self._convert(self.variables[name].load())
        return self._converted[name]

    def drawn(self, canonical_name: str, shape: tuple[int, ...]) -> Array:
        """Return a parameter that Google's graph has not, under its canonical name: one that was given, or drawn."""
        if canonical_name not in self._converted:
            given = self._given.get(canonical_name)
            values = given.load() if given else truncated_normal(self._seed, canonical_name, shape, self._deviation)
            self._converted[canonical_name] = self._convert(values)
        return self._converted[canonical_name]

    def dense(self, x: Array, module: str) -> Array:
        """Apply `tf.layers.dense` with the variables of a module."""
        x = x @ self[f"{module}/kernel"]
        x += self[f"{module}/bias"]
        return x

    def drawn_dense(self, x: Array, canonical_name: str, width: int) -> Array:
        """Apply a dense module whose kernel is drawn, with a bias of 0; or one that was given."""
        x = np.asarray(x @ self.drawn(f"{canonical_name}.kernel", (x.shape[-1], width)))
        bias = f"{canonical_name}.bias"
        return x + self.drawn(bias, (width,)) if bias in self._given else x

    def _convert(self, values: Array) -> Array:
        if self._cast is not None:
            values = values.astype(numpy_dtype(self._cast))
        return np.asarray(values, self.dtype)


def truncated_normal(seed: int, canonical_name: str, shape: tuple[int, ...], deviation: float) -> Array:
    """Draw float32 values by the rule that `electra_convert/initialize.py` documents; this is another reading of it."""
    digest = hashlib.sha256(f"{seed}/{canonical_name}".encode()).digest()
    stream = np.random.RandomState(list(struct.unpack("<8I", digest)))
    values = stream.standard_normal(math.prod(shape))
    while (far := np.flatnonzero(np.abs(values) > 2.0)).size:
        values[far] = stream.standard_normal(far.size)
    return np.asarray((deviation * values).reshape(shape), np.float32)


def dense_shapes(module: str, width: int | None, units: int | None) -> Shapes:
    """Return the variables of `tf.layers.dense`."""
    return {f"{module}/kernel": (width, units), f"{module}/bias": (units,)}


def norm_shapes(module: str, width: int) -> Shapes:
    """Return the variables of `contrib_layers.layer_norm`."""
    return {f"{module}/gamma": (width,), f"{module}/beta": (width,)}


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(b in (None, a) for a, b in zip(shape, wanted, strict=True))


# The transformer


@dataclass(frozen=True)
class Transformer:
    """What `BertModel` of `model/modeling.py` builds.

    Args:
        parameters: The variables.
        config: Its config.
        scope: Its own scope, with the slash: `electra/`.
        embeddings: The scope of its embedding tables, which may be another transformer's.
    """

    parameters: Parameters
    config: ElectraConfig
    scope: str
    embeddings: str

    @property
    def shapes(self) -> Shapes:
        """Every variable, and its shape."""
        config = self.config
        embedding, hidden, intermediate = config.embedding_size, config.hidden_size, config.intermediate_size
        shapes: Shapes = {
            f"{self.embeddings}word_embeddings": (config.vocab_size, embedding),
            f"{self.embeddings}token_type_embeddings": (config.type_vocab_size, embedding),
            f"{self.embeddings}position_embeddings": (config.max_position_embeddings, embedding),
            **norm_shapes(f"{self.embeddings}LayerNorm", embedding),
        }
        if embedding != hidden:
            shapes |= dense_shapes(f"{self.scope}embeddings_project", embedding, hidden)
        for number in range(config.num_hidden_layers):
            layer = self._layer_scope(number)
            for projection in ("query", "key", "value"):
                shapes |= dense_shapes(f"{layer}attention/self/{projection}", hidden, hidden)
            shapes |= dense_shapes(f"{layer}attention/output/dense", hidden, hidden)
            shapes |= norm_shapes(f"{layer}attention/output/LayerNorm", hidden)
            shapes |= dense_shapes(f"{layer}intermediate/dense", hidden, intermediate)
            shapes |= dense_shapes(f"{layer}output/dense", intermediate, hidden)
            shapes |= norm_shapes(f"{layer}output/LayerNorm", hidden)
        return shapes

    def hidden_states(self, inputs: Inputs, direction: Direction = "both") -> tuple[Array, ...]:
        """Return the embeddings as the first layer sees them, and each layer's output: [B, S, H]."""
        hidden = self._embed(inputs)
        # `attention_layer` adds -10000 to what is masked: enough for an exact 0 after the softmax, except in a row
        # where all is. There Google's float32 rounds the scores to a thousandth, which float64 does not repeat.
        mask = (1 - visible(inputs.attention_mask, direction)).astype(hidden.dtype)  # [B, 1, S, S]
        mask *= -10000.0
        states = [hidden]
        for number in range(self.config.num_hidden_layers):
            states.append(self._layer(self._layer_scope(number), states[-1], mask))
        return tuple(states)

    def layer_norm(self, x: Array, module: str) -> Array:
        """Normalise, scale and shift (`model/modeling.py`, `layer_norm`, whose epsilon in float32 is 1e-12)."""
        x = normalise(x, self.config.layer_norm_eps)
        x *= self.parameters[f"{module}/gamma"]
        x += self.parameters[f"{module}/beta"]
        return x

    def activate(self, x: Array) -> Array:
        """Apply `hidden_act`."""
        return ACTIVATIONS[self.config.hidden_act](x)

    def vocabulary_logits(self, x: Array, predictions: str) -> Array:
        """Score every token of the vocabulary (`run_pretraining.py`, `_get_masked_lm_output`, `get_token_logits`)."""
        x = self.activate(self.parameters.dense(x, f"{predictions}dense"))  # [B, S, E]
        x = self.layer_norm(x, f"{predictions}LayerNorm")
        x = x @ self.parameters[f"{self.embeddings}word_embeddings"].T  # [B, S, V]
        x += self.parameters[f"{predictions}output_bias"]
        return x

    def vocabulary_shapes(self, width: int, predictions: str) -> Shapes:
        """Return the variables that `vocabulary_logits` adds."""
        return {
            **dense_shapes(f"{predictions}dense", width, self.config.embedding_size),
            **norm_shapes(f"{predictions}LayerNorm", self.config.embedding_size),
            f"{predictions}output_bias": (self.config.vocab_size,),
        }

    def _embed(self, inputs: Inputs) -> Array:
        """`embedding_lookup`, `embedding_postprocessor`, and the projection that `BertModel` adds: [B, S, H]."""
        length, longest = inputs.input_ids.shape[1], self.config.max_position_embeddings
        if length > longest:
            raise ValueError(f"the sequence has {length} tokens; the model takes at most {longest}")
        x = self.parameters[f"{self.embeddings}word_embeddings"][inputs.input_ids]  # [B, S, E]
        x += self.parameters[f"{self.embeddings}token_type_embeddings"][inputs.token_type_ids]
        x += self.parameters[f"{self.embeddings}position_embeddings"][:length]
        x = self.layer_norm(x, f"{self.embeddings}LayerNorm")
        if self.config.embedding_size != self.config.hidden_size:
            x = self.parameters.dense(x, f"{self.scope}embeddings_project")  # [B, S, H]
        return x

    def _layer(self, scope: str, x: Array, mask: Array) -> Array:
        """One round of the loop in `transformer_model`."""
        dense = self.parameters.dense
        context = self._attend(f"{scope}attention/self/", x, mask)
        x = self.layer_norm(dense(context, f"{scope}attention/output/dense") + x, f"{scope}attention/output/LayerNorm")
        wide = self.activate(dense(x, f"{scope}intermediate/dense"))  # [B, S, F]
        return self.layer_norm(dense(wide, f"{scope}output/dense") + x, f"{scope}output/LayerNorm")

    def _attend(self, scope: str, x: Array, mask: Array) -> Array:
        """`attention_layer`, with x attending to itself: [B, S, H]."""
        batch, length, hidden = x.shape
        heads = self.config.num_attention_heads

        def split(projection: str) -> Array:
            projected = self.parameters.dense(x, f"{scope}{projection}")
            return projected.reshape(batch, length, heads, hidden // heads).transpose(0, 2, 1, 3)  # [B, A, S, D]

        scores = split("query") @ split("key").swapaxes(-1, -2)  # [B, A, S, S]
        scores *= 1.0 / math.sqrt(hidden // heads)
        scores += mask
        context = softmax(scores) @ split("value")  # [B, A, S, D]
        return np.asarray(context.transpose(0, 2, 1, 3).reshape(batch, length, hidden))

    def _layer_scope(self, number: int) -> str:
        return f"{self.scope}encoder/layer_{number}/"


# The oracle


class Oracle:
    """One part of a checkpoint, with every head.

    A head that Google's graph has on this part is computed with Google's variables; the others are defined here,
    and their parameters drawn.

    Args:
        variables: All variables of the checkpoint, by Google's name.
        config: The part's config. That of a generator which shares the discriminator's transformer
            (`untied_generator=False`, or masked-LM only) is the discriminator's.
        part: Which part.
        dtype: The dtype of the computation, `"float32"` or `"float64"`.
        cast: Round every variable and drawn parameter through this dtype first.
        seed: The seed of the run that wrote the drawn parameters.
        task: The task that supplies a head of a fine-tuned checkpoint; by default all heads are drawn.
        given: The head of a model that Google's graph has not, by canonical name; nothing for a backbone alone. By
            default the part has the head it was pre-trained with.

    Raises:
        PartNotFoundError: The checkpoint has no such part, or no such task.
        TensorMismatchError: Variables are missing, or of the wrong shape; all of them.
    """

    def __init__(  # noqa: PLR0913 - all of it says what the model is
        self,
        variables: Mapping[str, Tensor],
        config: ElectraConfig,
        *,
        part: Part,
        dtype: str = "float64",
        cast: str | None = None,
        seed: int = 0,
        task: TaskHead | None = None,
        given: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.config = config
        self.task = task
        self.parameters = Parameters(variables, dtype=dtype, cast=cast, config=config, seed=seed, given=given or {})
        self.predictions = f"{part}_predictions/"
        # run_finetuning.py keeps the discriminator's transformer and no head of pre-training.
        is_fine_tuned = part == "discriminator" and self.parameters.holds("task_specific/")
        self.native_head = None if is_fine_tuned or given is not None else NATIVE_HEADS[part]
        if task is not None:
            self._task_scope(task.task)
        if self.native_head is not None and not self.parameters.holds(self.predictions):
            raise PartNotFoundError(f"this checkpoint has no {part}: it holds nothing in {self.predictions}")
        self.transformer = self._transformer(config, "generator/" if part == "generator" else "electra/")
        self.parameters.require(self.transformer.shapes | self._native_shapes())

    def hidden_states(self, inputs: Inputs, *, causal: bool = False) -> tuple[Array, ...]:
        """Return the embeddings' output, after the projection, and each layer's: [B, S, H].

        Args:
            inputs: The batch.
            causal: Let a token see only itself and those before it.
        """
        return self.transformer.hidden_states(inputs, "left" if causal else "both")

    def outputs(self, head: str, hidden_states: Sequence[Array]) -> dict[str, Array]:
        """Return what a head gives on hidden states.

        Args:
            head: The head.
            hidden_states: What `hidden_states` returned: for `causal_lm` with `causal`, for `multiple_choice` on the
                choices as one batch, where each gets a logit [B] and the caller arranges them.

        Returns:
            `last_hidden_state` of `base`; `start_logits` and `end_logits` [B, S] of `question_answering`; `logits`
            of the others.
        """
        last = hidden_states[-1]  # [B, S, H]
        if self.task is not None and head == self.task.head:
            return self._task_head(self.task, last)
        hidden, drawn = self.config.hidden_size, self.parameters.drawn_dense
        match head:
            case "base":
                return {"last_hidden_state": last}
            case "pretraining":
                logits = self._replaced_logits(last)  # [B, S]
            case "masked_lm" | "causal_lm":
                logits = self._vocabulary_logits(last)  # [B, S, V]
            case "sequence_classification":
                x = gelu(drawn(last[:, 0], "classifier.dense", hidden))
                logits = drawn(x, "classifier.output", self.config.num_labels)  # [B, L]
            case "multiple_choice":
                x = gelu(drawn(last[:, 0], "choice.summary", hidden))
                logits = drawn(x, "choice.output", 1)[:, 0]  # [B]
            case "token_classification":
                logits = drawn(last, "tagger.output", self.config.num_labels)  # [B, S, L]
            case "question_answering":
                return {f"{end}_logits": drawn(last, f"span.{end}", 1)[..., 0] for end in ("start", "end")}  # [B, S]
            case _:
                raise ValueError(f"there is no head {head!r}")
        return {"logits": logits}

    def run(self, head: str, inputs: Inputs) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """Return the hidden states and outputs of a head, which for `causal_lm` are causal."""
        hidden_states = self.hidden_states(inputs, causal=head == "causal_lm")
        return hidden_states, self.outputs(head, hidden_states)

    def cloze_logits(self, inputs: Inputs) -> Array:
        """Return the logits of Electric's cloze model: [B, S, V].

        It is beside the parts, and has a config of its own, which follows from its shapes and
        `get_generator_config`. What a token is guessed from is all tokens but itself: one tower has read those to
        its left, another those to its right (`run_pretraining.py`, `TwoTowerClozeTransformer`, `roll`).

        Raises:
            PartNotFoundError: The checkpoint has none.
            TensorMismatchError: Variables are missing, or of the wrong shape; all of them.
        """
        if not self.parameters.holds("cloze_predictions/"):
            raise PartNotFoundError("this checkpoint is not Electric's: it holds nothing in cloze_predictions/")
        self.parameters.require(dense_shapes("cloze_predictions/dense", None, None))
        width, embedding = self.parameters.variables["cloze_predictions/dense/kernel"].shape
        rightward, leftward = (
            self._tower(scope, width // 2, embedding) for scope in ("generator_ltr/", "generator_rtl/")
        )
        predictions = rightward.vocabulary_shapes(width, "cloze_predictions/")
        self.parameters.require(rightward.shapes | leftward.shapes | predictions)
        # The ends meet: the first token's left is the last token, and the last token's right is the first.
        left = np.roll(rightward.hidden_states(inputs, "left")[-1], 1, axis=1)
        right = np.roll(leftward.hidden_states(inputs, "right")[-1], -1, axis=1)
        return rightward.vocabulary_logits(np.concatenate([left, right], axis=-1), "cloze_predictions/")

    def task_outputs(self, task: str, inputs: Inputs) -> dict[str, Array]:
        """Return what a fine-tuned task's own head gives.

        Args:
            task: Its name, as in `task_specific/<task>/`.
            inputs: The batch.

        Returns:
            `logits` and `predictions` of a classifier [B, L] or tagger [B, S, L]; `predictions` [B] of a regressor;
            `start_logits`, `end_logits` [B, S] and `answerable_logit` [B] of question answering.

        Raises:
            PartNotFoundError: The checkpoint has no such task.
        """
        scope = self._task_scope(task)
        last = self.hidden_states(inputs)[-1]
        if self.parameters.holds(f"{scope}dense_"):  # only question answering has a second layer
            return self._answer(scope, last, inputs)
        self.parameters.require(dense_shapes(f"{scope}dense", self.config.hidden_size, None))
        # `classification_tasks.py` reads [CLS], `tagging_tasks.py` every token.
        logits = self.parameters.dense(last if task in TAGGING_TASKS else last[:, 0], f"{scope}dense")
        if logits.shape[-1] == 1:
            return {"predictions": logits[..., 0]}
        return {"logits": logits, "predictions": logits.argmax(axis=-1)}

    # Heads

    def _native_shapes(self) -> Shapes:
        hidden = self.config.hidden_size
        if self.task is not None:
            scope = self._task_scope(self.task.task)
            if self.task.head == "question_answering":
                return dense_shapes(f"{scope}dense", hidden, 1) | dense_shapes(f"{scope}dense_1", hidden, 1)
            return dense_shapes(f"{scope}dense", hidden, self.config.num_labels)
        if self.native_head == "pretraining":
            dense = dense_shapes(f"{self.predictions}dense", hidden, hidden)
            return dense | dense_shapes(f"{self.predictions}dense_1", hidden, 1)
        return self.transformer.vocabulary_shapes(hidden, self.predictions) if self.native_head else {}

    def _task_scope(self, task: str) -> str:
        scope = f"task_specific/{task}/"
        if not self.parameters.holds(scope):
            raise PartNotFoundError(f"this checkpoint has no task {task}: it holds nothing in {scope}")
        return scope

    def _task_head(self, task: TaskHead, last: Array) -> dict[str, Array]:
        """Apply a task's own modules, which `task_outputs` describes; answers are not confined to the context."""
        scope, dense = self._task_scope(task.task), self.parameters.dense
        match task.head:
            case "sequence_classification":
                return {"logits": dense(last[:, 0], f"{scope}dense")}  # [B, L]
            case "token_classification":
                return {"logits": dense(last, f"{scope}dense")}  # [B, S, L]
            case "question_answering":
                start, end = (dense(last, f"{scope}{module}")[..., 0] for module in ("dense", "dense_1"))  # [B, S]
                return {"start_logits": start, "end_logits": end}
            case _:
                raise ValueError(f"no task has the head {task.head!r}")

    def _replaced_logits(self, last: Array) -> Array:
        """Score each token, higher where it was replaced (`run_pretraining.py`, `_get_discriminator_output`)."""
        activate, parameters = self.transformer.activate, self.parameters
        if self.native_head == "pretraining":
            x = activate(parameters.dense(last, f"{self.predictions}dense"))
            return parameters.dense(x, f"{self.predictions}dense_1")[..., 0]
        x = activate(parameters.drawn_dense(last, "discriminator.dense", self.config.hidden_size))
        return parameters.drawn_dense(x, "discriminator.score", 1)[..., 0]

    def _vocabulary_logits(self, last: Array) -> Array:
        """Score every token of the vocabulary, with the word table tied."""
        transformer = self.transformer
        if self.native_head == "masked_lm":
            return transformer.vocabulary_logits(last, self.predictions)
        x = transformer.activate(self.parameters.drawn_dense(last, "generator.dense", self.config.embedding_size))
        x = normalise(x, self.config.layer_norm_eps)
        return np.asarray(x @ self.parameters[f"{transformer.embeddings}word_embeddings"].T)

    def _answer(self, scope: str, last: Array, inputs: Inputs) -> dict[str, Array]:
        """Answer a question (`finetune/qa/qa_tasks.py`, `get_prediction_module`, when it evaluates).

        The layers without a name are numbered as they are made: the start's; the end's; then the
        answerability classifier's, which are two if it reads the start logits.
        """
        hidden, parameters = self.config.hidden_size, self.parameters
        is_joint, is_two_layered = parameters.holds(f"{scope}qa_hidden/"), parameters.holds(f"{scope}dense_3/")
        # With joint prediction the end's reads `qa_hidden`, in a beam search; the end logits are 0.
        shapes = dense_shapes(f"{scope}dense", hidden, 1)
        if not is_joint:
            shapes |= dense_shapes(f"{scope}dense_1", hidden, 1)
        if is_two_layered:
            shapes |= dense_shapes(f"{scope}dense_2", 2 * hidden, 512) | dense_shapes(f"{scope}dense_3", 512, 1)
        elif parameters.holds(f"{scope}dense_2/"):
            shapes |= dense_shapes(f"{scope}dense_2", hidden, 1)
        parameters.require(shapes)

        answer_mask = (inputs.attention_mask * inputs.token_type_ids).astype(last.dtype)
        answer_mask[:, 0] += 1.0
        barrier = 1000.0 * (answer_mask - 1.0)
        start = parameters.dense(last, f"{scope}dense")[..., 0] + barrier  # [B, S]
        end = np.zeros_like(start) if is_joint else parameters.dense(last, f"{scope}dense_1")[..., 0] + barrier
        answerable = np.zeros_like(start[:, 0])
        if is_two_layered:
            expected_start = (softmax(start.copy())[:, None] @ last)[:, 0]  # [B, H]
            x = gelu(parameters.dense(np.concatenate([last[:, 0], expected_start], axis=-1), f"{scope}dense_2"))
            answerable = parameters.dense(x, f"{scope}dense_3")[:, 0]
        elif f"{scope}dense_2/kernel" in shapes:
            answerable = parameters.dense(last[:, 0], f"{scope}dense_2")[:, 0]
        return {"start_logits": start, "end_logits": end, "answerable_logit": answerable}

    # Transformers

    def _transformer(self, config: ElectraConfig, scope: str) -> Transformer:
        """Return the transformer built with a scope: what it has none of is `electra`'s."""
        own = scope if self.parameters.holds(scope) else "electra/"
        embeddings = f"{scope}embeddings/" if self.parameters.holds(f"{scope}embeddings/") else "electra/embeddings/"
        return Transformer(self.parameters, config, own, embeddings)

    def _tower(self, scope: str, hidden: int, embedding: int) -> Transformer:
        """Return a tower of the cloze model (`run_pretraining.py`, `get_generator_config`)."""
        layers = 0
        while self.parameters.holds(f"{scope}encoder/layer_{layers}/"):
            layers += 1
        config = msgspec.structs.replace(
            self.config,
            embedding_size=embedding,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=max(1, hidden // 64),
            intermediate_size=4 * hidden,
        )
        return self._transformer(config, scope)
