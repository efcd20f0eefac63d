"""What tests of sources elsewhere ask of a source: its values, or why there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from electra_convert.errors import ElectraConvertError, SourceError
from electra_convert.formats.google_tf1 import open_checkpoint
from electra_convert.source import locate


def values_of(source: str | Path, **options: Any) -> dict[str, bytes]:
    """Read all tensors of a source, checksums compared."""
    with locate(source, **options) as location:
        checkpoint = open_checkpoint(location.prefix)
        checkpoint.check(checkpoint.tensors)
        return {name: tensor.load().tobytes() for name, tensor in checkpoint.tensors.items()}


def refusal(source: str, kind: type[ElectraConvertError] = SourceError) -> str:
    """Return the message with which a source is refused."""
    with pytest.raises(ElectraConvertError) as error:
        values_of(source)
    assert type(error.value) is kind, error.value
    return str(error.value)
