"""What transformers' TensorFlow classes make of converted directories."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.finetuned import each_task, task_difference
from tests.resaved import assert_same_model, assert_same_weights

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
tensorflow = pytest.importorskip("tensorflow")
transformers = pytest.importorskip("transformers", minversion="4.57")
if not hasattr(transformers, "TFElectraModel"):
    pytest.skip("transformers 5 has no TensorFlow classes", allow_module_level=True)

HEADS = {
    "base": "TFElectraModel",
    "pretraining": "TFElectraForPreTraining",
    "masked_lm": "TFElectraForMaskedLM",
    "causal_lm": "TFElectraForMaskedLM",  # there is no class for it; the names are those of masked_lm
    "sequence_classification": "TFElectraForSequenceClassification",
    "multiple_choice": "TFElectraForMultipleChoice",
    "token_classification": "TFElectraForTokenClassification",
    "question_answering": "TFElectraForQuestionAnswering",
}
NATIVE = {"discriminator": "pretraining", "generator": "masked_lm"}


def load(directory: Path, architecture: str, **options: Any) -> Any:
    """Load a directory, and check that every key found its place."""
    model, info = getattr(transformers, architecture).from_pretrained(directory, output_loading_info=True, **options)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model


@pytest.mark.parametrize("part", ["discriminator", "generator"])
@pytest.mark.parametrize("name", ["electra_tiny", "electra_tiny_noproj", "electra_tiny_tied_weights"])
def test_native_head_computes_what_google_computes(
    converted: Callable[..., Path], fixtures: Path, name: str, part: str
) -> None:
    """Google's recorded logits come out within 1e-5 at every attended position."""
    expected = np.load(fixtures / name / "expected.npz")
    directory = converted(name, part, heads=(NATIVE[part],), targets=("tensorflow",)) / NATIVE[part]
    model = load(directory, HEADS[NATIVE[part]])
    inputs = {key: tensorflow.constant(expected[key]) for key in ("input_ids", "attention_mask", "token_type_ids")}
    logits = model(**inputs).logits.numpy()
    attended = expected["attention_mask"].astype(bool)
    assert attended.any()
    assert np.abs(logits - expected[f"{part}_logits"])[attended].max() < 1e-5


@each_task
def test_a_task_head_computes_what_google_computes(
    converted: Callable[..., Path], name: str, task: str, head: str
) -> None:
    """Google's recorded outputs come out within 1e-5, at every attended position without its answer mask."""

    def compute(directory: Path, inputs: dict[str, Any]) -> Any:
        model = load(directory, HEADS[head], use_safetensors=False)
        return model(**{key: tensorflow.constant(values) for key, values in inputs.items()})

    directory = converted(name, "discriminator", heads=("native",), task=task)
    assert task_difference(directory, name, task, head, compute) < 1e-5


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("layout", ["single", "shared"])
@pytest.mark.parametrize("name", ["electra_tiny_proj", "electra_tiny_noproj"])
def test_every_class_loads_with_nothing_missing(
    converted: Callable[..., Path], name: str, layout: str, head: str
) -> None:
    """No key is missing, unexpected or of another shape, with and without projection, in both layouts."""
    load(converted(name, "discriminator", layout=layout) / head, HEADS[head], use_safetensors=False)


@pytest.mark.parametrize("head", HEADS)
def test_split_formats_load_with_no_argument(converted: Callable[..., Path], head: str) -> None:
    """A directory of its own needs no `use_safetensors=False`."""
    load(converted("electra_tiny", "discriminator", split_formats=True) / head / "tensorflow", HEADS[head])


def test_combined_directory_needs_an_argument(converted: Callable[..., Path]) -> None:
    """transformers 4.55 to 4.57 fail where a PyTorch file lies beside; the README says so until this fails."""
    with pytest.raises(TypeError):
        transformers.TFElectraForPreTraining.from_pretrained(converted("electra_tiny", "discriminator") / "pretraining")


@pytest.mark.parametrize("head", [head for head in HEADS if head != "causal_lm"])  # there is no such class
def test_diff_knows_what_transformers_saves(converted: Callable[..., Path], tmp_path: Path, head: str) -> None:
    """A directory that transformers wrote has the config and the tensors of the one it read."""
    directory = converted("electra_tiny", "discriminator", targets=("tensorflow",)) / head
    load(directory, HEADS[head]).save_pretrained(tmp_path)
    assert_same_weights(directory, tmp_path, "tensorflow")


@pytest.mark.parametrize("size", ["1GB", "200KB"])
@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("head", [head for head in HEADS if head != "causal_lm"])  # there is no such class
def test_what_transformers_saves_is_whole(
    converted: Callable[..., Path], tmp_path: Path, head: str, size: str, *, safe: bool
) -> None:
    """Safetensors with TensorFlow's names and orientation, and HDF5, as one file and as shards."""
    directory = converted("electra_tiny_proj", "discriminator", targets=("tensorflow",)) / head
    load(directory, HEADS[head]).save_pretrained(tmp_path, safe_serialization=safe, max_shard_size=size)
    found = assert_same_model(directory, tmp_path, "tensorflow", "model" if safe else "tf_model")
    assert (len(found.files) > 1) == (size == "200KB")
