"""`electra-convert verify`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from electra_convert.cli.arguments import ANY_PATH, EXISTING_FILE, SOURCE, CommaSeparated, common
from electra_convert.cli.errors import told
from electra_convert.errors import ElectraConvertError, OptionError, OutputError


@click.command()
@click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@click.option("--source", type=SOURCE, help="The checkpoint OUT was made from; by default the one noted then.")
@click.option(
    "--generator", type=SOURCE, help="The generator's source, where a checkpoint for Google's code was made of two."
)
@click.option(
    "--frameworks",
    type=CommaSeparated(("pytorch", "tensorflow", "flax")),
    default=(),
    help="Frameworks to run; by default all that OUT has files for. What is left out is stamped on the proof.",
)
@click.option("--text", type=EXISTING_FILE, help="Real text, UTF-8: tries the assumed head count and casing on it.")
@click.option("--budget", type=float, help="Floating-point operations one head may cost. Default: 2.5e10.")
@click.option(
    "--loosen",
    multiple=True,
    metavar="GATE=FACTOR",
    help="Loosen the gate of float32 or float64 so many times. What passes then counts as unverified.",
)
@click.option("--junit", type=ANY_PATH, help="Write a JUnit report here.")
@click.option("--html", type=ANY_PATH, help="Write a report to look at here.")
@click.option("--github", is_flag=True, help="In a GitHub workflow: annotate it, add to its summary, set outputs.")
@click.option("--self-test", "testing", is_flag=True, help="Check the checker: every fault in a tiny model is caught.")
@common
def verify(
    output: Path | None,
    *,
    testing: bool,
    junit: Path | None,
    html: Path | None,
    github: bool,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Prove what was written to OUT against Google's graph.

    OUT is the output of a conversion, or one head's directory. It is read back, run in every framework, and
    compared with the checkpoint it was made from. A directory whose checkpoint is not known is audited: its
    formats against one another, its config and tokenizer; that proves nothing. A checkpoint for Google's code is
    compared with the source that is named, and with that run by its own framework; so is an export, by --source MODEL.
    Exit 1 if anything fails.
    """
    with told(debug=debug), _annotated(wanted=github, err=as_json):
        if testing:
            _self_test(options["frameworks"], as_json=as_json)
        if output is None:
            raise OptionError("nothing is named that is to be verified", hint="give the output of a conversion")
        options["loosened"] = _factors(options.pop("loosen"))
        from electra_convert.export.targets import targets_in

        if targets_in(output):
            _verify_export(output, options | {"junit": junit, "html": html, "github": github}, as_json=as_json)
            return
        report = verified_output(output, options)
        show_proof(report, report if as_json else None)
        _write_reports(report, html, junit)
        if github:
            _tell_github(report, err=as_json)
        sys.exit(report.status not in {"proven", "audited"})


def _verify_export(output: Path, options: dict[str, Any], *, as_json: bool) -> None:
    """Prove an export by the model that is named, and print what was found."""
    from electra_convert import ExportOptions, verify_export
    from electra_convert.export.show import show_export
    from electra_convert.show import print_json, show_progress, stdout_console

    source, mappings = options.pop("source"), options.pop("mappings")
    given = [f"--{name}" for name, value in options.items() if value]
    if given:
        raise OptionError(f"{output} is an export, which {', '.join(given)} does not go with", hint="leave that out")
    if source is None:
        raise OptionError(f"{output} is an export: nothing in it says of which model", hint="name it: --source MODEL")
    with show_progress() as progress:
        report = verify_export(output, source, ExportOptions(mappings=mappings), progress=progress)
    if as_json:
        print_json(report)
    else:
        show_export(report, stdout_console(), written=False)


def require_provable(*, dry_run: bool) -> None:
    """Check before anything is written that it can be verified."""
    from electra_convert.parity.reference import require_oracle

    if dry_run:
        raise OptionError("a dry run writes nothing that could be verified", hint="leave out --verify or --dry-run")
    require_oracle()


def verified_output(output: Path, options: dict[str, Any]) -> Any:
    """Verify an output as options ask for it; return the report."""
    from electra_convert import VerifyOptions, verify_output
    from electra_convert.show import show_progress

    given = {name: value for name, value in options.items() if value not in (None, (), {})}
    with show_progress() as progress:
        return verify_output(output, VerifyOptions(**given), progress=progress)


def show_proof(report: Any, as_json: Any) -> None:
    """Print a verification; or, where that is asked for, `as_json` in its place."""
    from electra_convert.report.terminal import show_verification
    from electra_convert.show import print_json, stdout_console

    if as_json is not None:
        print_json(as_json)
    else:
        show_verification(report, stdout_console())


def _write_reports(report: Any, html: Path | None, junit: Path | None) -> None:
    from electra_convert.output import write_report

    if html is not None:
        from electra_convert.report.html import render_html

        write_report(html, render_html(report))
    if junit is not None:
        from electra_convert.report.junit import render_junit

        write_report(junit, render_junit(report))


@contextmanager
def _annotated(*, wanted: bool, err: bool) -> Iterator[None]:
    """Annotate the workflow with what keeps it from a verdict, where that is asked for."""
    try:
        if wanted and not os.environ.get("GITHUB_STEP_SUMMARY"):
            raise OptionError(
                "--github needs the variable GITHUB_STEP_SUMMARY, which is not set",
                hint="a GitHub workflow sets it; elsewhere, leave out --github",
            )
        yield
    except ElectraConvertError as error:
        from electra_convert.report.github import render_error

        if wanted:
            click.echo(render_error(error), err=err)
        raise


def _tell_github(report: Any, *, err: bool) -> None:
    """Annotate the workflow with what was found, and add to its summary and the step's outputs."""
    from electra_convert.report.github import render_annotations, render_outputs, render_summary

    for annotation in render_annotations(report):
        click.echo(annotation, err=err)
    _append("GITHUB_STEP_SUMMARY", render_summary(report))
    _append("GITHUB_OUTPUT", render_outputs(report))


def _append(variable: str, text: str) -> None:
    """Append to the file that a variable names, if it is set."""
    path = os.environ.get(variable)
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"{variable} names {path}, which cannot be written: {error.strerror}") from error


def _factors(given: tuple[str, ...]) -> dict[str, float]:
    """Return the factor of each gate that is to be loosened: `float32=10`."""
    factors = {}
    for text in given:
        gate, _, factor = text.partition("=")
        try:
            factors[gate] = float(factor)
        except ValueError as error:
            raise OptionError(f"--loosen {text}: expected a gate and a factor", hint="--loosen float32=10") from error
    return factors


def _self_test(frameworks: tuple[str, ...], *, as_json: bool) -> None:
    """Run the self-test, and leave: 1 if it fails."""
    from electra_convert.parity.self_test import self_test
    from electra_convert.report.self_test import show_self_test
    from electra_convert.show import print_json, show_progress, stdout_console

    with show_progress() as progress:
        report = self_test(frameworks=frameworks, progress=progress)
    if as_json:
        print_json(report)
    else:
        show_self_test(report, stdout_console())
    sys.exit(not report.passed)
