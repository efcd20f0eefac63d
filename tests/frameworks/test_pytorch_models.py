"""The PyTorch models: what they compute, load, save and refuse, beside transformers' classes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_convert.config import ElectraConfig
from electra_convert.errors import OptionError, OutputError, TensorMismatchError
from tests.finetuned import compute_pytorch, each_task, task_difference

os.environ.setdefault("USE_TF", "0")
os.environ.setdefault("USE_FLAX", "0")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
models = pytest.importorskip("electra_convert.models.pytorch")

HEADS = list(models.MODELS)
TINY = ElectraConfig(
    vocab_size=50,
    embedding_size=16,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=12,
    labels=("a", "b", "c"),
)
each_head = pytest.mark.parametrize("head", HEADS)


def batch(head: str, vocab_size: int = 50) -> dict[str, Any]:
    """Return two padded sequences of 9, of two choices each where there are choices."""
    torch.manual_seed(0)
    shape = (2, 2, 9) if head == "multiple_choice" else (2, 9)
    mask = torch.ones(shape, dtype=torch.long)
    mask[-1, ..., 6:] = 0
    return {
        "input_ids": torch.randint(0, vocab_size, shape),
        "attention_mask": mask,
        "token_type_ids": (torch.arange(9) > 4).long().expand(shape),
    }


def answers(head: str, labels: int) -> dict[str, Any]:
    """Return labels of that batch, some of which do not count."""
    torch.manual_seed(1)
    ignored = torch.arange(9).expand(2, 9) % 4 == 0
    return {
        "base": {},
        "pretraining": {"labels": torch.randint(0, 2, (2, 9))},
        "masked_lm": {"labels": torch.randint(0, 50, (2, 9)).masked_fill(ignored, -100)},
        "causal_lm": {"labels": torch.randint(0, 50, (2, 9)).masked_fill(ignored, -100)},
        "sequence_classification": {"labels": torch.tensor([0, labels - 1])},
        "multiple_choice": {"labels": torch.tensor([1, 0])},
        "token_classification": {"labels": torch.randint(0, labels, (2, 9)).masked_fill(ignored, -100)},
        "question_answering": {"start_positions": torch.tensor([2, 40]), "end_positions": torch.tensor([3, 5])},
    }[head]


def logits(output: Any) -> list[Any]:
    """Return what a model computes, whatever it is called."""
    names = ("last_hidden_state", "logits", "start_logits", "end_logits")
    return [getattr(output, name) for name in names if hasattr(output, name)]


def built(head: str, config: ElectraConfig = TINY) -> Any:
    """Return a model in evaluation mode whose every parameter is off its starting value."""
    torch.manual_seed(2)
    model = models.MODELS[head](config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def largest_difference(ours: Any, theirs: Any) -> float:
    """Return the largest difference of two tuples of tensors."""
    assert len(ours) == len(theirs) > 0
    return max(
        float((one.double() - other.double()).detach().abs().max()) for one, other in zip(ours, theirs, strict=True)
    )


@each_task
def test_a_task_head_computes_what_google_computes(
    converted: Callable[..., Path], name: str, task: str, head: str
) -> None:
    """Google's recorded outputs come out within 1e-5, at every attended position without its answer mask."""

    def compute(directory: Path, inputs: dict[str, Any]) -> Any:
        return compute_pytorch(models.MODELS[head].from_pretrained(directory).eval(), inputs)

    directory = converted(name, "discriminator", heads=("native",), task=task)
    assert task_difference(directory, name, task, head, compute) < 1e-5


@each_head
@pytest.mark.parametrize("layout", ["single", "shared"])
@pytest.mark.parametrize(
    ("name", "part"),
    [("electra_tiny", "discriminator"), ("electra_tiny_proj", "generator"), ("electra_tiny_noproj", "discriminator")],
)
def test_models_agree_with_transformers(
    converted: Callable[..., Path], name: str, part: str, layout: str, head: str
) -> None:
    """Logits, hidden states, attention weights and loss are those of transformers' class, within 2e-5."""
    directory = converted(name, part, layout=layout, targets=("pytorch",)) / head
    model = models.MODELS[head].from_pretrained(directory)
    theirs = getattr(transformers, type(model).__name__).from_pretrained(directory, attn_implementation="eager").eval()
    inputs = batch(head, model.config.vocab_size) | answers(head, model.config.num_labels)
    options = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        ours, expected = model(**inputs, **options), theirs(**inputs, **options)
    assert not model.training
    assert largest_difference(logits(ours), logits(expected)) < 2e-5
    assert largest_difference(ours.hidden_states, expected.hidden_states) < 2e-5
    assert largest_difference(ours.attentions, expected.attentions) < 2e-5
    if head != "base":
        assert float(ours.loss) == pytest.approx(float(expected.loss), abs=2e-5)


