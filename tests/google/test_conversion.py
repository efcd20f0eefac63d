"""Conversions to checkpoints for Google's code: from everywhere and back, what is refused, and what is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from electra_convert import ConvertOptions, DiffOptions, convert_checkpoint, diff_checkpoints, inspect_checkpoint
from electra_convert.cli import main
from electra_convert.convert import ConversionReport
from electra_convert.errors import (
    ConfigError,
    CorruptCheckpointError,
    ElectraConvertError,
    OptionError,
    OutputExistsError,
    PartNotFoundError,
    TensorMismatchError,
    VocabularyError,
)
from electra_convert.formats import TARGETS, module_of, pytorch
from electra_convert.formats.google_tf1 import GoogleCheckpoint, open_checkpoint
from electra_convert.google.hparams import OF_MODELS
from electra_convert.google.target import PREFIX
from electra_convert.inventory import Part

PRETRAINED: dict[str, tuple[Part, ...]] = {
    "electra_tiny": ("discriminator", "generator"),
    "electra_tiny_mlm_only": ("generator",),
    "electra_tiny_noproj": ("discriminator", "generator"),
    "electra_tiny_proj": ("discriminator", "generator"),
    "electra_tiny_sharded": ("discriminator", "generator"),
    "electra_tiny_tied_weights": ("discriminator", "generator"),
    "electra_tiny_uniform": ("discriminator",),
    "electra_tiny_untied_embeddings": ("discriminator", "generator"),
    "electric_tiny": ("discriminator",),
}
HEADS: dict[Part, str] = {"discriminator": "pretraining", "generator": "masked_lm"}
LEFT_BEHIND = ("adam_m", "adam_v", "global_step", "cloze_predictions", "generator_ltr", "generator_rtl")
FILES = {
    "checkpoint",
    "conversion.json",
    "hparams.json",
    "hparams_finetuning.json",
    f"{PREFIX}.index",
    f"{PREFIX}.data-00000-of-00001",
    "vocab.txt",
}


def to_google(source: Path, out: Path, **options: Any) -> ConversionReport:
    """Write a checkpoint for Google's code."""
    return convert_checkpoint(source, out, ConvertOptions(targets=("google_tf1",), **options))


def run(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [*map(str, arguments)])


def refused(source: Path, out: Path, kind: type[ElectraConvertError], **options: Any) -> str:
    """Return the message with which a conversion is refused; nothing is written."""
    with pytest.raises(kind) as error:
        to_google(source, out, **options)
    assert not out.exists()
    return str(error.value)


def opened(folder: Path) -> GoogleCheckpoint:
    """Open the checkpoint in a folder, checksums compared."""
    (index,) = folder.glob("*.index")
    checkpoint = open_checkpoint(index.with_suffix(""))
    checkpoint.check(checkpoint.tensors)
    return checkpoint


def values_of(folder: Path) -> dict[str, bytes]:
    """Return the values of the variables that are converted, of the checkpoint in a folder."""
    return {
        name: tensor.load().tobytes()
        for name, tensor in opened(folder).tensors.items()
        if not any(word in name for word in LEFT_BEHIND)
    }


@pytest.fixture
def models(converted: Callable[..., Path], tmp_path: Path) -> Path:
    """Models of PyTorch's of both parts, that a test may change."""
    made = converted("electra_tiny", "both", targets=("pytorch",), heads=("native",))
    return shutil.copytree(made, tmp_path / "models")


