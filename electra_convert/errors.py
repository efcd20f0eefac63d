"""Every error this package raises on purpose.

::

    ElectraConvertError
    ├── OptionError                     the request contradicts itself
    ├── SourceError                     what the source names cannot be used
    │   ├── CheckpointNotFoundError     no checkpoint there
    │   ├── UnsupportedCheckpointError  a checkpoint of a kind this package does not read
    │   └── CorruptCheckpointError      damaged, truncated or incomplete
    ├── PartNotFoundError               the checkpoint has no such part
    ├── ConfigError                     the config is wrong, or contradicts the tensors
    ├── MappingError                    a file in ``mappings/`` is wrong
    ├── PlanError                       the plan of a batch is wrong
    ├── TensorMismatchError             tensors are missing, unknown or of the wrong shape
    ├── VocabularyError                 the vocabulary is wrong, or does not fit the model
    ├── OutputError                     the target cannot be written
    │   ├── OutputExistsError           something is there already
    │   └── DiskSpaceError              the disk is too small
    ├── ExportError                     what was exported does not compute what the model computes
    ├── PublishError                    what is to be published must not be, as it is
    └── HubError                        the Hub cannot be reached, or refuses
        ├── HubPermissionError          the token, or the lack of one, does not allow it
        └── PartialUploadError          of several repositories, some could not be published

Anything else that escapes is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from electra_convert.hub.upload import UploadReport


MOST_TOLD = 200
"""Problems that a message lists: enough for every tensor of a small model."""


class ElectraConvertError(Exception):
    """An expected failure, told in one message.

    Args:
        message: What is wrong: the value given and what was expected.
        problems: Each single fault, where there are several. All of them, not the first.
        hint: What to do about it.
    """

    def __init__(self, message: str, *, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message, *(f"  - {problem}" for problem in self.problems[:MOST_TOLD])]
        if len(self.problems) > MOST_TOLD:
            lines.append(f"  - and {len(self.problems) - MOST_TOLD} more")
        if self.hint:
            lines.append(f"What to do: {self.hint}")
        return "\n".join(lines)


class OptionError(ElectraConvertError):
    """The request contradicts itself, whatever the checkpoint."""


class SourceError(ElectraConvertError):
    """What the source names cannot be used."""


class CheckpointNotFoundError(SourceError):
    """There is no checkpoint where one was named."""


class UnsupportedCheckpointError(SourceError):
    """A checkpoint of a kind this package does not read."""


class CorruptCheckpointError(SourceError):
    """A checkpoint that is damaged, truncated or incomplete."""


class PartNotFoundError(ElectraConvertError):
    """The checkpoint does not hold the part that was asked for."""


class ConfigError(ElectraConvertError):
    """The config cannot be read, or contradicts the tensors."""


class MappingError(ElectraConvertError):
    """A mapping file is wrong."""


class PlanError(ElectraConvertError):
    """The plan of a batch is wrong."""


class TensorMismatchError(ElectraConvertError):
    """Tensors are missing, unknown or of the wrong shape."""


class VocabularyError(ElectraConvertError):
    """The vocabulary is wrong, or does not fit the model."""


class OutputError(ElectraConvertError):
    """The target cannot be written."""


class OutputExistsError(OutputError):
    """Something is there already."""


class DiskSpaceError(OutputError):
    """The disk has less room than the output needs."""


class ExportError(ElectraConvertError):
    """What was exported cannot be loaded, or does not compute what the model computes."""


class PublishError(ElectraConvertError):
    """What is to be published must not be, as it is: it is not proven, or nobody named it."""


class HubError(ElectraConvertError):
    """The Hub cannot be reached, or refuses."""


class HubPermissionError(HubError):
    """The token does not allow it, or there is none."""


class PartialUploadError(HubError):
    """Of several repositories, some could not be published; the others were.

    Args:
        report: What was done with the others.
        message: What went wrong.
        problems: Each repository that could not be published, and why.
        hint: What to do about it.
    """

    def __init__(self, report: UploadReport, message: str, *, problems: Sequence[str], hint: str) -> None:
        super().__init__(message, problems=problems, hint=hint)
        self.report = report
