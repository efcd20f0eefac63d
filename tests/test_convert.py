"""Conversions as a whole: what they write, what they say, and what they refuse to do."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import h5py
import ml_dtypes
import msgpack
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from electra_convert import ConvertOptions, convert_checkpoint
from electra_convert.errors import (
    ConfigError,
    CorruptCheckpointError,
    DiskSpaceError,
    ElectraConvertError,
    MappingError,
    OptionError,
    OutputError,
    OutputExistsError,
    PartNotFoundError,
    SourceError,
    TensorMismatchError,
)
from electra_convert.formats import flax, pytorch
from electra_convert.formats.google_tf1 import index_path, open_checkpoint, shard_path, write_checkpoint
from electra_convert.origin import NOTE_FILE
from electra_convert.tensor import Tensor

if TYPE_CHECKING:
    from electra_convert.inventory import Part
    from electra_convert.tensor import Array

ErrorT = TypeVar("ErrorT", bound=ElectraConvertError)

MAPPINGS = Path(__file__).parents[1] / "mappings"
PREFIX = "model.ckpt-30"
HEADS = (
    "base",
    "pretraining",
    "masked_lm",
    "causal_lm",
    "sequence_classification",
    "multiple_choice",
    "token_classification",
    "question_answering",
)
PARTS: tuple[tuple[str, Part], ...] = (
    ("electra_tiny", "discriminator"),
    ("electra_tiny", "generator"),
    ("electra_tiny_mlm_only", "generator"),
    ("electra_tiny_noproj", "discriminator"),
    ("electra_tiny_noproj", "generator"),
    ("electra_tiny_proj", "discriminator"),
    ("electra_tiny_proj", "generator"),
    ("electra_tiny_sharded", "generator"),
    ("electra_tiny_tied_weights", "discriminator"),
    ("electra_tiny_tied_weights", "generator"),
    ("electra_tiny_uniform", "discriminator"),
    ("electra_tiny_untied_embeddings", "discriminator"),
    ("electra_tiny_untied_embeddings", "generator"),
    ("electric_tiny", "discriminator"),
    ("finetuned_mnli", "discriminator"),
    ("finetuned_squad_joint", "discriminator"),
)
NATIVE = {"discriminator": "pretraining", "generator": "masked_lm"}
FATES = ("copied", "constructed", "tied", "initialised")


# Checkpoints


def described(name: str, array: Array) -> Tensor:
    """Return an array as a tensor."""
    return Tensor(name, array.shape, array.dtype.name, lambda: array)


def variant(
    directory: Path, source: Path, change: Callable[[dict[str, Array]], object], *, vocabulary: bool = True
) -> Path:
    """Write a changed copy of a checkpoint: `change` edits its arrays in place."""
    files = open_checkpoint(source / json.loads((source / "expected.json").read_text())["checkpoint"])
    arrays = {name: tensor.load() for name, tensor in files.tensors.items()}
    change(arrays)
    directory.mkdir()
    write_checkpoint(directory / PREFIX, (described(name, arrays[name]) for name in sorted(arrays)))
    if vocabulary:
        shutil.copy(source / "vocab.txt", directory)
    return directory


def copy(source: Path, directory: Path) -> Path:
    """Copy a checkpoint as it is; its files may be damaged then."""
    return Path(shutil.copytree(source, directory))


def discriminator_shapes(
    *, hidden: int, embedding: int, layers: int, intermediate: int, vocabulary: int, positions: int
) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every variable of a discriminator, as Google's graph spells them."""
    shapes: dict[str, tuple[int, ...]] = {
        "electra/embeddings/word_embeddings": (vocabulary, embedding),
        "electra/embeddings/position_embeddings": (positions, embedding),
        "electra/embeddings/token_type_embeddings": (2, embedding),
        "electra/embeddings/LayerNorm/gamma": (embedding,),
        "electra/embeddings/LayerNorm/beta": (embedding,),
    }
    dense = {"discriminator_predictions/dense": (hidden, hidden), "discriminator_predictions/dense_1": (hidden, 1)}
    if embedding != hidden:
        dense["electra/embeddings_project"] = (embedding, hidden)
    for layer in range(layers):
        scope = f"electra/encoder/layer_{layer}"
        for module in ("attention/self/query", "attention/self/key", "attention/self/value", "attention/output/dense"):
            dense[f"{scope}/{module}"] = (hidden, hidden)
        dense[f"{scope}/intermediate/dense"] = (hidden, intermediate)
        dense[f"{scope}/output/dense"] = (intermediate, hidden)
        for module in ("attention/output/LayerNorm", "output/LayerNorm"):
            shapes |= {f"{scope}/{module}/gamma": (hidden,), f"{scope}/{module}/beta": (hidden,)}
    for module, shape in dense.items():
        shapes |= {f"{module}/kernel": shape, f"{module}/bias": shape[1:]}
    return shapes


def write_discriminator(directory: Path, **sizes: int) -> dict[str, Array]:
    """Write a uniform-generator checkpoint of any sizes; return its arrays."""
    random = np.random.default_rng(0)
    shapes = discriminator_shapes(**sizes)
    arrays = {name: random.standard_normal(shape, np.float32) for name, shape in sorted(shapes.items())}
    directory.mkdir()
    write_checkpoint(directory / PREFIX, (described(name, array) for name, array in arrays.items()))
    return arrays


# What was written


def read_pytorch(directory: Path) -> dict[str, Array]:
    """Return the arrays of `model.safetensors`."""
    return dict(load_file(directory / "model.safetensors"))


def read_tensorflow(directory: Path) -> dict[str, Array]:
    """Return the arrays of `tf_model.h5`, without layer and model name; hard links count once."""
    arrays: dict[str, Array] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name.split("/", 2)[2]] = item[()]

    with h5py.File(directory / "tf_model.h5") as file:
        file.visititems(visit)
    return arrays


def read_flax(directory: Path) -> dict[str, Array]:
    """Return the arrays of `flax_model.msgpack`, their paths joined by `/`."""

    def array(code: int, data: bytes) -> Array:
        assert code == 1
        shape, dtype, content = msgpack.unpackb(data)
        return np.frombuffer(content, dtype).reshape(shape)

    arrays: dict[str, Array] = {}

    def walk(path: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                walk(f"{path}/{key}" if path else key, child)
        else:
            arrays[path] = node

    walk("", msgpack.unpackb((directory / "flax_model.msgpack").read_bytes(), ext_hook=array))
    return arrays


READERS = {"pytorch": read_pytorch, "tensorflow": read_tensorflow, "flax": read_flax}


def record(directory: Path) -> dict[str, Any]:
    """Return a head's `conversion.json`."""
    found: dict[str, Any] = json.loads((directory / "conversion.json").read_text())
    return found


def contents(directory: Path) -> dict[str, bytes]:
    """Return every file of a tree, by its place; but for the note of where the source lies."""
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != NOTE_FILE)
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def listing(directory: Path) -> list[str]:
    """Return the names in a directory; but for the note of where the source lies."""
    return sorted(path.name for path in directory.iterdir() if path.name != NOTE_FILE)


@contextmanager
def refused(kind: type[ErrorT], out: Path) -> Iterator[list[str]]:
    """Expect an error of exactly this kind and no output; the list holds its lines afterwards."""
    lines: list[str] = []
    with pytest.raises(kind) as caught:
        yield lines
    assert type(caught.value) is kind
    assert not out.exists()
    lines += str(caught.value).splitlines()


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync nothing: these tests look at what is written, not at what survives a crash."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def tiny(fixtures: Path) -> Path:
    """A small checkpoint of two parts."""
    return fixtures / "electra_tiny"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where output goes; it is not there yet."""
    return tmp_path / "out"


@pytest.fixture
def changed_mappings(tmp_path: Path) -> Callable[..., Path]:
    """Copy the mappings, with one text replaced in one file."""

    def change(file: str, old: str, new: str) -> Path:
        folder = Path(shutil.copytree(MAPPINGS, tmp_path / "mappings"))
        text = (folder / file).read_text()
        assert text.count(old) == 1
        (folder / file).write_text(text.replace(old, new))
        return folder

    return change


DISCRIMINATOR = ConvertOptions(part="discriminator")
QUICK = ConvertOptions(part="discriminator", heads=("pretraining",), targets=("pytorch",))


def quick(**options: Any) -> ConvertOptions:
    """Return options for the discriminator's native head in one format, and these."""
    return ConvertOptions(**{"part": "discriminator", "heads": ("pretraining",), "targets": ("pytorch",)} | options)


