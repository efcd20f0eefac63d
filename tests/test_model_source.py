"""Conversions of models: any format to any format, and what is refused."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from electra_convert import ConvertOptions, convert_checkpoint, diff_checkpoints, inspect_checkpoint
from electra_convert.cli import main
from electra_convert.errors import (
    ConfigError,
    CorruptCheckpointError,
    ElectraConvertError,
    OptionError,
    OutputExistsError,
    PartNotFoundError,
    TensorMismatchError,
)
from electra_convert.formats import TARGETS, module_of, pytorch

if TYPE_CHECKING:
    from electra_convert.tensor import Array

QUERY = "electra.encoder.layer.1.attention.self.query.weight"
HEADS = ("base", "causal_lm", "sequence_classification", "multiple_choice", "question_answering")
NATIVE = {"discriminator": "pretraining", "generator": "masked_lm"}


def run(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [*map(str, arguments)])


def refused(source: Path, out: Path, kind: type[ElectraConvertError], **options: Any) -> str:
    """Return the message with which a conversion is refused; nothing is written."""
    with pytest.raises(kind) as error:
        convert_checkpoint(source, out, ConvertOptions(**options))
    assert not out.exists()
    return str(error.value)


@pytest.fixture(scope="session")
def native(converted: Callable[..., Path]) -> Callable[..., Path]:
    """Return the native head of a part of a fixture, in one format."""

    def directory(name: str, part: str, target: str) -> Path:
        return converted(name, part, targets=(target,), heads=("native",)) / NATIVE[part]

    return directory


@pytest.fixture
def model(native: Callable[..., Path], tmp_path: Path) -> Path:
    """A discriminator of PyTorch's that a test may change."""
    return shutil.copytree(native("electra_tiny", "discriminator", "pytorch"), tmp_path / "model")


def change(model: Path, change: Callable[[dict[str, Array]], object]) -> None:
    """Change the tensors of a model in place."""
    arrays = load_file(model / pytorch.SINGLE)
    change(arrays)
    save_file(arrays, model / pytorch.SINGLE)


