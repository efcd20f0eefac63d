"""What a Hub accepts as the metadata of a model card."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)

License = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.+-]*$")]
"""An identifier such as `apache-2.0`; the Hub knows a list of them, all in lower case."""
Language = Annotated[str, Meta(pattern=r"^([a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual)$")]
"""A code of ISO 639, or one of the Hub's own words."""
ModelId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")]
Tag = Annotated[str, Meta(min_length=1)]


class Metadata(msgspec.Struct, rename={"model_index": "model-index"}):
    """The keys whose types the Hub checks; it lets others be anything."""

    license: License | list[License] | None = None
    license_name: str | None = None
    license_link: str | None = None
    language: Language | list[Language] | None = None
    library_name: str | None = None
    pipeline_tag: str | None = None
    tags: list[Tag] | None = None
    base_model: ModelId | list[ModelId] | None = None
    datasets: str | list[str] | None = None
    metrics: str | list[str] | None = None
    model_index: list[dict[str, Any]] | None = None


def card_metadata(card: str) -> dict[str, Any] | None:
    """Return the metadata of a card, None if it has none.

    Raises:
        ValueError: It is not what the Hub accepts.
    """
    found = FRONT_MATTER.match(card)
    if not found:
        return None
    try:
        metadata: dict[str, Any] | None = yaml.safe_load(found[1])
        msgspec.convert(metadata, Metadata | None)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ValueError(f"the card's metadata is wrong: {error}") from error
    return metadata
