"""Outputs are proven in all frameworks at once, and what is wrong with them is found and explained."""

from __future__ import annotations

import itertools
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace
from safetensors.numpy import load_file, save_file

import electra_convert
from electra_convert import ConvertOptions, VerifyOptions, cli, convert_checkpoint, mirrored
from electra_convert.errors import CheckpointNotFoundError, OptionError
from electra_convert.formats import TARGETS, Contents, TargetFormat, module_of, read_weights
from electra_convert.formats.google_tf1 import open_checkpoint, write_checkpoint
from electra_convert.inventory import Part
from electra_convert.mapping import default_directory
from electra_convert.parity import verify as verify_module
from electra_convert.parity.heads import Subject
from electra_convert.parity.report import HeadReport, VerificationReport
from electra_convert.parity.self_test import self_test
from electra_convert.parity.verification import VERIFICATION_FILE, read_verification
from electra_convert.parity.worker import Job
from electra_convert.parity.workers import Pool, running
from electra_convert.tensor import Tensor
from tests.finetuned import each_task

for framework in ("torch", "tensorflow", "keras", "jax", "flax", "scipy"):
    pytest.importorskip(framework)

PARTS: list[tuple[str, Part]] = [
    ("electra_tiny", "discriminator"),
    ("electra_tiny", "generator"),
    ("electra_tiny_mlm_only", "generator"),
    ("electra_tiny_noproj", "discriminator"),
    ("electra_tiny_noproj", "generator"),
    ("electra_tiny_proj", "discriminator"),
    ("electra_tiny_proj", "generator"),
    ("electra_tiny_tied_weights", "discriminator"),
    ("electra_tiny_tied_weights", "generator"),
    ("electra_tiny_uniform", "discriminator"),
    ("electra_tiny_untied_embeddings", "discriminator"),
    ("electra_tiny_untied_embeddings", "generator"),
    ("electric_tiny", "discriminator"),
]
"""Every part of every genuine pre-training checkpoint."""
NATIVE: dict[Part, str] = {"discriminator": "pretraining", "generator": "masked_lm"}
POOL = Pool(threads=1)
"""Every framework is loaded once for all tests, as in a batch; for models this small a second thread costs more than it
gives."""
ONE_FRAMEWORK = VerifyOptions(frameworks=("pytorch",))
Change = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let JAX keep what it compiles from one process to the next: most of a small verification is that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("jax")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        yield
        POOL.close()


def verify_output(output: Path, options: VerifyOptions = VerifyOptions()) -> VerificationReport:  # noqa: B008
    """Verify an output, with the workers that all tests share."""
    return electra_convert.verify_output(output, options, lend=POOL.lend)


@pytest.fixture
def out(converted: Callable[..., Path], tmp_path: Path) -> Path:
    """A conversion that a test may damage: one head, in all formats."""
    source = converted("electra_tiny", "discriminator", heads=("pretraining",))
    return Path(shutil.copytree(source, tmp_path / "out"))


def change(directory: Path, target: TargetFormat, name: str, how: Change) -> None:
    """Write a file of weights again, with one tensor changed."""
    held = {key: tensor.load().copy() for key, tensor in read_weights(directory, target).items()}
    held[name] = how(held[name])
    path = directory / module_of(target).SINGLE
    path.unlink()
    tensors = [Tensor(key, array.shape, "float32", lambda array=array: array) for key, array in held.items()]  # type: ignore[misc]
    module_of(target).write(path, Contents(tensors, "float32", "ElectraForPreTraining"), lambda _: None)


def only(report: VerificationReport) -> HeadReport:
    """Return the one head of a report."""
    (head,) = report.heads
    return head


