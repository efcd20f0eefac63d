"""How a command tells of what goes wrong: one message, and an exit code."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from electra_convert.errors import ElectraConvertError, OptionError


@contextmanager
def told(*, debug: bool) -> Iterator[None]:
    """Print an expected error as one message and leave: 2 for wrong usage, 1 for everything else."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # paths may hold what the terminal cannot show
    for end in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(end) != signal.SIG_IGN:  # as nohup has it
            signal.signal(end, lambda number, _: sys.exit(128 + number))  # so that nothing is left behind
    try:
        yield
    except ElectraConvertError as error:
        if debug:
            raise
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(_shown(str(error)), err=True)
        sys.exit(2 if isinstance(error, OptionError) else 1)
    except KeyboardInterrupt:
        click.echo("\ninterrupted: what was finished stays, nothing is half-written", err=True)
        sys.exit(130)


def _shown(text: str) -> str:
    """Return text with what a terminal would obey escaped: names in a file may hold anything."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )
