"""On GitHub: the summary says what the report says, no text is markup, and annotations are as GitHub takes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from markdown_it import MarkdownIt
from msgspec.structs import replace

from electra_convert import cli
from electra_convert.errors import CheckpointNotFoundError
from electra_convert.parity import verify as verify_module
from electra_convert.parity.report import Ranking, Status, VerificationReport
from electra_convert.report.github import (
    KINDS,
    MOST_ANNOTATIONS,
    MOST_BYTES,
    MOST_LINES,
    render_annotations,
    render_error,
    render_outputs,
    render_summary,
)
from electra_convert.report.words import SYMBOLS

ReportOf = Callable[[Status], VerificationReport]
GITHUB_TAKES = 2**20
"""Bytes of a step summary; a longer one is dropped whole."""
EVIL = "</pre><b>*x* _y_ `z` | [a](b) # ~s~ & <script>\\"


class Page(HTMLParser):
    """Markdown as a browser gets it: the tags, the cells of its rows, and what a person reads."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(MarkdownIt("commonmark").enable("table").enable("strikethrough").render(markdown))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - the base's
        self.tags[tag] += 1
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def commands(report: VerificationReport, kind: str) -> list[str]:
    return [each for each in render_annotations(report) if each.startswith(f"::{kind} ")]


def with_faults(report: VerificationReport, *faults: str, says: str = "wrong") -> VerificationReport:
    """Return a report in which the files of every head have these faults."""
    heads = tuple(
        replace(head, status="failed", checks=(replace(head.checks[0], passed=False, says=says, faults=tuple(faults)),))
        for head in report.heads
    )
    return replace(report, heads=heads, status="failed")


class TestSummary:
    def test_the_verdict_comes_first(self, any_report: VerificationReport) -> None:
        """Its symbol begins the heading, for those who cannot tell colours."""
        page = Page(render_summary(any_report))
        assert page.text.startswith(f"{SYMBOLS[any_report.status]} {any_report.verdict}\n")
        assert page.tags["h2"] == 1

    def test_every_head_has_a_row_and_every_framework_a_column(self, any_report: VerificationReport) -> None:
        """Those that are not installed too."""
        heading, *rows = Page(render_summary(any_report)).rows
        assert [row[0] for row in rows] == [head.head for head in any_report.heads]
        assert {len(row) for row in rows} == {len(heading)}
        assert len(heading) == 2 + len({*any_report.frameworks, *any_report.missing})

    def test_a_cell_has_the_worst_differences_and_the_share_of_the_gate(self, report_of: ReportOf) -> None:
        """Of both dtypes; what failed is marked, and its head is bold."""
        rows = {row[0]: row for row in Page(render_summary(report_of("failed"))).rows}
        assert rows["base"][1:3] == ["✓", "✓ 1.9e-14 / 1.0e-05 (6%)"]
        assert rows["masked_lm"][2] == "✗ 5.7e-03 / 2.5e-03 (5.7e+07 x)"
        assert rows["token_classification"][1] == "✗"
        assert rows["token_classification"][4] == "✗ none / none"
        assert "| **masked" in render_summary(report_of("failed"))

    def test_what_is_not_installed_is_told(self, report_of: ReportOf) -> None:
        """In its cells."""
        assert {row[4] for row in Page(render_summary(report_of("incomplete"))).rows[1:]} == {"not installed"}

    def test_what_the_proof_is_given_is_told(self, report_of: ReportOf) -> None:
        """For each part, with what text says of it."""
        text = Page(render_summary(report_of("failed"))).text
        assert "assumed of the discriminator, for no tensor shows it: num_attention_heads = 4, lowercase = true" in text
        assert "assumed of the generator, for no tensor shows it: num_attention_heads = 1" in text
        assert "num_attention_heads confirmed: 4 heads do best by 5.2 standard errors" in text

    def test_what_failed_is_there_with_its_likely_cause(self, report_of: ReportOf) -> None:
        """One to unfold for each head that fails, and one for how it was checked."""
        report = report_of("failed")
        page = Page(render_summary(report))
        assert page.tags["details"] == 3
        for said in (
            "masked_lm fails 3 checks",
            f"likely cause: {report.heads[2].causes[0]}",
            "layer 4 is the first to diverge, on the probe length 128",
            "expected 0.8125, got",
            "the process died: signal 9",
            *report.heads[6].checks[3].faults,
        ):
            assert said in page.text

    def test_how_it_was_checked(self, report_of: ReportOf) -> None:
        """A loosened gate, the versions and the machine are told."""
        text = Page(render_summary(report_of("unverified"))).text
        assert "gate of float32: 64 x 2**-24 x scale x depth, loosened 10 times" in text
        assert "torch 2.13.0+cpu" in text
        assert "x86_64, 2 cores, Linux" in text

    def test_text_is_no_markup(self, report_of: ReportOf) -> None:
        """Whatever names, verdicts and faults hold, they are read as they are, and make no tag."""
        sound = with_faults(report_of("audited"), "a fault", says="a fault")
        harmless, evil = (
            replace(
                with_faults(sound, text, says=text),
                verdict=text,
                output=Path(text),
                notes=(text,),
                heads=tuple(
                    replace(head, head=text, causes=(text,)) for head in with_faults(sound, text, says=text).heads
                ),
            )
            for text in ("harmless", EVIL)
        )
        page = Page(render_summary(evil))
        assert page.tags == Page(render_summary(harmless)).tags
        assert page.text.count(EVIL) == 8

    def test_any_path_can_be_written(self, report_of: ReportOf) -> None:
        """One that is not UTF-8 becomes a text that is."""
        summary = render_summary(replace(report_of("proven"), output=Path("caf\udce9")))
        assert b"caf\\udce9" in summary.encode("utf-8", "backslashreplace")

    def test_it_is_never_longer_than_github_takes(self, report_of: ReportOf) -> None:
        """What does not fit is left out by whole heads, and their number is told."""
        long = with_faults(report_of("proven"), "ä" * 90_000)
        summary = render_summary(long)
        assert MOST_BYTES - 200_000 < len(summary.encode()) < GITHUB_TAKES
        assert Page(summary).tags["details"] == 1 + 5
        assert "3 more fail, for which there is no room here" in summary

    def test_many_faults_of_one_kind_are_cut(self, report_of: ReportOf) -> None:
        """The first are there, and how many are not."""
        text = Page(render_summary(with_faults(report_of("audited"), *(f"fault {n}." for n in range(100))))).text
        assert f"fault {MOST_LINES - 2}.\nand {101 - MOST_LINES} more" in text


