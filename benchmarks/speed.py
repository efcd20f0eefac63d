"""Time conversions beside `cp` and `sync` of the same bytes, interleaved in one run: `python -m benchmarks.speed`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.checkpoints import SIZES, make_checkpoint
from benchmarks.processes import Measured, claim_memory
from electra_convert.output import in_bytes

RESULTS = Path(__file__).parent / "results"
COPY, YARDSTICK, PEER = "cp", "cp + sync", "transformers 4"
START_ROUNDS = 15
SPARE = 1 << 28
"""Bytes of memory that are claimed for a command beyond those it writes."""
HEADINGS = ("", "median", f"times {YARDSTICK}", "fastest", f"times {YARDSTICK}", "memory beyond mapped files")

ELECTRA_CONVERT = str(Path(sysconfig.get_path("scripts")) / "electra-convert")
CONVERT = (ELECTRA_CONVERT, "--part", "discriminator", "--head", "pretraining", "--to")
TARGETS = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "flax": "Flax"}


def main() -> None:
    """Measure, print the figures, and write them to `benchmarks/results/`."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="electra-convert-benchmark-") as name:
        folder = Path(name)
        source = make_checkpoint(folder / "checkpoint", arguments.size, slots=arguments.slots)
        original = make_original(source, folder)
        size = original.stat().st_size
        peer = (sys.executable, "-m", "benchmarks.peer", str(source), arguments.size) if arguments.peer else None
        conversions = measure_conversions(source, original, rounds=arguments.rounds, peer=peer)
        starts = measure_starts(source)
    title = f"{arguments.size} discriminator, native head, {in_bytes(size)}; {arguments.rounds} rounds"
    rows = list(table_rows(conversions))
    show(title, rows, starts)
    save(f"speed-{arguments.size}", as_json(title, conversions, starts), as_markdown(title, rows, starts))


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="Measure speed and memory.")
    parser.add_argument("--size", choices=SIZES, default="large", help="the model's size (default: large)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: 5)")
    parser.add_argument("--slots", action="store_true", help="add Adam's moments to the checkpoint")
    parser.add_argument("--peer", action="store_true", help="measure transformers 4 too; it needs torch and tensorflow")
    arguments = parser.parse_args()
    missing = [name for name in ("transformers", "torch", "tensorflow") if not find_spec(name)]
    if arguments.peer and missing:
        parser.error(f"--peer needs {', '.join(missing)}")
    return arguments


def make_original(source: Path, folder: Path) -> Path:
    """Convert once, which also brings the checkpoint into memory; return the file that is to be copied."""
    out = folder / "first"
    Measured().add((*CONVERT, "pytorch", str(source), str(out)))
    return (out / "pretraining" / "model.safetensors").rename(folder / "original")


def measure_conversions(
    source: Path, original: Path, *, rounds: int, peer: Sequence[str] | None
) -> dict[str, Measured]:
    """Copy and convert in turns, so that whatever slows the machine slows all of them.

    Args:
        source: The checkpoint.
        original: The file that is copied.
        rounds: How often.
        peer: The command of the peer, but for where it writes.

    Returns:
        What each took, by name.
    """
    copied, out = source.parent / "copied", source.parent / "out"
    copy = ("cp", str(original), str(copied))

    def prepare() -> None:
        clear(copied, out)
        claim_memory(original.stat().st_size + SPARE)

    measured: defaultdict[str, Measured] = defaultdict(Measured)
    for _ in range(rounds):
        prepare()
        measured[COPY].add(copy)
        prepare()
        measured[YARDSTICK].add(copy, ("sync", str(copied)))
        for target, name in TARGETS.items():
            prepare()
            measured[f"convert to {name}"].add_watched((*CONVERT, target, str(source), str(out)))
        if peer:
            prepare()
            measured[PEER].add_watched((*peer, str(out)))
    return dict(measured)


def measure_starts(source: Path) -> dict[str, float]:
    """Return the seconds that commands which should be instant take beyond the interpreter's own start."""
    commands = {
        "interpreter": (sys.executable, "-c", "pass"),
        "--help": (ELECTRA_CONVERT, "--help"),
        "inspect": (ELECTRA_CONVERT, "inspect", str(source)),
    }
    measured = {name: Measured() for name in commands}
    for _ in range(START_ROUNDS):
        for name, command in commands.items():
            measured[name].add(command)
    interpreter = measured.pop("interpreter").median
    return {name: runs.median - interpreter for name, runs in measured.items()}


def clear(*paths: Path) -> None:
    """Remove what the last measurement wrote, and let the disk come to rest."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
    os.sync()


def table_rows(conversions: Mapping[str, Measured]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table, a cell for each of `HEADINGS`."""
    yardstick = conversions[YARDSTICK]
    for name, measured in conversions.items():
        yield (
            name,
            f"{measured.median:.2f} s",
            f"{measured.median / yardstick.median:.2f}",
            f"{measured.fastest:.2f} s",
            f"{measured.fastest / yardstick.fastest:.2f}",
            in_bytes(measured.memory) if measured.memory else "",
        )


def start_lines(starts: Mapping[str, float]) -> Iterator[str]:
    """Yield a sentence for each command that should be instant."""
    for name, seconds in starts.items():
        yield f"{name}: {seconds * 1000:.0f} ms beyond the interpreter's start, median of {START_ROUNDS}"


def show(title: str, rows: Sequence[Sequence[str]], starts: Mapping[str, float]) -> None:
    """Print the figures."""
    table = Table(*HEADINGS, title=title)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for line in start_lines(starts):
        console.print(line)


def as_markdown(title: str, rows: Sequence[Sequence[str]], starts: Mapping[str, float]) -> str:
    """Return the figures as Markdown."""
    cells = [HEADINGS, ("---", *("---:" for _ in HEADINGS[1:])), *rows]
    table = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    return f"{title}\n\n{table}\n\n" + "".join(f"- {line}\n" for line in start_lines(starts))


def as_json(title: str, conversions: Mapping[str, Measured], starts: Mapping[str, float]) -> dict[str, Any]:
    """Return every measurement as JSON types."""
    return {
        "what": title,
        "processors": os.cpu_count(),
        "runs": {name: {"seconds": runs.seconds, "memory": runs.memory} for name, runs in conversions.items()},
        "seconds_beyond_start": dict(starts),
    }


def save(name: str, content: Mapping[str, Any], markdown: str) -> None:
    """Write the figures, for programs and for people."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(markdown)


if __name__ == "__main__":
    main()
