"""Broken inputs as data, and what each must end in.

A case makes its input in a folder, and has the command that reads it. The command runs in a process of its own, and
must end with exit code 1 and one message that names file and place, in little time and memory, with nothing written.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "fixtures" / "electra_tiny"
MOST_SECONDS = 1.0
"""Of processor time, beyond the start."""
MOST_MEMORY = 200 * 2**20
"""Bytes beyond what the start takes."""
MOST_CHARACTERS = 100_000
"""Of a message, which may list every tensor at fault."""
PROGRESS = re.compile(r"([\w ]+ [\d.]+ \w+\n)*")
"""What may be told before: `writing 562 kB`."""


@dataclass(frozen=True, slots=True)
class Case:
    """A broken input.

    Args:
        name: What is wrong with it.
        make: Makes it in a folder, which becomes the working directory.
        command: What is typed.
        words: What the message must say: the file, and the place in it.
    """

    name: str
    make: Callable[[Path], object]
    command: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended.

    Args:
        code: Its exit code, or the signal that ended it, negative.
        stdout: What it printed.
        stderr: What it told.
        seconds: Processor time it took, with its children.
        memory: Bytes of memory it had at its peak, beyond those of a command that does nothing.
        written: What is in its folder, or the folder of temporary files, that was not there before, or differs.
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    memory: int
    written: tuple[str, ...]

    def require_refused(self, words: Sequence[str]) -> None:
        """Check that one message told of the input, soon, and that nothing else came of it."""
        assert self.code == 1, f"exit code {self.code}, and {self.stderr or self.stdout!r}"
        assert PROGRESS.sub("", self.stderr, count=1).startswith("error: "), self.stderr
        assert self.stderr.count("error: ") == 1, self.stderr
        assert "Traceback" not in self.stderr, self.stderr
        assert "Warning" not in self.stderr, self.stderr
        assert len(self.stderr) < MOST_CHARACTERS, self.stderr[:1000]
        assert not self.stdout, self.stdout
        assert [word for word in words if word not in self.stderr] == [], self.stderr
        assert not self.written, self.written
        assert self.seconds < MOST_SECONDS, self.seconds
        assert self.memory < MOST_MEMORY, self.memory


class Runner:
    """Runs commands in children of a process that is ready to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "TERM": "dumb", "COLUMNS": "200"},
        )

    def run(self, command: Sequence[str], folder: Path) -> Outcome:
        """Run a command of electra-convert.

        Args:
            command: What is typed after `electra-convert`.
            folder: The working directory; beside it are written what the command prints, and its temporary files.
        """
        temporary = folder.with_name(f"{folder.name}-temporary")
        temporary.mkdir()
        printed = [folder.with_name(f"{folder.name}-{name}") for name in ("stdout", "stderr")]
        before = _listing(folder)
        environment = {"TMPDIR": str(temporary), "HOME": str(temporary)}
        answer = self._ask(
            command=list(command),
            folder=str(folder),
            stdout=str(printed[0]),
            stderr=str(printed[1]),
            environment=environment,
        )
        changed = before ^ _listing(folder) | _listing(temporary)
        return Outcome(
            code=answer["code"],
            stdout=printed[0].read_text(),
            stderr=printed[1].read_text(),
            seconds=answer["seconds"],
            memory=answer["peak"] - self._start,
            written=tuple(sorted({path for path, *_ in changed})),
        )

    @cached_property
    def _start(self) -> int:
        """Bytes a command that does nothing has at its peak."""
        nowhere = {"folder": os.sep, "stdout": os.devnull, "stderr": os.devnull, "environment": {}}
        peak: int = self._ask(command=["--version"], **nowhere)["peak"]
        return peak

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextmanager
def running() -> Iterator[Runner]:
    """Have a runner for a while."""
    runner = Runner()
    try:
        yield runner
    finally:
        runner.close()


def _listing(folder: Path) -> set[tuple[str, int, int, int]]:
    """Return what is in a folder: paths, kinds, sizes and times of change."""
    paths = [Path(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files)]
    found = [(path, path.lstat()) for path in paths]
    return {(str(path), stat.st_mode, stat.st_size, stat.st_mtime_ns) for path, stat in found}
