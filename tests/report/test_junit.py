"""JUnit: a suite for each directory, a case for each check, and what failed in full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

from msgspec.structs import replace

from electra_convert.parity.report import Ranking, Status, VerificationReport
from electra_convert.report.junit import render_junit

ReportOf = Callable[[Status], VerificationReport]
CHECKS = RUNS = PAIRS = 6


def parse(report: VerificationReport) -> ET.Element:
    return ET.fromstring(render_junit(report))  # noqa: S314 - it is ours


def suite(root: ET.Element, name: str) -> ET.Element:
    found = root.find(f"testsuite[@name='{name}']")
    assert found is not None
    return found


def faults(element: ET.Element, kind: str) -> dict[str, str]:
    return {
        case.get("name", ""): f"{fault.get('message')}\n{fault.text}"
        for case in element.iter("testcase")
        for fault in case.findall(kind)
    }


def test_counts(any_report: VerificationReport) -> None:
    """What a suite says it holds, it holds, and the whole says the sum."""
    root = parse(any_report)
    for element in (root, *root.iter("testsuite")):
        assert int(element.get("tests", "")) == len(list(element.iter("testcase")))
        assert int(element.get("failures", "")) == len(list(element.iter("failure")))
        assert int(element.get("errors", "")) == len(list(element.iter("error")))


def test_proven(report_of: ReportOf) -> None:
    """Each directory is a suite, part and head; each check, run and pair is a case of it; none fails."""
    report = report_of("proven")
    root = parse(report)
    names = [element.get("name") for element in root.iter("testsuite")]
    assert names == [*(f"discriminator/{head.head}" for head in report.heads), "discriminator/text"]
    base = suite(root, "discriminator/base")
    assert base.get("tests") == str(CHECKS + RUNS + PAIRS)
    cases = {case.get("name") for case in base.iter("testcase")}
    assert {"round trip, Flax", "config", "PyTorch float64", "PyTorch and Flax, float32"} <= cases
    assert (root.get("failures"), root.get("errors")) == ("0", "0")


def test_properties(report_of: ReportOf) -> None:
    """A suite says the verdict, the gates and the versions it stands under."""
    report = report_of("unverified")
    base = suite(parse(report), "discriminator/base")
    said = {each.get("name"): each.get("value") for each in base.iter("property")}
    assert said["verdict"] == report.verdict
    assert said["gate.float32"] == "64 x 2**-24 x scale x depth, loosened 10 times"
    assert said["numpy"] == "2.4.6"


def test_failures(report_of: ReportOf) -> None:
    """What failed is there in full: where it first diverges, both values, every fault, and the causes."""
    report = report_of("failed")
    root = parse(report)
    assert (root.get("failures"), root.get("errors")) == ("6", "0")
    diverging = faults(suite(root, "discriminator/masked_lm"), "failure")
    assert set(diverging) == {"PyTorch float64", "PyTorch float32", "PyTorch and TensorFlow, float64"}
    run = diverging["PyTorch float64"]
    assert "layer 4 is the first to diverge, on the probe length 128" in run
    assert "element [3, 41, 17]: expected 0.8125, got" in run
    assert f"likely cause: {report.heads[2].causes[0]}" in run
    damaged = faults(suite(root, "discriminator/token_classification"), "failure")
    assert set(damaged) == {"round trip, Flax", "Flax float64", "Flax float32"}
    assert all(fault in damaged["round trip, Flax"] for fault in report.heads[6].checks[3].faults)
    assert "the process died: signal 9" in damaged["Flax float64"]


def test_missing(report_of: ReportOf) -> None:
    """A framework that is not installed is an error, not a failure."""
    root = parse(report_of("incomplete"))
    assert (root.get("failures"), root.get("errors")) == ("0", "16")
    assert set(faults(suite(root, "discriminator/base"), "error")) == {"Flax float64", "Flax float32"}


def test_refuted(report_of: ReportOf) -> None:
    """An assumption that text refutes is a failure of its part."""
    report = report_of("proven")
    says = "8 heads do better than 4"
    ranking = Ranking(field="num_attention_heads", assumed=4, finding="refuted", candidates=(), tokens=9, says=says)
    root = parse(replace(report, parts=(replace(report.parts[0], rankings=(ranking,)),)))
    assert says in faults(suite(root, "discriminator/text"), "failure")["num_attention_heads"]


def test_audited(report_of: ReportOf) -> None:
    """A directory without a part is named by its head alone."""
    assert suite(parse(report_of("audited")), "base").get("failures") == "0"


def test_any_text(report_of: ReportOf) -> None:
    """Text from files is text, whatever it holds; what XML cannot hold is replaced."""
    report = report_of("failed")
    evil = "<script>&\"'\x00\x1b]]>"
    head = replace(report.heads[0], directory=Path("<script>"), head=evil, causes=(evil,))
    check = replace(head.checks[0], passed=False, says=evil, faults=(evil,))
    root = parse(replace(report, heads=(replace(head, checks=(check,)),), verdict=evil))
    told = evil.replace("\x00", "\ufffd").replace("\x1b", "\ufffd")
    assert suite_names(root)[0] == f"discriminator/{told}"
    assert told in faults(root, "failure")["source"]


def suite_names(root: ET.Element) -> list[str]:
    return [element.get("name", "") for element in root.iter("testsuite")]