class TestEveryDirection:
    @pytest.mark.parametrize("pair", [*itertools.product(TARGETS, TARGETS)], ids="-".join)
    @pytest.mark.parametrize("part", NATIVE)
    def test_gives_what_the_checkpoint_gives(
        self, native: Callable[..., Path], converted: Callable[..., Path], tmp_path: Path, part: Any, pair: Any
    ) -> None:
        """All heads, by way of any format, are the bytes that the checkpoint itself gives."""
        source, target = pair
        convert_checkpoint(
            native("electra_tiny", part, source), tmp_path / "out", ConvertOptions(targets=(target,), part=part)
        )
        direct = converted("electra_tiny", part, targets=(target,))
        for head in direct.iterdir():
            if head.is_dir():
                again = tmp_path / "out" / head.name
                file = module_of(target).SINGLE
                assert (again / file).read_bytes() == (head / file).read_bytes(), head.name
                assert json.loads((again / "config.json").read_text()) == json.loads((head / "config.json").read_text())
                assert (again / "tokenizer.json").read_bytes() == (head / "tokenizer.json").read_bytes()

    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize(
        "head", ["base", "causal_lm", "sequence_classification", "multiple_choice", "question_answering"]
    )
    def test_keeps_every_head(self, converted: Callable[..., Path], tmp_path: Path, head: str, target: Any) -> None:
        """The head of a model is its native one, whatever it is; the others are drawn."""
        source = converted("electra_tiny", "discriminator", targets=(target,)) / head
        report = convert_checkpoint(source, tmp_path / "out", ConvertOptions(seed=7))
        assert diff_checkpoints(source, tmp_path / "out" / head).equal
        heads = {each.head: each for each in report.heads}
        assert (heads[head].note, heads[head].initialised) == ("native head", 0)
        assert heads["token_classification"].note == "untrained: fine-tune it"
        assert report.parts[0].native_head == head

    def test_a_fine_tuned_classifier(self, fixtures: Path, tmp_path: Path) -> None:
        """Labels of a model's head stay; they are not those of another number of labels."""
        convert_checkpoint(fixtures / "finetuned_mnli", tmp_path / "a", ConvertOptions(heads=("native",)))
        source = tmp_path / "a" / "sequence_classification"
        convert_checkpoint(source, tmp_path / "b", ConvertOptions(targets=("flax",), heads=("native",)))
        again = json.loads((tmp_path / "b" / "sequence_classification" / "config.json").read_text())
        assert list(again["id2label"].values()) == ["contradiction", "entailment", "neutral"]
        assert "labels given are 2" in refused(source, tmp_path / "c", ConfigError, labels=("a", "b"))

    def test_a_file_names_its_format(self, converted: Callable[..., Path], tmp_path: Path) -> None:
        """Of a directory with several formats, the file that is named is read."""
        source = converted("electra_tiny", "discriminator") / "pretraining"
        for target in TARGETS:
            convert_checkpoint(source / module_of(target).SINGLE, tmp_path / target, ConvertOptions(heads=("native",)))
            record = json.loads((tmp_path / target / "pretraining" / "conversion.json").read_text())
            assert record["source"]["format"] == target

    def test_a_shared_backbone(self, converted: Callable[..., Path], tmp_path: Path) -> None:
        """A sharded model is read, and written."""
        source = converted("electra_tiny", "discriminator", layout="shared") / "pretraining"
        convert_checkpoint(source, tmp_path / "out", ConvertOptions(layout="shared"))
        assert diff_checkpoints(source, tmp_path / "out" / "pretraining").equal

    def test_again_there_is_nothing_to_do(self, model: Path, tmp_path: Path) -> None:
        """The same conversion is known by the hash of the model's files; another is refused."""
        options = ConvertOptions(heads=("native",), targets=("flax",))
        convert_checkpoint(model, tmp_path / "out", options)
        with pytest.raises(OutputExistsError, match="nothing to do"):
            convert_checkpoint(model, tmp_path / "out", options)
        change(model, lambda arrays: arrays[QUERY].__setitem__((0, 0), 1.0))
        with pytest.raises(OutputExistsError, match="--overwrite"):
            convert_checkpoint(model, tmp_path / "out", options)

    def test_what_is_left_out_of_the_config_is_told(self, model: Path, tmp_path: Path) -> None:
        """Fields that no conversion writes; those that say how a file was made are not worth a word."""
        config = json.loads((model / "config.json").read_text())
        more = {
            "classifier_dropout": None,
            "finetuning_task": "mnli",
            "use_cache": True,
            "transformers_version": "4.57.3",
        }
        (model / "config.json").write_text(json.dumps(config | more))
        report = convert_checkpoint(model, tmp_path / "out", ConvertOptions(heads=("native",)))
        assert report.notes == ['its config.json says finetuning_task = "mnli", which is not written']

    def test_dtypes(self, model: Path, tmp_path: Path) -> None:
        """A model in bfloat16 becomes float32 without a word, and float16 with one."""
        convert_checkpoint(
            model, tmp_path / "low", ConvertOptions(dtype="bfloat16", targets=("pytorch",), heads=("native",))
        )
        low = tmp_path / "low" / "pretraining"
        wide = convert_checkpoint(low, tmp_path / "wide", ConvertOptions(heads=("native",)))
        assert not wide.notes
        narrow = convert_checkpoint(low, tmp_path / "narrow", ConvertOptions(dtype="float16", heads=("native",)))
        assert any("rounded to float16" in note for note in narrow.notes)


