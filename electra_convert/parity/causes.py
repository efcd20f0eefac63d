"""Why a head fails, where that can be told: from its files, or from what Google's graph would do otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from electra_convert.config import ElectraConfig
from electra_convert.errors import ElectraConvertError
from electra_convert.parity.compare import Comparison, as_computed, read_outputs
from electra_convert.parity.gates import committed_gates
from electra_convert.parity.heads import Found
from electra_convert.parity.reference import OracleReference
from electra_convert.parity.report import Check, Run

if TYPE_CHECKING:
    from electra_convert.tensor import Array

EPSILONS = (1e-5, 1e-6, 1e-3)
"""The epsilons of layer norms that frameworks default to."""
SHORT = 7
"""Length of the longest probe on which other graphs are tried: there are many, and any length shows them."""


def likely_causes(found: Found) -> tuple[str, ...]:
    """Return what probably makes a head fail: faults of its files first; else what else it might compute."""
    failed = [run for run in found.runs if run.outcome == "failed"]
    causes = [_told(check) for check in found.subject.checks if not check.passed]
    if failed and not causes:
        causes += _elsewhere(found, failed)
    return tuple(causes)


def _told(check: Check) -> str:
    where = f"the {check.framework} weights" if check.framework else f"the {check.name}"
    more = f" (and {len(check.faults) - 1} more)" if len(check.faults) > 1 else ""
    return f"{where}: {check.faults[0] if check.faults else check.says}{more}"


def _elsewhere(found: Found, failed: list[Run]) -> Iterator[str]:
    """Yield what models compute instead, where one change of Google's graph gives the same in float64."""
    reference = found.subject.reference
    run = next((run for run in failed if run.precision == "float64" and run.divergence), None)
    if run is None or not isinstance(reference, OracleReference):
        return
    number = max(index for index, probe in enumerate(reference.probes) if probe.input_ids.shape[1] <= SHORT)
    folder = found.outputs / f"{run.framework}-{run.precision}"
    got = read_outputs(folder, number)
    for says, arrays in faulty_graphs(reference, found.subject.directory.head, number):
        comparison = Comparison(committed_gates(), "float64")
        comparison.add(reference.probes[number].name, as_computed(arrays), got)
        if comparison.passed:
            yield f"the {run.framework} model computes with {says}"
            return
    yield (
        f"not told by the files: they hold the right bits, so the {run.framework} model itself computes something else "
        f"(its version is in the report)"
    )


def faulty_graphs(reference: OracleReference, head: str, number: int) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield what Google's graph computes on one probe with one thing changed, and what is changed."""
    config, probe = reference.config, reference.probes[number]
    for says, other in _configs(config):
        if other == config:
            continue
        try:
            oracle = reference.variant(other, cast=reference.cast)
            yield says, reference.compute(oracle, head, number, probe)
        except ElectraConvertError:
            continue


def _configs(config: ElectraConfig) -> Iterator[tuple[str, ElectraConfig]]:
    from electra_convert.models.google import TANH_GELU

    if config.hidden_act == "gelu":
        yield "the tanh approximation of GELU", msgspec.structs.replace(config, hidden_act=TANH_GELU)
    for epsilon in EPSILONS:
        yield f"layer_norm_eps = {epsilon:g}", msgspec.structs.replace(config, layer_norm_eps=epsilon)
    for heads in (count for count in range(1, config.hidden_size + 1) if config.hidden_size % count == 0):
        yield f"num_attention_heads = {heads}", msgspec.structs.replace(config, num_attention_heads=heads)
    for activation in ("relu", "tanh", "linear", "gelu"):
        yield f"hidden_act = {activation}", msgspec.structs.replace(config, hidden_act=activation)
