"""The Flax reference models, beside transformers' classes and beside losses worked out in NumPy."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_convert.config import ElectraConfig
from electra_convert.errors import OptionError, TensorMismatchError
from tests.finetuned import each_task, task_difference
from tests.small import CONFIG

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
jax = pytest.importorskip("jax")
pytest.importorskip("flax")
transformers = pytest.importorskip("transformers", minversion="4.57")
if not hasattr(transformers, "FlaxElectraModel"):
    pytest.skip("transformers 5 has no Flax classes", allow_module_level=True)

jax.config.update("jax_disable_most_optimizations", True)  # noqa: FBT003  # to compile takes most of the time

import jax.numpy as jnp  # noqa: E402  # there is one only where JAX is
from flax import nnx  # noqa: E402

from electra_convert.models import flax as models  # noqa: E402

HEADS = tuple(models.MODELS)


def build(head: str, **changes: Any) -> Any:
    """Build a small model in evaluation mode, with values that are far from the first ones."""
    config = ElectraConfig(**{name: getattr(CONFIG, name) for name in CONFIG.__struct_fields__} | changes)
    model: Any = models.MODELS[head](config, rngs=nnx.Rngs(0))
    draw = np.random.default_rng(0)
    for parameter in models.parameters(model).values():
        parameter.set_value(parameter[...] + jnp.asarray(draw.normal(0, 0.3, parameter.shape), parameter.dtype))
    model.eval()
    return model


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


def labels_of(head: str, config: ElectraConfig, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return labels that fit the inputs."""
    draw = np.random.default_rng(2)
    batch, *_, length = inputs["input_ids"].shape
    if head == "question_answering":
        positions = {
            "start_positions": draw.integers(0, length, batch),
            "end_positions": draw.integers(0, length, batch),
        }
        positions["end_positions"][0] = length + 5
        return positions
    if head in ("masked_lm", "causal_lm", "token_classification"):
        labels = draw.integers(0, config.num_labels, (batch, length))
        labels[:, ::3] = -100
        return {"labels": labels}
    highest, shape = {
        "pretraining": (2, (batch, length)),
        "sequence_classification": (config.num_labels, (batch,)),
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


@dataclass
class Said(logging.Handler):
    """Collects what transformers says of keys."""

    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        logging.Handler.__init__(self, logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.messages.append(record.getMessage())

    __hash__ = logging.Handler.__hash__


def theirs(directory: Path, head: str, **options: Any) -> Any:
    """Load transformers' class, and check that every key found its place."""
    said = Said()
    logger = logging.getLogger("transformers.modeling_flax_utils")
    logger.addHandler(said)
    try:
        model = getattr(transformers, models.MODELS[head].__name__).from_pretrained(directory, **options)
    finally:
        logger.removeHandler(said)
    complaints = [message for message in said.messages if "weights" in message]
    assert not complaints, "\n".join(complaints)
    return model


@pytest.fixture
def float64() -> Iterator[None]:
    """Let JAX compute in float64."""
    jax.config.update("jax_enable_x64", True)  # noqa: FBT003  # JAX's own signature
    yield
    jax.config.update("jax_enable_x64", False)  # noqa: FBT003


# Names and first values


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("kind", "embedding_size"), [("proj", 16), ("noproj", 32)])
def test_parameters_are_called_what_the_files_call_them(
    fixtures: Path, head: str, kind: str, embedding_size: int
) -> None:
    """The paths in the nnx state, joined, are the names and shapes of transformers' class."""
    expected = json.loads((fixtures / "name_inventories.json").read_text())["flax"]
    model = build(head, embedding_size=embedding_size)
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    names = {"/".join(map(str, path)): list(variable.shape) for path, variable in state}
    assert names == expected[type(model).__name__][kind]


def test_first_values_are_those_of_google() -> None:
    """Kernels and tables are normal, cut at two deviations; biases are 0 and scales 1."""
    model: Any = models.FlaxElectraForMaskedLM(CONFIG, rngs=nnx.Rngs(0))
    for name, parameter in models.parameters(model).items():
        values = np.asarray(parameter[...])
        if name.endswith(("kernel", "embedding")):
            assert 0 < np.abs(values).max() <= 2 * CONFIG.initializer_range
            assert values.std() == pytest.approx(0.88 * CONFIG.initializer_range, rel=0.2)
        else:
            assert (values == name.endswith("scale")).all()


# Loading, saving, and transformers' classes


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *(("electra_tiny", head) for head in HEADS),
        ("electra_tiny_noproj", "base"),
        ("electra_tiny_noproj", "masked_lm"),
    ],
)
def test_every_class_computes_what_transformers_computes(converted: Callable[..., Path], name: str, head: str) -> None:
    """Logits, hidden states and attentions agree within 2e-5."""
    directory = converted(name, "discriminator") / head
    model = models.MODELS[head].from_pretrained(directory)
    inputs = inputs_of(head, model.config)
    options = {"output_hidden_states": True, "output_attentions": True}
    ours, reference = model(**inputs, **options), theirs(directory, head)(**inputs, **options)
    assert difference(logits_of(ours), logits_of(reference)) < 2e-5
    assert len(ours.hidden_states) == len(reference.hidden_states) == model.config.num_hidden_layers + 1
    assert len(ours.attentions) == len(reference.attentions) == model.config.num_hidden_layers
    for own, other in zip(ours.hidden_states, reference.hidden_states, strict=True):
        assert difference(own, other) < 2e-5
    for own, other in zip(ours.attentions, reference.attentions, strict=True):
        assert difference(own, other) < 2e-5


