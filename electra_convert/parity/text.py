"""What real text shows of a model: which head count and casing it was trained with, and what it makes of a sentence.

No tensor shows a head count: the same weights are a model with any. But only one is the model that was trained, and on
text it is the best. So each possible count is tried with the head the part was trained on, on the same text with
the same pieces masked or replaced. Losses differ far more from text to text than from count to count; so the counts
are compared sequence by sequence, and it is the difference that has a mean and a standard error.

The losses, in nats:

- `masked_lm`: `MASKED` of the pieces become `[MASK]`; the cross entropy of what was there.
- `pretraining`: as many pieces are replaced by others of the same text, so that no piece is suspicious by itself,
  whatever surrounds it. How many are replaced differs from what the model was trained on, which shifts all its logits;
  so it is asked about pairs: of two tokens of a sequence, one replaced and one not, which is it? The difference of
  their logits is the answer's log odds, whatever the share of replaced tokens. Guessing gives ln 2.

A model that makes nothing of context has no best head count, and chance differences between counts can be large beside
their error, for every sequence has the same weights: of models trained for 30 steps, a wrong count was better by six
standard errors. So nothing is concluded unless the best candidate gains from
context: for `masked_lm`, a guess is better for its own place than for the next masked one; for `pretraining`, the loss
is below ln 2. Nor is a difference that is less than `MATERIAL` of this gain.

The casing changes the tokens, and so what a loss per token means: a long word is one piece in one casing and five in
the other, and `[UNK]` is easily guessed. Therefore only the words that have the same pieces in both are
masked, replaced and scored (they are in lower case). The casing shows in their context, which is all the other
words. That is the same question twice, and the losses compare piece by piece. Text where all words have the same pieces
in both casings shows nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np

from electra_convert.config import ElectraConfig
from electra_convert.config_file import heads_by_rule
from electra_convert.inventory import Part
from electra_convert.models.google import Inputs, Oracle
from electra_convert.parity.probes import flops
from electra_convert.parity.report import Candidate, Look, LookedAt, Ranking
from electra_convert.tokenizer import ElectraTokenizer, Vocabulary

if TYPE_CHECKING:
    from electra_convert.tensor import Array, Tensor

Finding = Literal["confirmed", "refuted", "undecided"]

FIELDS = ("num_attention_heads", "lowercase")
"""What text can show."""
SURE = 3.0
"""Standard errors that make a difference."""
LARGEST_MARGIN = 1000.0
"""No more standard errors than this are told: beyond, the error is rounding, or nothing."""
MATERIAL = 0.01
"""Share of what context gains that a difference must have. Right and wrong head counts of trained models differ by
far more, and models that are hardly trained by less."""
MASKED = 0.15
"""Share of the pieces that are masked or replaced, as in training."""
LENGTH = 128
"""Pieces in a sequence, `[CLS]` and `[SEP]` among them: what electra-small was trained on."""
TOKENS = 16384
"""The most tokens of all sequences together, enough for differences of a hundredth of a nat; 2 400 are masked."""
FEWEST_SEQUENCES = 8
"""With fewer, a standard error is itself too uncertain."""
BUDGET = 5e12
"""Floating-point operations for all candidates together: half a minute on two cores for a base model."""
BATCH = 8
"""Sequences that are computed at once; more are no faster, and take more memory."""
CHARACTERS = 2_000_000
"""Characters of a text that are read: many times what is ever used."""
NARROWEST, WIDEST = 8, 256
"""Widths of a head that are tried; published models have 16 to 128."""
NATIVE_HEADS = ("pretraining", "masked_lm")


def rank_assumptions(  # noqa: PLR0913 - all of it says what the model is
    variables: Mapping[str, Tensor],
    config: ElectraConfig,
    *,
    part: Part,
    native_head: str | None,
    text: str,
    vocabulary: Vocabulary,
    lowercase: bool,
    strip_accents: bool | None,
    fields: Collection[str] = FIELDS,
) -> tuple[Ranking, ...]:
    """Try what a conversion assumes, and what it might be instead, on text.

    Args:
        variables: All variables of the checkpoint, by Google's name.
        config: The part's config, with the head count that is assumed.
        part: The part.
        native_head: The head it was trained on; with another, or none, nothing can be tried.
        text: The text: prose as the model might have been trained on, some pages of it.
        vocabulary: The tokens.
        lowercase: The casing that is assumed.
        strip_accents: Whether that casing strips accents; None if it does so exactly when it lower-cases.
        fields: What to try, of `FIELDS`.

    Returns:
        A ranking for each field, in the order of `FIELDS`. It depends on nothing but the arguments.
    """
    if native_head not in NATIVE_HEADS:
        return ()
    length = min(LENGTH, config.max_position_embeddings)
    casings = {
        casing: _tokenizer(vocabulary, lowercase=casing, strip_accents=strip_accents if casing == lowercase else None)
        for casing in (True, False)
    }
    trial = _Trial(variables, part, native_head, casings[lowercase])
    rankings = []
    if "num_attention_heads" in fields:
        counts = possible_head_counts(config)
        passages = _passages(text, [casings[lowercase]], length)
        passages = _spread(passages, _affordable(config, length, len(counts)))
        tried = {heads: (msgspec.structs.replace(config, num_attention_heads=heads), 0) for heads in counts}
        rankings.append(trial.rank("num_attention_heads", config.num_attention_heads, tried, passages))
    if "lowercase" in fields:
        passages = _passages(text, [casings[True], casings[False]], length)
        differing = [passage for passage in passages if passage.differs]
        if passages and not differing:
            rankings.append(_no_capitals(passages, lowercase=lowercase))
        else:
            differing = _spread(differing, _affordable(config, length, 2))
            tried = {True: (config, 0), False: (config, 1)}
            rankings.append(trial.rank("lowercase", lowercase, tried, differing))
    return tuple(rankings)


def possible_head_counts(config: ElectraConfig) -> list[int]:
    """Return the head counts to try: those of a usual width, Google's rule, and the one that is assumed."""
    hidden = config.hidden_size
    counts = {heads for heads in range(1, hidden + 1) if hidden % heads == 0 and NARROWEST <= hidden // heads <= WIDEST}
    counts.add(config.num_attention_heads)
    if hidden % heads_by_rule(hidden) == 0:
        counts.add(heads_by_rule(hidden))
    return sorted(counts)


def _affordable(config: ElectraConfig, length: int, candidates: int) -> int:
    """Return how many sequences the budget allows, which is never too few to conclude anything."""
    return max(FEWEST_SEQUENCES, min(TOKENS // length, int(BUDGET / (candidates * flops(config, length)))))


# Text to sequences


class _Word(NamedTuple):
    """Characters without white space between, in each encoding: the ids of its pieces."""

    encodings: tuple[tuple[int, ...], ...]
    scored: bool
    """All encodings are the same, and it holds no `[UNK]`."""


@dataclass(frozen=True)
class _Passage:
    """Words that make a sequence, in whichever encoding."""

    words: tuple[_Word, ...]

    @property
    def differs(self) -> bool:
        """Whether the encodings differ."""
        return any(len(set(word.encodings)) > 1 for word in self.words)

    def ids(self, encoding: int) -> Array:
        """Return the ids in one encoding, without `[CLS]` and `[SEP]`."""
        return np.array([piece for word in self.words for piece in word.encodings[encoding]], np.int64)

    def places(self, encoding: int) -> Array:
        """Return where the scored pieces are among those ids; they are the same in every encoding."""
        flags = [word.scored for word in self.words for _ in word.encodings[encoding]]
        return np.flatnonzero(flags)


def _tokenizer(vocabulary: Vocabulary, *, lowercase: bool, strip_accents: bool | None) -> ElectraTokenizer:
    strip = strip_accents if lowercase else None
    return ElectraTokenizer.from_vocabulary(vocabulary, lowercase=lowercase, strip_accents=strip)


def _passages(text: str, tokenizers: Sequence[ElectraTokenizer], length: int) -> list[_Passage]:
    """Split text into words, and fill sequences that no encoding makes longer than `length`.

    As in Google's pre-training data, sequences run over the ends of sentences and paragraphs. The rest at the end,
    which would be a shorter sequence, is left out, unless it is most of one.
    """
    words = text[:CHARACTERS].split()
    known = _encode(list(dict.fromkeys(words)), tokenizers)
    room, passages = length - 2, []
    current: list[_Word] = []
    used = [0] * len(tokenizers)
    for word in map(known.__getitem__, words):
        needed = [len(encoding) for encoding in word.encodings]
        if any(have + more > room for have, more in zip(used, needed, strict=True)):
            passages.append(_Passage(tuple(current)))
            current, used = [], [0] * len(tokenizers)
        if max(needed) <= room:
            current.append(word)
            used = [have + more for have, more in zip(used, needed, strict=True)]
    passages.append(_Passage(tuple(current)))
    return [passage for passage in passages if len(passage.ids(0)) > room // 2 and len(passage.places(0)) > room // 4]


def _encode(words: Sequence[str], tokenizers: Sequence[ElectraTokenizer]) -> dict[str, _Word]:
    """Encode each word alone: WordPiece looks no further than white space."""
    if not words:
        return {}
    columns = [tokenizer(list(words), split_special_tokens=True)["input_ids"] for tokenizer in tokenizers]
    unknown = tokenizers[0].unk_token_id
    result = {}
    for word, *encodings in zip(words, *columns, strict=True):
        pieces = tuple(tuple(ids[1:-1]) for ids in encodings)  # without [CLS] and [SEP]
        result[word] = _Word(pieces, len(set(pieces)) == 1 and unknown not in pieces[0])
    return result


def _spread(passages: Sequence[_Passage], count: int) -> list[_Passage]:
    """Return as many passages, from all over the text."""
    if len(passages) <= count:
        return list(passages)
    return [passages[number * len(passages) // count] for number in range(count)]


# Trying


class _Task(NamedTuple):
    """What is done to a passage, in terms of its scored pieces, which every encoding has.

    Args:
        passage: The passage.
        chosen: Which of the scored pieces are masked or replaced: indices into `places`.
        substitutes: What replaces each of them.
    """

    passage: _Passage
    chosen: Array
    substitutes: Array


class _Tried(NamedTuple):
    """How one candidate does, sequence by sequence."""

    losses: Array
    gains: Array


@dataclass(frozen=True)
class _Trial:
    """One native head, to be tried on passages."""

    variables: Mapping[str, Tensor]
    part: Part
    head: str
    tokenizer: ElectraTokenizer

    def rank(
        self,
        field: str,
        assumed: Any,
        candidates: Mapping[Any, tuple[ElectraConfig, int]],
        passages: Sequence[_Passage],
    ) -> Ranking:
        """Rank candidates: each is a config, and which encoding it reads.

        Args:
            field: What is tried.
            assumed: Which candidate is assumed.
            candidates: The candidates.
            passages: The passages, which every candidate gets.
        """
        if len(passages) < FEWEST_SEQUENCES:
            return _undecided(
                field,
                assumed,
                f"the text is too short to tell: it fills {len(passages)} sequences that show "
                f"{_called(field)}, and {FEWEST_SEQUENCES} are needed",
            )
        if len(candidates) == 1:
            return _undecided(field, assumed, f"there is no other {_called(field)} to try")
        tasks = self._tasks(passages)
        if len(tasks) < FEWEST_SEQUENCES:
            return _undecided(field, assumed, "the text has too few different words to tell anything by")
        tried = {value: self._try(config, encoding, tasks) for value, (config, encoding) in candidates.items()}
        tokens = sum(len(passage.ids(0)) for passage in passages)
        return conclude(
            field,
            assumed,
            {value: each.losses for value, each in tried.items()},
            {value: each.gains for value, each in tried.items()},
            tokens=tokens,
        )

    def _tasks(self, passages: Sequence[_Passage]) -> list[_Task]:
        """Choose pieces to mask or replace: the same for all candidates, and on every run."""
        random = np.random.RandomState(0)
        pool = np.concatenate([passage.ids(0)[passage.places(0)] for passage in passages])
        tasks = []
        for passage in passages:
            pieces = passage.ids(0)[passage.places(0)]
            count = max(1, round(MASKED * len(pieces)))
            chosen = np.sort(random.choice(len(pieces), count, replace=False))
            substitutes = pool[random.randint(0, len(pool), count)]
            if self.head == "pretraining":  # what replaces a piece must be another one
                differ = substitutes != pieces[chosen]
                chosen, substitutes = chosen[differ], substitutes[differ]
            tasks.append(_Task(passage, chosen, substitutes))
        return [task for task in tasks if len(task.chosen)]

    def _try(self, config: ElectraConfig, encoding: int, tasks: Sequence[_Task]) -> _Tried:
        oracle = Oracle(self.variables, config, part=self.part, dtype="float32")
        measure = self._masked if self.head == "masked_lm" else self._replaced
        found = [
            each
            for start in range(0, len(tasks), BATCH)
            for each in measure(oracle, tasks[start : start + BATCH], encoding)
        ]
        losses, gains = zip(*found, strict=True)
        return _Tried(np.array(losses), np.array(gains))

    def _masked(self, oracle: Oracle, tasks: Sequence[_Task], encoding: int) -> Iterator[tuple[float, float]]:
        """Yield the cross entropy of what was masked in each sequence, and how much higher it is for the next place."""
        places = [task.passage.places(encoding)[task.chosen] for task in tasks]
        ids = [task.passage.ids(encoding) for task in tasks]
        targets = [row[at] for row, at in zip(ids, places, strict=True)]
        for row, at in zip(ids, places, strict=True):
            row[at] = self.tokenizer.mask_token_id
        last = oracle.hidden_states(_inputs(ids, self.tokenizer))[-1]
        # The vocabulary is scored where it is asked for, which is a seventh of the places.
        for hidden, at, target in zip(last, places, targets, strict=True):
            logits = oracle.outputs("masked_lm", [hidden[None, at + 1]])["logits"][0].astype(np.float64)
            peak = logits.max(axis=-1, keepdims=True)
            surprise = peak + np.log(np.exp(logits - peak).sum(axis=-1, keepdims=True)) - logits  # [masked, V]
            rows = np.arange(len(target))
            loss = surprise[rows, target].mean()
            yield loss, surprise[rows, np.roll(target, 1)].mean() - loss

    def _replaced(self, oracle: Oracle, tasks: Sequence[_Task], encoding: int) -> Iterator[tuple[float, float]]:
        """Yield how badly replaced pieces are told from others in each sequence, and how much that is below chance."""
        ids = [task.passage.ids(encoding) for task in tasks]
        scored = [task.passage.places(encoding) for task in tasks]
        for row, places, task in zip(ids, scored, tasks, strict=True):
            row[places[task.chosen]] = task.substitutes
        logits = oracle.run("pretraining", _inputs(ids, self.tokenizer))[1]["logits"].astype(np.float64)
        for row, places, task in zip(logits, scored, tasks, strict=True):
            asked = row[places + 1]
            odds = asked[task.chosen][:, None] - np.delete(asked, task.chosen)[None]
            loss = np.logaddexp(0.0, -odds).mean()
            yield loss, math.log(2.0) - loss


def _inputs(rows: Sequence[Array], tokenizer: ElectraTokenizer) -> Inputs:
    """Put `[CLS]` and `[SEP]` around each row, and pad to the longest."""
    ids = np.full((len(rows), max(map(len, rows)) + 2), tokenizer.pad_token_id, np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        whole = [tokenizer.cls_token_id, *row, tokenizer.sep_token_id]
        ids[number, : len(whole)] = whole
        mask[number, : len(whole)] = 1
    return Inputs(ids, mask, np.zeros_like(ids))


# Concluding


def conclude(
    field: str, assumed: Any, losses: Mapping[Any, Array], gains: Mapping[Any, Array], *, tokens: int
) -> Ranking:
    """Rank candidates by their losses, sequence by sequence, and say what that shows of the assumed one.

    Args:
        field: What was tried.
        assumed: The candidate that is assumed.
        losses: The loss of each candidate on each sequence; the sequences are the same for all.
        gains: What each gains from context.
        tokens: How many tokens the sequences have.
    """
    order = sorted(losses, key=lambda value: (losses[value].mean(), value != assumed))
    if not all(np.isfinite(losses[value]).all() and np.isfinite(gains[value]).all() for value in order):
        return _undecided(field, assumed, "a candidate's loss is not a finite number", tokens=tokens)
    best = order[0]
    candidates = tuple(
        Candidate(
            value=value,
            loss=float(losses[value].mean()),
            margin=0.0 if value == best else _standard_errors(losses[value] - losses[best]),
        )
        for value in order
    )
    gain = float(gains[best].mean())
    sure = {
        each.value: each.margin >= SURE and each.loss - candidates[0].loss >= MATERIAL * gain for each in candidates[1:]
    }
    finding: Finding = "undecided"
    if _standard_errors(gains[best]) < SURE:
        says = (
            f"the text cannot tell {_called(field)}: whatever it is, the model makes nothing of context there "
            f"(loss {candidates[0].loss:.3f} at best)"
        )
    elif best == assumed and all(sure.values()):
        finding = "confirmed"
        says = f"text confirms {_named(field, assumed)}: {_compared(field, candidates[0], candidates[1], tokens)}"
    elif best != assumed and sure[assumed]:
        finding = "refuted"
        wrong = next(each for each in candidates if each.value == assumed)
        says = f"text refutes {_named(field, assumed)}: {_compared(field, candidates[0], wrong, tokens)}"
    else:
        rival = next(each for each in candidates[1:] if assumed in (best, each.value))
        close = next((each for each in candidates[1:] if not sure[each.value]), rival) if best == assumed else rival
        says = f"text does not settle {_named(field, assumed)}: {_compared(field, candidates[0], close, tokens)}"
    if finding != "refuted" and len(order) > 2:
        says += f"; tried: {', '.join(str(value) for value in sorted(order))}"
    return Ranking(field=field, assumed=assumed, finding=finding, candidates=candidates, tokens=tokens, says=says)


def _standard_errors(values: Array) -> float:
    """Return the mean of a sample in its standard errors."""
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    if error <= abs(mean) / LARGEST_MARGIN:
        return math.copysign(LARGEST_MARGIN, mean) if mean else 0.0
    return mean / error


def _compared(field: str, best: Candidate, other: Candidate, tokens: int) -> str:
    return (
        f"the loss on {tokens} tokens is {best.loss:.3f} nats with {_value(field, best.value)} and {other.loss:.3f} "
        f"with {_value(field, other.value)}, {other.margin:.1f} standard errors more"
    )


def _undecided(field: str, assumed: Any, says: str, *, tokens: int = 0) -> Ranking:
    return Ranking(field=field, assumed=assumed, finding="undecided", candidates=(), tokens=tokens, says=says)


def _no_capitals(passages: Sequence[_Passage], *, lowercase: bool) -> Ranking:
    return _undecided(
        "lowercase",
        lowercase,
        f"the text cannot tell the casing: it has no capitals or accents that would change a piece of its "
        f"{len(passages)} sequences",
    )


def _called(field: str) -> str:
    return "the casing" if field == "lowercase" else "the head count"


def _value(field: str, value: Any) -> str:
    if field == "lowercase":
        return "lower case" if value else "capitals kept"
    return f"{value} heads" if value != 1 else "1 head"


def _named(field: str, value: Any) -> str:
    return f"{field} = {str(value).lower()}"


# A look

DEFAULT_SENTENCE = "The chef cooked a good meal for the guests and washed the dishes in the kitchen."
"""What is looked at without a text."""
SHORTEST_SENTENCE, LONGEST_SENTENCE = 6, 24
"""Words of a sentence that is looked at."""
SENTENCES = 50
"""Sentences of a text that are considered."""
MOST_UNKNOWN = 0.1
"""Share of `[UNK]` beyond which a vocabulary does not cover a sentence."""
GUESSES = 5


def look(  # noqa: PLR0913 - all of it says what the model is
    variables: Mapping[str, Tensor],
    config: ElectraConfig,
    *,
    part: Part,
    native_head: str | None,
    text: str | None,
    vocabulary: Vocabulary,
    lowercase: bool,
    strip_accents: bool | None,
) -> Look | None:
    """Show a sentence to the head the part was trained on.

    To a discriminator one word is replaced, and each token gets the probability that it was; to a generator it is
    masked, and gets the likeliest pieces.

    Args:
        variables: All variables of the checkpoint, by Google's name.
        config: The part's config.
        part: The part.
        native_head: The head it was trained on.
        text: Where to take the sentence from; None for `DEFAULT_SENTENCE`.
        vocabulary: The tokens.
        lowercase: Whether to lower-case text.
        strip_accents: Whether to strip accents; None for exactly when it is lower-cased.

    Returns:
        What it sees; None if it has no such head, or there is no sentence that the vocabulary covers and the model
        takes.
    """
    if native_head not in NATIVE_HEADS:
        return None
    tokenizer = _tokenizer(vocabulary, lowercase=lowercase, strip_accents=strip_accents)
    ordinary = {
        index
        for index, token in enumerate(vocabulary.tokens)
        if len(token) > 3 and token.isalpha() and index < config.vocab_size
    }
    found = None
    for sentence in islice(_sentences(text), SENTENCES) if text is not None else [DEFAULT_SENTENCE]:
        ids = tokenizer.encode(sentence, add_special_tokens=False, split_special_tokens=True)
        words = [place for place in _whole_words(ids, vocabulary) if ids[place] in ordinary]
        covered = ids.count(tokenizer.unk_token_id) <= MOST_UNKNOWN * len(ids)
        share = len(words) / len(ids)  # of words that are one piece: such a sentence reads best
        if words and covered and len(ids) + 2 <= config.max_position_embeddings and (not found or share > found[0]):
            found = share, sentence, ids, words
    if found is None or len(ordinary) < 2:
        return None
    _, sentence, ids, words = found
    place = words[len(words) // 2]
    oracle = Oracle(variables, config, part=part, dtype="float32")
    row = np.array(ids, np.int64)
    if native_head == "masked_lm":
        row[place] = tokenizer.mask_token_id
    else:
        others = sorted(ordinary - {ids[place]})
        row[place] = others[np.random.RandomState(0).randint(len(others))]
    logits = oracle.run(native_head, _inputs([row], tokenizer))[1]["logits"][0, 1:-1].astype(np.float64)
    shown = [vocabulary.tokens[index] for index in row]
    if native_head == "masked_lm":
        tokens = [LookedAt(token=token) for token in shown]
        tokens[place] = LookedAt(token=shown[place], guesses=_guesses(logits[place], vocabulary))
    else:
        scores = np.exp(-np.logaddexp(0.0, -logits))
        tokens = [
            LookedAt(token=token, score=float(score), replaced=at == place)
            for at, (token, score) in enumerate(zip(shown, scores, strict=True))
        ]
    return Look(head=native_head, sentence=sentence, tokens=tuple(tokens))


def _sentences(text: str) -> Iterator[str]:
    """Yield what looks like a sentence in a text: a capital first, a full stop last, neither short nor long."""
    for paragraph in re.split(r"\n\s*\n", text[:CHARACTERS]):
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
            words = sentence.split()
            prose = all(re.fullmatch(r"[^\W\d_]+(['\u2019-][^\W\d_]+)*[,;:.!?]?", word) for word in words)
            if prose and SHORTEST_SENTENCE <= len(words) <= LONGEST_SENTENCE and sentence.endswith((".", "!", "?")):
                yield sentence


def _whole_words(ids: Sequence[int], vocabulary: Vocabulary) -> Iterator[int]:
    """Yield the places of pieces that are a word by themselves."""
    for place in range(len(ids)):
        following = vocabulary.tokens[ids[place + 1]] if place + 1 < len(ids) else ""
        if not following.startswith("##"):
            yield place


def _guesses(logits: Array, vocabulary: Vocabulary) -> tuple[tuple[str, float], ...]:
    """Return the likeliest pieces with their probabilities; rows beyond the vocabulary have no name."""
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    best = np.argsort(-probabilities, kind="stable")[:GUESSES]
    names = [vocabulary.tokens[index] if index < len(vocabulary) else f"[row {index}]" for index in best]
    return tuple(zip(names, map(float, probabilities[best]), strict=True))
