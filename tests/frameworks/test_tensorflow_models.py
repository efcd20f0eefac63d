"""The TensorFlow reference models, beside transformers' classes and beside what NumPy makes of the same parameters."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from electra_convert.config import LABELLED_HEADS, ElectraConfig
from electra_convert.errors import OptionError, TensorMismatchError
from tests.finetuned import each_task, task_difference
from tests.small import CONFIG, build_tensorflow

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("keras", minversion="3")
transformers = pytest.importorskip("transformers", minversion="4.57")
if not hasattr(transformers, "TFElectraModel"):
    pytest.skip("transformers 5 has no TensorFlow classes", allow_module_level=True)

from electra_convert.models import tensorflow as models  # noqa: E402  # there is one only where TensorFlow is

HEADS = tuple(models.MODELS)
SHARED = tuple(head for head in HEADS if head != "causal_lm")  # transformers has no class for it


def inputs_of(head: str, config: ElectraConfig, batch: int = 3, length: int = 11) -> dict[str, Any]:
    """Return a padded batch; multiple choice has two choices an example."""
    draw = np.random.default_rng(1)
    shape = (batch, 2, length) if head == "multiple_choice" else (batch, length)
    mask = np.ones(shape, np.int64)
    mask[-1, ..., length // 2 :] = 0
    return {
        "input_ids": draw.integers(0, config.vocab_size, shape),
        "attention_mask": mask,
        "token_type_ids": draw.integers(0, config.type_vocab_size, shape),
    }


def labels_of(head: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return labels that fit the inputs."""
    draw = np.random.default_rng(2)
    batch, *_, length = inputs["input_ids"].shape
    if head == "question_answering":
        return {"start_positions": np.array([1, 0, 4]), "end_positions": np.array([length + 5, 3, 4])}
    if head in ("masked_lm", "causal_lm", "token_classification"):
        labels = draw.integers(0, 3, (batch, length))
        labels[:, ::3] = -100
        return {"labels": labels}
    highest, shape = {
        "pretraining": (2, (batch, length)),
        "sequence_classification": (3, (batch,)),
        "multiple_choice": (2, (batch,)),
    }[head]
    return {"labels": draw.integers(0, highest, shape)}


def logits_of(outputs: Any) -> Any:
    """Return the logits, or what the base model returns; both of question answering, one beside the other."""
    if hasattr(outputs, "start_logits"):
        return np.stack([outputs.start_logits, outputs.end_logits], axis=-1)
    return np.asarray(outputs.last_hidden_state if hasattr(outputs, "last_hidden_state") else outputs.logits)


def difference(ours: Any, theirs: Any) -> float:
    """Return the largest difference of arrays of the same shape."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert ours.size
    return float(np.abs(ours - theirs).max())


def theirs(directory: Path, head: str, **options: Any) -> Any:
    """Load transformers' class, and check that every key found its place."""
    model, info = getattr(transformers, models.MODELS[head].__name__).from_pretrained(
        directory, output_loading_info=True, **options
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model


# Names and first values


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("kind", "embedding_size"), [("proj", 16), ("noproj", 32)])
def test_parameters_are_called_what_the_files_call_them(
    fixtures: Path, head: str, kind: str, embedding_size: int
) -> None:
    """A variable's path without the model's name, and ":0", is the name in the file of transformers' class."""
    expected = json.loads((fixtures / "name_inventories.json").read_text())["tensorflow"]
    model = build_tensorflow(head, embedding_size=embedding_size, labels=("a", "b", "c"))
    names = {variable.path.split("/", 1)[1] + ":0": list(variable.shape) for variable in model.weights}
    assert names == expected.get(type(model).__name__, expected["TFElectraForMaskedLM"])[kind]


def test_first_values_are_those_of_google() -> None:
    """Kernels and tables are normal, cut at two deviations; biases are 0 and scales 1."""
    model: Any = models.TFElectraForMaskedLM(CONFIG)
    for name, parameter in models.parameters(model).items():
        values = np.asarray(parameter)
        if name.endswith(("kernel:0", "embeddings:0", "weight:0")):
            assert 0 < np.abs(values).max() <= 2 * CONFIG.initializer_range
            assert values.std() == pytest.approx(0.88 * CONFIG.initializer_range, rel=0.25)
        else:
            assert (values == name.endswith("gamma:0")).all()


