"""Commands in processes of their own: how long they take, and how much memory."""

from __future__ import annotations

import mmap
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

SAMPLE = 0.005
"""Seconds between two looks at a process's memory."""
REST = 2.2
"""Seconds after which Linux has told the hypervisor of free pages (`PAGE_REPORTING_DELAY` is 2)."""


@dataclass
class Measured:
    """What the runs of one command took.

    Args:
        seconds: Wall time of each run.
        memory: The most bytes any of them was seen to hold that are backed by no file.
    """

    seconds: list[float] = field(default_factory=list)
    memory: int = 0

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return median(self.seconds)

    @property
    def fastest(self) -> float:
        """Seconds of the fastest run, which the rest of the machine disturbed least."""
        return min(self.seconds)

    def add(self, *commands: Sequence[str]) -> None:
        """Run commands one after the other, as one run, and watch their memory."""
        begin = time.perf_counter()
        for command in commands:
            self._watch(command)
        self.seconds.append(time.perf_counter() - begin)

    def _watch(self, command: Sequence[str]) -> None:
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment())
            while process.poll() is None:
                self.memory = max(self.memory, anonymous_memory(process.pid))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(SAMPLE)
            if process.returncode:
                said.seek(0)
                raise SystemExit(f"{' '.join(command)} failed:\n{said.read()}")


def anonymous_memory(pid: int) -> int:
    """Return the bytes of a process that are backed by no file (`RssAnon` of proc(5)); 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(sizes[0]) * 1024 if sizes else 0


def claim_memory(nbytes: int) -> None:
    """Fill memory and let it go again, so that the next process finds pages that are really there.

    A virtual machine gives pages that were free for about two seconds back to its host. To get one again takes several
    times as long as to use one, and which of several commands has to would depend on when it runs, not on what it does.
    """
    time.sleep(REST)
    with mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, nbytes, mmap.PAGESIZE):
            memory[page] = 1


def environment() -> dict[str, str]:
    """Return the environment of commands: compiled modules are kept, as in any installation."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
