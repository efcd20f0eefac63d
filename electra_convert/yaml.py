"""YAML as data: safely loaded, with duplicate keys, aliases and tags refused, and no more of it than people write."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from electra_convert.errors import MappingError
from electra_convert.whole_file import read_whole

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_FILE_BYTES = 1 << 20
"""The largest mapping has ten thousand bytes, a plan a hundred for each job."""
MAX_NODES = 100_000
MAX_DEPTH = 32
"""Lists and mappings within one another."""
MAX_SCALAR = 1 << 14
"""Characters of one value."""
MAX_NUMBER = 64
"""Characters of one number."""
KINDS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null"))
"""What a value may be; dates and other things YAML knows are written in quotes."""
TEXT = "tag:yaml.org,2002:str"


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        MappingError: The file cannot be read or parsed, or has duplicate keys, aliases or tags.
    """
    return read_hashed_yaml(path)[0]


def read_hashed_yaml(path: Path) -> tuple[Any, str]:
    """Return what a YAML file holds, and the SHA-256 of the bytes that were read.

    Raises:
        MappingError: As for `read_yaml`.
    """
    try:
        content = read_whole(path, MAX_FILE_BYTES)
        value, faults = _parsed(content.decode())
        if not faults:
            return value, hashlib.sha256(content).hexdigest()
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise MappingError(f"{path.name} cannot be read as YAML: {why}", hint=f"correct {path}") from error
    hint = "write each thing once and in full, as texts, numbers, lists and mappings with keys that are texts"
    raise MappingError(f"{path.name} is ambiguous", problems=faults, hint=hint)


def _parsed(text: str) -> tuple[Any, list[str]]:
    """Return what a text holds, or its faults; only of what is not too deep or too much are the values looked at."""
    if (fault := _first_fault(text)) is not None:
        return None, _lines([fault])
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        faults = _lines(_faults_within(node))
        return None if faults or node is None else loader.construct_document(node), faults
    finally:
        loader.dispose()


def _lines(faults: Iterable[tuple[int, str]]) -> list[str]:
    return [f"line {line + 1}: {what}" for line, what in faults]


def _first_fault(text: str) -> tuple[int, str] | None:
    """Return the first thing that no file has that is written by hand."""
    depth = 0
    events: Iterator[Any] = yaml.parse(text, Loader)
    for number, event in enumerate(events):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line: int = event.start_mark.line
        if isinstance(event, yaml.AliasEvent):
            return line, f"*{event.anchor} is an alias"
        if getattr(event, "tag", None):
            return line, f"{event.tag} is a tag"
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_SCALAR:
            return line, f"a value has {len(event.value)} characters, more than {MAX_SCALAR}"
        if depth > MAX_DEPTH:
            return line, f"more than {MAX_DEPTH} lists and mappings are within one another"
        if number > MAX_NODES:
            return line, f"here are more than {MAX_NODES} values"
    return None


def _faults_within(node: Any) -> Iterator[tuple[int, str]]:
    line = node.start_mark.line if node else 0
    if isinstance(node, yaml.ScalarNode):
        if node.tag not in KINDS:
            yield line, f"{node.value!r} is no text, number, true, false or null; write it in quotes"
        elif node.tag != TEXT and len(node.value) > MAX_NUMBER:
            yield line, f"a number has {len(node.value)} digits"
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _faults_within(item)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != TEXT:
                yield key.start_mark.line, "a key is no text; write it in quotes"
            elif key.value in seen:
                yield key.start_mark.line, f"the key {key.value!r} stands here a second time"
            else:
                seen.add(key.value)
            yield from _faults_within(value)
