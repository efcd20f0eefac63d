"""The fixtures are what they are said to be."""

from __future__ import annotations

import hashlib
from pathlib import Path


def test_every_fixture_has_the_recorded_hash(fixtures: Path) -> None:
    """`SHA256SUMS` lists every file, and each file is unchanged."""
    lines = (line.split("  ", 1) for line in (fixtures / "SHA256SUMS").read_text().splitlines())
    recorded = {name: digest for digest, name in lines}
    found = {
        path.relative_to(fixtures).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in fixtures.rglob("*")
        if path.is_file() and path.name not in ("README.md", "SHA256SUMS") and "bundles" not in path.parts
    }
    assert found == recorded
