"""Directories as any version of transformers, in any framework, left them: opened as the same canonical tensors."""

from __future__ import annotations

import json
import re
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from electra_convert import ConvertOptions, convert_checkpoint, diff_checkpoints
from electra_convert.cli import main
from electra_convert.errors import (
    CheckpointNotFoundError,
    ConfigError,
    CorruptCheckpointError,
    SourceError,
    TensorMismatchError,
    UnsupportedCheckpointError,
)
from electra_convert.formats import TARGETS, module_of, pytorch, pytorch_bin, read_weights
from electra_convert.mapping import load_mappings
from electra_convert.model_directory import (
    ModelDirectory,
    is_model_directory,
    is_weight_file,
    nearby_model_directories,
    open_model_directory,
)
from electra_convert.models.files import load_tensors

if TYPE_CHECKING:
    from electra_convert.tensor import Array

HEADS = list(load_mappings().inventory.heads)
WORDS = "electra.embeddings.word_embeddings.weight"
QUERY = "electra.encoder.layer.1.attention.self.query.weight"
Change = Callable[[dict[str, "Array"]], object]


def opened(path: Path, target: Any = None) -> ModelDirectory:
    """Open a directory with the mappings of the package."""
    return open_model_directory(path, load_mappings(), target)


def bare(directory: Path, path: Path, **fields: Any) -> Path:
    """Copy a directory without its weights, fields of its config changed; `None` takes one away."""
    path.mkdir()
    for file in directory.iterdir():
        if file.suffix in (".json", ".txt") and file.name != "conversion.json":
            shutil.copy(file, path)
    said = json.loads((path / "config.json").read_text()) | fields
    (path / "config.json").write_text(json.dumps({name: value for name, value in said.items() if value is not None}))
    return path


def changed(directory: Path, path: Path, change: Change = lambda _: None, **fields: Any) -> Path:
    """Copy a directory as a model of PyTorch alone, its tensors changed in place, and its config."""
    arrays = load_file(directory / pytorch.SINGLE)
    change(arrays)
    save_file(arrays, bare(directory, path, **fields) / pytorch.SINGLE, {"format": "pt"})
    return path


def renamed(*pairs: tuple[str, str]) -> Change:
    """Return a change that replaces text in names."""

    def rename(arrays: dict[str, Array]) -> None:
        for name in list(arrays):
            new = name
            for before, after in pairs:
                new = new.replace(before, after)
            arrays[new] = arrays.pop(name)

    return rename


def assert_equal(directory: ModelDirectory, expected: ModelDirectory) -> None:
    """Assert that two directories have the same head and config and, bit for bit, the same tensors, and no others."""
    directory.require_whole()
    assert (directory.head, directory.config) == (expected.head, expected.config)
    assert directory.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert directory.tensors[name].load().tobytes() == tensor.load().tobytes(), name
    assert diff_checkpoints(directory.path, expected.path).equal


