"""Fine-tuned checkpoints: which tasks they hold, what head each becomes, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from electra_convert import (
    ConfigError,
    ConvertOptions,
    OptionError,
    convert_checkpoint,
    inspect_checkpoint,
    load_mappings,
)
from electra_convert.cli import main
from electra_convert.errors import MappingError, TensorMismatchError
from electra_convert.formats import read_weights
from electra_convert.formats.google_tf1 import open_checkpoint, write_checkpoint
from electra_convert.mapping import default_directory
from electra_convert.mirrored import difference, mirror, misfit
from electra_convert.tensor import Tensor
from tests.finetuned import TASKS, each_task, largest_difference

if TYPE_CHECKING:
    from electra_convert.tensor import Array

Change = Callable[[dict[str, "Array"]], object]


def convert(source: Path, out: Path, **options: Any) -> Any:
    """Convert a checkpoint to PyTorch, without a tokenizer."""
    return convert_checkpoint(source, out, ConvertOptions(targets=("pytorch",), tokenizer=False, **options))


def changed(source: Path, directory: Path, change: Change) -> Path:
    """Write a changed copy of a checkpoint: `change` edits its arrays in place."""
    (index,) = source.glob("*.index")
    arrays = {name: tensor.load() for name, tensor in open_checkpoint(index.with_suffix("")).tensors.items()}
    change(arrays)
    directory.mkdir()
    tensors = (
        Tensor(name, arrays[name].shape, arrays[name].dtype.name, lambda array=arrays[name]: array)  # type: ignore[misc]
        for name in sorted(arrays)
    )
    write_checkpoint(directory / "model.ckpt-1", tensors)
    return directory


def renamed(task: str, to: str) -> Change:
    """Return a change that gives a task another name."""

    def change(arrays: dict[str, Array]) -> None:
        for name in [name for name in arrays if name.startswith(f"task_specific/{task}/")]:
            arrays[name.replace(f"/{task}/", f"/{to}/")] = arrays.pop(name)

    return change


def classes(count: int) -> Change:
    """Return a change that gives mnli as many labels."""

    def change(arrays: dict[str, Array]) -> None:
        random = np.random.default_rng(0)
        arrays["task_specific/mnli/dense/kernel"] = random.standard_normal((64, count)).astype(np.float32)
        arrays["task_specific/mnli/dense/bias"] = random.standard_normal(count).astype(np.float32)

    return change


def record(directory: Path) -> Any:
    """Return the record of a conversion."""
    return json.loads((directory / "conversion.json").read_text())


def config(directory: Path) -> Any:
    """Return the config of a model."""
    return json.loads((directory / "config.json").read_text())


class TestHeads:
    @each_task
    def test_a_task_is_the_native_head(self, fixtures: Path, tmp_path: Path, name: str, task: str, head: str) -> None:
        """`--head native` writes the task's head, all of it from the checkpoint, and says what it was tuned on."""
        report = convert(fixtures / name, tmp_path, heads=("native",), task=task)
        (written,) = report.heads
        assert (written.head, written.note) == (head, f"native head, fine-tuned on {task}")
        assert not written.initialised
        said = record(tmp_path / head)
        assert (said["task"]["name"], said["task"]["head"]) == (task, head)
        assert set(said["task"]["notes"]) <= set(report.notes)
        assert report.parts[0].native_head == head

    def test_other_heads_stay_untrained(self, fixtures: Path, tmp_path: Path) -> None:
        """All eight heads are written, and only the task's is trained."""
        report = convert(fixtures / "finetuned_chunk", tmp_path)
        notes = {head.head: head.note for head in report.heads}
        assert len(notes) == 8
        assert {head for head, note in notes.items() if "native" in note} == {"token_classification"}
        assert notes["sequence_classification"] == "untrained: fine-tune it"
        fates = record(tmp_path / "base")["source_tensors"]
        assert fates["task_specific/chunk/dense/kernel"] == {"fate": "other head", "why": "token_classification"}

    def test_a_tagger_is_copied(self, fixtures: Path, tmp_path: Path) -> None:
        """Its dense module is the classifier of transformers, transposed."""
        convert(fixtures / "finetuned_chunk", tmp_path, heads=("native",))
        tensors = record(tmp_path / "token_classification")["tensors"]
        assert tensors["tagger.output.kernel"] == {"fate": "copied", "from": "task_specific/chunk/dense/kernel"}
        assert config(tmp_path / "token_classification")["id2label"]["5"] == "LABEL_5"

    def test_a_classifier_is_mirrored(self, fixtures: Path, tmp_path: Path) -> None:
        """Google's kernel lies beside its negative; the record says that the head was constructed, and how."""
        report = convert(fixtures / "finetuned_mnli", tmp_path, heads=("native",))
        weights = {name: each.load() for name, each in read_weights(tmp_path / report.heads[0].head, "pytorch").items()}
        (index,) = (fixtures / "finetuned_mnli").glob("*.index")
        kernel = open_checkpoint(index.with_suffix("")).tensors["task_specific/mnli/dense/kernel"].load()
        dense, output = weights["classifier.dense.weight"].T, weights["classifier.out_proj.weight"].T
        assert np.array_equal(dense[:, :3], kernel)
        assert np.array_equal(dense[:, 3:6], -kernel)
        assert not dense[:, 6:].any()
        assert np.array_equal(output[:6], np.vstack([np.eye(3), -np.eye(3)]))
        assert not output[6:].any()
        assert not weights["classifier.out_proj.bias"].any()
        said = record(tmp_path / "sequence_classification")
        fates = {name: each["fate"] for name, each in said["tensors"].items() if name.startswith("classifier.")}
        assert set(fates.values()) == {"constructed"}
        assert report.heads[0].constructed == 4
        assert "gelu(x) - gelu(-x) = x" in said["task"]["notes"][0]
        assert said["source_tensors"]["task_specific/mnli/dense/bias"]["fate"] == "used"

    def test_google_names_the_labels_of_its_own_tasks(self, fixtures: Path, tmp_path: Path) -> None:
        """`mnli` has the three labels that Google's code gives it, in its order."""
        convert(fixtures / "finetuned_mnli", tmp_path, heads=("native",))
        labels = config(tmp_path / "sequence_classification")["id2label"]
        assert labels == {"0": "contradiction", "1": "entailment", "2": "neutral"}

    def test_a_regression_is_said_so(self, fixtures: Path, tmp_path: Path) -> None:
        """It has one label, and the config names the kind of problem."""
        report = convert(fixtures / "finetuned_sts", tmp_path, heads=("native",))
        said = config(tmp_path / "sequence_classification")
        assert (said["problem_type"], said["id2label"]) == ("regression", {"0": "LABEL_0"})
        assert any("divides the scores of sts by 5" in note for note in report.notes)

    def test_a_classifier_is_no_regression(self, fixtures: Path, tmp_path: Path) -> None:
        """Neither a classifier nor another head has a problem type."""
        convert(fixtures / "finetuned_sts", tmp_path / "sts", heads=("token_classification",))
        convert(fixtures / "finetuned_mnli", tmp_path / "mnli", heads=("native",))
        assert "problem_type" not in config(tmp_path / "sts/token_classification")
        assert "problem_type" not in config(tmp_path / "mnli/sequence_classification")

    def test_what_cannot_be_answered_is_left_behind(self, fixtures: Path, tmp_path: Path) -> None:
        """Span QA beside a classifier of what can be answered is converted; the classifier is reported."""

        def answerable(arrays: dict[str, Array]) -> None:
            arrays["task_specific/squadv1/dense_2/kernel"] = np.ones((64, 1), np.float32)
            arrays["task_specific/squadv1/dense_2/bias"] = np.ones(1, np.float32)

        source = changed(fixtures / "finetuned_squad_span", tmp_path / "source", answerable)
        report = convert(source, tmp_path / "out", heads=("native",))
        fate = record(tmp_path / "out/question_answering")["source_tensors"]["task_specific/squadv1/dense_2/bias"]
        assert fate["fate"] == "unsupported"
        assert any(note == f"left behind: {fate['why']}" for note in report.notes)

    def test_the_same_bytes_with_and_without_the_task_named(self, fixtures: Path, tmp_path: Path) -> None:
        """The only task is the one that is meant, also where only other heads are asked for."""
        convert(fixtures / "finetuned_mnli", tmp_path, heads=("base",))
        report = convert(fixtures / "finetuned_mnli", tmp_path, task="mnli", heads=("base", "native"))
        assert [head.status for head in report.heads] == ["already there", "written"]


