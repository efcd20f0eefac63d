"""How a command tells of what goes wrong: one message, and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from electra_convert.errors import ElectraConvertError, OptionError
from electra_convert.printable import printable_lines
from electra_convert.signals import heed_signals, tell_of_interrupt


@contextmanager
def told(*, debug: bool, code: int = 1) -> Iterator[None]:
    """Print an expected error as one message and leave: 2 for wrong usage, `code` for everything else."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # paths may hold what the terminal cannot show
    heed_signals()
    try:
        yield
    except ElectraConvertError as error:
        if debug:
            raise
        _tell(str(error))
        sys.exit(2 if isinstance(error, OptionError) else code)
    except KeyboardInterrupt:
        tell_of_interrupt()


@contextmanager
def printed() -> Iterator[None]:
    """Tell of a stdout that takes no more, as a full disk, and leave; that a reader has gone, click sees to."""
    try:
        yield
    except OSError as error:
        if not _is_of_stdout(error):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again, and fails, at the end
        _tell(f"what was to be printed could not be: {error.strerror}")
        sys.exit(1)


def _tell(message: str) -> None:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(printable_lines(message), err=True)


def _is_of_stdout(error: OSError) -> bool:
    """Say whether stdout made this error: then it makes it again."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")
    except OSError as again:
        return error.errno == again.errno and error.errno not in (None, errno.EPIPE)
    return False
