"""The page of a batch: well formed and whole, failures first and in full, and nothing runs in it."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from electra_convert.batch.report import BatchReport
from electra_convert.report.batch_page import render_batch_page
from tests.report.batches import (
    SECRET_FOLDER,
    VERDICT,
    batch_of_24,
    dry_run,
    failed_jobs,
    make_batch,
    make_job,
    make_repo,
)
from tests.report.page import Page

EVIL = "<script>alert('&\"')</script>"
NO_MODELS = {"models": (), "repos": (), "seconds": 0.0}
BATCHES = {
    "failed": batch_of_24(),
    "done": make_batch(make_job(1), make_job(2)),
    "interrupted": make_batch(make_job(1), make_job(2, outcome="interrupted", **NO_MODELS), shard="2/4"),
    "dry run": dry_run(),
    "empty": make_batch(),
}


@pytest.fixture(params=list(BATCHES))
def any_batch(request: pytest.FixtureRequest) -> BatchReport:
    """A batch of each kind in turn."""
    return BATCHES[request.param]


def page_of(report: BatchReport) -> Page:
    return Page(render_batch_page(report))


def links(page: Page) -> list[str | None]:
    """Return the addresses that a page leads to, beside its own places."""
    found = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    return [address for address in found if not str(address).startswith("#")]


def signs(page: Page) -> list[str | None]:
    """Return what the symbols of a page say."""
    return [attributes["aria-label"] for _, attributes in page.tags if str(attributes.get("class")).startswith("sign ")]


def test_it_is_well_formed(any_batch: BatchReport) -> None:
    """Every tag is closed where it should be, no id is there twice, and every link in the page leads to one."""
    page = page_of(any_batch)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    places = {attributes["href"] for tag, attributes in page.tags if tag == "a"} - set(links(page))
    assert len(ids) == len(set(ids))
    assert {f"#{name}" for name in ids} == places
    assert not {"None", "nan", "inf"} & set(page.text.split())


def test_it_is_self_contained(any_batch: BatchReport) -> None:
    """Nothing is loaded from elsewhere, and nothing runs."""
    html = render_batch_page(any_batch)
    assert html.startswith("<!doctype html>")
    assert not re.search(r"url\(|@import|javascript:|\bsrc=|\son\w+=", html)
    assert not {"script", "link", "iframe", "img", "object"} & {tag for tag, _ in Page(html).tags}


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("failed", "✗ 3 of 24 jobs failed; 21 are done in 2 min 5 s"),
        ("done", "✓ all done: 2 jobs in 2 min 5 s"),
        ("interrupted", "! interrupted: of 2 jobs, 1 is done in 2 min 5 s"),
        ("dry run", "+ a dry run: 2 jobs, 1 to do, 1 done already"),
        ("empty", "✓ nothing to do: there are no jobs"),
    ],
)
def test_the_verdict_comes_first(kind: str, verdict: str) -> None:
    """The verdict is the title, and the first thing below the name of the plan."""
    report = BATCHES[kind]
    text = page_of(report).text
    assert text.startswith(f" {verdict} ")
    shard = f", shard {report.shard}" if report.shard else ""
    assert f"electra-convert batch plan.yaml{shard} {verdict[0]}{verdict[2:]}" in text


def test_a_failure_outweighs_all_else() -> None:
    """A batch that was stopped, or is only planned, but has a failed job, has failed."""
    stopped = make_job(2, outcome="interrupted", **NO_MODELS)
    assert "1 of 2 jobs failed" in page_of(make_batch(stopped, failed_jobs()[0])).text
    assert "1 of 1 job failed" in page_of(make_batch(failed_jobs()[0], dry_run=True)).text


def test_figures() -> None:
    """The jobs, the models, the repositories and the time are counted."""
    text = page_of(batch_of_24()).text
    assert "done 18already done 3failed 3" in text
    assert "Jobs done21 of 243 of them earlier" in text
    assert "Models proven38 of 38" in text
    assert "Places on the Hub4337 committed, 2.00 GB sent" in text
    assert "Time2 min 5 sthe longest job took 35 s" in text


def test_failures_come_first_and_in_full() -> None:
    """What failed is told before the table: the job, the stage, each line of the message, what was done before."""
    page = page_of(batch_of_24())
    before, table = page.text.split("Every job")
    for job in failed_jobs():
        assert f"{job.id} failed while {job.stage}" in before
        assert all(line.strip() in before for line in job.error.splitlines())
        assert job.source in before
        assert job.output in before
        assert job.id in table
    assert "Published org/ko-small-discriminator at step-1100" in before.replace("Published", "Published ")
    assert "What failed" not in page_of(BATCHES["done"]).text


def test_every_job_has_its_row() -> None:
    """The table has each job in the order of the plan, with its source, its output, its models and its time."""
    report = batch_of_24()
    table = page_of(report).text.split("Every job")[1].split("What was proven")[0]
    places = [table.index(f"{job.id}{job.source}→ {job.output}") for job in report.jobs]
    assert places == sorted(places)
    assert table.count("2 proven") == 19
    assert "org/ko-small-generator at step-500Made the branch. Committed 2 files as 000001f4" in table


def test_bars_are_as_long_as_the_jobs_took() -> None:
    """The longest job has a full bar, the others their share of it; a job that was not done now has none."""
    page = page_of(make_batch(make_job(1, seconds=30.0), make_job(2, seconds=7.5), make_job(3, **NO_MODELS)))
    widths = [attributes["style"] for tag, attributes in page.tags if tag == "i" and "style" in attributes]
    assert widths == ["width:100.0%", "width:25.0%"]
    assert "Time" not in page_of(dry_run()).text


def test_each_model_has_its_verdict() -> None:
    """A model's symbol says its verdict; equal verdicts are told once, with the models they are on."""
    job = make_job(1)
    models = (
        job.models[0],
        replace(job.models[1], status="incomplete", verdict="incomplete: nothing of it was run"),
        replace(job.models[0], head="base", note="", status="not verified", verdict=""),
    )
    page = page_of(make_batch(replace(job, models=models), make_job(2)))
    assert signs(page)[:4] == ["done", VERDICT, "incomplete: nothing of it was run", "not verified"]
    said = page.text.split("What was proven, and given what")[1]
    assert f"✓{VERDICT}3 models" in said
    assert "ko-small/1: discriminator pretraining (native)" in said
    assert "\N{EN DASH}not verified1 model Which ko-small/1: discriminator base" in said
    assert "1 proven, 1 incomplete, 1 not verified" in page.text


