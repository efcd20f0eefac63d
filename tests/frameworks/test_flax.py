"""What transformers' Flax classes make of converted directories."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.finetuned import each_task, task_difference
from tests.resaved import assert_same_model, assert_same_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
jax = pytest.importorskip("jax")
flax = pytest.importorskip("flax")
transformers = pytest.importorskip("transformers", minversion="4.57")
if not hasattr(transformers, "FlaxElectraModel"):
    pytest.skip("transformers 5 has no Flax classes", allow_module_level=True)

jax.config.update("jax_disable_most_optimizations", True)  # noqa: FBT003  # to compile takes most of the time

HEADS = {
    "base": "FlaxElectraModel",
    "pretraining": "FlaxElectraForPreTraining",
    "masked_lm": "FlaxElectraForMaskedLM",
    "causal_lm": "FlaxElectraForCausalLM",
    "sequence_classification": "FlaxElectraForSequenceClassification",
    "multiple_choice": "FlaxElectraForMultipleChoice",
    "token_classification": "FlaxElectraForTokenClassification",
    "question_answering": "FlaxElectraForQuestionAnswering",
}
NATIVE = {"discriminator": "pretraining", "generator": "masked_lm"}


class Said(logging.Handler):
    """Collects what the loader says of keys, for Flax classes return no loading info."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.messages.append(record.getMessage())


def load(directory: Path, architecture: str) -> Any:
    """Load a directory, and check that every key found its place."""
    said = Said()
    logger = logging.getLogger("transformers.modeling_flax_utils")
    logger.addHandler(said)
    try:
        model = getattr(transformers, architecture).from_pretrained(directory)
    finally:
        logger.removeHandler(said)
    complaints = [message for message in said.messages if "weights" in message]
    assert not complaints, "\n".join(complaints)
    return model


def test_a_missing_key_is_seen(converted: Callable[..., Path]) -> None:
    """The loader does say it when a head is missing: the check of every other test here can fail."""
    with pytest.raises(AssertionError, match="newly initialized"):
        load(converted("electra_tiny", "discriminator") / "base", "FlaxElectraForPreTraining")


@pytest.mark.parametrize("part", ["discriminator", "generator"])
@pytest.mark.parametrize("name", ["electra_tiny", "electra_tiny_noproj", "electra_tiny_tied_weights"])
def test_native_head_computes_what_google_computes(
    converted: Callable[..., Path], fixtures: Path, name: str, part: str
) -> None:
    """Google's recorded logits come out within 1e-5 at every attended position."""
    expected = np.load(fixtures / name / "expected.npz")
    model = load(converted(name, part, heads=(NATIVE[part],), targets=("flax",)) / NATIVE[part], HEADS[NATIVE[part]])
    inputs = {key: expected[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    with jax.default_matmul_precision("highest"):
        logits = np.asarray(model(**inputs).logits)
    attended = expected["attention_mask"].astype(bool)
    assert attended.any()
    assert np.abs(logits - expected[f"{part}_logits"])[attended].max() < 1e-5


@each_task
def test_a_task_head_computes_what_google_computes(
    converted: Callable[..., Path], name: str, task: str, head: str
) -> None:
    """Google's recorded outputs come out within 1e-5, at every attended position without its answer mask."""

    def compute(directory: Path, inputs: dict[str, Any]) -> Any:
        return load(directory, HEADS[head])(**inputs)

    directory = converted(name, "discriminator", heads=("native",), task=task)
    assert task_difference(directory, name, task, head, compute) < 1e-5


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("layout", ["single", "shared"])
@pytest.mark.parametrize("name", ["electra_tiny_proj", "electra_tiny_noproj"])
def test_every_class_loads_with_nothing_missing(
    converted: Callable[..., Path], name: str, layout: str, head: str
) -> None:
    """No key is missing or unexpected, with and without projection, in both layouts."""
    load(converted(name, "discriminator", layout=layout) / head, HEADS[head])


def test_the_file_is_what_flax_writes(converted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """`flax.serialization` reads the file, and writes the same bytes, leaves cut into chunks included."""
    from electra_convert import ConvertOptions, convert_checkpoint
    from electra_convert.formats import flax as ours

    file = converted("electra_tiny", "discriminator") / "pretraining" / "flax_model.msgpack"
    tree = flax.serialization.msgpack_restore(file.read_bytes())
    assert flax.serialization.msgpack_serialize(tree) == file.read_bytes()
    monkeypatch.setattr(ours, "MAX_CHUNK_SIZE", 4096)
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 4096)
    chunked = file.parents[1] / "chunked"
    options = ConvertOptions(part="discriminator", heads=("pretraining",), targets=("flax",))
    convert_checkpoint(Path(__file__).parents[2] / "fixtures" / "electra_tiny", chunked, options)
    data = (chunked / "pretraining" / "flax_model.msgpack").read_bytes()
    assert b"__msgpack_chunked_array__" in data
    again = flax.serialization.msgpack_restore(data)
    assert jax.tree_util.tree_all(jax.tree_util.tree_map(np.array_equal, tree, again))


@pytest.mark.parametrize("head", HEADS)
def test_split_formats_load_with_no_argument(converted: Callable[..., Path], head: str) -> None:
    """A directory of its own is complete."""
    load(converted("electra_tiny", "generator", split_formats=True) / head / "flax", HEADS[head])


@pytest.mark.parametrize("head", HEADS)
def test_diff_knows_what_transformers_saves(converted: Callable[..., Path], tmp_path: Path, head: str) -> None:
    """A directory that transformers wrote has the config and the tensors of the one it read."""
    directory = converted("electra_tiny", "discriminator", targets=("flax",)) / head
    load(directory, HEADS[head]).save_pretrained(tmp_path)
    assert_same_weights(directory, tmp_path, "flax")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("safe", "size"), [(True, "1GB"), (False, "1GB"), (False, "200KB")])
def test_what_transformers_saves_is_whole(
    converted: Callable[..., Path], tmp_path: Path, head: str, size: str, *, safe: bool
) -> None:
    """Safetensors with Flax's names and orientation, and msgpack as one file and as shards."""
    directory = converted("electra_tiny_proj", "discriminator", targets=("flax",)) / head
    load(directory, HEADS[head]).save_pretrained(tmp_path, safe_serialization=safe, max_shard_size=size)
    found = assert_same_model(directory, tmp_path, "flax", "model" if safe else "flax_model")
    assert (len(found.files) > 1) == (size == "200KB")
