"""How far a model may be from the oracle: the rules of `gates.yaml`, applied."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

from electra_convert.parity.report import PRECISIONS, GateReport, Precision
from electra_convert.yaml import read_yaml

UNIT_ROUNDOFF = 2.0**-24
"""Half the distance from 1 to the next float32."""


class Absolute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A difference that is the same for all arrays."""

    absolute: float
    reason: str


class Scaled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A difference that grows with what is compared: `units` x unit roundoff x scale x depth."""

    units: float
    reason: str


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the gate of float32 was chosen between, in its units.

    Args:
        right: The worst of right models, by what was run.
        faults: The largest difference each known fault makes, by fault.
    """

    right: dict[str, float] = {}
    faults: dict[str, float] = {}


class Gates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `gates.yaml` holds, and by how much a user loosened it."""

    float64: Absolute
    float32: Scaled
    calibration: Calibration
    loosened: dict[Precision, float] = {}

    def limit(self, precision: Precision, *, scale: float, depth: int) -> float:
        """Return the largest difference that passes.

        Args:
            precision: The dtype the model computed in.
            scale: The largest magnitude in the oracle's array.
            depth: How deep in the graph the array is.
        """
        factor = self.loosened.get(precision, 1.0)
        if precision == "float64":
            return factor * self.float64.absolute
        return factor * self.float32.units * UNIT_ROUNDOFF * scale * depth

    def times(self, factor: float) -> Gates:
        """Return gates that are this much wider."""
        loosened = {precision: factor * self.loosened.get(precision, 1.0) for precision in PRECISIONS}
        return msgspec.structs.replace(self, loosened=loosened)

    def report(self) -> tuple[GateReport, ...]:
        """Describe the gates as they are applied."""
        rules: tuple[tuple[Precision, str, str], ...] = (
            ("float64", f"{self.float64.absolute:g}", self.float64.reason),
            ("float32", f"{self.float32.units:g} x 2**-24 x scale x depth", self.float32.reason),
        )
        return tuple(
            GateReport(precision=precision, rule=rule, reason=reason, loosened=self.loosened.get(precision, 1.0))
            for precision, rule, reason in rules
        )


@cache
def committed_gates() -> Gates:
    """Return the gates as they are committed."""
    return msgspec.convert(read_yaml(Path(__file__).with_name("gates.yaml")), Gates)


def gates(loosened: Mapping[Precision, float] | None = None) -> Gates:
    """Return the gates, each multiplied by the factor given for its precision."""
    return msgspec.structs.replace(committed_gates(), loosened=dict(loosened or {}))
