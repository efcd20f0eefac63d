"""Config files: Google's rules for hparams, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from electra_convert import ConfigError, OptionError
from electra_convert.config_file import check_scope, read_config_file
from electra_convert.inventory import Part

PRETRAINED = [
    "electra_tiny",
    "electra_tiny_proj",
    "electra_tiny_noproj",
    "electra_tiny_untied_embeddings",
    "electra_tiny_tied_weights",
    "electra_tiny_mlm_only",
    "electra_tiny_uniform",
]


def write(path: Path, content: Any) -> Path:
    """Write a config file."""
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", PRETRAINED)
def test_hparams_give_the_configs_google_derives(fixtures: Path, tmp_path: Path, name: str) -> None:
    """From the hparams of a run follow both configs, as Google's code recorded them."""
    recorded = json.loads((fixtures / name / "expected.json").read_text())
    file = read_config_file(write(tmp_path / "hparams.json", recorded["hparams"]))
    for part in ("discriminator", "generator"):
        expected = recorded.get(f"{part}_config")
        if expected is None:
            continue
        one_transformer = name in ("electra_tiny_tied_weights", "electra_tiny_mlm_only")
        claims = file.claims(part, one_transformer=one_transformer)
        assert {field: claims[field].value for field in expected} == expected
        size = recorded["embedding_size" if part == "discriminator" else "generator_embedding_size"]
        if not recorded["hparams"].get("untied_generator_embeddings"):
            assert claims["embedding_size"].value == size


@pytest.mark.parametrize(
    ("hparams", "part", "expected"),
    [
        (
            {"model_size": "small"},
            "discriminator",
            {"hidden_size": 256, "embedding_size": 128, "num_attention_heads": 4},
        ),
        ({"model_size": "small"}, "generator", {"hidden_size": 64, "embedding_size": 128, "num_attention_heads": 1}),
        ({"model_size": "base"}, "discriminator", {"hidden_size": 768, "embedding_size": 768, "num_hidden_layers": 12}),
        (
            {"model_size": "base", "generator_hidden_size": 0.33333},
            "generator",
            {"hidden_size": 256, "intermediate_size": 1024},
        ),
        ({"model_size": "large"}, "discriminator", {"num_hidden_layers": 24, "num_attention_heads": 16}),
        ({"model_size": "large"}, "generator", {"hidden_size": 256, "num_hidden_layers": 24, "embedding_size": 1024}),
        ({"model_size": "base", "untied_generator_embeddings": True}, "generator", {"embedding_size": 192}),
        ({"model_size": "small", "debug": True}, "discriminator", {"hidden_size": 144, "num_attention_heads": 4}),
        ({"model_size": "base", "generator_layers": 0.5}, "generator", {"num_hidden_layers": 6}),
    ],
)
def test_defaults_are_googles(tmp_path: Path, hparams: dict[str, Any], part: Part, expected: dict[str, int]) -> None:
    """What hparams leave out follows `configure_pretraining.py` and `get_generator_config`."""
    claims = read_config_file(write(tmp_path / "hparams.json", hparams)).claims(part, one_transformer=False)
    assert {field: claims[field].value for field in expected} == expected


def test_the_generator_of_one_transformer_has_the_discriminators_config(tmp_path: Path) -> None:
    """With tied weights nothing is scaled: the heads are the discriminator's."""
    file = read_config_file(write(tmp_path / "hparams.json", {"model_size": "base", "untied_generator": False}))
    generator = file.claims("generator", one_transformer=True)
    assert generator == file.claims("discriminator", one_transformer=True)


def test_casing_is_only_what_the_file_says(tmp_path: Path) -> None:
    """`do_lower_case` is taken where it stands; its default is no proof, for another script does the casing."""
    assert read_config_file(write(tmp_path / "a.json", {"do_lower_case": False})).lowercase is False
    assert read_config_file(write(tmp_path / "b.json", {"model_size": "small"})).lowercase is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], r"holds a JSON list, not an object"),
        ({}, r"says nothing about a model; it holds nothing"),
        ({"learning_rate": 1}, r"says nothing about a model; it holds 'learning_rate'"),
        ({"model_size": "tiny"}, r"model_size is 'tiny'; Google's code knows small, base, large"),
        ({"model_size": 7}, r"model_size is 7: Expected `str`"),
        ({"model_hparam_overrides": [1]}, r"model_hparam_overrides is \[1\]: Expected `object`"),
        ({"model_hparam_overrides": {}, "generator_hidden_size": "1/4"}, r"generator_hidden_size is '1/4'"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    """A file that cannot be a config is refused with what it holds."""
    with pytest.raises(ConfigError, match=message):
        read_config_file(write(tmp_path / "config.json", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"num_attention_heads": "4"}, r"num_attention_heads is '4': Expected `int`"),
        ({"hidden_act": "gelu_new"}, r"hidden_act is 'gelu_new': Invalid enum value"),
        ({"model_hparam_overrides": {"hidden_size": 64.5}}, r"model_hparam_overrides.hidden_size is 64.5"),
        ({"model_hparam_overrides": {"hidden_size": "x"}, "vocab_size": None}, r"vocab_size is None"),
    ],
)
@pytest.mark.parametrize("part", ["discriminator", "generator"])
def test_a_value_no_model_can_have_is_named(tmp_path: Path, content: Any, message: str, part: Part) -> None:
    """A value of the wrong type is an error that names its key, whichever part is converted."""
    with pytest.raises(ConfigError, match=message):
        read_config_file(write(tmp_path / "config.json", content)).claims(part, one_transformer=False)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """Broken JSON, other encodings and missing files are errors of this package."""
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "latin.json").write_bytes(b'{"hidden_act": "\xe9"}')
    for name in ("broken.json", "latin.json", "missing.json"):
        with pytest.raises(ConfigError, match=name):
            read_config_file(tmp_path / name)


def test_one_config_cannot_describe_two_parts(tmp_path: Path) -> None:
    """A `config.json` with `--part both` is refused, unless both parts are one transformer."""
    file = read_config_file(write(tmp_path / "config.json", {"num_attention_heads": 4}))
    with pytest.raises(OptionError, match="describes one model"):
        check_scope(file, ("discriminator", "generator"), one_transformer=False)
    check_scope(file, ("discriminator", "generator"), one_transformer=True)
    check_scope(file, ("generator",), one_transformer=False)


@pytest.mark.parametrize("share", [1e308, 10**400, 0, -1])
def test_a_share_that_is_none_is_refused(tmp_path: Path, share: float) -> None:
    """The generator's share of the sizes must be a number one can multiply with."""
    with pytest.raises(ConfigError, match="generator_hidden_size is"):
        read_config_file(write(tmp_path / "hparams.json", {"model_size": "small", "generator_hidden_size": share}))


def test_a_bert_config_with_casing_describes_one_part(tmp_path: Path) -> None:
    """Sizes at the top tell a `bert_config.json`, whatever else stands in it."""
    content = {"hidden_size": 64, "num_attention_heads": 4, "do_lower_case": False}
    file = read_config_file(write(tmp_path / "bert_config.json", content))
    assert not file.describes_both_parts
    assert file.claims("discriminator", one_transformer=False)["hidden_size"].value == 64
    assert file.lowercase is False
