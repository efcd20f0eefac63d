"""A Hub for each test, and an environment in which clients use it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
from msgspec.structs import replace

from electra_convert.mapping import load_mappings
from electra_convert.parity.directories import find_directories
from electra_convert.parity.report import Status
from electra_convert.parity.verdict import head_verdict
from electra_convert.parity.verification import file_hashes, write_verification
from tests.hub.server import HubServer
from tests.hub.state import Token
from tests.report.conftest import REPORTS

HEADS = ("base", "pretraining", "masked_lm", "token_classification")

SECRET = "hf_" + "NeverPrintThisSecretAnywhere" + "0123456789"
"""The token of `author`, who may write in `author` and in `org`; a test may look for it where it must not be."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the client use its own HTTP library in a way that library warns of."""
    mark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
    for item in items:
        if "hub" in getattr(item, "fixturenames", ()):
            item.add_marker(mark)


@pytest.fixture
def secret() -> str:
    """The token that is in the environment."""
    return SECRET


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Run a Hub, and have clients of this process and of its children use it."""
    home = tmp_path / "huggingface"
    with HubServer(tokens={SECRET: Token("author", orgs={"org": "write"})}) as server:
        settings = {
            "HF_ENDPOINT": server.url,
            "HF_TOKEN": SECRET,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        for name in ("HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"):
            monkeypatch.delenv(name, raising=False)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        server.environment = dict(os.environ)
        # What the clients read from the environment when they are imported, which was before this test.
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield server
    assert not server.errors


@pytest.fixture
def output(converted: Callable[..., Path], tmp_path: Path) -> Path:
    """Copy a conversion of both parts, so that a test may change it."""
    return Path(shutil.copytree(converted("electra_tiny", "both", heads=HEADS), tmp_path / "output"))


@pytest.fixture
def proven(output: Path) -> Path:
    """Return an output that a verification proved."""
    for directory in find_directories(output, load_mappings().inventory):
        verify_as(directory.path, "proven")
    return output


def verify_as(path: Path, status: Status) -> None:
    """Write into a directory what a verification with some verdict says of the files that are there."""
    (directory,) = find_directories(path, load_mappings().inventory)
    report = REPORTS[status]()
    like = next(head for head in report.heads if head.status == status)
    head = replace(like, directory=path, head=directory.head, part=None)
    write_verification(head, report, head_verdict(head, report), file_hashes(path))
