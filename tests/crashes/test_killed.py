"""Conversions that are killed in mid-write: heads are absent or whole, and the next run is as if nothing had been."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Literal

import pytest

from electra_convert import ConvertOptions, convert_checkpoint
from electra_convert.output import NEW
from tests.crashes.runs import FORK, SOURCE, Contents, contents, heads_in, left_in, plan_once, undisturbed

KILLS = {("shared", False): 85, ("shared", True): 85, ("single", False): 15, ("single", True): 15}
"""Kills in mid-write, by layout and whether older heads are there that are to be replaced: 200 in all."""
GOOGLE_KILLS = 20
"""Kills of conversions to a checkpoint for Google's code."""
WEIGHTS = (".safetensors", ".h5", ".msgpack")


@pytest.mark.parametrize(("layout", "older"), KILLS)
def test_killed_at_any_moment(
    memory: Path,
    monkeypatch: pytest.MonkeyPatch,
    chance: Random,
    note: Callable[[object], None],
    layout: Literal["shared", "single"],
    older: bool,  # noqa: FBT001  # pytest passes by name
) -> None:
    """Each head is absent, the old one or the new one, whole; the next run makes all of them, and clears away."""
    options = ConvertOptions(layout=layout, overwrite=older)
    old = undisturbed(memory / "old", ConvertOptions(layout=layout, seed=1))[0] if older else {}
    plan_once(monkeypatch, memory / "out", options)
    new, _ = undisturbed(memory / "out", options)
    _, seconds = undisturbed(memory / "twice", options)
    assert len(new) == 8
    phases: Counter[str] = Counter()
    while phases.total() - phases["not in mid-write"] < KILLS[layout, older]:
        shutil.rmtree(memory / "out")
        if older:
            shutil.copytree(memory / "old", memory / "out", copy_function=os.link)
        assert kill_after(chance.uniform(0.1 * seconds, 0.85 * seconds), memory / "out", options)
        there = heads_in(memory / "out")
        for head, files in there.items():
            assert files in (new[head], old.get(head)), f"{head} is neither the old nor the new one"
        assert not older or there.keys() == new.keys()
        phase = moment(memory / "out", new)
        phases[phase] += 1
        convert_checkpoint(SOURCE, memory / "out", options, exist_ok=phase == "not in mid-write")
        assert heads_in(memory / "out") == new
        assert not left_in(memory)
    note(dict(phases))
    assert len(phases.keys() - {"not in mid-write"}) > 1


def kill_after(seconds: float, out: Path, options: ConvertOptions) -> bool:
    """Begin a conversion and kill it; return whether it ended by that, or well before."""
    process = FORK.Process(target=convert_checkpoint, args=(SOURCE, out, options))
    process.start()
    time.sleep(seconds)
    process.kill()
    process.join(60)
    return process.exitcode in (0, -signal.SIGKILL)


def moment(out: Path, new: dict[str, Contents]) -> str:
    """Return what a conversion did when it was killed, from what it left of a head that is not published."""
    staged = list(out.glob(f".*/{NEW}"))
    if not staged or not staged[0].is_dir():
        return "not in mid-write"
    whole = new[staged[0].parent.name[1:].partition(".")[0]]
    there = {str(path.relative_to(staged[0])): path for path in staged[0].rglob("*") if path.is_file()}
    weights = [name for name in whole if name.endswith(WEIGHTS)]
    if there.keys() == whole.keys() and all(path.read_bytes() == whole[name] for name, path in there.items()):
        return "syncing"
    if there.keys() >= set(weights) and all(there[name].read_bytes() == whole[name] for name in weights):
        return "documents"
    if any(there[name].stat().st_size < len(whole[name]) for name in weights if name in there):
        return "laying out"
    return "values" if there else "laying out"


def test_a_checkpoint_for_googles_code_is_whole_or_absent(
    memory: Path, chance: Random, note: Callable[[object], None]
) -> None:
    """Killed in mid-write, there is none; the next run makes it, and clears away."""
    options = ConvertOptions(targets=("google_tf1",), optimizer_slots=True)
    convert_checkpoint(SOURCE, memory / "out", options)  # imports all it takes
    new = contents(memory / "out")
    shutil.rmtree(memory / "out")
    _, seconds = undisturbed(memory / "out", options)
    left: Counter[bool] = Counter()
    for _ in range(GOOGLE_KILLS):
        shutil.rmtree(memory / "out")
        assert kill_after(chance.uniform(0.1 * seconds, 0.95 * seconds), memory / "out", options)
        assert not (memory / "out").exists() or contents(memory / "out") == new
        left[bool(left_in(memory))] += 1
        convert_checkpoint(SOURCE, memory / "out", options, exist_ok=True)
        assert contents(memory / "out") == new
        assert not left_in(memory)
    note(dict(left))
    assert left[True]
