"""JSON as data: read if its size is bounded and no key stands twice; written for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from electra_convert.whole_file import read_whole

LARGEST = 4_000_000
"""Bytes of JSON that are read: an ELECTRA's config takes 1 kB, the largest table of its tensors 60 kB."""


def parse_json(text: bytes) -> Any:
    """Return what JSON in UTF-8 holds.

    Raises:
        ValueError: It is not JSON, is nested too deeply, says something twice, or holds what only JavaScript knows.
    """
    try:
        return json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json_file(path: Path) -> Any:
    """Return what a file of JSON holds.

    Raises:
        OSError: It cannot be read, or is too large; `strerror` says which.
        ValueError: It is not JSON as `parse_json` has it.
    """
    return parse_json(read_whole(path, LARGEST))


def indented_json(value: Any, *, floats: bool = True) -> bytes:
    """Return what `json.dumps` writes with an indent of 2, which it does in Python, in five times the time.

    Args:
        value: What is to be written.
        floats: There may be floats in it. msgspec, which is faster still, spells them in another way: `1e-5`.
    """
    import msgspec

    text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode() if floats else msgspec.json.encode(value)
    return msgspec.json.format(text, indent=2)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")
