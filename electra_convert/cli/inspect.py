"""`electra-convert inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from electra_convert.cli.arguments import SOURCE, common
from electra_convert.cli.errors import told


@click.command()
@click.argument("source", type=SOURCE, default=Path())
@common
def inspect(source: str | Path, *, as_json: bool, debug: bool, **options: Any) -> None:
    """Say what a checkpoint holds, without reading its data."""
    with told(debug=debug):
        from electra_convert import inspect_checkpoint
        from electra_convert.show import print_json, show_inspection

        inspection = inspect_checkpoint(source, **options)
        if as_json:
            print_json(inspection)
        else:
            show_inspection(inspection)
