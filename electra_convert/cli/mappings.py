"""`electra-convert mappings`."""

from __future__ import annotations

from pathlib import Path

import click

from electra_convert.cli.arguments import EXISTING_FOLDER
from electra_convert.cli.errors import told
from electra_convert.printable import printable


@click.group()
def mappings() -> None:
    """List or check the mapping files, or print their JSON Schema."""


@mappings.command("list")
@click.argument("folder", type=EXISTING_FOLDER, required=False)
def list_mappings(folder: Path | None) -> None:
    """List the formats of FOLDER, by default of the package's own mappings."""
    with told(debug=False):
        from electra_convert import load_mappings
        from electra_convert.mapping import default_directory

        loaded = load_mappings(folder)
        click.echo(printable(str(folder or default_directory())))
        for name, digest in loaded.hashes.items():
            click.echo(f"  {printable(name):<20} sha256 {digest[:16]}")


@mappings.command("check")
@click.argument("folder", type=EXISTING_FOLDER, required=False)
def check_mappings(folder: Path | None) -> None:
    """Check the mappings of FOLDER: every fault is listed."""
    with told(debug=False):
        from electra_convert import load_mappings

        loaded = load_mappings(folder)
        rows = len(loaded.inventory.rows)
        click.echo(
            f"{len(loaded.formats)} formats name all {rows} modules of {len(loaded.inventory.heads)} heads: no fault"
        )


@mappings.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of mapping files, for editors."""
    import json

    from electra_convert.mapping import mapping_schema

    click.echo(json.dumps(mapping_schema(), indent=2))
