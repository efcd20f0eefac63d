"""What a conversion can be asked for, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest

from electra_convert import (
    BatchOptions,
    ConvertOptions,
    DiffOptions,
    ExportOptions,
    OptionError,
    UploadOptions,
    VerifyOptions,
    load_mappings,
)
from electra_convert.cli.arguments import HEADS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "encoder"}, r"there is no part 'encoder': discriminator, generator, both"),
        ({"layout": "sharded"}, r"there is no layout 'sharded'"),
        ({"dtype": "float64"}, r"there is no dtype 'float64'"),
        ({"targets": ("onnx",)}, r"there is no format 'onnx'"),
        ({"targets": ()}, r"no format is to be written"),
        ({"targets": ("flax", "flax")}, r"a format is named twice"),
        ({"dtype": "bfloat16"}, r"tensorflow cannot hold bfloat16(?s:.*)--to pytorch,flax"),
        ({"labels": ("a", "a")}, r"labels must differ"),
        ({"labels": ("a", "")}, r"labels must differ and have a name each"),
        ({"labels": ("a", "b"), "num_labels": 3}, r"num_labels is 3, but 2 labels are named"),
        ({"num_labels": 0}, r"num_labels is 0; it must be from 1 to"),
        ({"tokenizer": False, "lowercase": False}, r"no tokenizer is to be written"),
        ({"seed": -1}, r"seed is -1"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    """Each contradiction is told with its values, and what to do."""
    with pytest.raises(OptionError, match=message):
        ConvertOptions(**options)


def test_all_contradictions_are_told_at_once() -> None:
    """Two contradictions come in one error."""
    with pytest.raises(OptionError) as raised:
        ConvertOptions(seed=-1, num_labels=0)
    assert len(raised.value.problems) == 2


def test_the_order_of_formats_does_not_matter() -> None:
    """Formats are written in one order, so that the record is the same however they were asked for."""
    assert ConvertOptions(targets=("flax", "pytorch")) == ConvertOptions(targets=("pytorch", "flax"))


def test_the_command_line_offers_every_head() -> None:
    """The command line names the heads itself, so that `--help` reads no file; they are the inventory's."""
    assert list(HEADS) == list(load_mappings().inventory.heads)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": "masked_lm"}, r"heads is 'masked_lm': Expected `array`"),
        ({"labels": "ab"}, r"labels is 'ab': Expected `array`"),
        ({"seed": "0"}, r"seed is '0': Expected `int`"),
        ({"num_labels": 2.5}, r"num_labels is 2.5"),
        ({"config": 3}, r"config is 3"),
    ],
)
def test_wrong_types_are_refused(options: dict[str, Any], message: str) -> None:
    """A value of another type is an error of this package, not a traceback later on."""
    with pytest.raises(OptionError, match=message):
        ConvertOptions(**options)


def test_paths_may_be_text() -> None:
    """A path given as text is a path, in the options of whatever."""
    options: dict[str, Any] = {"config": "hparams.json", "heads": ["base"]}
    assert ConvertOptions(**options) == ConvertOptions(config=Path("hparams.json"), heads=("base",))


def test_paths_may_be_text_in_all_options(tmp_path: Path) -> None:
    """Every option that is a path, in every class of options."""
    file = tmp_path / "LICENSE"
    file.touch()
    required: dict[type, dict[str, Any]] = {UploadOptions: {"repo": "org/x"}, BatchOptions: {}}
    for kind in (ConvertOptions, VerifyOptions, DiffOptions, ExportOptions, UploadOptions, BatchOptions):
        for name, of in get_type_hints(kind).items():
            if "Path" not in str(of) or "str" in str(of):
                continue
            given: Any = (str(file),) if "tuple" in str(of) else str(file)
            held = getattr(kind(**required.get(kind, {}), **{name: given}), name)
            assert held == ((file,) if "tuple" in str(of) else file), (kind, name)
