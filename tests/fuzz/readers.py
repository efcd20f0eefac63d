"""What is fuzzed: readers as functions of bytes, each with what must hold when it returns.

Each function here prepares a folder, and returns what reads one input. Imports stand inside, so that a fuzzer can
instrument the modules first. An error that a reader documents passes through; whoever calls decides what is a finding.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from electra_convert.tensor import Tensor

Read = Callable[[bytes], None]

PREFIX = "model.ckpt-30"
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGXCPU)
"""What ends a process that crashes; libFuzzer handles these, and the handlers are in a fork too."""
TRIED_FURTHER = 32
"""Of how many inputs one is written again, which syncs files and starts threads: that takes far longer than to read."""
MOST_PARSED = 10_000
"""Entries of indexes that are kept."""
MOST_LOADED = 1 << 20
"""Bytes of values beyond which no tensor of a small input can lie in it."""


def wire(_: Path) -> Read:
    """Read a message, and the messages in it."""
    from electra_convert.formats.wire import Message

    def read(data: bytes) -> None:
        message = Message(data)
        for field in range(8):
            assert -(2**63) <= message.number(field) < 2**63
            assert sum(map(len, message.parts(field))) <= len(data)
        message.submessage(2).submessages(2)

    return read


def table(_: Path) -> Read:
    """Read a sorted string table; written again, it reads the same."""
    from electra_convert.formats.sstable import read_table, write_table

    def read(data: bytes) -> None:
        entries = read_table(data)
        assert read_table(write_table(entries)) == entries

    return read


def bundle(folder: Path) -> Read:
    """Open a checkpoint and load all of it; written again, it reads the same, and its checksums can be looked at."""
    from electra_convert.errors import CorruptCheckpointError
    from electra_convert.formats.google_tf1 import index_path, open_checkpoint, shard_path, write_checkpoint

    prefix, again = folder / PREFIX, folder / "again"

    def read(data: bytes) -> None:
        index, values = split_bundle(data)
        index_path(prefix).write_bytes(index)
        shard_path(prefix, 0, 1).write_bytes(values)
        checkpoint = open_checkpoint(prefix)
        read_values(checkpoint.tensors)
        if not is_tried_further(data):
            return
        write_checkpoint(again, checkpoint.tensors.values())
        try:
            require_same(open_checkpoint(again).tensors, checkpoint.tensors)
        finally:
            index_path(again).unlink()
            shard_path(again, 0, 1).unlink()
        try:
            checkpoint.check(checkpoint.tensors)
        except CorruptCheckpointError as error:
            assert "differ from their checksums" in error.message, error  # noqa: PT017  # or its extents lie elsewhere

    return read


def inspection(folder: Path) -> Read:
    """Tell from an index what a checkpoint is, and the config of each of its parts.

    An entry is parsed once, however many inputs have it: how that is done, another target is for.
    """
    from electra_convert.errors import ElectraConvertError
    from electra_convert.formats import google_tf1
    from electra_convert.formats.google_tf1 import index_path, open_checkpoint, shard_path
    from electra_convert.mapping import load_mappings
    from electra_convert.part import recognise

    prefix, mappings = folder / PREFIX, load_mappings()
    parse = lru_cache(maxsize=MOST_PARSED)(google_tf1._Entry.parse)
    with shard_path(prefix, 0, 1).open("wb") as file:
        file.truncate(1 << 24)

    def read(data: bytes) -> None:
        index_path(prefix).write_bytes(data)
        with patch.object(google_tf1._Entry, "parse", parse):
            files = open_checkpoint(prefix)
        checkpoint = recognise(mappings, files.tensors, files.unreadable)
        for part in checkpoint.topology.parts:
            assert set(checkpoint.ledger(part)) <= {*files.tensors, *files.unreadable}
            try:
                source = checkpoint.understand([part])[part]
            except ElectraConvertError:
                continue
            assert all(files.tensors[binding.name].shape == binding.shape for binding in source.bindings)

    return read


def state(folder: Path) -> Read:
    """Follow the `checkpoint` file of a directory; it leads nowhere but to what is there."""
    from electra_convert.source import locate

    there = {folder / name for name in (PREFIX, "model.ckpt-9", "model.ckpt-\u00e9")}
    for prefix in there:
        (folder / f"{prefix.name}.index").touch()

    def read(data: bytes) -> None:
        (folder / "checkpoint").write_bytes(data)
        with locate(folder) as location:
            assert location.prefix in there

    return read


def zip_archive(folder: Path) -> Read:
    """Unpack a `.zip`."""
    return _archive(folder, "electra.zip")


def tar_archive(folder: Path) -> Read:
    """Unpack a `.tar`, compressed or not."""
    return _archive(folder, "electra.tar.gz")


def _archive(folder: Path, name: str) -> Read:
    """Unpack an archive: within the folder of temporary files, and nothing but files; afterwards nothing is left."""
    from electra_convert.source import locate

    place = Path(tempfile.gettempdir())

    def read(data: bytes) -> None:
        (folder / name).write_bytes(data)
        try:
            with locate(folder / name) as location:
                assert location.prefix.is_relative_to(place)
                assert not any(path.is_symlink() for path in place.rglob("*"))
        finally:
            assert os.listdir(folder) == [name]  # noqa: PTH208  # it is quicker
            assert not os.listdir(place)  # noqa: PTH208

    return read


def safetensors(folder: Path) -> Read:
    """Read a PyTorch file of weights; whose names it has, its metadata say."""
    from electra_convert.formats.weights import find_weights

    read_file = _weights(folder, "pytorch")

    def read(data: bytes) -> None:
        read_file(data)
        (weights,) = find_weights(folder)
        assert len(weights.read()) <= len(data)

    return read


def msgpack(folder: Path) -> Read:
    """Read a Flax file of weights."""
    return _weights(folder, "flax")


def h5(folder: Path) -> Read:
    """Read a TensorFlow file of weights.

    HDF5 meets it in a fork, as it does in a process of its own, which takes a hundred times longer to start. If it
    crashes there, the reader has to say so; if not, it reads it here, too, where the fuzzer sees what is reached.
    """
    import h5py  # noqa: F401  # so that each fork has it

    read_file = _weights(folder, "tensorflow")

    def read(data: bytes) -> None:
        with patch("subprocess.run", _forked):
            read_file(data)

    return read


def _forked(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
    """Answer for an HDF5 file in a fork of this process, as `subprocess.run` does in a process of its own."""
    from electra_convert.formats import hdf5

    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as words:
        with warnings.catch_warnings(action="ignore"):  # of threads, which are the fuzzer's
            child = os.fork()
        if not child:
            code = 1
            try:
                for number in CRASHES:
                    signal.signal(number, signal.SIG_DFL)
                os.dup2(words.fileno(), 2)
                with os.fdopen(answer.fileno(), "w", closefd=False) as stdout, redirect_stdout(stdout):
                    hdf5.main(int(command[-1]))
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        if not status:
            with patch.object(hdf5, "_limit"), patch("signal.setitimer"):
                hdf5._answer(int(command[-1]))
        answer.seek(0)
        words.seek(0)
        return subprocess.CompletedProcess(command, os.waitstatus_to_exitcode(status), answer.read(), words.read())


def _weights(folder: Path, target: Any) -> Read:
    """Read a file of weights, and load all of it; what fits a dtype of the format is written, and reads the same."""
    from electra_convert.formats import Contents, module_of

    module = module_of(target)
    path, again = folder / module.SINGLE, folder / "again"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        tensors = module.read(path)
        read_values(tensors)
        dtypes = {tensor.dtype for tensor in tensors.values()}
        if len(dtypes) == 1 and dtypes <= {*module.DTYPES} and is_tried_further(data):
            try:
                module.write(again, Contents(list(tensors.values()), dtypes.pop(), "ElectraModel"), lambda _: None)
                require_same(module.read(again), tensors)
            finally:
                again.unlink(missing_ok=True)

    return read


def weights_index(folder: Path) -> Read:
    """Read weights in shards through their index; nothing but what lies beside it is read."""
    import json

    from electra_convert.formats import pytorch, read_weights

    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    shard = struct.pack("<Q", len(header)) + header + bytes(4)
    (folder / pytorch.SHARD.format(number=1, count=1)).write_bytes(shard)

    def read(data: bytes) -> None:
        (folder / pytorch.INDEX).write_bytes(data)
        assert list(read_weights(folder, "pytorch")) == ["a"]

    return read


def yaml(folder: Path) -> Read:
    """Read YAML."""
    from electra_convert.yaml import read_yaml

    path = folder / "a.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_yaml(path)

    return read


def plan(folder: Path) -> Read:
    """Read the plan of a batch."""
    from electra_convert.batch.plan_file import read_plan

    path = folder / "plan.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        assert read_plan(path)

    return read


def mappings(folder: Path) -> Read:
    """Read a folder of mappings: an inventory and a format, which `...` divides in the input."""
    from electra_convert.mapping import load_mappings

    def read(data: bytes) -> None:
        inventory, _, mapping = data.partition(b"\n...\n")
        (folder / "electra.yaml").write_bytes(inventory)
        (folder / "tiny.yaml").write_bytes(mapping)
        assert list(load_mappings(folder).formats) == ["tiny"]

    return read


def config(folder: Path) -> Read:
    """Read a config file, and all it says of each part."""
    from electra_convert.config_file import read_config_file
    from electra_convert.errors import ElectraConvertError
    from electra_convert.inventory import PARTS

    path = folder / "hparams.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        file = read_config_file(path)
        assert set(map(type, file.switches().values())) <= {bool}
        assert file.lowercase in (None, True, False)
        for part in PARTS:
            for one_transformer in (False, True):
                with suppress(ElectraConvertError):
                    file.claims(part, one_transformer=one_transformer)

    return read


def vocabulary(folder: Path) -> Read:
    """Read a vocabulary: a token for each id, no two the same."""
    from electra_convert.tokenizer import read_vocabulary

    path = folder / "vocab.txt"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        tokens = read_vocabulary(path).tokens
        assert len(set(tokens)) == len(tokens) <= len(data)
        assert all(tokens)

    return read


def labels(_: Path) -> Read:
    """Read the names of labels, as they stand in an option."""
    from electra_convert.cli.arguments import CommaSeparated
    from electra_convert.options import ConvertOptions

    def read(data: bytes) -> None:
        names = CommaSeparated().convert(data.decode(errors="surrogateescape"), None, None)
        options = ConvertOptions(labels=names)
        assert options.label_names() == names
        assert all(names)
        assert len(set(names)) == len(names)

    return read


# What must hold of any tensors


def is_tried_further(data: bytes) -> bool:
    """Say whether what was read of an input is written again."""
    return zlib.crc32(data) % TRIED_FURTHER == 0


def read_values(tensors: Mapping[str, Tensor]) -> None:
    """Load all tensors: each is what its description says."""
    from electra_convert.tensor import numpy_dtype

    for name, tensor in tensors.items():
        assert tensor.name == name
        assert tensor.nbytes <= MOST_LOADED, f"{name} claims {tensor.nbytes} bytes"
        array = tensor.load()
        assert (array.shape, array.dtype) == (tensor.shape, numpy_dtype(tensor.dtype))


def require_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    """Compare names, shapes, dtypes and bits."""
    assert set(first) == set(second)
    for name, tensor in first.items():
        assert (tensor.shape, tensor.dtype) == (second[name].shape, second[name].dtype)
        assert tensor.load().tobytes() == second[name].load().tobytes()


# A checkpoint in one input


def join_bundle(index: bytes, values: bytes) -> bytes:
    """Return an index and the content of a data file as one input."""
    return index + values + struct.pack("<I", len(index))


def split_bundle(data: bytes) -> tuple[bytes, bytes]:
    """Return the index and the content of the data file that an input holds."""
    size = int.from_bytes(data[-4:], "little")
    return data[:-4][:size], data[:-4][size:]
