"""Two tokenizers, compared by their files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from electra_convert.diff.report import FileDifference
from electra_convert.diff.sides import Side
from electra_convert.errors import SourceError, VocabularyError
from electra_convert.json_text import parse_json
from electra_convert.tokenizer import VOCABULARY_FILE, read_vocabulary
from electra_convert.whole_file import read_whole

LARGEST_FILE = 1 << 28
"""Bytes a file of a tokenizer may have."""
FIRST = 3
"""Ids, or fields, that are shown."""


def compared_files(a: Side, b: Side) -> list[str]:
    """Return the names of the files to compare: where Google's code wrote one side, the vocabulary alone."""
    names = dict.fromkeys([*a.files, *b.files])
    return [name for name in names if (a.whole and b.whole) or name == VOCABULARY_FILE]


def compare_tokenizers(a: Side, b: Side) -> Iterator[FileDifference]:
    """Yield the files that differ, or that only one side has.

    Raises:
        SourceError: A file cannot be read.
    """
    for name in compared_files(a, b):
        if name not in a.files or name not in b.files:
            yield FileDifference(file=name, says=f"missing in {'A' if name not in a.files else 'B'}")
        elif says := _difference(name, a.files[name], b.files[name]):
            yield FileDifference(file=name, says=says)


def _difference(name: str, a: Path, b: Path) -> str:
    """Say in what two files differ; nothing if they do not: the same tokens, or the same JSON, are no difference."""
    contents = _read(a), _read(b)
    if contents[0] == contents[1]:
        return ""
    return _ids(a, b) if name == VOCABULARY_FILE else _json(*contents)


def _read(path: Path) -> bytes:
    try:
        return read_whole(path, LARGEST_FILE)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", hint="see that it is a file you may read") from error


def _ids(a: Path, b: Path) -> str:
    """Say which ids differ first."""
    try:
        tokens = [read_vocabulary(path).tokens for path in (a, b)]
    except VocabularyError as error:
        return f"other bytes; {error.message}"
    pairs = enumerate(zip_longest(*tokens))
    differ = [f"{number} is {_token(one)} in A, {_token(other)} in B" for number, (one, other) in pairs if one != other]
    return _first(differ, f"{len(differ)} ids differ: ")


def _token(token: str | None) -> str:
    return "no token" if token is None else repr(token)


def _json(a: bytes, b: bytes) -> str:
    """Say which fields of two JSON files differ."""
    try:
        one, other = parse_json(a), parse_json(b)
    except ValueError:
        return "other bytes"
    if not isinstance(one, dict) or not isinstance(other, dict):
        return "" if one == other else "another value"
    names = [name for name in dict.fromkeys([*one, *other]) if one.get(name, ...) != other.get(name, ...)]
    return _first([f"{name} is {_value(one, name)} in A, {_value(other, name)} in B" for name in names])


def _value(said: dict[str, Any], name: str) -> str:
    text = json.dumps(said[name], ensure_ascii=False) if name in said else "not there"
    return text if len(text) <= 40 else f"{text[:40]}..."


def _first(differ: list[str], begin: str = "") -> str:
    """Return the first differences, and how many more there are; nothing if there are none."""
    if not differ:
        return ""
    more = f"; and {len(differ) - FIRST} more" if len(differ) > FIRST else ""
    return begin + "; ".join(differ[:FIRST]) + more
