"""Time conversions beside `cp` and `sync` of the same bytes, interleaved in one run: `python -m benchmarks.speed`.

Every size of the released models, without and with Adam's moments in the checkpoint. What each takes is written to
`benchmarks/results/` as JSON, Markdown and a chart.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from rich.console import Console

from benchmarks.checkpoints import SIZES, make_checkpoint
from benchmarks.processes import Measured, claim_memory
from benchmarks.results import COPY, PEER, YARDSTICK, Case, Results, save, show

SPARE = 1 << 28
"""Bytes of memory that are claimed for a command beyond those it writes."""
MOST_CLAIMED = 1 << 33
START_ROUNDS = 15
SELDOM = 5
"""Rounds of which what takes long is measured in one."""

ELECTRA_CONVERT = str(Path(sysconfig.get_path("scripts")) / "electra-convert")
CONVERT = (ELECTRA_CONVERT, "--part", "discriminator")
NATIVE = (*CONVERT, "--head", "pretraining")
TARGETS = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "flax": "Flax"}
ALL = {"shared": "all heads, 3 formats, shared", "single": "all heads, 3 formats, single"}
TOO_LARGE = {("large", "single")}
"""What is not measured: it writes 32 GB."""


@dataclass(frozen=True)
class Command:
    """What is measured.

    Args:
        name: What the table calls it.
        steps: Its processes, one after the other.
        files: How many files of the original's size it writes.
        every: It is measured in the first of so many rounds.
    """

    name: str
    steps: Sequence[Sequence[str]]
    files: int = 1
    every: int = 1


def main() -> None:
    """Measure, print the figures, and write them."""
    arguments = parse_arguments()
    cases: list[Case] = []
    starts: dict[str, float] = {}
    for size, slots in product(arguments.sizes, (False, True)):
        with tempfile.TemporaryDirectory(prefix="electra-convert-benchmark-") as name:
            source = make_checkpoint(Path(name) / "checkpoint", size, slots=slots)
            cases.append(measure_case(source, size, slots=slots, rounds=arguments.rounds))
            starts |= measure_starts(source, cases[-1])
        show(cases[-1], Console())
    save(Results(os.cpu_count() or 1, cases, starts), Console())


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="Measure speed and memory.")
    parser.add_argument(
        "--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="the models' sizes (default: all)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=15,
        help="how often copies and native heads are measured; the rest, in every fifth round (default: 15)",
    )
    return parser.parse_args()


def measure_case(source: Path, size: str, *, slots: bool, rounds: int) -> Case:
    """Copy and convert in turns, so that whatever slows the machine slows all of them.

    Args:
        source: The checkpoint.
        size: Its size.
        slots: It has Adam's moments.
        rounds: How often what takes little time is measured.
    """
    original, out = make_original(source), source.parent / "out"
    nbytes = original.stat().st_size
    measured: defaultdict[str, Measured] = defaultdict(Measured)
    every: dict[str, int] = {}
    on_disk: dict[str, int] = {}
    for number in range(rounds):
        for command in commands(source, original, out, size):
            if number % command.every:
                continue
            clear(out)
            claim_memory(min(MOST_CLAIMED, command.files * nbytes + SPARE))
            every[command.name] = command.every
            measured[command.name].add(*command.steps)
            on_disk[command.name] = bytes_on_disk(out)
    clear(out)
    return Case(size, slots, nbytes, every, dict(measured), on_disk)


def commands(source: Path, original: Path, out: Path, size: str) -> Iterator[Command]:
    """Yield what is measured."""
    copy = ("cp", str(original), str(out))
    yield Command(COPY, [copy])
    yield Command(YARDSTICK, [copy, ("sync", str(out))])
    for target, name in TARGETS.items():
        yield Command(f"native head, {name}", [(*NATIVE, "--to", target, str(source), str(out))])
    for layout, name in ALL.items():
        if (size, layout) not in TOO_LARGE:
            files = len(TARGETS) * (8 if layout == "single" else 1)
            yield Command(name, [(*CONVERT, "--layout", layout, str(source), str(out))], files, SELDOM)
    if all(map(find_spec, ("transformers", "torch", "tensorflow"))):
        yield Command(PEER, [(sys.executable, "-m", "benchmarks.peer", str(source), size, str(out))], every=SELDOM)


def make_original(source: Path) -> Path:
    """Convert once, which also brings the checkpoint into memory; return the file that is to be copied."""
    out = source.parent / "first"
    Measured().add((*NATIVE, "--to", "pytorch", str(source), str(out)))
    return (out / "pretraining" / "model.safetensors").rename(source.parent / "original")


def measure_starts(source: Path, case: Case) -> dict[str, float]:
    """Return the seconds that commands which should be instant take beyond the interpreter's own start.

    Args:
        source: The checkpoint to inspect.
        case: What is known of it.
    """
    instant = {
        "interpreter": (sys.executable, "-c", "pass"),
        "--help": (ELECTRA_CONVERT, "--help"),
        f"inspect {case.size}{case.moments}": (ELECTRA_CONVERT, "inspect", str(source)),
    }
    measured = {name: Measured() for name in instant}
    for _ in range(START_ROUNDS):
        for name, command in instant.items():
            measured[name].add(command)
    interpreter = measured.pop("interpreter").median
    return {name: runs.median - interpreter for name, runs in measured.items()}


def clear(path: Path) -> None:
    """Remove what the last measurement wrote, and let the disk come to rest."""
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    os.sync()


def bytes_on_disk(path: Path) -> int:
    """Add up the files of a tree; one with several names counts once."""
    paths = path.rglob("*") if path.is_dir() else [path]
    sizes = {(stat.st_dev, stat.st_ino): stat.st_size for found in paths if (stat := found.stat()) and found.is_file()}
    return sum(sizes.values())


if __name__ == "__main__":
    main()