class TestChoice:
    def test_several_tasks_are_listed(self, fixtures: Path, tmp_path: Path) -> None:
        """Which of two is meant must be said, and the error says what each is."""
        with pytest.raises(OptionError) as raised:
            convert(fixtures / "finetuned_multitask", tmp_path / "out")
        assert raised.value.problems == (
            "cola: sequence_classification, 2 outputs",
            "sts: sequence_classification, 1 output",
        )
        assert "--task cola" in raised.value.hint
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("head", ["base", "token_classification"])
    def test_a_head_that_no_task_has_needs_none(self, fixtures: Path, tmp_path: Path, head: str) -> None:
        """Of two tasks none is named, none is used, and both are reported."""
        convert(fixtures / "finetuned_multitask", tmp_path, heads=(head,))
        said = record(tmp_path / head)
        assert "task" not in said
        assert said["source_tensors"]["task_specific/sts/dense/bias"] == {"fate": "other task", "why": "sts"}

    def test_the_other_task_is_reported(self, fixtures: Path, tmp_path: Path) -> None:
        """One is used, the other is another task's."""
        convert(fixtures / "finetuned_multitask", tmp_path, heads=("native",), task="sts")
        fates = record(tmp_path / "sequence_classification")["source_tensors"]
        assert fates["task_specific/sts/dense/bias"]["fate"] == "used"
        assert fates["task_specific/cola/dense/bias"] == {"fate": "other task", "why": "cola"}

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("finetuned_multitask", "this checkpoint has no task 'mnli': its tasks are cola, sts"),
            ("electra_tiny_uniform", "this checkpoint has no task 'mnli': it was not fine-tuned"),
        ],
    )
    def test_a_task_that_is_not_there(self, fixtures: Path, tmp_path: Path, name: str, message: str) -> None:
        """The error lists those there are."""
        with pytest.raises(OptionError, match=re.escape(message)):
            convert(fixtures / name, tmp_path, task="mnli")

    @pytest.mark.parametrize("options", [{}, {"heads": ("native",)}, {"task": "reviews"}])
    def test_an_unknown_name_must_be_told(self, fixtures: Path, tmp_path: Path, options: dict[str, Any]) -> None:
        """One dense module may be a tagger or a classifier; the error says what to type."""
        source = changed(fixtures / "finetuned_mnli", tmp_path / "source", renamed("mnli", "reviews"))
        with pytest.raises(OptionError) as raised:
            convert(source, tmp_path / "out", **options)
        assert "--task reviews=sequence_classification or --task reviews=token_classification" in raised.value.hint

    @pytest.mark.parametrize("head", ["sequence_classification", "token_classification"])
    def test_an_unknown_name_that_is_told(self, fixtures: Path, tmp_path: Path, head: str) -> None:
        """The same variables become what the user says they are."""
        source = changed(fixtures / "finetuned_mnli", tmp_path / "source", renamed("mnli", "reviews"))
        report = convert(source, tmp_path / "out", task=f"reviews={head}", heads=("native",))
        assert [each.head for each in report.heads] == [head]

    def test_an_unknown_name_with_two_modules_is_question_answering(self, fixtures: Path, tmp_path: Path) -> None:
        """Nothing else has two."""
        source = changed(fixtures / "finetuned_squad_span", tmp_path / "source", renamed("squadv1", "korquad"))
        assert convert(source, tmp_path / "out", heads=("native",)).heads[0].head == "question_answering"

    def test_the_backbone_of_an_unknown_name_needs_nothing(self, fixtures: Path, tmp_path: Path) -> None:
        """No head of the task is asked for."""
        source = changed(fixtures / "finetuned_mnli", tmp_path / "source", renamed("mnli", "reviews"))
        convert(source, tmp_path / "out", heads=("base",))
        fates = record(tmp_path / "out/base")["source_tensors"]
        assert fates["task_specific/reviews/dense/kernel"] == {"fate": "other task", "why": "reviews"}

    @pytest.mark.parametrize(
        ("task", "message"),
        [
            ("mnli=regression", "'regression' is no head of a task"),
            ("mnli=base", "'base' is no head of a task"),
            ("mnli=question_answering", "whose modules are dense and dense_1; it holds dense"),
        ],
    )
    def test_a_head_that_it_cannot_be(self, fixtures: Path, tmp_path: Path, task: str, message: str) -> None:
        """It is refused with the reason."""
        with pytest.raises(OptionError, match=message):
            convert(fixtures / "finetuned_mnli", tmp_path, task=task)