@pytest.mark.parametrize("part", ["discriminator", "generator"])
@pytest.mark.parametrize("name", ["electra_tiny", "electra_tiny_noproj", "electra_tiny_tied_weights"])
def test_native_head_computes_what_google_computes(
    converted: Callable[..., Path], fixtures: Path, name: str, part: str
) -> None:
    """Google's recorded logits come out within 1e-5 at every attended position."""
    expected = np.load(fixtures / name / "expected.npz")
    head = {"discriminator": "pretraining", "generator": "masked_lm"}[part]
    model: Any = models.MODELS[head].from_pretrained(converted(name, part) / head)
    inputs = {key: expected[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    attended = expected["attention_mask"].astype(bool)
    assert attended.any()
    assert difference(np.asarray(model(**inputs).logits)[attended], expected[f"{part}_logits"][attended]) < 1e-5


@each_task
def test_a_task_head_computes_what_google_computes(
    converted: Callable[..., Path], name: str, task: str, head: str
) -> None:
    """Google's recorded outputs come out within 1e-5, at every attended position without its answer mask."""

    def compute(directory: Path, inputs: dict[str, Any]) -> Any:
        return models.MODELS[head].from_pretrained(directory)(**inputs)

    directory = converted(name, "discriminator", heads=("native",), task=task)
    assert task_difference(directory, name, task, head, compute) < 1e-5


@pytest.mark.parametrize("head", HEADS)
def test_what_is_saved_is_what_was_there(tmp_path: Path, head: str) -> None:
    """A saved model loads with the same values, here and in transformers, which computes the same."""
    model = build(head, labels=("a", "b", "c") if "classification" in head else CONFIG.labels[:2])
    model.save_pretrained(tmp_path)
    again: Any = models.MODELS[head].from_pretrained(tmp_path)
    if "classification" in head:
        assert again.config.labels == ("a", "b", "c")
    first, second = models.parameters(model), models.parameters(again)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name][...], second[name][...]) for name in first)
    inputs = inputs_of(head, model.config)
    assert difference(logits_of(again(**inputs)), logits_of(model(**inputs))) == 0
    assert difference(logits_of(again(**inputs)), logits_of(theirs(tmp_path, head)(**inputs))) < 1e-4


def test_the_shared_layout_loads(converted: Callable[..., Path]) -> None:
    """Shards load too, and the base model takes the backbone's with its prefix."""
    inputs = inputs_of("base", CONFIG)
    single, shared = (
        models.FlaxElectraModel.from_pretrained(converted("electra_tiny", "discriminator", layout=layout) / "base")
        for layout in ("single", "shared")
    )
    assert difference(single(**inputs)[0], shared(**inputs)[0]) == 0


def test_every_mismatch_is_in_one_error(converted: Callable[..., Path], tmp_path: Path) -> None:
    """Missing, unexpected and mis-shaped tensors are listed together, with their names."""
    with pytest.raises(TensorMismatchError) as raised:
        models.FlaxElectraForMaskedLM.from_pretrained(converted("electra_tiny", "discriminator") / "pretraining")
    told = "\n".join(raised.value.problems)
    assert "generator_lm_head/bias [600] is missing" in told
    assert "discriminator_predictions/dense/kernel [64, 64] is unexpected" in told
    assert len(raised.value.problems) == 9
    build("sequence_classification").save_pretrained(tmp_path)
    relabel(tmp_path, 5)
    with pytest.raises(TensorMismatchError, match=r"out_proj/kernel has shape \[32, 3\]; expected \[32, 5\]"):
        models.FlaxElectraForSequenceClassification.from_pretrained(tmp_path)


