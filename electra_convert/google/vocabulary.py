"""The vocabulary beside a checkpoint for Google's code: a `vocab.txt` as it is, or that of a `tokenizer.json`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from electra_convert.errors import VocabularyError
from electra_convert.json_text import parse_json
from electra_convert.source import Location
from electra_convert.tokenizer import (
    MAX_FILE_BYTES,
    MAX_VOCABULARY_BYTES,
    SPECIAL_TOKENS,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    Vocabulary,
    check_fits,
    read_vocabulary,
)
from electra_convert.whole_file import read_whole

HINT = "give the vocab.txt the model was trained with: --vocab FILE; or convert without one: --no-tokenizer"


class GoogleVocabulary(NamedTuple):
    """A vocabulary, as Google's code reads it.

    Args:
        content: The `vocab.txt`; nothing, if there is none.
        notes: What a user should know.
    """

    content: bytes | None
    notes: tuple[str, ...]


def place_of_vocabulary(location: Location) -> Path | None:
    """Return the file that holds the vocabulary of a source: `vocab.txt`, or the `tokenizer.json` of a model."""
    file = location.prefix / TOKENIZER_FILE
    return location.vocabulary or (file if location.is_model and os.path.lexists(file) else None)


def choose_vocabulary(places: Collection[Path], sizes: Collection[int]) -> GoogleVocabulary:
    """Return the one vocabulary of a model.

    Args:
        places: The files that hold it.
        sizes: How many tokens the parts of the model know.

    Raises:
        VocabularyError: One cannot be used, or has too many tokens; or they differ.
    """
    found = {place: _read(place) for place in places}
    if len({content for content, _ in found.values()}) > 1:
        raise VocabularyError(
            "the vocabularies of discriminator and generator differ",
            problems=[str(place) for place in found],
            hint="say which one both were trained with: --vocab FILE",
        )
    if not found:
        return GoogleVocabulary(
            None, (f"there is no {VOCABULARY_FILE}, which Google's code needs: give the model's with --vocab",)
        )
    notes = [note for _, vocabulary in found.values() for note in vocabulary.notes]
    notes += filter(None, (check_fits(vocabulary, size) for _, vocabulary in found.values() for size in sizes))
    return GoogleVocabulary(next(content for content, _ in found.values()), tuple(dict.fromkeys(notes)))


def _read(place: Path) -> tuple[bytes, Vocabulary]:
    """Return the `vocab.txt` that a file is, or holds."""
    if place.name == TOKENIZER_FILE:
        vocabulary = _of_tokenizer(place)
        return "".join(f"{token}\n" for token in vocabulary.tokens).encode(), vocabulary
    vocabulary = read_vocabulary(place)
    try:
        return read_whole(place, MAX_VOCABULARY_BYTES), vocabulary
    except OSError as error:
        raise VocabularyError(f"{place} cannot be read: {error.strerror}", hint=HINT) from error


def _of_tokenizer(place: Path) -> Vocabulary:
    """Return the vocabulary in a `tokenizer.json`: that of its WordPiece model, and what was added to it.

    Raises:
        VocabularyError: It holds none, or one that no `vocab.txt` can hold.
    """
    try:
        ids = _ids(parse_json(read_whole(place, MAX_FILE_BYTES)))
    except OSError as error:
        raise VocabularyError(f"{place} cannot be read: {error.strerror}", hint=HINT) from error
    except ValueError as error:
        raise VocabularyError(f"{place} holds no WordPiece vocabulary: {error}", hint=HINT) from error
    if problems := [*_faults(ids)]:
        raise VocabularyError(f"the vocabulary in {place} cannot be a {VOCABULARY_FILE}", problems=problems, hint=HINT)
    note = f"there is no {VOCABULARY_FILE}, so it was made of {TOKENIZER_FILE}"
    return Vocabulary(tuple(sorted(ids, key=ids.__getitem__)), (note,), str(place))


class _Model(msgspec.Struct):
    type: str
    vocab: dict[str, int]


class _Added(msgspec.Struct):
    content: str
    id: int


class _Tokenizer(msgspec.Struct):
    """What a `tokenizer.json` says, as far as a vocabulary goes."""

    model: _Model
    added_tokens: tuple[_Added, ...] = ()


def _ids(content: Any) -> dict[str, int]:
    """Return the id of each token.

    Raises:
        ValueError: They are not there.
    """
    tokenizer = msgspec.convert(content, _Tokenizer)
    if tokenizer.model.type != "WordPiece":
        raise ValueError(f"its model is {tokenizer.model.type!r}")
    return {added.content: added.id for added in tokenizer.added_tokens} | tokenizer.model.vocab


def _faults(ids: Mapping[str, int]) -> Iterator[str]:
    """Yield why no `vocab.txt` can hold these tokens, each at the line of its id."""
    if sorted(ids.values()) != list(range(len(ids))):
        yield f"its {len(ids)} tokens do not have the ids 0 to {len(ids) - 1}"
    yield from (f"{token!r} is no line" for token in ids if token.split() != [token])
    yield from (f"there is no {token}" for token in SPECIAL_TOKENS if token not in ids)
