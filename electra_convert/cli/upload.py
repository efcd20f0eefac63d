"""`electra-convert upload`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from electra_convert.cli.arguments import EXISTING_FILE, EXISTING_FOLDER, HEADS, NATIVE_HEAD, CommaSeparated
from electra_convert.cli.errors import told
from electra_convert.errors import OptionError, PartialUploadError


@click.command()
@click.argument("output", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("repo_id", required=False)
@click.option(
    "--repo",
    metavar="TEMPLATE",
    help="The repositories of several models: 'org/name-{part}'. Placeholders: {part}, {head}, {format}, {step}.",
)
@click.option(
    "--head",
    "heads",
    type=CommaSeparated(HEADS, everything=NATIVE_HEAD),
    default=(),
    help="Heads to publish. By default the native head; any other must be named.",
)
@click.option("--private", is_flag=True, help="Make the repository private; refuse one that is public.")
@click.option("--revision", metavar="BRANCH", help="The branch; it is made if there is none. Default: main.")
@click.option("--create-pr", is_flag=True, help="Open a pull request in place of a commit.")
@click.option("--commit-message", metavar="TITLE", help="Title of the commit.")
@click.option("--allow-unverified", is_flag=True, help="Publish what was never proven; its card says so.")
@click.option("--include", multiple=True, type=EXISTING_FILE, help="Publish this file too: LICENSE, a picture.")
@click.option("--license", metavar="ID", help="License of the model, for its card: apache-2.0.")
@click.option("--language", type=CommaSeparated(), help="Languages of the model: ko,en.")
@click.option("--tags", type=CommaSeparated(), help="Tags beside those that follow from the model.")
@click.option("--datasets", type=CommaSeparated(), help="Datasets on the Hub it was trained on.")
@click.option("--base-model", metavar="REPO", help="The model on the Hub it was made from.")
@click.option("--card-template", type=EXISTING_FILE, help="A Jinja template for the card, in place of the own one.")
@click.option("--mappings", type=EXISTING_FOLDER, help="A folder of mappings instead of the package's own.")
@click.option("--dry-run", is_flag=True, help="List what would change; send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def upload(
    output: Path,
    repo_id: str | None,
    *,
    repo: str | None,
    dry_run: bool,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Publish DIR on the Hub, as the repository REPO_ID.

    DIR is the output of a conversion, or one head's directory, and must have been proven by `verify`. Its native
    head is published, with a model card; or the heads that --head names. What is on the Hub already is not sent
    again. The token is that of `hf auth login`, or HF_TOKEN.
    """
    with told(debug=debug):
        from electra_convert import UploadOptions, UploadReport, upload_output
        from electra_convert.report.card import CardMetadata
        from electra_convert.report.upload import show_upload
        from electra_convert.show import client_progress, print_json, stdout_console

        if (repo_id is None) == (repo is None):
            raise OptionError(
                "the repository is named twice" if repo else "no repository is named",
                hint="give REPO_ID for one model: org/name, or --repo 'org/name-{part}' for several",
            )
        given = {name: value for name, value in options.items() if value not in (None, ())}
        card = CardMetadata(**{name: given.pop(name) for name in CardMetadata.__struct_fields__ if name in given})
        asked = UploadOptions(repo=repo_id or repo or "", card=card, **given)

        def show(report: UploadReport) -> None:
            if as_json:
                print_json(report)
            else:
                show_upload(report, stdout_console())

        try:
            with client_progress() as notify:
                show(upload_output(output, asked, dry_run=dry_run, notify=notify))
        except PartialUploadError as error:
            show(error.report)
            raise