def relabel(directory: Path, count: int) -> None:
    """Give a config another number of labels."""
    config = json.loads((directory / "config.json").read_text())
    config |= {"id2label": {str(i): str(i) for i in range(count)}, "label2id": {str(i): i for i in range(count)}}
    (directory / "config.json").write_text(json.dumps(config))


def test_a_new_head_goes_on_a_backbone(tmp_path: Path) -> None:
    """With `initialize_head`, the head is drawn as the constructor draws it, and the backbone is the file's."""
    source = build("pretraining")
    source.save_pretrained(tmp_path)
    load = models.FlaxElectraForTokenClassification.from_pretrained
    with pytest.raises(TensorMismatchError, match="classifier/kernel"):
        load(tmp_path)
    values, other, same = (
        models.parameters(load(tmp_path, initialize_head=True, rngs=nnx.Rngs(seed))) for seed in (1, 2, 1)
    )
    kernel = np.asarray(values["classifier/kernel"][...])
    assert 0 < np.abs(kernel).max() <= 2 * CONFIG.initializer_range
    assert not np.asarray(values["classifier/bias"][...]).any()
    assert np.array_equal(kernel, same["classifier/kernel"][...])
    assert not np.array_equal(kernel, other["classifier/kernel"][...])
    there = models.parameters(source)
    assert all(np.array_equal(values[name][...], there[name][...]) for name in values if name.startswith("electra/"))


def test_what_has_another_shape_can_be_drawn(tmp_path: Path) -> None:
    """With `ignore_mismatched_sizes`, only what is mis-shaped is drawn."""
    build("sequence_classification").save_pretrained(tmp_path)
    relabel(tmp_path, 5)
    model: Any = models.FlaxElectraForSequenceClassification.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    assert model.classifier.out_proj.kernel.shape == (32, 5)
    assert np.abs(model.classifier.out_proj.kernel[...]).max() <= 2 * CONFIG.initializer_range
    assert np.abs(model.classifier.dense.kernel[...]).max() > 2 * CONFIG.initializer_range
    assert np.isfinite(logits_of(model(**inputs_of("sequence_classification", CONFIG)))).all()


# Dtypes


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.usefixtures("float64")
def test_float64_is_float64_everywhere(converted: Callable[..., Path], head: str) -> None:
    """In float64, transformers' class, whose parameters are cast, agrees within 1e-10."""
    directory = converted("electra_tiny", "discriminator") / head
    model: Any = models.MODELS[head].from_pretrained(directory, dtype="float64")
    inputs = inputs_of(head, model.config)
    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    reference = theirs(directory, head, dtype=jnp.float64)
    reference.params = jax.tree_util.tree_map(lambda values: jnp.asarray(values, jnp.float64), reference.params)
    assert {leaf.dtype for leaf in jax.tree_util.tree_leaves(outputs)} == {jnp.dtype("float64")}
    assert difference(logits_of(outputs), logits_of(reference(**inputs))) < 1e-10


def test_float64_without_x64_is_refused(converted: Callable[..., Path]) -> None:
    """JAX would compute in float32 and say nothing."""
    directory = converted("electra_tiny", "discriminator") / "base"
    with pytest.raises(OptionError, match="jax_enable_x64"):
        models.FlaxElectraModel.from_pretrained(directory, dtype="float64")
    with pytest.raises(OptionError, match="jax_enable_x64"):
        models.FlaxElectraModel(CONFIG, dtype="float64", rngs=nnx.Rngs(0))
    jax.config.update("jax_enable_x64", True)  # noqa: FBT003
    try:
        model = models.FlaxElectraModel.from_pretrained(directory, dtype="float64")
    finally:
        jax.config.update("jax_enable_x64", False)  # noqa: FBT003
    with pytest.raises(OptionError, match="jax_enable_x64"):
        model(**inputs_of("base", CONFIG))
    with pytest.raises(OptionError, match="int8"):
        models.FlaxElectraModel.from_pretrained(directory, dtype="int8")


