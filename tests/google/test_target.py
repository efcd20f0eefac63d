"""Checkpoints for Google's code, made of canonical tensors; and of genuine ones, which must come back as they were."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from electra_convert.config_file import read_config_file
from electra_convert.errors import ConfigError, OptionError, OutputError, TensorMismatchError
from electra_convert.formats.google_tf1 import GoogleCheckpoint, index_path, open_checkpoint, shard_path
from electra_convert.google.heads import GivenPart
from electra_convert.google.target import PREFIX, GoogleModel, google_model
from electra_convert.initialize import initial_tensor
from electra_convert.inventory import Part
from electra_convert.mapping import load_mappings
from electra_convert.part import recognise
from electra_convert.tensor import Tensor, numpy_dtype
from tests.conftest import FIXTURES

MAPPINGS = load_mappings()
PRETRAINED = (
    "electra_tiny",
    "electra_tiny_mlm_only",
    "electra_tiny_noproj",
    "electra_tiny_proj",
    "electra_tiny_sharded",
    "electra_tiny_tied_weights",
    "electra_tiny_uniform",
    "electra_tiny_untied_embeddings",
    "electric_tiny",
)
TASKS = (
    ("finetuned_chunk", "chunk"),
    ("finetuned_mnli", "mnli"),
    ("finetuned_multitask", "cola"),
    ("finetuned_multitask", "sts"),
    ("finetuned_squad_span", "squadv1"),
    ("finetuned_sts", "sts"),
)
KNOWN_HPARAMS = {
    "model_size", "model_hparam_overrides", "embedding_size", "vocab_size", "do_lower_case", "max_seq_length",
    "electra_objective", "uniform_generator", "untied_generator", "untied_generator_embeddings", "generator_layers",
    "generator_hidden_size", "task_names", "joint_prediction", "answerable_classifier",
}  # fmt: skip
"""Of configure_pretraining.py and configure_finetuning.py, in every version of Google's code."""


def genuine(name: str) -> GoogleCheckpoint:
    """Open a genuine checkpoint."""
    (index,) = (FIXTURES / name).glob("*.index")
    return open_checkpoint(index.with_suffix(""))


def parts_of(name: str, hparams: Path | None = None, task: str | None = None, files: Any = None) -> list[GivenPart]:
    """Return the parts of a checkpoint as canonical tensors."""
    tensors = (files or genuine(name)).tensors
    checkpoint = recognise(MAPPINGS, tensors).with_task(task, ("native",) if task else ("base",))
    config_file = read_config_file(hparams) if hparams else None
    understood = checkpoint.understand(tuple(checkpoint.topology.parts), config_file=config_file)
    return [
        GivenPart(
            part,
            source.native_head or "base",
            source.config,
            {t.name: t for binding in source.bindings for t in binding.unpack(tensors[binding.name])},
            f"the {part} of {name}",
        )
        for part, source in understood.items()
    ]


def written(model: GoogleModel, folder: Path) -> GoogleCheckpoint:
    """Write a model and open it, checksums compared."""
    model.write(folder, lambda _: None)
    checkpoint = open_checkpoint(folder / PREFIX)
    checkpoint.check(checkpoint.tensors)
    return checkpoint


def bits(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, bytes]:
    """Return the values of some tensors."""
    return {name: tensors[name].load().tobytes() for name in names}


def changed(part: GivenPart, **values: Any) -> GivenPart:
    """Return a part with another config."""
    return replace(part, config=replace(part.config, **values))


def with_tensor(part: GivenPart, name: str, change: Callable[[Any], Any]) -> GivenPart:
    """Return a part with the values of one tensor changed."""
    array = change(part.tensors[name].load())
    tensor = Tensor(name, array.shape, array.dtype.name, lambda: array)
    return replace(part, tensors={**part.tensors, name: tensor})


def cast(part: GivenPart, dtype: str) -> GivenPart:
    """Return a part in another dtype."""

    def made(tensor: Tensor) -> Tensor:
        return replace(tensor, dtype=dtype, values=lambda: tensor.load().astype(numpy_dtype(dtype)))

    return replace(part, tensors={name: made(tensor) for name, tensor in part.tensors.items()})