class TestAnnotations:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            ("proven", "notice"),
            ("audited", "warning"),
            ("unverified", "error"),
            ("incomplete", "error"),
            ("failed", "error"),
        ],
    )
    def test_the_verdict_is_as_loud_as_it_matters(self, report_of: ReportOf, status: Status, kind: str) -> None:
        """What ends a run is an error; what proves nothing is a warning."""
        report = report_of(status)
        assert commands(report, kind)[0] == f"::{kind} title=electra-convert%3A {status}::{report.verdict}"

    def test_each_finding_is_an_error(self, report_of: ReportOf) -> None:
        """With where it is, what is wrong, and the likely cause; one line each, as GitHub reads them."""
        report = report_of("failed")
        errors = commands(report, "error")
        assert len(errors) == 1 + 6
        assert errors[1].startswith("::error title=masked_lm%3A PyTorch float64::layer 4 is the first to diverge")
        assert errors[1].endswith(f"%0Alikely cause: {report.heads[2].causes[0]}")
        assert errors[4].startswith("::error title=token_classification%3A round trip%2C Flax::2 of 199 tensors differ")

    def test_notes_are_warnings(self, report_of: ReportOf) -> None:
        """What to install, for example."""
        report = report_of("incomplete")
        assert commands(report, "warning") == [f"::warning title=electra-convert::{report.notes[0]}"]

    @pytest.mark.parametrize(("finding", "kind"), [("confirmed", "notice"), ("refuted", "error")])
    def test_what_text_says_of_an_assumption(self, report_of: ReportOf, finding: Any, kind: str) -> None:
        """Refuted, it is an error."""
        report = report_of("audited")
        ranking = Ranking(field="lowercase", assumed=True, finding=finding, candidates=(), tokens=9, says="so it is")
        told = replace(report, parts=(replace(report.parts[0], rankings=(ranking,)),))
        assert commands(told, kind)[-1] == f"::{kind} title=lowercase%3A {finding}::so it is"

    def test_github_is_given_no_more_than_it_shows(self, report_of: ReportOf) -> None:
        """Ten of a kind: the tenth says how many more there are."""
        report = with_faults(report_of("proven"))
        many = replace(report, heads=report.heads * 3)
        errors = commands(many, "error")
        assert len(errors) == MOST_ANNOTATIONS
        assert errors[-1].startswith(f"::error title=electra-convert::{1 + 24 - 9} more are not shown here")

    def test_as_many_as_it_shows_are_all_there(self, report_of: ReportOf) -> None:
        """Nothing is cut before it must be."""
        report = with_faults(report_of("proven"))
        nine = replace(report, heads=(*report.heads, report.heads[0]))
        errors = commands(nine, "error")
        assert len(errors) == MOST_ANNOTATIONS
        assert "not shown" not in errors[-1]

    def test_text_ends_no_command_and_begins_none(self, report_of: ReportOf) -> None:
        """Ends of lines, colons, commas and percent signs are escaped as the runner undoes it."""
        evil = "50%, a::b\r\n::warning::x"
        report = with_faults(report_of("audited"), says=evil)
        report = replace(report, heads=(replace(report.heads[0], head=evil),))
        told = list(render_annotations(report))
        assert not any("\n" in each or "\r" in each for each in told)
        title = "50%25%2C a%3A%3Ab%0D%0A%3A%3Awarning%3A%3Ax%3A round trip%2C PyTorch"
        assert commands(report, "error")[-1] == f"::error title={title}::50%25, a::b%0D%0A::warning::x"
        assert {each.split(" ", 1)[0].strip(":") for each in told} <= set(KINDS)

    def test_an_error_of_this_package(self) -> None:
        """With what to do."""
        error = CheckpointNotFoundError("no checkpoint in x", hint="look elsewhere")
        assert render_error(error) == "::error title=electra-convert::no checkpoint in x%0AWhat to do: look elsewhere"


