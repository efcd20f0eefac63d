"""PyTorch weights as they were before safetensors: `pytorch_model.bin`, a pickled state dict.

Only PyTorch itself reads it, and only with `weights_only`, which builds tensors and nothing else, whatever the file
asks for. It maps the file, unless that is from before PyTorch 1.6 and no zip archive: so nothing may write to it.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from electra_convert.errors import SourceError
from electra_convert.formats.stored import StoredFile
from electra_convert.formats.table import LONGEST_NAME, STATE_DTYPES, Row, damaged, found_file, require_rows
from electra_convert.printable import printable
from electra_convert.tensor import Tensor, numpy_dtype

if TYPE_CHECKING:
    from electra_convert.tensor import Array

SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"
OLDEST = (2, 6)
"""The version of PyTorch since which `weights_only` cannot be made to run code (CVE-2025-32434)."""
HINT = "copy it again; if it holds more than a state dict, load it where it was made, and save model.state_dict() alone"
LONGEST_FAULT = 300
"""Characters of what PyTorch says of a file."""
UNPICKLING = "UnpicklingError"
"""The error that PyTorch raises for what is no tensor, with much advice around the reason, which is its context."""


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict; those that share values may be views of one storage.

    Raises:
        SourceError: It cannot be read, or PyTorch is not installed, or is too old.
        CorruptCheckpointError: It is damaged, or holds something else than floating-point tensors and buffers of int64.
    """
    file = found_file(path)
    state = _load(file)
    if not isinstance(state, dict) or not state:
        raise damaged(path, f"it holds {type(state).__name__}; expected tensors by name", hint=HINT)
    others = [f"{printable(str(name), LONGEST_NAME)} is {_kind(value)}" for name, value in _no_tensors(state)]
    if others:
        raise damaged(path, "it holds more than tensors by name", others, HINT)
    rows = [_row(name, value) for name, value in state.items()]
    require_rows(file, rows, STATE_DTYPES)
    return {row.name: _tensor(file, row, state[row.name]) for row in rows}


def _require_pytorch(path: Path) -> None:
    if find_spec("torch") is None:
        raise SourceError(
            f"only PyTorch can read {path}, and it is not installed",
            hint='install it: pip install "electra-convert[torch]", or name a format of files that need none',
        )
    import torch

    version = torch.__version__
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise SourceError(
            f"PyTorch {version} cannot read {path} safely: such a file could make it run code",
            hint=f"install a version from {'.'.join(map(str, OLDEST))} on",
        )


def _load(file: StoredFile) -> Any:
    _require_pytorch(file.path)
    import torch

    is_zip = _is_zip(file)
    try:
        with warnings.catch_warnings(action="ignore"):  # of storages with a type, which old files have
            state = torch.load(file.path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # whatever PyTorch raises on a damaged file
        raise damaged(file.path, f"PyTorch refuses it: {_reason(error)}", hint=HINT) from error
    file.require_unchanged()
    return state


def _is_zip(file: StoredFile) -> bool:
    """Say whether a file is a zip archive, in which nothing may grow when it is read."""
    with open(file.descriptor, "rb", closefd=False) as stream:
        try:
            if not zipfile.is_zipfile(stream):
                return False
            with zipfile.ZipFile(stream) as archive:
                compressed = sum(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise damaged(file.path, f"its zip archive cannot be read: {printable(str(error))}") from error
    if compressed:
        raise damaged(file.path, f"{compressed} entries of its zip archive are compressed, which PyTorch never does")
    return True


def _reason(error: BaseException) -> str:
    """Return why PyTorch refuses a file: the first sentence, without the advice to read it unsafely."""
    if type(error).__name__ == UNPICKLING and error.__context__:
        error = error.__context__
    text = " ".join(str(error).split()) or type(error).__name__
    return printable(text.partition(". ")[0], LONGEST_FAULT)


def _no_tensors(state: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield what is no dense tensor in memory, or has no name."""
    import torch

    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or not _is_plain(value):
            yield name, value


def _is_plain(tensor: Any) -> bool:
    import torch

    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def _kind(value: Any) -> str:
    import torch

    return f"a tensor of {value.layout} on {value.device}" if isinstance(value, torch.Tensor) else type(value).__name__


def _row(name: str, tensor: Any) -> Row:
    """Return what a tensor claims; it lies nowhere in particular, but is no larger than the file."""
    return Row(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), 0)


def _tensor(file: StoredFile, row: Row, tensor: Any) -> Tensor:
    def values() -> Array:
        import torch

        file.require_unchanged()
        if row.dtype != "bfloat16":
            return cast("Array", tensor.numpy(force=True))
        array: Array = tensor.detach().view(torch.int16).numpy(force=True)  # NumPy has no bfloat16 of its own
        return array.view(numpy_dtype(row.dtype))

    return Tensor(row.name, row.shape, row.dtype, values)
