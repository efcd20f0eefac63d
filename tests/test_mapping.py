"""Mappings: what they say of the shipped formats, and what is found wrong in a broken one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_convert import MappingError, load_mappings
from electra_convert.inventory import TensorSpec
from electra_convert.mapping import Binding, default_directory, mapping_schema
from electra_convert.tensor import Tensor
from electra_convert.whole_file import read_whole
from tests.small import CONFIG

CLASS_PREFIXES = {"pytorch": "", "tensorflow": "TF", "flax": "Flax"}
HEADS = list(load_mappings().inventory.heads)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped mappings, to be broken."""
    return shutil.copytree(default_directory(), tmp_path / "mappings")


def edit(folder: Path, file: str, before: str, after: str) -> None:
    """Replace a line's text in a mapping file."""
    text = (folder / file).read_text()
    assert before in text
    (folder / file).write_text(text.replace(before, after, 1))


def test_the_hashes_are_of_what_was_parsed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is read once, so that one that changes meanwhile has no other's hash."""
    read: dict[str, bytes] = {}

    def read_and_change(path: Path, most: int) -> bytes:
        assert path.name not in read
        read[path.name] = read_whole(path, most)
        path.write_text("changed")
        return read[path.name]

    monkeypatch.setattr("electra_convert.yaml.read_whole", read_and_change)
    hashes = load_mappings(folder).hashes
    assert hashes == {name: hashlib.sha256(content).hexdigest() for name, content in read.items()}
    assert len(hashes) > 4


