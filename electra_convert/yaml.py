"""YAML as data: safely loaded, with duplicate keys and aliases refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from electra_convert.errors import MappingError

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        MappingError: The file cannot be read or parsed, or has duplicate keys or aliases.
    """
    try:
        text = path.read_text(encoding="utf-8")
        faults = [f"line {line + 1}: {what}" for line, what in _faults(text)]
        if not faults:
            return yaml.load(text, Loader)  # noqa: S506  # one of PyYAML's two safe loaders
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MappingError(f"{path.name} cannot be read as YAML: {error}") from error
    raise MappingError(f"{path.name} is ambiguous", problems=faults, hint="write each thing once, and in full")


def _faults(text: str) -> Iterator[tuple[int, str]]:
    events: Iterator[Any] = yaml.parse(text, Loader)
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            mark: Any = event.start_mark
            yield mark.line, f"*{event.anchor} is an alias"
            return
    yield from _duplicates(yaml.compose(text, Loader))


def _duplicates(node: Any) -> Iterator[tuple[int, str]]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _duplicates(item)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.start_mark.line, f"the key {key.value!r} stands here a second time"
            seen.add(str(key.value))
            yield from _duplicates(value)
