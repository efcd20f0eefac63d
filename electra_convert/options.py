"""What a conversion is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_type_hints

import msgspec

from electra_convert.config import label_names
from electra_convert.errors import OptionError
from electra_convert.formats import FRAMEWORKS, GOOGLE, TARGETS, TargetFormat, module_of
from electra_convert.label_map import read_label_map
from electra_convert.mapping import LAYOUTS, Layout

Dtype = Literal["float32", "float16", "bfloat16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
PartChoice = Literal["discriminator", "generator", "both"]
PART_CHOICES: tuple[PartChoice, ...] = get_args(PartChoice)
MOST_LABELS = 1 << 16
NATIVE_HEAD: Final = "native"
"""Stands for the head that a part was trained on."""
TARGET_CHOICES: tuple[TargetFormat, ...] = (*TARGETS, GOOGLE)


def take_paths(options: msgspec.Struct, *names: str) -> None:
    """Turn what options name as texts into paths: whoever writes Python gives either."""
    for name in names:
        value = getattr(options, name)
        if isinstance(value, (list, tuple)):
            msgspec.structs.force_setattr(options, name, tuple(map(Path, value)))
        elif value is not None:
            msgspec.structs.force_setattr(options, name, Path(value))


class ConvertOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to convert, and how.

    Args:
        part: The part, or both; may be left out where the checkpoint has only one.
        heads: Names of heads; none means all, `native` is the one a part was trained on.
        task: The fine-tuned task whose head is converted, as `NAME`; or as `NAME=HEAD`, where its name does not tell
            what head it has. May be left out where the checkpoint has only one.
        targets: The formats to write; `google_tf1`, a checkpoint for Google's code, stands alone.
        generator: The source of the generator, where a checkpoint for Google's code is made of two.
        optimizer_slots: Put what Google's optimiser keeps beside its variables, at its start.
        untied_embeddings: Give the generator embeddings of its own in a checkpoint for Google's code.
        step: The step to convert; by default the one the `checkpoint` file names.
        config: Google's hparams, or a `bert_config.json` or `config.json`.
        vocab: The `vocab.txt`; by default the one beside the checkpoint.
        tokenizer: Whether to write tokenizer files.
        lowercase: Whether the model saw lower-cased text; by default what the hparams say, else yes.
        strip_accents: Whether it saw text without accents; by default whether it was lower-cased.
        seed: Seed of the heads that the checkpoint lacks.
        labels: Names of the labels of the heads that have some.
        num_labels: Their number, where they have no names.
        label_map: The file in which Google's code keeps the numbers of a tagger's labels, in place of their names.
        layout: `single`: each head is one file. `shared`: all heads share one file of backbone, by hard links.
        split_formats: Write a directory for each format.
        dtype: The dtype to write.
        mappings: A folder of mappings to use instead of the package's own.
        overwrite: Replace what is there.

    Raises:
        OptionError: These contradict one another; all contradictions are listed.
    """

    part: PartChoice | None = None
    heads: tuple[str, ...] = ()
    task: str | None = None
    targets: tuple[TargetFormat, ...] = FRAMEWORKS
    generator: str | None = None
    optimizer_slots: bool = False
    untied_embeddings: bool = False
    step: int | None = None
    config: Path | None = None
    vocab: Path | None = None
    tokenizer: bool = True
    lowercase: bool | None = None
    strip_accents: bool | None = None
    seed: int = 0
    labels: tuple[str, ...] = ()
    num_labels: int | None = None
    label_map: Path | None = None
    layout: Layout = "single"
    split_formats: bool = False
    dtype: Dtype = "float32"
    mappings: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        problems = [*self._unknown()] or [*self._mistyped()] or [*self._conflicts()]
        if problems:
            raise OptionError("these options do not go together", problems=problems, hint=self._hint(problems))
        in_order = tuple(target for target in TARGET_CHOICES if target in self.targets)
        msgspec.structs.force_setattr(self, "targets", in_order)  # the order asked for changes no byte

    @property
    def formats(self) -> tuple[TargetFormat, ...]:
        """The formats of frameworks to write."""
        return tuple(target for target in TARGETS if target in self.targets)

    def _unknown(self) -> Iterator[str]:
        """Yield values that no choice has."""
        chosen: list[tuple[str, Any, Sequence[Any]]] = [
            ("part", self.part, (None, *PART_CHOICES)),
            ("layout", self.layout, LAYOUTS),
            ("dtype", self.dtype, DTYPES),
            *(("format", target, TARGET_CHOICES) for target in self.targets),
        ]
        for what, value, choices in chosen:
            if value not in choices:
                yield f"there is no {what} {value!r}: {', '.join(filter(None, choices))}"

    def _mistyped(self) -> Iterator[str]:
        """Turn texts into paths and lists into tuples; yield what has no such meaning."""
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if name == "generator" and isinstance(value, os.PathLike):
                value = os.fspath(value)
            try:
                converted = msgspec.convert(value, kind, dec_hook=lambda wanted, given: wanted(given))
                msgspec.structs.force_setattr(self, name, converted)
            except (msgspec.ValidationError, TypeError) as error:
                yield f"{name} is {value!r}: {error}"

    def _conflicts(self) -> Iterator[str]:
        for target in self.formats:
            if self.dtype not in module_of(target).DTYPES:
                yield f"{target} cannot hold {self.dtype}: {', '.join(module_of(target).DTYPES)} can"
        if not self.targets:
            yield "no format is to be written"
        if len(set(self.targets)) < len(self.targets):
            yield f"a format is named twice: {', '.join(self.targets)}"
        yield from self._google_conflicts()
        yield from self._label_conflicts()
        if not self.tokenizer and (self.vocab or self.lowercase is not None or self.strip_accents is not None):
            yield "no tokenizer is to be written, but a vocabulary, casing or accents are given for it"
        if not 0 <= self.seed < 2**64:
            yield f"seed is {self.seed}; it must be a whole number from 0 to 2**64 - 1"

    def _google_conflicts(self) -> Iterator[str]:
        """Yield what only a checkpoint for Google's code has, or has not."""
        if GOOGLE not in self.targets:
            for name in ("generator", "optimizer_slots", "untied_embeddings"):
                if getattr(self, name):
                    yield f"{name} is given, which only {GOOGLE} has"
            return
        if self.formats:
            yield f"{GOOGLE} stands alone, and {' and '.join(self.formats)} are asked for too: convert twice"
        if self.dtype != "float32":
            yield f"{GOOGLE} cannot hold {self.dtype}: Google's code has float32 alone"
        if self.layout != "single" or self.split_formats:
            yield f"{GOOGLE} is one directory, and a layout is asked for"
        if len(self.heads) > 1:
            yield f"{GOOGLE} holds one head of a part, and several are asked for: {', '.join(self.heads)}"
        if self.generator and self.part in ("discriminator", "generator"):
            yield f"a source of the generator is given, and the {self.part} alone is asked for"

    def _label_conflicts(self) -> Iterator[str]:
        if len(set(self.labels)) < len(self.labels) or not all(self.labels):
            yield f"labels must differ and have a name each: {', '.join(self.labels)!r}"
        if self.num_labels is not None and not 1 <= self.num_labels <= MOST_LABELS:
            yield f"num_labels is {self.num_labels}; it must be from 1 to {MOST_LABELS}"
        if len(self.labels) > MOST_LABELS:
            yield f"there are {len(self.labels)} labels, more than {MOST_LABELS}"
        if self.labels and self.num_labels not in (None, len(self.labels)):
            yield f"num_labels is {self.num_labels}, but {len(self.labels)} labels are named"

        if self.label_map and (self.labels or self.num_labels is not None):
            yield "a map of labels is given, and labels or their number too"

    def label_names(self) -> tuple[str, ...] | None:
        """Return the labels' names, where the options say anything about them.

        Raises:
            ConfigError: The map of labels cannot be read.
        """
        if self.label_map:
            return read_label_map(self.label_map)
        if self.labels:
            return self.labels
        return None if self.num_labels is None else label_names(self.num_labels)

    def _hint(self, problems: list[str]) -> str:
        if self.dtype == "bfloat16" and "tensorflow" in self.targets and len(problems) == 1:
            return "leave TensorFlow out (--to pytorch,flax), or choose --dtype float32 or float16"
        return "change one of each pair"
