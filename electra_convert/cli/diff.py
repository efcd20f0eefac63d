"""`electra-convert diff`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from electra_convert.cli.arguments import SOURCE, CommaSeparated, common
from electra_convert.cli.errors import told


@click.command()
@click.argument("a", type=SOURCE)
@click.argument("b", type=SOURCE)
@click.option(
    "--format",
    "formats",
    type=CommaSeparated(("pytorch", "tensorflow", "flax")),
    default=(),
    help="The format to read where a directory holds several: one for both sides, or A,B. By default the first of "
    "pytorch, tensorflow and flax that is there.",
)
@click.option(
    "--part",
    "parts",
    type=CommaSeparated(("discriminator", "generator")),
    default=(),
    help="The part of Google's checkpoints that hold two: one for both sides, or A,B.",
)
@click.option("--task", metavar="NAME[=HEAD]", help="The task of Google's checkpoints that were fine-tuned on several.")
@common
def diff(a: str | Path, b: str | Path, *, as_json: bool, debug: bool, **options: Any) -> None:
    """Say in what two checkpoints differ, in any two formats.

    A and B are each a checkpoint of Google's code, named as for `convert`, or a directory with config.json and weights
    as transformers has them. Config, every tensor by its canonical name, and tokenizer are compared. Exit 0 if they
    are equal, every tensor bit for bit; 1 if they differ, if only by a cast; 2 if they cannot be compared. --step,
    --config and --task are about Google's checkpoints.
    """
    with told(debug=debug, code=2):
        from electra_convert import DiffOptions, diff_checkpoints
        from electra_convert.report.difference import show_difference
        from electra_convert.show import print_json, show_progress, stdout_console

        with show_progress() as progress:
            report = diff_checkpoints(a, b, DiffOptions(**options), progress=progress)
        if as_json:
            print_json(report)
        else:
            show_difference(report, stdout_console())
        sys.exit(not report.equal)
