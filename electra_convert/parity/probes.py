"""The inputs that models are compared on, and what they reach.

A fault shows only where it is looked at: so the probes look up every position and every token type, ids from all over
the vocabulary, `[MASK]`, padding of several lengths, and the shortest and the longest input a model can take. No row is
padding alone: implementations differ there, and nobody asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from electra_convert.config import ElectraConfig
from electra_convert.parity.report import Coverage, ProbeReport

if TYPE_CHECKING:
    from electra_convert.tensor import Array

LENGTHS = (1, 2, 7, 128)
"""Lengths beside the longest: one token, the shortest pair, an odd few, the length the released small model saw."""
ROWS = 4
"""Rows of a probe: one unpadded, the others with less and less padding."""
FEWEST_ROWS = 2
"""Rows of every probe but the longest, whatever the budget: so that there is padding."""
BUDGET = 25e9
"""Floating-point operations that one head may cost in one framework at one precision: seconds, not minutes."""
GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, spread more evenly than random numbers (Weyl's sequence)."""


class Probe(NamedTuple):
    """A batch of inputs, integer arrays `[batch, length]`."""

    name: str
    says: str
    input_ids: Array
    attention_mask: Array
    token_type_ids: Array

    @property
    def inputs(self) -> dict[str, Array]:
        """The arrays by the names all models give them."""
        return {field: getattr(self, field) for field in ("input_ids", "attention_mask", "token_type_ids")}


def make_probes(config: ElectraConfig, *, mask_id: int | None, budget: float = BUDGET) -> tuple[Probe, ...]:
    """Return the probes of a model: a few for each length, and as many rows as the budget allows.

    Args:
        config: The model's config.
        mask_id: The id of `[MASK]`, where a vocabulary tells it.
        budget: Floating-point operations that all probes together should cost; no length is left out.
    """
    longest = config.max_position_embeddings
    lengths = sorted({length for length in LENGTHS if length < longest} | {longest})
    probes, start = [], 0
    for length in lengths:
        affordable = int(budget / len(lengths) / flops(config, length))
        rows = min(ROWS, max(affordable, 1 if length == longest else FEWEST_ROWS))
        ids = _spread_ids(rows * length, config.vocab_size, start).reshape(rows, length)
        start += rows * length
        probes.append(_probe(f"length {length}", ids, config, mask_id))
    return tuple(probes)


def describe(probes: Sequence[Probe], config: ElectraConfig) -> Coverage:
    """Say what probes reach."""
    import numpy as np

    attended = [(probe, probe.attention_mask.astype(bool)) for probe in probes]
    ids = np.concatenate([probe.input_ids[seen] for probe, seen in attended])
    types = np.concatenate([probe.token_type_ids[seen] for probe, seen in attended])
    scaled = [f"{len(probe.input_ids)} of {probe.name}" for probe in probes if len(probe.input_ids) < ROWS]
    return Coverage(
        probes=tuple(ProbeReport(name=probe.name, shape=_shape(probe), says=probe.says) for probe in probes),
        tokens=sum(probe.input_ids.size for probe in probes),
        positions=max(probe.input_ids.shape[1] for probe in probes) / config.max_position_embeddings,
        vocabulary=len(np.unique(ids)) / config.vocab_size,
        token_types=len(np.unique(types)) / config.type_vocab_size,
        scaled=f"{', '.join(scaled)} in place of {ROWS} rows, to stay within the budget" if scaled else "",
    )


def flops(config: ElectraConfig, length: int) -> float:
    """Return the floating-point operations that a row of this length costs in the backbone."""
    dense = config.num_hidden_layers * (4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size)
    attention = config.num_hidden_layers * 2 * config.hidden_size * length
    return 2.0 * length * (dense + attention)


def _spread_ids(count: int, vocab_size: int, start: int) -> Array:
    """Return ids spread evenly over the vocabulary, its first and its last among them."""
    import numpy as np

    ids: Array = np.floor((np.arange(start, start + count) * GOLDEN % 1.0) * vocab_size).astype(np.int32)
    ids[-1] = vocab_size - 1 - start % 2
    return ids


def _probe(name: str, ids: Array, config: ElectraConfig, mask_id: int | None) -> Probe:
    """Complete a probe: padding, segments, masks."""
    import numpy as np

    rows, length = ids.shape
    mask = np.ones_like(ids)
    segments = np.arange(length) * config.type_vocab_size // length + np.arange(rows)[:, None]
    types = (segments % config.type_vocab_size).astype(ids.dtype)
    for row in range(1, rows):
        mask[row, max(1, length - row * length // (rows + 1)) :] = 0
    says = [f"{rows} x {length}"]
    if (mask == 0).any():
        says.append("padding")
    if config.type_vocab_size > 1 and len(np.unique(types)) > 1:
        says.append("segments")
    if mask_id is not None and mask_id < config.vocab_size and length > 2:
        ids[:, 2::7] = mask_id
        says.append("[MASK]")
    return Probe(name, ", ".join(says), ids, mask, types)


def _shape(probe: Probe) -> tuple[int, int]:
    rows, length = probe.input_ids.shape
    return rows, length


def save_probes(path: Path, probes: Sequence[Probe]) -> None:
    """Write probes to the file a worker reads: `0.input_ids` and so on."""
    import numpy as np

    arrays: dict[str, Any] = {}
    for number, probe in enumerate(probes):
        arrays |= {f"{number}.{field}": array for field, array in probe.inputs.items()}
    np.savez(path, **arrays)
