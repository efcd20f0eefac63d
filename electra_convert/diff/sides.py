"""The two checkpoints of a comparison, each opened in its own way and seen in the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from electra_convert.config import ElectraConfig
from electra_convert.config_file import read_config_file
from electra_convert.convert import choose_parts
from electra_convert.diff.options import SideOptions
from electra_convert.diff.report import ComparedSide
from electra_convert.formats import TargetFormat
from electra_convert.mapping import Mappings
from electra_convert.model_directory import open_model_directory, refuse_folder_of_models
from electra_convert.models.files import NOT_OF_THE_MODEL
from electra_convert.opening import open_located
from electra_convert.part import SOURCE_FORMAT
from electra_convert.progress import Progress, no_progress
from electra_convert.remote.place import is_url
from electra_convert.source import Location, locate
from electra_convert.tensor import Tensor
from electra_convert.tokenizer import TOKENIZER_FILES, VOCABULARY_FILE


class Side(msgspec.Struct, frozen=True):
    """A checkpoint, open.

    Args:
        described: What a report says of it.
        config: Its config.
        assumed: The fields that follow Google's rule, for nothing shows them.
        extras: What else its `config.json` says.
        tensors: Its tensors, by canonical name.
        files: The files of its tokenizer, by name.
        whole: These files are all that belong to it; Google's code has the vocabulary alone.
        check: Compares what was read with its checksums, where there are some.
    """

    described: ComparedSide
    config: Mapping[str, Any]
    assumed: frozenset[str]
    extras: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Path]
    whole: bool
    check: Callable[[], None] = lambda: None


@contextmanager
def open_side(
    source: str | os.PathLike[str], mappings: Mappings, options: SideOptions, progress: Progress = no_progress
) -> Iterator[Side]:
    """Open a checkpoint: a directory of a model as what it is, all else as a checkpoint of Google's code.

    Raises:
        ElectraConvertError: The subclass says what went wrong.
    """
    if not is_url(source):
        refuse_folder_of_models(Path(source), "no directory of one model, nor a checkpoint of Google's code")
    with locate(source, step=options.step, progress=progress) as location:
        if location.is_model:
            yield _model(source, location, mappings, options.format)
        else:
            yield _google(source, location, mappings, options)


def _model(source: str | os.PathLike[str], location: Location, mappings: Mappings, target: TargetFormat | None) -> Side:
    path = location.prefix
    opened = open_model_directory(path, mappings, target, file=location.file)
    known = {*ElectraConfig.__struct_fields__, *NOT_OF_THE_MODEL, "architectures"}
    architecture = mappings.inventory.heads[opened.head].architecture
    return Side(
        described=ComparedSide(
            source=str(source),
            format=opened.target,
            model=architecture,
            unread=opened.others,
            unknown=tuple(sorted(opened.unknown)),
        ),
        config=_fields(opened.config, architecture),
        assumed=frozenset(),
        extras={name: value for name, value in opened.said.items() if name not in known},
        tensors={**opened.tensors, **opened.unknown},
        files={name: path / name for name in TOKENIZER_FILES if (path / name).is_file()},
        whole=True,
    )


def _google(source: str | os.PathLike[str], location: Location, mappings: Mappings, options: SideOptions) -> Side:
    files, checkpoint = open_located(location, mappings, options.part)
    checkpoint = checkpoint.with_task(options.task)
    (part,) = choose_parts(options.part, checkpoint)
    config_file = read_config_file(options.config) if options.config else None
    known = checkpoint.understand([part], config_file=config_file)[part]
    architecture = mappings.inventory.heads[known.native_head or "base"].architecture
    names = sorted({binding.name for binding in known.bindings})
    return Side(
        described=ComparedSide(source=str(source), format=SOURCE_FORMAT, model=architecture),
        config=_fields(known.config, architecture),
        assumed=frozenset(known.assumed),
        extras={},
        tensors=known.canonical(files.tensors),
        files={VOCABULARY_FILE: location.vocabulary} if location.vocabulary else {},
        whole=False,
        check=lambda: files.check(names),
    )


def _fields(config: ElectraConfig, architecture: str) -> dict[str, Any]:
    return {"architecture": architecture, **msgspec.structs.asdict(config)}
