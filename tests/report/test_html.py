"""The page: it is well formed and whole, nothing is left out that failed, and nothing runs in it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from html import escape
from itertools import pairwise
from pathlib import Path

from msgspec.structs import replace

from electra_convert.parity.report import Element, Status, VerificationReport
from electra_convert.report.charts import Curve, decades, histogram_chart, layer_chart, power_of_ten, spread
from electra_convert.report.html import bar_width, layer_panels, render_html
from electra_convert.report.words import duration, figure, percent
from tests.report.page import Page

MOST_BYTES = 300_000
ReportOf = Callable[[Status], VerificationReport]


def test_well_formed(any_report: VerificationReport) -> None:
    """Every tag is closed where it should be, no id is there twice, and every link leads to one."""
    page = Page(render_html(any_report))
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert len(ids) == len(set(ids))
    assert {f"#{name}" for name in ids} == set(links)


def test_self_contained(any_report: VerificationReport) -> None:
    """Nothing is loaded from elsewhere, and nothing runs."""
    html = render_html(any_report)
    assert html.startswith("<!doctype html>")
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:|\bsrc=|\son\w+=", html)
    assert not {"script", "link", "iframe", "img", "object"} & {tag for tag, _ in Page(html).tags}


def test_verdict(any_report: VerificationReport) -> None:
    """The verdict is read in one line, with its conditions, and is the title of the page."""
    page = Page(render_html(any_report))
    assert page.text.count(any_report.verdict) == 2
    assert not {"None", "nan"} & set(page.text.split())


def test_conditional(report_of: ReportOf) -> None:
    """What is proven is proven given what was assumed, and each assumption is marked in the config."""
    text = Page(render_html(report_of("proven"))).text
    assert "proven, given assumed: num_attention_heads = 4, lowercase = true" in text
    assert "8 of 8" in text
    assert "true assumed" in text
    assert "256 electra/embeddings_project/kernel [128, 256]" in text


def test_matrix(report_of: ReportOf) -> None:
    """Each run has its figures: the difference nearest to its gate, and the share it takes."""
    report = report_of("proven")
    page = Page(render_html(report))
    cells = [attributes for tag, attributes in page.tags if tag == "div" and attributes.get("class") == "cell passed"]
    assert len(cells) == 8 * 3 * 2
    for run in report.heads[0].runs:
        assert figure(max(run.arrays, key=lambda array: array.share).difference) in page.text


def test_failures_in_full(report_of: ReportOf) -> None:
    """What failed is told whole: where, on what, both values, the causes, and what the others said."""
    report = report_of("failed")
    page = Page(render_html(report))
    for head in report.heads:
        for cause in head.causes:
            assert cause in page.text
        for check in head.checks:
            assert all(fault in page.text for fault in check.faults)
        for run in head.runs:
            assert run.message in page.text
            if found := run.divergence:
                assert f"First to diverge{found.array}" in page.text
                assert f"Probe{found.probe}" in page.text
                assert "Element[3, 41, 17]" in page.text
                assert f"Expected{found.worst.expected:.17g}" in page.text
                assert f"Got{found.worst.got:.17g}" in page.text
                assert f"{run.needed:.3g} times as wide" in page.text
    assert page.text.count("is the first to diverge") == 0
    assert "PyTorch and TensorFlow, float64" in page.text
    assert "6 of 8" in page.text


def test_charts_of_failures(report_of: ReportOf) -> None:
    """A head that diverges has charts of its own, beside those of all heads if there are others."""
    failed = report_of("failed")
    assert count_layer_charts(report_of("proven")) == 2
    assert count_layer_charts(failed) == 4
    assert count_layer_charts(replace(failed, heads=failed.heads[2:3])) == 2


def count_layer_charts(report: VerificationReport) -> int:
    labels = [attributes["aria-label"] for tag, attributes in Page(render_html(report)).tags if tag == "svg"]
    return sum("by layer" in str(label) for label in labels)


def test_incomplete(report_of: ReportOf) -> None:
    """A framework that is not installed has its column, which says so; the note says what to install."""
    text = Page(render_html(report_of("incomplete"))).text
    assert "Flax not installed" in text
    assert 'pip install "electra-convert[flax]"' in text


def test_audited(report_of: ReportOf) -> None:
    """An audit names no checkpoint, and says what the others were compared with."""
    text = Page(render_html(report_of("audited"))).text
    assert "the reference" in text
    assert "no source is known" in text
    assert "Heads proven" not in text
    assert "The ledger" not in text


def test_loosened(report_of: ReportOf) -> None:
    """A gate that was loosened is stamped."""
    assert "float32loosened \N{MULTIPLICATION SIGN} 10" in Page(render_html(report_of("unverified"))).text
    assert "loosened" not in Page(render_html(report_of("proven"))).text


def test_escaped(report_of: ReportOf) -> None:
    """What comes from files is text, wherever it is shown."""
    evil = "<script>alert('&\"')</script>"
    report = report_of("failed")
    head = replace(
        report.heads[2],
        directory=Path("/converted") / evil,
        head=evil,
        causes=(evil,),
        checks=tuple(replace(check, passed=False, says=evil, faults=(evil,)) for check in report.heads[2].checks),
    )
    look = report.parts[0].look
    assert look
    part = replace(
        report.parts[0],
        config={evil: evil},
        origins={evil: evil},
        given={evil: evil},
        source_tensors={evil: 3},
        look=replace(look, tokens=tuple(replace(token, token=evil) for token in look.tokens)),
    )
    changed = replace(
        report,
        output=Path(evil),
        source=evil,
        topology=evil,
        verdict=evil,
        parts=(part,),
        heads=(head,),
        versions={evil: evil},
        machine=evil,
        notes=(evil,),
    )
    html = render_html(changed)
    assert evil not in html
    assert "<script" not in html
    assert Page(html).text.count(evil) > 20
    assert escape("&") in html


def test_size(report_of: ReportOf) -> None:
    """Eight heads of twelve layers in three frameworks stay below 300 kB, even if all of them fail."""
    report = report_of("failed")
    assert len(render_html(report_of("proven")).encode()) < MOST_BYTES
    worst = replace(report, heads=tuple(replace(report.heads[2], head=head.head) for head in report.heads))
    assert len(render_html(worst).encode()) < MOST_BYTES


def test_not_a_number(report_of: ReportOf) -> None:
    """What is not finite is drawn at the top, and what is exactly equal at the bottom."""
    report = report_of("failed")
    head = report.heads[2]
    run = head.runs[0]
    arrays = [
        replace(array, difference=0.0) if index < 3 else replace(array, difference=math.inf)
        for index, array in enumerate(run.arrays)
    ]
    worst = Element(index=(0,), expected=1.0, got=math.nan)
    assert run.divergence
    divergence = replace(run.divergence, difference=math.inf, worst=worst)
    bad = replace(run, arrays=tuple(arrays), divergence=divergence, needed=math.inf)
    html = render_html(replace(report, heads=(replace(head, runs=(bad, *head.runs[1:])),)))
    drawn = [attributes["d"] for tag, attributes in Page(html).tags if tag == "path"]
    assert not any("n" in str(path) for path in drawn)
    labels = [tick.label for tick in layer_panels([replace(head, runs=(bad,))])[0].chart.y_ticks]
    assert labels[0] == "0"
    assert labels[-1] == "∞"


def test_nothing_compared(report_of: ReportOf) -> None:
    """A report in which nothing was run, or nothing found, is a page too."""
    report = report_of("failed")
    bare = replace(report.heads[0], runs=(), pairs=(), checks=())
    for heads in ((bare,), ()):
        page = Page(render_html(replace(report, heads=heads, parts=(), gates=report.gates)))
        assert page.open == []
        assert "nothing was compared" in page.text


def test_look(report_of: ReportOf) -> None:
    """The look shows each token's score and the guesses at a mask; the ranking shows what was tried."""
    text = Page(render_html(report_of("proven"))).text
    assert "economist93%" in text
    assert "meal41%" in text.replace(" ", "")
    assert "num_attention_heads = 4 is confirmed" in text
    assert "0.2213" in text
    assert "21.0" in text


