"""PyTorch's pickled state dicts, as PyTorch and transformers write them, and what is no such thing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from electra_convert import load_mappings
from electra_convert.errors import CorruptCheckpointError
from electra_convert.formats.pytorch_bin import INDEX, SINGLE, read
from electra_convert.model_directory import open_model_directory
from electra_convert.models.files import ARCHITECTURES
from tests.resaved import assert_same_model, assert_same_weights

os.environ.setdefault("USE_TF", "0")
os.environ.setdefault("USE_FLAX", "0")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from electra_convert.models.pytorch import ElectraForPreTraining  # noqa: E402  # it needs PyTorch

WORDS = "electra.embeddings.word_embeddings.weight"


@pytest.fixture
def ours(converted: Callable[..., Path]) -> Callable[[str], Path]:
    """Give a directory of a head."""
    return lambda head: converted("electra_tiny_proj", "discriminator", targets=("pytorch",)) / head


def load(directory: Path, head: str) -> Any:
    """Load a directory with transformers."""
    return getattr(transformers, ARCHITECTURES[head]).from_pretrained(directory)


def saved(directory: Path, path: Path, state: Any, **options: Any) -> Path:
    """Save a state dict beside a copy of the config."""
    path.mkdir()
    shutil.copy(directory / "config.json", path)
    torch.save(state, path / SINGLE, **options)
    return path


@pytest.mark.parametrize("head", ARCHITECTURES)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict(ours: Callable[[str], Path], tmp_path: Path, head: str, *, zipped: bool) -> None:
    """The state dict of a model, in today's layout and in that from before PyTorch 1.6."""
    state = load(ours(head), head).state_dict()
    path = saved(ours(head), tmp_path / "old", state, _use_new_zipfile_serialization=zipped)
    found = assert_same_model(ours(head), path, "pytorch", SINGLE)
    assert [*found.ignored] == (["generator_lm_head.weight"] if head in ("masked_lm", "causal_lm") else [])


@pytest.mark.parametrize("head", ARCHITECTURES)
@pytest.mark.parametrize("size", ["1GB", "200KB"])
def test_what_transformers_saves_is_whole(ours: Callable[[str], Path], tmp_path: Path, head: str, size: str) -> None:
    """One file or shards, as transformers 4 writes them; version 5 has forgotten how."""
    model = load(ours(head), head)
    model.save_pretrained(tmp_path, safe_serialization=False, max_shard_size=size)
    if int(transformers.__version__.split(".")[0]) < 5:
        found = assert_same_model(ours(head), tmp_path, "pytorch", "pytorch_model")
        assert (tmp_path / INDEX).exists() == (len(found.files) > 1) == (size == "200KB")
    else:
        assert_same_model(ours(head), tmp_path, "pytorch", "model")


@pytest.mark.parametrize("zipped", [True, False])
def test_old_names_and_buffers(ours: Callable[[str], Path], tmp_path: Path, *, zipped: bool) -> None:
    """What transformers 2 and 3 wrote: gamma and beta, and the numbers of positions."""
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in load(ours("pretraining"), "pretraining").state_dict().items()
    }
    state["electra.embeddings.position_ids"] = torch.arange(64).expand((1, -1))
    path = saved(ours("pretraining"), tmp_path / "old", state, _use_new_zipfile_serialization=zipped)
    found = assert_same_model(ours("pretraining"), path, "pytorch", SINGLE)
    assert [*found.ignored] == ["electra.embeddings.position_ids"]
    said = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(said | {"classifier_dropout": 0.1, "summary_type": "last"}))
    model, expected = (ElectraForPreTraining.from_pretrained(place) for place in (path, ours("pretraining")))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.state_dict().items())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes(ours: Callable[[str], Path], tmp_path: Path, dtype: str) -> None:
    """Values of other dtypes have the bits that PyTorch gives them."""
    model = load(ours("base"), "base").to(getattr(torch, dtype))
    path = saved(ours("base"), tmp_path / "cast", model.state_dict())
    model.save_pretrained(tmp_path / "safe")
    tensors = open_model_directory(path, load_mappings()).tensors
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    assert_same_weights(tmp_path / "safe", path, "pytorch")