class TestRefused:
    @pytest.mark.parametrize("options", [{"task": "squad"}, {"heads": ("native",)}])
    def test_joint_prediction(self, fixtures: Path, tmp_path: Path, options: dict[str, Any]) -> None:
        """It has no counterpart, and is refused where it is asked for."""
        with pytest.raises(OptionError, match="with joint prediction"):
            convert(fixtures / "finetuned_squad_joint", tmp_path, **options)

    def test_joint_prediction_that_is_not_asked_for(self, fixtures: Path, tmp_path: Path) -> None:
        """Its backbone is converted, with a note, and its head is reported with the reason."""
        report = convert(fixtures / "finetuned_squad_joint", tmp_path)
        assert len(report.heads) == 8
        assert all("native" not in head.note for head in report.heads)
        assert any(note.startswith("its task squad is not converted: with joint prediction") for note in report.notes)
        fates = record(tmp_path / "base")["source_tensors"]
        assert fates["task_specific/squad/qa_hidden/kernel"]["fate"] == "unsupported"

    def test_too_many_labels_to_be_mirrored(self, fixtures: Path, tmp_path: Path) -> None:
        """Half the width is the limit; the error gives it."""
        most = changed(fixtures / "finetuned_mnli", tmp_path / "most", classes(32))
        assert convert(most, tmp_path / "out", heads=("native",)).heads[0].constructed == 4
        more = changed(fixtures / "finetuned_mnli", tmp_path / "more", classes(33))
        with pytest.raises(OptionError, match=r"it has 33 labels; .*, 64 wide, .* at most 32"):
            convert(more, tmp_path / "out2", task="mnli")

    @pytest.mark.parametrize("labels", [{"labels": ("a", "b")}, {"num_labels": 4}])
    def test_labels_that_contradict_the_tensors(self, fixtures: Path, tmp_path: Path, labels: dict[str, Any]) -> None:
        """The number of labels is that of the tensor."""
        with pytest.raises(ConfigError, match=r"task_specific/mnli/dense/kernel \[64, 3\] shows 3"):
            convert(fixtures / "finetuned_mnli", tmp_path, **labels)

    def test_labels_that_fit(self, fixtures: Path, tmp_path: Path) -> None:
        """The user's names come before those of Google's code."""
        convert(fixtures / "finetuned_mnli", tmp_path, heads=("native",), labels=("no", "yes", "perhaps"))
        assert config(tmp_path / "sequence_classification")["id2label"]["1"] == "yes"

    def test_a_variable_that_a_task_should_not_have(self, fixtures: Path, tmp_path: Path) -> None:
        """A task of modules that no head has is refused where it is asked for."""

        def strange(arrays: dict[str, Array]) -> None:
            arrays["task_specific/mnli/pooler/kernel"] = np.ones((64, 64), np.float32)

        source = changed(fixtures / "finetuned_mnli", tmp_path / "source", strange)
        with pytest.raises(OptionError, match="it holds dense, pooler"):
            convert(source, tmp_path / "out", task="mnli")
        convert(source, tmp_path / "out")
        fates = record(tmp_path / "out/base")["source_tensors"]
        assert fates["task_specific/mnli/pooler/kernel"]["fate"] == "unsupported"

    def test_a_leaf_that_no_module_has(self, fixtures: Path, tmp_path: Path) -> None:
        """A variable of the task that nothing knows is an error, not skipped."""

        def strange(arrays: dict[str, Array]) -> None:
            arrays["task_specific/mnli/dense/gain"] = np.ones(3, np.float32)

        source = changed(fixtures / "finetuned_mnli", tmp_path / "source", strange)
        with pytest.raises(TensorMismatchError, match=r"task_specific/mnli/dense/gain \[3\] is in no mapping"):
            convert(source, tmp_path / "out")

    def test_a_kernel_that_is_missing(self, fixtures: Path, tmp_path: Path) -> None:
        """It is named."""
        source = changed(
            fixtures / "finetuned_mnli", tmp_path / "source", lambda arrays: arrays.pop("task_specific/mnli/dense/bias")
        )
        with pytest.raises(TensorMismatchError, match=r"task_specific/mnli/dense/bias \[3\] is missing"):
            convert(source, tmp_path / "out")


