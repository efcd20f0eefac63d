"""What happened to a tensor is told from its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from electra_convert.parity.diagnosis import same_bits, what_happened
from electra_convert.tensor import Tensor

Values = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(0)
SQUARE = RANDOM.standard_normal((4, 4)).astype(np.float32)
OTHER = RANDOM.standard_normal((4, 4)).astype(np.float32)
OTHERS = {"layer.1.query": Tensor("layer.1.query", (4, 4), "float32", lambda: OTHER)}


def nudged(values: Values) -> Values:
    """Change one element."""
    changed = values.copy()
    changed[1, 2] += 1
    return changed


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (np.negative, "is negated"),
        (np.zeros_like, "is all zeros"),
        (np.transpose, "is transposed"),
        (lambda values: values.astype(np.float16).astype(np.float32), "was rounded to float16"),
        (lambda values: np.roll(values, 1, axis=0), "is shifted by 1 along its first axis"),
        (lambda _: OTHER, "holds layer.1.query"),
        (nudged, "differs in 1 of 16 elements, first at [1, 2]"),
    ],
)
def test_the_likely_cause_is_told(damage: Callable[[Values], Values], said: str) -> None:
    """One sentence, with the tensor's name."""
    assert what_happened("layer.0.query", SQUARE, damage(SQUARE), OTHERS).startswith(f"layer.0.query {said}")


def test_bits_are_compared_not_values() -> None:
    """-0 is not 0, and a NaN is itself; another dtype or shape is another tensor."""
    nan = np.array([np.nan, 1.0])
    assert same_bits(nan, nan.copy())
    assert not same_bits(np.array([0.0]), np.array([-0.0]))
    assert not same_bits(np.zeros(2), np.zeros(2, np.float32))
    assert not same_bits(np.zeros(2), np.zeros((1, 2)))
    assert (
        what_happened("a", np.zeros(2), np.array([0.0, -0.0]), {})
        == "a differs in the sign of zeros, or in the bits of NaN"
    )
