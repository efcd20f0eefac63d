"""What many tests need: the fixtures, and conversions of them, made once a session."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from electra_convert import ConvertOptions, convert_checkpoint

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of genuine checkpoints."""
    return FIXTURES


@pytest.fixture(scope="session")
def hparams(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write the hparams a fixture was trained with to a file."""

    @cache
    def write(name: str) -> Path:
        recorded = json.loads((FIXTURES / name / "expected.json").read_text())
        path = tmp_path_factory.mktemp(name) / "hparams.json"
        path.write_text(json.dumps(recorded["hparams"]))
        return path

    return write


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory, hparams: Callable[[str], Path]) -> Callable[..., Path]:
    """Convert a fixture with the hparams it was trained with; the same request is converted once."""

    @cache
    def convert(name: str, part: Any, **options: Any) -> Path:
        out = tmp_path_factory.mktemp(f"{name}-{part}") / "out"
        convert_checkpoint(FIXTURES / name, out, ConvertOptions(part=part, config=hparams(name), **options))
        return out

    return convert


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--no-skips`."""
    parser.addoption(
        "--no-skips",
        action="store_true",
        help="Fail if a test is skipped: each environment has all it needs.",
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped something, where that is not to happen."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if reporter and skipped and session.config.getoption("--no-skips"):
        reporter.write_line(f"ERROR: {len(skipped)} skipped, and --no-skips was given", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
