"""What commands take: types of values, and the options every command has that reads a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class AnyPath(click.Path):
    """A path, there or not; nothing is no path, though `Path("")` would be the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("it is empty; expected a path, '.' for the working directory", param, ctx)
        return super().convert(value, param, ctx)


ANY_PATH = AnyPath(path_type=Path)


class Source(click.ParamType[Any]):
    """A path, or a URL; which of them, the library tells apart by their types."""

    name = "source"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:  # noqa: ARG002  # click's signature
        """Return what help shows for the value."""
        return "PATH|URL" if isinstance(param, click.Option) else None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | Path:
        """Return a URL as it is; a path would lose one of its slashes."""
        from electra_convert.remote.place import is_url

        return str(value) if is_url(value) else Path(ANY_PATH.convert(value, param, ctx))


SOURCE = Source()
NATIVE_HEAD = "native"
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


def target_choices() -> tuple[str, ...]:
    """Return the formats that can be written."""
    from electra_convert.options import TARGET_CHOICES

    return TARGET_CHOICES


class CommaSeparated(click.ParamType[Any]):
    """Several values in one option: `a,b,c`."""

    name = "list"

    def __init__(
        self, choices: tuple[str, ...] | Callable[[], tuple[str, ...]] = (), *, everything: str | None = None
    ) -> None:
        self._choices = choices
        self.everything = everything

    @property
    def choices(self) -> tuple[str, ...]:
        """The values there are, which may be known only when they are asked for; none means any."""
        return self._choices() if callable(self._choices) else self._choices

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