def test_repositories_are_links() -> None:
    """What was published leads to where it is, by an address of the web and by nothing else."""
    repos = tuple(
        make_repo("generator", 1, url=url)
        for url in (
            "https://hub.example/org/a",
            "http://127.0.0.1:8080/org/b",
            "javascript:alert(1)",
            "file:///etc",
            "",
        )
    )
    copied = make_job(2, output="https://store.example/out", copied=("config.json",), repos=())
    bucket = make_job(3, output="gs://bucket/out", copied=("a", "b"), repos=())
    page = page_of(make_batch(make_job(1, repos=repos), copied, bucket))
    assert links(page) == ["https://hub.example/org/a", "http://127.0.0.1:8080/org/b", "https://store.example/out"]
    assert page.text.count("org/ko-small-generator at step-1") == len(repos)
    assert "gs://bucket/out2 files copied" in page.text


def test_places_of_other_runs_are_shown() -> None:
    """What an earlier run published, or a dry run would, is named."""
    text = page_of(dry_run()).text
    assert "Would be published" in text
    assert "org/ko-small-discriminator at step-100" in text
    assert "org/x (1a2b3c4d)" in text


def test_a_note_of_many_jobs_is_told_once() -> None:
    """A note is at the top, with the job it is about, or their number."""
    page = page_of(make_batch(make_job(1, notes=("one", "both")), make_job(2, notes=("both",))))
    assert "one (ko-small/1)" in page.text
    assert "both (2 jobs)" in page.text
    assert page.text.count("both") == 1
    assert "ko-small/1, ko-small/2" in [attributes.get("title") for _, attributes in page.tags]


def test_it_names_no_folder_of_the_machine() -> None:
    """Directories of models stay private: the page names only sources and outputs."""
    html = render_batch_page(batch_of_24())
    assert str(SECRET_FOLDER) in str(batch_of_24())
    assert str(SECRET_FOLDER) not in html
    assert "/home" not in html


def test_everything_is_escaped() -> None:
    """What comes from files, plans and servers is text, wherever it is shown."""
    model = replace(make_job(1).models[0], head=EVIL, note=EVIL, status=EVIL, verdict=EVIL)
    repo = make_repo("generator", 1, repo_id=EVIL, revision=EVIL, oid=EVIL, url=f"https://{EVIL}", created=(EVIL,))
    job = make_job(
        1,
        id=EVIL,
        source=EVIL,
        output=EVIL,
        models=(model,),
        repos=(repo,),
        places=(EVIL,),
        copied=(EVIL,),
        notes=(EVIL,),
    )
    failed = replace(job, outcome="failed", stage="uploading", error=f"{EVIL}\n{EVIL}")
    html = render_batch_page(make_batch(job, failed, plan=EVIL, shard=EVIL, electra_convert=EVIL))
    assert EVIL not in html
    assert "<script" not in html
    assert Page(html).text.count(EVIL) > 30


def test_it_can_be_written_whatever_names_hold() -> None:
    """Control characters, and bytes of file names that are no UTF-8, are replaced."""
    html = render_batch_page(make_batch(make_job(1, source="a\udcffb\x00c\x1bd\te\n")))
    assert "a\ufffdb\ufffdc\ufffdd\te\n" in html
    assert html.encode()


def test_a_thousand_jobs_are_a_page() -> None:
    """The page of a thousand jobs stays below 2 MB."""
    assert len(render_batch_page(make_batch(*map(make_job, range(1000)))).encode()) < 2_000_000
