"""Where a source lies is noted beside an output, and found again only if it is still there."""

from __future__ import annotations

from pathlib import Path

import pytest

from electra_convert import ConvertOptions, convert_checkpoint
from electra_convert.origin import NOTE_FILE, Origin, recall, remember


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source."""
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def test_a_source_is_found_from_every_level(tmp_path: Path, source: Path) -> None:
    """From the output, a part, a head, a format."""
    out = tmp_path / "out/generator/base/flax"
    out.mkdir(parents=True)
    remember(tmp_path / "out", "a1", Origin(source, 30))
    for folder in (out, out.parent, out.parents[1], out.parents[2]):
        assert recall(folder, "a1") == Origin(source, 30)
    assert recall(out, "b2") is None


def test_several_sources_are_noted(tmp_path: Path, source: Path) -> None:
    """One note for all that was written there."""
    remember(tmp_path, "a1", Origin(source, None))
    remember(tmp_path, "b2", Origin(source / "model.ckpt-2", None))
    assert recall(tmp_path, "a1") == Origin(source, None)
    assert recall(tmp_path, "b2") is None
    (source / "model.ckpt-2.index").write_bytes(b"")
    assert recall(tmp_path, "b2") == Origin(source / "model.ckpt-2", None)


def test_a_source_that_is_gone_is_not_recalled(tmp_path: Path, source: Path) -> None:
    """Nor is one from a note that says nothing."""
    remember(tmp_path, "a1", Origin(source, None))
    source.rmdir()
    assert recall(tmp_path, "a1") is None
    (tmp_path / NOTE_FILE).write_text("[]")
    assert recall(tmp_path, "a1") is None
    (tmp_path / NOTE_FILE).write_bytes(b"\xff")
    assert recall(tmp_path, "a1") is None


def test_no_path_is_in_what_is_published(fixtures: Path, tmp_path: Path) -> None:
    """The note lies beside the heads; in them, nothing tells where the source lay."""
    options = ConvertOptions(part="discriminator", heads=("base",), targets=("pytorch",))
    convert_checkpoint(fixtures / "electra_tiny", tmp_path / "out", options)
    assert str(fixtures) in (tmp_path / "out" / NOTE_FILE).read_text()
    for path in (tmp_path / "out/base").iterdir():
        assert str(fixtures).encode() not in path.read_bytes()