class TestBrokenMappings:
    def test_misspelt_source_row_lists_what_is_missing_and_what_is_left_over(
        self, tiny: Path, out: Path, changed_mappings: Callable[..., Path]
    ) -> None:
        """A wrong row makes one error, with the name the row gives and the name the checkpoint has, in every layer."""
        row = "encoder/layer_{layer}/attention/self/query"
        folder = changed_mappings("google_tf1.yaml", row, row.replace("query", "queri"))
        with refused(TensorMismatchError, out) as message:
            convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", mappings=folder))
        for layer in range(3):
            scope = f"electra/encoder/layer_{layer}/attention/self"
            assert f"  - {scope}/queri/kernel [64, 64] is missing" in message
            assert f"  - {scope}/queri/bias [64] is missing" in message
            assert f"  - {scope}/query/kernel [64, 64] is in no mapping" in message
        assert "--mappings" in message[-1]

    def test_swapped_rows_of_different_shape_are_a_mismatch(
        self, tiny: Path, out: Path, changed_mappings: Callable[..., Path]
    ) -> None:
        """Rows that point at each other's tensors are caught by shapes, where shapes differ."""
        folder = changed_mappings(
            "google_tf1.yaml",
            '  layer.{layer}.ffn.down: "{scope}encoder/layer_{layer}/output/dense"\n',
            '  layer.{layer}.ffn.down: "{scope}encoder/layer_{layer}/attention/output/dense"\n',
        )
        with refused(MappingError, out) as message:
            convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", mappings=folder))
        assert any("are both called" in line for line in message)

    @pytest.mark.parametrize("file", ["pytorch.yaml", "tensorflow.yaml", "flax.yaml", "google_tf1.yaml"])
    def test_removed_row_is_named_with_its_file(
        self, tiny: Path, out: Path, changed_mappings: Callable[..., Path], file: str
    ) -> None:
        """A format that forgets a module is refused when the mappings are loaded."""
        row = next(line for line in (MAPPINGS / file).read_text().splitlines() if "layer.{layer}.ffn.up:" in line)
        folder = changed_mappings(file, f"{row}\n", "")
        with refused(MappingError, out) as message:
            convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", mappings=folder))
        assert any(file in line and "layer.{layer}.ffn.up" in line for line in message)

    def test_removed_ignore_rule_makes_every_slot_an_error(
        self, tiny: Path, out: Path, changed_mappings: Callable[..., Path]
    ) -> None:
        """What no rule explains is an error, all of it at once: nothing is skipped in silence."""
        folder = changed_mappings("google_tf1.yaml", '  "*/adam_v": Adam\'s second moments\n', "")
        with refused(TensorMismatchError, out) as message:
            convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", mappings=folder))
        assert sum("/adam_v" in line and line.endswith("is in no mapping") for line in message) == 112

    def test_unknown_section_is_refused(self, tiny: Path, out: Path, changed_mappings: Callable[..., Path]) -> None:
        """A key that the schema does not have is an error, with the file."""
        folder = changed_mappings("flax.yaml", "format: flax\n", "format: flax\nmodulse: {}\n")
        with refused(MappingError, out) as message:
            convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", mappings=folder))
        assert "flax.yaml" in message[0]
        assert "modulse" in message[0]