@pytest.mark.parametrize("projection", ["proj", "noproj"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("target", CLASS_PREFIXES)
def test_names_and_shapes_are_those_of_transformers(fixtures: Path, target: str, head: str, projection: str) -> None:
    """Each head of each format has exactly the names and shapes that transformers' class has."""
    mappings = load_mappings()
    inventories: dict[str, Any] = json.loads((fixtures / "name_inventories.json").read_text())
    config = msgspec.structs.replace(CONFIG, embedding_size=16 if projection == "proj" else 32)
    specs = mappings.inventory.backbone_tensors(config) + mappings.inventory.head_tensors(head, config)
    mapping = mappings.formats[target]
    bindings = mapping.bind(specs, mapping.resolve({"head": head, "layout": "single"}))
    # transformers has no causal class in TensorFlow: its file has the names of the masked one.
    known = head if CLASS_PREFIXES[target] + _architecture(head) in inventories[target] else "masked_lm"
    expected = inventories[target][CLASS_PREFIXES[target] + _architecture(known)][projection]
    assert {binding.name: list(binding.shape) for binding in bindings} == expected


def _architecture(head: str) -> str:
    return load_mappings().inventory.heads[head].architecture


@pytest.mark.parametrize(
    ("file", "before", "after", "message"),
    [
        (
            "pytorch.yaml",
            "  tagger.output: classifier\n",
            "",
            r"pytorch.yaml: tagger.output is in electra.yaml but not",
        ),
        ("pytorch.yaml", "  tagger.output:", "  tagger.outputs:", r"modules: tagger.outputs is no row of electra.yaml"),
        (
            "flax.yaml",
            "{backbone}embeddings_project",
            "{spine}embeddings_project",
            r"\{spine\} in .* is no placeholder",
        ),
        ("flax.yaml", "layer/{layer}/output/dense", "layer/0/output/dense", r"must hold \{layer\}"),
        ("flax.yaml", "discriminator_predictions/dense_prediction", "discriminator_predictions/dense", r"both called"),
        ("flax.yaml", "{module}/kernel", "{module.__class__}/kernel", r"\{module.__class__\} in .* is no placeholder"),
        ("flax.yaml", "{module}/kernel", "{module/kernel", r"is malformed"),
        ("tensorflow.yaml", "  norm.scale:", "  norm.size:", r"'norm.size' is no kind and leaf"),
        ("tensorflow.yaml", '  norm.scale: "{module}/gamma:0"\n', "", r"leaves: norm.scale is not spelt"),
        (
            "google_tf1.yaml",
            "absent: [",
            "absent: [generator.norm, ",
            r"generator.norm stands under modules and absent",
        ),
        ("pytorch.yaml", "  norm.scale: [", "  norm.size: [", r"'norm.size' is no kind and leaf"),
        ("pytorch.yaml", '"{module}.gamma"', '"gamma"', r"aliases: norm.scale: 'gamma' must hold \{module\}"),
        (
            "pytorch.yaml",
            '"{module}.gamma"',
            '"{module}.bias"',
            r"aliases: 'electra.embeddings.LayerNorm.bias' is what",
        ),
        ("pytorch.yaml", '"{module}.gamma"', '"{module}.beta"', r"and another tensor is, or was"),
        ("google_tf1.yaml", "generator: masked_lm", "generator: mlm", r"'mlm' is no head"),
        ("google_tf1.yaml", "    - {is: electra/}\n", "", r"placeholders.scope: its last case must hold always"),
        ("google_tf1.yaml", "part: generator}, is: generator/,", "part: gen}, is: generator/,", r"part is never 'gen'"),
        ("google_tf1.yaml", "format: google_tf1", "format: google", r"format is 'google'; the file's name says"),
        (
            "google_tf1.yaml",
            "absent:",
            "missing:",
            r"google_tf1.yaml does not follow the schema.*unknown field `missing`",
        ),
        ("google_tf1.yaml", "leaves:", "leaves: &leaves", r"google_tf1.yaml"),
        ("pytorch.yaml", "dense.kernel: transpose", "dense.kernel: rotate", r"Invalid enum value 'rotate'"),
        (
            "pytorch.yaml",
            "qa_outputs: [span.start, span.end]",
            "qa_outputs: [span.start]",
            r"span.end is in electra.yaml",
        ),
        (
            "electra.yaml",
            "shape: [vocab_size, embedding_size]",
            "shape: [words, embedding_size]",
            r"'words' is no dimension",
        ),
        ("electra.yaml", "like: masked_lm", "like: clm", r"like names 'clm', which is no head"),
        ("electra.yaml", "scale: ones, ", "", r"initializers: scale has none"),
    ],
)
def test_a_broken_row_is_named(folder: Path, file: str, before: str, after: str, message: str) -> None:
    """A fault in a mapping is an error at load, which names the file and the row."""
    edit(folder, file, before, after)
    if "&leaves" in after:
        edit(folder, file, "modules:", "other: *leaves\nmodules:")
    with pytest.raises(MappingError) as raised:
        load_mappings(folder)
    assert re.search(message, str(raised.value), re.DOTALL), str(raised.value)


def test_all_faults_are_told_at_once(folder: Path) -> None:
    """Faults in several files come in one message."""
    edit(folder, "pytorch.yaml", "  tagger.output: classifier\n", "")
    edit(folder, "flax.yaml", "  choice.output: classifier\n", "")
    with pytest.raises(MappingError) as raised:
        load_mappings(folder)
    assert [problem.partition(":")[0] for problem in raised.value.problems] == ["flax.yaml", "pytorch.yaml"]


def test_a_key_that_stands_twice_is_refused(folder: Path) -> None:
    """YAML takes the last of two equal keys without a word; here it is an error with the line."""
    with (folder / "flax.yaml").open("a") as file:
        file.write("leaves: {}\n")
    with pytest.raises(MappingError, match=r"the key 'leaves' stands here a second time"):
        load_mappings(folder)


def test_a_folder_without_inventory_is_refused(tmp_path: Path) -> None:
    """A folder that holds no inventory is told so."""
    with pytest.raises(MappingError, match=r"there is no electra\.yaml"):
        load_mappings(tmp_path)


def test_placeholders_are_resolved_from_what_is_there() -> None:
    """A generator without a scope of its own is the discriminator's transformer; its embeddings are its own or not."""
    mapping = load_mappings().formats["google_tf1"]
    shared = ["electra/embeddings/word_embeddings", "generator/embeddings_project/kernel"]
    assert mapping.resolve({"part": "generator"}, shared) == {
        "scope": "generator/",
        "embeddings": "electra/embeddings/",
    }
    untied = ["electra/embeddings/word_embeddings", "generator/embeddings/word_embeddings"]
    assert mapping.resolve({"part": "generator"}, untied)["embeddings"] == "generator/embeddings/"
    assert mapping.resolve({"part": "generator"}, shared[:1])["scope"] == "electra/"
    assert mapping.resolve({"part": "discriminator"}, untied)["embeddings"] == "electra/embeddings/"


@given(rows=st.integers(1, 5), widths=st.lists(st.integers(1, 4), min_size=1, max_size=3), transpose=st.booleans())
def test_pack_and_unpack_are_inverse(rows: int, widths: list[int], *, transpose: bool) -> None:
    """A tensor made of canonical ones gives them back, whatever is joined and transposed."""
    specs = tuple(
        TensorSpec(f"t{i}", f"t{i}", None, "dense", "kernel", (rows, width)) for i, width in enumerate(widths)
    )
    arrays = {
        spec.name: np.arange(rows * spec.shape[1], dtype=np.float32).reshape(spec.shape) + i
        for i, spec in enumerate(specs)
    }
    tensors = {name: Tensor(name, array.shape, "float32", partial(np.asarray, array)) for name, array in arrays.items()}
    binding = Binding("joined", specs, "transpose" if transpose else "identity")
    packed = binding.pack(tensors)
    assert packed.load().shape == packed.shape == binding.shape
    for tensor in binding.unpack(packed):
        assert np.array_equal(tensor.load(), arrays[tensor.name])


def test_the_schema_accepts_what_is_shipped() -> None:
    """Editors that use the JSON Schema find no fault in the shipped files, and one in a misspelt key."""
    import jsonschema
    import yaml

    validator = jsonschema.Draft202012Validator(mapping_schema())
    for path in default_directory().glob("*.yaml"):
        document = yaml.safe_load(path.read_text())
        assert validator.is_valid(document), path.name
        assert not validator.is_valid(document | {"modulez": {}}), path.name