def drawn(head: str, config: Any) -> GivenPart:
    """Return a part of some head, with first values."""
    inventory = MAPPINGS.inventory
    specs = [*inventory.backbone_tensors(config), *inventory.head_tensors(head, config)]
    tensors = {
        spec.name: initial_tensor(spec, inventory.initializers[spec.leaf], seed=1, deviation=1) for spec in specs
    }
    part: Part = "generator" if inventory.origin(head) == "masked_lm" else "discriminator"
    return GivenPart(part, head, config, tensors, f"out/{head}")


@pytest.fixture
def pair(hparams: Callable[[str], Path]) -> list[GivenPart]:
    """Return a discriminator and a generator that share their embeddings."""
    return parts_of("electra_tiny", hparams("electra_tiny"))


class TestGenuineCheckpoints:
    @pytest.mark.parametrize("name", PRETRAINED)
    def test_they_come_back_bit_for_bit(self, name: str, hparams: Callable[[str], Path], tmp_path: Path) -> None:
        """Every tensor that is converted, and of the same kind."""
        given = hparams("electra_tiny" if name == "electra_tiny_sharded" else name)
        model = google_model(MAPPINGS, parts_of(name, given), untied=name == "electra_tiny_untied_embeddings")
        again, original = written(model, tmp_path), genuine(name)
        assert set(again.tensors) == {*model.variables, "global_step"}
        assert bits(again.tensors, model.variables) == bits(original.tensors, model.variables)
        kind = "uniform_generator" if name == "electric_tiny" else recognise(MAPPINGS, original.tensors).topology_key
        assert recognise(MAPPINGS, again.tensors).topology_key == model.topology_key == kind

    @pytest.mark.parametrize("name", [name for name in PRETRAINED if name != "electra_tiny_sharded"])
    def test_the_hparams_say_what_they_are(self, name: str, hparams: Callable[[str], Path], tmp_path: Path) -> None:
        """Read with what was written, they give the config again, and nothing but the epsilon is assumed."""
        parts = parts_of(name, hparams(name))
        model = google_model(MAPPINGS, parts, untied=name == "electra_tiny_untied_embeddings")
        for place, content in model.documents(None).items():
            (tmp_path / place).write_bytes(content)
        checkpoint = recognise(MAPPINGS, written(model, tmp_path).tensors)
        understood = checkpoint.understand(
            tuple(checkpoint.topology.parts), config_file=read_config_file(tmp_path / "hparams.json")
        )
        assert {part: found.config for part, found in understood.items()} == {p.part: p.config for p in parts}
        assert {field for found in understood.values() for field in found.assumed} == {"layer_norm_eps"}
        assert set(model.hparams) <= KNOWN_HPARAMS

    @pytest.mark.parametrize("name", ["electra_tiny_proj", "electra_tiny_mlm_only", "electra_tiny_tied_weights"])
    def test_their_files_come_back(self, name: str, tmp_path: Path) -> None:
        """Byte for byte, but for the step that training had reached, and its checksum."""
        parts = parts_of(name)
        again, original = written(google_model(MAPPINGS, parts), tmp_path), genuine(name)
        ours, theirs = (
            [shard_path(c.prefix, 0, 1).read_bytes(), index_path(c.prefix).read_bytes()] for c in (again, original)
        )
        assert len(ours[0]) == len(theirs[0])
        assert 1 <= sum(a != b for a, b in zip(ours[0], theirs[0], strict=True)) <= 8
        assert len(ours[1]) == len(theirs[1])
        assert 1 <= sum(a != b for a, b in zip(ours[1], theirs[1], strict=True)) <= 4 + 4 + 4

    @pytest.mark.parametrize(("name", "task"), TASKS)
    def test_tasks_come_back_bit_for_bit(self, name: str, task: str, tmp_path: Path) -> None:
        """The classifier too, which two modules were made of."""
        (part,) = parts_of(name, task=task)
        model = google_model(MAPPINGS, [part], task=task)
        again = written(model, tmp_path)
        assert any(variable.startswith(f"task_specific/{task}/") for variable in model.variables)
        assert bits(again.tensors, model.variables) == bits(genuine(name).tensors, model.variables)
        assert model.hparams["task_names"] == [task]
        assert set(model.hparams) <= KNOWN_HPARAMS
        assert recognise(MAPPINGS, again.tensors).with_task(None, ("native",)).native_heads == {part.part: part.head}

    @pytest.mark.parametrize(("name", "task"), [("electra_tiny", None), ("finetuned_mnli", "mnli")])
    def test_slots_are_those_training_has(self, name: str, task: str | None, tmp_path: Path) -> None:
        """By name, shape and dtype; all zeros."""
        parts = parts_of(name, task=task)
        again = written(google_model(MAPPINGS, parts, task=task, slots=True), tmp_path).tensors
        original = genuine(name).tensors
        assert {n: (t.shape, t.dtype) for n, t in again.items()} == {n: (t.shape, t.dtype) for n, t in original.items()}
        assert not any(t.load().any() for n, t in again.items() if n.endswith(("/adam_m", "/adam_v")) or "/" not in n)

    def test_the_files_are_the_same_on_every_run(self, pair: list[GivenPart], tmp_path: Path) -> None:
        """Whatever the order the parts are given in."""
        for place, parts in (("a", pair), ("b", pair[::-1])):
            (tmp_path / place).mkdir()
            written(google_model(MAPPINGS, parts, slots=True), tmp_path / place)
        for path in (index_path(Path(PREFIX)), shard_path(Path(PREFIX), 0, 1)):
            assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