def run(*arguments: str | Path) -> Result:
    """Run the command line."""
    return CliRunner().invoke(cli.main, list(map(str, arguments)))


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_every_head_of_every_genuine_checkpoint_is_proven(
    converted: Callable[..., Path], name: str, part: Part
) -> None:
    """All heads in all frameworks: float64 within 1e-10 of Google's graph at every layer, every bit of the files."""
    report = verify_output(converted(name, part))
    assert report.status == "proven", report.verdict
    assert len(report.heads) == 8
    for head in report.heads:
        runs = {(found.framework, found.precision): found for found in head.runs}
        assert runs.keys() == {(target, precision) for target in TARGETS for precision in ("float64", "float32")}
        assert len(head.pairs) == 6
        assert sum(check.name == "round trip" for check in head.checks) == 3
        for target in TARGETS:
            arrays = runs[target, "float64"].arrays
            assert len(arrays) >= report.parts[0].config["num_hidden_layers"] + 2
            assert max(array.difference for array in arrays) <= 1e-10
    assert (report.parts[0].coverage.positions, report.parts[0].coverage.token_types) == (1, 1)


@pytest.mark.parametrize("pair", [*itertools.permutations(TARGETS, 2)], ids="-".join)
def test_every_direction_is_proven(converted: Callable[..., Path], tmp_path: Path, pair: Any) -> None:
    """A model's conversion is proven against the oracle on its own tensors, and so is the model where it lies."""
    source, target = pair
    part: Part = "generator" if source == "flax" else "discriminator"
    model = converted("electra_tiny_proj", part, targets=(source,), heads=("native",)) / NATIVE[part]
    convert_checkpoint(model, tmp_path, ConvertOptions(targets=(target,), heads=("native", "token_classification")))
    report = verify_output(tmp_path)
    assert report.status == "proven", report.verdict
    assert len(report.heads) == 2
    for head in report.heads:
        assert [check.framework for check in head.checks if check.name == "model"] == [source]
        assert {run.framework for run in head.runs} == {target}
        assert max(array.difference for run in head.runs for array in run.arrays if run.precision == "float64") <= 1e-10


@pytest.mark.parametrize("head", ["base", "sequence_classification", "multiple_choice", "token_classification"])
def test_a_model_with_any_head_is_proven(converted: Callable[..., Path], tmp_path: Path, head: str) -> None:
    """Heads that Google's graph has not are computed by the oracle with the model's own tensors, biases too."""
    model = shutil.copytree(converted("electra_tiny", "discriminator", targets=("pytorch",)) / head, tmp_path / "model")
    arrays = load_file(model / "model.safetensors")
    random = np.random.default_rng(5)
    trained = {name: random.normal(0, 0.3, array.shape).astype("float32") for name, array in arrays.items()}
    save_file(
        {**arrays, **{name: trained[name] for name in arrays if not name.startswith("electra.")}},
        model / "model.safetensors",
    )
    convert_checkpoint(model, tmp_path / "out", ConvertOptions(targets=("flax",), heads=("native", "pretraining")))
    report = verify_output(tmp_path / "out")
    assert report.status == "proven", report.verdict


def test_a_model_of_an_old_version_is_proven(converted: Callable[..., Path], tmp_path: Path) -> None:
    """A pickle with the names of old versions, buffers, and the word table twice, as generators were published."""
    import torch

    new = converted("electra_tiny", "generator", targets=("pytorch",), heads=("native",)) / "masked_lm"
    model = shutil.copytree(new, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors", "conversion.json"))
    arrays = load_file(new / "model.safetensors")
    for name in list(arrays):
        if "LayerNorm" in name:
            arrays[name.replace(".weight", ".gamma").replace(".bias", ".beta")] = arrays.pop(name)
    arrays["generator_lm_head.weight"] = arrays["electra.embeddings.word_embeddings.weight"]
    arrays["electra.embeddings.position_ids"] = np.arange(64)[None]
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, model / "pytorch_model.bin")
    convert_checkpoint(model, tmp_path / "out", ConvertOptions(targets=("flax",), heads=("native",)))
    report = verify_output(tmp_path / "out")
    assert report.status == "proven", report.verdict


