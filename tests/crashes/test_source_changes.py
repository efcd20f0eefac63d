"""Checkpoints that change while they are read: one message or a right output; never a wrong one, or a crash."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from electra_convert import ConvertOptions, convert_checkpoint
from tests.crashes.runs import SOURCE, begin, heads_in, is_one_message, left_in

DATA = "model.ckpt-30.data-00000-of-00001"
TIMES = 12
"""Runs of each kind that must have been disturbed in mid-write."""


def truncate(data: Path) -> None:
    """Cut a file off in the middle."""
    with data.open("r+b") as file:
        file.truncate(data.stat().st_size // 2)


def overwrite(data: Path) -> None:
    """Write other values into a file, as a training that goes on would."""
    with data.open("r+b") as file:
        file.write(b"\x3f" * data.stat().st_size)


def replace(data: Path) -> None:
    """Put another file in the place of one."""
    other = data.with_name("other")
    other.write_bytes(b"\x3f" * data.stat().st_size)
    other.replace(data)


@pytest.mark.parametrize("disturb", [truncate, overwrite, replace, Path.unlink])
def test_a_source_that_changes_at_any_moment(
    memory: Path, chance: Random, note: Callable[[object], None], disturb: Callable[[Path], None]
) -> None:
    """What was written before it changed is right, and so is all if what was read is still there; else one error."""
    source, out = memory / "electra", memory / "out"
    started = time.monotonic()
    convert_checkpoint(SOURCE, out, ConvertOptions(layout="shared"))
    seconds = time.monotonic() - started
    new = heads_in(out)
    codes: Counter[int] = Counter()
    while codes.total() < TIMES:
        shutil.rmtree(out)
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(SOURCE, source)
        run = begin(memory, source, out, "--layout", "shared")
        if chance.random() < 0.8:
            run.wait_for(out.exists)
        time.sleep(chance.uniform(0, seconds / 2))
        early = len(heads_in(out)) < len(new)
        disturb(source / DATA)
        end = run.end()
        heads = heads_in(out)
        assert all(files == new[head] for head, files in heads.items()), f"{end.code}: {sorted(heads)} {end.told}"
        assert end.code == 0 or (end.code == 1 and is_one_message(end.told)), f"{end.code}: {end.told}"
        assert (end.code == 0) == (heads == new)
        assert not left_in(memory)
        codes[end.code] += early
        out.mkdir(exist_ok=True)
    note(dict(codes))
