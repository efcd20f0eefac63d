"""What is understood of a checkpoint from its names and shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_convert import ConfigError, PartNotFoundError, SourceError, TensorMismatchError, load_mappings
from electra_convert.config_file import ConfigFile
from electra_convert.formats.google_tf1 import open_checkpoint
from electra_convert.part import Checkpoint, recognise
from electra_convert.tensor import Tensor

TOPOLOGIES = {
    "electra_tiny": ("two_parts", {"discriminator": "pretraining", "generator": "masked_lm"}),
    "electra_tiny_sharded": ("two_parts", {"discriminator": "pretraining", "generator": "masked_lm"}),
    "electra_tiny_proj": ("two_parts", {"discriminator": "pretraining", "generator": "masked_lm"}),
    "electra_tiny_noproj": ("two_parts", {"discriminator": "pretraining", "generator": "masked_lm"}),
    "electra_tiny_untied_embeddings": ("untied_embeddings", {"discriminator": "pretraining", "generator": "masked_lm"}),
    "electra_tiny_tied_weights": ("tied_weights", {"discriminator": "pretraining", "generator": "masked_lm"}),
    "electra_tiny_mlm_only": ("masked_lm_only", {"generator": "masked_lm"}),
    "electra_tiny_uniform": ("uniform_generator", {"discriminator": "pretraining"}),
    "electric_tiny": ("electric", {"discriminator": "pretraining"}),
    "finetuned_chunk": ("fine_tuned", {"discriminator": None}),
    "finetuned_mnli": ("fine_tuned", {"discriminator": None}),
    "finetuned_multitask": ("fine_tuned", {"discriminator": None}),
    "finetuned_squad_joint": ("fine_tuned", {"discriminator": None}),
    "finetuned_squad_span": ("fine_tuned", {"discriminator": None}),
    "finetuned_sts": ("fine_tuned", {"discriminator": None}),
}


def tensors(fixtures: Path, name: str) -> dict[str, Tensor]:
    """Return the tensors of a fixture, to be changed."""
    (index,) = (fixtures / name).glob("*.index")
    return dict(open_checkpoint(index.with_suffix("")).tensors)


def checkpoint(fixtures: Path, name: str) -> Checkpoint:
    """Return a fixture, recognised."""
    return recognise(load_mappings(), tensors(fixtures, name))


def empty(name: str, *shape: int) -> Tensor:
    """Return a tensor of zeros."""
    return Tensor(name, shape, "float32", lambda: np.zeros(shape, np.float32))


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_kind_of_checkpoint_is_recognised(fixtures: Path, name: str) -> None:
    """From its names alone follow what a checkpoint is, its parts, and their native heads."""
    found = checkpoint(fixtures, name)
    assert (found.topology_key, found.topology.parts) == TOPOLOGIES[name]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_sizes_follow_from_shapes(fixtures: Path, name: str) -> None:
    """Without any config, every size of every part is the one Google's code was given."""
    recorded = json.loads((fixtures / name.removesuffix("_sharded") / "expected.json").read_text())
    found = checkpoint(fixtures, name)
    for part, source in found.understand(list(found.topology.parts)).items():
        expected = recorded[f"{part}_config"]
        unproven = {"num_attention_heads", "initializer_range", "hidden_act"}
        sizes = {field: value for field, value in expected.items() if field not in unproven}
        assert {field: getattr(source.config, field) for field in sizes} == sizes
        assert {"num_attention_heads", "hidden_act", "layer_norm_eps"} <= set(source.assumed)
        assert source.config.num_attention_heads == max(1, source.config.hidden_size // 64)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_tensor_has_one_fate(fixtures: Path, name: str) -> None:
    """Nothing is skipped in silence: the ledger of each part lists every tensor of the checkpoint once."""
    found = checkpoint(fixtures, name)
    for part, source in found.understand(list(found.topology.parts)).items():
        ledger = found.ledger(part)
        assert set(ledger) == set(found.tensors)
        used = {tensor for tensor, (fate, _) in ledger.items() if fate == "used"}
        assert used == {binding.name for binding in source.bindings}
        ignored = {tensor for tensor, (fate, _) in ledger.items() if fate == "ignored"}
        assert all(tensor == "global_step" or tensor.endswith(("/adam_m", "/adam_v")) for tensor in ignored)


def test_electric_and_joint_prediction_are_unsupported_with_a_reason(fixtures: Path) -> None:
    """What has no counterpart is named with the reason."""
    electric = checkpoint(fixtures, "electric_tiny").ledger("discriminator")
    assert electric["cloze_predictions/output_bias"] == ("unsupported", "Electric's two-tower cloze model")
    fate, why = checkpoint(fixtures, "finetuned_squad_joint").ledger("discriminator")[
        "task_specific/squad/dense/kernel"
    ]
    assert (fate, why.partition(" (")[0]) == ("unsupported", "with joint prediction")


def test_a_part_that_is_not_there_is_an_error_that_says_which_are(fixtures: Path) -> None:
    """A masked language model has no discriminator, and the error says that it has a generator."""
    with pytest.raises(PartNotFoundError, match=r"has no discriminator(?s:.*)--part generator"):
        checkpoint(fixtures, "electra_tiny_mlm_only").understand(["discriminator"])


def test_a_generator_is_never_patched_with_the_discriminators_weights(fixtures: Path) -> None:
    """A hole in the generator is an error, although a tensor of the same name and shape is elsewhere."""
    found = tensors(fixtures, "electra_tiny_untied_embeddings")
    del found["generator/embeddings/position_embeddings"]
    with pytest.raises(TensorMismatchError, match=r"generator/embeddings/position_embeddings \[.*\] is missing"):
        recognise(load_mappings(), found).understand(["generator"])


def test_a_renamed_tensor_is_missing_and_unknown_in_one_error(fixtures: Path) -> None:
    """Both names are listed: the one that is missing, and the one nobody knows."""
    found = tensors(fixtures, "electra_tiny")
    found["electra/encoder/layer_1/mystery"] = found.pop("electra/encoder/layer_1/output/dense/bias")
    with pytest.raises(TensorMismatchError) as raised:
        recognise(load_mappings(), found).understand(["discriminator"])
    assert raised.value.problems == (
        "electra/encoder/layer_1/output/dense/bias [64] is missing",
        "electra/encoder/layer_1/mystery [64] is in no mapping",
    )


def test_a_missing_table_is_named_although_its_size_is_unknown(fixtures: Path) -> None:
    """Without the word table the vocabulary's size is unknown; the table is what is missing."""
    found = tensors(fixtures, "electra_tiny_uniform")
    del found["electra/embeddings/word_embeddings"]
    with pytest.raises(TensorMismatchError, match=r"word_embeddings \[vocab_size, embedding_size\] is missing"):
        recognise(load_mappings(), found).understand(["discriminator"])


def test_a_gap_between_layers_is_an_error(fixtures: Path) -> None:
    """Layers are counted without gaps: what lies behind one is unknown, not lost."""
    found = tensors(fixtures, "electra_tiny_uniform")
    for name in [name for name in found if "/layer_1/" in name]:
        del found[name]
    with pytest.raises(TensorMismatchError, match=r"electra/encoder/layer_2/.* is in no mapping"):
        recognise(load_mappings(), found).understand(["discriminator"])


@pytest.mark.parametrize("shape", [(), (600,), (600, 32, 1), (600, 31)])
def test_a_wrong_shape_is_named(fixtures: Path, shape: tuple[int, ...]) -> None:
    """A table of another rank or width is an error that gives its shape."""
    found = tensors(fixtures, "electra_tiny_uniform")
    found["electra/embeddings/word_embeddings"] = empty("electra/embeddings/word_embeddings", *shape)
    with pytest.raises(TensorMismatchError, match="electra/embeddings/"):
        recognise(load_mappings(), found).understand(["discriminator"])


def test_what_is_no_electra_is_refused_with_its_scopes() -> None:
    """A BERT checkpoint is told by the scopes it holds."""
    with pytest.raises(SourceError, match=r"not hold the variables .*: it holds bert/, cls/, global_step"):
        recognise(load_mappings(), {name: empty(name, 1) for name in ("bert/a", "cls/b", "global_step")})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"vocab_size": 30522},
            r"vocab_size: c.json says 30522, but electra/embeddings/word_embeddings \[600, 32\] shows",
        ),
        ({"num_hidden_layers": 12}, r"num_hidden_layers: c.json says 12, but electra/encoder/layer_2/\S+ shows 3"),
        ({"num_attention_heads": 5}, r"num_attention_heads is 5; it must divide hidden_size, 64"),
        (
            {"model_size": "small", "vocab_size": 600},
            r"hidden_size: c.json says 256 \(the default of model_size 'small'\)",
        ),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused(
    fixtures: Path, content: dict[str, Any], message: str
) -> None:
    """The error names the key, both values, and the tensor that shows one of them."""
    with pytest.raises(ConfigError, match=message):
        checkpoint(fixtures, "electra_tiny").understand(["discriminator"], config_file=ConfigFile("c.json", content))


