"""What text shows of assumptions, and where it shows nothing; on losses made by hand and on models hardly trained."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")

from electra_convert import load_mappings
from electra_convert.config import ElectraConfig
from electra_convert.formats.google_tf1 import open_checkpoint
from electra_convert.inventory import Part
from electra_convert.parity.report import Ranking
from electra_convert.parity.text import conclude, look, possible_head_counts, rank_assumptions
from electra_convert.part import recognise
from electra_convert.tokenizer import SPECIAL_TOKENS, Vocabulary, read_vocabulary

FIXTURES = Path(__file__).parents[2] / "fixtures"
LICENSE = (FIXTURES.parent / "LICENSE").read_text()
"""What the vocabularies of the fixtures were made from; they have no capitals."""
BOTH = ("num_attention_heads", "lowercase")
each_part = pytest.mark.parametrize("part", ["discriminator", "generator"])


@cache
def model(part: Part, name: str = "electra_tiny") -> dict[str, Any]:
    """Return what `rank_assumptions` and `look` take, but for the text."""
    folder = FIXTURES / name
    files = open_checkpoint(folder / "model.ckpt-30")
    source = recognise(load_mappings(), files.tensors).understand([part])[part]
    return {
        "variables": files.tensors,
        "config": source.config,
        "part": part,
        "native_head": source.native_head,
        "vocabulary": read_vocabulary(folder / "vocab.txt"),
        "lowercase": True,
        "strip_accents": None,
    }


def concluded(losses: dict[int, list[float]], *, assumed: int = 4, gain: float = 1.0) -> Ranking:
    """Conclude from losses made by hand."""
    noise = np.linspace(-0.1, 0.1, len(next(iter(losses.values()))))
    arrays = {value: np.array(each) for value, each in losses.items()}
    gains = dict.fromkeys(losses, gain + noise)
    return conclude("num_attention_heads", assumed, arrays, gains, tokens=1000)


def around(mean: float, *, phase: float = 0.0) -> list[float]:
    """Return losses of 16 sequences: they vary by far more than the candidates, and a little among these."""
    sequence = np.arange(16)
    return list(mean + np.sin(sequence) + 0.1 * np.cos(2.5 * sequence + phase) - np.sin(sequence).mean())


# Concluding


def test_the_assumed_candidate_is_confirmed_if_every_other_is_worse() -> None:
    """Differences are paired: they count though sequences vary by more."""
    found = concluded({2: around(4.5), 4: around(4.0, phase=1), 8: around(4.3, phase=2)})
    assert found.finding == "confirmed"
    assert [each.value for each in found.candidates] == [4, 8, 2]
    assert found.candidates[0].margin == 0.0
    assert all(each.margin >= 3 for each in found.candidates[1:])
    assert "num_attention_heads = 4" in found.says
    assert "tried: 2, 4, 8" in found.says


def test_the_assumed_candidate_is_refuted_if_another_is_better() -> None:
    """It says which, and by how much."""
    found = concluded({2: around(4.0), 4: around(4.5, phase=1)})
    assert found.finding == "refuted"
    assert "refutes num_attention_heads = 4" in found.says
    assert "2 heads" in found.says


@pytest.mark.parametrize("assumed", [4, 8])
def test_candidates_that_are_near_are_undecided(assumed: int) -> None:
    """Neither the better nor the worse of two is confirmed or refuted within three standard errors."""
    found = concluded({4: around(4.0), 8: around(4.03, phase=3), 2: around(5.0)}, assumed=assumed)
    assert found.finding == "undecided"
    assert 0 < found.candidates[1].margin < 3
    assert "does not settle" in found.says


def test_the_margin_is_the_paired_mean_in_its_standard_errors() -> None:
    """Differences 0, 1, 0, 1, ... of 16 sequences have mean 1/2 and standard error sqrt(4/15)/4."""
    losses = around(4.0)
    found = concluded({4: losses, 2: [loss + index % 2 for index, loss in enumerate(losses)]})
    assert found.candidates[1].margin == pytest.approx(0.5 / ((4 / 15) ** 0.5 / 4))


def test_the_third_standard_error_decides() -> None:
    """Just above three it is confirmed, just below not."""
    base, spread = np.zeros(16), np.tile([-1.0, 1.0], 8)
    error = spread.std(ddof=1) / 4
    for margin, finding in ((2.99, "undecided"), (3.01, "confirmed")):
        found = concluded({4: list(base), 2: list(spread + margin * error)})
        assert found.finding == finding
        assert found.candidates[1].margin == pytest.approx(margin)


def test_nothing_is_concluded_where_context_is_of_no_use() -> None:
    """Without a gain from context, the clearest differences say nothing."""
    for assumed in (2, 4):
        found = concluded({2: around(4.5), 4: around(4.0)}, assumed=assumed, gain=0.0)
        assert found.finding == "undecided"
        assert "makes nothing of context" in found.says


def test_a_difference_without_weight_is_undecided() -> None:
    """A difference of 1e-4 nats is nothing beside a gain of 1, however certain it is."""
    losses = around(4.0)
    found = concluded({4: losses, 2: [loss + 1e-4 for loss in losses]})
    assert found.candidates[1].margin > 3
    assert found.finding == "undecided"


def test_equal_candidates_have_no_margin() -> None:
    """The same losses are no difference, and margins are finite numbers, as JSON needs."""
    found = concluded({2: around(4.0), 4: around(4.0), 8: [loss + 1 for loss in around(4.0)]})
    assert found.finding == "undecided"
    assert found.candidates[0].value == 4
    assert all(np.isfinite(each.margin) for each in found.candidates)


def test_a_loss_that_is_not_a_number_decides_nothing() -> None:
    """NaN is not worse than anything; it is no result."""
    found = concluded({2: [float("nan"), *around(4.0)[1:]], 4: around(4.0)})
    assert found.finding == "undecided"
    assert "finite" in found.says


# Candidates


@pytest.mark.parametrize(
    ("hidden", "heads", "expected"),
    [
        (64, 4, [1, 2, 4, 8]),
        (256, 4, [1, 2, 4, 8, 16, 32]),
        (768, 12, [3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96]),
        (64, 64, [1, 2, 4, 8, 64]),
        (7, 7, [1, 7]),
    ],
)
def test_the_counts_that_are_tried_divide_the_width(hidden: int, heads: int, expected: list[int]) -> None:
    """Heads are 8 to 256 wide; Google's rule and what is assumed are always among them."""
    config = ElectraConfig(
        vocab_size=10, embedding_size=8, hidden_size=hidden, num_hidden_layers=1, num_attention_heads=heads
    )
    assert possible_head_counts(config) == expected


