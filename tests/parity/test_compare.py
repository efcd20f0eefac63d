"""Comparing says how far apart two models are, and where; nothing passes that should not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from electra_convert.parity.compare import Comparison, as_computed, difference, histogram
from electra_convert.parity.gates import committed_gates
from electra_convert.parity.report import HISTOGRAM_EDGES

Arrays = dict[str, np.ndarray[Any, Any]]


def outputs(*, layers: int = 2) -> Arrays:
    """What a model computes on one probe."""
    random = np.random.default_rng(0)
    return {"hidden_states": random.standard_normal((layers + 1, 2, 3, 4)), "logits": random.standard_normal((2, 3))}


def compared(expected: Arrays, got: Arrays) -> Comparison:
    """Compare them in float64."""
    comparison = Comparison(committed_gates(), "float64")
    comparison.add("length 3", as_computed(expected), as_computed(got))
    return comparison


def test_equal_outputs_pass() -> None:
    """Every array is listed, in the order of the graph."""
    comparison = compared(outputs(), outputs())
    assert comparison.passed
    assert list(comparison.arrays) == ["embeddings", "layer 1", "layer 2", "logits"]
    assert comparison.needed == 0
    assert comparison.counts.sum() == comparison.counts[0] == 3 * 24 + 6


def test_the_first_array_that_diverges_is_told() -> None:
    """With its element and both values; later ones are compared all the same."""
    other = outputs()
    other["hidden_states"][1, 1, 2, 3] += 1e-3
    other["logits"] += 5
    comparison = compared(outputs(), other)
    assert not comparison.passed
    found = comparison.divergence
    assert found is not None
    assert (found.array, found.probe, found.worst.index) == ("layer 1", "length 3", (1, 2, 3))
    assert found.worst.got - found.worst.expected == pytest.approx(1e-3)
    assert [array.passed for array in comparison.arrays.values()] == [True, False, True, False]
    assert comparison.needed == pytest.approx(5e10)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails(value: float) -> None:
    """Whatever the tolerance."""
    other = outputs()
    other["logits"][0, 1] = value
    comparison = compared(outputs(), other)
    assert not comparison.passed
    assert comparison.needed == np.inf
    assert comparison.arrays["logits"].worst.index == (0, 1)


def test_an_infinity_widens_no_gate() -> None:
    """Not even where the oracle itself has one: what is not finite is no agreement, and the rest has its own scale."""
    expected, got = outputs(), outputs()
    expected["logits"][0, 0] = got["logits"][0, 0] = np.inf
    got["logits"][1, 1] += 1
    comparison = Comparison(committed_gates(), "float32")
    comparison.add("length 3", as_computed(expected), as_computed(got))
    assert not comparison.passed
    assert comparison.needed == np.inf


def test_nothing_compared_does_not_pass() -> None:
    """An empty comparison is no agreement."""
    assert not Comparison(committed_gates(), "float64").passed


@pytest.mark.parametrize("got", [outputs(layers=1), {"hidden_states": outputs()["hidden_states"]}])
def test_other_shapes_fail(got: Arrays) -> None:
    """A layer too few, or no logits: the message says what was computed and what was expected."""
    comparison = compared(outputs(), got)
    assert not comparison.passed
    assert "expected embeddings [2, 3, 4], layer 1" in comparison.problems[0]


def test_the_worst_of_several_probes_is_kept() -> None:
    """With the name of its probe, and the number of elements of all."""
    comparison = compared(outputs(), outputs())
    other = outputs()
    other["logits"][1, 1] += 1e-12
    comparison.add("length 9", as_computed(outputs()), as_computed(other))
    comparison.add("length 10", as_computed(outputs()), as_computed(outputs()))
    assert comparison.passed
    logits = comparison.arrays["logits"]
    assert (logits.probe, logits.elements) == ("length 9", 18)
    assert logits.difference == pytest.approx(1e-12, rel=1e-2)


def test_a_difference_where_none_is_allowed_is_the_worst() -> None:
    """The limit of an array of zeros is zero: what differs from them is told, and not a smaller share of a limit."""
    zeros, off = outputs(), outputs()
    zeros["logits"][:] = 0
    off["logits"][:] = 1e-3
    comparison = compared(zeros, off)
    comparison.add("length 9", as_computed(outputs()), as_computed(outputs()))
    assert comparison.arrays["logits"].difference == pytest.approx(1e-3)


def test_histograms_count_by_power_of_ten() -> None:
    """What is equal counts in the first bin, what is not a number in the last."""
    expected = np.zeros(4)
    counts = histogram(expected, np.array([0.0, 3e-7, 3e-7, np.nan]))
    assert counts[0] == 1
    assert counts[HISTOGRAM_EDGES.index(-7)] == 2
    assert counts[-1] == 1


def test_float32_is_compared_exactly() -> None:
    """The difference is taken in float64, not rounded."""
    assert difference(np.array([1.0]), np.array([1.0 + 2**-23], np.float32)).largest == 2**-23