class TestRefused:
    def test_tensors_that_do_not_fit(self, model: Path, tmp_path: Path) -> None:
        """All that is missing, of another shape or unknown is told at once."""

        def damage(arrays: dict[str, Array]) -> None:
            arrays["electra.embeddings.extra.weight"] = arrays.pop("electra.embeddings.LayerNorm.weight")
            arrays[QUERY] = np.zeros((3, 5), np.float32)

        change(model, damage)
        message = refused(model, tmp_path / "out", TensorMismatchError)
        for part in ("LayerNorm.weight [32] is missing", "extra.weight [32] is in no mapping", f"{QUERY} has shape [3"):
            assert part in message

    def test_values_that_are_no_numbers(self, model: Path, tmp_path: Path) -> None:
        """A model with NaN is not converted."""
        change(model, lambda arrays: arrays[QUERY].__setitem__((0, 0), np.nan))
        with pytest.raises(CorruptCheckpointError, match=QUERY):
            convert_checkpoint(model, tmp_path / "out")
        assert not [*(tmp_path / "out").glob("*")]

    def test_a_copy_of_the_word_table_that_differs(self, native: Callable[..., Path], tmp_path: Path) -> None:
        """What ELECTRA ties must be the same where it is there twice."""
        model = shutil.copytree(native("electra_tiny", "generator", "pytorch"), tmp_path / "model")

        def copy(arrays: dict[str, Array]) -> None:
            arrays["generator_lm_head.weight"] = arrays["electra.embeddings.word_embeddings.weight"].copy()

        change(model, copy)
        convert_checkpoint(model, tmp_path / "same", ConvertOptions(heads=("native",)))
        change(model, lambda arrays: arrays["generator_lm_head.weight"].__setitem__((0, 0), 9.0))
        assert "generator_lm_head.weight is not electra.embeddings.word_embeddings.weight" in refused(
            model, tmp_path / "other", TensorMismatchError
        )

    def test_options_that_are_for_checkpoints(
        self, model: Path, hparams: Callable[[str], Path], tmp_path: Path
    ) -> None:
        """A model has its own config, one part, one head and no steps."""
        out = tmp_path / "out"
        assert "its own config.json" in refused(model, out, OptionError, config=hparams("electra_tiny"))
        assert "there is no task" in refused(model, out, OptionError, task="mnli")
        assert "no steps" in refused(model, out, OptionError, step=30)
        assert "has no generator" in refused(model, out, PartNotFoundError, part="generator")
        assert "has no generator" in refused(model, out, PartNotFoundError, part="both")

    def test_an_output_over_the_model(self, model: Path) -> None:
        """A model is not replaced by what is made of it."""
        renamed = model.rename(model.parent / "pretraining")
        with pytest.raises(OptionError, match="choose another OUT"):
            convert_checkpoint(renamed, renamed.parent, ConvertOptions(overwrite=True))
        assert (renamed / pytorch.SINGLE).is_file()

    def test_a_folder_of_models(self, converted: Callable[..., Path], tmp_path: Path) -> None:
        """The directories that may have been meant are named."""
        result = run("convert", converted("electra_tiny", "discriminator"), tmp_path / "out")
        assert result.exit_code == 1
        assert "pretraining" in result.output


class TestCommands:
    def test_convert_says_what_it_reads(self, model: Path, tmp_path: Path) -> None:
        """The report names the class and the framework."""
        result = run("convert", model, tmp_path / "out", "--to", "flax")
        assert result.exit_code == 0, result.output
        assert "ElectraForPreTraining, a model of PyTorch" in result.output

    def test_inspect(self, model: Path) -> None:
        """Every tensor of a model is named, with its canonical name."""
        inspection = inspect_checkpoint(model)
        assert inspection.parts[0].native_head == "pretraining"
        assert inspection.parts[0].parameters == sum(each.size for each in load_file(model / pytorch.SINGLE).values())
        named = {tensor.name: tensor.canonical for tensor in inspection.tensors}
        assert named[QUERY] == {"discriminator": "layer.1.attention.query.kernel"}
        assert run("inspect", model).exit_code == 0

    def test_the_default_output(self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without OUT, it is named after the model."""
        monkeypatch.chdir(tmp_path)
        assert run("convert", model, "--head", "native").exit_code == 0
        assert (tmp_path / "model-converted" / "pretraining").is_dir()
