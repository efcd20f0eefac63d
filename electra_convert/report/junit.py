"""A verification as JUnit XML, for build servers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from xml.etree import ElementTree as ET

from electra_convert.parity.report import HeadReport, PartReport, VerificationReport
from electra_convert.report.words import (
    check_name,
    gate_rule,
    pair_line,
    pair_name,
    run_lines,
    run_name,
    worst_of,
)

NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold: a name of a file may have them."""


class _Case(NamedTuple):
    """A test case: its name, and what is wrong if something is."""

    name: str
    says: str
    fault: str = ""
    lines: tuple[str, ...] = ()
    missing: bool = False


def render_junit(report: VerificationReport) -> str:
    """Return a verification as JUnit XML.

    A directory is a suite; each check, each framework at each precision, and each two frameworks are a test case. A
    framework that is not installed is an error, not a failure. What was tried on text is a suite of its part.

    Args:
        report: What a verification found.
    """
    suites = [(_suite_name(head), list(_cases(head))) for head in report.heads]
    suites += [(f"{part.part or 'text'}/text", list(_text_cases(part))) for part in report.parts if part.rankings]
    cases = [case for _, suite in suites for case in suite]
    root = ET.Element(
        "testsuites", {"name": "electra-convert verify", **_counts(cases), "time": f"{report.seconds:.3f}"}
    )
    for name, suite in suites:
        # Only the whole is timed: heads overlap. Each suite gets its share by cases, so that the sum is right.
        seconds = report.seconds * len(suite) / len(cases) if cases else 0.0
        element = ET.SubElement(root, "testsuite", {"name": _text(name), **_counts(suite), "time": f"{seconds:.3f}"})
        _add_properties(element, report)
        for case in suite:
            _add_case(element, name, case)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite_name(head: HeadReport) -> str:
    return f"{head.part}/{head.head}" if head.part else head.head


def _counts(cases: Iterable[_Case]) -> dict[str, str]:
    cases = list(cases)
    errors = sum(case.missing for case in cases)
    failures = sum(bool(case.fault) for case in cases) - errors
    return {"tests": str(len(cases)), "failures": str(failures), "errors": str(errors), "skipped": "0"}


def _cases(head: HeadReport) -> Iterator[_Case]:
    causes = tuple(f"likely cause: {cause}" for cause in head.causes)
    for check in head.checks:
        fault = "" if check.passed else check.says
        yield _Case(check_name(check), check.says, fault, (*check.faults, *causes))
    for run in head.runs:
        lines = tuple(run_lines(run))
        if run.outcome == "passed":
            yield _Case(run_name(run), f"worst: {worst_of(run)}" if run.arrays else "")
        else:
            missing = run.outcome == "missing"
            fault = lines[0] if lines else f"{run_name(run)} failed"
            yield _Case(run_name(run), "", fault, lines[1:] if missing else (*lines[1:], *causes), missing)
    for pair in head.pairs:
        says = f"worst: {pair_line(pair)}"
        yield _Case(pair_name(pair), says, "" if pair.passed else pair_line(pair), causes)


def _text_cases(part: PartReport) -> Iterator[_Case]:
    for ranking in part.rankings:
        tried = tuple(f"{each.value}: loss {each.loss:.4f}, +{each.margin:.1f}" for each in ranking.candidates)
        fault = ranking.says if ranking.finding == "refuted" else ""
        yield _Case(ranking.field, ranking.says, fault, tried)


def _add_properties(suite: ET.Element, report: VerificationReport) -> None:
    gates = {f"gate.{gate.precision}": gate_rule(gate) for gate in report.gates}
    about = {"status": report.status, "verdict": report.verdict, "source": report.source, "index": report.identity}
    properties = ET.SubElement(suite, "properties")
    for name, text in (about | gates | report.versions).items():
        ET.SubElement(properties, "property", name=_text(name), value=_text(text))


def _add_case(suite: ET.Element, classname: str, case: _Case) -> None:
    element = ET.SubElement(suite, "testcase", classname=_text(classname.replace("/", ".")), name=_text(case.name))
    if case.fault:
        kind, about = ("error", "missing") if case.missing else ("failure", "verification")
        fault = ET.SubElement(element, kind, type=about, message=_text(case.fault))
        fault.text = _text("\n".join((case.fault, *case.lines)))
    elif case.says:
        ET.SubElement(element, "system-out").text = _text(case.says)


def _text(text: str) -> str:
    """Return text that XML can hold."""
    return NOT_IN_XML.sub("\ufffd", text)