class TestTwoParts:
    def test_embeddings_that_differ_are_told(self, pair: list[GivenPart]) -> None:
        """Each table, and by how much."""
        pair[1] = with_tensor(
            pair[1], "embeddings.word.table", lambda array: array + np.eye(len(array), 32, dtype="f4")
        )
        pair[1] = with_tensor(pair[1], "embeddings.norm.scale", lambda array: array * 2)
        with pytest.raises(TensorMismatchError, match=r"^the embeddings of the discriminator") as error:
            google_model(MAPPINGS, pair)
        assert [problem.partition(":")[0] for problem in error.value.problems] == [
            "electra/embeddings/LayerNorm/gamma",
            "electra/embeddings/word_embeddings",
        ]
        assert "the largest difference is 1" in error.value.problems[1]
        assert "--untied-embeddings" in error.value.hint
        assert google_model(MAPPINGS, pair, untied=True).topology_key == "untied_embeddings"

    def test_tables_of_other_sizes_are_told(self, pair: list[GivenPart]) -> None:
        """A generator of another vocabulary is another model."""
        pair[1] = drawn("masked_lm", replace(pair[1].config, vocab_size=601))
        with pytest.raises(TensorMismatchError, match=r"they are float32 \[600, 32\] and float32 \[601, 32\]"):
            google_model(MAPPINGS, pair)

    def test_embeddings_in_a_narrower_dtype_are_those_of_the_other(self, pair: list[GivenPart], tmp_path: Path) -> None:
        """Rounded, they are equal; the wider are written."""
        model = google_model(MAPPINGS, [pair[0], cast(pair[1], "float16")])
        table = written(model, tmp_path).tensors["electra/embeddings/word_embeddings"].load()
        assert (table == pair[0].tensors["embeddings.word.table"].load()).all()

    def test_a_generator_that_google_cannot_build_is_refused(self, pair: list[GivenPart]) -> None:
        """Its head count, its intermediate size and its activation follow from the discriminator."""
        pair[1] = changed(pair[1], num_attention_heads=2, hidden_act="relu")
        with pytest.raises(ConfigError, match="cannot build") as error:
            google_model(MAPPINGS, pair)
        assert sorted(problem.split()[2] for problem in error.value.problems) == ["hidden_act", "num_attention_heads"]

    def test_untied_embeddings_must_be_as_wide_as_the_generator(self) -> None:
        """Google's code gives it no projection."""
        pair = parts_of("electra_tiny_proj")
        with pytest.raises(ConfigError, match="the generator's embedding_size is 32; it would be 64"):
            google_model(MAPPINGS, pair, untied=True)

    def test_what_only_training_sees_is_a_note(self, pair: list[GivenPart]) -> None:
        """And so is another epsilon."""
        pair[1] = changed(pair[1], hidden_dropout_prob=0.5, layer_norm_eps=1e-5)
        notes = google_model(MAPPINGS, pair).notes
        assert any("the generator's hidden_dropout_prob is 0.5; Google's code trains it with 0.1" in n for n in notes)
        assert any("the generator's layer_norm_eps is 1e-05" in n for n in notes)

    @pytest.mark.parametrize("heads", [("base", "masked_lm"), ("pretraining", "base")])
    def test_other_heads_make_no_pair(self, pair: list[GivenPart], heads: tuple[str, str]) -> None:
        """Every one that is wrong is told."""
        pair = [replace(part, head=head) for part, head in zip(pair, heads, strict=True)]
        with pytest.raises(OptionError, match="only a pretraining head and a masked_lm head"):
            google_model(MAPPINGS, pair)


