"""`electra-convert convert`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from electra_convert.cli.arguments import (
    ANY_PATH,
    EXISTING_FILE,
    HEADS,
    NATIVE_HEAD,
    SOURCE,
    CommaSeparated,
    common,
    target_choices,
)
from electra_convert.cli.errors import told
from electra_convert.cli.verify import require_provable, show_proof, verified_output


@click.command()
@click.argument("source", type=SOURCE, default=Path())
@click.argument("out", type=ANY_PATH, required=False)
@click.option(
    "--part",
    type=click.Choice(["discriminator", "generator", "both"]),
    help="The part to convert; needed only where a checkpoint has two.",
)
@click.option(
    "--head",
    "heads",
    type=CommaSeparated((*HEADS, NATIVE_HEAD), everything="all"),
    default="all",
    show_default=True,
    help=f"Heads to write: all, native (the one that was trained), or some of {', '.join(HEADS)}.",
)
@click.option(
    "--task",
    metavar="NAME[=HEAD]",
    help="The fine-tuned task whose head is converted; needed where a checkpoint has several. HEAD says what it is, "
    "where its name does not: sequence_classification, token_classification or question_answering.",
)
@click.option(
    "--to",
    "targets",
    type=CommaSeparated(target_choices),
    default="pytorch,tensorflow,flax",
    show_default=True,
    help="Formats to write; or google_tf1 alone, a checkpoint for Google's code.",
)
@click.option(
    "--generator",
    type=SOURCE,
    help="With --to google_tf1: the source of the generator. SOURCE is the discriminator's then.",
)
@click.option(
    "--with-optimizer-slots",
    "optimizer_slots",
    is_flag=True,
    help="With --to google_tf1: Adam's moments too, at zero, as run_pretraining.py needs them to go on.",
)
@click.option(
    "--untied-embeddings",
    is_flag=True,
    help="With --to google_tf1: the generator has embeddings of its own (untied_generator_embeddings).",
)
@click.option("--vocab", type=EXISTING_FILE, help="The vocab.txt; by default the one beside the checkpoint.")
@click.option("--tokenizer/--no-tokenizer", default=True, help="Write tokenizer files, or the weights alone.")
@click.option("--uncased/--cased", "lowercase", default=None, help="Text is lower-cased, or not. Default: uncased.")
@click.option("--strip-accents/--no-strip-accents", default=None, help="Default: as Google's code, if uncased.")
@click.option("--labels", type=CommaSeparated(), default=(), help="Names of labels, for classification heads.")
@click.option("--num-labels", type=click.IntRange(min=1), help="Number of labels. Default: 2.")
@click.option("--label-map", type=EXISTING_FILE, help="A tagger's <task>_label_mapping.pkl, in place of --labels.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For heads that are initialised."
)
@click.option(
    "--layout",
    type=click.Choice(["single", "shared"]),
    default="single",
    show_default=True,
    help="One file a head, or one backbone hard-linked into all heads.",
)
@click.option("--split-formats", is_flag=True, help="One directory for each format.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Dtype to write.",
)
@click.option("--overwrite", is_flag=True, help="Replace head directories that exist.")
@click.option("--dry-run", is_flag=True, help="Show the plan; write nothing.")
@click.option(
    "--verify", "verified", is_flag=True, help="Prove what was written, as `verify` does; exit 1 if it fails."
)
@common
def convert(
    source: str | Path, out: Path | None, *, dry_run: bool, verified: bool, as_json: bool, debug: bool, **options: Any
) -> None:
    """Convert SOURCE to OUT.

    SOURCE is a checkpoint's directory, prefix, one of its files, or a .zip or .tar.gz of it, or the URL of one
    (https://, gs://, s3://, hf://org/name), or google://electra-small, -base or -large; or the directory of a model
    of PyTorch, TensorFlow or Flax, or its file of weights; by default the working directory. OUT is by default
    ./NAME-PART, or ./NAME-converted for a model, or ./NAME-google for a checkpoint for Google's code.
    """
    with told(debug=debug):
        from electra_convert import ConvertOptions, convert_checkpoint
        from electra_convert.show import print_json, show_conversion, show_progress

        if verified:
            require_provable(dry_run=dry_run)
        with show_progress() as progress:
            report = convert_checkpoint(
                source, out, ConvertOptions(**options), dry_run=dry_run, exist_ok=verified, progress=progress
            )
        if not as_json:
            show_conversion(report, dry_run=dry_run)
        elif not verified:
            print_json(report)
        if verified:
            known = {name: options[name] for name in ("step", "mappings", "generator")}
            known |= {"config": options["config"]} if "google_tf1" in options["targets"] else {}
            proof = verified_output(report.output, {"source": source, **known})
            show_proof(proof, {"conversion": report, "verification": proof} if as_json else None)
            sys.exit(proof.status != "proven")