def test_chart_within_its_box(report_of: ReportOf) -> None:
    """Every point and every label of a chart is inside of it."""
    for panel in layer_panels(report_of("failed").heads):
        chart = panel.chart
        paths = [chart.gate, *(line.path for line in chart.lines)]
        places = [pair for path in paths for pair in re.findall(r"[ML](\S+?) ([\d.]+)", path)]
        assert all(chart.left <= float(x) <= chart.right and chart.top <= float(y) <= chart.bottom for x, y in places)
        assert [tick.label for tick in chart.x_ticks] == ["emb", *map(str, range(1, 13)), "out"]
        heights = sorted([chart.gate_y, *(line.label_y for line in chart.lines)])
        assert all(below - above >= 14 for above, below in pairwise(heights))


def test_larger_is_higher() -> None:
    """An axis in powers of ten puts what is larger higher, nothing at the bottom and infinity on top."""
    axis = decades([0.0, 1e-16, 1e-10, math.inf], top=10.0, bottom=200.0)
    heights = [axis.y(value) for value in (0.0, 1e-16, 1e-13, 1e-10, math.inf)]
    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (200.0, 10.0)
    assert decades([], top=0.0, bottom=1.0).ticks()


def test_many_layers() -> None:
    """Of many layers, some are labelled; the embeddings and the outputs always."""
    arrays = ["embeddings", *(f"layer {layer}" for layer in range(1, 49)), "outputs"]
    values = [1e-9] * len(arrays)
    chart = layer_chart(arrays, [Curve("flax", "Flax", values)], [1e-5] * len(arrays), str)
    labels = [tick.label for tick in chart.x_ticks]
    assert labels == ["emb", *map(str, range(4, 49, 4)), "out"]
    gap = layer_chart(arrays[:4], [Curve("flax", "Flax", [1e-9, None, 1e-9, 1e-8])], [1e-5] * 4, str)
    assert gap.lines[0].path.count("M") == 2


