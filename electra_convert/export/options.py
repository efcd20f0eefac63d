"""What an export is asked for."""

from __future__ import annotations

from pathlib import Path

import msgspec

from electra_convert.errors import OptionError
from electra_convert.export.targets import EXPORT_TARGETS, ExportTarget
from electra_convert.formats import FRAMEWORKS, Framework
from electra_convert.options import take_paths


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to export, and how.

    Args:
        targets: What to write: `orbax`, `keras`, `saved_model`.
        format: The format to read where the model's directory holds several; by default the first of PyTorch,
            TensorFlow and Flax that is there.
        mappings: A folder of mappings to use instead of the package's own.
        overwrite: Replace what is there.

    Raises:
        OptionError: A name is unknown, or stands twice; all such are listed.
    """

    targets: tuple[ExportTarget, ...] = EXPORT_TARGETS
    format: Framework | None = None
    mappings: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        take_paths(self, "mappings")
        problems = [
            f"there is no target {name!r}: {', '.join(EXPORT_TARGETS)}"
            for name in self.targets
            if name not in EXPORT_TARGETS
        ]
        if self.format not in (None, *FRAMEWORKS):
            problems.append(f"there is no format {self.format!r}: {', '.join(FRAMEWORKS)}")
        if not self.targets:
            problems.append("no target is to be written")
        if len(set(self.targets)) < len(self.targets):
            problems.append(f"a target is named twice: {', '.join(self.targets)}")
        if problems:
            raise OptionError("this cannot be exported", problems=problems, hint="change these options")
        in_order = tuple(target for target in EXPORT_TARGETS if target in self.targets)
        msgspec.structs.force_setattr(self, "targets", in_order)
