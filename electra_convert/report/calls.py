"""How a model is loaded and run in each framework: the calls, as the terminal and the model card print them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from electra_convert.formats import TargetFormat
from electra_convert.models.files import ARCHITECTURES


class Framework(NamedTuple):
    """What is particular to one framework.

    Args:
        prefix: What its classes are called beside PyTorch's.
        tensors: What tokenizers call its arrays.
        transformers: The versions of transformers that have its classes.
        install: What to install for them.
    """

    prefix: str
    tensors: str
    transformers: str
    install: str


class Example(NamedTuple):
    """What a head is given and what it answers.

    Args:
        texts: The first arguments of the tokenizer, as code.
        outputs: The fields of the answer.
        says: What is in them.
        batched: The texts are choices of one example, so that the batch needs an axis of its own.
    """

    texts: str
    outputs: tuple[str, ...]
    says: str
    batched: bool = False


FRAMEWORKS: dict[TargetFormat, Framework] = {
    "pytorch": Framework("", "pt", "4 and 5", "pip install transformers torch"),
    "tensorflow": Framework("TF", "tf", "4", 'pip install "transformers<5" tensorflow tf-keras'),
    "flax": Framework("Flax", "np", "4", 'pip install "transformers<5" flax'),
}
NO_SUCH_CLASS = {"TFElectraForCausalLM": "TFElectraForMaskedLM"}
"""Classes that transformers lacks, each with the one whose files have the same names."""
EXAMPLES = {
    "base": Example('"Some text."', ("last_hidden_state",), "[1, tokens, hidden size]"),
    "pretraining": Example('"Some text."', ("logits",), "[1, tokens]: above 0 where a token was probably replaced"),
    "masked_lm": Example(
        'f"Some text with a {tokenizer.mask_token} in it."',
        ("logits",),
        "[1, tokens, vocabulary]: what fits each place",
    ),
    "causal_lm": Example('"Some text"', ("logits",), "[1, tokens, vocabulary]: what may follow each token"),
    "sequence_classification": Example('"Some text."', ("logits",), "[1, labels]"),
    "multiple_choice": Example(
        '["A question?"] * 2, ["An answer.", "Another answer."]', ("logits",), "[1, answers]", batched=True
    ),
    "token_classification": Example('"Some text."', ("logits",), "[1, tokens, labels]"),
    "question_answering": Example(
        '"A question?", "The text that answers it."',
        ("start_logits", "end_logits"),
        "[1, tokens]: where the answer starts, and where it ends",
    ),
}


def load_call(
    architecture: str,
    target: TargetFormat,
    place: str | Path,
    *,
    formats: Sequence[TargetFormat],
    revision: str | None = None,
) -> str:
    """Return the call that loads a model with transformers.

    Args:
        architecture: Its class, without a framework's prefix.
        target: The framework.
        place: Its directory, or its repository.
        formats: All formats that lie there.
        revision: The revision of the repository.
    """
    arguments = [_place(place, revision)]
    if target == "tensorflow" and "pytorch" in formats:  # transformers 4.55 to 4.57 fail on the file for PyTorch
        arguments.append("use_safetensors=False")
    return f"{class_name(architecture, target)}.from_pretrained({', '.join(arguments)})"


def class_name(architecture: str, target: TargetFormat) -> str:
    """Return the class of transformers that reads a model in one framework."""
    name = FRAMEWORKS[target].prefix + architecture
    return NO_SUCH_CLASS.get(name, name)


def example(
    head: str,
    target: TargetFormat,
    repo_id: str,
    *,
    formats: Sequence[TargetFormat],
    tokenizer: bool,
    revision: str | None = None,
) -> str:
    """Return a program that loads a published model with transformers and runs it once.

    Args:
        head: The head.
        target: The framework.
        repo_id: The repository.
        formats: All formats that lie there.
        tokenizer: A tokenizer lies there; without, the program only loads the model.
        revision: The revision of the repository.
    """
    architecture = ARCHITECTURES[head]
    load = f"model = {load_call(architecture, target, repo_id, formats=formats, revision=revision)}"
    name = class_name(architecture, target)
    if not tokenizer:
        return f"from transformers import {name}\n\n{load}"
    run = EXAMPLES[head]
    tensors = FRAMEWORKS[target].tensors
    lines = [
        f"from transformers import AutoTokenizer, {name}",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({_place(repo_id, revision)})",
        load,
        "",
        f'inputs = tokenizer({run.texts}, {"padding=True, " if run.batched else ""}return_tensors="{tensors}")',
        *(["inputs = {name: array[None] for name, array in inputs.items()}"] if run.batched else []),
        "outputs = model(**inputs)",
        f"{', '.join(f'outputs.{field}' for field in run.outputs)}  # {run.says}",
    ]
    return "\n".join(lines)


def own_example(head: str, targets: Sequence[TargetFormat], repo_id: str, *, revision: str | None = None) -> str:
    """Return a program that loads a published model with this package's own models.

    Args:
        head: The head.
        targets: The frameworks.
        repo_id: The repository.
        revision: The revision of the repository.
    """
    names = {target: FRAMEWORKS[target].prefix + ARCHITECTURES[head] for target in targets}
    return "\n".join(
        [
            *(f"from electra_convert.models.{target} import {name}" for target, name in names.items()),
            "from huggingface_hub import snapshot_download",
            "",
            f"directory = snapshot_download({_place(repo_id, revision)})",
            *(f"model = {name}.from_pretrained(directory)" for name in names.values()),
        ]
    )


def _place(place: str | Path, revision: str | None) -> str:
    quoted = json.dumps(str(place), ensure_ascii=False)
    return quoted + (f", revision={json.dumps(revision, ensure_ascii=False)}" if revision else "")
