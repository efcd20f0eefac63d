"""The gates tell right models from wrong ones, and say what they were chosen between."""

from __future__ import annotations

import pytest

from electra_convert.formats import TARGETS
from electra_convert.parity.gates import UNIT_ROUNDOFF, committed_gates, gates


def test_the_float32_gate_lies_between_right_models_and_faults() -> None:
    """At most four times the worst right model that was seen, and below the least of the known faults."""
    gate = committed_gates()
    right, faults = gate.calibration.right, gate.calibration.faults
    assert right.keys() == set(TARGETS)
    assert max(right.values()) < gate.float32.units <= 4 * max(right.values())
    assert len(faults) >= 8
    assert gate.float32.units < min(faults.values())


def test_the_float64_gate_is_the_one_that_is_promised() -> None:
    """1e-10 at every layer, whatever the scale."""
    gate = committed_gates()
    assert gate.limit("float64", scale=1e6, depth=30) == gate.limit("float64", scale=1e-6, depth=1) == 1e-10


def test_the_float32_gate_grows_with_scale_and_depth() -> None:
    """C x unit roundoff x scale x depth."""
    gate = committed_gates()
    assert gate.limit("float32", scale=3.0, depth=5) == pytest.approx(15 * gate.float32.units * UNIT_ROUNDOFF)


def test_a_loosened_gate_says_so() -> None:
    """The factor is in the limit and in the report."""
    loosened = gates({"float32": 10.0})
    assert loosened.limit("float32", scale=1, depth=1) == 10 * committed_gates().limit("float32", scale=1, depth=1)
    assert {report.precision: report.loosened for report in loosened.report()} == {"float64": 1.0, "float32": 10.0}
