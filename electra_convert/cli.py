"""The command line: a command parses, calls one function of the library, and prints."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from electra_convert._version import __version__
from electra_convert.errors import ElectraConvertError, OptionError

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
ANY_PATH = click.Path(path_type=Path)
HEADS = (
    "base",
    "pretraining",
    "masked_lm",
    "causal_lm",
    "sequence_classification",
    "multiple_choice",
    "token_classification",
    "question_answering",
)


class DefaultGroup(click.Group):
    """A group that runs `convert` where no command is named."""

    default = "convert"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command before arguments that begin with no command and no option of the group."""
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if not args or (args[0] not in self.commands and args[0] not in own):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def format_usage(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the call without a command first, for it is the usual one."""
        formatter.write_usage("electra-convert", "[convert] --part PART [SOURCE] [OUT] [OPTIONS]")
        formatter.write_usage("electra-convert", "COMMAND [ARGS]...", prefix="       ")


class CommaSeparated(click.ParamType[Any]):
    """Several values in one option: `a,b,c`."""

    name = "list"

    def __init__(self, choices: tuple[str, ...] = (), *, everything: str | None = None) -> None:
        self.choices = choices
        self.everything = everything

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002  # click's signature
        """Return what help shows for the value."""
        return "NAME,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split the value; `all`, if it is allowed, is no restriction."""
        if isinstance(value, tuple):
            return value
        if value == self.everything:
            return ()
        names = tuple(name.strip() for name in value.split(","))
        unknown = [name for name in names if self.choices and name not in self.choices]
        if unknown:
            self.fail(f"{', '.join(map(repr, unknown))}: choose from {', '.join(self.choices)}.", param, ctx)
        return names


@contextmanager
def told(*, debug: bool) -> Iterator[None]:
    """Print an expected error as one message and leave: 2 for wrong usage, 1 for everything else."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # paths may hold what the terminal cannot show
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nothing is left behind
    try:
        yield
    except ElectraConvertError as error:
        if debug:
            raise
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(str(error), err=True)
        sys.exit(2 if isinstance(error, OptionError) else 1)
    except KeyboardInterrupt:
        click.echo("\ninterrupted: what was finished stays, nothing is half-written", err=True)
        sys.exit(130)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options every command has that reads a checkpoint."""
    for option in (
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout."),
        click.option("--mappings", type=EXISTING_FOLDER, help="A folder of mappings instead of the package's own."),
        click.option("--config", type=EXISTING_FILE, help="Google's hparams JSON, a bert_config.json or config.json."),
        click.option("--step", type=click.IntRange(min=0), help="The step to use; by default the latest."),
    ):
        command = option(command)
    return command


@click.group(cls=DefaultGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="electra-convert %(version)s")
def main() -> None:
    """Turn a checkpoint of google-research/electra into PyTorch, TensorFlow and Flax models.

    \b
    electra-convert --part discriminator electra_small

    writes every head in every framework to ./electra_small-discriminator, ready to be loaded by transformers.
    `electra-convert convert --help` lists the options.
    """  # noqa: D301  # click takes the control character as "keep these lines"


@main.command()
@click.argument("source", type=ANY_PATH, default=Path())
@click.argument("out", type=ANY_PATH, required=False)
@click.option(
    "--part",
    type=click.Choice(["discriminator", "generator", "both"]),
    help="The part to convert; needed only where a checkpoint has two.",
)
@click.option(
    "--head",
    "heads",
    type=CommaSeparated(HEADS, everything="all"),
    default="all",
    show_default=True,
    help=f"Heads to write: all, or some of {', '.join(HEADS)}.",
)
@click.option(
    "--to",
    "targets",
    type=CommaSeparated(("pytorch", "tensorflow", "flax")),
    default="pytorch,tensorflow,flax",
    show_default=True,
    help="Formats to write.",
)
@click.option("--vocab", type=EXISTING_FILE, help="The vocab.txt; by default the one beside the checkpoint.")
@click.option("--tokenizer/--no-tokenizer", default=True, help="Write tokenizer files, or the weights alone.")
@click.option("--uncased/--cased", "lowercase", default=None, help="Text is lower-cased, or not. Default: uncased.")
@click.option("--strip-accents/--no-strip-accents", default=None, help="Default: as Google's code, if uncased.")
@click.option("--labels", type=CommaSeparated(), default=(), help="Names of labels, for classification heads.")
@click.option("--num-labels", type=click.IntRange(min=1), help="Number of labels. Default: 2.")
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
    source: Path, out: Path | None, *, dry_run: bool, verified: bool, as_json: bool, debug: bool, **options: Any
) -> None:
    """Convert SOURCE to OUT.

    SOURCE is a checkpoint's directory, prefix, one of its files, or a .zip or .tar.gz of it; by default the
    working directory. OUT is by default ./NAME-PART.
    """
    with told(debug=debug):
        from electra_convert import ConvertOptions, convert_checkpoint
        from electra_convert.show import print_json, show_conversion, show_progress

        if verified:
            _require_provable(dry_run=dry_run)
        with show_progress() as progress:
            report = convert_checkpoint(source, out, ConvertOptions(**options), dry_run=dry_run, progress=progress)
        if not as_json:
            show_conversion(report, dry_run=dry_run)
        elif not verified:
            print_json(report)
        if verified:
            known = {name: options[name] for name in ("step", "mappings")}
            proof = _verified(report.output, {"source": source, **known})
            _show_proof(proof, {"conversion": report, "verification": proof} if as_json else None)
            sys.exit(proof.status != "proven")


@main.command()
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
        report = _verified(output, options)
        _show_proof(report, report if as_json else None)
        _write_reports(report, html, junit)
        sys.exit(report.status not in {"proven", "audited"})


def _require_provable(*, dry_run: bool) -> None:
    """Check before anything is written that it can be verified."""
    from electra_convert.parity.reference import require_oracle

    if dry_run:
        raise OptionError("a dry run writes nothing that could be verified", hint="leave out --verify or --dry-run")
    require_oracle()


def _verified(output: Path, options: dict[str, Any]) -> Any:
    from electra_convert import VerifyOptions, verify_output
    from electra_convert.show import show_progress

    given = {name: value for name, value in options.items() if value not in (None, (), {})}
    with show_progress() as progress:
        return verify_output(output, VerifyOptions(**given), progress=progress)


def _show_proof(report: Any, as_json: Any) -> None:
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


@main.command()
@click.argument("source", type=ANY_PATH, default=Path())
@common
def inspect(source: Path, *, as_json: bool, debug: bool, **options: Any) -> None:
    """Say what a checkpoint holds, without reading its data."""
    with told(debug=debug):
        from electra_convert import inspect_checkpoint
        from electra_convert.show import print_json, show_inspection

        inspection = inspect_checkpoint(source, **options)
        if as_json:
            print_json(inspection)
        else:
            show_inspection(inspection)


@main.group()
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
        click.echo(f"{folder or default_directory()}")
        for name, digest in loaded.hashes.items():
            click.echo(f"  {name:<20} sha256 {digest[:16]}")


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
