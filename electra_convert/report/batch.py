"""A batch on the terminal: what runs while it runs, and what became of it at the end."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock
from typing import NamedTuple

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from electra_convert.batch.report import BatchReport, JobReport, ModelResult, Outcome, Stage
from electra_convert.batch.watch import Watch
from electra_convert.hub.upload import RepoReport
from electra_convert.parity.verdict import listed
from electra_convert.report.terminal import WIDE
from electra_convert.report.words import duration, plural


class Mark(NamedTuple):
    """How an outcome is shown at a glance: its symbol, another where ASCII is all there is, and its style."""

    symbol: str
    plain: str
    style: str


MARKS: dict[Outcome, Mark] = {
    "done": Mark("✓", "+", "green"),
    "already done": Mark("=", "=", "dim"),
    "failed": Mark("✗", "X", "bold red"),
    "interrupted": Mark("!", "!", "yellow"),
    "planned": Mark("+", "+", "green"),
}
COUNTED: dict[Outcome, str] = {
    "planned": "to do",
    "done": "done",
    "already done": "already done",
    "failed": "failed",
    "interrupted": "interrupted",
}
"""What is said of the jobs of each outcome when they are counted, in the order in which it is said."""
LAST = 4
"""Finished jobs that stay in sight while others run."""
NAMED = 3
"""Jobs that are named where many have the same note."""
REFRESHES = 8
"""How often a second the live table is drawn."""


@contextmanager
def watching(total: int, console: Console) -> Iterator[Watch]:
    """Yield what shows how a batch gets on: a live table on a terminal, a line for each event elsewhere.

    Args:
        total: How many jobs there are.
        console: Where to show it.
    """
    if not console.is_interactive:
        yield _Lines(total, console)
        return
    table = _LiveTable(total, console)
    with Live(table, console=console, transient=True, redirect_stdout=False, refresh_per_second=REFRESHES):
        yield table


def show_batch(report: BatchReport, console: Console) -> None:
    """Print what a batch did, or would do.

    Args:
        report: What it did.
        console: Where to print; one that takes no text for markup.
    """
    if report.dry_run:
        for job in report.jobs:
            _show_planned(job, console)
    elif report.jobs:
        console.print(_summary(report.jobs, console))
        console.print()
    for job in report.failed:
        _show_failure(job, console)
    for note, jobs in by_note(report.jobs).items():
        named = [_clean(job.id, console) for job in jobs[:NAMED]]
        others = [plural(len(jobs) - NAMED, "other")] if len(jobs) > NAMED else []
        line = f"{_clean(note, console)} ({listed([*named, *others])})"
        console.print(Text.assemble(("note: ", "yellow"), line), soft_wrap=True)
    if report.count("interrupted"):
        console.print("It was interrupted: run it again, and it goes on from here.")
    console.print(_totals(report), soft_wrap=True)


def counts(report: BatchReport) -> dict[Outcome, int]:
    """Count the jobs of each outcome that there is, in the order in which it is said."""
    found = {outcome: report.count(outcome) for outcome in COUNTED}
    return {outcome: count for outcome, count in found.items() if count}


def by_note(jobs: Sequence[JobReport]) -> dict[str, list[JobReport]]:
    """Return each note with the jobs that have it."""
    found: defaultdict[str, list[JobReport]] = defaultdict(list)
    for job in jobs:
        for note in job.notes:
            found[note].append(job)
    return dict(found)


def proven(models: Sequence[ModelResult]) -> str:
    """Count models by the verdicts on them: `2 proven, 1 incomplete`."""
    found = Counter(model.status for model in models)
    return ", ".join(f"{count} {status}" for status, count in found.items())


def failed_at(job: JobReport) -> str:
    """Say at which stage a job failed."""
    return f"failed while {job.stage}" if job.stage else "failed"


class _Lines:
    """A watch that prints a line for each event that matters: what a log file can hold."""

    def __init__(self, total: int, console: Console) -> None:
        self._total, self._console = total, console
        self._lock = Lock()
        self._numbers: dict[str, int] = {}
        self._stages: dict[str, Stage] = {}

    def started(self, job: str) -> None:
        """Number a job; its first stage is told at once anyway."""
        with self._lock:
            self._number(job)

    def stage(self, job: str, stage: Stage, detail: str = "") -> None:
        """Print that a stage begins."""
        with self._lock:
            if self._stages.get(job) != stage:
                self._stages[job] = stage
                self._print(job, f"{stage} ({detail})" if detail else stage)

    def told(self, job: str, text: str) -> None:
        """Print what is waited for."""
        with self._lock:
            self._print(job, text)

    def finished(self, report: JobReport) -> None:
        """Print what became of a job."""
        with self._lock:
            self._print(report.id, _sentence(report))

    def _number(self, job: str) -> int:
        return self._numbers.setdefault(job, len(self._numbers) + 1)

    def _print(self, job: str, text: str) -> None:
        total = str(self._total)
        line = f"[{self._number(job):>{len(total)}}/{total}] {job}: {text}"
        self._console.print(Text(_clean(line, self._console)), soft_wrap=True)


def _sentence(job: JobReport) -> str:
    """Say in a line what became of a job."""
    if job.outcome == "failed":
        return f"FAILED{failed_at(job).removeprefix('failed')}: {_first_line(job.error)}"
    where = ", ".join(_where(job, wide=True))
    took = f" in {duration(job.seconds)}" if job.outcome == "done" else ""
    return f"{job.outcome}{took}" + (f": {where}" if where else "")


def _first_line(error: str) -> str:
    return next(iter(error.splitlines()), "")


def _where(job: JobReport, *, wide: bool) -> tuple[str, ...]:
    """Return where a job's results are: where it published, or else its output."""
    published = tuple(f"{repo.place} ({_did(repo)})" if wide else repo.place for repo in job.repos) or job.places
    there = job.outcome in {"done", "already done"}
    return published or ((job.output,) if there else ())


