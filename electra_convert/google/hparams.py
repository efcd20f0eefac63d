"""The hparams with which Google's code builds the model of a checkpoint that is written for it.

They are what `--hparams` of `run_pretraining.py` and `run_finetuning.py` takes, and `--config` of this package.
Google's code derives much: the generator's sizes are shares of the discriminator's, its head count and its intermediate
size follow from them. So the hparams that are made are read as Google's code reads them, and must say the config again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from electra_convert.config import ElectraConfig
from electra_convert.config_file import MODEL_SIZES, SWITCHES, ConfigFile
from electra_convert.errors import ConfigError
from electra_convert.inventory import Part
from electra_convert.mapping import Topology

HPARAMS_FILE = "hparams.json"
FINE_TUNING_FILE = "hparams_finetuning.json"
"""The hparams of a pre-trained model without those that fine-tuning does not know, and refuses."""
OVERRIDES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
)
"""What `model_hparam_overrides` says: the fields of `BertConfig` (`model/modeling.py`), the vocabulary's size apart."""
OF_TRAINING = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")
"""The fields that change what training does, and not what the model computes."""
OF_MODELS = (
    "model_size",
    "model_hparam_overrides",
    "embedding_size",
    "vocab_size",
    "do_lower_case",
    "max_seq_length",
)
"""The hparams that pre-training and fine-tuning both know."""
TASK_HPARAMS: dict[str, dict[str, Any]] = {
    "question_answering": {"joint_prediction": False, "answerable_classifier": False},
}
"""What fine-tuning must be told to build a head (`configure_finetuning.py`)."""
USUAL_LENGTH = 128
USUAL_LENGTHS = {"question_answering": 512, "token_classification": 256}
"""Tokens of an input, by default: `max_seq_length`, and what some tasks make of it."""
EPSILON = 1e-12
"""What Google's code adds to the variance in every layer norm (`model/modeling.py`, `layer_norm`)."""


def make_hparams(
    kind: Topology, configs: Mapping[Part, ElectraConfig], *, lowercase: bool, task: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Return the hparams of a checkpoint.

    Args:
        kind: What it is.
        configs: The config of each of its parts.
        lowercase: Whether the model saw lower-cased text.
        task: The task it is fine-tuned on, and that task's head.

    Raises:
        ConfigError: Google's code could not build these parts together; every reason is listed.
    """
    main = next(iter(configs.values()))
    hparams: dict[str, Any] = {
        "model_size": _model_size(main),
        "model_hparam_overrides": {field: getattr(main, field) for field in OVERRIDES},
        "embedding_size": main.embedding_size,
        "vocab_size": main.vocab_size,
        "do_lower_case": lowercase,
    }
    hparams |= {key: value for key, value in kind.hparams.items() if value != SWITCHES[key]}
    if len(configs) > 1 and not kind.one_transformer:
        generator = configs["generator"]
        hparams["generator_hidden_size"] = generator.hidden_size / main.hidden_size
        hparams["generator_layers"] = generator.num_hidden_layers / main.num_hidden_layers
    if task:
        hparams |= {"task_names": [task[0]], **TASK_HPARAMS.get(task[1], {})}
    if main.max_position_embeddings < (USUAL_LENGTHS.get(task[1], USUAL_LENGTH) if task else USUAL_LENGTH):
        hparams["max_seq_length"] = main.max_position_embeddings
    _require_config(hparams, kind, configs)
    return hparams


def fine_tuning_hparams(hparams: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the hparams with which a pre-trained model is fine-tuned; nothing, if they are no others."""
    if "task_names" in hparams or hparams.keys() <= set(OF_MODELS):
        return None
    return {key: hparams[key] for key in OF_MODELS if key in hparams}


def hparams_notes(hparams: Mapping[str, Any], kind: Topology, configs: Mapping[Part, ElectraConfig]) -> Iterator[str]:
    """Yield what Google's code does otherwise than the models, and a user should know."""
    for part, field, value, told in _differences(hparams, kind, configs):
        if field in OF_TRAINING:
            yield f"the {part}'s {field} is {value}; Google's code trains it with {told}"
    for part, config in configs.items():
        if config.layer_norm_eps != EPSILON:
            yield (
                f"the {part}'s layer_norm_eps is {config.layer_norm_eps}; Google's code always takes {EPSILON}, and so "
                "computes something slightly different"
            )
        if part == "generator" and config.hidden_act != "gelu":
            yield (
                f"Google's code uses {config.hidden_act} in the generator's head, where transformers' masked_lm uses "
                "GELU all the same"
            )


def _model_size(config: ElectraConfig) -> str:
    """Return the model size whose name fits; all that it would say is said beside it."""
    sizes = {"hidden_size": config.hidden_size, "num_hidden_layers": config.num_hidden_layers}
    return next((size for size, known in MODEL_SIZES.items() if known == sizes), "small")


def _require_config(hparams: Mapping[str, Any], kind: Topology, configs: Mapping[Part, ElectraConfig]) -> None:
    problems = [
        f"the {part}'s {field} is {value}; it would be {told}"
        for part, field, value, told in _differences(hparams, kind, configs)
        if field not in OF_TRAINING
    ]
    if problems:
        raise ConfigError(
            f"Google's code cannot build {kind.says}, from these two: there the generator's config follows from the "
            "discriminator's",
            problems=problems,
            hint="write each part to a checkpoint of its own",
        )


def _differences(
    hparams: Mapping[str, Any], kind: Topology, configs: Mapping[Part, ElectraConfig]
) -> Iterator[tuple[Part, str, Any, str]]:
    """Yield part, field and value where Google's code would give another value; and that value with the reason."""
    file = ConfigFile(HPARAMS_FILE, hparams)
    for part, config in configs.items():
        for field, claim in file.claims(part, one_transformer=kind.one_transformer).items():
            if getattr(config, field) != claim.value:
                yield part, field, getattr(config, field), f"{claim.value} ({claim.origin})"
