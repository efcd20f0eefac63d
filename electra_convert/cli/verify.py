"""`electra-convert verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from electra_convert.cli.arguments import ANY_PATH, EXISTING_FILE, CommaSeparated, common
from electra_convert.cli.errors import told
from electra_convert.errors import OptionError


@click.command()
@click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@click.option("--source", type=ANY_PATH, help="The checkpoint OUT was made from; by default the one noted then.")
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
@click.option("--self-test", "testing", is_flag=True, help="Check the checker: every fault in a tiny model is caught.")
@common
def verify(
    output: Path | None,
    *,
    testing: bool,
    junit: Path | None,
    html: Path | None,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Prove what was written to OUT against Google's graph.

    OUT is the output of a conversion, or one head's directory. It is read back, run in every framework, and
    compared with the checkpoint it was made from. A directory whose checkpoint is not known is audited: its
    formats against one another, its config and tokenizer; that proves nothing. Exit 1 if anything fails.
    """
    with told(debug=debug):
        if testing:
            _self_test(options["frameworks"], as_json=as_json)
        if output is None:
            raise OptionError("nothing is named that is to be verified", hint="give the output of a conversion")
        options["loosened"] = _factors(options.pop("loosen"))
        report = verified_output(output, options)
        show_proof(report, report if as_json else None)
        _write_reports(report, html, junit)
        sys.exit(report.status not in {"proven", "audited"})


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
        report = self_test(frameworks=frameworks, progress=progress)  # type: ignore[arg-type]  # checked by the option
    if as_json:
        print_json(report)
    else:
        show_self_test(report, stdout_console())
    sys.exit(not report.passed)
