"""Probes reach what they should, on every size of model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_convert.config import ElectraConfig
from electra_convert.parity.probes import BUDGET, ROWS, Probe, describe, flops, make_probes


def config(
    *, vocab: int = 600, positions: int = 512, types: int = 2, hidden: int = 64, layers: int = 3
) -> ElectraConfig:
    """A config."""
    return ElectraConfig(
        vocab_size=vocab,
        embedding_size=32,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=1,
        intermediate_size=4 * hidden,
        max_position_embeddings=positions,
        type_vocab_size=types,
    )


def check(probes: tuple[Probe, ...], model: ElectraConfig) -> None:
    """Everything a model can be asked is within its tables, and no row is padding alone."""
    for probe in probes:
        assert 0 <= probe.input_ids.min() <= probe.input_ids.max() < model.vocab_size
        assert 0 <= probe.token_type_ids.min() <= probe.token_type_ids.max() < model.type_vocab_size
        assert probe.input_ids.shape[1] <= model.max_position_embeddings
        assert (probe.attention_mask[:, 0] == 1).all()
        assert (np.diff(probe.attention_mask, axis=1) <= 0).all()
        assert (probe.attention_mask[0] == 1).all()


@given(
    vocab=st.integers(1, 40_000),
    positions=st.integers(1, 600),
    types=st.integers(1, 5),
    mask=st.none() | st.integers(0, 9),
)
def test_probes_suit_every_model(vocab: int, positions: int, types: int, mask: int | None) -> None:
    """Of one position or many, of one token type or several."""
    model = config(vocab=vocab, positions=positions, types=types)
    probes = make_probes(model, mask_id=mask)
    check(probes, model)
    coverage = describe(probes, model)
    assert coverage.positions == 1
    assert coverage.token_types == 1 or positions * ROWS < types or positions == 1
    lengths = [probe.input_ids.shape[1] for probe in probes]
    assert lengths == sorted({length for length in (1, 2, 7, 128) if length < positions} | {positions})


def test_probes_hold_what_they_are_for() -> None:
    """Padding of several lengths, segments, masks, ids from everywhere."""
    model = config(vocab=30522)
    probes = make_probes(model, mask_id=103)
    longest = probes[-1]
    assert longest.input_ids.shape == (ROWS, 512)
    assert len(set(longest.attention_mask.sum(axis=1))) == ROWS
    assert (longest.input_ids == 103).any()
    assert set(longest.token_type_ids[0]) == {0, 1}
    ids = np.unique(longest.input_ids)
    assert np.diff(ids).max() < 100
    assert {0, 30521} & set(ids)
    assert "padding" in longest.says
    assert "[MASK]" in longest.says


def test_a_large_model_gets_fewer_rows_and_never_a_shorter_probe() -> None:
    """The budget scales the batch, and the report says so."""
    large = config(vocab=30522, hidden=1024, layers=24)
    probes = make_probes(large, mask_id=None)
    assert [probe.input_ids.shape[1] for probe in probes] == [1, 2, 7, 128, 512]
    assert [len(probe.input_ids) for probe in probes] == [4, 4, 2, 2, 1]
    assert probes[3].attention_mask[1].sum() < 128
    assert describe(probes, large).scaled.endswith(
        "2 of length 128, 1 of length 512 in place of 4 rows, to stay within the budget"
    )
    assert not describe(make_probes(config(), mask_id=None), config()).scaled


def test_the_cost_is_counted() -> None:
    """Twice the multiplications of every dense module and of attention."""
    model = config(hidden=64, layers=3)
    dense = 4 * 64 * 64 + 2 * 64 * 256
    assert flops(model, 10) == 2 * 10 * 3 * (dense + 2 * 64 * 10)
    small = config(hidden=256, layers=12)
    costs = [flops(small, probe.input_ids.size) for probe in make_probes(small, mask_id=None)]
    assert BUDGET / 4 < sum(costs) < BUDGET


@pytest.mark.parametrize("mask_id", [None, 10_000])
def test_without_a_mask_token_nothing_is_masked(mask_id: int | None) -> None:
    """An id that the model does not have is not used."""
    probes = make_probes(config(), mask_id=mask_id)
    check(probes, config())
    assert not any("[MASK]" in probe.says for probe in probes)