@pytest.mark.parametrize(("dtype", "head"), [*(("bfloat16", head) for head in HEADS), ("float16", "masked_lm")])
def test_half_precision_stays_half(tmp_path: Path, dtype: str, head: str) -> None:
    """The dtype asked for, and after saving that of the file, is that of every parameter and output."""
    model = build(head)
    model.save_pretrained(tmp_path / "float32")
    half: Any = models.MODELS[head].from_pretrained(tmp_path / "float32", dtype=dtype)
    half.save_pretrained(tmp_path / "half")
    again: Any = models.MODELS[head].from_pretrained(tmp_path / "half")
    assert {parameter.dtype for parameter in models.parameters(again).values()} == {jnp.dtype(dtype)}
    inputs = inputs_of(head, model.config)
    labels = {} if head == "base" else labels_of(head, model.config, inputs)
    outputs = again(**inputs, **labels, output_hidden_states=True, output_attentions=True)
    assert {leaf.dtype for leaf in jax.tree_util.tree_leaves(outputs)} == {jnp.dtype(dtype)}
    close = np.asarray(logits_of(outputs), np.float32), logits_of(model(**inputs))
    assert difference(*close) < 0.05 * max(1.0, float(np.abs(close[1]).max()))


# Inputs


def test_embeddings_stand_for_words(converted: Callable[..., Path]) -> None:
    """The word table's rows given as `inputs_embeds` give what the ids give; both or neither are refused."""
    model: Any = models.FlaxElectraForPreTraining.from_pretrained(
        converted("electra_tiny", "discriminator") / "pretraining"
    )
    inputs = inputs_of("pretraining", model.config)
    rows = np.asarray(model.electra.embeddings.word_embeddings.embedding[...])[inputs["input_ids"]]
    others = {key: value for key, value in inputs.items() if key != "input_ids"}
    assert difference(model(inputs_embeds=rows, **others).logits, model(**inputs).logits) == 0
    with pytest.raises(ValueError, match="exactly one"):
        model(**inputs, inputs_embeds=rows)
    with pytest.raises(ValueError, match="exactly one"):
        model(**others)


def test_multiple_choice_takes_embeddings(converted: Callable[..., Path]) -> None:
    """Every input of multiple choice has the axis of choices."""
    model: Any = models.FlaxElectraForMultipleChoice.from_pretrained(
        converted("electra_tiny", "discriminator") / "multiple_choice"
    )
    inputs = inputs_of("multiple_choice", model.config)
    inputs["position_ids"] = np.broadcast_to(np.arange(11), inputs["input_ids"].shape)
    rows = np.asarray(model.electra.embeddings.word_embeddings.embedding[...])[inputs["input_ids"]]
    others = {key: value for key, value in inputs.items() if key != "input_ids"}
    assert model(**inputs).logits.shape == (3, 2)
    assert difference(model(inputs_embeds=rows, **others).logits, model(**inputs).logits) == 0
    with pytest.raises(ValueError, match="exactly one"):
        model(**others)


def test_defaults_are_ones_zeros_and_positions() -> None:
    """Without a mask everything is attended to, types are 0, and positions count from 0."""
    model = build("base")
    ids = inputs_of("base", CONFIG)["input_ids"]
    said = model(ids, np.ones_like(ids), np.zeros_like(ids), np.arange(11)[None])[0]
    assert difference(model(ids)[0], said) == 0
    reversed_positions = np.broadcast_to(np.arange(11)[::-1], ids.shape)
    assert difference(model(ids, position_ids=reversed_positions)[0], said) > 0.01
    assert difference(model(ids, token_type_ids=np.ones_like(ids))[0], said) > 0.01


def test_positions_are_those_given(converted: Callable[..., Path]) -> None:
    """Other positions give what they give in transformers."""
    directory = converted("electra_tiny", "discriminator") / "base"
    model = models.FlaxElectraModel.from_pretrained(directory)
    inputs = inputs_of("base", model.config)
    inputs["position_ids"] = np.broadcast_to(np.arange(20, 9, -1), inputs["input_ids"].shape)
    assert difference(model(**inputs)[0], theirs(directory, "base")(**inputs)[0]) < 2e-5


def test_a_sequence_that_is_too_long_is_refused() -> None:
    """The position table has a last row."""
    model = build("base")
    assert np.isfinite(model(np.zeros((1, 40), int))[0]).all()
    with pytest.raises(ValueError, match="41 positions; max_position_embeddings is 40"):
        model(np.zeros((1, 41), int))


