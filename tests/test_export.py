"""Exports: what is refused before a framework is asked for, and what is said."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from electra_convert import ExportOptions, OptionError, SourceError, TensorMismatchError, export_model
from electra_convert.cli import main
from electra_convert.errors import CheckpointNotFoundError
from electra_convert.export import alone, targets
from electra_convert.export.report import Agreement, Exported, ExportReport
from electra_convert.export.show import show_export
from electra_convert.export.targets import DESCRIBED, EXPORT_TARGETS, load_call
from electra_convert.formats import FRAMEWORKS, pytorch
from electra_convert.formats.flax import tree_of
from electra_convert.parity.worker import MOST_POSITIONS, kept
from electra_convert.show import stdout_console
from tests.test_diff import QUERY, changed

if TYPE_CHECKING:
    from electra_convert.tensor import Array


def run(*arguments: object) -> Result:
    """Run `export` in this process."""
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every framework for installed."""
    monkeypatch.setattr(targets, "_is_there", lambda _: True)


@pytest.fixture(scope="session")
def model(converted: Callable[..., Path]) -> Path:
    """A discriminator with its native head, in all formats."""
    return converted("electra_tiny", "discriminator") / "pretraining"


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"targets": ("onnx",)}, r"there is no target 'onnx': orbax, keras, saved_model"),
            ({"targets": ()}, r"no target is to be written"),
            ({"targets": ("keras", "keras")}, r"a target is named twice: keras, keras"),
            ({"format": "google_tf1"}, r"there is no format 'google_tf1': pytorch, tensorflow, flax"),
        ],
    )
    def test_what_is_unknown_is_refused(self, options: dict[str, Any], message: str) -> None:
        """Each fault is told with its value."""
        with pytest.raises(OptionError, match=message):
            ExportOptions(**options)

    def test_the_order_of_targets_does_not_matter(self) -> None:
        """Targets are written in one order, however they were asked for."""
        assert ExportOptions(targets=("saved_model", "orbax")).targets == ("orbax", "saved_model")

    def test_the_command_line_offers_what_the_library_has(self) -> None:
        """Each field of ExportOptions has an option, with the same choices and default."""
        options = {parameter.name: parameter for parameter in main.commands["export"].params}
        assert options.keys() - {"model", "out", "as_json", "debug"} == set(ExportOptions.__struct_fields__)
        assert options["targets"].type.choices == EXPORT_TARGETS  # type: ignore[attr-defined]
        assert options["targets"].default == ",".join(EXPORT_TARGETS)
        assert options["format"].type.choices == FRAMEWORKS  # type: ignore[attr-defined]
        assert tuple(DESCRIBED) == EXPORT_TARGETS


