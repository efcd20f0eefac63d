"""Where the tensors of an HDF5 file lie: `python -m electra_convert.formats.hdf5 DESCRIPTOR`, for a process of its own.

HDF5 is a large library of C, which a crafted file can crash or keep busy. So it meets files from outside only here:
with little memory and time, where it cannot open another file, nor load a filter. It answers with one line of JSON.
"""

from __future__ import annotations

import codecs
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from electra_convert.formats.stored import StoredFile
from electra_convert.formats.table import LONGEST_NAME, MOST_LEVELS, Row, damaged
from electra_convert.tensor import ITEM_SIZES

MEMORY = 200_000_000
"""Bytes of address space, beyond what is taken once all is loaded."""
SECONDS = 0.9
"""Of a processor, once all is loaded; an ELECTRA of 24 layers takes 0.1. Some crafted files keep HDF5 busy for ever."""
MOST_LISTED = 2_000
"""Names that a file may list, before it takes HDF5 more than a second; an ELECTRA of 24 layers has 400."""
PATIENCE = 60
"""Seconds that a file may take on a machine that does other things."""
ENVIRONMENT = {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}
"""No filters from outside; no threads, which would take address space."""


class Answer(msgspec.Struct, frozen=True):
    """What a file holds.

    Args:
        rows: Its tensors; names may stand several times.
        fault: Why it is refused; empty, if it is not.
    """

    rows: tuple[Row, ...] = ()
    fault: str = ""


def read_table(file: StoredFile) -> tuple[Row, ...]:
    """Return the tensors that a file of Keras weights lists, as a process of its own found them in the open file.

    A tensor is named without the model's scope; one that is listed several times stands there as often.

    Raises:
        SourceError: It cannot be read.
        CorruptCheckpointError: It is damaged, or not laid out as transformers lays out weights.
    """
    command = [sys.executable, "-P", "-m", __name__, str(file.descriptor)]
    try:
        ended = subprocess.run(  # noqa: S603  # this module
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, **ENVIRONMENT},
            pass_fds=[file.descriptor],
        )
        answer = msgspec.json.decode(ended.stdout, type=Answer)
    except subprocess.TimeoutExpired as error:
        raise damaged(file.path, f"HDF5 was not done with it in {PATIENCE} seconds") from error
    except msgspec.DecodeError as error:
        raise damaged(file.path, f"HDF5 {_last_words(ended)}") from error
    if answer.fault:
        raise damaged(file.path, answer.fault)
    return answer.rows


def _last_words(ended: subprocess.CompletedProcess[bytes]) -> str:
    """Say how a process ended that gave no answer."""
    if ended.returncode < 0:
        return f"crashed on it, or took too long ({signal.Signals(-ended.returncode).name})"
    words = ended.stderr.decode(errors="replace").strip().splitlines()
    return f"could not be run: {words[-1] if words else f'exit code {ended.returncode}'}"


def main(descriptor: int) -> None:
    """Answer for one file, which is open."""
    sys.stdout.buffer.write(msgspec.json.encode(_answer(descriptor)))


def _answer(descriptor: int) -> Answer:
    import h5py

    codecs.lookup("ascii")  # which h5py needs for names, and which is a file that could not be opened later
    with suppress(OSError, ValueError):  # some systems tell nobody what is taken, or have no such limit
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _limit(resource.RLIMIT_AS, taken + MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 0)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # SIGPROF ends the process
    try:
        with open(descriptor, "rb", buffering=0, closefd=False) as raw, h5py.File(raw, "r") as file:
            rows = tuple(islice(_rows(file), MOST_LISTED + 1))
    except Exception as error:  # noqa: BLE001  # whatever h5py raises on a damaged file
        return Answer(fault=" ".join(str(error).split()) or type(error).__name__)
    if len(rows) > MOST_LISTED:
        return Answer(fault=f"it lists more than {MOST_LISTED} tensors")
    return Answer(rows=rows)


def _limit(kind: int, most: int) -> None:
    """Allow this process so much, or what it is allowed already if that is less."""
    hard = resource.getrlimit(kind)[1]
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (limit, limit))


def _rows(file: Any) -> Iterator[Row]:
    """Yield the tensors of either layout: those that groups list, and those that lie at the root."""
    for layer in _names(file, "layer_names"):
        item = _followed(file, layer)
        if _is_dataset(item):
            yield _row(layer, item)
        else:
            for weight in _names(item, "weight_names"):
                yield _row(weight.partition("/")[2], _followed(item, weight))


def _names(item: Any, attribute: str) -> list[str]:
    """Return the names that an attribute lists; some writers store bytes."""
    import h5py

    if attribute not in item.attrs:
        raise ValueError(f"{item.name} has no attribute {attribute}")
    stored = item.attrs.get_id(attribute)
    if stored.shape == (0,):  # NumPy takes the empty list of a layer without weights for one of numbers
        return []
    length = stored.shape[0] if stored.shape else 0
    text = h5py.check_string_dtype(stored.dtype)
    if text is None or len(stored.shape) != 1 or length > MOST_LISTED or (text.length or 0) > LONGEST_NAME:
        raise ValueError(f"the attribute {attribute} of {item.name} is {stored.dtype} {stored.shape}; expected names")
    return [name.decode() if isinstance(name, bytes) else name for name in item.attrs[attribute]]


def _followed(item: Any, path: str) -> Any:
    """Return what lies at a path, to which only hard links lead: no other file, and no other place in this one."""
    from h5py import h5l

    names = path.split("/")
    if len(names) > MOST_LEVELS:
        raise ValueError(f"{path[:LONGEST_NAME]} has {len(names)} levels; expected at most {MOST_LEVELS}")
    for name in names:
        key = name.encode()
        if _is_dataset(item) or not name or not item.id.links.exists(key):
            raise ValueError(f"{path} is not in {item.name}")
        if item.id.links.get_info(key).type != h5l.TYPE_HARD:
            raise ValueError(f"{name} in {item.name} is a link to somewhere else")
        item = item[name]
    return item


def _is_dataset(item: Any) -> bool:
    import h5py

    if not isinstance(item, h5py.Group | h5py.Dataset):
        raise ValueError(f"{item.name} is neither a group nor a dataset")  # noqa: TRY004  # the file is wrong
    return isinstance(item, h5py.Dataset)


def _row(name: str, dataset: Any) -> Row:
    """Return where a dataset lies, which must be in one piece."""
    from h5py import h5d, h5t

    if not _is_dataset(dataset):
        raise ValueError(f"{dataset.name} is no dataset")
    kinds = {"float32": h5t.IEEE_F32LE, "float16": h5t.IEEE_F16LE, "float64": h5t.IEEE_F64LE}
    dtype = next((dtype for dtype, kind in kinds.items() if dataset.id.get_type() == kind), "")
    if not dtype:
        raise ValueError(f"{dataset.name} is {dataset.dtype}; expected one of {', '.join(kinds)}, little-endian")
    plan = dataset.id.get_create_plist()
    if plan.get_layout() != h5d.CONTIGUOUS or plan.get_external_count() or plan.get_nfilters():
        raise ValueError(f"{dataset.name} is compact, in chunks, filtered, virtual or in another file")
    offset, stored = dataset.id.get_offset(), dataset.id.get_storage_size()
    shape = dataset.shape
    if shape is None or offset is None or stored != math.prod(shape) * ITEM_SIZES[dtype]:
        raise ValueError(f"{dataset.name} has the shape {shape} and {stored} bytes of {dtype}")
    return Row(name, dtype, shape, offset)


if __name__ == "__main__":
    main(int(sys.argv[1]))
