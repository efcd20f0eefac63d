"""What the models of all frameworks do with a directory: read its config, match its tensors, save a model.

Nothing here goes through the mappings: a model says what its parameters are called, and the files must agree.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from electra_convert.config import DIMENSIONS, ElectraConfig, head_config, label_names
from electra_convert.errors import CheckpointNotFoundError, ConfigError, OutputError, TensorMismatchError
from electra_convert.formats import Contents, TargetFormat, module_of
from electra_convert.formats.weights import find_weights
from electra_convert.json_text import read_json_file
from electra_convert.output import make_directory, replace_document, replacing
from electra_convert.tensor import FLOATING, Tensor

if TYPE_CHECKING:
    from electra_convert.tensor import Array

CONFIG_FILE = "config.json"
ARCHITECTURES = {
    "base": "ElectraModel",
    "pretraining": "ElectraForPreTraining",
    "masked_lm": "ElectraForMaskedLM",
    "causal_lm": "ElectraForCausalLM",
    "sequence_classification": "ElectraForSequenceClassification",
    "multiple_choice": "ElectraForMultipleChoice",
    "token_classification": "ElectraForTokenClassification",
    "question_answering": "ElectraForQuestionAnswering",
}
"""The class of each head, without a framework's prefix."""
WRITTEN_AS = {"causal_lm": "masked_lm"}
"""Heads whose files are those of another head."""

TRANSFORMERS_DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "embedding_size": 128,
    "hidden_size": 256,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
"""What a size is that a config.json leaves out (transformers' `ElectraConfig`)."""
ONLY_VALUES: dict[str, Any] = {
    "position_embedding_type": "absolute",
    "classifier_dropout": None,
    "summary_type": "first",
    "summary_use_proj": True,
    "summary_activation": "gelu",
    "tie_word_embeddings": True,
}
"""Switches of transformers' config that select another model than Google's, with the only value known here."""
NOT_OF_THE_MODEL = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype", "id2label", "label2id"})
"""Fields of config.json that say how it was written, or that `ElectraConfig` has under another name."""
CONCERNED: dict[str, tuple[str, ...]] = {
    "classifier_dropout": (),
    "summary_type": ("multiple_choice",),
    "summary_use_proj": ("multiple_choice",),
    "summary_activation": ("multiple_choice",),
    "tie_word_embeddings": ("masked_lm", "causal_lm"),
}
"""The heads whose weights, or what is computed with them, a switch changes, where these are not all. Dropout is of
training alone; in the models of this package, that of a head is `hidden_dropout_prob`."""
MOST = {**dict.fromkeys(DIMENSIONS, 100_000), "vocab_size": 10_000_000, "num_hidden_layers": 1_000}
"""Sizes beyond which no model is built, nor are the names of its tensors."""
MOST_SHOWN = 200
"""Characters of a value in a message."""
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""What PyTorch's files of old versions call parameters, by the end of their names."""
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
"""What they hold beside parameters."""
TIED = {"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"}
"""Parameters that they may hold twice."""
BACKBONE = {"pytorch": "electra.", "flax": "electra/"}
"""The prefix that files of a head give the backbone, and that files of the base model may leave out."""


def read_config(directory: Path, head: str | None = None) -> ElectraConfig:
    """Return what a directory's `config.json` says of a model with a head, as `config_of` does.

    Raises:
        ConfigError: It cannot be read, or describes a model that Google's graph is not.
    """
    path = directory / CONFIG_FILE
    return config_of(read_json(path), path, head)


def config_of(said: Mapping[str, Any], path: Path, head: str | None = None) -> ElectraConfig:
    """Return what a `config.json` says.

    Args:
        said: What it holds.
        path: Where it is.
        head: The head; switches that change nothing of its weights, nor of what is computed with them, may have any
            value. By default all switches must be as Google's graph is.

    Raises:
        ConfigError: It describes a model that Google's graph is not.
    """
    problems = [
        f"{key} is {_shown(said[key])}; only {json.dumps(value)} is known here"
        for key, value in ONLY_VALUES.items()
        if said.get(key, value) != value and (head is None or head in CONCERNED.get(key, (head,)))
    ]
    if said.get("model_type", "electra") != "electra":
        problems.append(f'model_type is {_shown(said["model_type"])}; expected "electra"')
    fields = TRANSFORMERS_DEFAULTS | {key: said[key] for key in ElectraConfig.__struct_fields__ if key in said}
    fields["labels"] = tuple(_labels(said))
    try:
        config = msgspec.convert(fields, ElectraConfig)
        problems += (
            f"{field} is {value}; expected at most {most}"
            for field, most in MOST.items()
            if (value := getattr(config, field)) > most
        )
    except (msgspec.ValidationError, ConfigError) as error:
        problems += getattr(error, "problems", ()) or [str(error)]
    if problems:
        raise ConfigError(f"{path} is not the config of an ELECTRA model", problems=problems, hint="correct the file")
    return config


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    try:
        value = read_json_file(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint="name a directory with config.json and weights"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}", hint="copy it again, or convert again") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds {type(value).__name__}, not an object", hint="copy it again, or convert again")
    return value


def _shown(value: Any) -> str:
    """Return a value as JSON has it, or the beginning of a long one."""
    text = json.dumps(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _labels(said: Mapping[str, Any]) -> list[str]:
    """Return the labels in the order of their numbers; two without names, if none are named."""
    try:
        count = min(said.get("num_labels", 2), MOST["num_labels"] + 1)
        named = said.get("id2label") or dict(enumerate(label_names(count)))
        return [str(named[key]) for key in sorted(named, key=int)]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"config.json has the id2label {_shown(said.get('id2label'))}; expected names by number",
            hint="correct the file",
        ) from error