def _did(repo: RepoReport) -> str:
    return {
        "unchanged": "unchanged",
        "committed": f"committed {repo.oid[:8]}",
        "opened": "pull request opened",
        "reused": "pull request already open",
        "planned": "planned",
    }[repo.outcome]


@dataclass
class _Running:
    """A job that runs.

    Args:
        doing: What it is doing, in two words.
        waits: What it waits for.
        began: When it began, by the clock that only goes forward.
    """

    doing: str = "starting"
    waits: str = ""
    began: float = field(default_factory=time.monotonic)


class _LiveTable:
    """A watch that is drawn again and again, never higher than the terminal.

    The lock is never held while something is printed: what draws holds the terminal's lock and asks for this one.
    """

    def __init__(self, total: int, console: Console) -> None:
        self._total, self._console = total, console
        self._lock = Lock()
        self._began = time.monotonic()
        self._running: dict[str, _Running] = {}
        self._last: deque[JobReport] = deque(maxlen=LAST)
        self._counts: Counter[Outcome] = Counter()
        self._spinner = Spinner("dots" if _has_symbols(console) else "line", style="cyan")

    def started(self, job: str) -> None:
        """Show that a job runs."""
        with self._lock:
            self._running[job] = _Running()

    def stage(self, job: str, stage: Stage, detail: str = "") -> None:
        """Show what it is doing."""
        with self._lock:
            running = self._running.setdefault(job, _Running())
            running.doing, running.waits = f"{stage} {detail}".rstrip(), ""

    def told(self, job: str, text: str) -> None:
        """Show what it waits for."""
        with self._lock:
            self._running.setdefault(job, _Running()).waits = text

    def finished(self, report: JobReport) -> None:
        """Show what became of it; if it failed, above the table, where it stays."""
        with self._lock:
            self._running.pop(report.id, None)
            self._last.append(report)
            self._counts[report.outcome] += 1
        if report.outcome == "failed":
            name, error = (_clean(text, self._console) for text in (report.id, _first_line(report.error)))
            says = f" {failed_at(report)}: {error}"
            self._console.print(Text.assemble(_mark("failed", self._console), " ", (name, "bold red"), says))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            yield self._jobs(console, options.max_width)
            yield self._bar(options.max_width)

    def _jobs(self, console: Console, width: int) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, ratio=1)
        table.add_column(no_wrap=True, justify="right", min_width=9)
        room = max(console.height - 2, 1)  # the bar is one line, and the cursor may need another
        hidden = len(self._running) - room + 1 if len(self._running) > room else 0
        free = room - len(self._running) if not hidden else 0
        for job in islice(self._last, max(len(self._last) - free, 0), None):
            what = failed_at(job) if job.outcome == "failed" else ", ".join(_where(job, wide=False)) or job.outcome
            name = self._name(job.id, width, "dim")
            table.add_row(_mark(job.outcome, console), name, Text(_clean(what, console), "dim"), _time(job.seconds))
        for job_id, running in islice(self._running.items(), len(self._running) - hidden):
            what = _clean(running.waits or running.doing, console)
            took = _time(time.monotonic() - running.began)
            style = "yellow" if running.waits else ""
            table.add_row(self._spinner, self._name(job_id, width, "bold"), Text(what, style), took)
        if hidden:
            table.add_row("", f"and {hidden} more", "", "")
        return table

    def _name(self, job: str, width: int, style: str) -> Text:
        return Text(shortened(_clean(job, self._console), max(width * 2 // 5, 8)), style)

    def _bar(self, width: int) -> Table:
        done, failed = self._counts["done"] + self._counts["already done"], self._counts["failed"]
        says = f"{done} of {self._total} done" + (f", {failed} failed" if failed else "")
        bar = ProgressBar(
            total=max(self._total, 1),
            completed=self._counts.total(),
            width=max(width - 50, 10),
            complete_style="red" if failed else "green",
            finished_style="red" if failed else "green",
        )
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, ratio=1)
        table.add_column(no_wrap=True, justify="right", min_width=9)
        table.add_row(bar, Text(says, "bold red" if failed else "bold"), _time(time.monotonic() - self._began))
        return table


def _time(seconds: float) -> Text:
    return Text(duration(seconds), "dim")


def shortened(name: str, width: int) -> str:
    """Return a name in a width, cut in the middle: names of one batch begin alike, and their ends tell them apart."""
    if cell_len(name) <= width:
        return name
    front = chop_cells(name, (width - 3) // 3)[0]
    back = chop_cells(name[::-1], width - 3 - cell_len(front))[0][::-1]
    return f"{front}...{back}"


def _has_symbols(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def _mark(outcome: Outcome, console: Console) -> Text:
    mark = MARKS[outcome]
    return Text(mark.symbol if _has_symbols(console) else mark.plain, mark.style)


def _clean(text: str, console: Console) -> str:
    """Return text as one line that a terminal can show and that does nothing to it."""
    line = "".join(
        each if each.isprintable() else " " if each.isspace() else each.encode("unicode_escape").decode()
        for each in text
    )
    return line.encode(console.encoding, "backslashreplace").decode(console.encoding)


def _summary(jobs: Sequence[JobReport], console: Console) -> Table:
    wide = console.width >= WIDE
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("job", overflow="fold")
    table.add_column("outcome", no_wrap=True)
    table.add_column("models")
    table.add_column("where", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    for job in jobs:
        table.add_row(
            Text(_clean(job.id, console), "bold red" if job.outcome == "failed" else ""),
            Text.assemble(_mark(job.outcome, console), " ", job.outcome),
            Text(_clean(proven(job.models), console)),
            Text("\n".join(_clean(where, console) for where in _where(job, wide=wide))),
            Text(duration(job.seconds) if job.seconds else ""),
        )
    return table


def _show_planned(job: JobReport, console: Console) -> None:
    already = [(f"  {job.outcome}", MARKS[job.outcome].style)] if job.outcome != "planned" else []
    console.print(Text.assemble((_clean(job.id, console), "bold"), *already), soft_wrap=True)
    places = [_clean(each, console) for each in _where(job, wide=False) if each != job.output]
    for label, value in (("from", job.source), ("to", job.output), *(("as", each) for each in places)):
        console.print(Text.assemble((f"  {label:<6}", "dim"), _clean(value, console)), soft_wrap=True)
    console.print()


def _show_failure(job: JobReport, console: Console) -> None:
    name = _clean(job.id, console)
    heading = Text.assemble(_mark("failed", console), " ", (name, "bold red"), f" {failed_at(job)}:")
    console.print(heading, soft_wrap=True)
    for line in job.error.splitlines():
        console.print(Text(f"  {_clean(line, console)}"), soft_wrap=True)
    console.print()


def _totals(report: BatchReport) -> Text:
    """Return the last line: how many jobs there were, and what became of them."""
    shard = f" of shard {report.shard}" if report.shard else ""
    line = Text(f"{plural(len(report.jobs), 'job')}{shard}", "bold")
    for number, (outcome, count) in enumerate(counts(report).items()):
        line.append(", " if number else ": ").append(f"{count:,} {COUNTED[outcome]}", MARKS[outcome].style)
    return line if report.dry_run else line.append(f" in {duration(report.seconds)}")
