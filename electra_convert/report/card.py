"""The model card: what is published, how it is loaded, where it came from, and what was proven of it."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import msgspec

from electra_convert.errors import ConfigError, OptionError
from electra_convert.parity.directories import Directory
from electra_convert.parity.verification import Verification
from electra_convert.report.card_content import (
    UNTRAINED,
    UNVERIFIED,
    CardMetadata,
    Subject,
    card_content,
    cell,
    code,
    drawn_modules,
    front_matter,
)
from electra_convert.whole_file import read_whole

__all__ = ["CardMetadata", "check_card", "render_card", "required_words"]

TEMPLATE = Path(__file__).with_name("card.md.j2")
LARGEST_CARD = 4_000_000
"""Bytes of a card, or of a template of one: the package's own has ten thousand."""


class FrontMatter(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the front matter that the Hub reads, with the types it takes."""

    license: str | list[str] | None = None
    language: str | list[str] | None = None
    library_name: str | None = None
    pipeline_tag: str | None = None
    tags: list[str] | None = None
    base_model: str | list[str] | None = None
    datasets: str | list[str] | None = None


def render_card(
    directory: Directory,
    verification: Verification | None,
    *,
    repo_id: str,
    revision: str | None = None,
    metadata: CardMetadata = CardMetadata(),  # noqa: B008  # it is immutable
    template: Path | None = None,
) -> str:
    """Return the card of a directory: Markdown that begins with YAML.

    Args:
        directory: The directory.
        verification: What was found for it; `None` if it was never verified, or changed since.
        repo_id: The repository it is published in.
        revision: The revision, if it is not the main one.
        metadata: What the publisher knows.
        template: A Jinja template in place of the package's own. It is given the variables of `Card`.

    Raises:
        OptionError: The verification failed: such a model is not published.
        ConfigError: The template cannot be rendered, or its card leaves out what must be said.
    """
    if verification is not None and verification.status == "failed":
        raise OptionError(
            f"{directory.path} is not published: {verification.verdict}", hint="convert it again, then verify it"
        )
    subject = Subject(directory, verification, repo_id, revision)
    front = front_matter(subject, metadata)
    variables = (
        msgspec.structs.asdict(metadata) | msgspec.structs.asdict(card_content(subject, front)) | {"tags": front.tags}
    )
    text = _render(TEMPLATE if template is None else template, variables).strip() + "\n"
    check_card(text, directory, verification, name=str(template or TEMPLATE.name))
    return text


def required_words(directory: Directory, verification: Verification | None) -> tuple[str, ...]:
    """Return the words that a card of a directory must contain.

    Args:
        directory: The directory.
        verification: What was found for it; `None` if it was never verified, or changed since.
    """
    untrained = (UNTRAINED,) if drawn_modules(directory) else ()
    proven = verification is not None and verification.status == "proven"
    return untrained if proven else (*untrained, UNVERIFIED)


def check_card(text: str, directory: Directory, verification: Verification | None, *, name: str = "README.md") -> None:
    """Check that a card, whoever wrote it, is one and says what must be said.

    Args:
        text: The card.
        directory: The directory it is for.
        verification: What was found for it; `None` if it was never verified, or changed since.
        name: What the card is called in messages.

    Raises:
        ConfigError: Its front matter is missing or wrong, or it lacks a word of `required_words`.
    """
    body = re.sub(r"<!--.*?(-->|\Z)", "", _body(text, name), flags=re.DOTALL).casefold()
    lacking = [word for word in required_words(directory, verification) if not re.search(rf"\b{word}\b", body)]
    if lacking:
        raise ConfigError(
            f"{name} does not say that the model is {' and '.join(lacking)}",
            hint=f"write the word{'s' if len(lacking) > 1 else ''} in its text, or have the card written for you",
        )


def _body(text: str, name: str) -> str:
    """Return what follows the front matter of a card, which must be right."""
    import yaml
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    hint = "begin it with a line ---, then YAML such as `license: apache-2.0`, then a line ---"
    block = REGEX_YAML_BLOCK.search(text)
    if block is None:
        raise ConfigError(f"{name} has no front matter", hint=hint)
    try:
        msgspec.convert(yaml.safe_load(block.group(2)), FrontMatter)
        return str(ModelCard(text).text)
    except (ValueError, TypeError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise ConfigError(f"{name} has front matter that the Hub does not take: {error}", hint=hint) from error


def _render(path: Path, variables: dict[str, Any]) -> str:
    """Render a template; it runs in a sandbox, for it may come from a pull request.

    `ModelCard.from_template` is not used: to it, a name that does not exist is an empty text.
    """
    from jinja2 import FunctionLoader, StrictUndefined, TemplateError, TemplateNotFound
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def load(name: str) -> tuple[str, str, None]:
        if name != path.name:
            raise TemplateNotFound(name, f"{name} is another file, and a template is one file")
        return read_whole(path, LARGEST_CARD).decode(), str(path), None

    environment = ImmutableSandboxedEnvironment(
        loader=FunctionLoader(load), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"code": code, "cell": cell}
    try:
        return environment.get_template(path.name).render(variables)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, OSError) as error:
        line = _line(error, path)
        raise ConfigError(
            f"the template {path} cannot be rendered{f': line {line}' if line else ''}: {error}",
            hint=f"correct it; its variables are {', '.join(sorted(variables))}",
        ) from error


def _line(error: Exception, path: Path) -> int | None:
    """Return the line of a template at which it failed."""
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
    return getattr(error, "lineno", line)
