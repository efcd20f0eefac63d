"""The command line: a command parses, calls one function of the library, and prints."""

from __future__ import annotations

from glob import escape
from io import StringIO
from pathlib import Path

import click

from electra_convert._version import __version__
from electra_convert.cli.batch import batch
from electra_convert.cli.convert import convert
from electra_convert.cli.diff import diff
from electra_convert.cli.errors import printed
from electra_convert.cli.export import export
from electra_convert.cli.inspect import inspect
from electra_convert.cli.mappings import mappings
from electra_convert.cli.upload import upload
from electra_convert.cli.verify import verify
from electra_convert.printable import printable_lines


class DefaultGroup(click.Group):
    """A group that runs `convert` where no command is named."""

    default = "convert"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command before arguments that begin with no command and no option of the group."""
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if not args or (args[0] not in self.commands and args[0] not in own):
            self._require_no_slip(ctx, args)
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def _require_no_slip(self, ctx: click.Context, args: list[str]) -> None:
        """Refuse a word that is nearly a command, and neither a file nor the prefix of some."""
        word = args[0] if args else ""
        if not word or word.startswith("-") or "/" in word or any(Path().glob(f"{escape(word)}*")):
            return
        from difflib import get_close_matches

        if meant := get_close_matches(word, self.commands, n=1, cutoff=0.75):
            ctx.fail(f"there is no command {word!r}, and no file of that name. Did you mean {meant[0]!r}?")

    def format_usage(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the call without a command first, for it is the usual one."""
        formatter.write_usage("electra-convert", "[convert] --part PART [SOURCE] [OUT] [OPTIONS]")
        formatter.write_usage("electra-convert", "COMMAND [ARGS]...", prefix="       ")


@click.group(cls=DefaultGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="electra-convert %(version)s")
def main() -> None:
    """Turn a checkpoint of google-research/electra into PyTorch, TensorFlow and Flax models.

    \b
    electra-convert --part discriminator electra_small

    writes every head in every framework to ./electra_small-discriminator, ready to be loaded by transformers.
    `electra-convert convert --help` lists the options.
    """  # noqa: D301  # click takes the control character as "keep these lines"


for command in (convert, verify, upload, batch, inspect, diff, export, mappings):
    main.add_command(command)


def run() -> int:
    """Run what was typed, and return its exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C came; click would have words of its own for it.
    """
    try:
        with printed():
            code: int = main(prog_name="electra-convert", standalone_mode=False) or 0
    except click.ClickException as error:
        said = StringIO()
        error.show(said)
        click.echo(printable_lines(said.getvalue()), nl=False, err=True)
        return error.exit_code
    except click.Abort as abort:
        raise KeyboardInterrupt from abort
    return code