def test_views_and_parameters(tmp_path: Path) -> None:
    """Tensors that share a storage, are views of one, transposed, or parameters that require gradients."""
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"whole": whole, "row": whole[1], "turned": whole.T, "part": whole[:, 1:3], "one": whole[2, 3]}
    state |= {"parameter": torch.nn.Parameter(whole), "narrow": whole.bfloat16().T}
    torch.save(OrderedDict(state), tmp_path / SINGLE)
    for name, tensor in read(tmp_path / SINGLE).items():
        assert tensor.shape == tuple(state[name].shape)
        assert tensor.load().astype("f4").tolist() == state[name].detach().float().tolist()


class Planted:
    """What a pickle can be made to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(ours: Callable[[str], Path], tmp_path: Path, *, zipped: bool) -> None:
    """A pickle that asks for more than tensors is refused in one message, and nothing is done."""
    planted = tmp_path / "planted"
    for number, state in enumerate(({"a": torch.ones(2), "b": Planted(planted)}, Planted(planted))):
        path = saved(ours("base"), tmp_path / str(number), state, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CorruptCheckpointError, match=r"PyTorch refuses it: .*mkdir") as raised:
            open_model_directory(path, load_mappings())
        assert str(raised.value).isascii()
        assert not planted.exists()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([1, 2], "it holds list; expected tensors by name"),
        ({}, "expected tensors by name"),
        ({"model": {"a": torch.ones(2)}, "epoch": 3}, "epoch is int"),
        ({5: torch.ones(2)}, "5 is a tensor"),
        ({"a\x1b[31m": torch.ones(2)}, r"a\\x1b\[31m is no name"),
        ({"a": torch.ones(2).to_sparse()}, "a is a tensor of torch.sparse_coo"),
        ({"a": torch.ones(2, device="meta")}, "a is a tensor of torch.strided on meta"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a is 'complex64'; expected one of"),
        ({"a": torch.ones(1).expand(1 << 40)}, r"a has the shape \[1099511627776\], and the file"),
        ({"a": torch.ones(1).expand(900, 900)}, r"a \[900, 900\] takes bytes 0 to 3240000"),
        ({"a": torch.ones(0)}, r"a has the shape \[0\]"),
    ],
    ids=str,
)
def test_what_is_no_state_dict(tmp_path: Path, state: Any, words: str) -> None:
    """What is pickled but no tensors by name, or claims more than the file has, is told."""
    torch.save(state, tmp_path / SINGLE)
    with pytest.raises(CorruptCheckpointError, match=words):
        read(tmp_path / SINGLE)


@pytest.mark.parametrize("zipped", [True, False])
def test_damage(tmp_path: Path, *, zipped: bool) -> None:
    """A file that ends too soon anywhere, or is something else, is one message."""
    path = tmp_path / SINGLE
    torch.save({"a": torch.ones(300), "b": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for damaged in (*(content[:end] for end in range(0, len(content) - 1, 97)), b"other", pickle.dumps({"a": 1})):
        path.write_bytes(damaged)
        with pytest.raises(CorruptCheckpointError, match=SINGLE):
            read(path)


def test_a_negative_view(tmp_path: Path) -> None:
    """Values that PyTorch negates when they are read are the values it shows."""
    torch.save({"a": torch._neg_view(torch.ones(3))}, tmp_path / SINGLE)
    assert read(tmp_path / SINGLE)["a"].load().tolist() == [-1, -1, -1]


def test_a_file_that_changes(tmp_path: Path) -> None:
    """A mapped file that becomes shorter is not touched: that would end the process."""
    torch.save({"a": torch.ones(3000)}, tmp_path / SINGLE)
    tensor = read(tmp_path / SINGLE)["a"]
    os.truncate(tmp_path / SINGLE, 100)
    with pytest.raises(CorruptCheckpointError, match="changed while it was read"):
        tensor.load()