def test_causal_positions_do_not_see_what_follows() -> None:
    """Another last token changes the last position's logits only; without a causal mask it changes all."""
    inputs = inputs_of("causal_lm", CONFIG, batch=1)
    del inputs["attention_mask"]
    changed = inputs | {"input_ids": inputs["input_ids"].copy()}
    changed["input_ids"][0, -1] = (changed["input_ids"][0, -1] + 1) % CONFIG.vocab_size
    causal, full = build("causal_lm"), build("masked_lm")
    assert difference(causal(**inputs).logits[:, :-1], causal(**changed).logits[:, :-1]) == 0
    assert difference(causal(**inputs).logits[:, -1], causal(**changed).logits[:, -1]) > 0.01
    assert difference(full(**inputs).logits[:, :-1], full(**changed).logits[:, :-1]) > 0.001


@pytest.mark.parametrize("activation", ["relu", "tanh", "linear"])
def test_the_activation_is_the_config_s(tmp_path: Path, activation: str) -> None:
    """`hidden_act` is used in layers and in the discriminator's head, as transformers does."""
    model = build("pretraining", hidden_act=activation)
    model.save_pretrained(tmp_path)
    inputs = inputs_of("pretraining", CONFIG)
    assert difference(model(**inputs).logits, build("pretraining")(**inputs).logits) > 0.01
    if activation in ("relu", "tanh"):  # transformers' Flax classes know no other
        assert difference(model(**inputs).logits, theirs(tmp_path, "pretraining")(**inputs).logits) < 1e-4


# Losses


def cross_entropy(logits: Any, labels: Any) -> float:
    """Work out the mean of -log softmax at the labels that are not -100."""
    logits = np.asarray(logits, np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    counted = [-log_probabilities[index][label] for index, label in np.ndenumerate(labels) if label != -100]
    return float(np.mean(counted))


def binary_cross_entropy(logits: Any, labels: Any) -> Any:
    """Work out the binary cross entropy of each logit."""
    probability = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    return -(labels * np.log(probability) + (1 - labels) * np.log(1 - probability))


@pytest.mark.parametrize("head", ["masked_lm", "token_classification", "sequence_classification", "multiple_choice"])
def test_loss_is_the_cross_entropy(head: str) -> None:
    """It is the mean over labels that are not -100."""
    model = build(head)
    inputs = inputs_of(head, CONFIG)
    outputs = model(**inputs, **(labels := labels_of(head, CONFIG, inputs)))
    assert float(outputs.loss) == pytest.approx(cross_entropy(outputs.logits, labels["labels"]), rel=1e-5)
    assert model(**inputs).loss is None


def test_causal_loss_looks_one_ahead() -> None:
    """Each position is to foretell the next label."""
    model, inputs = build("causal_lm"), inputs_of("causal_lm", CONFIG)
    outputs = model(**inputs, **(labels := labels_of("causal_lm", CONFIG, inputs)))
    expected = cross_entropy(outputs.logits[:, :-1], labels["labels"][:, 1:])
    assert float(outputs.loss) == pytest.approx(expected, rel=1e-5)


def test_pretraining_loss_counts_what_is_attended_to() -> None:
    """It is the mean binary cross entropy where the mask is 1; everywhere, without a mask."""
    model, inputs = build("pretraining"), inputs_of("pretraining", CONFIG)
    outputs = model(**inputs, **(labels := labels_of("pretraining", CONFIG, inputs)))
    each = binary_cross_entropy(outputs.logits, labels["labels"])
    assert float(outputs.loss) == pytest.approx(each[inputs.pop("attention_mask") == 1].mean(), rel=1e-5)
    outputs = model(**inputs, **labels)
    assert float(outputs.loss) == pytest.approx(binary_cross_entropy(outputs.logits, **labels).mean(), rel=1e-5)


def test_classification_loss_follows_the_labels() -> None:
    """Float labels per class are independent; one label is a score."""
    inputs = inputs_of("sequence_classification", CONFIG)
    several = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    outputs = build("sequence_classification")(**inputs, labels=several)
    assert float(outputs.loss) == pytest.approx(binary_cross_entropy(outputs.logits, several).mean(), rel=1e-5)
    scores = np.array([0.5, -1.0, 2.0])
    outputs = build("sequence_classification", labels=("score",))(**inputs, labels=scores)
    assert float(outputs.loss) == pytest.approx(((np.asarray(outputs.logits)[:, 0] - scores) ** 2).mean(), rel=1e-5)


def test_answers_outside_the_sequence_are_not_counted() -> None:
    """Start and end weigh the same; a position past the end is left out, one before the start is the start."""
    model, inputs = build("question_answering"), inputs_of("question_answering", CONFIG)
    outputs = model(**inputs, start_positions=np.array([3, -2, 5]), end_positions=np.array([11, 99, 7]))
    start = cross_entropy(outputs.start_logits, np.array([3, 0, 5]))
    end = cross_entropy(outputs.end_logits, np.array([-100, -100, 7]))
    assert float(outputs.loss) == pytest.approx((start + end) / 2, rel=1e-5)


# Training, and compilation


@pytest.mark.parametrize("head", HEADS)
def test_dropout_is_for_training(converted: Callable[..., Path], head: str) -> None:
    """A loaded model answers twice the same; in training it does not, and each layer drops others."""
    model: Any = models.MODELS[head].from_pretrained(converted("electra_tiny", "discriminator") / head)
    inputs = inputs_of(head, model.config)
    first = logits_of(model(**inputs))
    assert difference(logits_of(model(**inputs)), first) == 0
    model.train()
    assert difference(logits_of(model(**inputs)), logits_of(model(**inputs))) > 0
    keys = [np.asarray(jax.random.key_data(key[...])) for _, key in nnx.to_flat_state(nnx.state(model, nnx.RngKey))]
    assert len(keys) >= 3 * model.config.num_hidden_layers + 1
    assert len({key.tobytes() for key in keys}) == len(keys)
    model.eval()
    assert difference(logits_of(model(**inputs)), first) == 0


KEY_BIAS: tuple[str, ...] = ("key/bias",)
UNSEEN = {
    "multiple_choice": (*KEY_BIAS, "classifier/bias"),
    "question_answering": (*KEY_BIAS, "qa_outputs/bias", "layer/1/output/LayerNorm/bias"),
}
"""What shifts all choices, or all positions, by the same."""


@pytest.mark.parametrize("head", HEADS)
def test_gradients_reach_every_parameter(head: str) -> None:
    """Under `nnx.jit`, in training mode; only what adds the same to all that a softmax is of has none."""
    model = build(head)
    inputs = inputs_of(head, CONFIG)
    labels = {} if head == "base" else labels_of(head, CONFIG, inputs)
    model.train()

    def loss(model: Any) -> Any:
        outputs = model(**inputs, **labels)
        return jnp.mean(outputs.last_hidden_state**3) if head == "base" else outputs.loss

    gradients = nnx.to_flat_state(nnx.jit(nnx.grad(loss))(model))
    assert len(gradients) == len(models.parameters(model))
    for path, gradient in gradients:
        values = np.asarray(gradient[...])
        assert np.isfinite(values).all()
        name = "/".join(map(str, path))
        assert name.endswith(UNSEEN.get(head, KEY_BIAS)) != bool(np.abs(values).max() > 1e-6), name


def test_a_step_of_training_lowers_the_loss() -> None:
    """Gradients point where they should."""
    model, inputs = build("masked_lm"), inputs_of("masked_lm", CONFIG)
    labels = labels_of("masked_lm", CONFIG, inputs)
    before, gradients = nnx.jit(nnx.value_and_grad(lambda model: model(**inputs, **labels).loss))(model)
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree_util.tree_map(lambda value, gradient: value - 0.01 * gradient, state, gradients))
    assert float(model(**inputs, **labels).loss) < float(before)


