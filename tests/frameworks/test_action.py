"""The GitHub action from a checkpoint to a proof, its steps run as they are written."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from shutil import copy, copytree

import pytest

from tests.composite import Action

for package in ("torch", "scipy"):
    pytest.importorskip(package)

ACTION = Action(Path(__file__).parents[2])
COMMANDS = Path(sys.executable).parent


def test_from_a_checkpoint_to_a_proof(fixtures: Path, hparams: Callable[[str], Path], tmp_path: Path) -> None:
    """In names with spaces: outputs, summary, annotations and reports say that it is proven, in the framework named."""
    workspace = tmp_path / "work space"
    copytree(fixtures / "electra_tiny", workspace / "a checkpoint")
    copy(hparams("electra_tiny"), workspace / "h params.json")
    given = {
        "source": "a checkpoint",
        "part": "discriminator",
        "head": "pretraining",
        "frameworks": "pytorch",
        "config": "h params.json",
        "out": "the out",
    }
    convert, verify = (
        ACTION.run(name, given, workspace=workspace, files=tmp_path / name, path=(COMMANDS,))
        for name in ("Convert", "Verify")
    )
    assert convert.returncode == 0, convert.log
    assert verify.returncode == 0, verify.log
    assert verify.outputs["status"] == "proven"
    assert verify.outputs["verdict"].startswith("proven, given assumed: ")
    assert verify.summary.startswith("## ✓ proven, given assumed: ")
    assert "| pretraining | ✓ | ✓ " in verify.summary
    assert verify.annotations == [f"::notice title=electra-convert%3A proven::{verify.outputs['verdict']}"]
    assert "<html" in (workspace / verify.outputs["html"]).read_text()
    report = ET.parse(workspace / verify.outputs["junit"]).getroot()  # noqa: S314 - it is ours
    assert (report.get("failures"), report.get("errors")) == ("0", "0")
    assert (workspace / "the out" / "pretraining" / "verification.json").is_file()