class TestInspect:
    def test_tasks_are_shown(self, fixtures: Path) -> None:
        """Each task says what it is, or why it cannot be converted."""
        tasks = inspect_checkpoint(fixtures / "finetuned_multitask").tasks
        assert [(task.name, task.heads, task.outputs) for task in tasks] == [
            ("cola", ("sequence_classification",), 2),
            ("sts", ("sequence_classification",), 1),
        ]
        (joint,) = inspect_checkpoint(fixtures / "finetuned_squad_joint").tasks
        assert "joint prediction" in joint.refusal

    def test_the_only_task_is_the_native_head(self, fixtures: Path) -> None:
        """Its tensors have canonical names."""
        inspection = inspect_checkpoint(fixtures / "finetuned_chunk")
        assert inspection.parts[0].native_head == "token_classification"
        tensors = {tensor.name: tensor.canonical for tensor in inspection.tensors}
        assert tensors["task_specific/chunk/dense/kernel"] == {"discriminator": "tagger.output.kernel"}

    def test_on_the_terminal(self, fixtures: Path) -> None:
        """Tasks stand below the part."""
        shown = CliRunner().invoke(main, ["inspect", str(fixtures / "finetuned_multitask")]).stdout
        assert "task cola: sequence_classification, 2 outputs" in shown
        assert "other task: sts" in shown


