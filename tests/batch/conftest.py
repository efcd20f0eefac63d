"""Plans over copies of genuine checkpoints, and what carries them out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.hub.conftest import hub, secret

__all__ = ["hub", "secret"]

FIXTURES = Path(__file__).parents[2] / "fixtures"
TINY = "electra_tiny_uniform"
"""A checkpoint of one part, so that no job need name it."""
Begin = Callable[..., "subprocess.Popen[str]"]
Found = TypeVar("Found")


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Let this process and its children hear Ctrl-C: what a shell runs in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Copy a checkpoint into a folder beside the plan, once for each step it is to have."""

    def copy(name: str, *steps: int, fixture: str = TINY) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in (FIXTURES / fixture).glob("*"):
            if file.name.startswith("model.ckpt-30."):
                for step in steps or (30,):
                    shutil.copy(file, folder / file.name.replace("-30.", f"-{step}."))
            elif not steps or file.name == "vocab.txt":
                shutil.copy(file, folder)
        return folder

    return copy


@pytest.fixture
def write_plan(tmp_path: Path) -> Callable[..., Path]:
    """Write a plan of jobs that convert to PyTorch, prove nothing, and begin with more defaults if some are given."""

    def write(*jobs: dict[str, Any] | str, **defaults: Any) -> Path:
        plan = tmp_path / "plan.yaml"
        content = {
            "version": 1,
            "defaults": {"verify": False, "targets": ["pytorch"], **defaults},
            "jobs": [{"source": job} if isinstance(job, str) else job for job in jobs],
        }
        plan.write_text(json.dumps(content))  # it is YAML too, and has no aliases
        return plan

    return write


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begin batches as a terminal does: groups of processes that Ctrl-C reaches. What is left of them is killed."""
    begun: list[tuple[Path, subprocess.Popen[str]]] = []

    def start(plan: Path, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "electra_convert", "batch", str(plan), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        begun.append((plan, process))
        return process

    yield start
    for plan, process in begun:
        process.kill()
        process.communicate()
        for worker in workers_of(plan):
            os.kill(worker, signal.SIGKILL)


def workers_of(plan: Path) -> list[int]:
    """Return the processes that do the jobs of a plan: its state file is among their arguments."""
    return [int(process.name) for process in Path("/proc").glob("[0-9]*") if _is_worker(process, plan)]


def _is_worker(process: Path, plan: Path) -> bool:
    try:
        arguments = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False
    return b"electra_convert.batch.worker" in arguments and f"{plan}.state.jsonl".encode() in arguments


def until(look: Callable[[], Found], *, seconds: float = 20, what: str) -> Found:
    """Look again and again until there is something; fail if that takes too long."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"in {seconds} s: not {what}"
        time.sleep(0.002)
    return found