@pytest.mark.parametrize(
    ("part", "head"), [("discriminator", "pretraining"), ("generator", "masked_lm")], ids=["discriminator", "generator"]
)
@pytest.mark.parametrize("name", ["electra_tiny", "electra_tiny_noproj", "electra_tiny_tied_weights"])
def test_native_head_computes_what_google_computes(
    converted: Callable[..., Path], fixtures: Path, name: str, part: str, head: str
) -> None:
    """Google's recorded logits come out within 1e-5 at every attended position."""
    recorded = np.load(fixtures / name / "expected.npz")
    model = models.MODELS[head].from_pretrained(converted(name, part, targets=("pytorch",)) / head)
    names = ("input_ids", "attention_mask", "token_type_ids")
    with torch.no_grad():
        found = model(**{key: torch.from_numpy(recorded[key]) for key in names}).logits.numpy()
    attended = recorded["attention_mask"].astype(bool)
    assert attended.any()
    assert np.abs(found - recorded[f"{part}_logits"])[attended].max() < 1e-5


@each_head
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_saved_model_loads_again(tmp_path: Path, head: str, dtype: str) -> None:
    """Every bit comes back, and the tied word table is in the file once."""
    model = built(head).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "saved")
    again = models.MODELS[head].from_pretrained(tmp_path / "saved")
    assert again.config.num_labels == (3 if head in ("sequence_classification", "token_classification") else 2)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert all(value.dtype == getattr(torch, dtype) for value in again.state_dict().values())
    _, info = getattr(transformers, type(model).__name__).from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_float64_is_not_saved(tmp_path: Path) -> None:
    """The file's format has no float64."""
    with pytest.raises(OutputError):
        built("base").double().save_pretrained(tmp_path)


def test_an_unknown_dtype_is_an_error(tmp_path: Path) -> None:
    """The message says which there are."""
    with pytest.raises(OptionError, match="bfloat16"):
        models.ElectraModel.from_pretrained(tmp_path, dtype="int8")


@pytest.mark.parametrize("head", ["masked_lm", "sequence_classification", "token_classification"])
def test_another_head_is_refused_unless_a_new_one_is_asked_for(tmp_path: Path, head: str) -> None:
    """All tensors at fault are listed; with `initialize_head` the backbone is loaded and the head is drawn."""
    saved = built("pretraining")
    saved.save_pretrained(tmp_path)
    with pytest.raises(TensorMismatchError) as caught:
        models.MODELS[head].from_pretrained(tmp_path)
    own = {name for name in models.MODELS[head](TINY).state_dict() if not name.startswith("electra.")}
    assert len(caught.value.problems) == len(own) + 4
    model = models.MODELS[head].from_pretrained(tmp_path, initialize_head=True)
    for name, value in model.state_dict().items():
        if name not in own:
            assert torch.equal(value, saved.state_dict()[name])
        elif name.endswith("bias"):
            assert not value.any()
        elif "LayerNorm" in name:
            assert (value == 1).all()
        else:
            assert 0 < value.abs().max() <= 0.04


def test_a_missing_tensor_of_the_backbone_is_never_drawn(tmp_path: Path) -> None:
    """`initialize_head` is about the head."""
    models.ElectraForPreTraining(TINY).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(TensorMismatchError, match=r"encoder\.layer\.2\..*missing"):
        models.ElectraForPreTraining.from_pretrained(tmp_path, initialize_head=True)


def test_tensors_of_another_shape_are_drawn_only_if_asked(tmp_path: Path) -> None:
    """A classifier of other labels: an error, or a new matrix."""
    saved = built("token_classification")
    saved.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"2": "c"', '"2": "c", "3": "d"'))
    with pytest.raises(TensorMismatchError) as caught:
        models.ElectraForTokenClassification.from_pretrained(tmp_path)
    assert len(caught.value.problems) == 2
    model = models.ElectraForTokenClassification.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    assert model.classifier.weight.shape == (4, 32)
    assert model.classifier.weight.any()
    assert not model.classifier.bias.any()
    assert torch.equal(
        model.electra.encoder.layer[1].output.dense.weight, saved.electra.encoder.layer[1].output.dense.weight
    )


def test_loading_draws_nothing(tmp_path: Path) -> None:
    """The state of torch's random numbers is the same afterwards."""
    built("masked_lm").save_pretrained(tmp_path)
    before = torch.random.get_rng_state()
    models.ElectraForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())


def test_first_values_are_googles() -> None:
    """A normal distribution cut at two deviations; its deviation after the cut is 0.88 of that before."""
    weight = models.ElectraModel(TINY).embeddings.word_embeddings.weight.detach()
    assert weight.abs().max() <= 0.04
    assert float(weight.std()) == pytest.approx(0.0176, rel=0.1)


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_losses_of_sequence_classification_follow_the_labels() -> None:
    """Floats for each label: binary cross entropy. One label: squared error."""
    inputs = batch("sequence_classification")
    model, labels = built("sequence_classification"), torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    output = model(**inputs, labels=labels)
    chance = output.logits.sigmoid()
    expected = -(labels * chance.log() + (1 - labels) * (1 - chance).log()).mean()
    assert float(output.loss) == pytest.approx(float(expected), abs=1e-5)
    model, scores = built("sequence_classification", one_label()), torch.tensor([0.5, -2.0])
    output = model(**inputs, labels=scores)
    assert float(output.loss) == pytest.approx(float(((output.logits[:, 0] - scores) ** 2).mean()), abs=1e-5)