def test_histogram() -> None:
    """A bar is as high as its power of ten; what is beyond the gate is marked; one element is seen."""
    chart = histogram_chart([0, 1, 1_000_000, 1], [-4, -3, -2, -1, 0], 1e-2)
    assert [bar.beyond for bar in chart.bars] == [False, True, True]
    assert chart.bars[1].height > 2 * chart.bars[0].height > 8
    assert all(bar.y >= chart.top for bar in chart.bars)
    assert chart.gate_x is not None
    assert histogram_chart([0, 0], [0, 1, 2], None).gate_x is None


def test_labels_are_spread() -> None:
    """Labels that would cover one another are moved apart, and stay above the lowest place."""
    assert spread([100.0, 50.0], 14, lowest=200) == [100.0, 50.0]
    assert spread([199.0, 200.0, 200.0], 10, lowest=200) == [180.0, 190.0, 200.0]


def test_spelling() -> None:
    """Powers, shares and times are spelt as people write them."""
    assert [power_of_ten(power) for power in (-14, 0, 1)] == ["10⁻¹⁴", "1", "10"]
    assert [percent(part) for part in (0.0, 0.0331, 0.305, 1.0)] == ["0%", "3.3%", "30%", "100%"]
    assert [duration(seconds) for seconds in (3.21, 32.4, 125.0, 12030.0)] == [
        "3.2 s",
        "32 s",
        "2 min 5 s",
        "3 h 20 min",
    ]
    assert [bar_width(part) for part in (0.0, 1e-9, 0.5, 7.0, math.inf)] == [0.0, 1.5, 50.0, 100.0, 100.0]
