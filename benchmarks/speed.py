"""Time conversions beside `cp` and `sync` of the same bytes, interleaved in one run: `python -m benchmarks.speed`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.checkpoints import SIZES, make_checkpoint

RESULTS = Path(__file__).parent / "results"
YARDSTICK = "cp + sync"
SAMPLE = 0.002
"""Seconds between two looks at a process's memory."""
START_ROUNDS = 15

COMMAND = [sys.executable, "-m", "electra_convert"]
FORMATS = {"pytorch": "model.safetensors", "tensorflow": "tf_model.h5", "flax": "flax_model.msgpack"}


@dataclass
class Measured:
    """Seconds of each round, and the most memory that was not a mapped file, in bytes."""

    seconds: list[float] = field(default_factory=list)
    memory: int = 0


def main() -> None:
    """Measure, print a table, and write it to `benchmarks/results/`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slots", action="store_true", help="add Adam's moments to the checkpoint")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="electra-convert-benchmark-") as folder:
        source = make_checkpoint(Path(folder) / "checkpoint", arguments.size, slots=arguments.slots)
        conversions = measure_conversions(source, Path(folder), arguments.rounds)
        starts = measure_starts(source)
    show(arguments.size, conversions, starts)
    save(arguments.size, conversions, starts)


def measure_conversions(source: Path, folder: Path, rounds: int) -> dict[str, Measured]:
    """Copy and convert in turns, so that whatever slows the machine slows both."""
    measured = {name: Measured() for name in (YARDSTICK, *FORMATS)}
    copied, out = folder / "copied", folder / "out"
    convert(source, out, "pytorch")  # warms the page cache, and makes the bytes that are copied
    original = shutil.move(out / "pretraining" / FORMATS["pytorch"], folder / "original")
    for _ in range(rounds):
        clear(out, copied)
        measured[YARDSTICK].seconds.append(timed(lambda: copy_and_sync(Path(original), copied)))
        for target in FORMATS:
            clear(out, copied)
            begin = time.perf_counter()
            memory = convert(source, out, target)
            measured[target].seconds.append(time.perf_counter() - begin)
            measured[target].memory = max(measured[target].memory, memory)
    return measured


def measure_starts(source: Path) -> dict[str, float]:
    """Return the median seconds of commands that should be instant, beyond the interpreter's own start."""
    commands = {
        "interpreter": [sys.executable, "-c", "pass"],
        "--help": [*COMMAND, "--help"],
        "inspect": [*COMMAND, "inspect", str(source)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(START_ROUNDS):
        for name, command in commands.items():
            seconds[name].append(timed(lambda command=command: run(command)))  # type: ignore[misc]
    base = median(seconds.pop("interpreter"))
    return {name: median(values) - base for name, values in seconds.items()}


def convert(source: Path, out: Path, target: str) -> int:
    """Convert the native head of the discriminator in a process of its own; return the most memory it used."""
    options = ["--part", "discriminator", "--head", "pretraining", "--to", target]
    process = subprocess.Popen(
        [*COMMAND, *options, str(source), str(out)], stdout=subprocess.DEVNULL, env=environment()
    )
    most = 0
    while process.poll() is None:
        most = max(most, anonymous_memory(process.pid))
        time.sleep(SAMPLE)
    if process.returncode:
        raise SystemExit(f"the conversion to {target} failed")
    return most


def anonymous_memory(pid: int) -> int:
    """Return the bytes of a process that are backed by no file."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def copy_and_sync(original: Path, copied: Path) -> None:
    """Do what any conversion does at least: write the bytes, and make sure they are on disk."""
    run(["cp", str(original), str(copied)])
    run(["sync", str(copied)])


def clear(*paths: Path) -> None:
    """Remove what the last measurement wrote, and let the disk come to rest."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
    os.sync()


def run(command: Sequence[str]) -> None:
    """Run a command, silently."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment())


def environment() -> dict[str, str]:
    """Return the environment of commands: compiled modules are kept, as in any installation."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def timed(action: Callable[[], object]) -> float:
    """Return the seconds an action takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def rows(conversions: dict[str, Measured]) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: what, seconds, ratio, memory."""
    yardstick = median(conversions[YARDSTICK].seconds)
    return [
        (
            name if name == YARDSTICK else f"convert to {name}",
            f"{median(measured.seconds):.2f} s",
            f"{median(measured.seconds) / yardstick:.2f}",
            f"{measured.memory / 1e6:.0f} MB" if measured.memory else "",
        )
        for name, measured in conversions.items()
    ]


def show(size: str, conversions: dict[str, Measured], starts: dict[str, float]) -> None:
    """Print the figures."""
    table = Table(title=f"{size} discriminator, native head; median of {len(conversions[YARDSTICK].seconds)} rounds")
    for heading in ("", "time", f"times {YARDSTICK}", "memory beyond mapped files"):
        table.add_column(heading)
    for row in rows(conversions):
        table.add_row(*row)
    console = Console()
    console.print(table)
    for name, seconds in starts.items():
        console.print(f"{name}: {seconds * 1000:.0f} ms beyond the interpreter's start")


def save(size: str, conversions: dict[str, Measured], starts: dict[str, float]) -> None:
    """Write the figures as JSON."""
    RESULTS.mkdir(exist_ok=True)
    content = {
        "size": size,
        "conversions": {name: {"seconds": m.seconds, "memory": m.memory} for name, m in conversions.items()},
        "seconds_beyond_start": starts,
    }
    (RESULTS / f"speed-{size}.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