class TestBrokenCheckpoints:
    def test_renamed_variables_are_listed_missing_and_unknown(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """One error lists every missing and every unknown name."""

        def rename(arrays: dict[str, Array]) -> None:
            arrays["electra/encoder/layer_1/output/dense/weights"] = arrays.pop(
                "electra/encoder/layer_1/output/dense/kernel"
            )
            arrays["electra/embeddings/LayerNorm/offset"] = arrays.pop("electra/embeddings/LayerNorm/beta")

        source = variant(tmp_path / "source", tiny, rename)
        with refused(TensorMismatchError, out) as message:
            convert_checkpoint(source, out, DISCRIMINATOR)
        assert message[0].startswith("4 tensors do not fit an ELECTRA model")
        assert set(message[1:5]) == {
            "  - electra/encoder/layer_1/output/dense/kernel [160, 64] is missing",
            "  - electra/encoder/layer_1/output/dense/weights [160, 64] is in no mapping",
            "  - electra/embeddings/LayerNorm/beta [32] is missing",
            "  - electra/embeddings/LayerNorm/offset [32] is in no mapping",
        }

    def test_missing_table_that_alone_shows_a_size(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """Where no other tensor shows a size, its tensor is named all the same."""
        source = variant(tmp_path / "source", tiny, lambda arrays: arrays.pop("electra/embeddings/position_embeddings"))
        with refused(TensorMismatchError, out) as message:
            convert_checkpoint(source, out, DISCRIMINATOR)
        assert any("electra/embeddings/position_embeddings" in line and "is missing" in line for line in message)

    def test_missing_layer_leaves_the_later_ones_unexplained(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """A hole among the layers is no shorter encoder."""

        def drop(arrays: dict[str, Array]) -> None:
            for name in [name for name in arrays if name.startswith("electra/encoder/layer_1/")]:
                del arrays[name]

        source = variant(tmp_path / "source", tiny, drop)
        with refused(TensorMismatchError, out) as message:
            convert_checkpoint(source, out, DISCRIMINATOR)
        assert sum("electra/encoder/layer_2/" in line and "is in no mapping" in line for line in message) == 16

    def test_wrong_shapes_are_all_listed(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """Each tensor of another shape is listed with its shape and the one that is called for."""

        def reshape(arrays: dict[str, Array]) -> None:
            arrays["electra/encoder/layer_2/intermediate/dense/kernel"] = np.zeros((64, 161), np.float32)
            arrays["discriminator_predictions/dense_1/bias"] = np.zeros((2,), np.float32)

        source = variant(tmp_path / "source", tiny, reshape)
        with refused(TensorMismatchError, out) as message:
            convert_checkpoint(source, out, DISCRIMINATOR)
        assert set(message[1:-1]) == {
            f"  - {name} has shape {shape}; the other tensors call for {expected}"
            for name, shape, expected in (
                ("electra/encoder/layer_2/intermediate/dense/kernel", [64, 161], [64, 160]),
                ("discriminator_predictions/dense_1/bias", [2], [1]),
            )
        }

    def test_wrong_rank(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """A kernel that is a vector is a wrong shape too."""

        def flatten(arrays: dict[str, Array]) -> None:
            name = "electra/encoder/layer_0/attention/self/key/kernel"
            arrays[name] = arrays[name].reshape(-1)

        source = variant(tmp_path / "source", tiny, flatten)
        with refused(TensorMismatchError, out) as message:
            convert_checkpoint(source, out, DISCRIMINATOR)
        assert any("attention/self/key/kernel has shape [4096]" in line for line in message)

    def test_another_models_variables_are_named(self, tmp_path: Path, out: Path) -> None:
        """What is no ELECTRA is refused with the scopes that were found."""
        source = tmp_path / "source"
        source.mkdir()
        write_checkpoint(source / PREFIX, [described("bert/embeddings/word_embeddings", np.zeros((3, 2), np.float32))])
        with refused(SourceError, out) as message:
            convert_checkpoint(source, out, DISCRIMINATOR)
        assert message[0].endswith("model.ckpt-30 does not hold the variables of an ELECTRA model: it holds bert/")

    @pytest.mark.parametrize("keep", [0, 1, 10_000])
    def test_truncated_data_file(self, tiny: Path, tmp_path: Path, out: Path, keep: int) -> None:
        """A data file that ends too soon is found before anything is read, with every tensor beyond its end."""
        source = copy(tiny, tmp_path / "source")
        data = shard_path(source / PREFIX, 0, 1)
        os.truncate(data, keep)
        with refused(CorruptCheckpointError, out) as message:
            convert_checkpoint(source, out, DISCRIMINATOR)
        assert "truncated" in message[0]
        assert any(f"{data.name}, which has {keep}" in line for line in message)
        assert "copy or download the checkpoint again" in message[-1]

    def test_missing_data_file(self, fixtures: Path, tmp_path: Path, out: Path) -> None:
        """A shard that is not there is named."""
        source = copy(fixtures / "electra_tiny_sharded", tmp_path / "source")
        gone = shard_path(source / PREFIX, 2, 4)
        gone.unlink()
        with refused(CorruptCheckpointError, out) as message:
            convert_checkpoint(source, out, DISCRIMINATOR)
        assert any(str(gone) in line for line in message)

    def test_damaged_index(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """A flipped byte of the index is found by its checksum."""
        source = copy(tiny, tmp_path / "source")
        flip(index_path(source / PREFIX), 1000)
        with refused(CorruptCheckpointError, out) as message:
            convert_checkpoint(source, out, DISCRIMINATOR)
        assert f"{index_path(source / PREFIX)} is damaged" in message[0]

    def test_flipped_byte_of_used_tensors(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """Tensors that differ from their checksums are all listed, before anything is written."""
        source = copy(tiny, tmp_path / "source")
        names = ("electra/encoder/layer_1/output/dense/kernel", "discriminator_predictions/dense/bias")
        for name in names:
            flip_value(source, name)
        with refused(CorruptCheckpointError, out) as message:
            convert_checkpoint(source, out, DISCRIMINATOR)
        assert "differ from their checksums" in message[0]
        assert {line.split(":")[0].removeprefix("  - ") for line in message[1:-1]} == set(names)

    @pytest.mark.parametrize(
        "name",
        [
            "generator/encoder/layer_0/output/dense/kernel",
            "electra/encoder/layer_0/output/dense/kernel/adam_m",
            "generator_predictions/dense/kernel",
        ],
    )
    def test_flipped_byte_of_an_unused_tensor_does_not_matter(
        self, tiny: Path, tmp_path: Path, out: Path, name: str
    ) -> None:
        """What is not used is not checked, and the output is the same."""
        source = copy(tiny, tmp_path / "source")
        flip_value(source, name)
        convert_checkpoint(source, out, QUICK)
        convert_checkpoint(tiny, tmp_path / "undamaged", QUICK)
        assert contents(out) == contents(tmp_path / "undamaged")


def flip(path: Path, offset: int) -> None:
    """Flip all bits of one byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def flip_value(source: Path, name: str) -> None:
    """Flip a byte in the middle of a tensor's values."""
    prefix = source / PREFIX
    values = open_checkpoint(prefix).tensors[name].load().tobytes()
    data = shard_path(prefix, 0, 1)
    place = data.read_bytes().find(values)
    assert place >= 0
    flip(data, place + len(values) // 2)


class TestConfig:
    def write(self, tmp_path: Path, content: Any, name: str = "bert_config.json") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def test_contradiction_names_key_values_and_tensor(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """A size that a tensor disproves is told with the key, both values and the tensor; all of them at once."""
        config = self.write(tmp_path, {"hidden_size": 65, "vocab_size": 30522, "num_hidden_layers": 3})
        with refused(ConfigError, out) as message:
            convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", config=config))
        assert message[0] == "bert_config.json contradicts the tensors of the checkpoint"
        assert (
            "  - vocab_size: bert_config.json says 30522, but electra/embeddings/word_embeddings [600, 32] shows 600"
            in message
        )
        (hidden,) = (line for line in message if "hidden_size" in line)
        assert "says 65, but " in hidden
        assert hidden.endswith("shows 64")
        assert "[" in hidden.partition("but ")[2]

    def test_checkpoint_with_a_layer_less_than_its_config(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """A cut-off encoder looks whole to shapes alone; the config tells."""

        def drop(arrays: dict[str, Array]) -> None:
            for name in [name for name in arrays if "electra/encoder/layer_2/" in name]:
                del arrays[name]

        source = variant(tmp_path / "source", tiny, drop)
        config = self.write(tmp_path, {"num_hidden_layers": 3})
        with refused(ConfigError, out) as message:
            convert_checkpoint(source, out, ConvertOptions(part="discriminator", config=config))
        assert "num_hidden_layers: bert_config.json says 3, but electra/encoder/layer_1/" in message[1]
        assert message[1].endswith("shows 2")

    def test_hparams_that_contradict_say_by_which_rule(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """A derived size says what it was derived from."""
        config = self.write(tmp_path, {"model_size": "small", "vocab_size": 600}, "hparams.json")
        with refused(ConfigError, out) as message:
            convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", config=config))
        assert any("hidden_size" in line and "model_size 'small'" in line for line in message)

    def test_heads_that_do_not_divide_the_width(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """A head count must divide the hidden size."""
        config = self.write(tmp_path, {"num_attention_heads": 5})
        with refused(ConfigError, out) as message:
            convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", config=config))
        assert message[1] == "  - num_attention_heads is 5; it must divide hidden_size, 64"

    def test_rule_that_gives_an_impossible_head_count_asks_for_a_config(self, tmp_path: Path, out: Path) -> None:
        """A width of 200 has three heads by Google's rule, which is none; with a config it converts."""
        arrays = write_discriminator(
            tmp_path / "source", hidden=200, embedding=200, layers=2, intermediate=333, vocabulary=77, positions=17
        )
        with refused(ConfigError, out) as message:
            convert_checkpoint(tmp_path / "source", out)
        assert message[1] == "  - num_attention_heads is 3; it must divide hidden_size, 200"
        assert message[-1] == "What to do: say what the model was trained with: --config FILE"
        config = self.write(tmp_path, {"num_attention_heads": 8})
        convert_checkpoint(tmp_path / "source", out, ConvertOptions(config=config))
        written = json.loads((out / "pretraining/config.json").read_text())
        assert (written["num_attention_heads"], written["hidden_size"], written["embedding_size"]) == (8, 200, 200)
        assert (written["intermediate_size"], written["max_position_embeddings"]) == (333, 17)
        assert not any("embeddings_project" in name for name in read_pytorch(out / "pretraining"))
        kernel = arrays["electra/encoder/layer_1/output/dense/kernel"]
        name = "encoder.layer.1.output.dense.weight"
        np.testing.assert_array_equal(read_pytorch(out / "pretraining")[f"electra.{name}"], kernel.T)
        np.testing.assert_array_equal(read_pytorch(out / "base")[name], kernel.T)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("{", "cannot be read"),
            ("[1]", "holds a JSON list"),
            ({"learning_rate": 1}, "says nothing about a model"),
            ({"hidden_act": "swish"}, "hidden_act is 'swish'"),
            ({"num_attention_heads": "four"}, "num_attention_heads is 'four'"),
            ({"num_attention_heads": 0}, "num_attention_heads is 0"),
            ({"model_size": "huge"}, "model_size is 'huge'"),
        ],
    )
    def test_config_that_is_none(self, tiny: Path, tmp_path: Path, out: Path, content: Any, says: str) -> None:
        """A config that cannot be one says which key is wrong."""
        config = self.write(tmp_path, content)
        with refused(ConfigError, out) as message:
            convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", config=config))
        assert says in "\n".join(message)

    def test_config_of_one_model_cannot_serve_two(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """A `bert_config.json` describes one part, so it is refused for both, where they differ."""
        config = self.write(tmp_path, {"num_attention_heads": 1})
        with refused(OptionError, out) as message:
            convert_checkpoint(tiny, out, ConvertOptions(part="both", config=config))
        assert message[0] == "bert_config.json describes one model, but two different parts are to be converted"

    def test_config_of_one_model_serves_one_transformer(self, fixtures: Path, tmp_path: Path, out: Path) -> None:
        """Where both parts are one transformer, one config is enough."""
        config = self.write(tmp_path, {"num_attention_heads": 2})
        options = ConvertOptions(part="both", config=config, heads=("base",), targets=("pytorch",))
        convert_checkpoint(fixtures / "electra_tiny_tied_weights", out, options)
        for part in ("discriminator", "generator"):
            assert json.loads((out / part / "base/config.json").read_text())["num_attention_heads"] == 2

    def test_assumed_is_listed_in_report_and_record(self, tiny: Path, out: Path) -> None:
        """What no tensor shows and no file says is assumed, and said so everywhere."""
        report = convert_checkpoint(tiny, out, QUICK)
        (part,) = report.parts
        written = record(out / "pretraining")
        expected = {
            "num_attention_heads": 1,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "initializer_range": 0.02,
            "lowercase": True,
        }
        assert part.assumed == expected
        assert written["assumed"] == expected
        assert {key for key, value in written["config"].items() if value["from"] == "assumed"} == set(expected) - {
            "lowercase"
        }
        assert written["tokenizer"]["lowercase"] == {"value": True, "from": "assumed"}
        shown = written["config"]["intermediate_size"]
        assert shown == {"value": 160, "from": "electra/encoder/layer_0/intermediate/dense/kernel [64, 160]"}

    def test_config_takes_fields_off_the_assumed(self, tiny: Path, out: Path, hparams: Callable[[str], Path]) -> None:
        """With the hparams, what they settle says which key settled it."""
        report = convert_checkpoint(tiny, out, quick(config=hparams("electra_tiny")))
        (part,) = report.parts
        assert "num_attention_heads" not in part.assumed
        heads = record(out / "pretraining")["config"]["num_attention_heads"]
        assert heads == {"value": 4, "from": "hparams.json: model_hparam_overrides.num_attention_heads"}
        assert "layer_norm_eps" in part.assumed

    def test_relu_warns_about_transformers(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """transformers' prediction head ignores the activation, and a note says so."""
        config = self.write(tmp_path, {"hidden_act": "relu", "num_attention_heads": 4})
        report = convert_checkpoint(tiny, out, quick(config=config))
        assert any("activation is relu" in note for note in report.notes)


class TestWhatIsRead:
    @pytest.mark.parametrize("part", ["discriminator", "generator"])
    def test_only_the_part_is_read(self, tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch, part: Part) -> None:
        """Adam's moments and the other part's tensors are not touched; the part is read once, and checked meanwhile.

        What only later heads have is checked before the first appears.
        """
        read: list[tuple[int, int]] = []

        def note(descriptor: int, buffers: list[memoryview], offset: int) -> int:
            count = preadv(descriptor, buffers, offset)
            read.append((offset, offset + count))
            return count

        preadv = os.preadv
        monkeypatch.setattr(os, "preadv", note)
        report = convert_checkpoint(tiny, out, ConvertOptions(part=part, targets=("pytorch",), layout="single"))
        checkpoint = open_checkpoint(tiny / PREFIX)
        fates = record(out / "base")["source_tensors"]
        used = {
            name
            for head in report.heads
            for name, fate in record(head.directory)["source_tensors"].items()
            if fate["fate"] == "used"
        }
        first = {name for name, fate in record(out / "base")["source_tensors"].items() if fate["fate"] == "used"}
        places, later = (
            [piece for name in names for piece in checkpoint._pieces[name]] for names in (used, used - first)
        )
        assert 40 < len(used) < len(fates) / 3
        assert all(any(p.offset <= begin and end <= p.offset + p.size for p in places) for begin, end in read)
        assert sum(end - begin for begin, end in read) == sum(piece.size for piece in [*places, *later])

    @pytest.mark.parametrize(("damaged", "dtype"), [("predictions", "float32"), ("electra/enc", "float16")])
    def test_no_head_appears_beside_damage(
        self, tiny: Path, tmp_path: Path, out: Path, damaged: str, dtype: Literal["float32", "float16"]
    ) -> None:
        """Not one that does without what is damaged; and values that became too large are told as damage."""
        source = copy(tiny, tmp_path / "source")
        checkpoint = open_checkpoint(source / PREFIX)
        name = next(name for name in checkpoint.tensors if damaged in name)
        (piece,) = checkpoint._pieces[name]
        with piece.file.path.open("r+b") as file:
            file.seek(piece.offset)
            file.write(np.float32(1e30).tobytes())
        with pytest.raises(CorruptCheckpointError, match="differ from their checksums") as error:
            convert_checkpoint(source, out, ConvertOptions(part="discriminator", dtype=dtype, targets=("pytorch",)))
        assert [problem.partition(":")[0] for problem in error.value.problems] == [name]
        assert not list(out.rglob("*"))


class TestSameBytes:
    def test_runs_at_other_times_and_places_write_the_same_bytes(
        self, tiny: Path, tmp_path: Path, hparams: Callable[[str], Path]
    ) -> None:
        """Every file of every head is the same: a second later, from a copy elsewhere, and to elsewhere."""
        first, second = tmp_path / "first", tmp_path / "deeper/second"
        options = ConvertOptions(part="both", config=hparams("electra_tiny"))
        convert_checkpoint(tiny, first, options)
        elsewhere = copy(tiny, tmp_path / "a copy")
        config = Path(shutil.copy(hparams("electra_tiny"), tmp_path / "hparams.json"))
        time.sleep(math.ceil(time.time()) + 0.05 - time.time())
        convert_checkpoint(elsewhere, second, ConvertOptions(part="both", config=config))
        assert contents(first) == contents(second)
        assert len(contents(first)) == 2 * 8 * 9

    @pytest.mark.parametrize("options", [{"layout": "shared"}, {"split_formats": True}, {"dtype": "float16"}])
    def test_other_layouts_too(self, tiny: Path, tmp_path: Path, options: Mapping[str, Any]) -> None:
        """The same holds for each way of writing."""
        heads = ("masked_lm", "question_answering")
        for place in ("first", "second"):
            convert_checkpoint(tiny, tmp_path / place, ConvertOptions(part="discriminator", heads=heads, **options))
            time.sleep(math.ceil(time.time()) + 0.05 - time.time())
        assert contents(tmp_path / "first") == contents(tmp_path / "second")

    def test_a_head_does_not_depend_on_the_others(self, tiny: Path, tmp_path: Path) -> None:
        """A head alone is what it is among all, initialised values included."""
        convert_checkpoint(tiny, tmp_path / "all", DISCRIMINATOR)
        for head in ("question_answering", "sequence_classification"):
            convert_checkpoint(tiny, tmp_path / head, ConvertOptions(part="discriminator", heads=(head,)))
            assert contents(tmp_path / head / head) == contents(tmp_path / "all" / head)

    def test_no_private_place_or_host_is_written(
        self, tiny: Path, tmp_path: Path, out: Path, hparams: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No file holds a path of this machine, its name, or the working directory."""
        monkeypatch.chdir(tmp_path)
        for asked in ("socket.gethostname", "platform.node", "getpass.getuser"):
            monkeypatch.setattr(asked, lambda: "somebody of mine")
        source = copy(tiny, tmp_path / "source of mine")
        vocab = Path(shutil.move(source / "vocab.txt", tmp_path / "words of mine.txt"))
        options = ConvertOptions(part="discriminator", config=hparams("electra_tiny"), vocab=vocab, mappings=MAPPINGS)
        convert_checkpoint(source, out, options)
        private = [str(tmp_path), str(Path.home()), str(MAPPINGS.parent), "of mine"]
        for name, content in contents(out).items():
            assert not [text for text in private if text.strip("/") and text.encode() in content], name


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_ledger_balances(fixtures: Path, tmp_path: Path, name: str, part: Part) -> None:
    """Every source tensor has one fate, every target tensor one origin, and the two sides agree, for each head."""
    out = tmp_path / "out"
    source = fixtures / name
    report = convert_checkpoint(source, out, ConvertOptions(part=part, targets=("pytorch",), tokenizer=False))
    (prefix,) = source.glob("*.index")
    names = set(open_checkpoint(prefix.with_suffix("")).tensors)
    assert [head.head for head in report.heads] == list(HEADS)
    for head in report.heads:
        written = record(head.directory)
        fates = {name: entry["fate"] for name, entry in written["source_tensors"].items()}
        assert set(fates) == names
        assert set(fates.values()) <= {"used", "other part", "other head", "other task", "ignored", "unsupported"}
        assert all(entry["why"] for entry in written["source_tensors"].values())
        fated = {fate: [each["from"] for each in written["tensors"].values() if each["fate"] == fate] for fate in FATES}
        copied = set(fated["copied"])
        assert copied | set(fated["constructed"]) == {name for name, fate in fates.items() if fate == "used"}
        counts = Counter(entry["fate"] for entry in written["tensors"].values())
        assert set(counts) <= set(FATES)
        assert head.constructed == counts["constructed"] == 2 * len(set(fated["constructed"]))
        assert (head.copied, head.tied, head.initialised) == (counts["copied"], counts["tied"], counts["initialised"])
        assert counts["copied"] == len(copied)
        arrays = read_pytorch(head.directory)
        assert head.parameters == sum(array.size for array in arrays.values())
        joined = 2 if head.head == "question_answering" else 0
        assert len(arrays) == counts["copied"] + counts["constructed"] + counts["initialised"] - joined
    (understood,) = report.parts
    assert sum(understood.source_tensors.values()) == len(names)
    native = record(out / (understood.native_head or "base"))["source_tensors"].values()
    assert understood.source_tensors == Counter(entry["fate"] for entry in native)


class TestFates:
    def fates(self, fixtures: Path, out: Path, name: str, part: Part, head: str) -> dict[str, tuple[str, str]]:
        options = ConvertOptions(part=part, heads=(head,), targets=("pytorch",), tokenizer=False)
        convert_checkpoint(fixtures / name, out, options)
        entries = record(out / head)["source_tensors"]
        return {name: (entry["fate"], entry["why"]) for name, entry in entries.items()}

    def scopes(self, fates: Mapping[str, tuple[str, str]], fate: str) -> set[str]:
        return {name.partition("/")[0] for name, (found, _) in fates.items() if found == fate}

    def test_two_parts_share_their_embeddings(self, fixtures: Path, out: Path) -> None:
        """The generator uses the embeddings of `electra/`, and of the rest nothing."""
        fates = self.fates(fixtures, out, "electra_tiny", "generator", "masked_lm")
        assert fates["electra/embeddings/word_embeddings"] == ("used", "embeddings.word.table")
        assert fates["electra/embeddings_project/kernel"] == ("other part", "discriminator")
        assert fates["generator_predictions/output_bias"] == ("used", "generator.output.bias")
        assert fates["discriminator_predictions/dense/kernel"] == ("other part", "discriminator")
        assert fates["global_step"] == ("ignored", "the training step")
        assert fates["electra/embeddings/word_embeddings/adam_m"] == ("ignored", "Adam's first moments")

    def test_tensors_of_the_native_head_are_another_heads(self, fixtures: Path, out: Path) -> None:
        """A head that is not the native one says where the native one's tensors belong."""
        fates = self.fates(fixtures, out, "electra_tiny", "discriminator", "token_classification")
        assert fates["discriminator_predictions/dense_1/bias"] == ("other head", "pretraining")

    def test_untied_embeddings(self, fixtures: Path, out: Path) -> None:
        """A generator with embeddings of its own leaves those of `electra/` alone."""
        fates = self.fates(fixtures, out, "electra_tiny_untied_embeddings", "generator", "masked_lm")
        assert fates["generator/embeddings/word_embeddings"] == ("used", "embeddings.word.table")
        assert fates["electra/embeddings/word_embeddings"] == ("other part", "discriminator")
        assert self.scopes(fates, "used") == {"generator", "generator_predictions"}

    def test_tied_weights(self, fixtures: Path, out: Path) -> None:
        """With tied weights the generator is `electra/`; only the prediction heads differ."""
        fates = self.fates(fixtures, out, "electra_tiny_tied_weights", "generator", "masked_lm")
        assert self.scopes(fates, "used") == {"electra", "generator_predictions"}
        assert self.scopes(fates, "other part") == {"discriminator_predictions"}

    def test_masked_lm_only(self, fixtures: Path, out: Path) -> None:
        """A masked language model is used whole."""
        fates = self.fates(fixtures, out, "electra_tiny_mlm_only", "generator", "masked_lm")
        assert self.scopes(fates, "used") == {"electra", "generator_predictions"}
        assert {fate for fate, _ in fates.values()} == {"used", "ignored"}

    def test_uniform_generator(self, fixtures: Path, out: Path) -> None:
        """A discriminator that had no generator is used whole."""
        fates = self.fates(fixtures, out, "electra_tiny_uniform", "discriminator", "pretraining")
        assert {fate for fate, _ in fates.values()} == {"used", "ignored"}

    def test_electric(self, fixtures: Path, out: Path) -> None:
        """Electric's cloze model is reported, not converted."""
        fates = self.fates(fixtures, out, "electric_tiny", "discriminator", "pretraining")
        assert self.scopes(fates, "unsupported") == {"cloze_predictions", "generator_ltr", "generator_rtl"}
        assert {why for fate, why in fates.values() if fate == "unsupported"} == {"Electric's two-tower cloze model"}

    def test_fine_tuned(self, fixtures: Path, out: Path) -> None:
        """The task's head is used, and Adam's moments of it are ignored like all others."""
        fates = self.fates(fixtures, out, "finetuned_mnli", "discriminator", "sequence_classification")
        assert self.scopes(fates, "used") == {"electra", "task_specific"}
        assert {fate for fate, _ in fates.values()} == {"used", "ignored"}

    def test_tied_output_is_no_copy(self, fixtures: Path, out: Path) -> None:
        """The prediction head's kernel is the word table, and the record says so."""
        self.fates(fixtures, out, "electra_tiny", "generator", "masked_lm")
        tied = record(out / "masked_lm")["tensors"]["generator.output.kernel"]
        assert tied == {"fate": "tied", "from": "embeddings.word.table"}


def drawn(seed: int, name: str, shape: tuple[int, ...], deviation: float) -> Array:
    """Draw a tensor by the documented rule, written down a second time."""
    words = np.frombuffer(hashlib.sha256(f"{seed}/{name}".encode()).digest(), dtype="<u4")
    random = np.random.RandomState(words)
    values = random.standard_normal(math.prod(shape))
    while (outside := np.flatnonzero((values < -2) | (values > 2))).size:
        values[outside] = random.standard_normal(outside.size)
    return (values * deviation).astype(np.float32).reshape(shape)


INITIALISED = {
    "masked_lm": {"generator.dense.kernel": ("generator_predictions/dense", (64, 32))},
    "sequence_classification": {
        "classifier.dense.kernel": ("classifier/dense", (64, 64)),
        "classifier.output.kernel": ("classifier/out_proj", (64, 2)),
    },
    "multiple_choice": {
        "choice.summary.kernel": ("sequence_summary/summary", (64, 64)),
        "choice.output.kernel": ("classifier", (64, 1)),
    },
    "token_classification": {"tagger.output.kernel": ("classifier", (64, 2))},
}


class TestInitialised:
    @pytest.mark.parametrize("head", INITIALISED)
    def test_values_follow_the_rule_in_every_format(
        self, converted: Callable[..., Path], tiny: Path, out: Path, head: str
    ) -> None:
        """A kernel that the checkpoint lacks is drawn from seed and name: the same numbers in all formats."""
        del converted
        convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", heads=(head,), seed=7))
        arrays = {target: read(out / head) for target, read in READERS.items()}
        for name, (module, shape) in INITIALISED[head].items():
            expected = drawn(7, name, shape, 0.02)
            np.testing.assert_array_equal(arrays["pytorch"][f"{module.replace('/', '.')}.weight"].T, expected)
            np.testing.assert_array_equal(arrays["tensorflow"][f"{module}/kernel:0"], expected)
            np.testing.assert_array_equal(arrays["flax"][f"{module}/kernel"], expected)
            assert np.abs(expected).max() <= 0.04
            bias = np.zeros(shape[1:], np.float32)
            np.testing.assert_array_equal(arrays["pytorch"][f"{module.replace('/', '.')}.bias"], bias)
            np.testing.assert_array_equal(arrays["tensorflow"][f"{module}/bias:0"], bias)
            np.testing.assert_array_equal(arrays["flax"][f"{module}/bias"], bias)

    def test_joined_modules_are_drawn_apart(self, tiny: Path, out: Path) -> None:
        """Start and end of a span are two tensors of the inventory, side by side in `qa_outputs`."""
        head = "question_answering"
        convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", heads=(head,)))
        expected = np.concatenate([drawn(0, f"span.{end}.kernel", (64, 1), 0.02) for end in ("start", "end")], axis=1)
        np.testing.assert_array_equal(read_pytorch(out / head)["qa_outputs.weight"].T, expected)
        np.testing.assert_array_equal(read_tensorflow(out / head)["qa_outputs/kernel:0"], expected)
        np.testing.assert_array_equal(read_flax(out / head)["qa_outputs/kernel"], expected)

    def test_norms_start_at_one(self, tiny: Path, out: Path) -> None:
        """A scale starts at one, and its offset at zero."""
        convert_checkpoint(tiny, out, quick(heads=("masked_lm",)))
        arrays = read_pytorch(out / "masked_lm")
        assert (arrays["generator_predictions.LayerNorm.weight"] == 1).all()
        assert (arrays["generator_predictions.LayerNorm.bias"] == 0).all()

    def test_deviation_is_the_models_own(self, tiny: Path, out: Path, hparams: Callable[[str], Path]) -> None:
        """`initializer_range` of the config is the deviation."""
        head = "token_classification"
        convert_checkpoint(tiny, out, quick(heads=(head,), config=hparams("electra_tiny")))
        expected = drawn(0, "tagger.output.kernel", (64, 2), 0.15)
        np.testing.assert_array_equal(read_pytorch(out / head)["classifier.weight"].T, expected)

    def test_formats_agree_on_every_tensor(self, tiny: Path, out: Path) -> None:
        """Names apart, the three files of each head hold the same multiset of values."""
        convert_checkpoint(tiny, out, DISCRIMINATOR)
        for head in HEADS:
            digests = [
                Counter(
                    hashlib.sha256((array.T if transposed(name) else array).tobytes()).digest()
                    for name, array in read(out / head).items()
                )
                for read, transposed in ((read_pytorch, is_linear), (read_tensorflow, never), (read_flax, never))
            ]
            assert digests[0] == digests[1] == digests[2]


def never(_name: str) -> bool:
    """Say that TensorFlow and Flax keep Google's orientation."""
    return False


def is_linear(name: str) -> bool:
    """Say whether PyTorch keeps a tensor as `[out, in]`: weights that are no table and no norm."""
    return name.endswith(".weight") and "_embeddings." not in name and "LayerNorm" not in name


class TestValues:
    @pytest.mark.parametrize("embedding", [300, 128])
    def test_every_tensor_of_an_odd_model_arrives(self, tmp_path: Path, out: Path, embedding: int) -> None:
        """Sizes that no release has, beyond the tiles of a transposition, arrive bit for bit in all formats."""
        arrays = write_discriminator(
            tmp_path / "source",
            hidden=300,
            embedding=embedding,
            layers=1,
            intermediate=513,
            vocabulary=259,
            positions=33,
        )
        config = tmp_path / "config.json"
        config.write_text('{"num_attention_heads": 5}')
        convert_checkpoint(tmp_path / "source", out, ConvertOptions(heads=("pretraining",), config=config))
        expected = Counter(hashlib.sha256(array.tobytes()).digest() for array in arrays.values())
        flat = read_flax(out / "pretraining")
        assert Counter(hashlib.sha256(array.tobytes()).digest() for array in flat.values()) == expected
        stacked = read_tensorflow(out / "pretraining")
        assert Counter(hashlib.sha256(array.tobytes()).digest() for array in stacked.values()) == expected
        torch = {
            name: np.ascontiguousarray(array.T if is_linear(name) else array)
            for name, array in read_pytorch(out / "pretraining").items()
        }
        assert Counter(hashlib.sha256(array.tobytes()).digest() for array in torch.values()) == expected
        query = arrays["electra/encoder/layer_0/attention/self/query/kernel"]
        np.testing.assert_array_equal(torch["electra.encoder.layer.0.attention.self.query.weight"], query)

    @pytest.mark.parametrize(("dtype", "targets"), [("float16", tuple(READERS)), ("bfloat16", ("pytorch", "flax"))])
    def test_narrow_dtypes_round_each_value_once(
        self, tiny: Path, tmp_path: Path, out: Path, dtype: Any, targets: Any
    ) -> None:
        """A narrow file holds the wide file's values, rounded, and a note says that they were."""
        options = {"part": "discriminator", "heads": ("sequence_classification",), "targets": targets}
        convert_checkpoint(tiny, tmp_path / "wide", ConvertOptions(**options))
        report = convert_checkpoint(tiny, out, ConvertOptions(**options, dtype=dtype))
        assert f"values are float32 in the checkpoint and are rounded to {dtype}" in report.notes
        kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16)
        for target in targets:
            wide = READERS[target](tmp_path / "wide/sequence_classification")
            narrow = READERS[target](out / "sequence_classification")
            assert set(wide) == set(narrow)
            for name, array in narrow.items():
                assert array.dtype == kind
                np.testing.assert_array_equal(array, wide[name].astype(kind))

    def test_float64_is_narrowed_and_reported(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """A float64 source becomes float32 by default, and a note says so."""
        name = "electra/encoder/layer_0/output/dense/kernel"

        def widen(arrays: dict[str, Array]) -> None:
            arrays[name] = arrays[name].astype(np.float64) + 1e-12

        source = variant(tmp_path / "source", tiny, widen)
        report = convert_checkpoint(source, out, QUICK)
        assert "values are float64 in the checkpoint and are rounded to float32" in report.notes
        wide = open_checkpoint(source / PREFIX).tensors[name].load()
        written = read_pytorch(out / "pretraining")["electra.encoder.layer.0.output.dense.weight"]
        np.testing.assert_array_equal(written, wide.astype(np.float32).T)

    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
    def test_widening_is_no_rounding(self, tiny: Path, tmp_path: Path, out: Path, dtype: Any) -> None:
        """A source of narrow values becomes float32 exactly, and no note says otherwise."""

        def narrow(arrays: dict[str, Array]) -> None:
            for name, array in arrays.items():
                if array.dtype == np.float32:
                    arrays[name] = array.astype(dtype)

        source = variant(tmp_path / "source", tiny, narrow)
        report = convert_checkpoint(source, out, QUICK)
        assert not [note for note in report.notes if "rounded" in note]
        table = open_checkpoint(source / PREFIX).tensors["electra/embeddings/word_embeddings"].load()
        written = read_pytorch(out / "pretraining")["electra.embeddings.word_embeddings.weight"]
        np.testing.assert_array_equal(written, table.astype(np.float32))
        assert written.dtype == np.float32

    @pytest.mark.parametrize("target", READERS)
    @pytest.mark.parametrize(
        "name", ["electra/encoder/layer_0/output/dense/kernel", "electra/embeddings/LayerNorm/gamma"]
    )
    def test_overflow_of_float16_is_an_error(
        self, tiny: Path, tmp_path: Path, out: Path, name: str, target: Any
    ) -> None:
        """A value that the dtype cannot hold stops the conversion, with the tensor's name; nothing is left."""

        def enlarge(arrays: dict[str, Array]) -> None:
            arrays[name] = np.where(arrays[name] == arrays[name].max(), np.float32(1e6), arrays[name])

        source = variant(tmp_path / "source", tiny, enlarge)
        with refused(OutputError, out) as message:
            convert_checkpoint(source, out, quick(dtype="float16", targets=(target,)))
        module = name.split("/")[-2]
        assert module in message[0]
        assert message[0].endswith("holds values that float16 cannot hold")
        assert "--dtype float32" in message[1]


class TestOptions:
    def test_bfloat16_cannot_go_into_h5(self) -> None:
        """h5py would store bfloat16 as opaque bytes, so it is refused, with what to do."""
        with pytest.raises(OptionError, match="tensorflow cannot hold bfloat16") as caught:
            ConvertOptions(dtype="bfloat16")
        assert "--to pytorch,flax" in str(caught.value)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"targets": ()}, "no format is to be written"),
            ({"targets": ("onnx",)}, "there is no format 'onnx'"),
            ({"targets": ("flax", "flax")}, "a format is named twice"),
            ({"labels": ("a", "a")}, "labels must differ"),
            ({"labels": ("a", "")}, "labels must differ and have a name each"),
            ({"labels": ("a", "b"), "num_labels": 3}, "num_labels is 3, but 2 labels are named"),
            ({"num_labels": 0}, "num_labels is 0"),
            ({"seed": -1}, "seed is -1"),
            ({"seed": 2**64}, "seed is"),
            ({"tokenizer": False, "lowercase": True}, "no tokenizer is to be written"),
        ],
    )
    def test_contradictions_are_refused(self, options: Mapping[str, Any], says: str) -> None:
        """Options that make no sense are refused before anything is opened."""
        with pytest.raises(OptionError, match=says):
            ConvertOptions(**options)

    def test_all_contradictions_at_once(self) -> None:
        """One error lists them all."""
        with pytest.raises(OptionError) as caught:
            ConvertOptions(dtype="bfloat16", num_labels=0, seed=-1)
        assert len(caught.value.problems) == 3

    def test_unknown_head(self, tiny: Path, out: Path) -> None:
        """A head that does not exist is refused, and all that do are named."""
        with refused(OptionError, out) as message:
            convert_checkpoint(tiny, out, quick(heads=("base", "pooler")))
        assert message[0] == "there is no head 'pooler'"
        assert all(head in message[1] for head in HEADS)

    def test_part_must_be_chosen_where_there_are_two(self, tiny: Path, out: Path) -> None:
        """Without a part, two parts are a question, not a guess."""
        with refused(OptionError, out) as message:
            convert_checkpoint(tiny, out)
        assert "which part is to be converted?" in message[0]

    def test_part_may_be_left_out_where_there_is_one(self, fixtures: Path, out: Path) -> None:
        """The only part is the one that is meant."""
        report = convert_checkpoint(fixtures / "electra_tiny_mlm_only", out, ConvertOptions(heads=("base",)))
        assert [part.part for part in report.parts] == ["generator"]
        assert listing(out) == ["base"]

    @pytest.mark.parametrize(
        ("name", "part"),
        [
            ("electra_tiny_mlm_only", "discriminator"),
            ("electra_tiny_mlm_only", "both"),
            ("electra_tiny_uniform", "generator"),
            ("electric_tiny", "generator"),
            ("finetuned_mnli", "generator"),
        ],
    )
    def test_part_that_is_not_there(self, fixtures: Path, out: Path, name: str, part: Any) -> None:
        """A part that the checkpoint lacks is an error that says which it has."""
        with refused(PartNotFoundError, out) as message:
            convert_checkpoint(fixtures / name, out, ConvertOptions(part=part))
        there = "generator" if name == "electra_tiny_mlm_only" else "discriminator"
        assert message[1] == f"What to do: its {there} can be converted: --part {there}"

    def test_heads_are_written_in_the_order_of_the_inventory(self, tiny: Path, out: Path) -> None:
        """A subset of heads is that subset, and nothing else is there."""
        report = convert_checkpoint(tiny, out, quick(heads=("token_classification", "base")))
        assert [head.head for head in report.heads] == ["base", "token_classification"]
        assert listing(out) == ["base", "token_classification"]

    def test_both_parts_have_a_folder_each(self, tiny: Path, out: Path) -> None:
        """Two parts lie apart, one lies at the top."""
        report = convert_checkpoint(tiny, out, ConvertOptions(part="both", heads=("base",), targets=("flax",)))
        assert listing(out) == ["discriminator", "generator"]
        assert [head.directory for head in report.heads] == [out / "discriminator/base", out / "generator/base"]

    @pytest.mark.parametrize("part", ["discriminator", "generator"])
    def test_notes_tell_native_from_untrained(self, tiny: Path, out: Path, part: Part) -> None:
        """The native head is called so, a generator's causal head is called not trained causally, others untrained."""
        report = convert_checkpoint(tiny, out, ConvertOptions(part=part, targets=("pytorch",)))
        notes = {head.head: head.note for head in report.heads}
        assert "native" in notes[NATIVE[part]]
        assert notes["base"] == ""
        if part == "generator":
            assert notes["causal_lm"] == "copied, not trained causally"
        for head in ("sequence_classification", "pretraining" if part == "generator" else "causal_lm"):
            assert "untrained" in notes[head]
        assert {head.head: record(head.directory)["note"] for head in report.heads} == notes
        (understood,) = report.parts
        assert understood.native_head == NATIVE[part]

    def test_causal_head_is_a_decoder(self, tiny: Path, out: Path) -> None:
        """Only the causal head's config says that it is a decoder; architectures are the heads' own."""
        convert_checkpoint(tiny, out, ConvertOptions(part="generator", targets=("pytorch",)))
        configs = {head: json.loads((out / head / "config.json").read_text()) for head in HEADS}
        assert [head for head in HEADS if configs[head].get("is_decoder")] == ["causal_lm"]
        assert configs["causal_lm"]["architectures"] == ["ElectraForCausalLM"]
        assert configs["masked_lm"]["architectures"] == ["ElectraForMaskedLM"]

    def test_labels(self, tiny: Path, out: Path) -> None:
        """Labels size and name the heads that have some, and no other."""
        convert_checkpoint(
            tiny, out, ConvertOptions(part="discriminator", labels=("O", "B", "I"), targets=("pytorch",))
        )
        for head in ("sequence_classification", "token_classification"):
            config = json.loads((out / head / "config.json").read_text())
            assert config["id2label"] == {"0": "O", "1": "B", "2": "I"}
            assert config["label2id"] == {"O": 0, "B": 1, "I": 2}
        assert read_pytorch(out / "token_classification")["classifier.weight"].shape == (3, 64)
        assert read_pytorch(out / "sequence_classification")["classifier.out_proj.weight"].shape == (3, 64)
        assert "id2label" not in json.loads((out / "question_answering/config.json").read_text())
        assert read_pytorch(out / "question_answering")["qa_outputs.weight"].shape == (2, 64)

    def test_num_labels(self, tiny: Path, out: Path) -> None:
        """A number of labels gives them transformers' names."""
        convert_checkpoint(tiny, out, quick(heads=("token_classification",), num_labels=3))
        config = json.loads((out / "token_classification/config.json").read_text())
        assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}


class TestWholeOrAbsent:
    def test_existing_output_is_an_error(self, tiny: Path, out: Path) -> None:
        """What is there and is something else is not touched, and is named."""
        (out / "pretraining").mkdir(parents=True)
        (out / "pretraining/mine.txt").write_text("mine")
        with pytest.raises(OutputExistsError, match="--overwrite") as caught:
            convert_checkpoint(tiny, out, DISCRIMINATOR)
        assert str(out / "pretraining") in str(caught.value)
        assert contents(out) == {"pretraining/mine.txt": b"mine"}

    def test_overwrite_exchanges(self, tiny: Path, out: Path) -> None:
        """With `overwrite` the new directory is in the old one's place, and nothing of the old one is left."""
        (out / "pretraining").mkdir(parents=True)
        (out / "pretraining/mine.txt").write_text("mine")
        (out / "beside.txt").write_text("beside")
        convert_checkpoint(tiny, out, quick(overwrite=True))
        assert not (out / "pretraining/mine.txt").exists()
        assert listing(out) == ["beside.txt", "pretraining"]
        assert read_pytorch(out / "pretraining")

    def test_overwrite_replaces_even_what_is_the_same(self, tiny: Path, out: Path) -> None:
        """With `overwrite` everything asked for is made again."""
        convert_checkpoint(tiny, out, QUICK)
        before = (out / "pretraining").stat().st_ino
        report = convert_checkpoint(tiny, out, quick(overwrite=True))
        assert [head.status for head in report.heads] == ["written"]
        assert (out / "pretraining").stat().st_ino != before

    def test_failed_overwrite_keeps_the_old(self, tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The old directory stays as it is until the new one is whole."""
        convert_checkpoint(tiny, out, QUICK)
        before = contents(out)
        monkeypatch.setattr(pytorch, "write", failing(pytorch.write, OSError(errno.EIO, "Input/output error"), after=0))
        with pytest.raises(OutputError, match="Input/output error"):
            convert_checkpoint(tiny, out, quick(overwrite=True, seed=1))
        assert contents(out) == before
        assert listing(out) == ["pretraining"]

    def test_same_output_again_says_that_there_is_nothing_to_do(self, tiny: Path, out: Path) -> None:
        """All that is asked for being there is an error too, but says that it is the very thing."""
        convert_checkpoint(tiny, out, QUICK)
        before = contents(out)
        with pytest.raises(OutputExistsError, match="already, made from this checkpoint with these options"):
            convert_checkpoint(tiny, out, QUICK)
        assert contents(out) == before

    def test_partial_set_is_completed(self, tiny: Path, out: Path) -> None:
        """Heads that are gone come back, the same bytes; heads that are there are not touched."""
        convert_checkpoint(tiny, out, DISCRIMINATOR)
        before = contents(out)
        inodes = {head: (out / head).stat().st_ino for head in HEADS}
        for head in ("base", "multiple_choice"):
            shutil.rmtree(out / head)
        report = convert_checkpoint(tiny, out, DISCRIMINATOR)
        written = [head.head for head in report.heads if head.status == "written"]
        assert written == ["base", "multiple_choice"]
        assert {head.status for head in report.heads} == {"written", "already there"}
        assert contents(out) == before
        assert all((out / head).stat().st_ino == inodes[head] for head in HEADS if head not in written)

    @pytest.mark.parametrize(
        "options",
        [
            {"seed": 1},
            {"dtype": "float16"},
            {"targets": ("pytorch", "flax")},
            {"layout": "shared"},
            {"split_formats": True},
            {"labels": ("a", "b")},
            {"lowercase": False},
            {"tokenizer": False},
        ],
    )
    def test_partial_set_of_other_options_is_an_error(self, tiny: Path, out: Path, options: Mapping[str, Any]) -> None:
        """A set is of one piece: heads made otherwise are not taken for this conversion's."""
        heads = ("sequence_classification", "question_answering")
        convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", heads=heads[:1]))
        before = contents(out)
        with pytest.raises(OutputExistsError, match="sequence_classification exists already"):
            convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", heads=heads, **options))
        assert contents(out) == before

    def test_partial_set_with_another_vocabulary_is_an_error(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """Words in another order are another tokenizer, though the record says nothing about them."""
        convert_checkpoint(tiny, out, QUICK)
        words = (tiny / "vocab.txt").read_text().splitlines()
        other = tmp_path / "vocab.txt"
        other.write_text("\n".join([*words[:-2], words[-1], words[-2]]) + "\n")
        with pytest.raises(OutputExistsError, match="pretraining exists already"):
            convert_checkpoint(tiny, out, quick(heads=("pretraining", "base"), vocab=other))
        assert listing(out) == ["pretraining"]

    def test_partial_set_without_its_weights_is_an_error(self, tiny: Path, out: Path) -> None:
        """A directory that somebody emptied of its weights is not taken for finished."""
        convert_checkpoint(tiny, out, QUICK)
        (out / "pretraining/model.safetensors").unlink()
        with pytest.raises(OutputExistsError, match="pretraining exists already"):
            convert_checkpoint(tiny, out, quick(heads=("pretraining", "base")))

    def test_partial_set_of_another_checkpoint_is_an_error(self, tiny: Path, fixtures: Path, out: Path) -> None:
        """Heads of another checkpoint are not this one's."""
        convert_checkpoint(fixtures / "electra_tiny_proj", out, QUICK)
        with pytest.raises(OutputExistsError, match="pretraining exists already"):
            convert_checkpoint(tiny, out, quick(heads=("pretraining", "base")))

    def test_full_disk_in_the_middle_keeps_what_is_finished(
        self, tiny: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A write that fails leaves finished heads, nothing half-written; the next run completes the set."""
        full = OSError(errno.ENOSPC, "No space left on device")
        with monkeypatch.context() as patch:
            patch.setattr(flax, "write", failing(flax.write, full, after=2))
            with pytest.raises(DiskSpaceError, match="No space left on device") as caught:
                convert_checkpoint(tiny, out, DISCRIMINATOR)
        assert "masked_lm is full" in str(caught.value)
        assert caught.value.__cause__ is full
        assert listing(out) == ["base", "pretraining"]
        report = convert_checkpoint(tiny, out, DISCRIMINATOR)
        assert [head.status for head in report.heads] == ["already there"] * 2 + ["written"] * 6
        convert_checkpoint(tiny, tmp_path / "at once", DISCRIMINATOR)
        assert contents(out) == contents(tmp_path / "at once")

    @pytest.mark.parametrize("part", ["discriminator", "both"])
    def test_a_source_is_never_replaced(self, tiny: Path, out: Path, part: Part) -> None:
        """Where a head would lie there may be the checkpoint, for `base` is the name of a size too."""
        place = out / ("base" if part == "discriminator" else "discriminator/base")
        source = copy(tiny, place / "deeper")
        before = contents(out)
        options = ConvertOptions(part=part, overwrite=True)
        for spelt in (source, place / ".." / place.name / "deeper"):
            with pytest.raises(OptionError, match="where files are that are read for them") as error:
                convert_checkpoint(spelt, out, options)
            assert any(str(index_path(source / PREFIX)) in str(Path(line).resolve()) for line in error.value.problems)
        assert contents(out) == before

    def test_a_vocabulary_is_never_replaced(self, tiny: Path, out: Path) -> None:
        """Nor any other file that is read."""
        vocab = Path(shutil.copy(tiny / "vocab.txt", made(out / "base") / "words.txt"))
        with pytest.raises(OptionError, match="where files are that are read") as error:
            convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", vocab=vocab, overwrite=True))
        assert list(error.value.problems) == [str(vocab)]

    def test_heads_that_vanish_are_told(self, tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was moved away while other heads were written is not said to be there."""
        write, calls = pytorch.write, itertools.count()

        def moving(path: Path, *rest: Any) -> None:
            if next(calls) == 1:
                (out / "base").rename(out.with_name("elsewhere"))
            write(path, *rest)

        monkeypatch.setattr(pytorch, "write", moving)
        with pytest.raises(OutputError, match="is not there any more") as error:
            convert_checkpoint(tiny, out, quick(heads=("base", "pretraining"), layout="single"))
        assert list(error.value.problems) == [str(out / "base")]

    @pytest.mark.parametrize("kind", ["pipe", "endless"])
    def test_a_document_that_is_none_is_not_read(self, tiny: Path, out: Path, kind: str) -> None:
        """A pipe would keep one waiting, and a file without end would fill the memory: the head is another's."""
        convert_checkpoint(tiny, out, QUICK)
        document = out / "pretraining/config.json"
        if kind == "pipe":
            document.unlink()
            os.mkfifo(document)
        else:
            os.truncate(document, 1 << 40)
        with pytest.raises(OutputExistsError, match="exists already"):
            convert_checkpoint(tiny, out, QUICK)

    def test_what_a_killed_run_left_goes_even_if_all_is_there(self, tiny: Path, out: Path) -> None:
        """A dry run only looks."""
        convert_checkpoint(tiny, out, QUICK)
        left = out / ".pretraining.0123abcd.partial"
        left.mkdir()
        with pytest.raises(OutputExistsError):
            convert_checkpoint(tiny, out, QUICK, dry_run=True)
        assert left.exists()
        with pytest.raises(OutputExistsError):
            convert_checkpoint(tiny, out, QUICK)
        assert not left.exists()

    @pytest.mark.parametrize("fault", [KeyboardInterrupt(), RuntimeError("a bug"), OSError(errno.EACCES, "no")])
    def test_first_head_that_fails_leaves_nothing(
        self, tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
    ) -> None:
        """Whatever stops it, a conversion that finished nothing leaves nothing, parents included."""
        monkeypatch.setattr(pytorch, "write", failing(pytorch.write, fault, after=0))
        with pytest.raises((type(fault), OutputError)):
            convert_checkpoint(tiny, out / "deeper" / "still", QUICK)
        assert not out.exists()

    def test_leftovers_of_a_killed_run_are_removed(self, tiny: Path, out: Path) -> None:
        """A staging directory that nobody holds is cleared away by the next run."""
        abandoned = out / ".pretraining.0123abcd.partial"
        abandoned.mkdir(parents=True)
        (abandoned / "model.safetensors").write_bytes(b"half")
        convert_checkpoint(tiny, out, QUICK)
        assert listing(out) == ["pretraining"]

    def test_out_that_is_a_file(self, tiny: Path, out: Path) -> None:
        """A file where the output directory should be is an error, and stays."""
        out.write_text("mine")
        with pytest.raises(OutputError, match="is a file, not a directory"):
            convert_checkpoint(tiny, out, QUICK)
        assert out.read_text() == "mine"

    def test_out_defaults_to_name_and_part(self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without an output directory it is named after checkpoint and part, where one is."""
        monkeypatch.chdir(tmp_path)
        report = convert_checkpoint(tiny, options=QUICK)
        assert report.output == Path("electra_tiny-discriminator")
        assert listing(tmp_path) == ["electra_tiny-discriminator"]

    def test_source_is_not_touched(self, tiny: Path, tmp_path: Path) -> None:
        """Converting inside the checkpoint's own directory adds the output and changes nothing."""
        source = copy(tiny, tmp_path / "source")
        before = contents(source)
        convert_checkpoint(source, source / "out", QUICK)
        shutil.rmtree(source / "out")
        assert contents(source) == before


def made(directory: Path) -> Path:
    """Make a directory, and return it."""
    directory.mkdir(parents=True)
    return directory


def failing(write: Callable[..., None], fault: BaseException, *, after: int) -> Callable[..., None]:
    """Return a writer that writes so many files, then half of one, and fails."""
    calls = itertools.count()

    def fail(path: Path, contents: Any, advance: Any, written: Any) -> None:
        if next(calls) < after:
            write(path, contents, advance, written)
        else:
            path.write_bytes(b"half")
            raise fault

    return fail


class TestDiskSpace:
    def test_too_small_a_disk_is_found_first(self, tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before anything is written the bytes are compared with what is free, and both are told."""
        planned = convert_checkpoint(tiny, out, QUICK, dry_run=True).nbytes
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=planned - 1))
        with refused(DiskSpaceError, out) as message:
            convert_checkpoint(tiny, out, QUICK)
        assert f"{out} needs " in message[0]
        assert "free" in message[0]
        assert "--layout shared" in message[1]
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=planned))
        convert_checkpoint(tiny, out, QUICK)

    @pytest.mark.parametrize(
        "options", [{}, {"layout": "shared"}, {"split_formats": True}, {"layout": "shared", "split_formats": True}]
    )
    def test_what_is_announced_is_enough(self, tiny: Path, out: Path, options: Mapping[str, Any]) -> None:
        """The announced bytes hold all that is written, with a little to spare; a hard link takes none."""
        planned = convert_checkpoint(tiny, out, ConvertOptions(part="both", **options), dry_run=True)
        done = convert_checkpoint(tiny, out, ConvertOptions(part="both", **options))
        files = {path.stat().st_ino: path.stat().st_size for path in out.rglob("*") if path.is_file()}
        assert done.nbytes == sum(files.values()) - (out / NOTE_FILE).stat().st_size
        assert done.nbytes <= planned.nbytes <= 1.5 * done.nbytes

    def test_dry_run_plans_what_a_run_does(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """A dry run writes nothing and reports the same, but for the status."""
        planned = convert_checkpoint(tiny, out, DISCRIMINATOR, dry_run=True)
        assert not out.exists()
        assert {head.status for head in planned.heads} == {"planned"}
        done = convert_checkpoint(tiny, out, DISCRIMINATOR)
        assert (done.notes, done.parts) == (planned.notes, planned.parts)
        assert done.nbytes <= planned.nbytes <= 1.5 * done.nbytes  # a plan asks for a little more than is used
        assert listing(tmp_path) == ["out"]


class TestShared:
    SHARDS = ("model-00001-of-00002.safetensors", "tf_model-00001-of-00002.h5", "flax_model-00001-of-00002.msgpack")
    OPTIONS = ConvertOptions(part="discriminator", layout="shared")

    def test_one_backbone_is_linked_into_every_head(self, tiny: Path, out: Path) -> None:
        """All heads but the base have the same two shards, and the first is one file on disk."""
        convert_checkpoint(tiny, out, self.OPTIONS)
        for shard in self.SHARDS:
            files = [(out / head / shard).stat() for head in HEADS if head != "base"]
            assert len({file.st_ino for file in files}) == 1
            assert {file.st_nlink for file in files} == {len(HEADS)}
            alone = out / "base" / shard.replace("-of-00002", "-of-00001")
            assert alone.stat().st_ino == files[0].st_ino

    @pytest.mark.parametrize("head", ["base", "masked_lm"])
    def test_index_names_the_shard_of_every_tensor(self, tiny: Path, out: Path, head: str) -> None:
        """The index lists exactly the keys of the shards, and the bytes of their values."""
        convert_checkpoint(tiny, out, self.OPTIONS)
        index = json.loads((out / head / "model.safetensors.index.json").read_text())
        found: dict[str, str] = {}
        for path in (out / head).glob("*.safetensors"):
            with safe_open(path, "np") as file:
                found |= dict.fromkeys(file.keys(), path.name)
                assert file.metadata() == {"format": "pt"}
        assert index["weight_map"] == found
        arrays = [load_file(path) for path in (out / head).glob("*.safetensors")]
        size = sum(array.nbytes for shard in arrays for array in shard.values())
        assert index["metadata"] == {"total_size": size}
        assert not (out / head / "model.safetensors").exists()

    def test_completed_set_links_to_what_is_there(self, tiny: Path, out: Path) -> None:
        """A head that comes later shares the backbone of the heads that are there."""
        convert_checkpoint(tiny, out, self.OPTIONS)
        shutil.rmtree(out / "base")
        shutil.rmtree(out / "multiple_choice")
        convert_checkpoint(tiny, out, self.OPTIONS)
        assert (out / "multiple_choice" / self.SHARDS[0]).samefile(out / "pretraining" / self.SHARDS[0])

    def test_parts_do_not_share(self, tiny: Path, out: Path) -> None:
        """Each part has a backbone of its own."""
        convert_checkpoint(tiny, out, ConvertOptions(part="both", layout="shared", targets=("pytorch",)))
        shards = [out / part / "pretraining" / self.SHARDS[0] for part in ("discriminator", "generator")]
        assert not shards[0].samefile(shards[1])

    def test_disk_without_hard_links(
        self, tiny: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where links fail each head has its own copy, the same bytes, and a note says so, once."""

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        convert_checkpoint(tiny, tmp_path / "linked", self.OPTIONS)
        monkeypatch.setattr(os, "link", refuse)
        report = convert_checkpoint(tiny, out, self.OPTIONS)
        assert [note for note in report.notes if "no hard links (Operation not permitted)" in note] == report.notes[-1:]
        assert (out / "pretraining" / self.SHARDS[0]).stat().st_nlink == 1
        assert contents(out) == contents(tmp_path / "linked")


class TestSplitFormats:
    def test_a_directory_for_each_format(self, tiny: Path, tmp_path: Path, out: Path) -> None:
        """Each format's directory is complete, holds no other format, and has the same weights as the combined one."""
        convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", heads=("pretraining",), split_formats=True))
        convert_checkpoint(tiny, tmp_path / "combined", quick(targets=tuple(READERS)))
        assert listing(out) == ["pretraining"]
        assert listing(out / "pretraining") == ["flax", "pytorch", "tensorflow"]
        for target, file in (
            ("pytorch", "model.safetensors"),
            ("tensorflow", "tf_model.h5"),
            ("flax", "flax_model.msgpack"),
        ):
            directory = out / "pretraining" / target
            assert listing(directory) == sorted(
                [
                    *("config.json", "conversion.json", "special_tokens_map.json", "tokenizer.json"),
                    *("tokenizer_config.json", "vocab.txt", file),
                ]
            )
            assert record(directory)["options"]["formats"] == [target]
            for name in (file, "config.json", "tokenizer.json"):
                assert (directory / name).read_bytes() == (tmp_path / "combined/pretraining" / name).read_bytes()


@pytest.mark.parametrize("options", [{}, {"layout": "shared"}, {"dtype": "float16", "split_formats": True}])
def test_progress_ends_at_its_total(tiny: Path, out: Path, options: Mapping[str, Any]) -> None:
    """Each stretch of work tells of exactly the bytes that it announced."""
    totals: dict[str, int] = {}
    done: Counter[str] = Counter()

    @contextmanager
    def progress(description: str, total: int, *, unit: str = "bytes") -> Iterator[Callable[[int], None]]:
        assert unit == "bytes"
        totals[description] = total
        yield lambda count: done.update({description: count})

    convert_checkpoint(tiny, out, ConvertOptions(part="both", **options), progress=progress)
    assert set(totals) == {"writing"}
    assert totals == done


def test_dry_run_fails_as_the_run_would(tiny: Path, out: Path) -> None:
    """What is there already is found by a dry run too, and a set that would be completed is told apart."""
    options = ConvertOptions(part="discriminator", heads=("base", "pretraining"), targets=("flax",))
    convert_checkpoint(tiny, out, options)
    with pytest.raises(OutputExistsError):
        convert_checkpoint(tiny, out, options, dry_run=True)
    shutil.rmtree(out / "base")
    planned = convert_checkpoint(tiny, out, options, dry_run=True)
    assert [head.status for head in planned.heads] == ["planned", "already there"]
    assert not (out / "base").exists()


def test_a_damaged_head_does_not_count_as_finished(tiny: Path, out: Path) -> None:
    """A head whose weights were cut short is not taken for finished, nor linked into others."""
    options = ConvertOptions(part="discriminator", heads=("base",), targets=("pytorch",), layout="shared")
    convert_checkpoint(tiny, out, options)
    (out / "base" / "model-00001-of-00001.safetensors").write_bytes(b"")
    more = ConvertOptions(part="discriminator", heads=("base", "pretraining"), targets=("pytorch",), layout="shared")
    with pytest.raises(OutputExistsError):
        convert_checkpoint(tiny, out, more)


def test_a_linear_activation_goes_to_pytorch_alone(tiny: Path, tmp_path: Path, out: Path) -> None:
    """transformers knows it in PyTorch only: directories nobody could load are not written."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"hidden_size": 64, "hidden_act": "linear"}))
    with pytest.raises(OptionError, match=r"the discriminator is linear(?s:.*)--to pytorch"):
        convert_checkpoint(tiny, out, ConvertOptions(part="discriminator", config=config))
    assert not out.exists()
    heads = ("pretraining",)
    convert_checkpoint(
        tiny, out, ConvertOptions(part="discriminator", config=config, targets=("pytorch",), heads=heads)
    )
