"""What is written is read back: the same names, shapes, dtypes and bytes; damage is told, not read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from electra_convert.errors import CheckpointNotFoundError, CorruptCheckpointError
from electra_convert.formats import TARGETS, Contents, TargetFormat, flax, hdf5, module_of, read_weights
from electra_convert.formats.stored import StoredArray
from electra_convert.tensor import Tensor, numpy_dtype

NAMES = ("electra/a/kernel", "electra/b/bias", "head/kernel")


def tensors(dtype: str = "float32") -> dict[str, Tensor]:
    """Some tensors."""
    random = np.random.default_rng(0)
    values = dict(zip(NAMES, (random.standard_normal(shape) for shape in ((3, 4), (5,), (4, 2))), strict=True))
    arrays = {name: array.astype(numpy_dtype(dtype)) for name, array in values.items()}
    return {name: Tensor(name, array.shape, dtype, lambda array=array: array) for name, array in arrays.items()}  # type: ignore[misc]


def write(path: Path, target: TargetFormat, held: dict[str, Tensor], dtype: str = "float32") -> None:
    """Write a file of them."""
    module_of(target).write(path, Contents(list(held.values()), dtype, "ElectraModel"), lambda _: None)


@pytest.mark.parametrize(
    ("target", "dtype"), [(target, dtype) for target in TARGETS for dtype in module_of(target).DTYPES]
)
def test_what_is_written_is_read_back(tmp_path: Path, target: TargetFormat, dtype: str) -> None:
    """Names, shapes, dtypes and every bit."""
    expected = tensors(dtype)
    write(tmp_path / module_of(target).SINGLE, target, expected, dtype)
    read = read_weights(tmp_path, target)
    assert read.keys() == expected.keys()
    for name, tensor in read.items():
        assert (tensor.shape, tensor.dtype) == (expected[name].shape, dtype)
        assert tensor.load().tobytes() == expected[name].load().tobytes()


@pytest.mark.parametrize("target", TARGETS)
def test_shards_are_read_as_one(converted: Callable[..., Path], target: TargetFormat) -> None:
    """A shared backbone and a head of its own give what one file gives."""
    single = read_weights(converted("electra_tiny", "discriminator") / "pretraining", target)
    shared = read_weights(converted("electra_tiny", "discriminator", layout="shared") / "pretraining", target)
    assert single.keys() == shared.keys()
    assert all(np.array_equal(single[name].load(), shared[name].load()) for name in single)


def test_a_tensor_that_keras_lists_twice_is_one(converted: Callable[..., Path]) -> None:
    """The tables that the masked-LM head lists besides are those of the backbone."""
    read = read_weights(converted("electra_tiny", "generator") / "masked_lm", "tensorflow")
    assert sum(name.endswith("word_embeddings/weight:0") for name in read) == 1


def test_chunks_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Flax leaf that was cut is whole again."""
    monkeypatch.setattr(flax, "MAX_CHUNK_SIZE", 16)
    write(tmp_path / flax.SINGLE, "flax", tensors())
    assert b"__msgpack_chunked_array__" in (tmp_path / flax.SINGLE).read_bytes()
    read = read_weights(tmp_path, "flax")
    assert all(np.array_equal(read[name].load(), tensor.load()) for name, tensor in tensors().items())


@pytest.mark.parametrize("target", TARGETS)
def test_a_truncated_file_is_told(tmp_path: Path, target: TargetFormat) -> None:
    """The message names the file."""
    path = tmp_path / module_of(target).SINGLE
    write(path, target, tensors())
    path.write_bytes(path.read_bytes()[:-9] if target != "tensorflow" else path.read_bytes()[:700])
    with pytest.raises(CorruptCheckpointError, match=path.name):
        read_weights(tmp_path, target)


@pytest.mark.parametrize("target", TARGETS)
def test_another_kind_of_file_is_told(tmp_path: Path, target: TargetFormat) -> None:
    """Bytes of something else are no weights."""
    (tmp_path / module_of(target).SINGLE).write_bytes(b"\x93some other file, and a rather long one too")
    with pytest.raises(CorruptCheckpointError, match="or a damaged one"):
        read_weights(tmp_path, target)


def test_a_directory_without_weights_is_told(tmp_path: Path) -> None:
    """The message says which names were looked for."""
    with pytest.raises(CheckpointNotFoundError, match=r"model\.safetensors\.index\.json"):
        read_weights(tmp_path, "pytorch")


def test_an_index_that_does_not_fit_its_shards_is_told(tmp_path: Path) -> None:
    """Whatever it says wrongly, both ways."""
    name = "model-00001-of-00001.safetensors"
    write(tmp_path / name, "pytorch", tensors())
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"electra.c": name}}))
    with pytest.raises(CorruptCheckpointError) as raised:
        read_weights(tmp_path, "pytorch")
    assert len(raised.value.problems) == 4


@pytest.mark.parametrize(
    "index", ["[]", "{", '{"weight_map": 3}', '{"weight_map": {"a": "../b"}}', '{"weight_map": {"a": 1}}']
)
def test_an_index_that_is_none_is_told(tmp_path: Path, index: str) -> None:
    """No traceback, and no way out of the directory."""
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CorruptCheckpointError, match="weight_map"):
        read_weights(tmp_path, "pytorch")


