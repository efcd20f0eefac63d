"""Two conversions to one place at the same time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from electra_convert import ConvertOptions
from electra_convert.output import MARK, STAGING
from tests.crashes.runs import SOURCE, begin, heads_in, is_one_message, left_in, plan_once, undisturbed

TIMES = 12
WRITING = STAGING.format(name="*", mark=MARK)
"""What each run that writes has in the output; as it ends well or badly, this is gone."""


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_runs_on_one_target(
    memory: Path, monkeypatch: pytest.MonkeyPatch, chance: Random, note: Callable[[object], None], *, overwrite: bool
) -> None:
    """At least one ends well, another says in one message what was in its way; all is whole, nothing else is left.

    In some of the rounds both write at the same time.
    """
    out = memory / "out"
    options = ("--layout", "shared", *(["--overwrite"] if overwrite else []))
    plan_once(monkeypatch, out, ConvertOptions(layout="shared", overwrite=overwrite))
    new, seconds = undisturbed(out, ConvertOptions(layout="shared"))
    codes = []
    together = 0
    for _ in range(TIMES):
        if not overwrite or chance.random() < 0.5:
            shutil.rmtree(out)
        first = begin(memory, SOURCE, out, *options)
        time.sleep(chance.choice([0, chance.uniform(0, seconds)]))
        second = begin(memory, SOURCE, out, *options)
        together += second.wait_for(lambda: len(list(out.glob(WRITING))) > 1)
        ends = [first.end(), second.end()]
        codes.append(tuple(end.code for end in ends))
        assert heads_in(out) == new, [end.told for end in ends]
        assert not left_in(memory)
        assert any(end.code == 0 for end in ends), [end.told for end in ends]
        for end in ends:
            assert end.code == 0 or (end.code == 1 and is_one_message(end.told)), end.told
            assert end.code == 0 or "already" in end.told, end.told
    note((together, codes))
    assert together
    assert overwrite or (0, 1) in codes or (1, 0) in codes