def pretended(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Have a PyTorch that can do nothing."""
    torch = ModuleType("torch")
    torch.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setattr(pytorch_bin, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "torch", torch)


@pytest.fixture(scope="session")
def heads(converted: Callable[..., Path]) -> Path:
    """The folder of a discriminator with every head, in all formats."""
    return converted("electra_tiny_proj", "discriminator")


class TestNames:
    @pytest.mark.parametrize("head", HEADS)
    def test_gamma_and_beta(self, heads: Path, tmp_path: Path, head: str) -> None:
        """Layer norms had other names in early versions."""
        old = renamed(("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
        directory = opened(changed(heads / head, tmp_path / "old", old))
        assert any(binding.name.endswith("LayerNorm.beta") for binding in directory.bindings)
        assert_equal(directory, opened(heads / head))

    def test_a_name_and_its_alias(self, heads: Path, tmp_path: Path) -> None:
        """Where both are there, the name is read, and the other is in no mapping."""

        def add(arrays: dict[str, Array]) -> None:
            arrays["electra.embeddings.LayerNorm.gamma"] = np.zeros(32, "f4")

        directory = opened(changed(heads / "pretraining", tmp_path / "two", add))
        assert [*directory.unknown] == ["electra.embeddings.LayerNorm.gamma"]
        assert directory.tensors["embeddings.norm.scale"].load().any()

    def test_buffers(self, heads: Path, tmp_path: Path) -> None:
        """What old versions saved beside the weights is ignored, and said to be."""

        def add(arrays: dict[str, Array]) -> None:
            arrays["electra.embeddings.position_ids"] = np.arange(64)[None]
            arrays["electra.embeddings.token_type_ids"] = np.zeros((1, 64), "i8")

        directory = opened(changed(heads / "pretraining", tmp_path / "old", add))
        assert [*directory.ignored] == ["electra.embeddings.position_ids", "electra.embeddings.token_type_ids"]
        assert "numbers of the positions" in directory.ignored["electra.embeddings.position_ids"]
        assert_equal(directory, opened(heads / "pretraining"))
        assert "electra.embeddings.position_ids" not in read_weights(directory.path, "pytorch")

    def test_a_base_model_under_another_class(self, heads: Path, tmp_path: Path) -> None:
        """Its names lack the prefix; what its config calls for besides is missing."""
        directory = opened(changed(heads / "base", tmp_path / "base", architectures=["ElectraForPreTraining"]))
        assert directory.head == "pretraining"
        assert not directory.unknown
        assert {spec.name.rpartition(".")[0] for spec in directory.missing} == {
            "discriminator.dense",
            "discriminator.score",
        }

    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("head", HEADS)
    def test_no_class_is_named(self, heads: Path, tmp_path: Path, head: str, target: Any) -> None:
        """The head is the largest whose tensors are all there; causal, if the config says so."""
        path = bare(heads / head, tmp_path / "unnamed", architectures=None)
        shutil.copy(heads / head / module_of(target).SINGLE, path)
        assert opened(path).head == head

    def test_nothing_but_a_backbone_and_half_a_head(self, heads: Path, tmp_path: Path) -> None:
        """A head that is not whole is none; its tensors are said to be of a head that is not there."""

        def drop(arrays: dict[str, Array]) -> None:
            del arrays["discriminator_predictions.dense.bias"]

        directory = opened(changed(heads / "pretraining", tmp_path / "half", drop, architectures=[]))
        assert directory.head == "base"
        with pytest.raises(TensorMismatchError, match=r"3 tensors do not fit .* of the head base") as raised:
            directory.require_whole()
        assert "discriminator_predictions.dense.weight [128, 128] is of the head pretraining" in raised.value.problems


class TestTied:
    def test_a_table_that_is_there_twice(self, heads: Path, tmp_path: Path) -> None:
        """The kernel that is the table is no tensor of its own."""

        def add(arrays: dict[str, Array]) -> None:
            arrays["generator_lm_head.weight"] = arrays[WORDS].copy()

        directory = opened(changed(heads / "masked_lm", tmp_path / "tied", add))
        assert directory.ignored == {"generator_lm_head.weight": f"{WORDS} again, to which it is tied"}
        assert_equal(directory, opened(heads / "masked_lm"))

    @pytest.mark.parametrize("shape", [None, (3,), ()])
    def test_a_kernel_that_is_another(self, heads: Path, tmp_path: Path, shape: Any) -> None:
        """A kernel that differs, if only in its last value, or in its shape, is not dropped."""

        def add(arrays: dict[str, Array]) -> None:
            arrays["generator_lm_head.weight"] = arrays[WORDS].copy() if shape is None else np.zeros(shape, "f4")
            arrays["generator_lm_head.weight"].reshape(-1)[-1] += 1

        directory = opened(changed(heads / "masked_lm", tmp_path / "untied", add))
        assert "generator.output.kernel" in directory.tensors
        with pytest.raises(TensorMismatchError) as raised:
            directory.require_whole()
        assert raised.value.problems == (f"generator_lm_head.weight is not {WORDS}, to which it should be tied",)


class TestSafetensors:
    @pytest.mark.parametrize("head", HEADS)
    @pytest.mark.parametrize("target", ["tensorflow", "flax"])
    def test_of_another_framework(self, heads: Path, tmp_path: Path, head: str, target: Any) -> None:
        """The metadata say whose names and orientation a file has."""
        arrays = {name: tensor.load() for name, tensor in read_weights(heads / head, target).items()}
        path = bare(heads / head, tmp_path / "other")
        if target == "flax":
            arrays = {name.replace("/", "."): array for name, array in arrays.items()}
        framework = {"tensorflow": "tf", "flax": "flax"}[target]
        save_file(arrays, path / pytorch.SINGLE, {"format": framework})
        directory = opened(path)
        assert (directory.target, directory.others) == (target, ())
        assert directory.files == (path / pytorch.SINGLE,)
        assert_equal(directory, opened(heads / head))
        with pytest.raises(CheckpointNotFoundError, match=f"no pytorch weights in .*, only those of {target}"):
            opened(path, "pytorch")

    def test_shards_of_tensorflow(self, heads: Path, tmp_path: Path) -> None:
        """The index has the model's scope before each name; the shards have not."""
        arrays = {name: tensor.load() for name, tensor in read_weights(heads / "pretraining", "tensorflow").items()}
        path = bare(heads / "pretraining", tmp_path / "shards")
        weight_map = {}
        for number, (name, array) in enumerate(arrays.items()):
            shard = f"model-{number % 3 + 1:05d}-of-00003.safetensors"
            weight_map[f"tf_electra_for_pre_training/{name}"] = shard
            held = load_file(path / shard) if (path / shard).exists() else {}
            save_file(held | {name: array}, path / shard, {"format": "tf"})
        (path / pytorch.INDEX).write_text(json.dumps({"weight_map": weight_map}))
        directory = opened(path)
        assert (directory.target, len(directory.files)) == ("tensorflow", 3)
        assert_equal(directory, opened(heads / "pretraining"))
        directory.files[0].unlink()
        with pytest.raises(CorruptCheckpointError, match="names files that are not there"):
            opened(path)

    @pytest.mark.parametrize("framework", ["onnx", "", "\x1b[31m" + "x" * 1000])
    def test_of_a_framework_that_is_not_known(self, heads: Path, tmp_path: Path, framework: str) -> None:
        """A name that nobody knows is one message, which can be printed."""
        path = bare(heads / "base", tmp_path / "unknown")
        save_file(load_file(heads / "base" / pytorch.SINGLE), path / pytorch.SINGLE, {"format": framework})
        with pytest.raises(UnsupportedCheckpointError, match="expected pt, mlx, tf, flax") as raised:
            opened(path)
        assert raised.value.message.isprintable()
        assert len(raised.value.message) < 500

    @pytest.mark.parametrize("metadata", [{"format": 3}, {"format": ["tf"]}, {"format": None}, [], "tf", None])
    def test_metadata_of_any_type(self, heads: Path, tmp_path: Path, metadata: Any) -> None:
        """What is no text by name is one message."""
        path = changed(heads / "base", tmp_path / "hostile")
        content = (path / pytorch.SINGLE).read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        table = json.loads(content[8 : 8 + length]) | {"__metadata__": metadata}
        header = json.dumps(table).encode()
        (path / pytorch.SINGLE).write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
        with pytest.raises(CorruptCheckpointError, match=r"model\.safetensors"):
            opened(path)


class TestPickles:
    @pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed")
    def test_without_pytorch(self, heads: Path, tmp_path: Path) -> None:
        """The message says what to install; other formats, and other files of the format, need nothing."""
        path = bare(heads / "base", tmp_path / "old")
        (path / pytorch_bin.SINGLE).write_bytes(b"")
        with pytest.raises(SourceError, match=r'pip install "electra-convert\[torch\]"'):
            opened(path)
        shutil.copy(heads / "base" / "flax_model.msgpack", path)
        assert opened(path, "flax").others == ("pytorch",)
        shutil.copy(heads / "base" / pytorch.SINGLE, path)
        assert opened(path).files == (path / pytorch.SINGLE,)

    @pytest.mark.parametrize("version", ["2.5.1", "1.13.1+cu117"])
    def test_an_old_pytorch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        """A version that can be made to run code is not given the file."""
        pretended(monkeypatch, version)
        (tmp_path / pytorch_bin.SINGLE).write_bytes(b"")
        with pytest.raises(SourceError, match=rf"PyTorch {re.escape(version)} cannot read .* safely(.|\n)*2\.6 on"):
            pytorch_bin.read(tmp_path / pytorch_bin.SINGLE)

    def test_compressed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An archive that grows when it is read is refused before PyTorch sees it."""
        pretended(monkeypatch, "2.6.0+cpu")
        path = tmp_path / pytorch_bin.SINGLE
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(1_000_000))
        with pytest.raises(CorruptCheckpointError, match="1 entries of its zip archive are compressed"):
            pytorch_bin.read(path)

    def test_what_is_near(self, heads: Path, tmp_path: Path) -> None:
        """A file of it is known as a file of a model, and its directory as a directory of one."""
        path = tmp_path / "old"
        path.mkdir()
        assert not is_model_directory(path)
        (path / pytorch_bin.INDEX).write_text("{}")
        assert is_model_directory(path)
        (path / pytorch_bin.SINGLE).touch()
        assert nearby_model_directories(path / pytorch_bin.SINGLE) == [path]
        assert is_weight_file(path / pytorch_bin.SINGLE)
        result = CliRunner().invoke(main, ["diff", str(path / pytorch_bin.SINGLE), str(heads / "base")])
        assert result.exit_code == 2
        assert f"{path / 'config.json'} cannot be read" in result.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_a_pointer_of_git_lfs(heads: Path, tmp_path: Path, target: Any) -> None:
    """What a clone without Git LFS has in the place of weights is told as what it is."""
    path = bare(heads / "base", tmp_path / "clone")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 54\n"
    (path / module_of(target).SINGLE).write_text(pointer)
    with pytest.raises(CorruptCheckpointError, match=r"is a pointer of Git LFS(.|\n)*git lfs pull"):
        opened(path)
    other = next(each for each in TARGETS if each != target)
    shutil.copy(heads / "base" / module_of(other).SINGLE, path)
    assert opened(path, other).others == (target,)


class TestConfig:
    @pytest.mark.parametrize(
        "fields",
        [
            {"classifier_dropout": 0.1},
            {"summary_type": "last", "summary_use_proj": False, "summary_activation": None, "summary_last_dropout": 0},
            {"tie_word_embeddings": False},
            {"transformers_version": "2.8.0", "_num_labels": 2, "use_cache": False},
        ],
    )
    def test_what_changes_no_weights(self, heads: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
        """A switch that has no say in this head may have any value."""
        opened(changed(heads / "pretraining", tmp_path / "switched", **fields)).require_whole()

    @pytest.mark.parametrize(
        ("head", "fields"),
        [
            ("pretraining", {"position_embedding_type": "relative_key"}),
            ("masked_lm", {"tie_word_embeddings": False}),
            ("multiple_choice", {"summary_use_proj": False, "architectures": None}),
            ("base", {"hidden_act": "gelu_new"}),
            ("base", {"model_type": "bert"}),
        ],
    )
    def test_what_makes_it_another_model(self, heads: Path, tmp_path: Path, head: str, fields: dict[str, Any]) -> None:
        """A model that Google's graph is not is refused, whether its class is named or found."""
        with pytest.raises(ConfigError, match="is not the config of an ELECTRA model"):
            opened(changed(heads / head, tmp_path / "other", **fields))

    @pytest.mark.parametrize("architectures", [["BertModel"], "ElectraModel", 5, ["ElectraModel", "TFElectraModel"]])
    def test_a_class_that_is_not_known(self, heads: Path, tmp_path: Path, architectures: Any) -> None:
        """What a config names wrongly is told, and not guessed."""
        with pytest.raises(ConfigError, match="names no ELECTRA class"):
            opened(changed(heads / "base", tmp_path / "other", architectures=architectures))


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_old_is_converted(heads: Path, tmp_path: Path, target: Any) -> None:
    """A conversion of a model with old names and a config of today's switches has its tensors, in every format."""
    old = renamed(("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
    source = changed(heads / "pretraining", tmp_path / "old", old, classifier_dropout=0.2, architectures=None)
    convert_checkpoint(source, tmp_path / "out", ConvertOptions(heads=("native",), targets=(target,)))
    assert_equal(opened(tmp_path / "out" / "pretraining"), opened(heads / "pretraining"))


def test_all_that_is_wrong_is_told_at_once(heads: Path, tmp_path: Path) -> None:
    """Tensors that are missing, unknown, of another shape or another kind, by the names of the file."""

    def change(arrays: dict[str, Array]) -> None:
        del arrays["electra.embeddings.LayerNorm.bias"]
        arrays["surplus.weight"] = np.zeros(3, "f4")
        arrays[QUERY] = arrays[QUERY][:60].copy()
        arrays["discriminator_predictions.dense_prediction.bias"] = np.zeros(1, "i8")

    opened(heads / "pretraining").require_whole()
    with pytest.raises(TensorMismatchError) as raised:
        opened(changed(heads / "pretraining", tmp_path / "b", change)).require_whole()
    message = str(raised.value)
    for problem in (
        "4 tensors do not fit the model that",
        "electra.embeddings.LayerNorm.bias [32] is missing",
        f"{QUERY} has shape [60, 128]; the config calls for [128, 128]",
        "discriminator_predictions.dense_prediction.bias is int64; weights are",
        "surplus.weight [3] is in no mapping",
    ):
        assert problem in message


def test_parameters_are_no_whole_numbers(heads: Path, tmp_path: Path) -> None:
    """The models of this package take only floating-point numbers, and say so."""

    def change(arrays: dict[str, Array]) -> None:
        arrays[QUERY] = np.zeros((128, 128), "i8")

    path = changed(heads / "pretraining", tmp_path / "whole", change)
    shapes = {name: array.shape for name, array in load_file(path / pytorch.SINGLE).items()}
    with pytest.raises(TensorMismatchError, match=rf"{re.escape(QUERY)} is int64; parameters are floating-point"):
        load_tensors(path, "pytorch", shapes, own=(), initialize_head=False, ignore_mismatched_sizes=True)
