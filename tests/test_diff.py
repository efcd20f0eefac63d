"""Comparisons of two checkpoints: what they find, what they say, and what they refuse."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from electra_convert import ConvertOptions, DiffOptions, convert_checkpoint, diff_checkpoints
from electra_convert.cli import main
from electra_convert.diff.tensors import compare_tensors
from electra_convert.errors import CheckpointNotFoundError, ConfigError, OptionError
from electra_convert.formats import TARGETS, pytorch, tensorflow
from electra_convert.formats import extents as extents_module
from electra_convert.mapping import load_mappings
from electra_convert.model_directory import open_model_directory
from electra_convert.tensor import Tensor

if TYPE_CHECKING:
    from electra_convert.tensor import Array

QUERY = "electra.encoder.layer.1.attention.self.query.weight"
NATIVE = {"discriminator": "pretraining", "generator": "masked_lm"}


def run(*arguments: object) -> Result:
    """Run `diff` in this process."""
    return CliRunner().invoke(main, ["diff", *map(str, arguments)])


def changed(directory: Path, path: Path, change: Callable[[dict[str, Array]], object] = lambda _: None) -> Path:
    """Copy a directory as a model of PyTorch alone, its tensors changed in place."""
    path.mkdir()
    for file in directory.iterdir():
        if file.suffix in (".json", ".txt") and file.name != "conversion.json":
            shutil.copy(file, path)
    arrays = load_file(directory / pytorch.SINGLE)
    change(arrays)
    save_file(arrays, path / pytorch.SINGLE)
    return path


def rewritten(directory: Path, **fields: Any) -> Path:
    """Change fields of a directory's config."""
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return directory


@pytest.fixture(scope="session")
def model(converted: Callable[..., Path]) -> Path:
    """A discriminator with its native head, in all formats."""
    return converted("electra_tiny", "discriminator") / "pretraining"