@pytest.mark.parametrize("head", HEADS)
def test_compiled_is_the_same(head: str) -> None:
    """`nnx.jit` gives what eager gives: loss, logits and all that can be asked for."""
    model = build(head)
    inputs = inputs_of(head, CONFIG)
    inputs |= {} if head == "base" else labels_of(head, CONFIG, inputs)

    def run(model: Any, inputs: dict[str, Any]) -> Any:
        return model(**inputs, output_hidden_states=True, output_attentions=True)

    eager, compiled = run(model, inputs), nnx.jit(run)(model, inputs)
    assert type(compiled) is type(eager)
    leaves = jax.tree_util.tree_leaves(eager), jax.tree_util.tree_leaves(compiled)
    assert all(difference(*pair) < 1e-4 for pair in zip(*leaves, strict=True))


@pytest.mark.parametrize("head", HEADS)
def test_nothing_is_returned_that_was_not_asked_for(head: str) -> None:
    """Hidden states and attentions are None by default, and come one by one."""
    model, inputs = build(head), inputs_of(head, CONFIG)
    outputs = model(**inputs)
    assert outputs.hidden_states is None
    assert outputs.attentions is None
    assert model(**inputs, output_hidden_states=True).attentions is None
    assert model(**inputs, output_attentions=True).hidden_states is None