def test_another_backend_of_keras_is_refused() -> None:
    """The error says which variable to set."""
    code = "import electra_convert.models.tensorflow"
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "ImportError: Keras runs on jax" in run.stderr
    assert "KERAS_BACKEND=tensorflow" in run.stderr


# Loading, saving, and transformers' classes


@pytest.mark.parametrize("head", SHARED)
@pytest.mark.parametrize("name", ["electra_tiny", "electra_tiny_noproj"])
def test_every_class_computes_what_transformers_computes(converted: Callable[..., Path], name: str, head: str) -> None:
    """Logits, hidden states and attentions agree within 2e-5."""
    directory = converted(name, "discriminator") / head
    model = models.MODELS[head].from_pretrained(directory)
    inputs = inputs_of(head, model.config)
    options = {"output_hidden_states": True, "output_attentions": True}
    ours, reference = model(**inputs, **options), theirs(directory, head, use_safetensors=False)(**inputs, **options)
    assert difference(logits_of(ours), logits_of(reference)) < 2e-5
    layers = model.config.num_hidden_layers
    assert (len(ours.hidden_states), len(ours.attentions)) == (layers + 1, layers)
    for own, other in zip(
        ours.hidden_states + ours.attentions, [*reference.hidden_states, *reference.attentions], strict=True
    ):
        assert difference(own, other) < 2e-5