def load_tensors(
    directory: Path,
    target: TargetFormat,
    expected: Mapping[str, tuple[int, ...]],
    *,
    own: Collection[str],
    initialize_head: bool,
    ignore_mismatched_sizes: bool,
) -> dict[str, Tensor]:
    """Return the tensors of a directory that a model is to load.

    Args:
        directory: The directory.
        target: The framework's format.
        expected: Shape of each of the model's parameters, by its name in the files.
        own: The parameters of the model's head.
        initialize_head: Allow the head to be missing, and another one to be there; what is missing is left out.
        ignore_mismatched_sizes: Leave out tensors of another shape.

    Raises:
        CheckpointNotFoundError: There are no weights in this format.
        CorruptCheckpointError: They are damaged.
        TensorMismatchError: Tensors are missing, unexpected, or of another shape or kind. All of them are listed.
    """
    found = _as_named(_parameters(directory, target), expected, BACKBONE.get(target, ""))
    missing = expected.keys() - found.keys()
    unexpected = found.keys() - expected.keys()
    misshapen = {name for name in found.keys() & expected.keys() if found[name].shape != expected[name]}
    if initialize_head:
        missing, unexpected = missing - set(own), set()
    problems = [f"{name} {list(expected[name])} is missing" for name in sorted(missing)]
    problems += (f"{name} {list(found[name].shape)} is unexpected" for name in sorted(unexpected))
    problems += (
        f"{name} is {found[name].dtype}; parameters are floating-point numbers"
        for name in sorted(found.keys() & expected.keys())
        if found[name].dtype not in FLOATING
    )
    if not ignore_mismatched_sizes:
        problems += (f"{n} has shape {list(found[n].shape)}; expected {list(expected[n])}" for n in sorted(misshapen))
    if problems:
        raise TensorMismatchError(
            f"the {target} weights in {directory} are not those of this model",
            problems=problems,
            hint="load them with the class that config.json names; to put a new head on the backbone, give "
            "initialize_head=True; to replace tensors of another shape by new ones, ignore_mismatched_sizes=True",
        )
    return {name: found[name] for name in expected if name in found.keys() - misshapen}


def _parameters(directory: Path, target: TargetFormat) -> dict[str, Tensor]:
    """Return the parameters that a directory holds in one format, by the names they have today.

    Raises:
        CheckpointNotFoundError: There are no weights in this format.
        CorruptCheckpointError: They are damaged.
    """
    there = next((weights for weights in find_weights(directory) if weights.target == target), None)
    if there is None:
        raise CheckpointNotFoundError(
            f"there are no {target} weights in {directory}", hint=f"name a directory that holds {target} weights"
        )
    found = {_today(name): tensor for name, tensor in there.read().items() if not name.endswith(BUFFERS)}
    for copy, table in TIED.items():
        if copy in found and table in found and _are_equal(found[copy], found[table]):
            del found[copy]
    return found


def _today(name: str) -> str:
    return next((name.removesuffix(old) + new for old, new in OLD_NAMES.items() if name.endswith(old)), name)


def _are_equal(one: Tensor, other: Tensor) -> bool:
    """Say whether two tensors have the same values."""
    import numpy as np

    return np.array_equal(one.load(), other.load())


def _as_named(found: dict[str, Tensor], expected: Collection[str], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under the model's names: the backbone's prefix is there in the one and not in the other."""
    if prefix and not any(name.startswith(prefix) for name in expected):
        return {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    if prefix and not any(name.startswith(prefix) for name in found):
        return {prefix + name if prefix + name in expected else name: tensor for name, tensor in found.items()}
    return found


def save_model(
    directory: Path, target: TargetFormat, head: str, config: ElectraConfig, tensors: Mapping[str, Array]
) -> None:
    """Save a model: its weights in one file, and `config.json`. What else is in the directory stays.

    Args:
        directory: The directory; made if it is not there.
        target: The framework's format.
        head: The model's head.
        config: Its config.
        tensors: Its parameters, by their names in the file.

    Raises:
        OutputError: It cannot be written, or the format cannot hold the dtype.
    """
    dtypes = {str(values.dtype) for values in tensors.values()}
    module = module_of(target)
    if len(dtypes) != 1 or not dtypes <= set(module.DTYPES):
        raise OutputError(
            f"{target} weights are all of one dtype, one of {', '.join(module.DTYPES)}; these are "
            f"{', '.join(sorted(dtypes))}",
            hint="convert the model to such a dtype first",
        )
    contents = Contents(
        [_held(name, values) for name, values in sorted(tensors.items())],
        dtypes.pop(),
        ARCHITECTURES[WRITTEN_AS.get(head, head)],
        {"generator_lm_head": sorted(name for name in tensors if name.startswith("electra/embeddings/"))},
    )
    described = head_config(config, head=head, architecture=ARCHITECTURES[head], pad_token_id=0)
    make_directory(directory)
    with replacing(directory / module.SINGLE) as path:
        module.write(path, contents, lambda _: None)
    replace_document(directory / CONFIG_FILE, (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode())


def _held(name: str, values: Array) -> Tensor:
    return Tensor(name, values.shape, str(values.dtype), lambda: values)
