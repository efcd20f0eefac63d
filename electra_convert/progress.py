"""How long work tells that it moves on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
"""Is told of bytes that were dealt with; from any thread."""

Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Begins a stretch of work, by its name and its bytes; yields what is to be told of bytes dealt with."""


@contextmanager
def no_progress(_name: str, _total: int) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda _: None
