"""A batch on the terminal: lines for a log, a table that fits, and a summary that leaves nothing out."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace
from rich.cells import cell_len
from rich.console import Console

from electra_convert.batch.report import BatchReport, JobReport
from electra_convert.batch.watch import Watch
from electra_convert.report.batch import shortened, show_batch, watching
from tests.report.batches import batch_of_24, dry_run, failed_jobs, make_batch, make_job, make_repo

BRACKETS = "[bold]ko[/bold] :smile: [1]"
WAIT = "the Hub answered 503: trying again in 4 s to commit to org/ko-small-generator"


def log_console() -> tuple[Console, io.StringIO]:
    """Return a console that is no terminal, and what is written to it."""
    file = io.StringIO()
    return Console(file=file, force_terminal=False), file


def terminal(width: int = 80, height: int = 24) -> tuple[Console, io.StringIO]:
    """Return a console that is a terminal, and what is written to it."""
    file = io.StringIO()
    return Console(
        file=file, force_terminal=True, force_interactive=True, color_system=None, width=width, height=height
    ), file


def shown(report: BatchReport, *, width: int = 160) -> str:
    """Return what is printed of a batch."""
    console, file = terminal(width)
    show_batch(report, console)
    return file.getvalue()


@contextmanager
def live(total: int, **size: int) -> Iterator[tuple[Watch, Console, io.StringIO]]:
    """Show a batch on a terminal."""
    console, file = terminal(**size)
    with watching(total, console) as watch:
        yield watch, console, file


def frame(watch: Any, console: Console) -> list[str]:
    """Return the lines of the live table as it is now."""
    lines = console.render_lines(watch, console.options)
    return ["".join(segment.text for segment in line) for line in lines]


def fail(job: JobReport, error: str) -> JobReport:
    return replace(job, outcome="failed", stage="converting", error=error, repos=())


def carry_out(job: JobReport, watch: Watch) -> None:
    """Tell what a job tells."""
    watch.started(job.id)
    watch.stage(job.id, "converting")
    watch.finished(job)


class TestLines:
    def test_each_event_that_matters_is_a_line(self) -> None:
        """A log has a line for each stage, wait and end, with the number of the job, and nothing else."""
        console, file = log_console()
        with watching(24, console) as watch:
            watch.started("ko-small/5")
            watch.started("ko-small/300")
            watch.stage("ko-small/5", "converting")
            watch.stage("ko-small/300", "converting")
            watch.finished(failed_jobs()[0])
            watch.stage("ko-small/5", "verifying", "PyTorch")
            watch.stage("ko-small/5", "verifying", "Flax")
            watch.stage("ko-small/5", "uploading")
            watch.told("ko-small/5", WAIT)
            watch.finished(make_job(5, repos=(make_repo("discriminator", 5, revision="main"),), seconds=12.2))
            watch.finished(make_job(6, outcome="already done", repos=(), places=("org/x at step-6 (0123abcd)",)))
            watch.finished(make_job(7, repos=(), seconds=65.0))
            watch.finished(make_job(8, outcome="interrupted", repos=()))
        assert file.getvalue().splitlines() == [
            "[ 1/24] ko-small/5: converting",
            "[ 2/24] ko-small/300: converting",
            "[ 2/24] ko-small/300: FAILED while converting: model.ckpt-300.data-00000-of-00001 is damaged",
            "[ 1/24] ko-small/5: verifying (PyTorch)",
            "[ 1/24] ko-small/5: uploading",
            f"[ 1/24] ko-small/5: {WAIT}",
            "[ 1/24] ko-small/5: done in 12 s: org/ko-small-discriminator (committed 00000005)",
            "[ 3/24] ko-small/6: already done: org/x at step-6 (0123abcd)",
            "[ 4/24] ko-small/7: done in 1 min 5 s: out/ko-small/7",
            "[ 5/24] ko-small/8: interrupted",
        ]

    def test_what_became_of_a_repository_is_said(self) -> None:
        """A line tells a commit from a pull request, and from what was there already."""
        console, file = log_console()
        outcomes = ("unchanged", "opened", "reused")
        repos = tuple(make_repo("generator", 1, outcome=outcome, revision="main") for outcome in outcomes)
        with watching(1, console) as watch:
            watch.finished(make_job(1, repos=repos))
        said = re.findall(r"\((.*?)\)", file.getvalue())
        assert said == ["unchanged", "pull request opened", "pull request already open"]

    def test_no_control_character_is_written(self) -> None:
        """Names and messages are a line of text, whatever is in them."""
        console, file = log_console()
        with watching(1, console) as watch:
            watch.told(f"{BRACKETS}\x1b[31m\udcff", "one\ntwo\tthree\r\x07")
        assert file.getvalue() == f"[1/1] {BRACKETS}\\x1b[31m\\udcff: one two three \\x07\n"

    def test_lines_of_many_threads_are_whole(self) -> None:
        """Jobs that run side by side do not mix their lines, and no two have the same number."""
        console, file = log_console()
        jobs = [make_job(step) for step in range(200)]
        with watching(len(jobs), console) as watch, ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda job: carry_out(job, watch), jobs))
        lines = file.getvalue().splitlines()
        found = [re.fullmatch(r"\[ *(\d+)/200\] (ko-small/\d+): .*", line) for line in lines]
        numbers = {each[2]: int(each[1]) for each in found if each}
        assert len(lines) == 400
        assert all(found)
        assert sorted(numbers.values()) == list(range(1, 201))

    def test_a_dumb_terminal_gets_lines(self) -> None:
        """Where a table cannot be drawn again, lines are printed."""
        file = io.StringIO()
        with watching(1, Console(file=file, force_terminal=True, force_interactive=False, color_system=None)) as watch:
            watch.stage("job", "copying")
        assert file.getvalue() == "[1/1] job: copying\n"


class TestLive:
    def test_it_is_never_higher_or_wider_than_the_terminal(self) -> None:
        """With a thousand jobs, however many run or have finished, the table fits and ends with the bar."""
        for size in ({"width": 80, "height": 24}, {"width": 40, "height": 6}, {"width": 30, "height": 2}):
            with live(1000, **size) as (watch, console, _):
                for number in range(1000):
                    watch.started(f"{'ko-small-' * 9}{number}")
                    watch.stage(f"{'ko-small-' * 9}{number}", "uploading", "org/name " * 20)
                    if not number % 100:
                        lines = frame(watch, console)
                        assert len(lines) < max(size["height"], 3)
                        assert max(map(cell_len, lines)) <= size["width"]
                for step in range(990):
                    watch.finished(make_job(step, id=f"{'ko-small-' * 9}{step}"))
                lines = frame(watch, console)
                assert len(lines) < max(size["height"], 3)
                assert max(map(cell_len, lines)) <= size["width"]
        assert "990" in lines[-1]

    def test_a_running_job_has_its_stage_its_time_and_what_it_waits_for(self) -> None:
        """What runs is seen; a wait is seen until the next stage; what has finished is seen no more among it."""
        with live(3) as (watch, console, _):
            watch.started("ko-small/1")
            watch.stage("ko-small/1", "verifying", "PyTorch float64")
            first = frame(watch, console)[0]
            watch.told("ko-small/1", "the Hub answered 503")
            waiting = frame(watch, console)[0]
            watch.stage("ko-small/1", "uploading")
            last = frame(watch, console)[0]
            watch.finished(make_job(1, repos=(make_repo("generator", 1),)))
            finished = frame(watch, console)
        assert re.fullmatch(r"\S +ko-small/1 +verifying PyTorch float64 +0\.\d s *", first)
        assert "the Hub answered 503" in waiting
        assert "503" not in last
        assert "uploading" in last
        assert re.fullmatch(r"✓ +ko-small/1 +org/ko-small-generator at step-1 +13 s *", finished[0])
        assert len(finished) == 2

    def test_what_is_hidden_is_counted(self) -> None:
        """Jobs for which there is no room are told by their number, and all are told where there is room."""
        with live(100, height=10) as (watch, console, _):
            for number in range(8):
                watch.started(f"job {number}")
            assert len(frame(watch, console)) == 9
            assert not [line for line in frame(watch, console) if "more" in line]
            for number in range(8, 30):
                watch.started(f"job {number}")
            lines = frame(watch, console)
        assert sum("starting" in line for line in lines) == 7
        assert "and 23 more" in lines[7]

    def test_the_bar_counts_what_is_done_and_what_failed(self) -> None:
        """The last line says how many jobs are done, earlier ones included, and how many failed."""
        with live(24) as (watch, console, _):
            assert "0 of 24 done" in frame(watch, console)[-1]
            assert "failed" not in frame(watch, console)[-1]
            for job in (make_job(1), make_job(2, outcome="already done"), *failed_jobs()):
                watch.finished(job)
            assert "2 of 24 done, 3 failed" in frame(watch, console)[-1]

    def test_a_failure_stays_above_the_table(self) -> None:
        """What failed is printed once, in words, as soon as it has; names are no markup."""
        with live(2) as (watch, _, file):
            watch.started(BRACKETS)
            watch.finished(replace(failed_jobs()[1], id=BRACKETS))
            written = file.getvalue()
        said = " ".join(written.split())
        assert f"{BRACKETS} failed while converting: out/ko-small/700 needs 108 MB, and the disk has 12 MB" in said

    def test_threads_and_drawing_do_not_wait_for_one_another(self) -> None:
        """Jobs that end in many threads while the table is drawn all get to their ends."""
        with live(400) as (watch, console, _), ThreadPoolExecutor(8) as threads:
            jobs = [fail(make_job(step), "no") if step % 2 else make_job(step) for step in range(400)]
            list(threads.map(lambda job: carry_out(job, watch), jobs, timeout=60))
            assert "200 of 400 done, 200 failed" in frame(watch, console)[-1]

    def test_nothing_of_it_is_left(self) -> None:
        """The table is gone at the end, for the summary follows; the cursor is back."""
        with live(1) as (watch, _, file):
            watch.started("job")
        after_the_bar = file.getvalue().rpartition("0 of 1 done")[2]
        assert after_the_bar.count("\x1b[2K") == 2  # a line for the job, and one for the bar, is erased
        assert "\x1b[?25h" in after_the_bar


class TestSummary:
    def test_every_job_has_a_row(self) -> None:
        """The table says of each job what became of it, what was proven, where it is, and how long it took."""
        lines = shown(batch_of_24()).splitlines()
        assert re.fullmatch(r"job +outcome +models +where +time *", lines[0])
        rows = [line for line in lines if re.match(r"ko-small/\d+ ", line)]
        assert len(rows) == 24
        assert re.fullmatch(
            r"ko-small/500 +✓ done +2 proven +org/ko-small-discriminator at step-500 \(committed 000001f4\) +15 s *",
            rows[4],
        )
        assert re.fullmatch(
            r"ko-small/100 += already done +org/ko-small-discriminator at step-100 \(1a2b3c4d\) *", rows[0]
        )
        assert re.fullmatch(r"ko-small/300 +✗ failed +1.4 s *", rows[2])

    def test_what_is_not_proven_is_told_apart(self) -> None:
        """Models are counted by their verdicts."""
        models = make_job(1).models
        mixed = (*models, replace(models[0], status="incomplete"), replace(models[0], status="not verified"))
        assert "2 proven, 1 incomplete, 1 not verified" in " ".join(
            shown(make_batch(make_job(1, models=mixed))).split()
        )

    def test_each_failure_is_told_whole(self) -> None:
        """Below the table is every failed job with all lines of its message, also where they are long."""
        long = fail(make_job(9), f"{'a/long/path' * 20}\n  - the second line\nWhat to do: this")
        said = shown(make_batch(make_job(1), long, *failed_jobs()), width=80)
        for job in (long, *failed_jobs()):
            assert f"✗ {job.id} failed while {job.stage}:\n" in said
            assert "".join(f"  {line}\n" for line in job.error.splitlines()) in said

    def test_the_last_line_counts(self) -> None:
        """The totals are the last line; what was done before is counted apart."""
        assert shown(make_batch(*map(make_job, range(21)), *failed_jobs())).splitlines()[-1] == (
            "24 jobs: 21 done, 3 failed in 2 min 5 s"
        )
        assert shown(batch_of_24(shard="2/4")).splitlines()[-1] == (
            "24 jobs of shard 2/4: 18 done, 3 already done, 3 failed in 2 min 5 s"
        )
        stopped = make_job(2, outcome="interrupted", models=(), repos=())
        assert shown(make_batch(make_job(1), stopped)).splitlines()[-1].startswith("2 jobs: 1 done, 1 interrupted in ")
        assert shown(make_batch()) == "0 jobs in 2 min 5 s\n"

    def test_what_failed_is_red(self) -> None:
        """On a terminal with colours, the number of the failed is red and that of the others is not."""
        file = io.StringIO()
        console = Console(file=file, force_terminal=True, color_system="standard", width=160, _environ={})
        show_batch(batch_of_24(), console)
        last = file.getvalue().splitlines()[-1]
        assert re.search(r"\x1b\[[\d;]*31m3 failed", last)
        assert re.search(r"\x1b\[[\d;]*32m18 done", last)

    def test_a_note_of_many_jobs_is_told_once(self) -> None:
        """A note names the jobs that have it, at most three of them."""
        jobs = [make_job(step, notes=("the head count is assumed",)) for step in range(5)]
        notes = [line for line in shown(make_batch(*jobs, make_job(9))).splitlines() if line.startswith("note: ")]
        assert notes == ["note: the head count is assumed (ko-small/0, ko-small/1, ko-small/2 and 2 others)"]

    def test_names_are_no_markup(self) -> None:
        """Brackets, colons and control characters in names and messages are text."""
        name = f"{BRACKETS}\x1b[31m"
        job = replace(fail(make_job(1), name), id=name, notes=(name,))
        done = make_job(2, id=BRACKETS, output=BRACKETS, repos=())
        said = shown(make_batch(job, done))
        assert said.count(BRACKETS) == 7
        assert "\x1b" not in said

    def test_a_terminal_without_unicode_can_show_it(self) -> None:
        """Where only ASCII can be shown, symbols have another shape and names are spelt out."""
        raw = io.BytesIO()
        file = io.TextIOWrapper(raw, encoding="ascii")
        console = Console(file=file, force_terminal=True, force_interactive=True, color_system=None, width=120)
        korean = make_job(1, id="한국어")
        with watching(2, console) as watch:
            watch.started("한국어")
            watch.stage("한국어", "converting")
            watch.finished(korean)
            frame(watch, console)
        show_batch(make_batch(korean, *failed_jobs()), console)
        file.flush()
        assert rb"\ud55c\uad6d\uc5b4  + done" in raw.getvalue()
        assert b"X ko-small/300 failed" in raw.getvalue()


class TestDryRun:
    def test_it_says_what_would_be_done(self) -> None:
        """Each job is listed with its source, its output and all places; what is done already is marked."""
        assert shown(dry_run(), width=80) == (
            "ko-small/100\n"
            "  from  runs/ko-small/model.ckpt-100\n"
            "  to    out/ko-small/100\n"
            "  as    org/ko-small-discriminator at step-100\n"
            "  as    org/ko-small-generator at step-100\n"
            "\n"
            "ko-small/200  already done\n"
            "  from  runs/ko-small/model.ckpt-200\n"
            "  to    out/ko-small/200\n"
            "  as    org/x (1a2b3c4d)\n"
            "\n"
            "2 jobs: 1 to do, 1 already done\n"
        )

    def test_what_cannot_be_done_is_told(self) -> None:
        """A job that would fail is marked in the list, and its message is there."""
        said = shown(make_batch(failed_jobs()[0], dry_run=True))
        assert said.startswith("ko-small/300  failed\n")
        assert failed_jobs()[0].error.splitlines()[1] in said
        assert said.splitlines()[-1] == "1 job: 1 failed"


def test_a_long_name_is_cut_in_the_middle() -> None:
    """The end of a name, which tells jobs of one batch apart, stays in sight; wide letters count twice."""
    assert shortened("ko-small/1000000", 16) == "ko-small/1000000"
    assert shortened("a-very-long-name-of-a-run/1000000", 20) == "a-ver...-run/1000000"
    assert cell_len(shortened("한국어" * 20, 20)) <= 20
