"""What a name leads to is on disk before it has the name: seen by what the system is really asked for."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from electra_convert import ConvertOptions, convert_checkpoint
from electra_convert import output as output_module
from electra_convert.origin import NOTE_FILE
from tests.crashes.runs import SOURCE


class Synced:
    """What was synced last of each file and directory, by its inode: the content, or the names."""

    def __init__(self, fsync: Callable[[int], None]) -> None:
        self._fsync = fsync
        self._seen: dict[int, str] = {}

    def __call__(self, descriptor: int) -> None:
        self._fsync(descriptor)
        self._seen[os.fstat(descriptor).st_ino] = state_of(Path(f"/proc/self/fd/{descriptor}"))

    def unsynced(self, root: Path) -> list[str]:
        """Return what is not as it was synced, of a file, or of a directory and all in it."""
        return [str(path) for path in (root, *root.rglob("*")) if not self.is_synced(path)]

    def is_synced(self, path: Path) -> bool:
        """Say whether a file, or the names in a directory, are as they were synced."""
        return self._seen.get(path.stat().st_ino) == state_of(path)


def state_of(path: Path) -> str:
    """Return what a sync brings to disk: the digest of a file, or the names in a directory and what they lead to."""
    if stat.S_ISDIR(path.stat().st_mode):
        names = (entry for entry in os.scandir(path) if not entry.name.endswith(".partial"))  # they do not last
        return str(sorted((entry.name, entry.inode()) for entry in names))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("layout", [{"layout": "single"}, {"layout": "shared"}, {"split_formats": True}], ids=str)
def test_synced_before_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Any, *, overwrite: bool
) -> None:
    """Each file as it is and each directory is synced before the rename that publishes it; then, what got the name."""
    out = tmp_path / "made" / "out"
    options = ConvertOptions(heads=("base", "pretraining", "masked_lm"), overwrite=overwrite, **layout)
    if overwrite:
        convert_checkpoint(SOURCE, out, options)
    synced = Synced(os.fsync)
    published: list[Path] = []

    def watch(rename: Callable[..., Any]) -> Callable[..., Any]:
        def renamed(source: Path, target: Path, **named: Any) -> None:
            assert not synced.unsynced(Path(source))
            assert not published or synced.is_synced(published[-1].parent), "the last rename may be lost"
            rename(source, target, **named)
            published.append(Path(target))

        return renamed

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", watch(os.rename))
    monkeypatch.setattr(os, "replace", watch(os.replace))
    monkeypatch.setattr(output_module, "_exchange", watch(output_module._exchange))
    convert_checkpoint(SOURCE, out, options)
    assert [path.name for path in published] == [*options.heads, NOTE_FILE]
    assert not synced.unsynced(out if overwrite else tmp_path)
