"""Where the source of an output lies on this machine, so that `verify` finds it again.

The note lies beside the heads, never in them: what is published names a checkpoint by its hash and its files' name.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from electra_convert.errors import OutputError, SourceError
from electra_convert.formats.google_tf1 import index_path
from electra_convert.json_text import read_json_file
from electra_convert.output import replace_document
from electra_convert.remote.place import is_url, shown

NOTE_FILE = ".electra-convert.json"
LEVELS = 3
"""Levels above a model's directory at which the note may lie."""


class Origin(NamedTuple):
    """What a conversion was given as its source: a path, or a URL."""

    source: str | os.PathLike[str]
    step: int | None


def remember(output: Path, identity: str, origin: Origin) -> None:
    """Note which source has this identity (SHA-256 of its index).

    Raises:
        OutputError: It is a URL with a secret in it, or the note cannot be written.
    """
    note = output / NOTE_FILE
    known = _read(note)
    known[identity] = {"source": _spelt(origin.source), "step": origin.step}
    replace_document(note, (json.dumps(known, indent=2, sort_keys=True) + "\n").encode())


def _spelt(source: str | os.PathLike[str]) -> str:
    if not is_url(source):
        return os.fspath(Path(source).absolute())
    url = str(source)
    if shown(url) != url:
        raise OutputError(f"{shown(url)} has credentials or a query, which are written nowhere")
    return url


def recall(directory: Path, identity: str) -> Origin | None:
    """Return the source with this identity, if a note in or above `directory` tells, and it is still there.

    Raises:
        SourceError: What has the name of a note is no file.
    """
    directory = directory.absolute()
    for folder in (directory, *directory.parents[:LEVELS]):
        note = folder / NOTE_FILE
        if os.path.lexists(note) and not os.path.isfile(note):  # noqa: PTH113  # false, where Path.is_file() raises
            raise SourceError(
                f"{note} is no file, so nothing tells where the source lies", hint="remove it, or name it with --source"
            )
        entry = _read(note).get(identity)
        if isinstance(entry, dict) and isinstance(entry.get("source"), str):
            source = entry["source"] if is_url(entry["source"]) else Path(entry["source"])
            return Origin(source, entry.get("step")) if _is_there(source) else None
    return None


def _is_there(source: str | Path) -> bool:
    """Say whether files begin with this name; a prefix is no file. What a URL names shows when it is read."""
    return isinstance(source, str) or source.exists() or index_path(source).is_file()


def _read(note: Path) -> dict[str, object]:
    """Return what a note says; one that cannot be read says nothing."""
    try:
        known = read_json_file(note)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
