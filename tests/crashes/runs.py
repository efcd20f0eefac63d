"""Conversions in processes of their own, forked from this one, so that they begin at once and can be disturbed."""

from __future__ import annotations

import gc
import multiprocessing
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from electra_convert import ConvertOptions, convert_checkpoint
from electra_convert.cli import main
from electra_convert.convert import Conversion
from electra_convert.origin import NOTE_FILE
from electra_convert.progress import no_progress
from electra_convert.source import locate

SOURCE = Path(__file__).parents[2] / "fixtures" / "electra_tiny_uniform"
"""A checkpoint of one part, and a small one."""
FORK = multiprocessing.get_context("fork")
Contents = Mapping[str, bytes]


class Ended(NamedTuple):
    """How a command ended: its exit code, or minus the signal that killed it, and what it said."""

    code: int
    said: str
    told: str


@dataclass(frozen=True)
class Begun:
    """A command that runs."""

    process: BaseProcess
    out: Path
    err: Path

    def wait_for(self, look: Callable[[], bool]) -> bool:
        """Look again and again until something is so, or the command has ended; return whether it was so."""
        while not (seen := look()) and self.process.is_alive():
            time.sleep(0.001)
        return seen

    def send(self, which: signal.Signals) -> None:
        """Send a signal, if the command runs still."""
        if self.process.is_alive():
            assert self.process.pid is not None
            os.kill(self.process.pid, which)

    def end(self) -> Ended:
        """Wait until it ends."""
        self.process.join(60)
        assert self.process.exitcode is not None, "it hangs"
        return Ended(self.process.exitcode, self.out.read_text(), self.err.read_text())


def begin(folder: Path, *arguments: str | Path, before: Callable[[], object] = lambda: None) -> Begun:
    """Run a command in a process of its own.

    Args:
        folder: Where what it says is kept.
        arguments: Those of the command line.
        before: Is called in that process first.
    """
    mark = secrets.token_hex(4)
    begun = Begun(
        FORK.Process(target=_run, args=(folder / mark, arguments, before)), folder / mark, folder / f"{mark}e"
    )
    begun.process.start()
    return begun


def _run(words: Path, arguments: tuple[str | Path, ...], before: Callable[[], object]) -> None:
    sys.stdout, sys.stderr = words.open("w"), Path(f"{words}e").open("w")  # noqa: SIM115  # closed by the end
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background ignores it
    before()
    main([str(argument) for argument in arguments])


def in_child(work: Callable[[], object]) -> None:
    """Do something in a process of its own, which may then change what holds for all of a process."""
    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == 0, "see the captured stderr"


def plan_once(monkeypatch: pytest.MonkeyPatch, out: Path, options: ConvertOptions) -> None:
    """Plan a conversion now, and use that plan in all that follows, wherever to: planning writes nothing."""
    with locate(SOURCE) as location:
        planned = Conversion.prepare(location, out, options)
    planned.run([], no_progress)  # imports all it takes
    shutil.rmtree(out)
    monkeypatch.setattr(Conversion, "prepare", lambda _, out, __: msgspec.structs.replace(planned, out=out))
    gc.collect()
    gc.freeze()  # a forked process need not copy what it does not look at


def undisturbed(out: Path, options: ConvertOptions, **more: Any) -> tuple[dict[str, Contents], float]:
    """Convert, in a process of its own; return each head, and the seconds it took."""
    begin_time = time.monotonic()
    in_child(lambda: convert_checkpoint(SOURCE, out, options, **more))
    return heads_in(out), time.monotonic() - begin_time


def contents(folder: Path) -> dict[str, bytes]:
    """Return each file below a folder."""
    return {
        os.path.relpath(os.path.join(place, name), folder): Path(place, name).read_bytes()  # noqa: PTH118  # fast
        for place, _, names in os.walk(folder)
        for name in names
    }


def heads_in(out: Path) -> dict[str, Contents]:
    """Return what has the name of a head in an output, and what is in it."""
    return {path.name: contents(path) for path in out.glob("[!.]*")}


def left_in(folder: Path) -> list[str]:
    """Return what lies below a folder under the name of no output: half-written things, temporary folders."""
    hidden = (path for path in folder.rglob(".*") if path.name != NOTE_FILE)
    return sorted(str(path.relative_to(folder)) for path in (*hidden, *folder.rglob("electra-convert-*")))


def is_one_message(message: str) -> bool:
    """Say whether this is one error of ours, after what progress says."""
    lines = message.splitlines()
    told = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return len(told) == 1 and "Traceback" not in message and "Exception ignored" not in message