class TestOnTheTerminal:
    def test_the_construction_is_explained(self, fixtures: Path, tmp_path: Path) -> None:
        """The table counts what was constructed, and a note says how."""
        arguments = ["--head", "native", "--task", "mnli", "--to", "pytorch", str(fixtures / "finetuned_mnli")]
        result = CliRunner().invoke(main, [*arguments, str(tmp_path / "out")])
        assert result.exit_code == 0, result.output
        assert "constructed" in result.stdout
        assert "native head, fine-tuned on mnli" in result.stdout
        assert "gelu(x) - gelu(-x) = x" in " ".join(result.stdout.split())

    def test_other_conversions_have_no_such_column(self, fixtures: Path, tmp_path: Path) -> None:
        """Nothing is constructed but classifiers."""
        result = CliRunner().invoke(main, [str(fixtures / "finetuned_chunk"), str(tmp_path / "out"), "--dry-run"])
        assert "constructed" not in result.stdout


class TestMirror:
    @pytest.mark.parametrize("count", [1, 2, 3, 32])
    def test_the_two_modules_compute_the_one(self, count: int) -> None:
        """In float64 within rounding, whatever the size of the logits."""
        google = pytest.importorskip("electra_convert.models.google")
        random = np.random.default_rng(count)
        x, kernel, bias = random.normal(0, 10, (50, 64)), random.normal(0, 3, (64, count)), random.normal(0, 1, count)
        hidden = google.gelu(x @ mirror(kernel, (64, 64)) + mirror(bias, (64,)))
        found = hidden @ difference((64, count), "float64") + difference((count,), "float64")
        assert np.abs(found - (x @ kernel + bias)).max() < 1e-11

    @pytest.mark.parametrize(("shape", "fits"), [((4, 2), True), ((4, 3), False), ((5, 2), True), ((4,), True)])
    def test_what_fits(self, shape: tuple[int, ...], fits: bool) -> None:  # noqa: FBT001
        """Twice the labels are at most the width; a shape that is no kernel's is told of elsewhere."""
        assert bool(misfit(shape)) is not fits


class TestMapping:
    @pytest.mark.parametrize(
        ("row", "instead", "fault"),
        [
            (
                "{tagger.output: dense}",
                "{tagger.input: dense}",
                "modules names tagger.input; the head has tagger.output",
            ),
            ("chunk: {head: token_classification}", "chunk: {head: tagging}", "tasks.names.chunk: 'tagging'"),
            ("    token_classification:\n", "    tagging:\n", "tasks.heads: 'tagging' is no head"),
        ],
    )
    def test_faults_are_found(self, tmp_path: Path, row: str, instead: str, fault: str) -> None:
        """Rows of heads that are not there, or have other modules, are named."""
        for file in default_directory().glob("*.yaml"):
            text = file.read_text()
            assert file.name != "google_tf1.yaml" or row in text
            (tmp_path / file.name).write_text(text.replace(row, instead) if file.name == "google_tf1.yaml" else text)
        with pytest.raises(MappingError, match=re.escape(fault)):
            load_mappings(tmp_path)


@each_task
def test_the_oracle_computes_what_google_computes(
    converted: Callable[..., Path], fixtures: Path, name: str, task: str, head: str
) -> None:
    """The oracle's head, which conversions are proven against, gives Google's recorded outputs within 1e-5."""
    google = pytest.importorskip("electra_convert.models.google")
    from electra_convert.models.files import read_config
    from tests.finetuned import inputs_of

    config = read_config(converted(name, "discriminator", heads=("native",), task=task, targets=("pytorch",)) / head)
    (index,) = (fixtures / name).glob("*.index")
    tensors = open_checkpoint(index.with_suffix("")).tensors
    oracle = google.Oracle(tensors, config, part="discriminator", task=google.TaskHead(task, head))
    _, outputs = oracle.run(head, google.Inputs(*inputs_of(name).values()))
    assert largest_difference(name, task, outputs) < 1e-5


def test_every_fine_tuned_fixture_is_among_the_tasks(fixtures: Path) -> None:
    """But joint prediction, which is refused."""
    there = {path.name for path in fixtures.glob("finetuned_*")}
    assert there - {"finetuned_squad_joint"} == {name for name, _, _ in TASKS}
