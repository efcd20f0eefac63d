"""What the README says of adding a format: one mapping, one module."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, with what the README adds to it."""
    root = tmp_path_factory.mktemp("package")
    for name in ("electra_convert", "mappings"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    section = (ROOT / "README.md").read_text().partition("## Add a format\n")[2].partition("\n## ")[0]
    (command,) = re.findall(r"^\$ (sed .*)$", section, re.MULTILINE)
    (module,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    subprocess.run(command, shell=True, check=True, cwd=root)  # noqa: S602  # as a reader types it
    (root / "electra_convert" / "formats" / "npz.py").write_text(module)
    return root


def run(package: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line of the copy, where warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "electra_convert", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=package,
    )


def test_it_is_there_and_sound(package: Path) -> None:
    """The mapping is checked like the others, and the command line offers the format."""
    checked = run(package, "mappings", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    told = run(package, "convert", "--to", "nzp", ".", "out")
    assert told.returncode == 2
    assert "pytorch, tensorflow, flax, npz, google_tf1" in told.stderr


@pytest.mark.parametrize("layout", ["single", "shared"])
@pytest.mark.parametrize("part", ["discriminator", "generator"])
def test_there_and_back(package: Path, fixtures: Path, tmp_path: Path, part: str, layout: str) -> None:
    """By way of it, every head is the bytes that a conversion without it gives."""
    source, direct, over, back = fixtures / "electra_tiny", tmp_path / "direct", tmp_path / "npz", tmp_path / "back"
    heads = ("--head", "native,base,question_answering", "--part", part)
    for command in (
        (*heads, "--to", "pytorch", source, direct),
        (*heads, "--to", "npz", "--layout", layout, source, over),
    ):
        done = run(package, *command)
        assert done.returncode == 0, done.stderr
    assert "Load it" not in done.stdout
    for head in direct.iterdir():
        if head.is_dir():
            done = run(package, "--head", "native", "--to", "pytorch", "--part", part, over / head.name, back)
            assert done.returncode == 0, done.stderr
            assert (back / head.name / "model.safetensors").read_bytes() == (head / "model.safetensors").read_bytes()
    same = run(package, "diff", over / "base", direct / "base")
    assert same.returncode == 0, same.stdout + same.stderr
    assert "npz" in same.stdout


def test_what_is_broken_is_told(package: Path, fixtures: Path, tmp_path: Path) -> None:
    """In one message."""
    run(package, "--head", "base", "--to", "npz", "--part", "generator", fixtures / "electra_tiny", tmp_path / "out")
    file = tmp_path / "out" / "base" / "model.npz"
    file.write_bytes(file.read_bytes()[:100])
    told = run(package, "--to", "flax", file.parent, tmp_path / "again")
    assert told.returncode == 1
    assert f"{file} cannot be read" in told.stderr
    assert "Traceback" not in told.stderr
