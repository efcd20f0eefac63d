"""Names with placeholders: `org/{name}-{part}`."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

from electra_convert.errors import OptionError


def placeholders(template: str) -> list[str]:
    """Return the placeholders of a template, in their order.

    Raises:
        OptionError: It is not a template.
    """
    try:
        parsed = [(field, spec, conversion) for _, field, spec, conversion in Formatter().parse(template)]
    except ValueError as error:
        raise OptionError(f"{template!r} is no template: {error}", hint="write {{ and }} for braces") from error
    named = [(field, spec, conversion) for field, spec, conversion in parsed if field is not None]
    if any(spec or conversion or not field.isidentifier() for field, spec, conversion in named):
        raise OptionError(f"{template!r} is no template", hint="a placeholder is a name alone: {part}")
    return [field for field, _, _ in named]


def fill(template: str, values: Mapping[str, str | None]) -> str:
    """Fill in a template.

    Args:
        template: The template.
        values: What the placeholders stand for; `None` where a name has no value here.

    Raises:
        OptionError: A placeholder is unknown, or has no value here.
    """
    used = placeholders(template)
    unknown = [name for name in used if name not in values]
    empty = [name for name in used if name in values and not values[name]]
    if unknown or empty:
        raise OptionError(
            f"{template!r} cannot be filled in",
            problems=[
                *(f"there is no {{{name}}}: {', '.join(f'{{{known}}}' for known in values)}" for name in unknown),
                *(f"{{{name}}} has no value here" for name in empty),
            ],
            hint="write the name out",
        )
    return template.format_map(values)