def test_a_missing_shard_is_told(tmp_path: Path) -> None:
    """The message names it."""
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    with pytest.raises(CorruptCheckpointError, match="model-00001-of-00001"):
        read_weights(tmp_path, "pytorch")


@pytest.mark.parametrize("target", TARGETS)
def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path, target: TargetFormat) -> None:
    """The process goes on: a mapped file would have killed it."""
    path = tmp_path / module_of(target).SINGLE
    write(path, target, tensors())
    read = read_weights(tmp_path, target)
    os.truncate(path, 100)
    with pytest.raises(CorruptCheckpointError, match=f"{path.name} became shorter"):
        read["electra/b/bias"].load()


@pytest.mark.parametrize("target", TARGETS)
def test_values_are_read_when_they_are_loaded(tmp_path: Path, target: TargetFormat) -> None:
    """Reading a file takes its headers alone; its values may change until they are needed."""
    path = tmp_path / module_of(target).SINGLE
    held = {"a": Tensor("a", (1000, 1000), "float32", lambda: np.ones((1000, 1000), "f4"))}
    write(path, target, held)
    tracemalloc.start()
    (tensor,) = read_weights(tmp_path, target).values()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert isinstance(tensor.values(), StoredArray)
    assert tensor.load().sum() == 1_000_000


@pytest.mark.parametrize("target", TARGETS)
def test_scalars_are_tensors(tmp_path: Path, target: TargetFormat) -> None:
    """A tensor without axes has one value."""
    write(tmp_path / module_of(target).SINGLE, target, {"a": Tensor("a", (), "float32", lambda: np.array(3, "f4"))})
    assert read_weights(tmp_path, target)["a"].load() == 3


def test_hdf5_reads_the_file_that_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one that is put in its place meanwhile is not taken for it: HDF5 is given the open file."""
    path, other = tmp_path / "tf_model.h5", tmp_path / "other"
    write(path, "tensorflow", tensors())
    write(other, "tensorflow", {"z": tensors()[NAMES[0]]})
    run = subprocess.run

    def replaced(command: list[str], **options: Any) -> Any:
        other.rename(path)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", replaced)
    assert read_weights(tmp_path, "tensorflow").keys() == {*NAMES}


def test_copies_that_transformers_writes_are_one_tensor(converted: Callable[..., Path], tmp_path: Path) -> None:
    """Its masked-LM files hold the embedding tables twice, without a link between them."""
    ours = converted("electra_tiny", "generator") / "masked_lm" / "tf_model.h5"
    copied = tmp_path / "tf_model.h5"
    with h5py.File(ours) as source, h5py.File(copied, "w") as file:
        for layer in source:
            source.copy(source[layer], file)
        file.attrs.update(source.attrs)
    expected, read = read_weights(ours.parent, "tensorflow"), read_weights(tmp_path, "tensorflow")
    assert copied.stat().st_size > ours.stat().st_size + expected["electra/embeddings/word_embeddings/weight:0"].nbytes
    assert read.keys() == expected.keys()
    assert all(np.array_equal(read[name].load(), expected[name].load()) for name in read)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -SEGV $$", r"HDF5 crashed on it, or took too long \(SIGSEGV\)"),
        ("exec sleep 60", "HDF5 was not done with it in 0.2 seconds"),
        ("echo no module >&2; exit 3", "HDF5 could not be run: no module"),
        ("echo '{\"rows\": 3}'", "HDF5 could not be run: exit code 0"),
    ],
)
def test_a_crash_of_hdf5_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str) -> None:
    """Whatever becomes of the process that HDF5 runs in, this one says which file it was."""
    write(tmp_path / "tf_model.h5", "tensorflow", tensors())
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    if "sleep" in script:
        monkeypatch.setattr(hdf5, "PATIENCE", 0.2)
    with pytest.raises(CorruptCheckpointError, match=rf"tf_model\.h5 is no file .*: {words}"):
        read_weights(tmp_path, "tensorflow")


@pytest.mark.parametrize(
    ("work", "code", "words"),
    [
        ("bytearray(m.MEMORY + (1 << 20))", 0, "MemoryError"),
        ("[] * len(bytearray(m.MEMORY // 2))", 0, '"rows":[]'),
        ("open('/dev/null')", 0, "Too many open files"),
        ("sum(iter(int, 1))", -signal.SIGPROF, ""),
    ],
)
def test_hdf5_has_little_of_everything(tmp_path: Path, work: str, code: int, words: str) -> None:
    """Code that runs where HDF5 does has little memory and time, and no other file."""
    path = tmp_path / "tf_model.h5"
    write(path, "tensorflow", tensors())
    script = f"import electra_convert.formats.hdf5 as m; m._rows = lambda file: {work}"
    command = [sys.executable, "-c", f"{script}; m.main(0)"]
    environment = os.environ | hdf5.ENVIRONMENT
    with path.open("rb") as file:
        ended = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False, env=environment)
    assert words in ended.stdout
    assert ended.returncode == code
