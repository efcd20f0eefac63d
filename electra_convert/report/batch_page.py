"""A batch as one page to look at: no script, nothing loaded from elsewhere, light and dark, and it prints."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from electra_convert.batch.report import BatchReport, JobReport, ModelResult, Outcome
from electra_convert.output import in_bytes
from electra_convert.report.batch import COUNTED, MARKS, by_note, counts, failed_at, proven
from electra_convert.report.html import bar_width, environment
from electra_convert.report.upload import says
from electra_convert.report.words import SYMBOLS, duration, plural

TEMPLATE = Path(__file__).with_name("batch.html.j2")
WEB = ("https://", "http://")
"""How addresses begin that become links."""
NO_VERDICT = "\N{EN DASH}"
"""The symbol of a model on which there is no verdict."""
UNSHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that no page can hold: they come from file names and from what servers answer."""


class Headline(NamedTuple):
    """The verdict as it is set; `tone` is the outcome that gives the colour."""

    tone: Outcome
    symbol: str
    word: str
    rest: str


class Fact(NamedTuple):
    """A figure at the top."""

    name: str
    value: str
    about: str


class Share(NamedTuple):
    """The jobs of one outcome, as a part of a bar."""

    outcome: Outcome
    name: str
    jobs: int


class Mark(NamedTuple):
    """A model at a glance."""

    status: str
    symbol: str
    says: str


class Place(NamedTuple):
    """Where something was published, or written; `url` is empty where it is no address of the web."""

    name: str
    url: str
    says: str


class Row(NamedTuple):
    """One job; `width` is that of its bar, full for the job that took longest."""

    job: JobReport
    symbol: str
    marks: tuple[Mark, ...]
    proven: str
    places: tuple[Place, ...]
    width: float


class Failure(NamedTuple):
    """A job that failed: what is wrong, and the rest of the message."""

    job: JobReport
    failed_at: str
    message: str
    rest: str
    places: tuple[Place, ...]


class Verdict(NamedTuple):
    """Models on which the verdict is the same."""

    mark: Mark
    models: tuple[str, ...]


def render_batch_page(report: BatchReport) -> str:
    """Return what a batch did as a self-contained page.

    Args:
        report: What it did.
    """
    longest = max((job.seconds for job in report.jobs), default=0.0)
    page = (
        environment()
        .get_template(TEMPLATE.name)
        .render(
            report=report,
            headline=_headline(report),
            facts=list(_facts(report)),
            shares=[Share(outcome, COUNTED[outcome], count) for outcome, count in counts(report).items()],
            failures=[_failure(job) for job in report.failed],
            rows=[_row(job, longest) for job in report.jobs],
            timed=bool(longest),
            verdicts=_verdicts(report.jobs),
            notes=by_note(report.jobs),
        )
    )
    return UNSHOWN.sub("\N{REPLACEMENT CHARACTER}", page)


def _headline(report: BatchReport) -> Headline:
    found = Counter({outcome: report.count(outcome) for outcome in COUNTED})
    jobs, done = plural(len(report.jobs), "job"), found["done"] + found["already done"]
    took = "" if report.dry_run else f" in {duration(report.seconds)}"
    are_done = f"{done:,} {'is' if done == 1 else 'are'} done"
    tone: Outcome
    if found["failed"]:
        tone, word, rest = "failed", f"{found['failed']:,} of {jobs} failed", f"; {are_done}{took}"
    elif found["interrupted"]:
        tone, word, rest = "interrupted", "interrupted", f": of {jobs}, {are_done}{took}"
    elif report.dry_run:
        tone, word, rest = "planned", "a dry run", f": {jobs}, {found['planned']:,} to do, {done:,} done already"
    elif report.jobs:
        tone, word, rest = "done", "all done", f": {jobs}{took}"
    else:
        tone, word, rest = "done", "nothing to do", ": there are no jobs"
    return Headline(tone, MARKS[tone].symbol, word, rest)


def _facts(report: BatchReport) -> Iterator[Fact]:
    """Yield what is worth a figure: the jobs, the models, the repositories, the time."""
    models = [model for job in report.jobs for model in job.models]
    repos = [repo for job in report.jobs for repo in job.repos]
    places = [place for job in report.jobs for place in job.places]
    yield _jobs_fact(report)
    if models:
        good = sum(model.status == "proven" for model in models)
        yield Fact("Models proven", f"{good:,} of {len(models):,}", proven(models) if good < len(models) else "")
    if repos or places:
        did = Counter(repo.outcome for repo in repos)
        sent = [f"{in_bytes(sum(repo.sent for repo in repos))} sent"] if repos and not report.dry_run else []
        what = ", ".join([*(f"{count:,} {outcome}" for outcome, count in did.items()), *sent])
        yield Fact("Places on the Hub", f"{len(repos) + len(places):,}", what)
    if report.seconds and not report.dry_run:
        longest = max(report.jobs, key=lambda job: job.seconds, default=None)
        about = f"the longest job took {duration(longest.seconds)}" if longest else ""
        yield Fact("Time", duration(report.seconds), about)


def _jobs_fact(report: BatchReport) -> Fact:
    total, earlier = len(report.jobs), report.count("already done")
    if report.dry_run:
        return Fact("Jobs to do", f"{report.count('planned'):,} of {total:,}", "")
    about = f"{earlier:,} of them earlier" if earlier else ""
    return Fact("Jobs done", f"{report.count('done') + earlier:,} of {total:,}", about)


def _failure(job: JobReport) -> Failure:
    message, _, rest = job.error.partition("\n")
    return Failure(job, failed_at(job), message, rest, tuple(_places(job)))


def _row(job: JobReport, longest: float) -> Row:
    return Row(
        job=job,
        symbol=MARKS[job.outcome].symbol,
        marks=tuple(map(_mark, job.models)),
        proven=proven(job.models),
        places=tuple(_places(job)),
        width=bar_width(job.seconds / longest) if longest else 0.0,
    )


def _mark(model: ModelResult) -> Mark:
    symbol = next((symbol for status, symbol in SYMBOLS.items() if status == model.status), NO_VERDICT)
    return Mark(model.status, symbol, model.verdict or model.status)


def _places(job: JobReport) -> Iterator[Place]:
    for repo in job.repos:
        yield Place(repo.place, _link(repo.url), says(repo, dry_run=repo.outcome == "planned"))
    for name in job.places:
        yield Place(name, "", "")
    if job.copied:
        yield Place(job.output, _link(job.output), f"{plural(len(job.copied), 'file')} copied")


def _link(address: str) -> str:
    return address if address.startswith(WEB) else ""


def _verdicts(jobs: Sequence[JobReport]) -> list[Verdict]:
    found: defaultdict[Mark, list[str]] = defaultdict(list)
    for job in jobs:
        for model in job.models:
            note = f" ({model.note})" if model.note else ""
            found[_mark(model)].append(f"{job.id}: {model.part} {model.head}{note}")
    return [Verdict(mark, tuple(models)) for mark, models in found.items()]
