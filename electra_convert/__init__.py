"""Turn Google's original ELECTRA checkpoints into PyTorch, TensorFlow and Flax models, every head of them.

::

    from electra_convert import ConvertOptions, convert_checkpoint

    report = convert_checkpoint("electra_small", "out", ConvertOptions(part="discriminator"))

Importing this package imports no framework, and almost nothing else: names are looked up when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from electra_convert._version import __version__

if TYPE_CHECKING:
    from electra_convert.batch.report import BatchReport as BatchReport
    from electra_convert.batch.run import BatchOptions as BatchOptions
    from electra_convert.batch.run import run_batch as run_batch
    from electra_convert.config import ElectraConfig as ElectraConfig
    from electra_convert.convert import ConversionReport as ConversionReport
    from electra_convert.convert import convert_checkpoint as convert_checkpoint
    from electra_convert.diff.options import DiffOptions as DiffOptions
    from electra_convert.diff.report import Difference as Difference
    from electra_convert.diff.run import diff_checkpoints as diff_checkpoints
    from electra_convert.errors import CheckpointNotFoundError as CheckpointNotFoundError
    from electra_convert.errors import ConfigError as ConfigError
    from electra_convert.errors import CorruptCheckpointError as CorruptCheckpointError
    from electra_convert.errors import DiskSpaceError as DiskSpaceError
    from electra_convert.errors import ElectraConvertError as ElectraConvertError
    from electra_convert.errors import ExportError as ExportError
    from electra_convert.errors import HubError as HubError
    from electra_convert.errors import HubPermissionError as HubPermissionError
    from electra_convert.errors import MappingError as MappingError
    from electra_convert.errors import OptionError as OptionError
    from electra_convert.errors import OutputError as OutputError
    from electra_convert.errors import OutputExistsError as OutputExistsError
    from electra_convert.errors import PartialUploadError as PartialUploadError
    from electra_convert.errors import PartNotFoundError as PartNotFoundError
    from electra_convert.errors import PlanError as PlanError
    from electra_convert.errors import PublishError as PublishError
    from electra_convert.errors import SourceError as SourceError
    from electra_convert.errors import TensorMismatchError as TensorMismatchError
    from electra_convert.errors import UnsupportedCheckpointError as UnsupportedCheckpointError
    from electra_convert.errors import VocabularyError as VocabularyError
    from electra_convert.export.options import ExportOptions as ExportOptions
    from electra_convert.export.report import ExportReport as ExportReport
    from electra_convert.export.run import export_model as export_model
    from electra_convert.export.run import verify_export as verify_export
    from electra_convert.hub.publication import UploadOptions as UploadOptions
    from electra_convert.hub.upload import UploadReport as UploadReport
    from electra_convert.hub.upload import upload_output as upload_output
    from electra_convert.inspection import Inspection as Inspection
    from electra_convert.inspection import inspect_checkpoint as inspect_checkpoint
    from electra_convert.mapping import Mappings as Mappings
    from electra_convert.mapping import load_mappings as load_mappings
    from electra_convert.options import ConvertOptions as ConvertOptions
    from electra_convert.parity.report import VerificationReport as VerificationReport
    from electra_convert.parity.verify import VerifyOptions as VerifyOptions
    from electra_convert.parity.verify import verify_output as verify_output
    from electra_convert.report.card_content import CardMetadata as CardMetadata
    from electra_convert.tokenizer import ElectraTokenizer as ElectraTokenizer
    from electra_convert.tokenizer import ElectraTokenizerFast as ElectraTokenizerFast

_MODULES = {
    "batch.report": ("BatchReport",),
    "batch.run": ("BatchOptions", "run_batch"),
    "config": ("ElectraConfig",),
    "convert": ("ConversionReport", "convert_checkpoint"),
    "diff.options": ("DiffOptions",),
    "diff.report": ("Difference",),
    "diff.run": ("diff_checkpoints",),
    "errors": (
        "CheckpointNotFoundError",
        "ConfigError",
        "CorruptCheckpointError",
        "DiskSpaceError",
        "ElectraConvertError",
        "ExportError",
        "HubError",
        "HubPermissionError",
        "MappingError",
        "OptionError",
        "OutputError",
        "OutputExistsError",
        "PartNotFoundError",
        "PartialUploadError",
        "PlanError",
        "PublishError",
        "SourceError",
        "TensorMismatchError",
        "UnsupportedCheckpointError",
        "VocabularyError",
    ),
    "export.options": ("ExportOptions",),
    "export.report": ("ExportReport",),
    "export.run": ("export_model", "verify_export"),
    "hub.publication": ("UploadOptions",),
    "hub.upload": ("UploadReport", "upload_output"),
    "inspection": ("Inspection", "inspect_checkpoint"),
    "mapping": ("Mappings", "load_mappings"),
    "options": ("ConvertOptions",),
    "parity.report": ("VerificationReport",),
    "parity.verify": ("VerifyOptions", "verify_output"),
    "report.card_content": ("CardMetadata",),
    "tokenizer": ("ElectraTokenizer", "ElectraTokenizerFast"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604  # each is a string


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
