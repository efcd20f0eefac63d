"""How long work tells that it moves on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Is told how much was dealt with; from any thread."""


class Progress(Protocol):
    """Begins a stretch of work; yields what is to be told of what is dealt with."""

    def __call__(self, name: str, total: int, /, *, unit: str = "bytes") -> AbstractContextManager[Advance]:
        """Begin one.

        Args:
            name: What is done.
            total: How much of it there is.
            unit: What is counted.
        """


@contextmanager
def no_progress(name: str, total: int, *, unit: str = "bytes") -> Iterator[Advance]:  # noqa: ARG001
    """Show nothing."""
    yield lambda _: None
