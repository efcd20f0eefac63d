"""Fuzz the readers, two at a time, and tell what was reached: `python -m tests.fuzz.campaign [TARGET...]`.

Each target begins with its seeds, and stops at its first finding. The input that is one is written beside the seeds: it
fails the tests from then on, until the reader is mended, and stays as a test after that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click

from tests.fuzz.targets import SEEDS, TARGETS, Target

ROOT = Path(__file__).parents[2]
IN_MEMORY = Path("/dev/shm")  # noqa: S108  # each run makes a folder of its own in it
AT_A_TIME = 2
HANG = 5
"""Seconds after which an input is a finding; the slowest takes some milliseconds."""

FUZZ_ONE = ("-m", "tests.fuzz.fuzz_one")
LINES = ("-m", "tests.fuzz.lines")
PROGRESS = re.compile(r"cov: (?P<edges>\d+) ft: (?P<features>\d+) corp: (?P<inputs>\d+)/")
SAVED = re.compile(r"Test unit written to (.+)$", re.MULTILINE)
STATISTIC = re.compile(r"^stat::(\w+):\s+(\d+)", re.MULTILINE)
FAULT = re.compile(r"^ === Uncaught Python exception: ===\n(.*)|^==\d+== ERROR: (.*)", re.MULTILINE)
HEADINGS = ("reader", "executions", "per second", "seconds", "edges", "features", "lines", "inputs kept", "memory", "")


@dataclass(frozen=True)
class Outcome:
    """What became of one target.

    Args:
        name: The target.
        executions: How many inputs were read.
        seconds: How long that took.
        edges: Places of the instrumented code that were reached, as libFuzzer counts them.
        features: The same with how often each was, roughly.
        inputs: Inputs that were kept, for each reached something new.
        memory: The most it took at once, in megabytes.
        lines: Lines that were reached, and lines there are, of the functions that were entered.
        fault: What was found; empty if nothing was.
        finding: The input that shows it.
    """

    name: str
    executions: int
    seconds: float
    edges: int
    features: int
    inputs: int
    memory: int
    lines: tuple[int, int]
    fault: str
    finding: Path | None


def main() -> None:
    """Fuzz, print and record what was reached; end with 1 if there is a finding."""
    options = parse_arguments()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        targets = [TARGETS[name] for name in options.targets or TARGETS]
        outcomes = []
        for outcome in pool.map(lambda target: run(target, runs=options.runs, seed=options.seed), targets):
            outcomes.append(outcome)
            click.echo(f"{outcome.name}: {outcome.executions:,} in {outcome.seconds:.0f} s")
    click.echo("\n".join(["", *markdown(outcomes), *explained(outcomes)]))
    if options.record:
        record(options.record, outcomes)
    sys.exit(any(outcome.fault for outcome in outcomes))


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.campaign", description="Fuzz the readers.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"readers (default: all): {', '.join(TARGETS)}")
    parser.add_argument("--runs", type=int, default=1_000_000, help="executions of each (default: 1,000,000)")
    parser.add_argument(
        "--seed", type=int, default=0, help="makes a run the same each time (default: another each time)"
    )
    parser.add_argument("--record", type=Path, help="a file for the table")
    options = parser.parse_args()
    unknown = sorted({*options.targets} - {*TARGETS})
    if unknown:
        parser.error(f"no such reader: {', '.join(unknown)}")
    return options


def run(
    target: Target,
    *,
    runs: int,
    seed: int = 0,
    program: Sequence[str] = FUZZ_ONE,
    findings: Path | None = None,
    hang: int = HANG,
) -> Outcome:
    """Fuzz a target in a process of its own.

    Args:
        target: The target.
        runs: How many executions a target with a whole share gets.
        seed: Makes the run the same each time; 0 for another each time.
        program: What is given to Python to fuzz it.
        findings: Where an input that is a finding is written; by default beside the seeds.
        hang: Seconds after which an input is a finding.
    """
    findings = findings or SEEDS / target.name
    memory = IN_MEMORY if IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="electra-convert-fuzz-", dir=memory) as name:
        corpus = Path(name, "corpus")
        corpus.mkdir()
        options = {
            "runs": max(round(runs * target.share), 2 * len(target.inputs)),
            "seed": seed,
            "max_len": target.longest,
            "timeout": hang,
            "report_slow_units": hang,
            "print_final_stats": 1,
            "artifact_prefix": f"{findings}/",
        }
        flags = [f"-{option}={value}" for option, value in options.items()]
        begin = time.monotonic()
        fuzzed = start([*program, target.name, *flags, str(corpus), str(SEEDS / target.name)], temporary=name)
        seconds = time.monotonic() - begin
        lines = start([*LINES, target.name, str(corpus)], temporary=name) if not fuzzed.returncode else None
    told = {key: int(value) for key, value in STATISTIC.findall(fuzzed.stderr)}
    reached = [*PROGRESS.finditer(fuzzed.stderr)]
    counts = {key: int(value) for key, value in reached[-1].groupdict().items()} if reached else {}
    return Outcome(
        name=target.name,
        executions=told.get("number_of_executed_units", 0),
        seconds=seconds,
        edges=counts.get("edges", 0),
        features=counts.get("features", 0),
        inputs=counts.get("inputs", 0),
        memory=told.get("peak_rss_mb", 0),
        lines=tuple(json.loads(lines.stdout)["lines"]) if lines and not lines.returncode else (0, 0),
        fault=fault(fuzzed) or ("" if counts.get("edges") else "nothing of it is instrumented"),
        finding=finding(fuzzed),
    )


def start(arguments: Sequence[str], *, temporary: str) -> subprocess.CompletedProcess[str]:
    """Run Python, with a folder for what it writes."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": temporary},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def fault(fuzzed: subprocess.CompletedProcess[str]) -> str:
    """Say what was found, in the words of libFuzzer or of Python, and the last place of the traceback."""
    if not fuzzed.returncode:
        return ""
    words = fuzzed.stdout + fuzzed.stderr
    found = FAULT.search(words)
    first = next(filter(None, found.groups()), "") if found else words.strip().rpartition("\n")[2]
    places = re.findall(r'File ".*/(electra_convert/.*|tests/.*)", line (\d+)', words)
    return first + (f" ({places[-1][0]}, line {places[-1][1]})" if places else "")