class TestRefusals:
    def test_what_is_not_installed(self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every library that is missing is named, with what installs it, and which targets can be written without."""
        monkeypatch.setattr(targets, "_is_there", lambda name: name not in ("orbax.checkpoint", "jax"))
        result = run(model, tmp_path / "out")
        assert result.exit_code == 2
        assert "orbax needs orbax.checkpoint, jax" in result.stderr
        assert 'pip install "electra-convert[orbax]"; or write --to keras,saved_model alone' in result.stderr
        monkeypatch.setattr(targets, "_is_there", lambda _: False)
        result = run(model, tmp_path / "out")
        assert "saved_model needs tensorflow, keras" in result.stderr
        assert 'pip install "electra-convert[orbax,tensorflow]"\n' in result.stderr
        assert not [*tmp_path.iterdir()]

    def test_a_module_of_a_package_that_is_missing(self) -> None:
        """A dotted name is looked for without an error, whether or not what it begins with is there."""
        assert not targets._is_there("no_such_package.checkpoint")
        assert targets._is_there("electra_convert.export")

    @pytest.mark.usefixtures("installed")
    def test_something_is_there(self, model: Path, tmp_path: Path) -> None:
        """What exists is not replaced unasked."""
        (tmp_path / "out").mkdir()
        result = run(model, tmp_path / "out")
        assert result.exit_code == 1
        assert f"{tmp_path / 'out'} exists already" in result.stderr

    @pytest.mark.usefixtures("installed")
    def test_the_model_is_not_replaced(self, model: Path) -> None:
        """With --overwrite, neither the model nor a folder around it may be OUT."""
        for out in (model, model.parent):
            result = run(model, out, "--overwrite")
            assert result.exit_code == 2
            assert f"the export is to be written to {out}, where the model is" in result.stderr
        assert (model / pytorch.SINGLE).is_file()

    @pytest.mark.usefixtures("installed")
    def test_several_heads(self, model: Path, tmp_path: Path) -> None:
        """A folder of several heads leads to the directories of one."""
        result = run(model.parent, tmp_path / "out")
        assert result.exit_code == 2
        assert f"name the directory of a model: {model.parent / 'base'} or " in result.stderr

    @pytest.mark.usefixtures("installed")
    def test_a_checkpoint_of_google(self, fixtures: Path, tmp_path: Path) -> None:
        """A checkpoint that was not converted is told how to be."""
        result = run(fixtures / "electra_tiny", tmp_path / "out")
        assert result.exit_code == 2
        assert "is a checkpoint of Google's code, and no directory of a model" in result.stderr
        assert "electra-convert --head native SOURCE OUT" in result.stderr

    @pytest.mark.usefixtures("installed")
    def test_nothing_there(self, tmp_path: Path) -> None:
        """What cannot be found is one message."""
        for path in (tmp_path / "nowhere", tmp_path / ("long" * 100), tmp_path):
            result = run(path, tmp_path / "out")
            assert result.exit_code == 1
            assert str(path) in result.stderr
            assert "Traceback" not in result.stderr

    @pytest.mark.usefixtures("installed")
    @pytest.mark.parametrize("name", ["tokenizer.json", "special_tokens_map.json"])
    def test_a_file_that_cannot_be_read(self, model: Path, tmp_path: Path, name: str) -> None:
        """One of the model's is named as such, before any work, and not the output that it was to be copied to."""
        broken = Path(shutil.copytree(model, tmp_path / "model"))
        (broken / name).unlink()
        (broken / name).mkdir()
        with pytest.raises(SourceError, match=f"{broken / name} cannot be read"):
            export_model(broken, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.usefixtures("installed")
    def test_a_format_that_is_not_there(self, model: Path, tmp_path: Path) -> None:
        """A format is named that the directory does not hold."""
        other = changed(model, tmp_path / "model")
        assert run(other, tmp_path / "out", "--format", "flax").exit_code == 1
        with pytest.raises(CheckpointNotFoundError):
            export_model(other, tmp_path / "out", ExportOptions(format="flax"))

    @pytest.mark.usefixtures("installed")
    def test_tensors_that_do_not_fit(self, model: Path, tmp_path: Path) -> None:
        """What is missing, of another shape, or in no mapping is one error that lists all of it."""

        def change(arrays: dict[str, Array]) -> None:
            del arrays["electra.embeddings.LayerNorm.bias"]
            arrays["surplus.weight"] = np.zeros(3, "f4")
            arrays[QUERY] = arrays[QUERY][:60].copy()

        with pytest.raises(TensorMismatchError, match=r"3 tensors do not fit the model that") as raised:
            export_model(changed(model, tmp_path / "model", change), tmp_path / "out")
        assert raised.value.problems == (
            "electra.embeddings.LayerNorm.bias [32] is missing",
            f"{QUERY} has shape [60, 64]; the config calls for [64, 64]",
            "surplus.weight [3] is in no mapping",
        )


class TestAlone:
    def test_it_imports_nothing_of_this_package(self) -> None:
        """What loads an export knows the standard library, NumPy and the framework."""
        tree = ast.parse(Path(alone.__file__).read_text())
        imported = {
            name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([str(node.module)] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
        }
        allowed = {"__future__", "json", "sys", "collections", "pathlib", "typing", "numpy"}
        assert imported - allowed == {"orbax", "keras", "tensorflow"}
        assert set(alone.BARRED) == {"electra_convert", "transformers"}
        assert all(hasattr(alone, target) for target in EXPORT_TARGETS)

    @pytest.mark.parametrize("shape", [(1, 1, 600), (3, 70, 64), (4, 128, 600), (4, 128, 63), (4, 128), (1, 4)])
    def test_it_keeps_what_the_reference_keeps(self, shape: tuple[int, ...]) -> None:
        """Of wide outputs, both keep the same positions."""
        array = np.arange(np.prod(shape)).reshape(shape)
        assert (alone.kept(array, MOST_POSITIONS) == kept(array)).all()

    def test_leaves_and_trees(self) -> None:
        """A tree is made of paths, and taken apart again."""
        tensors = {"a/b/c": np.zeros(1), "a/d": np.ones(2), "e": np.zeros(3)}
        tree = tree_of(tensors)
        assert tree.keys() == {"a", "e"}
        assert dict(alone.leaves(tree)) == tensors


def test_what_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A row for each output, what it was compared with, and the call that loads each target."""
    agreement = [
        Agreement(output=name, difference=difference, limit=1e-5, elements=10)
        for name, difference in (("start_logits", 1e-6), ("end_logits", 0.0))
    ]
    exported = [
        Exported(
            target=target,
            place=DESCRIBED[target].place,
            nbytes=1000,
            call=load_call(target, Path("out")),
            versions={},
            agreement=agreement,
        )
        for target in EXPORT_TARGETS
    ]
    report = ExportReport(
        model=str(tmp_path),
        output=Path("out"),
        architecture="ElectraForQuestionAnswering",
        head="question_answering",
        format="pytorch",
        parameters=1234,
        reference="flax",
        exported=exported,
        files=["config.json"],
        nbytes=3000,
    )
    show_export(report, stdout_console())
    shown = capsys.readouterr().out
    assert f"{tmp_path}: ElectraForQuestionAnswering, 1,234 parameters, pytorch" in shown
    assert [line.split() for line in shown.splitlines() if "logits" in line] == [
        row
        for title in ("Orbax", "Keras", "SavedModel")
        for row in ([title, "1.00", "kB", "start_logits", "1.0e-06", "10%"], ["end_logits", "0", "0%"])
    ]
    assert "compared with the Flax model in float64" in shown
    assert f'  orbax.checkpoint.StandardCheckpointer().restore("{Path("out/orbax").absolute()}")\n' in shown
    assert '  keras.models.load_model("out/model.keras")\n' in shown
    assert '  tensorflow.saved_model.load("out/saved_model/1").signatures["serving_default"]\n' in shown
    assert json.dumps(str(Path("out/orbax").absolute())) in exported[0].call