class TestHeads:
    def test_a_causal_model_is_a_masked_one(self, pair: list[GivenPart]) -> None:
        """A note says so."""
        model = google_model(MAPPINGS, [replace(pair[1], head="causal_lm")])
        assert model.topology_key == "masked_lm_only"
        assert model.hparams["electra_objective"] is False
        assert any("causal_lm" in note for note in model.notes)

    def test_a_backbone_is_written_alone(self, pair: list[GivenPart], tmp_path: Path) -> None:
        """It is recognised, and read again."""
        model = google_model(MAPPINGS, [replace(pair[0], head="base")])
        again = written(model, tmp_path)
        assert not any(name.startswith("discriminator_predictions/") for name in again.tensors)
        (read,) = parts_of("", files=again)
        assert (read.part, read.head) == ("discriminator", "base")
        assert any("run_finetuning.py starts from it" in note for note in model.notes)

    def test_a_backbone_has_no_slots(self, pair: list[GivenPart]) -> None:
        """No training goes on from it."""
        with pytest.raises(OptionError, match="backbone without a head"):
            google_model(MAPPINGS, [replace(pair[0], head="base")], slots=True)

    @pytest.mark.parametrize(
        ("head", "task", "message"),
        [
            ("multiple_choice", None, "out/multiple_choice is multiple_choice"),
            ("token_classification", None, "by what name does Google's code know the task"),
            ("token_classification", "a/b", "'a/b' is no name of a task"),
            ("token_classification", "mnli", "the task mnli is sequence_classification in Google's code"),
            ("sequence_classification", "mnli", "mnli has 3 labels in Google's code, and .* has 2"),
            ("sequence_classification", "cola", "two dense modules with GELU between them"),
            ("pretraining", "cola", "which is no head of a task"),
        ],
    )
    def test_what_google_has_not_is_refused(
        self, pair: list[GivenPart], head: str, task: str | None, message: str
    ) -> None:
        """With the reason, and what to do."""
        with pytest.raises(OptionError, match=message) as error:
            google_model(MAPPINGS, [drawn(head, pair[0].config)], task=task)
        assert error.value.hint

    @pytest.mark.parametrize(
        ("head", "positions", "length"),
        [("question_answering", 512, None), ("question_answering", 511, 511), ("token_classification", 255, 255)],
    )
    def test_inputs_are_no_longer_than_the_model_takes(
        self, pair: list[GivenPart], head: str, positions: int, length: int | None
    ) -> None:
        """Where Google's code would make them longer by default, the hparams say so."""
        part = drawn(head, replace(pair[0].config, max_position_embeddings=positions))
        assert google_model(MAPPINGS, [part], task="mine").hparams.get("max_seq_length") == length

    def test_a_classifier_that_was_trained_on_is_refused(self) -> None:
        """One bit of it is enough."""
        (part,) = parts_of("finetuned_mnli", task="mnli")
        name = "classifier.dense.kernel"

        def nudged(array: Any) -> Any:
            array = array.copy()
            array[-1, -1] = 1e-30
            return array

        with pytest.raises(OptionError, match="two dense modules"):
            google_model(MAPPINGS, [with_tensor(part, name, nudged)], task="mnli")

    @pytest.mark.parametrize("head", ["token_classification", "question_answering"])
    def test_a_task_of_ones_own_is_written(self, pair: list[GivenPart], head: str, tmp_path: Path) -> None:
        """A note says how it is read."""
        part = drawn(head, pair[0].config)
        model = google_model(MAPPINGS, [part], task="mine")
        (read,) = parts_of("", task=f"mine={head}", files=written(model, tmp_path))
        assert bits(read.tensors, part.tensors) == bits(part.tensors, part.tensors)
        assert any(f"--task mine={head}" in note for note in model.notes)