def finding(fuzzed: subprocess.CompletedProcess[str]) -> Path | None:
    """Return the input that was found; the one that was there before, if it was one of those to begin with."""
    saved = SAVED.search(fuzzed.stderr)
    if not saved:
        return None
    path = Path(saved[1])
    for other in path.parent.iterdir():
        if other != path and other.read_bytes() == path.read_bytes():
            path.unlink()
            return other
    return path


def markdown(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Yield the lines of a table of what was reached."""
    yield row(HEADINGS)
    yield row(["---", *["---:"] * (len(HEADINGS) - 2), "---"])
    for outcome in outcomes:
        reached, lines = outcome.lines
        yield row(
            [
                outcome.name,
                f"{outcome.executions:,}",
                f"{outcome.executions / outcome.seconds:,.0f}",
                f"{outcome.seconds:,.0f}",
                f"{outcome.edges:,}",
                f"{outcome.features:,}",
                f"{reached} of {lines}",
                f"{outcome.inputs:,}",
                f"{outcome.memory} MB",
                f"✗ {outcome.fault}" if outcome.fault else "✓",
            ]
        )
    yield ""
    yield (
        f"Python {platform.python_version()}, atheris {version('atheris')}. Edges and features are libFuzzer's; "
        "lines are those of the functions that were entered."
    )


def record(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write the table to a file; the rows of readers that were not fuzzed now stay."""
    lines = [*markdown(outcomes)]
    before = path.read_text().splitlines() if path.exists() else []
    rows = {line.split()[1]: line for line in [*before, *lines] if line.startswith("| ")}
    path.write_text("\n".join([*lines[:2], *(rows[name] for name in TARGETS if name in rows), *lines[-2:], ""]))


def row(cells: Iterable[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def explained(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Yield how to see each finding again."""
    for outcome in outcomes:
        if outcome.finding:
            yield f"\n{outcome.name}: {outcome.fault}"
            yield f"  the input: {outcome.finding.relative_to(ROOT)}"
            yield f"  run it again: python -m pytest tests/fuzz -k {outcome.finding.name}"


if __name__ == "__main__":
    main()
