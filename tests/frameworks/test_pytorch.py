"""What transformers' PyTorch classes make of converted directories, in both of its major versions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.finetuned import compute_pytorch, each_task, task_difference
from tests.resaved import assert_same_weights

os.environ.setdefault("USE_TF", "0")
os.environ.setdefault("USE_FLAX", "0")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

HEADS = {
    "base": "ElectraModel",
    "pretraining": "ElectraForPreTraining",
    "masked_lm": "ElectraForMaskedLM",
    "causal_lm": "ElectraForCausalLM",
    "sequence_classification": "ElectraForSequenceClassification",
    "multiple_choice": "ElectraForMultipleChoice",
    "token_classification": "ElectraForTokenClassification",
    "question_answering": "ElectraForQuestionAnswering",
}
PARTS = {
    ("electra_tiny", "discriminator"),
    ("electra_tiny", "generator"),
    ("electra_tiny_proj", "discriminator"),
    ("electra_tiny_proj", "generator"),
    ("electra_tiny_noproj", "discriminator"),
    ("electra_tiny_noproj", "generator"),
    ("electra_tiny_untied_embeddings", "discriminator"),
    ("electra_tiny_untied_embeddings", "generator"),
    ("electra_tiny_tied_weights", "discriminator"),
    ("electra_tiny_tied_weights", "generator"),
    ("electra_tiny_mlm_only", "generator"),
    ("electra_tiny_uniform", "discriminator"),
    ("electric_tiny", "discriminator"),
}
NATIVE = {"discriminator": "pretraining", "generator": "masked_lm"}


def load(directory: Path, architecture: str) -> Any:
    """Load a directory, and check that every key found its place."""
    model, info = getattr(transformers, architecture).from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model.eval()


@pytest.mark.parametrize(("name", "part"), sorted(PARTS))
def test_native_head_computes_what_google_computes(
    converted: Callable[..., Path], fixtures: Path, name: str, part: str
) -> None:
    """Google's recorded logits come out within 1e-5 at every attended position."""
    expected = np.load(fixtures / name / "expected.npz")
    model = load(converted(name, part, heads=(NATIVE[part],), targets=("pytorch",)) / NATIVE[part], HEADS[NATIVE[part]])
    inputs = {key: torch.from_numpy(expected[key]).long() for key in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        logits = model(**inputs).logits.numpy()
    attended = expected["attention_mask"].astype(bool)
    assert attended.any()
    difference = np.abs(logits - expected[f"{part}_logits"])[attended].max()
    assert difference < 1e-5


@each_task
def test_a_task_head_computes_what_google_computes(
    converted: Callable[..., Path], name: str, task: str, head: str
) -> None:
    """Google's recorded outputs come out within 1e-5, at every attended position without its answer mask."""

    def compute(directory: Path, inputs: dict[str, Any]) -> Any:
        return compute_pytorch(load(directory, HEADS[head]), inputs)

    directory = converted(name, "discriminator", heads=("native",), task=task)
    assert task_difference(directory, name, task, head, compute) < 1e-5


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("layout", ["single", "shared"])
@pytest.mark.parametrize("name", ["electra_tiny_proj", "electra_tiny_noproj"])
def test_every_class_loads_with_nothing_missing(
    converted: Callable[..., Path], name: str, layout: str, head: str
) -> None:
    """No key is missing, unexpected or of another shape, with and without projection, in both layouts."""
    load(converted(name, "discriminator", layout=layout) / head, HEADS[head])


def test_causal_lm_is_causal(converted: Callable[..., Path]) -> None:
    """A later token changes nothing before it, for the config says that the model is a decoder."""
    model = load(converted("electra_tiny", "generator", targets=("pytorch",)) / "causal_lm", "ElectraForCausalLM")
    first = torch.arange(20, 40)[None]
    second = first.clone()
    second[0, -1] = 99
    with torch.no_grad():
        before, after = (model(input_ids=ids).logits[0, :-1] for ids in (first, second))
    assert torch.allclose(before, after, atol=1e-5)


def test_labels_reach_the_model(converted: Callable[..., Path]) -> None:
    """Named labels become `id2label`, and the head has as many outputs."""
    out = converted("electra_tiny", "discriminator", heads=("token_classification",), labels=("O", "B", "I"))
    model = load(out / "token_classification", "ElectraForTokenClassification")
    assert model.config.id2label == {0: "O", 1: "B", 2: "I"}
    assert model.classifier.weight.shape[0] == 3


def test_fill_mask_pipeline_works_on_a_generator(converted: Callable[..., Path]) -> None:
    """`pipeline("fill-mask")` takes the directory as it is, and ranks tokens as the generator's logits do."""
    directory = converted("electra_tiny", "generator") / "masked_lm"
    fill = (
        transformers.pipeline("fill-mask", model=str(directory), framework="pt")
        if int(transformers.__version__.split(".")[0]) < 5
        else transformers.pipeline("fill-mask", model=str(directory))
    )
    found = fill("the [MASK] is in the world", top_k=5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    inputs = tokenizer("the [MASK] is in the world", return_tensors="pt")
    with torch.no_grad():
        logits = load(directory, "ElectraForMaskedLM")(**inputs).logits[0]
    row = logits[inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)]
    assert [item["token"] for item in found] == row.topk(5).indices.tolist()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_dtypes_load(converted: Callable[..., Path], dtype: str) -> None:
    """A narrow file holds the source's values, rounded once."""
    options = {"heads": ("pretraining",), "targets": ("pytorch",)}
    wide = load(converted("electra_tiny", "discriminator", **options) / "pretraining", "ElectraForPreTraining")
    narrow = load(
        converted("electra_tiny", "discriminator", dtype=dtype, **options) / "pretraining",
        "ElectraForPreTraining",
    )
    for key, value in wide.state_dict().items():
        rounded = value.to(getattr(torch, dtype)).float() if value.is_floating_point() else value
        assert torch.equal(narrow.state_dict()[key].to(rounded.dtype), rounded), key


@pytest.mark.parametrize("head", HEADS)
def test_split_formats_load_with_no_argument(converted: Callable[..., Path], head: str) -> None:
    """A directory of its own is complete."""
    load(converted("electra_tiny", "generator", split_formats=True) / head / "pytorch", HEADS[head])


@pytest.mark.parametrize("head", HEADS)
def test_diff_knows_what_transformers_saves(converted: Callable[..., Path], tmp_path: Path, head: str) -> None:
    """A directory that transformers wrote has the config and the tensors of the one it read."""
    directory = converted("electra_tiny", "discriminator", targets=("pytorch",)) / head
    load(directory, HEADS[head]).save_pretrained(tmp_path)
    assert_same_weights(directory, tmp_path, "pytorch")
