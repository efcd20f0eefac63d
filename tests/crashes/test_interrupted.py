"""Conversions that are told to end: by Ctrl-C, by a batch system, by a terminal or a reader that went away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest

from electra_convert import ConvertOptions
from tests.crashes.runs import SOURCE, begin, heads_in, left_in, plan_once, undisturbed

SHARED = ("--layout", "shared")
PROGRESS = ("unpacking ", "writing ")
"""What lines begin with that say how it goes."""
SYNC = 0.2
"""Seconds that a slow disk takes for each file."""
TIMES = 12
"""Signals of each kind that must end a run."""


@pytest.mark.parametrize(
    ("which", "words"),
    [(signal.SIGINT, ["interrupted: what was finished stays, nothing is half-written"]), (signal.SIGTERM, [])],
)
def test_told_to_end_at_any_moment(
    memory: Path, monkeypatch: pytest.MonkeyPatch, chance: Random, which: signal.Signals, words: list[str]
) -> None:
    """It ends with its exit code and at most one line; heads are absent or whole, and nothing else is left.

    Neither is anything of the archive, which was unpacked.
    """
    out, temporary = memory / "made" / "out", memory / "tmp"
    archive = Path(shutil.make_archive(str(memory / "electra"), "zip", SOURCE))
    plan_once(monkeypatch, out, ConvertOptions(layout="shared"))
    new, seconds = undisturbed(out, ConvertOptions(layout="shared"))
    ended = unpacked = 0
    while ended < TIMES:
        shutil.rmtree(memory / "made")
        run = begin(memory, archive, out, *SHARED)
        run.wait_for(out.exists if chance.random() < 0.7 else lambda: any(temporary.iterdir()))
        time.sleep(chance.uniform(0, seconds))
        unpacked += any(temporary.iterdir())
        run.send(which)
        code, _, told = run.end()
        heads = heads_in(out)
        assert all(files == new[head] for head, files in heads.items())
        assert not left_in(memory)
        assert not any(temporary.iterdir())
        assert (memory / "made").exists() == bool(heads), "folders that were made for nothing stay"
        if code == 0 or heads == new:  # too late
            assert heads == new
            out.mkdir(parents=True, exist_ok=True)
            continue
        ended += 1
        assert code == 128 + which
        assert [line for line in told.splitlines() if line and not line.startswith(PROGRESS)] == words
        assert begin(memory, archive, out, *SHARED).end().code == 0
        assert heads_in(out) == new
        assert not left_in(memory)
    assert unpacked


def on_a_terminal_and_a_slow_disk() -> None:
    """Let this process heed SIGHUP, and take so long to write that one comes before it has written all."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    sync = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(SYNC)
        sync(descriptor)

    patch.object(os, "fsync", slow).start()


def test_a_terminal_that_goes_away(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads are absent or whole after SIGHUP, nothing else is left, and the next run makes the rest."""
    out = memory / "out"
    plan_once(monkeypatch, out, ConvertOptions(layout="shared"))
    run = begin(memory, SOURCE, out, *SHARED, before=on_a_terminal_and_a_slow_disk)
    run.wait_for(lambda: any(out.glob(".*/*/model*")))
    run.send(signal.SIGHUP)
    assert run.end().code == 128 + signal.SIGHUP
    assert not left_in(memory)
    before = heads_in(out)
    assert len(before) < 8
    assert begin(memory, SOURCE, out, *SHARED).end().code == 0
    new = heads_in(out)
    assert all(files == new[head] for head, files in before.items())
    assert len(new) == 8
    assert not left_in(memory)


def test_a_reader_that_goes_away(memory: Path) -> None:
    """With `| head -1` what is printed at the end goes nowhere; the output is whole, and there is no traceback."""
    command = [sys.executable, "-m", "electra_convert", str(SOURCE), str(memory / "out"), "--to", "pytorch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        told = process.stderr.read()
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    assert len(heads_in(memory / "out")) == 8
    assert not left_in(memory)