@pytest.mark.parametrize(("part", "head"), [("discriminator", "pretraining"), ("generator", "masked_lm")])
@pytest.mark.parametrize("name", ["electra_tiny", "electra_tiny_noproj", "electra_tiny_tied_weights"])
def test_native_head_computes_what_google_computes(
    converted: Callable[..., Path], fixtures: Path, name: str, part: str, head: str
) -> None:
    """Google's recorded logits come out within 1e-5 at every attended position."""
    expected = np.load(fixtures / name / "expected.npz")
    directory = converted(name, part, heads=(head,), targets=("tensorflow",)) / head
    inputs = {key: expected[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    logits = logits_of(models.MODELS[head].from_pretrained(directory)(**inputs))
    attended = expected["attention_mask"].astype(bool)
    assert difference(logits[attended], expected[f"{part}_logits"][attended]) < 1e-5


@each_task
def test_a_task_head_computes_what_google_computes(
    converted: Callable[..., Path], name: str, task: str, head: str
) -> None:
    """Google's recorded outputs come out within 1e-5, at every attended position without its answer mask."""

    def compute(directory: Path, inputs: dict[str, Any]) -> Any:
        return models.MODELS[head].from_pretrained(directory)(**inputs)

    directory = converted(name, "discriminator", heads=("native",), task=task)
    assert task_difference(directory, name, task, head, compute) < 1e-5


@pytest.mark.parametrize("head", SHARED)
def test_what_is_saved_loads_here_and_in_transformers(tmp_path: Path, head: str) -> None:
    """The values are the same to the bit, and transformers computes the same."""
    model = build_tensorflow(head, labels=("a", "b"))
    model.save_pretrained(tmp_path)
    again = models.MODELS[head].from_pretrained(tmp_path)
    labels = model.config.labels if head in LABELLED_HEADS else ("LABEL_0", "LABEL_1")  # the others have none
    assert again.config == msgspec.structs.replace(model.config, labels=labels)
    values = models.parameters(again)
    for name, variable in models.parameters(model).items():
        assert (np.asarray(variable) == np.asarray(values[name])).all(), name
    inputs = inputs_of(head, model.config)
    assert difference(logits_of(model(**inputs)), logits_of(theirs(tmp_path, head)(**inputs))) < 2e-5


def test_a_directory_of_another_model_is_refused_with_all_reasons(converted: Callable[..., Path]) -> None:
    """One error lists what is missing and what is unexpected."""
    directory = converted("electra_tiny", "discriminator") / "pretraining"
    with pytest.raises(TensorMismatchError) as caught:
        models.TFElectraForTokenClassification.from_pretrained(directory)
    for name in ("classifier/kernel:0", "classifier/bias:0", "discriminator_predictions/dense/kernel:0"):
        assert name in str(caught.value)


def test_a_new_head_is_drawn_when_asked_for(converted: Callable[..., Path]) -> None:
    """The backbone is the file's, and the head has first values."""
    directory = converted("electra_tiny", "discriminator") / "pretraining"
    model = models.TFElectraForTokenClassification.from_pretrained(directory, initialize_head=True)
    source = models.parameters(models.TFElectraForPreTraining.from_pretrained(directory))
    for name, variable in models.parameters(model).items():
        if name.startswith("electra/"):
            assert (np.asarray(variable) == np.asarray(source[name])).all(), name
    assert np.asarray(models.parameters(model)["classifier/kernel:0"]).any()


def test_tensors_of_another_shape_are_drawn_when_asked_for(tmp_path: Path) -> None:
    """They are an error otherwise."""
    build_tensorflow("token_classification").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    said = json.loads(path.read_text()) | {"id2label": {"0": "x", "1": "y"}}
    path.write_text(json.dumps(said))
    with pytest.raises(TensorMismatchError, match=r"classifier/bias:0 has shape \[3\]; expected \[2\]"):
        models.TFElectraForTokenClassification.from_pretrained(tmp_path)
    model = models.TFElectraForTokenClassification.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    kernel = np.asarray(models.parameters(model)["classifier/kernel:0"])
    assert kernel.shape == (32, 2)
    assert 0 < np.abs(kernel).max() <= 2 * CONFIG.initializer_range


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16", "float32", "float64"])
def test_a_model_computes_in_the_dtype_asked_for(tmp_path: Path, dtype: str | None) -> None:
    """Without one, in the file's."""
    build_tensorflow("masked_lm", dtype="float16").save_pretrained(tmp_path)
    model = models.TFElectraForMaskedLM.from_pretrained(tmp_path, dtype=dtype)
    outputs = model(**inputs_of("masked_lm", CONFIG), output_hidden_states=True)
    assert {array.dtype.name for array in (outputs.logits, *outputs.hidden_states)} == {dtype or "float16"}
    assert {variable.dtype for variable in model.weights} == {dtype or "float16"}
    assert np.isfinite(np.asarray(tf.cast(outputs.logits, "float64"))).all()


def test_an_unknown_dtype_is_refused() -> None:
    """The error names those there are."""
    with pytest.raises(OptionError, match=r"int8.*float32"):
        models.TFElectraModel(CONFIG, dtype="int8")


# The graph


def by_hand(model: Any, inputs: dict[str, Any], *, causal: bool) -> Any:
    """Return the logits of a language model, computed in NumPy from its parameters."""
    values = {name.removesuffix(":0"): np.asarray(variable) for name, variable in models.parameters(model).items()}
    erf, config = np.vectorize(math.erf), model.config

    def dense(name: str, x: Any) -> Any:
        return x @ values[f"{name}/kernel"] + values[f"{name}/bias"]

    def norm(name: str, x: Any) -> Any:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config.layer_norm_eps)
        return x * values[f"{name}/gamma"] + values[f"{name}/beta"]

    def gelu(x: Any) -> Any:
        return x * (1 + erf(x / math.sqrt(2))) / 2

    tables, length = "electra/embeddings", inputs["input_ids"].shape[1]
    words = values[f"{tables}/word_embeddings/weight"]
    x = words[inputs["input_ids"]] + values[f"{tables}/position_embeddings/embeddings"][:length]
    x = norm(f"{tables}/LayerNorm", x + values[f"{tables}/token_type_embeddings/embeddings"][inputs["token_type_ids"]])
    x = dense("electra/embeddings_project", x)
    visible = inputs["attention_mask"][:, None, :] * (np.tri(length) if causal else 1)
    width = config.hidden_size // config.num_attention_heads
    for layer in (f"electra/encoder/layer_._{index}" for index in range(config.num_hidden_layers)):
        query, key, value = (dense(f"{layer}/attention/self/{name}", x) for name in ("query", "key", "value"))
        heads = []
        for part in (slice(start, start + width) for start in range(0, config.hidden_size, width)):
            scores = query[..., part] @ key[..., part].swapaxes(1, 2) / math.sqrt(width)
            weights = np.exp(scores - scores.max(-1, keepdims=True)) * visible
            heads.append(weights / weights.sum(-1, keepdims=True) @ value[..., part])
        attended = dense(f"{layer}/attention/output/dense", np.concatenate(heads, axis=-1))
        x = norm(f"{layer}/attention/output/LayerNorm", attended + x)
        made = dense(f"{layer}/output/dense", gelu(dense(f"{layer}/intermediate/dense", x)))
        x = norm(f"{layer}/output/LayerNorm", made + x)
    x = norm("generator_predictions/LayerNorm", gelu(dense("generator_predictions/dense", x)))
    return x @ words.T + values["generator_lm_head/bias"]


@pytest.mark.parametrize("head", ["masked_lm", "causal_lm"])
def test_float64_is_float64_everywhere(head: str) -> None:
    """Logits agree with NumPy's within 1e-11: nothing is rounded to float32. The causal model is causal."""
    model = build_tensorflow(head, dtype="float64")
    inputs = inputs_of(head, CONFIG)
    expected = by_hand(model, inputs, causal=head == "causal_lm")
    assert difference(logits_of(model(**inputs)), expected) < 1e-11


@pytest.mark.parametrize("head", HEADS)
def test_rows_of_the_word_table_and_default_positions_change_nothing(head: str) -> None:
    """`inputs_embeds` stand for the rows that `input_ids` name; positions count from 0, segments are 0."""
    model = build_tensorflow(head)
    inputs = inputs_of(head, CONFIG)
    ids = inputs["input_ids"]
    table = np.asarray(models.parameters(model)["electra/embeddings/word_embeddings/weight:0"])
    rows = {"inputs_embeds": table[ids], "position_ids": np.broadcast_to(np.arange(ids.shape[-1]), ids.shape)}
    zeros, ones = np.zeros_like(ids), np.ones_like(ids)
    explicit = model(**rows, token_type_ids=zeros, attention_mask=ones)
    assert difference(logits_of(model(ids)), logits_of(explicit)) < 1e-5
    shifted = model(ids, position_ids=rows["position_ids"] + 1)
    assert difference(logits_of(model(ids)), logits_of(shifted)) > 1e-3


@pytest.mark.parametrize("head", HEADS)
def test_inputs_that_cannot_be_are_refused(head: str) -> None:
    """Neither, both, or too many positions."""
    model = build_tensorflow(head)
    ids = inputs_of(head, CONFIG, length=41)["input_ids"]
    for given in ({}, {"input_ids": ids, "inputs_embeds": np.zeros((*ids.shape, 16), "float32")}):
        with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
            model(**given)
    with pytest.raises(ValueError, match="41 positions; max_position_embeddings is 40"):
        model(ids)


@pytest.mark.parametrize("head", HEADS)
def test_dropout_is_active_in_training_only(head: str) -> None:
    """Two calls agree, but for training ones."""
    model = build_tensorflow(head)
    inputs = inputs_of(head, CONFIG)
    assert difference(logits_of(model(**inputs)), logits_of(model(**inputs, training=False))) == 0
    assert difference(logits_of(model(**inputs)), logits_of(model(**inputs, training=True))) > 1e-3


@pytest.mark.parametrize("head", HEADS)
def test_a_compiled_function_gives_the_same(head: str) -> None:
    """`tf.function` takes the model, with lengths it does not know too, and what is not there stays None."""
    model = build_tensorflow(head)
    inputs = inputs_of(head, CONFIG)
    compiled = tf.function(lambda given: model(**given), reduce_retracing=True)
    outputs = compiled({name: tf.constant(value) for name, value in inputs.items()})
    assert outputs.hidden_states is None
    assert difference(logits_of(outputs), logits_of(model(**inputs))) < 1e-4
    axes = [None] * inputs["input_ids"].ndim
    loose = tf.function(model, input_signature=[tf.TensorSpec(axes, tf.int64)])
    ids = inputs["input_ids"]
    assert difference(logits_of(loose(tf.constant(ids))), logits_of(model(ids))) < 1e-4


# Losses


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Return -log softmax at the labels."""
    logits = logits - logits.max(-1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(logs, np.asarray(labels)[..., None], -1)[..., 0]


def binary(logits: Any, labels: Any) -> Any:
    """Return the binary cross entropy."""
    probability = 1 / (1 + np.exp(-logits))
    return -(labels * np.log(probability) + (1 - labels) * np.log(1 - probability))


@pytest.mark.parametrize("head", [head for head in HEADS if head != "base"])
def test_the_loss_is_the_one_described(head: str) -> None:
    """It is the mean over what counts, as NumPy finds it."""
    model = build_tensorflow(head, dtype="float64")
    inputs = inputs_of(head, CONFIG)
    given = labels_of(head, inputs)
    outputs = model(**inputs, **given)
    logits, labels = logits_of(outputs), np.asarray(given.get("labels"))
    if head == "pretraining":
        expected = binary(logits, labels)[inputs["attention_mask"] == 1].mean()
    elif head == "question_answering":
        ends = cross_entropy(logits[1:, :, 1], given["end_positions"][1:]).mean()  # the first lies past the end
        expected = (cross_entropy(logits[..., 0], given["start_positions"]).mean() + ends) / 2
    else:
        if head == "causal_lm":
            logits, labels = logits[:, :-1], labels[:, 1:]
        counted = labels != -100
        expected = cross_entropy(logits[counted], labels[counted]).mean()
    assert float(outputs.loss) == pytest.approx(expected, rel=1e-10)


def test_the_kind_of_labels_chooses_the_classifiers_loss() -> None:
    """Floats for each label are held against each; one label is a score."""
    inputs = inputs_of("sequence_classification", CONFIG)
    model = build_tensorflow("sequence_classification", dtype="float64")
    labels = np.random.default_rng(3).uniform(size=(3, 3))
    outputs = model(**inputs, labels=labels)
    assert float(outputs.loss) == pytest.approx(binary(logits_of(outputs), labels).mean(), rel=1e-10)
    model = build_tensorflow("sequence_classification", dtype="float64", labels=("score",))
    outputs = model(**inputs, labels=labels[:, 0])
    assert float(outputs.loss) == pytest.approx(((logits_of(outputs)[:, 0] - labels[:, 0]) ** 2).mean(), rel=1e-10)


KEY_BIAS: tuple[str, ...] = ("key/bias:0",)
UNSEEN = {
    "multiple_choice": (*KEY_BIAS, "classifier/bias:0"),
    "question_answering": (*KEY_BIAS, "qa_outputs/bias:0", "layer_._1/output/LayerNorm/beta:0"),
}
"""What shifts all choices, or all positions, by the same."""


@pytest.mark.parametrize("head", [head for head in HEADS if head != "base"])
def test_gradients_reach_every_parameter(head: str) -> None:
    """In training, each has one that is finite; only what adds the same to all that a softmax is of has none."""
    model = build_tensorflow(head)
    inputs = inputs_of(head, CONFIG)
    with tf.GradientTape() as tape:
        loss = model(**inputs, **labels_of(head, inputs), training=True).loss
    variables = models.parameters(model)
    gradients = tape.gradient(loss, [variable.value for variable in variables.values()])
    for name, gradient in zip(variables, gradients, strict=True):
        values = np.asarray(tf.convert_to_tensor(gradient))
        assert np.isfinite(values).all(), name
        assert name.endswith(UNSEEN.get(head, KEY_BIAS)) != bool(np.abs(values).max() > 1e-6), name
