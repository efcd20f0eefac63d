"""What was measured, as tables, JSON and a chart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.processes import Measured
from electra_convert.output import in_bytes

FOLDER = Path(__file__).parent / "results"
COPY, YARDSTICK, PEER = "cp", "cp + sync", "transformers 4.57"
HEADINGS = ("", "runs", "median", "times", "fastest", "times", "memory", "on disk")
LEGEND = f"times: those of {YARDSTICK}; memory: most that is backed by no file; on disk: times the file that is copied"


@dataclass(frozen=True)
class Case:
    """What was measured with one checkpoint.

    Args:
        size: The model's size.
        slots: The checkpoint has Adam's moments.
        nbytes: Bytes of the weights of the discriminator's native head.
        every: Of how many rounds each command was measured in the first, by its name.
        measured: What each command took, by its name.
        on_disk: Bytes that each wrote.
    """

    size: str
    slots: bool
    nbytes: int
    every: Mapping[str, int]
    measured: Mapping[str, Measured]
    on_disk: Mapping[str, int]

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"{self.size} discriminator, {in_bytes(self.nbytes)}{self.moments}"

    @property
    def moments(self) -> str:
        """That it has Adam's moments, if it has."""
        return ", with Adam's moments in the checkpoint" if self.slots else ""

    def ratio(self, name: str) -> float:
        """Return how many times the yardstick's median a command took, in the rounds in which it was measured."""
        return self.measured[name].median / self._yardstick(name).median

    def _yardstick(self, name: str) -> Measured:
        """Return the yardstick's runs in the rounds in which a command was measured."""
        return Measured(self.measured[YARDSTICK].seconds[:: self.every[name]])

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the rows of the table, a cell for each of `HEADINGS`."""
        for name, runs in self.measured.items():
            yield (
                name,
                str(len(runs.seconds)),
                f"{runs.median:.2f} s",
                f"{self.ratio(name):.2f}",
                f"{runs.fastest:.2f} s",
                f"{runs.fastest / self._yardstick(name).fastest:.2f}",
                in_bytes(runs.memory),
                f"{self.on_disk[name] / self.nbytes:.2f}",
            )


@dataclass(frozen=True)
class Results:
    """All that was measured in one run.

    Args:
        processors: Processors of the machine.
        cases: The checkpoints.
        starts: Seconds beyond the interpreter's start, by command and the checkpoint it reads.
    """

    processors: int
    cases: Sequence[Case]
    starts: Mapping[str, float]

    def start_lines(self) -> Iterator[str]:
        """Yield a sentence for each command that should be instant."""
        for name, seconds in self.starts.items():
            yield f"{name}: {seconds * 1000:.0f} ms beyond the interpreter's start"


def show(case: Case, console: Console) -> None:
    """Print a table."""
    table = Table(*HEADINGS, title=case.title, caption=LEGEND)
    for row in case.rows():
        table.add_row(*row)
    console.print(table)


def save(results: Results, console: Console) -> None:
    """Write the figures, for programs and for people."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "speed.json").write_text(json.dumps(as_json(results), indent=2) + "\n")
    (FOLDER / "speed.md").write_text(as_markdown(results))
    draw(results, FOLDER / "speed.svg")
    for line in results.start_lines():
        console.print(line)
    console.print(f"written to {FOLDER}/: speed.json, speed.md, speed.svg")


def as_markdown(results: Results) -> str:
    """Return the figures as Markdown."""
    rule = ("---", *("---:" for _ in HEADINGS[1:]))
    parts = []
    for case in results.cases:
        cells = [HEADINGS, rule, *case.rows()]
        parts.append(f"## {case.title}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in cells))
    parts.append("## Start\n\n" + "".join(f"- {line}\n" for line in results.start_lines()))
    return f"# Speed, on {results.processors} processors\n\n{LEGEND}.\n\n" + "\n".join(parts)


def as_json(results: Results) -> dict[str, Any]:
    """Return every measurement as JSON types."""
    return {
        "processors": results.processors,
        "cases": [
            {
                "size": case.size,
                "slots": case.slots,
                "bytes": case.nbytes,
                "runs": {
                    name: {"seconds": runs.seconds, "memory": runs.memory, "on_disk": case.on_disk[name]}
                    for name, runs in case.measured.items()
                },
            }
            for case in results.cases
        ],
        "seconds_beyond_start": dict(results.starts),
    }


def draw(results: Results, path: Path) -> None:
    """Draw the medians of each checkpoint as bars, in seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.4 * len(results.cases)), layout="constrained")
    for axes, case in zip(figure.subplots(len(results.cases), squeeze=False)[:, 0], results.cases, strict=True):
        names = list(case.measured)
        medians = [case.measured[name].median for name in names]
        colours = ["0.7" if name in (COPY, YARDSTICK, PEER) else "tab:blue" for name in names]
        bars = axes.barh(names, medians, color=colours)
        axes.bar_label(bars, [f"{case.ratio(name):.2f}" for name in names], padding=3)
        axes.axvline(case.measured[YARDSTICK].median, color="0.4", linewidth=0.8)
        axes.invert_yaxis()
        axes.set_title(case.title, loc="left", fontsize=10)
        axes.set_xlabel(f"seconds, median; the numbers are times {YARDSTICK}")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
