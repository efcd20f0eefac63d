"""Processes of this package's own, apart in memory and in what kills them: sent lines of JSON, they answer in lines."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress

LAST_WORDS = 2000
"""Characters of a crashed process's stderr that are shown."""


class Child:
    """A process that runs a module of this package; it ends when its stdin does.

    Args:
        module: The module.
        arguments: Its arguments.
        environment: What is added to its environment.
        detached: It does not share Ctrl-C with this process.
    """

    def __init__(
        self, module: str, *arguments: str, environment: Mapping[str, str] | None = None, detached: bool = False
    ) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self._process = subprocess.Popen(  # noqa: S603  # our own module
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env={**os.environ, **(environment or {})},
            start_new_session=detached,
        )

    @property
    def alive(self) -> bool:
        """Say whether it runs."""
        return self._process.poll() is None

    def send(self, line: bytes) -> None:
        """Send a line; to a process that has ended, nothing is sent."""
        assert self._process.stdin is not None  # noqa: S101  # for the type checker: it is a pipe
        with suppress(BrokenPipeError):
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()

    def receive(self) -> bytes:
        """Wait for a line; empty if it has ended, if in the midst of one."""
        assert self._process.stdout is not None  # noqa: S101  # for the type checker: it is a pipe
        line = self._process.stdout.readline()
        return line if line.endswith(b"\n") else b""

    def last_words(self) -> str:
        """Say how it ended, with the end of what it wrote to stderr."""
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._words.seek(0)
        words = self._words.read().decode(errors="replace")[-LAST_WORDS:].strip()
        return f"ended with {how}" + (f":\n{words}" if words else "")

    def end(self, *, patience: float = 0.0) -> None:
        """End the process, whatever it is doing.

        Args:
            patience: Seconds it has to clean up.
        """
        if patience and self.alive:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process, and close what is open."""
        self.end()
        self._process.communicate()
        self._words.close()


def claim_answers() -> Callable[[bytes], None]:
    """Return what sends a line of this process, which is a child, to the one that waits for answers.

    What anything prints goes to stderr from now on, so that it cannot be taken for an answer.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(line: bytes) -> None:
        answers.write(line + b"\n")
        answers.flush()

    return send
