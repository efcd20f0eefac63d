"""Where conversions are disturbed."""

from __future__ import annotations

import random
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of our own is made in it


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on a disk in memory, where there is one: to end a process takes the same there, and less time.

    Temporary files lie below it, in `tmp`.
    """
    disk = tempfile.TemporaryDirectory(dir=MEMORY) if MEMORY.is_dir() else nullcontext(str(tmp_path))
    with disk as folder:
        temporary = Path(folder, "tmp")
        temporary.mkdir()
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        yield Path(folder)


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[object], None]:
    """Add something to what pytest reports of a test (`-rA`)."""
    return lambda what: request.node.add_report_section("call", "crashes", str(what))


@pytest.fixture
def chance(note: Callable[[object], None]) -> random.Random:
    """What chooses moments; its seed is reported."""
    seed = secrets.randbits(32)
    note(f"seed {seed}")
    return random.Random(seed)  # noqa: S311  # nobody is to be kept from guessing