# On models


@each_part
def test_models_that_are_hardly_trained_decide_nothing(part: Part) -> None:
    """30 steps of training show in the losses, but not what they were trained as."""
    heads, casing = rank_assumptions(**model(part), text=LICENSE)
    assert (heads.field, casing.field) == BOTH
    assert heads.finding == casing.finding == "undecided"
    assert sorted(each.value for each in heads.candidates) == possible_head_counts(model(part)["config"])
    assert heads.tokens > 1000


@each_part
def test_the_same_text_gives_the_same_ranking(part: Part) -> None:
    """What is masked or replaced does not change from run to run."""
    assert rank_assumptions(**model(part), text=LICENSE) == rank_assumptions(**model(part), text=LICENSE)


@pytest.mark.parametrize("text", ["", " \n", "A short text. It says little.", "x" * 5000])
def test_too_little_text_is_undecided_and_says_so(text: str) -> None:
    """Too few sequences have no standard error worth the name."""
    for ranking in rank_assumptions(**model("generator"), text=text):
        assert ranking.finding == "undecided"
        assert "too short" in ranking.says
        assert ranking.candidates == ()


def test_a_text_of_one_word_is_undecided() -> None:
    """Nothing of it can be replaced by another piece."""
    for ranking in rank_assumptions(**model("discriminator"), text="the " * 5000):
        assert ranking.finding == "undecided"
        assert ranking.candidates == ()


def test_text_without_capitals_shows_no_casing() -> None:
    """The same pieces in both casings cannot tell them apart."""
    (ranking,) = rank_assumptions(**model("generator"), text=LICENSE.lower(), fields=("lowercase",))
    assert ranking.finding == "undecided"
    assert "no capitals" in ranking.says


def test_special_tokens_in_a_text_are_text() -> None:
    """`[MASK]` in a text is three words, as it is to Google's code."""
    (ranking,) = rank_assumptions(**model("generator"), text="[MASK] [PAD] the work " * 500, fields=BOTH[:1])
    assert ranking.candidates


def test_only_what_is_asked_for_is_tried() -> None:
    """Fields that are not asked for cost nothing; without a native head there is nothing to try."""
    assert rank_assumptions(**model("generator"), text=LICENSE, fields=()) == ()
    assert rank_assumptions(**model("generator") | {"native_head": None}, text=LICENSE) == ()


# A look


def test_a_discriminator_scores_each_token_of_a_sentence() -> None:
    """One word is replaced by another word, and every token has a probability."""
    seen = look(**model("discriminator"), text=LICENSE)
    assert seen is not None
    assert seen.head == "pretraining"
    assert seen.sentence in " ".join(LICENSE.split())
    (put_in,) = [each for each in seen.tokens if each.replaced]
    assert put_in.token.isalpha()
    assert put_in.token not in seen.sentence.lower().split()
    assert all(each.score is not None and 0 < each.score < 1 for each in seen.tokens)


def test_a_generator_guesses_what_is_masked() -> None:
    """There are five guesses, the likeliest first."""
    seen = look(**model("generator"), text=LICENSE)
    assert seen is not None
    (masked,) = [each for each in seen.tokens if each.guesses]
    assert masked.token == SPECIAL_TOKENS[-1]
    probabilities = [probability for _, probability in masked.guesses]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 < sum(probabilities) < 1


def test_there_is_a_sentence_without_a_text() -> None:
    """It is shown if the vocabulary covers it, and not if all of it is unknown."""
    words = ("the", "chef", "cooked", "a", "good", "meal", "for", "guests", "and", "washed", "dishes", "in", "kitchen")
    about = model("generator") | {"text": None}
    covered = look(**about | {"vocabulary": Vocabulary((*SPECIAL_TOKENS, *words, "."))})
    assert covered is not None
    assert covered.sentence.startswith("The chef")
    assert look(**about | {"vocabulary": Vocabulary((*SPECIAL_TOKENS, "anything", "else"))}) is None


def test_there_is_no_look_without_a_sentence_or_a_native_head() -> None:
    """Text without a sentence shows none; neither does a head that was not trained."""
    assert look(**model("generator"), text="1 2 3\n" * 50) is None
    assert look(**model("generator") | {"native_head": None}, text=LICENSE) is None
