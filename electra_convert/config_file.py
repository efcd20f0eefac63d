"""What a config file says about each part: Google's hparams, or a `bert_config.json` or `config.json`.

Google's hparams describe a training run, so both parts, and most of what they say they say by default; the
rules are those of `configure_pretraining.py`, `util/training_utils.py` (`get_bert_config`) and
`run_pretraining.py` (`get_generator_config`). A `bert_config.json` or `config.json` describes one part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from electra_convert.config import Activation, ElectraConfig
from electra_convert.errors import ConfigError, OptionError
from electra_convert.inventory import Part
from electra_convert.json_text import read_json_file

HPARAMS = frozenset(
    {
        "model_size",
        "model_hparam_overrides",
        "electra_objective",
        "electric_objective",
        "generator_hidden_size",
        "generator_layers",
        "untied_generator",
        "untied_generator_embeddings",
        "uniform_generator",
        "two_tower_generator",
        "task_names",
        "mask_prob",
        "disc_weight",
        "gen_weight",
        "train_batch_size",
        "num_train_steps",
        "data_dir",
    }
)
"""Keys that only Google's hparams have; one of them tells what the file is."""

ONE_PART = frozenset({"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"})
"""Keys that stand at the top of a file about one part; hparams have them under `model_hparam_overrides`."""

MODEL_SIZES: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 256, "num_hidden_layers": 12},
    "base": {"hidden_size": 768, "num_hidden_layers": 12},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24},
}
DEBUG_SIZES = {
    "num_hidden_layers": 3,
    "hidden_size": 144,
    "intermediate_size": 144 * 4,
    "num_attention_heads": 4,
}
"""What `debug: true` trains, whatever else the hparams say (`run_pretraining.py`, `PretrainingModel`)."""

SWITCHES = {
    "electra_objective": True,
    "electric_objective": False,
    "uniform_generator": False,
    "untied_generator": True,
    "untied_generator_embeddings": False,
}
"""The hparams that decide which variables a run has, with their defaults."""

MAX_SIZE = 1 << 53
"""The largest whole number that can be multiplied by a share of it."""
MAX_SHARE = 1 << 10
"""The generator's sizes may be larger than the discriminator's; the product with any size is a number still."""
MAX_SHOWN = 100
"""Characters of a wrong value that are shown."""

FIELD_TYPES = {name: kind for name, kind in get_type_hints(ElectraConfig).items() if name != "labels"}


class Claim(msgspec.Struct, frozen=True):
    """What a file says of one field, and how it comes to say it."""

    value: Any
    origin: str


Claims = dict[str, Claim]


