"""`electra-convert batch`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from electra_convert.cli.arguments import ANY_PATH, EXISTING_FILE
from electra_convert.cli.errors import told
from electra_convert.errors import OptionError

INTERRUPTED = 130


def _print_schema(_ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:  # noqa: FBT001  # click's signature
    if not wanted:
        return
    import json

    from electra_convert.batch.plan_file import plan_schema

    click.echo(json.dumps(plan_schema(), indent=2))
    sys.exit()


@click.command()
@click.argument("plan", type=EXISTING_FILE)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Jobs that run side by side.")
@click.option("--shard", default="", metavar="I/N", help="Only every Nth job, from the Ith: for several machines.")
@click.option("--only", multiple=True, metavar="PATTERN", help="Only jobs of these names: 'ko-small/*'.")
@click.option("--state", type=ANY_PATH, help="The state file. Default: PLAN.state.jsonl.")
@click.option("--fresh", is_flag=True, help="Look at every job again, whatever the state file says.")
@click.option("--report", "reports", type=ANY_PATH, multiple=True, help="Write a report here: .json, or .html.")
@click.option("--dry-run", is_flag=True, help="List the jobs; do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--schema", is_flag=True, is_eager=True, expose_value=False, callback=_print_schema, help="Print the plan's schema."
)
def batch(plan: Path, *, reports: tuple[Path, ...], dry_run: bool, as_json: bool, debug: bool, **options: Any) -> None:
    """Convert, prove and publish many checkpoints, as PLAN says.

    PLAN is a YAML file of defaults and jobs; each job is a checkpoint, or all that a pattern such as model.ckpt-*
    matches. What was finished is not done again, whatever ended the last run. A job that fails does not stop the
    others. Exit 1 if any failed.
    """
    with told(debug=debug):
        from rich.console import Console

        from electra_convert import BatchOptions, run_batch
        from electra_convert.report.batch import show_batch, watching
        from electra_convert.show import print_json, stdout_console

        if unknown := [str(path) for path in reports if path.suffix not in {".json", ".html"}]:
            raise OptionError(
                f"no report is made as {', '.join(unknown)}", hint="end the name of a report with .json or .html"
            )
        report = run_batch(
            plan,
            BatchOptions(**options),
            dry_run=dry_run,
            watching=lambda total: watching(total, Console(stderr=True)),
        )
        if as_json:
            print_json(report)
        else:
            show_batch(report, stdout_console())
        _write_reports(report, reports)
        sys.exit(INTERRUPTED if report.count("interrupted") else bool(report.failed))


def _write_reports(report: Any, paths: tuple[Path, ...]) -> None:
    if not paths:
        return
    from electra_convert.output import write_report
    from electra_convert.report.batch_page import render_batch_page
    from electra_convert.show import as_json

    renderers = {".html": render_batch_page, ".json": as_json}
    for path in paths:
        write_report(path, renderers[path.suffix](report))
