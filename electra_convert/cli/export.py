"""`electra-convert export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from electra_convert.cli.arguments import ANY_PATH, EXISTING_FOLDER, SOURCE, CommaSeparated
from electra_convert.cli.errors import told


@click.command()
@click.argument("model", type=SOURCE)
@click.argument("out", type=ANY_PATH)
@click.option(
    "--to",
    "targets",
    type=CommaSeparated(("orbax", "keras", "saved_model")),
    default="orbax,keras,saved_model",
    show_default=True,
    help="What to write: OUT/orbax, OUT/model.keras, OUT/saved_model/1.",
)
@click.option(
    "--format",
    type=click.Choice(("pytorch", "tensorflow", "flax")),
    help="The format to read where MODEL holds several; by default the first of these that is there.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there.")
@click.option("--mappings", type=EXISTING_FOLDER, help="A folder of mappings instead of the package's own.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def export(model: str | Path, out: Path, *, as_json: bool, debug: bool, **options: Any) -> None:
    """Write a model for the library of a framework alone: Orbax, Keras 3, SavedModel.

    MODEL is one head's directory that a conversion wrote, or any directory with config.json and weights of PyTorch,
    TensorFlow or Flax, on the Hub too: hf://org/name. What is written needs neither transformers nor this package.
    It is loaded by its library in a process of its own, run, and compared with the model; OUT appears if all agree.
    Tokenizer files and config.json are copied. Exit 1, and no OUT, if anything fails.
    """
    with told(debug=debug):
        from electra_convert import ExportOptions, export_model
        from electra_convert.export.show import show_export
        from electra_convert.show import print_json, show_progress, stdout_console

        with show_progress() as progress:
            report = export_model(model, out, ExportOptions(**options), progress=progress)
        if as_json:
            print_json(report)
        else:
            show_export(report, stdout_console())