def test_a_checkpoint_for_googles_code_is_proven(converted: Callable[..., Path], tmp_path: Path) -> None:
    """Its variables are those of the models, whose frameworks compute what the oracle computes with them."""
    discriminator = converted("electra_tiny", "discriminator", targets=("pytorch",), heads=("native",)) / "pretraining"
    generator = converted("electra_tiny", "generator", targets=("flax",), heads=("native",)) / "masked_lm"
    options = ConvertOptions(part="both", targets=("google_tf1",), generator=str(generator), optimizer_slots=True)
    convert_checkpoint(discriminator, tmp_path / "out", options)
    report = verify_output(tmp_path / "out", VerifyOptions(source=discriminator, generator=generator))
    assert report.status == "proven", report.verdict
    assert [(head.part, head.head) for head in report.heads] == [*NATIVE.items()]
    for head, framework in zip(report.heads, ("pytorch", "flax"), strict=True):
        assert {(run.framework, run.precision) for run in head.runs} == {(framework, "float64"), (framework, "float32")}
    found = read_verification(tmp_path / "out")
    assert found is not None
    assert not found.changes(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "head", "task"),
    [
        ("finetuned_chunk", "token_classification", "chunk"),
        ("finetuned_mnli", "sequence_classification", "mnli"),
        ("finetuned_squad_span", "question_answering", "squad"),
        ("electra_tiny", "base", None),
    ],
)
def test_a_checkpoint_of_any_head_for_googles_code_is_proven(
    converted: Callable[..., Path], tmp_path: Path, name: str, head: str, task: str | None
) -> None:
    """Heads of tasks, and a backbone alone."""
    model = converted(name, "discriminator", targets=("pytorch",), heads=(head,)) / head
    result = run(
        "convert", "--to", "google_tf1", "--verify", model, tmp_path / "out", *(["--task", task] if task else [])
    )
    assert result.exit_code == 0, result.output
    assert "✓ proven" in result.output


def test_a_checkpoint_of_another_for_googles_code_is_proven_by_its_bits(fixtures: Path, tmp_path: Path) -> None:
    """One part of a checkpoint of Google's code: there is nothing to run."""
    source = fixtures / "electra_tiny"
    convert_checkpoint(source, tmp_path / "out", ConvertOptions(part="generator", targets=("google_tf1",)))
    report = verify_output(tmp_path / "out", VerifyOptions(source=source))
    assert (report.status, report.verdict) == ("proven", "proven: the variables are those of the source, bit for bit")
    with pytest.raises(CheckpointNotFoundError, match="it was not made of what is named"):
        verify_output(tmp_path / "out")


def test_a_variable_that_is_another_is_found(converted: Callable[..., Path], tmp_path: Path) -> None:
    """A checkpoint whose checksums are right, and a variable wrong: by its bits and by what it computes."""
    model = converted("electra_tiny", "discriminator", targets=("pytorch",), heads=("native",)) / "pretraining"
    convert_checkpoint(model, tmp_path / "out", ConvertOptions(targets=("google_tf1",)))
    prefix = tmp_path / "out" / "model.ckpt-0"
    tensors = {name: (tensor, tensor.load()) for name, tensor in open_checkpoint(prefix).tensors.items()}
    for file in (tmp_path / "out").glob("model.ckpt-0.*"):
        file.unlink()
    wrong = "electra/encoder/layer_1/attention/self/query/kernel"
    write_checkpoint(
        prefix,
        [
            replace(tensor, values=partial(np.asarray, array.T if name == wrong else array))
            for name, (tensor, array) in tensors.items()
        ],
    )
    report = verify_output(tmp_path / "out", VerifyOptions(source=model))
    assert report.status == "failed"
    (fault,) = next(check.faults for check in only(report).checks if check.name == "round trip")
    assert "layer.1.attention.query.kernel is transposed" in fault
    assert any(found.outcome == "failed" for found in only(report).runs)