def one_label() -> ElectraConfig:
    """Return the config of a regressor."""
    return ElectraConfig(**{field: getattr(TINY, field) for field in TINY.__struct_fields__} | {"labels": ("score",)})


@each_head
def test_dropout_is_for_training(head: str) -> None:
    """Two passes differ in training mode, and are the same in evaluation mode."""
    model = built(head)
    first, second = (logits(model(**batch(head))) for _ in range(2))
    assert largest_difference(first, second) == 0
    model.train()
    torch.manual_seed(3)
    inputs = batch(head)
    first, second = (logits(model(**inputs)) for _ in range(2))
    assert largest_difference(first, second) > 0


@each_head
def test_gradients_reach_every_parameter(head: str) -> None:
    """Each has a gradient, and none but the keys' biases, which the softmax cancels, is zero."""
    model = built(head)
    output = model(**batch(head), **answers(head, TINY.num_labels))
    loss = (output.last_hidden_state**3).sum() if head == "base" else output.loss
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any() or name.endswith("key.bias"), name


@each_head
def test_compiled_models_compute_the_same(head: str) -> None:
    """`torch.compile` takes the whole graph."""
    model, inputs = built(head), batch(head) | answers(head, TINY.num_labels)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert largest_difference(logits(compiled(**inputs)), logits(model(**inputs))) < 1e-6


@each_head
def test_embeddings_take_the_place_of_ids(head: str) -> None:
    """The words' own rows give the same; so do the default positions, segments and mask, given."""
    model, ids = built(head), batch(head)["input_ids"]
    backbone = model if head == "base" else model.electra
    explicit = {
        "inputs_embeds": backbone.embeddings.word_embeddings(ids),
        "position_ids": torch.arange(9).expand(ids.shape),
        "token_type_ids": torch.zeros_like(ids),
        "attention_mask": torch.ones_like(ids),
    }
    assert largest_difference(logits(model(ids)), logits(model(**explicit))) == 0
    moved = explicit | {"position_ids": explicit["position_ids"].flip(-1)}
    assert largest_difference(logits(model(ids)), logits(model(**moved))) > 1e-4


@each_head
def test_padding_changes_nothing(head: str) -> None:
    """What is masked may be any token."""
    model, inputs = built(head), batch(head)
    attended = inputs["attention_mask"].bool()
    other = inputs | {"input_ids": torch.where(attended, inputs["input_ids"], 1)}
    kept = slice(None) if head in ("sequence_classification", "multiple_choice") else attended
    first, second = ([values[kept] for values in logits(model(**given))] for given in (inputs, other))
    assert largest_difference(first, second) < 1e-6


def test_causal_lm_sees_no_later_token() -> None:
    """A later token changes nothing before it, and does in the masked language model."""
    first = torch.arange(9)[None]
    second = torch.where(first == 8, 20, first)
    for head, same in (("causal_lm", True), ("masked_lm", False)):
        model = built(head)
        assert torch.equal(model(first).logits[:, :-1], model(second).logits[:, :-1]) is same


@pytest.mark.parametrize("both", [True, False])
def test_ids_and_embeddings_exclude_each_other(*, both: bool) -> None:
    """One of the two is needed."""
    given = {"input_ids": torch.zeros(1, 3, dtype=torch.long), "inputs_embeds": torch.zeros(1, 3, 16)} if both else {}
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        built("base")(**given)


def test_a_sequence_that_is_too_long_is_an_error() -> None:
    """The message says how long it may be."""
    with pytest.raises(ValueError, match="13 positions; max_position_embeddings is 12"):
        built("base")(torch.zeros(1, 13, dtype=torch.long))


@each_head
def test_float64_is_float64_throughout(converted: Callable[..., Path], head: str) -> None:
    """Logits and transformers', both in float64, agree to 1e-12."""
    directory = converted("electra_tiny", "generator", targets=("pytorch",)) / head
    model = models.MODELS[head].from_pretrained(directory, dtype="float64")
    theirs = getattr(transformers, type(model).__name__).from_pretrained(directory, attn_implementation="eager")
    inputs = batch(head, model.config.vocab_size)
    with torch.no_grad():
        ours, expected = logits(model(**inputs)), logits(theirs.double().eval()(**inputs))
    assert all(values.dtype == torch.float64 for values in ours)
    assert largest_difference(ours, expected) < 1e-12