class TestTensors:
    def test_missing_and_misshapen_ones_are_told(self, pair: list[GivenPart]) -> None:
        """All of them."""
        part = with_tensor(pair[0], "discriminator.dense.bias", lambda array: array[1:])
        tensors = {name: tensor for name, tensor in part.tensors.items() if "layer.1.ffn.up" not in name}
        with pytest.raises(TensorMismatchError, match="is not whole") as error:
            google_model(MAPPINGS, [replace(part, tensors=tensors)])
        assert error.value.problems == (
            "layer.1.ffn.up.kernel [64, 160] is missing",
            "layer.1.ffn.up.bias [160] is missing",
            "discriminator.dense.bias has shape [63]; the config calls for [64]",
        )

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_narrower_values_are_held_exactly(self, pair: list[GivenPart], dtype: str, tmp_path: Path) -> None:
        """A note says so."""
        part = cast(pair[0], dtype)
        model = google_model(MAPPINGS, [part])
        again = written(model, tmp_path).tensors
        assert {tensor.dtype for tensor in again.values()} == {"float32", "int64"}
        kernel = part.tensors["layer.0.ffn.up.kernel"].load()
        assert (again["electra/encoder/layer_0/intermediate/dense/kernel"].load().astype(kernel.dtype) == kernel).all()
        assert any("holds them exactly" in note for note in model.notes)

    def test_wider_values_are_rounded(self, pair: list[GivenPart]) -> None:
        """A note says so."""
        assert any("rounded to float32" in note for note in google_model(MAPPINGS, [cast(pair[0], "float64")]).notes)

    def test_values_that_do_not_fit_are_refused(self, pair: list[GivenPart], tmp_path: Path) -> None:
        """By name."""
        part = with_tensor(cast(pair[0], "float64"), "discriminator.score.kernel", lambda array: array + 1e300)
        with pytest.raises(OutputError, match="discriminator_predictions/dense_1/kernel holds values that float32"):
            google_model(MAPPINGS, [part]).write(tmp_path, lambda _: None)
        assert not index_path(tmp_path / PREFIX).exists()

    def test_the_bytes_are_those_that_were_foretold(self, pair: list[GivenPart], tmp_path: Path) -> None:
        """And all are told of."""
        model = google_model(MAPPINGS, [cast(part, "float16") for part in pair], slots=True)
        told: list[int] = []
        model.write(tmp_path, told.append)
        assert sum(told) == model.nbytes == shard_path(tmp_path / PREFIX, 0, 1).stat().st_size


def test_the_documents_are_those_of_tensorflow(pair: list[GivenPart]) -> None:
    """The state names the weights, as TensorFlow writes it; the hparams are JSON."""
    documents = google_model(MAPPINGS, pair, lowercase=False).documents(b"[PAD]\n")
    genuine_state = (FIXTURES / "electra_tiny" / "checkpoint").read_text()
    assert documents["checkpoint"].decode() == genuine_state.replace("model.ckpt-30", PREFIX)
    assert json.loads(documents["hparams.json"])["do_lower_case"] is False
    assert documents["vocab.txt"] == b"[PAD]\n"