def test_a_config_settles_what_no_tensor_shows(fixtures: Path) -> None:
    """What the file says is no longer assumed, and says where it is from."""
    file = ConfigFile("c.json", {"num_attention_heads": 4, "hidden_act": "RELU"})
    source = checkpoint(fixtures, "electra_tiny").understand(["discriminator"], config_file=file)["discriminator"]
    assert (source.config.num_attention_heads, source.config.hidden_act) == (4, "relu")
    assert source.origins["num_attention_heads"] == "c.json: num_attention_heads"
    assert not {"num_attention_heads", "hidden_act"} & set(source.assumed)


def test_what_cannot_be_read_is_in_the_ledger(fixtures: Path) -> None:
    """A tensor of a dtype that no model has is unsupported, with the reason."""
    found = recognise(load_mappings(), tensors(fixtures, "electra_tiny_uniform"), {"words": "its dtype is string"})
    ledger = found.ledger("discriminator")
    assert ledger["words"] == ("unsupported", "its dtype is string")
    assert set(ledger) == {*found.tensors, "words"}


@pytest.mark.parametrize(
    ("name", "changed", "key"),
    [
        ("electra_tiny", {"untied_generator": False}, "untied_generator"),
        ("electra_tiny", {"electra_objective": False}, "electra_objective"),
        ("electra_tiny", {"uniform_generator": True}, "uniform_generator"),
        ("electra_tiny", {"electric_objective": True}, "electric_objective"),
        ("electra_tiny", {"untied_generator_embeddings": True}, "untied_generator_embeddings"),
        ("electra_tiny_tied_weights", {"untied_generator": True}, "untied_generator"),
        ("electra_tiny_mlm_only", {"electra_objective": True}, "electra_objective"),
        ("electra_tiny_uniform", {"uniform_generator": False}, "uniform_generator"),
    ],
)
def test_hparams_of_another_run_are_refused(fixtures: Path, name: str, changed: dict[str, bool], key: str) -> None:
    """Hparams that would have made other variables are of another run, even where all sizes agree."""
    hparams = json.loads((fixtures / name / "expected.json").read_text())["hparams"]
    found = checkpoint(fixtures, name)
    parts = list(found.topology.parts)
    found.understand(parts, config_file=ConfigFile("h.json", hparams))
    with pytest.raises(ConfigError, match=f"h.json is of another run(?s:.*){key}: h.json says"):
        found.understand(parts, config_file=ConfigFile("h.json", hparams | changed))


@pytest.mark.parametrize(
    "wrong", [{"layer_norm_eps": float("nan")}, {"initializer_range": -1.0}, {"hidden_dropout_prob": 2.0}]
)
def test_numbers_no_model_can_have_are_refused(fixtures: Path, wrong: dict[str, float]) -> None:
    """A config that no framework could load is refused, and the file is named."""
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is .*it must be(?s:.*)correct c.json"):
        checkpoint(fixtures, "electra_tiny").understand(["discriminator"], config_file=ConfigFile("c.json", wrong))