def change(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the tensors of a model in place."""
    arrays = load_file(model / pytorch.SINGLE)
    change(arrays)
    save_file(arrays, model / pytorch.SINGLE, {"format": "pt"})


@pytest.mark.parametrize("name", PRETRAINED)
def test_checkpoints_come_back_through_all_formats(
    name: str, fixtures: Path, hparams: Callable[[str], Path], tmp_path: Path
) -> None:
    """From Google's to any format, from there to any, and from there to Google's: every variable, bit for bit."""
    parts = PRETRAINED[name]
    config = hparams("electra_tiny" if name == "electra_tiny_sharded" else name)
    native = ConvertOptions(part=parts[0] if len(parts) == 1 else "both", heads=("native",), config=config)
    convert_checkpoint(fixtures / name, tmp_path / "first", native)
    for first in TARGETS:
        for part in parts:
            folder = Path(part) if len(parts) > 1 else Path()
            source = tmp_path / "first" / folder / HEADS[part] / module_of(first).SINGLE
            convert_checkpoint(source, tmp_path / first / part, ConvertOptions(heads=("native",)))
    for first, second in product(TARGETS, TARGETS):
        places = [tmp_path / first / part / HEADS[part] / module_of(second).SINGLE for part in parts]
        report = to_google(
            places[0],
            tmp_path / f"{first}-{second}",
            generator=places[1] if len(parts) > 1 else None,
            untied_embeddings=name == "electra_tiny_untied_embeddings",
        )
        assert values_of(tmp_path / f"{first}-{second}") == values_of(fixtures / name), (first, second)
        if name != "electric_tiny":
            assert report.topology == inspect_checkpoint(fixtures / name).topology


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("finetuned_chunk", "chunk"),
        ("finetuned_mnli", "mnli"),
        ("finetuned_squad_span", "squadv1"),
        ("finetuned_sts", "sts"),
    ],
)
@pytest.mark.parametrize("target", TARGETS)
def test_tasks_come_back(name: str, task: str, target: Any, fixtures: Path, tmp_path: Path) -> None:
    """The name of the task is that of the record, where this package wrote the model."""
    report = convert_checkpoint(fixtures / name, tmp_path / "m", ConvertOptions(heads=("native",), targets=(target,)))
    to_google(report.heads[0].directory, tmp_path / "named")
    assert values_of(tmp_path / "named") == values_of(fixtures / name)
    (report.heads[0].directory / "conversion.json").unlink()
    assert "--task NAME" in refused(report.heads[0].directory, tmp_path / "no", OptionError)
    to_google(report.heads[0].directory, tmp_path / "given", task=task)
    assert values_of(tmp_path / "given") == values_of(fixtures / name)


class TestFromGooglesOwn:
    def test_a_part_alone(self, fixtures: Path, hparams: Callable[[str], Path], tmp_path: Path) -> None:
        """The generator, with the embeddings it shares, as what a training of it alone writes."""
        to_google(fixtures / "electra_tiny", tmp_path / "out", part="generator", config=hparams("electra_tiny"))
        names = set(opened(tmp_path / "out").tensors)
        assert {name.split("/")[0] for name in names} == {"electra", "generator_predictions", "global_step"}
        report = diff_checkpoints(fixtures / "electra_tiny", tmp_path / "out", DiffOptions(parts=("generator",)))
        assert (report.different, report.tensors) == ([], 58)
        assert json.loads((tmp_path / "out" / "hparams.json").read_text())["electra_objective"] is False

    def test_both(self, fixtures: Path, hparams: Callable[[str], Path], tmp_path: Path) -> None:
        """Without the slots, unless they are asked for: then all names are there, shapes and dtypes."""
        options: dict[str, Any] = {"part": "both", "config": hparams("electra_tiny")}
        to_google(fixtures / "electra_tiny", tmp_path / "a", **options)
        to_google(fixtures / "electra_tiny", tmp_path / "b", optimizer_slots=True, **options)
        assert values_of(tmp_path / "a") == values_of(tmp_path / "b") == values_of(fixtures / "electra_tiny")
        original, again = opened(fixtures / "electra_tiny").tensors, opened(tmp_path / "b").tensors
        assert {n: (t.shape, t.dtype) for n, t in again.items()} == {n: (t.shape, t.dtype) for n, t in original.items()}
        assert {path.name for path in (tmp_path / "b").iterdir()} == FILES

    def test_a_backbone(self, fixtures: Path, tmp_path: Path) -> None:
        """Of any checkpoint; it is written again, and converted."""
        to_google(fixtures / "finetuned_squad_joint", tmp_path / "a", heads=("base",))
        to_google(tmp_path / "a", tmp_path / "b")
        assert values_of(tmp_path / "a") == values_of(tmp_path / "b")
        report = convert_checkpoint(tmp_path / "a", tmp_path / "c", ConvertOptions(heads=("base",), targets=("flax",)))
        assert report.heads[0].initialised == 0

    def test_one_of_several_tasks(self, fixtures: Path, tmp_path: Path) -> None:
        """The other is left behind."""
        assert "which is to be converted" in refused(fixtures / "finetuned_multitask", tmp_path / "out", OptionError)
        to_google(fixtures / "finetuned_multitask", tmp_path / "out", task="sts")
        assert {name.split("/")[1] for name in values_of(tmp_path / "out") if "task" in name} == {"sts"}

    def test_damage_is_told_before_anything_appears(self, fixtures: Path, tmp_path: Path) -> None:
        """Checksums are compared as values are read to be written."""
        source = shutil.copytree(fixtures / "electra_tiny_uniform", tmp_path / "source")
        (data,) = source.glob("*.data-*")
        content = bytearray(data.read_bytes())
        content[-40] ^= 1
        data.write_bytes(content)
        assert "differ from their checksums" in refused(source, tmp_path / "out", CorruptCheckpointError)


class TestOfTwo:
    def test_the_output_of_a_conversion_is_a_source(self, models: Path, fixtures: Path, tmp_path: Path) -> None:
        """And so are the models in it, in any order of being named."""
        to_google(models, tmp_path / "a", part="both")
        to_google(models / "discriminator/pretraining", tmp_path / "b", generator=models / "generator/masked_lm")
        assert values_of(tmp_path / "a") == values_of(tmp_path / "b") == values_of(fixtures / "electra_tiny")
        to_google(models, tmp_path / "c", part="generator")
        assert "generator_predictions/output_bias" in values_of(tmp_path / "c")
        assert "which part is to be written" in refused(models, tmp_path / "no", OptionError)

    def test_a_generator_of_googles_own(self, models: Path, fixtures: Path, tmp_path: Path) -> None:
        """Each source is of its own format."""
        to_google(models / "discriminator/pretraining", tmp_path / "a", generator=fixtures / "electra_tiny")
        assert values_of(tmp_path / "a") == values_of(fixtures / "electra_tiny")

    def test_embeddings_that_differ(self, models: Path, tmp_path: Path) -> None:
        """They are told, and written where the generator is to have its own."""
        name = "electra.embeddings.LayerNorm.weight"
        change(models / "generator/masked_lm", lambda arrays: arrays.__setitem__(name, arrays[name] + 1))
        message = refused(models, tmp_path / "out", TensorMismatchError, part="both")
        assert "electra/embeddings/LayerNorm/gamma: the largest difference is 1" in message
        assert "--untied-embeddings" in message
        to_google(models, tmp_path / "out", part="both", untied_embeddings=True)
        assert "generator/embeddings/LayerNorm/gamma" in values_of(tmp_path / "out")

    def test_damage_makes_no_difference(self, models: Path, fixtures: Path, tmp_path: Path) -> None:
        """Embeddings that differ because a file is damaged are told to be damaged."""
        source = shutil.copytree(fixtures / "electra_tiny", tmp_path / "source")
        table = opened(source).tensors["electra/embeddings/word_embeddings"].load().tobytes()
        (data,) = source.glob("*.data-*")
        content = bytearray(data.read_bytes())
        content[content.index(table)] ^= 1
        data.write_bytes(content)
        model = models / "discriminator/pretraining"
        assert "differ from their checksums" in refused(
            model, tmp_path / "out", CorruptCheckpointError, generator=source
        )

    def test_one_model_is_not_two(self, models: Path, tmp_path: Path) -> None:
        """The generator must be named."""
        model = models / "discriminator/pretraining"
        assert "--generator" in refused(model, tmp_path / "out", OptionError, part="both")
        refused(model, tmp_path / "out", PartNotFoundError, part="generator")
        refused(model, tmp_path / "out", PartNotFoundError, generator=model)

    @pytest.mark.parametrize("folder", ["", "discriminator"])
    def test_the_output_of_one_part_is_not_both(self, models: Path, tmp_path: Path, folder: str) -> None:
        """What lacks is told, and what is there."""
        shutil.rmtree(models / "generator")
        message = refused(models / folder, tmp_path / "out", OptionError, part="both")
        assert "no folder generator" in message
        assert f"{models / 'discriminator/pretraining'} is there" in message
        assert "--generator" in message

    def test_vocabularies_that_differ(self, models: Path, tmp_path: Path) -> None:
        """One must be chosen."""
        place = models / "generator/masked_lm/vocab.txt"
        place.write_text(place.read_text().replace("##", "#", 1))
        assert "vocabularies" in refused(models, tmp_path / "out", VocabularyError, part="both")
        to_google(models, tmp_path / "out", part="both", vocab=place)
        assert (tmp_path / "out" / "vocab.txt").read_bytes() == place.read_bytes()

    def test_a_vocabulary_in_a_tokenizer(self, models: Path, tmp_path: Path) -> None:
        """As transformers 5 saves it: it becomes the same `vocab.txt`."""
        model = models / "discriminator/pretraining"
        original = (model / "vocab.txt").read_text().split()
        (model / "vocab.txt").unlink()
        report = to_google(model, tmp_path / "out")
        assert (tmp_path / "out" / "vocab.txt").read_text().split() == original
        assert any("made of tokenizer.json" in note for note in report.notes)

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            ({"type": "BPE"}, "its model is 'BPE'"),
            ({"vocab": []}, "Expected `object`, got `array`"),
            ({"vocab": {"[PAD]": True}}, "Expected `int`, got `bool`"),
            ({"vocab": {"[PAD]": 0, "a b": 2}}, "'a b' is no line"),
            ({"vocab": {"[PAD]": 0, "b": 7}}, "do not have the ids 0 to"),
        ],
    )
    def test_tokenizers_that_hold_none(self, models: Path, tmp_path: Path, fault: dict[str, Any], message: str) -> None:
        """They are refused, with what to do."""
        model = models / "discriminator/pretraining"
        (model / "vocab.txt").unlink()
        content = json.loads((model / "tokenizer.json").read_text())
        (model / "tokenizer.json").write_text(json.dumps(content | {"model": content["model"] | fault}))
        told = refused(model, tmp_path / "out", VocabularyError)
        assert message in told
        assert "--no-tokenizer" in told
        (model / "tokenizer.json").write_text("[")
        refused(model, tmp_path / "out", VocabularyError)
        report = to_google(model, tmp_path / "out", tokenizer=False)
        assert not (tmp_path / "out" / "vocab.txt").exists()
        assert not any("vocab" in note for note in report.notes)

    def test_casings_that_differ(self, models: Path, tmp_path: Path) -> None:
        """The tokenizer says whether text is lower-cased; the options say it better."""
        place = models / "generator/masked_lm/tokenizer_config.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | {"do_lower_case": False}))
        assert "do_lower_case" in refused(models, tmp_path / "out", ConfigError, part="both")
        to_google(models, tmp_path / "out", part="both", lowercase=False)
        assert json.loads((tmp_path / "out" / "hparams.json").read_text())["do_lower_case"] is False


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"targets": ("google_tf1", "flax")}, "google_tf1 stands alone, and flax"),
            ({"targets": ("google_tf1",), "dtype": "float16"}, "google_tf1 cannot hold float16"),
            ({"targets": ("google_tf1",), "layout": "shared"}, "google_tf1 is one directory"),
            ({"targets": ("google_tf1",), "split_formats": True}, "google_tf1 is one directory"),
            ({"targets": ("google_tf1",), "heads": ("base", "masked_lm")}, "google_tf1 holds one head"),
            ({"targets": ("google_tf1",), "generator": "g", "part": "generator"}, "the generator alone is asked for"),
            ({"generator": "g"}, "generator is given, which only google_tf1 has"),
            ({"optimizer_slots": True}, "optimizer_slots is given"),
            ({"untied_embeddings": True}, "untied_embeddings is given"),
        ],
    )
    def test_what_does_not_go_together(self, options: dict[str, Any], message: str) -> None:
        """Is told with what to do."""
        with pytest.raises(OptionError, match=message):
            ConvertOptions(**options)

    @pytest.mark.parametrize("head", ["token_classification", "masked_lm"])
    def test_heads_that_were_not_trained(self, models: Path, tmp_path: Path, head: str) -> None:
        """Nothing is drawn."""
        model = models / "discriminator/pretraining"
        assert "holds what was trained" in refused(model, tmp_path / "out", OptionError, heads=(head,))

    def test_nothing_that_is_read_is_replaced(self, models: Path) -> None:
        """Not even if what is there is to be replaced."""
        model = models / "discriminator/pretraining"
        with pytest.raises(OptionError, match="where files are that are read for it"):
            to_google(model, model, overwrite=True)
        assert (model / pytorch.SINGLE).is_file()


class TestWhatIsThere:
    def test_the_same_again(self, models: Path, tmp_path: Path) -> None:
        """Is nothing to do; with other options it is in the way, unless it is to be replaced."""
        model = models / "discriminator/pretraining"
        to_google(model, tmp_path / "out")
        with pytest.raises(OutputExistsError, match="nothing to do"):
            to_google(model, tmp_path / "out")
        options = ConvertOptions(targets=("google_tf1",))
        report = convert_checkpoint(model, tmp_path / "out", options, exist_ok=True)
        assert (report.heads[0].status, report.nbytes) == ("already there", 0)
        with pytest.raises(OutputExistsError, match="--overwrite"):
            to_google(model, tmp_path / "out", optimizer_slots=True)
        to_google(model, tmp_path / "out", optimizer_slots=True, overwrite=True)
        assert any(name.endswith("/adam_m") for name in opened(tmp_path / "out").tensors)
        assert {path.name for path in tmp_path.iterdir()} == {"models", "out"}

    def test_only_a_checkpoint_is_replaced(self, models: Path, tmp_path: Path) -> None:
        """What a training added to it is not, nor is a directory of other things, or a file."""
        model, out = models / "discriminator/pretraining", tmp_path / "out"
        to_google(model, out)
        (out / "model.ckpt-1000.index").write_text("precious")
        with pytest.raises(OutputExistsError, match=r"(?s)more than a checkpoint.*model\.ckpt-1000\.index"):
            to_google(model, out, overwrite=True)
        assert (out / "model.ckpt-1000.index").read_text() == "precious"
        (out / "model.ckpt-1000.index").unlink()
        with pytest.raises(OutputExistsError, match="more than a checkpoint"):
            to_google(out, models, overwrite=True)
        (tmp_path / "file").write_text("precious")
        with pytest.raises(OutputExistsError, match="no directory that can be replaced"):
            to_google(model, tmp_path / "file", overwrite=True)
        (tmp_path / "empty").mkdir()
        to_google(model, tmp_path / "empty")

    def test_values_that_are_no_numbers(self, models: Path, tmp_path: Path) -> None:
        """Are refused when they are written, and nothing is left."""
        model = models / "discriminator/pretraining"
        name = "discriminator_predictions.dense.bias"
        change(model, lambda arrays: arrays.__setitem__(name, np.full_like(arrays[name], np.nan)))
        assert "NaN" in refused(model, tmp_path / "out", CorruptCheckpointError)
        assert {path.name for path in tmp_path.iterdir()} == {"models"}

    def test_the_record_says_what_it_was_made_of(self, models: Path, tmp_path: Path) -> None:
        """Each source with its hash, and every variable with its canonical name."""
        to_google(models, tmp_path / "out", part="both")
        record = json.loads((tmp_path / "out" / "conversion.json").read_text())
        assert (record["format"], record["topology"]) == ("google_tf1", "two_parts")
        assert {part: said["format"] for part, said in record["parts"].items()} == dict.fromkeys(HEADS, "pytorch")
        assert all(len(said["files_sha256"]) == 64 for said in record["parts"].values())
        shared = record["tensors"]["electra/embeddings/word_embeddings"]
        assert shared == {part: ["embeddings.word.table"] for part in HEADS}
        assert (record["lowercase"]["value"], record["assumed"]) == (True, {"discriminator": {}, "generator": {}})


class TestCommandLine:
    def test_it_tells_what_it_does(self, models: Path, tmp_path: Path) -> None:
        """A dry run writes nothing; then both are written, and how Google's code takes them is shown."""
        command = ("--to", "google_tf1", "--part", "both", "--with-optimizer-slots", models, tmp_path / "out")
        dry = run(*command, "--dry-run")
        assert dry.exit_code == 0, dry.output
        assert "Would write" in dry.output
        assert not (tmp_path / "out").exists()
        done = run(*command)
        assert done.exit_code == 0, done.output
        assert "a discriminator and a generator that share their embeddings" in done.output
        assert "python run_pretraining.py" in done.output
        assert f"{tmp_path / 'out'}/hparams.json" in done.output

    def test_what_is_for_fine_tuning(self, models: Path, tmp_path: Path) -> None:
        """Without slots, the hparams are those that fine-tuning knows."""
        done = run("--to", "google_tf1", models / "discriminator/pretraining", tmp_path / "out")
        call = "python run_finetuning.py --data-dir DATA --model-name NAME --hparams"
        assert f"{call} {tmp_path}/out/hparams_finetuning.json" in done.output
        assert set(json.loads((tmp_path / "out" / "hparams_finetuning.json").read_text())) == set(OF_MODELS)

    def test_a_generator_is_named(self, models: Path, tmp_path: Path) -> None:
        """As JSON, too."""
        place = (models / "discriminator/pretraining", tmp_path / "out")
        done = run("--to", "google_tf1", "--generator", models / "generator/masked_lm", "--json", *place)
        report = json.loads(done.stdout)
        assert [head["head"] for head in report["heads"]] == ["pretraining", "masked_lm"]
        assert report["output"] == str(tmp_path / "out")

    def test_a_source_must_be_named_to_verify_it(self, models: Path, tmp_path: Path) -> None:
        """What it was made of lies somewhere, and no note of that is in it."""
        run("--to", "google_tf1", models / "discriminator/pretraining", tmp_path / "out")
        told = run("verify", tmp_path / "out")
        assert told.exit_code == 1
        assert "--source" in told.output
