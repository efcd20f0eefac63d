"""What Google's code recorded of fine-tuned checkpoints, to compare models of every framework with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FIXTURES = Path(__file__).parents[1] / "fixtures"
TASKS = (
    ("finetuned_chunk", "chunk", "token_classification"),
    ("finetuned_mnli", "mnli", "sequence_classification"),
    ("finetuned_multitask", "cola", "sequence_classification"),
    ("finetuned_multitask", "sts", "sequence_classification"),
    ("finetuned_squad_span", "squadv1", "question_answering"),
    ("finetuned_sts", "sts", "sequence_classification"),
)
"""Fixture, task, and the head it becomes."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MASKED = -500
"""What no logit is below but where Google's code subtracted 1000, which takes seven digits from it."""

each_task = pytest.mark.parametrize(("name", "task", "head"), TASKS)


def inputs_of(name: str) -> dict[str, Any]:
    """Return the inputs that were recorded."""
    recorded = np.load(FIXTURES / name / "expected.npz")
    return {key: recorded[key] for key in INPUTS}


def outputs_of(name: str, task: str) -> dict[str, Any]:
    """Return the outputs that were recorded, under the names that models give them."""
    recorded = np.load(FIXTURES / name / "expected.npz")
    if f"{task}/logits" in recorded:
        return {"logits": recorded[f"{task}/logits"]}
    if f"{task}/start_logits" in recorded:
        return {key: recorded[f"{task}/{key}"] for key in ("start_logits", "end_logits")}
    return {"logits": recorded[f"{task}/predictions"][:, None]}


def largest_difference(name: str, task: str, computed: Mapping[str, Any]) -> float:
    """Return how far outputs are from the recorded ones, at attended positions without Google's answer mask."""
    attended = inputs_of(name)["attention_mask"].astype(bool)
    differences = []
    for key, expected in outputs_of(name, task).items():
        found = np.asarray(computed[key])
        assert found.shape == expected.shape
        kept = expected > MASKED
        if expected.shape[:2] == attended.shape:
            kept &= attended.reshape(attended.shape + (1,) * (expected.ndim - 2))
        assert kept.any()
        differences.append(np.abs(found - expected)[kept].max())
    return float(max(differences))


def task_difference(
    directory: Path, name: str, task: str, head: str, compute: Callable[[Path, dict[str, Any]], Any]
) -> float:
    """Return how far what a model computes is from what was recorded.

    Args:
        directory: Where the fixture was converted to.
        name: The fixture.
        task: The task.
        head: The head it becomes.
        compute: Returns the outputs of the model in a directory for some inputs, as attributes.
    """
    outputs = compute(directory / head, inputs_of(name))
    return largest_difference(name, task, {key: getattr(outputs, key) for key in outputs_of(name, task)})


def compute_pytorch(model: Any, inputs: Mapping[str, Any]) -> Any:
    """Return the outputs of a PyTorch model."""
    import torch

    with torch.no_grad():
        return model(**{key: torch.from_numpy(values).long() for key, values in inputs.items()})