def heads_by_rule(hidden_size: int) -> int:
    """Return Google's head count where nobody chose one: each head is 64 wide."""
    return max(1, hidden_size // 64)


class ConfigFile(msgspec.Struct, frozen=True):
    """A config file, read.

    Args:
        name: Its file name, for messages.
        content: What the JSON holds.
    """

    name: str
    content: Mapping[str, Any]

    @property
    def describes_both_parts(self) -> bool:
        """Say whether this is Google's hparams, which describe a whole run."""
        return any(key in HPARAMS for key in self.content) and not any(key in ONE_PART for key in self.content)

    @property
    def lowercase(self) -> bool | None:
        """Whether the text was lower-cased, if the file says."""
        return self.content.get("do_lower_case")

    def switches(self) -> dict[str, bool]:
        """Return what the hparams say of the kind of run; what they leave out has Google's default.

        A file about one part, and the hparams of fine-tuning, say nothing of that.
        """
        if not self.describes_both_parts or "task_names" in self.content:
            return {}
        return {key: self.content.get(key, default) for key, default in SWITCHES.items()}

    def claims(self, part: Part, *, one_transformer: bool) -> Claims:
        """Return what the file says of one part.

        Args:
            part: The part.
            one_transformer: Both parts are one transformer, so that the generator has the discriminator's config.

        Raises:
            ConfigError: A value has the wrong type, or no model has it.
        """
        if not self.describes_both_parts:
            return self._checked({key: Claim(value, key) for key, value in self.content.items() if key in FIELD_TYPES})
        claims = self._checked(_discriminator(self.content))
        return claims if part == "discriminator" or one_transformer else _generator(self.content, claims)

    def _checked(self, claims: Claims) -> Claims:
        problems, checked = [], {}
        for field, claim in claims.items():
            value = claim.value.lower() if field == "hidden_act" and isinstance(claim.value, str) else claim.value
            if isinstance(value, int) and abs(value) > MAX_SIZE:
                problems.append(f"{claim.origin} is {_shortened(str(value))}; no size is larger than {MAX_SIZE}")
                continue
            try:
                checked[field] = Claim(msgspec.convert(value, FIELD_TYPES[field]), claim.origin)
            except (msgspec.ValidationError, UnicodeError) as error:
                problems.append(f"{claim.origin} is {_shortened(repr(claim.value))}: {_shortened(str(error))}")
        if problems:
            hint = f"correct {self.name}; activations are {', '.join(get_args(Activation))}"
            raise ConfigError(f"{self.name} cannot be a config of ELECTRA", problems=problems, hint=hint)
        return checked


def read_config_file(path: Path) -> ConfigFile:
    """Read a config file.

    Raises:
        ConfigError: It cannot be read, is no JSON object, or says nothing about a model.
    """
    hint = "give Google's hparams JSON, a bert_config.json or a config.json"
    try:
        content = read_json_file(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"the config file {path} cannot be read: {why}", hint=hint) from error
    if not isinstance(content, dict):
        raise ConfigError(f"the config file {path} holds a JSON {type(content).__name__}, not an object", hint=hint)
    if not any(key in HPARAMS or key in FIELD_TYPES or key == "do_lower_case" for key in content):
        found = ", ".join(_shortened(repr(key)) for key in list(content)[:5]) or "nothing"
        raise ConfigError(f"the config file {path} says nothing about a model; it holds {found}", hint=hint)
    file = ConfigFile(path.name, content)
    _check_hparams(file)
    return file


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _check_hparams(file: ConfigFile) -> None:
    expected: dict[str, Any] = {
        "model_hparam_overrides": dict,
        "generator_hidden_size": float,
        "generator_layers": float,
        **dict.fromkeys(SWITCHES, bool),
        "debug": bool,
        "do_lower_case": bool,
        "model_size": str,
    }
    problems = []
    for key, kind in expected.items():
        try:
            msgspec.convert(file.content.get(key, kind()), kind)
        except (msgspec.ValidationError, UnicodeError) as error:
            problems.append(f"{key} is {_shortened(repr(file.content[key]))}: {error}")
    for key in ("generator_hidden_size", "generator_layers"):
        share = file.content.get(key, 1.0)
        if isinstance(share, int | float) and not 0 < share <= MAX_SHARE:
            problems.append(f"{key} is {share}; it must be greater than 0, and at most {MAX_SHARE}")
    size = file.content.get("model_size", "small")
    if isinstance(size, str) and size not in MODEL_SIZES:
        problems.append(f"model_size is {_shortened(repr(size))}; Google's code knows {', '.join(MODEL_SIZES)}")
    if problems:
        raise ConfigError(
            f"{file.name} cannot be hparams of Google's code", problems=problems, hint=f"correct {file.name}"
        )


def check_scope(file: ConfigFile, parts: tuple[Part, ...], *, one_transformer: bool) -> None:
    """Refuse a file that describes one part where two different ones are converted.

    Raises:
        OptionError: That is the case.
    """
    if len(parts) > 1 and not one_transformer and not file.describes_both_parts:
        raise OptionError(
            f"{file.name} describes one model, but two different parts are to be converted",
            hint="convert each part with its own config (--part discriminator, then --part generator), "
            "or give the hparams of the run, which describe both",
        )


def _discriminator(hparams: Mapping[str, Any]) -> Claims:
    """Follow `get_bert_config`."""
    size = hparams.get("model_size", "small")
    default = f"the default of model_size {size!r}"
    claims = {field: Claim(value, default) for field, value in MODEL_SIZES[size].items()}
    claims["vocab_size"] = Claim(
        hparams.get("vocab_size", 30522), "vocab_size" if "vocab_size" in hparams else "the default"
    )
    overrides = {
        field: Claim(value, f"model_hparam_overrides.{field}")
        for field, value in hparams.get("model_hparam_overrides", {}).items()
        if field in FIELD_TYPES
    }
    claims |= overrides
    claims |= _by_rule(claims["hidden_size"].value)
    claims |= {field: Claim(getattr(_BERT, field), "the default") for field in _BERT_FIELDS}
    claims |= overrides
    if hparams.get("debug"):
        claims |= {field: Claim(value, "debug") for field, value in DEBUG_SIZES.items()}
    claims["embedding_size"] = _embedding_size(hparams, size, claims["hidden_size"].value)
    return claims


def _embedding_size(hparams: Mapping[str, Any], size: str, hidden_size: int) -> Claim:
    if hparams.get("embedding_size") is not None:
        return Claim(hparams["embedding_size"], "embedding_size")
    if size == "small" and "embedding_size" not in hparams:
        return Claim(128, "the default of model_size 'small'")
    return Claim(hidden_size, "hidden_size, as no embedding_size is given")


def _generator(hparams: Mapping[str, Any], discriminator: Claims) -> Claims:
    """Follow `get_generator_config`."""
    claims = dict(discriminator)
    for field, key, default in (
        ("hidden_size", "generator_hidden_size", 0.25),
        ("num_hidden_layers", "generator_layers", 1.0),
    ):
        whole, share = discriminator[field].value, hparams.get(key, default)
        claims[field] = Claim(round(whole * share), f"{field} {whole} x {key} {share}")
    claims |= _by_rule(claims["hidden_size"].value)
    if hparams.get("untied_generator_embeddings"):
        claims["embedding_size"] = Claim(claims["hidden_size"].value, "the generator's hidden_size")
    return claims


def _by_rule(hidden_size: Any) -> Claims:
    if not isinstance(hidden_size, int):
        return {}
    return {
        "num_attention_heads": Claim(heads_by_rule(hidden_size), f"max(1, hidden_size {hidden_size} // 64)"),
        "intermediate_size": Claim(4 * hidden_size, f"4 x hidden_size {hidden_size}"),
    }


_BERT_FIELDS = (
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
)
_BERT = ElectraConfig(vocab_size=1, embedding_size=1, hidden_size=1, num_hidden_layers=1, num_attention_heads=1)
"""Holds the defaults of Google's `BertConfig`, which are ElectraConfig's."""
