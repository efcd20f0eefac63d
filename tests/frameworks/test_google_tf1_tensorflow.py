"""Google's checkpoints: what TensorFlow reads is what this package reads, and it reads what this package writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_convert.formats.google_tf1 import open_checkpoint, write_checkpoint
from electra_convert.formats.sstable import BLOCK_SIZE
from electra_convert.google.target import PREFIX, google_model
from electra_convert.mapping import load_mappings
from electra_convert.tensor import ITEM_SIZES, Tensor, numpy_dtype
from tests.google.test_target import PRETRAINED, parts_of

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
tensorflow = pytest.importorskip("tensorflow")

FIXTURES = Path(__file__).parents[2] / "fixtures"
DTYPES = sorted(ITEM_SIZES)
PREFIXES = sorted(path.with_suffix("") for path in FIXTURES.rglob("*.index") if path.parent.name != "object_based")

each_checkpoint = pytest.mark.parametrize("prefix", PREFIXES, ids=lambda path: str(path.parent.relative_to(FIXTURES)))


def by_tensorflow(prefix: Path) -> dict[str, Any]:
    """Return the values of all variables, as TensorFlow reads them."""
    reader = tensorflow.train.load_checkpoint(str(prefix))
    return {name: np.asarray(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()}


def assert_tensorflow_agrees(prefix: Path, tensors: dict[str, Tensor], unreadable: set[str]) -> None:
    """Compare names, shapes, dtypes and bits with those TensorFlow reads."""
    expected = by_tensorflow(prefix)
    assert set(tensors) == set(expected) - unreadable
    for name, tensor in tensors.items():
        assert (tensor.shape, numpy_dtype(tensor.dtype)) == (expected[name].shape, expected[name].dtype)
        assert tensor.load().tobytes() == expected[name].tobytes()


@each_checkpoint
def test_tensorflow_reads_the_same(prefix: Path) -> None:
    """Every fixture: names, shapes, dtypes and bits."""
    checkpoint = open_checkpoint(prefix)
    assert checkpoint.tensors
    assert_tensorflow_agrees(prefix, dict(checkpoint.tensors), set(checkpoint.unreadable))


@each_checkpoint
def test_tensorflow_reads_what_is_written_again(prefix: Path, tmp_path: Path) -> None:
    """Every fixture, in one data file and without partitions."""
    tensors = open_checkpoint(prefix).tensors
    write_checkpoint(tmp_path / "model.ckpt-1", tensors.values())
    assert_tensorflow_agrees(tmp_path / "model.ckpt-1", dict(tensors), set())


def many() -> list[Tensor]:
    """Return so many tensors, of all element types in turn, that their index has several blocks."""
    arrays = [np.full(number % 3, number % 2).astype(numpy_dtype(dtype)) for number, dtype in enumerate(DTYPES * 1200)]
    return [
        Tensor(f"layer_{number:05d}/attention/output/LayerNorm/gamma", array.shape, array.dtype.name, array.copy)
        for number, array in enumerate(arrays)
    ]


def test_tensorflow_reads_an_index_of_many_blocks(tmp_path: Path) -> None:
    """It finds each tensor by name."""
    write_checkpoint(tmp_path / "model.ckpt-1", many())
    assert (tmp_path / "model.ckpt-1.index").stat().st_size > 2 * BLOCK_SIZE
    assert_tensorflow_agrees(tmp_path / "model.ckpt-1", {tensor.name: tensor for tensor in many()}, set())


def genuine() -> list[Tensor]:
    """Return the tensors of a genuine checkpoint."""
    return list(open_checkpoint(FIXTURES / "electra_tiny" / "model.ckpt-30").tensors.values())


@pytest.mark.parametrize("tensors_of", [genuine, many])
def test_tensorflow_writes_the_same_bytes(tensors_of: Callable[[], list[Tensor]], tmp_path: Path) -> None:
    """Given the same tensors in the same order; so what this package writes is nothing new to any reader."""
    tensors = tensors_of()
    write_checkpoint(tmp_path / "ours", tensors)
    tensorflow.raw_ops.SaveV2(
        prefix=str(tmp_path / "theirs"),
        tensor_names=[tensor.name for tensor in tensors],
        shape_and_slices=[""] * len(tensors),
        tensors=[tensorflow.constant(tensor.load()) for tensor in tensors],
    )
    for suffix in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


@pytest.mark.parametrize("name", PRETRAINED)
def test_tensorflow_reads_checkpoints_for_googles_code(name: str, tmp_path: Path) -> None:
    """By their directory, as Google's code names them: the variables are those of the genuine checkpoint."""
    write_for_google(name, tmp_path, untied=name == "electra_tiny_untied_embeddings")
    assert tensorflow.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / PREFIX)
    found, expected = by_tensorflow(tmp_path), by_tensorflow(FIXTURES / name / "model.ckpt-30")
    assert found.pop("global_step") == 0
    assert len(found) >= 57
    for variable, values in found.items():
        assert values.dtype == expected[variable].dtype == np.float32
        assert values.tobytes() == expected[variable].tobytes()


def write_for_google(name: str, folder: Path, **options: Any) -> None:
    """Make a checkpoint for Google's code of a genuine one."""
    model = google_model(load_mappings(), parts_of(name), **options)
    model.write(folder, lambda _: None)
    for place, content in model.documents(None).items():
        (folder / place).write_bytes(content)


def test_a_training_graph_restores_what_is_written_with_slots(tmp_path: Path) -> None:
    """Every variable that a training saved, by a `Saver` in the directory, as an estimator does it."""
    write_for_google("electra_tiny", tmp_path, slots=True)
    saved = open_checkpoint(FIXTURES / "electra_tiny" / "model.ckpt-30").tensors
    v1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), v1.Session() as session:
        variables = {name: v1.get_variable(name, tensor.shape, tensor.dtype) for name, tensor in saved.items()}
        v1.train.Saver().restore(session, tensorflow.train.latest_checkpoint(str(tmp_path)))
        values = session.run(variables)
    for name, value in values.items():
        if name == "global_step" or name.endswith(("/adam_m", "/adam_v")):
            assert not np.any(value)
        else:
            assert value.tobytes() == saved[name].load().tobytes()


def test_tensorflow_writes_the_same_bytes_of_checkpoints_for_googles_code(tmp_path: Path) -> None:
    """Its `SaveV2`, given the variables by name, as its `Saver` gives them."""
    model = google_model(load_mappings(), parts_of("electra_tiny"), slots=True)
    model.write(tmp_path, lambda _: None)
    tensorflow.raw_ops.SaveV2(
        prefix=str(tmp_path / "theirs"),
        tensor_names=[tensor.name for tensor in model.tensors],
        shape_and_slices=[""] * len(model.tensors),
        tensors=[tensorflow.constant(tensor.load()) for tensor in model.tensors],
    )
    for suffix in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"{PREFIX}{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()