def test_outputs(report_of: ReportOf) -> None:
    """A line each, whatever the verdict holds."""
    report = replace(report_of("failed"), verdict="failed: a\nstatus=proven")
    assert render_outputs(report) == "status=failed\nverdict=failed: a status=proven\n"


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
        """Files as a workflow names them, with what an earlier command wrote; no framework is installed."""
        monkeypatch.setattr(verify_module, "installed", lambda _: False)
        files = {name: tmp_path / name for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
        for name, path in files.items():
            path.write_text("before\n")
            monkeypatch.setenv(name, str(path))
        return files

    @pytest.fixture
    def out(self, converted: Callable[..., Path]) -> Path:
        """A conversion."""
        pytest.importorskip("scipy")
        return converted("electra_tiny", "discriminator", heads=("base",))

    def run(self, *arguments: str | Path) -> Result:
        return CliRunner().invoke(cli.main, ["verify", "--github", *map(str, arguments)])

    def test_a_workflow_is_told(self, files: dict[str, Path], out: Path) -> None:
        """Annotations on stdout, the summary and the outputs added to what is there, whatever the verdict."""
        result = self.run(out)
        assert result.exit_code == 1
        assert "\n::error title=electra-convert%3A incomplete::incomplete: not all was run" in result.stdout
        assert files["GITHUB_STEP_SUMMARY"].read_text().startswith("before\n## ◐ incomplete: ")
        assert files["GITHUB_OUTPUT"].read_text().startswith("before\nstatus=incomplete\nverdict=incomplete: ")

    def test_json_stays_json(self, files: dict[str, Path], out: Path) -> None:
        """Annotations are on stderr then, where GitHub reads them too."""
        result = self.run(out, "--json")
        assert json.loads(result.stdout)["status"] == "incomplete"
        assert "::error title=electra-convert%3A incomplete::" in result.stderr
        assert files["GITHUB_OUTPUT"].read_text() != "before\n"

    def test_what_keeps_it_from_a_verdict_is_an_annotation(self, files: dict[str, Path], tmp_path: Path) -> None:
        """And the message is there for the log; nothing is summed up."""
        result = self.run(tmp_path)
        assert result.exit_code == 1
        assert result.stdout.startswith("::error title=electra-convert::there is no model in ")
        assert len(result.stdout.splitlines()) == 1
        assert result.stderr.startswith("error: there is no model in ")
        assert files["GITHUB_STEP_SUMMARY"].read_text() == "before\n"

    def test_elsewhere_it_is_wrong_usage(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Told before the work."""
        monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        result = self.run(out)
        assert result.exit_code == 2
        assert "GITHUB_STEP_SUMMARY, which is not set" in result.stderr

    def test_a_summary_that_cannot_be_written(
        self, files: dict[str, Path], out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file is named."""
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(out))
        result = self.run(out)
        assert result.exit_code == 1
        assert f"GITHUB_STEP_SUMMARY names {out}, which cannot be written: Is a directory" in result.stderr
        assert files["GITHUB_OUTPUT"].read_text() == "before\n"