def test_a_wrong_mapping_of_the_model_is_caught(converted: Callable[..., Path], tmp_path: Path) -> None:
    """Names of the source that are taken for one another agree in all that is written; the model itself tells."""
    mappings = shutil.copytree(default_directory(), tmp_path / "mappings")
    text = (mappings / "pytorch.yaml").read_text()
    swapped = text.replace("self.query", "self.KEY").replace("self.key", "self.query").replace("self.KEY", "self.key")
    (mappings / "pytorch.yaml").write_text(swapped)
    model = converted("electra_tiny", "discriminator", targets=("pytorch",), heads=("native",)) / "pretraining"
    options = ConvertOptions(targets=("flax",), heads=("native",), mappings=mappings)
    convert_checkpoint(model, tmp_path / "out", options)
    report = verify_output(tmp_path / "out", VerifyOptions(mappings=mappings))
    assert report.status == "failed"
    assert [check.name for check in only(report).checks if not check.passed] == ["model"]
    assert all(run.outcome == "passed" for run in only(report).runs)


def test_a_model_that_cannot_be_run_leaves_the_proof_incomplete(
    converted: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the framework of the model nothing shows that its tensors were taken for what they are."""
    model = converted("electra_tiny", "discriminator", targets=("pytorch",), heads=("native",)) / "pretraining"
    convert_checkpoint(model, tmp_path / "out", ConvertOptions(targets=("flax",), heads=("native",)))
    monkeypatch.setattr("electra_convert.parity.verify.installed", lambda name: name == "flax")
    report = verify_output(tmp_path / "out")
    assert report.status == "incomplete"
    assert report.missing == ("pytorch",)


@each_task
def test_the_head_of_every_task_is_proven(converted: Callable[..., Path], name: str, task: str, head: str) -> None:
    """Taggers, span QA, and the constructed heads of classifiers: float64 within 1e-10 of the task's own variables."""
    report = verify_output(converted(name, "discriminator", heads=("native",), task=task))
    assert report.status == "proven", report.verdict
    found = only(report)
    assert (found.head, found.initialised) == (head, 0)
    runs = {(run.framework, run.precision): run for run in found.runs}
    for target in TARGETS:
        assert max(array.difference for array in runs[target, "float64"].arrays) <= 1e-10


def test_all_heads_of_a_fine_tuned_checkpoint_are_proven(converted: Callable[..., Path]) -> None:
    """The task's head beside seven that are not trained, in half the width and with a shared backbone."""
    report = verify_output(converted("finetuned_mnli", "discriminator", dtype="float16", layout="shared"))
    assert report.status == "proven", report.verdict
    assert len(report.heads) == 8
    assert report.parts[0].native_head == "sequence_classification"


def test_a_wrong_construction_is_caught_by_the_oracle(
    hparams: Callable[[str], Path], fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the files hold what the converter means them to, but it means the wrong thing, running them shows it."""
    right = mirrored.mirror
    monkeypatch.setattr(mirrored, "mirror", lambda values, shape: np.abs(right(values, shape)))
    options = ConvertOptions(heads=("native",), config=hparams("finetuned_mnli"))
    convert_checkpoint(fixtures / "finetuned_mnli", tmp_path / "out", options)
    report = verify_output(tmp_path / "out")
    assert report.status == "failed"
    found = only(report)
    assert all(check.passed for check in found.checks)
    assert all(run.outcome == "failed" for run in found.runs)


@pytest.mark.parametrize(
    ("tensor", "place"), [("classifier.dense.weight", (0, 5)), ("classifier.out_proj.weight", (0, 60))]
)
def test_a_constructed_tensor_that_is_damaged_is_caught(
    converted: Callable[..., Path], tmp_path: Path, tensor: str, place: tuple[int, int]
) -> None:
    """Values of the checkpoint and zeros of the construction are compared bit for bit."""
    source = converted("finetuned_mnli", "discriminator", heads=("native",), task="mnli")
    out = Path(shutil.copytree(source, tmp_path / "out"))

    def nudged(values: Any) -> Any:
        values[place] += 1e-3
        return values

    change(out / "sequence_classification", "pytorch", tensor, nudged)
    report = verify_output(out, ONE_FRAMEWORK)
    assert report.status == "failed"
    assert [check.name for check in only(report).checks if not check.passed] == ["round trip"]


@pytest.mark.parametrize(
    "options", [{"layout": "shared"}, {"split_formats": True}, {"dtype": "float16"}, {"seed": 7, "num_labels": 5}]
)
def test_every_kind_of_output_is_proven(converted: Callable[..., Path], options: dict[str, Any]) -> None:
    """Shared backbones, a directory for each format, a lower dtype, another seed."""
    heads = ("masked_lm", "token_classification")
    report = verify_output(converted("electra_tiny_proj", "generator", heads=heads, **options))
    assert report.status == "proven", report.verdict
    drift = report.parts[0].drift
    assert all(value > 1e-6 for value in drift.values())
    assert bool(drift) == ("dtype" in options)


def test_both_parts_are_proven_at_once(converted: Callable[..., Path]) -> None:
    """An output of two parts has a verdict on each."""
    report = verify_output(converted("electra_tiny", "both", heads=("base",)), ONE_FRAMEWORK)
    assert [head.part for head in report.heads] == ["discriminator", "generator"]
    assert report.status == "proven"
    assert report.left_out == ("tensorflow", "flax")
    assert "in pytorch (tensorflow and flax left out), given assumed: layer_norm_eps = 1e-12" in report.verdict


def test_a_sample_of_the_self_test_catches_every_fault() -> None:
    """Faults of whole models in all formats, and of some tensors."""
    report = self_test(every=97)
    assert report.passed
    assert not report.undamaged
    assert {case.framework for case in report.cases} == set(TARGETS)
    seen = {case.fault: set(case.caught_by) for case in report.cases}
    assert {"float64", "float32"} <= seen["tanh-GELU"]
    assert "round trip" not in seen["tanh-GELU"]
    assert {"config", "float64", "float32"} == seen["wrong head count"] == seen["epsilon 1e-5"]
    assert {"round trip", "loading"} == seen["a bias dropped"]
    for fault in ("query and key exchanged", "rows shifted by one", "the other part's projection"):
        assert {"round trip", "float64", "float32"} == seen[fault]


@pytest.mark.parametrize("target", TARGETS)
def test_a_damaged_tensor_is_found_and_explained(out: Path, target: TargetFormat) -> None:
    """The report names the format, the tensor and what happened to it, and the first layer that diverges."""
    names = {
        "pytorch": "electra.encoder.layer.1.output.dense.bias",
        "tensorflow": "electra/encoder/layer_._1/output/dense/bias:0",
        "flax": "electra/encoder/layer/1/output/dense/bias",
    }
    change(out / "pretraining", target, names[target], np.negative)
    report = verify_output(out)
    head = only(report)
    assert report.status == head.status == "failed"
    assert head.causes == (f"the {target} weights: layer.1.ffn.down.bias is negated",)
    assert "layer.1.ffn.down.bias is negated" in read_verification(out / "pretraining").verdict  # type: ignore[union-attr]
    failed = [found for found in head.runs if found.outcome == "failed"]
    assert {(found.framework, found.precision) for found in failed} == {(target, "float64"), (target, "float32")}
    assert all(found.divergence is not None and found.divergence.array == "layer 2" for found in failed)
    assert {target in (pair.first, pair.second) for pair in head.pairs if not pair.passed} == {True}


def test_a_nan_fails(out: Path) -> None:
    """What is not a number is within no tolerance."""
    change(out / "pretraining", "pytorch", "discriminator_predictions.dense.bias", lambda array: array * np.nan)
    head = only(verify_output(out, ONE_FRAMEWORK))
    assert {found.outcome for found in head.runs} == {"failed"}
    assert {found.needed for found in head.runs} == {np.inf}
    again = read_verification(out / "pretraining")
    assert again is not None
    assert {found.needed for found in again.runs} == {np.inf}


def test_a_fault_that_no_output_shows_is_found(out: Path) -> None:
    """The same constant on all keys leaves every softmax as it is; the round trip sees it."""
    name = "electra.encoder.layer.0.attention.self.key.bias"
    change(out / "pretraining", "pytorch", name, lambda array: array + np.float32(0.5))
    head = only(verify_output(out, ONE_FRAMEWORK))
    assert head.status == "failed"
    assert {found.outcome for found in head.runs} == {"passed"}
    assert "layer.0.attention.key.bias differs in 64 of 64 elements" in head.causes[0]


def test_a_wrong_head_count_in_the_config_is_refuted(out: Path) -> None:
    """No tensor shows it; the outputs do, and the report says which field is wrong."""
    path = out / "pretraining" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_attention_heads": 8}))
    head = only(verify_output(out, ONE_FRAMEWORK))
    assert head.status == "failed"
    assert head.causes == ("the config: config.json has num_attention_heads = 8; expected 4",)
    assert {found.divergence and found.divergence.array for found in head.runs} == {"layer 1"}


def test_a_wrong_head_count_that_was_assumed_is_refuted_by_the_hparams(
    fixtures: Path, hparams: Callable[[str], Path], tmp_path: Path
) -> None:
    """Converted without hparams, this checkpoint gets one head where it was trained with four."""
    convert_checkpoint(
        fixtures / "electra_tiny", tmp_path / "out", ConvertOptions(part="discriminator", heads=("pretraining",))
    )
    blind = verify_output(tmp_path / "out", ONE_FRAMEWORK)
    assert blind.status == "proven"
    assert "given assumed: num_attention_heads = 1, hidden_act = gelu" in blind.verdict
    report = verify_output(tmp_path / "out", VerifyOptions(frameworks=("pytorch",), config=hparams("electra_tiny")))
    assert report.status == "failed"
    assert only(report).causes[0].startswith("the config: config.json has num_attention_heads = 1; expected 4")


def test_a_model_that_computes_something_else_is_told_by_what_it_computes(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files hold the right bits, so the cause is looked for among the changes of Google's graph."""
    monkeypatch.setattr("electra_convert.parity.known.Subject", partial(Subject, fault="tanh_gelu"))
    head = only(verify_output(out, ONE_FRAMEWORK))
    assert head.status == "failed"
    assert head.causes == ("the pytorch model computes with the tanh approximation of GELU",)


def test_a_changed_file_makes_the_verification_invalid(out: Path) -> None:
    """It holds for the bytes it was made on, and says which are others now; a card beside them changes nothing."""
    verify_output(out, ONE_FRAMEWORK)
    directory = out / "pretraining"
    found = read_verification(directory)
    assert found is not None
    assert found.status == "proven"
    (directory / "README.md").write_text("a card")
    assert found.changes(directory) == []
    (directory / "config.json").write_bytes((directory / "config.json").read_bytes() + b"\n")
    (directory / "tf_model.h5").unlink()
    (directory / "other.bin").write_bytes(b"")
    assert found.changes(directory) == ["config.json has changed", "other.bin was not there", "tf_model.h5 is gone"]


def test_directories_of_formats_that_are_left_out_are_left_alone(
    converted: Callable[..., Path], tmp_path: Path
) -> None:
    """With a directory for each format, only those that are to run are verified; the proof names the others."""
    options = {"heads": ("base",), "targets": ("pytorch", "flax"), "split_formats": True}
    out = shutil.copytree(converted("electra_tiny", "discriminator", **options), tmp_path / "out")
    report = verify_output(out, ONE_FRAMEWORK)
    assert report.status == "proven"
    assert report.left_out == ("flax",)
    assert (out / "base/pytorch" / VERIFICATION_FILE).is_file()
    assert not (out / "base/flax" / VERIFICATION_FILE).exists()


def test_a_framework_that_is_missing_leaves_the_proof_incomplete(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written for it was not run: exit 1, unless it is left out by name."""
    monkeypatch.setattr(verify_module, "installed", lambda framework: framework == "pytorch")
    result = run("verify", out)
    assert result.exit_code == 1
    assert "incomplete: not all was run, for tensorflow and flax are not installed" in result.stdout
    assert 'pip install "electra-convert[flax]"' in result.stdout
    assert run("verify", out, "--frameworks", "pytorch").exit_code == 0


def test_nothing_compared_is_no_proof(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any framework, nothing was run."""
    monkeypatch.setattr(verify_module, "installed", lambda _: False)
    assert verify_output(out).status == "incomplete"


def test_a_loosened_gate_is_stamped_and_counts_as_unverified(out: Path) -> None:
    """It may pass, but it proves nothing: exit 1."""
    result = run("verify", out, "--frameworks", "pytorch", "--loosen", "float32=100")
    assert result.exit_code == 1
    assert "LOOSENED 100 times" in result.stdout
    assert "unverified: all passed, but with loosened gates (float32 x 100)" in result.stdout
    assert read_verification(out / "pretraining").status == "unverified"  # type: ignore[union-attr]


def test_a_process_that_is_killed_is_told(out: Path, tmp_path: Path) -> None:
    """A crash is an answer with the signal, and the others go on."""
    job = Job(directory=out, head="pretraining", precision="float32", probes=tmp_path / "none", out=tmp_path)
    with running(("pytorch",)) as workers:
        workers["pytorch"]._child.end()
        assert workers["pytorch"].submit(job).result().error == "the pytorch process ended with signal 9"


class TestAudit:
    def test_without_a_source_nothing_is_proven(self, out: Path) -> None:
        """The formats agree, but nobody knows with what."""
        (out / ".electra-convert.json").unlink()
        result = run("verify", out)
        assert result.exit_code == 0, result.output
        assert "audited: consistent with itself; nothing is proven" in result.stdout
        assert read_verification(out / "pretraining").status == "audited"  # type: ignore[union-attr]

    def test_an_audit_takes_nothing_from_a_proof(self, out: Path) -> None:
        """What was proven of the same bytes stays proven."""
        verify_output(out, ONE_FRAMEWORK)
        (out / ".electra-convert.json").unlink()
        report = verify_output(out, ONE_FRAMEWORK)
        assert report.status == "audited"
        assert any("it was converted from model.ckpt-30, which is not where it was" in note for note in report.notes)
        assert read_verification(out / "pretraining").status == "proven"  # type: ignore[union-attr]

    def test_a_source_that_is_another_by_now_is_not_used(self, fixtures: Path, tmp_path: Path) -> None:
        """The note leads to files with another identity: an audit; naming them is an error of the proof."""
        source = shutil.copytree(fixtures / "electra_tiny", tmp_path / "source")
        options = ConvertOptions(part="discriminator", heads=("base",), targets=("pytorch",))
        convert_checkpoint(source, tmp_path / "out", options)
        shutil.rmtree(source)
        shutil.copytree(fixtures / "electra_tiny_proj", source)
        assert verify_output(tmp_path / "out").status == "audited"
        report = verify_output(tmp_path / "out", VerifyOptions(source=source))
        assert report.status == "failed"
        assert any("it was converted from model.ckpt-30, whose SHA-256 is" in cause for cause in only(report).causes)

    def test_formats_that_differ_fail(self, out: Path) -> None:
        """The report says which tensor, and how."""
        (out / ".electra-convert.json").unlink()
        change(out / "pretraining", "flax", "electra/embeddings/LayerNorm/scale", lambda array: array * 2)
        head = only(verify_output(out))
        assert head.status == "failed"
        assert "the flax weights: embeddings.norm.scale differs in 32 of 32 elements" in head.causes[0]
        assert {pair.passed for pair in head.pairs if "flax" in (pair.first, pair.second)} == {False}

    def test_what_transformers_wrote_is_audited(self, out: Path, tmp_path: Path) -> None:
        """A directory of another tool has no record; its head is told by its config."""
        transformers = pytest.importorskip("transformers")
        model = transformers.ElectraForPreTraining.from_pretrained(out / "pretraining")
        model.save_pretrained(tmp_path / "theirs")
        report = verify_output(tmp_path / "theirs")
        assert report.status == "audited", report.verdict
        assert only(report).head == "pretraining"

    def test_a_source_for_what_was_not_converted_is_refused(self, out: Path, fixtures: Path) -> None:
        """There is no record of what was done."""
        (out / "pretraining/conversion.json").unlink()
        with pytest.raises(OptionError, match="only what this package converted"):
            verify_output(out, VerifyOptions(source=fixtures / "electra_tiny"))


class TestCommand:
    def test_reports_are_written(self, out: Path, tmp_path: Path) -> None:
        """A table on stdout, JUnit and HTML in files."""
        result = run("verify", out, "--junit", tmp_path / "a/junit.xml", "--html", tmp_path / "a/report.html")
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[-1] == "✓ proven, given assumed: layer_norm_eps = 1e-12, lowercase = true"
        cases = ET.parse(tmp_path / "a/junit.xml").getroot().findall(".//testcase")  # noqa: S314  # our own
        assert len(cases) >= 12
        assert "proven" in (tmp_path / "a/report.html").read_text()

    def test_json_holds_the_report(self, out: Path) -> None:
        """Every figure, for programs."""
        report = json.loads(run("verify", out, "--frameworks", "pytorch", "--json").stdout)
        assert report["status"] == "proven"
        assert report["heads"][0]["runs"][0]["arrays"][0]["array"] == "embeddings"

    def test_a_failure_is_told_in_full(self, out: Path) -> None:
        """Head, framework, probe, element, both values, the first layer, the likely cause; exit 1."""
        name = "electra.encoder.layer.2.attention.self.query.weight"
        change(out / "pretraining", "pytorch", name, lambda array: array.T.copy())
        result = run("verify", out, "--frameworks", "pytorch")
        assert result.exit_code == 1
        assert "PyTorch float64\n    layer 3 is the first to diverge, on the probe length " in result.stdout
        assert ": expected " in result.stdout
        assert "likely cause: the pytorch weights: layer.2.attention.query.kernel is transposed" in result.stdout
        assert result.stdout.splitlines()[-1].startswith("✗ failed: 1 of 1 heads not proven")

    def test_convert_verifies_what_was_there(self, fixtures: Path, tmp_path: Path) -> None:
        """`convert --verify` proves what an earlier run wrote, and was not verified."""
        arguments = ["--part", "discriminator", "--head", "native", "--to", "pytorch"]
        assert run("convert", *arguments, fixtures / "electra_tiny", tmp_path / "out").exit_code == 0
        again = run("convert", *arguments, "--verify", fixtures / "electra_tiny", tmp_path / "out")
        assert again.exit_code == 0, again.output
        assert "proven, given assumed" in again.stdout

    def test_convert_verifies_what_it_wrote(self, fixtures: Path, tmp_path: Path) -> None:
        """One call converts and proves."""
        arguments = ("--part", "generator", "--head", "masked_lm", "--to", "pytorch", "--verify")
        result = run("convert", *arguments, fixtures / "electra_tiny", tmp_path / "out")
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[-1].startswith("✓ proven, given assumed: num_attention_heads = 1")
        assert (tmp_path / "out/masked_lm" / VERIFICATION_FILE).is_file()