class TestEqual:
    @pytest.mark.parametrize("head", ["base", "pretraining", "masked_lm", "question_answering", "token_classification"])
    @pytest.mark.parametrize("pair", [*itertools.combinations_with_replacement(TARGETS, 2)], ids="-".join)
    def test_the_formats_of_a_directory(self, converted: Callable[..., Path], head: str, pair: Any) -> None:
        """What one conversion wrote is equal in every pair of formats."""
        directory = converted("electra_tiny", "discriminator") / head
        report = diff_checkpoints(directory, directory, DiffOptions(formats=pair))
        assert report.equal, report
        assert (report.a.format, report.b.format) == pair
        assert report.tensors >= 55
        assert report.files == ["vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]

    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("part", ["discriminator", "generator"])
    def test_a_checkpoint_and_its_conversion(
        self, fixtures: Path, hparams: Callable[[str], Path], converted: Callable[..., Path], part: Any, target: Any
    ) -> None:
        """Google's checkpoint equals its native head in every format, either way round."""
        source, directory = fixtures / "electra_tiny", converted("electra_tiny", part) / NATIVE[part]
        options = DiffOptions(parts=(part,), formats=(target,), config=hparams("electra_tiny"))
        for a, b in itertools.permutations((source, directory)):
            report = diff_checkpoints(a, b, options)
            assert report.equal, report
            assert {report.a.format, report.b.format} == {"google_tf1", target}
            assert report.files == ["vocab.txt"]

    @pytest.mark.parametrize("target", TARGETS)
    def test_a_shared_backbone(self, converted: Callable[..., Path], model: Path, target: Any) -> None:
        """A sharded directory, whose backbone has a prefix, equals one file."""
        for head in ("base", "pretraining"):
            shared = converted("electra_tiny", "discriminator", layout="shared") / head
            assert diff_checkpoints(shared, model.parent / head, DiffOptions(formats=(target,))).equal

    def test_a_classifier_that_is_constructed(self, fixtures: Path, tmp_path: Path) -> None:
        """What is made of Google's one dense module is compared as it is written."""
        source = fixtures / "finetuned_mnli"
        convert_checkpoint(source, tmp_path, ConvertOptions(heads=("sequence_classification",)))
        assert diff_checkpoints(source, tmp_path / "sequence_classification").equal

    def test_a_checkpoint_with_itself(self, fixtures: Path) -> None:
        """Two of Google's, sharded or not, may be compared."""
        for name in ("electra_tiny", "electra_tiny_sharded"):
            assert diff_checkpoints(fixtures / name, fixtures / name, DiffOptions(parts=("generator",))).equal

    def test_a_file_of_weights(self, model: Path) -> None:
        """It stands for its directory, and names the format."""
        report = diff_checkpoints(model / tensorflow.SINGLE, model)
        assert report.equal
        assert (report.a.format, report.b.format) == ("tensorflow", "pytorch")

    def test_names_without_the_prefix(self, model: Path, tmp_path: Path) -> None:
        """A base model's names may have the prefix of the backbone, or not."""

        def add(arrays: dict[str, Array]) -> None:
            for name in list(arrays):
                arrays[f"electra.{name}"] = arrays.pop(name)

        base = model.parent / "base"
        assert not json.loads((base / "config.json").read_text()).get("prefix")
        assert diff_checkpoints(base, changed(base, tmp_path / "prefixed", add)).equal

    def test_positions_of_old_versions(self, model: Path, tmp_path: Path) -> None:
        """The buffer of positions that transformers saved before 4.31 is no weight."""

        def add(arrays: dict[str, Array]) -> None:
            arrays["electra.embeddings.position_ids"] = np.arange(64)[None]

        assert diff_checkpoints(model, changed(model, tmp_path / "old", add)).equal

    def test_layers_without_weights(self, model: Path, tmp_path: Path) -> None:
        """Keras lists layers without weights; their empty lists are written as lists of numbers."""
        other = changed(model, tmp_path / "b")
        (other / pytorch.SINGLE).unlink()
        shutil.copy(model / tensorflow.SINGLE, other)
        with h5py.File(other / tensorflow.SINGLE, "r+") as file:
            file.create_group("dropout_72").attrs["weight_names"] = []
            file.attrs["layer_names"] = [*file.attrs["layer_names"], "dropout_72"]
        assert diff_checkpoints(model, other).equal


class TestTensors:
    def test_one_value(self, model: Path, tmp_path: Path) -> None:
        """The largest difference is told, and where it is, as the canonical tensor lies."""

        def flip(arrays: dict[str, Array]) -> None:
            arrays[QUERY][3, 5] += 2
            arrays[QUERY][3, 6] += 1

        other = changed(model, tmp_path / "b", flip)
        for options in (DiffOptions(), DiffOptions(formats=("flax", "pytorch"))):
            report = diff_checkpoints(model, other, options)
            (found,) = report.different
            assert not report.equal
            assert (found.name, found.fate, found.at) == ("layer.1.attention.query.kernel", "differs", (5, 3))
            assert found.largest == pytest.approx(2, rel=1e-6)
        result = run(model, other)
        assert result.exit_code == 1
        assert "58 equal bit for bit, 1 differing" in result.stdout
        assert "layer.1.attention.query.kernel  differs: by up to 2, at [5, 3]" in result.stdout

    def test_missing_unknown_and_misshapen(self, model: Path, tmp_path: Path) -> None:
        """What one side lacks is listed, and so is what no mapping knows, and another shape."""

        def change(arrays: dict[str, Array]) -> None:
            del arrays["electra.embeddings.LayerNorm.bias"]
            arrays["surplus.weight"] = np.zeros(3, "f4")
            arrays[QUERY] = arrays[QUERY][:60].copy()

        other = changed(model, tmp_path / "b", change)
        report = diff_checkpoints(model, other)
        assert {found.name: found.fate for found in report.different} == {
            "embeddings.norm.bias": "missing in B",
            "surplus.weight": "missing in A",
            "layer.1.attention.query.kernel": "another shape",
        }
        assert report.b.unknown == ("surplus.weight",)
        opened = open_model_directory(other, load_mappings())
        assert [spec.name for spec in opened.missing] == ["embeddings.norm.bias"]
        assert opened.misshapen == ("layer.1.attention.query.kernel",)
        assert opened.tensors["layer.1.attention.query.kernel"].load().shape == (64, 60)
        shown = run(other, model).stdout
        assert "1 tensor in no mapping: surplus.weight" in shown
        assert "embeddings.norm.bias            missing in A: float32" in shown

    def test_a_tied_kernel(self, model: Path, tmp_path: Path) -> None:
        """A tied tensor that one file holds once more is no difference; one that is another is told by its name."""

        def add(arrays: dict[str, Array]) -> None:
            arrays["generator_lm_head.weight"] = arrays["electra.embeddings.word_embeddings.weight"].copy()

        def add_another(arrays: dict[str, Array]) -> None:
            add(arrays)
            arrays["generator_lm_head.weight"][-1, -1] += 1

        head = model.parent / "masked_lm"
        assert diff_checkpoints(changed(head, tmp_path / "tied", add), head).equal
        report = diff_checkpoints(changed(head, tmp_path / "untied", add_another), head)
        assert [(found.name, found.fate) for found in report.different] == [("generator.output.kernel", "missing in B")]
        assert report.a.unknown == ()

    def test_a_cast(self, model: Path, tmp_path: Path) -> None:
        """What was rounded is told apart from what differs; it is not equal all the same."""

        def cast(arrays: dict[str, Array]) -> None:
            arrays |= {name: array.astype("f2") for name, array in arrays.items()}

        other = changed(model, tmp_path / "b", cast)
        for a, b in ((model, other), (other, model)):
            report = diff_checkpoints(a, b)
            assert {found.fate for found in report.different} == {"cast"}
            assert len(report.different) == report.tensors
        result = run(model, other)
        assert result.exit_code == 1
        assert "0 equal bit for bit, 59 equal after rounding to the narrower dtype" in result.stdout
        assert "and 23 more" in result.stdout

    def test_a_head_that_one_side_lacks(self, model: Path) -> None:
        """Another head is another architecture, and its tensors are missing."""
        report = diff_checkpoints(model.parent / "base", model)
        assert [found.field for found in report.config] == ["architecture"]
        assert [found.name for found in report.different] == [
            "discriminator.dense.kernel",
            "discriminator.dense.bias",
            "discriminator.score.kernel",
            "discriminator.score.bias",
        ]

    @pytest.mark.parametrize(
        ("one", "other", "largest"),
        [(0.0, -0.0, [0.0]), (1.0, np.nan, [None]), (np.inf, 1.0, [None]), (np.nan, np.nan, [])],
    )
    def test_values_that_are_no_numbers(self, one: float, other: float, largest: list[float | None]) -> None:
        """The sign of a zero counts; a NaN equals itself; no difference is told that is not finite."""
        a, b = (np.array([[7, value]], "f4") for value in (one, other))
        found = list(compare_tensors({"x": held(a)}, {"x": held(b)}, lambda _: None))
        assert [each.largest for each in found] == largest
        assert all(each.at == (0, 1) for each in found)

    def test_pieces_are_compared_in_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However the values of each side are cut, the same are compared, and all are."""
        for name, size in (("WRITE_SIZE", 64), ("READ_SIZE", 300), ("STRIP_SIZE", 50), ("STRIP_WIDTH", 2), ("TILE", 8)):
            monkeypatch.setattr(extents_module, name, size)
        array = np.random.default_rng(0).normal(size=(37, 23)).astype("f4")
        for place in ((0, 0), (17, 11), (36, 22)):
            other = array.copy()
            other[place] += 1
            seen: list[int] = []
            (found,) = compare_tensors({"x": held(array)}, {"x": held(np.asfortranarray(other))}, seen.append)
            assert (found.at, sum(seen)) == (place, array.nbytes)
        assert not [*compare_tensors({"x": held(array)}, {"x": held(np.asfortranarray(array))}, lambda _: None)]


def held(array: Array) -> Tensor:
    """Return an array as a tensor."""
    return Tensor("x", array.shape, array.dtype.name, lambda: array)


class TestConfigAndTokenizer:
    def test_fields(self, model: Path, tmp_path: Path) -> None:
        """Fields that differ are listed with both values; how the file was written is no difference."""
        other = changed(model, tmp_path / "b")
        assert diff_checkpoints(model, rewritten(other, transformers_version="4.57.1", use_cache=True)).equal
        rewritten(other, num_attention_heads=2, pad_token_id=1)
        result = run(model, other, "--json")
        assert result.exit_code == 1
        assert [(each["field"], each["a"], each["b"]) for each in json.loads(result.stdout)["config"]] == [
            ("num_attention_heads", 4, 2),
            ("pad_token_id", 0, 1),
        ]

    def test_what_is_assumed(self, fixtures: Path, model: Path) -> None:
        """A value that follows Google's rule differs, and is said to be assumed."""
        result = run(fixtures / "electra_tiny", model, "--part", "discriminator")
        assert result.exit_code == 1
        assert "num_attention_heads: 1 (assumed: --config) in A, 4 in B" in result.stdout

    def test_ids(self, model: Path, tmp_path: Path) -> None:
        """The first ids that differ are told; the same tokens in other bytes are no difference."""
        other = changed(model, tmp_path / "b")
        vocabulary = other / "vocab.txt"
        lines = vocabulary.read_text().splitlines()
        vocabulary.write_bytes("\r\n".join(lines).encode())
        assert diff_checkpoints(model, other).equal
        vocabulary.write_text("\n".join([*lines[:-2], "zebra", lines[-1]]) + "\n")
        (found,) = diff_checkpoints(model, other).tokenizer
        assert found.file == "vocab.txt"
        assert found.says == f"1 ids differ: {len(lines) - 2} is {lines[-2]!r} in A, 'zebra' in B"
        vocabulary.write_text("".join(f"{line}\n" for line in lines[:-1]))
        assert diff_checkpoints(model, other).tokenizer[0].says.endswith(f"is {lines[-1]!r} in A, no token in B")

    def test_settings_and_missing_files(self, model: Path, tmp_path: Path) -> None:
        """Fields of the settings that differ are told, and files that one side lacks."""
        other = changed(model, tmp_path / "b")
        file = other / "tokenizer_config.json"
        said = json.loads(file.read_text())
        file.write_text(json.dumps(said))
        assert diff_checkpoints(model, other).equal
        file.write_text(json.dumps(said | {"do_lower_case": False}))
        (other / "tokenizer.json").unlink()
        found = {each.file: each.says for each in diff_checkpoints(model, other).tokenizer}
        assert found == {
            "tokenizer.json": "missing in B",
            "tokenizer_config.json": "do_lower_case is true in A, false in B",
        }

    def test_no_tokenizer(self, converted: Callable[..., Path]) -> None:
        """Where neither side has one, there is no difference."""
        bare = converted("electra_tiny", "discriminator", tokenizer=False) / "base"
        result = run(bare, bare)
        assert result.exit_code == 0
        assert "tokenizer  on neither side" in result.stdout


class TestRefusals:
    def test_wrong_usage(self, model: Path) -> None:
        """What click refuses is exit code 2, and so is what makes no sense."""
        assert run(model).exit_code == 2
        assert run(model, model, "--format", "onnx").exit_code == 2
        result = run(model, model, "--format", "pytorch,flax,flax")
        assert result.exit_code == 2
        assert "there are 3 of --format" in result.stderr
        with pytest.raises(OptionError):
            diff_checkpoints(model, model, DiffOptions(parts=("generator",) * 3))

    def test_a_part_must_be_named(self, fixtures: Path, model: Path) -> None:
        """A checkpoint with two parts needs --part."""
        result = run(fixtures / "electra_tiny", model)
        assert result.exit_code == 2
        assert "--part discriminator" in result.stderr

    def test_nothing_there(self, model: Path, tmp_path: Path) -> None:
        """What cannot be compared is told, and is exit code 2, for 1 means that they differ."""
        for path in (tmp_path / "nowhere", tmp_path / ("long" * 100), tmp_path):
            result = run(model, path)
            assert result.exit_code == 2
            assert str(path) in result.stderr
        other = changed(model, tmp_path / "b")
        assert run(model, other, "--format", "flax").exit_code == 2
        (other / pytorch.SINGLE).unlink()
        with pytest.raises(CheckpointNotFoundError, match="there are no weights in"):
            diff_checkpoints(model, other)

    def test_what_is_near_is_named(self, model: Path, tmp_path: Path) -> None:
        """A file of weights, and a folder of several heads or parts, lead to the directories that can be compared."""
        folder = tmp_path / "out"
        folder.mkdir()
        heads = [changed(model, folder / name) for name in ("base", "pretraining")]
        for path, near in ((folder, heads), (tmp_path, heads)):
            result = run(path, model)
            assert result.exit_code == 2
            assert f"name the directory of a model: {' or '.join(map(str, near))}" in result.stderr

    def test_a_broken_directory(self, model: Path, tmp_path: Path) -> None:
        """A config that names no class, or no model, and weights that end too soon, are one message each."""
        other = rewritten(changed(model, tmp_path / "a"), architectures=["BertModel"])
        with pytest.raises(ConfigError, match="names no ELECTRA class"):
            diff_checkpoints(model, other)
        cut = changed(model, tmp_path / "b")
        weights = (cut / pytorch.SINGLE).read_bytes()
        (cut / pytorch.SINGLE).write_bytes(weights[:-4])
        (cut / "config.json").write_text("[]")
        for fault in ("not an object", "damaged"):
            result = run(cut, model)
            assert (result.exit_code, result.stdout) == (2, "")
            assert fault in result.stderr
            shutil.copy(model / "config.json", cut)

    def test_a_damaged_checkpoint(self, fixtures: Path, tmp_path: Path) -> None:
        """Bytes that differ from their checksums are no difference, but an error."""
        damaged = Path(shutil.copytree(fixtures / "electra_tiny_uniform", tmp_path / "damaged"))
        (data,) = damaged.glob("*.data-*")
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
        result = run(fixtures / "electra_tiny_uniform", damaged)
        assert result.exit_code == 2
        assert "differ from their checksums" in result.stderr
