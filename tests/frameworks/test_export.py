"""Exports, loaded and run by the frameworks' own libraries, and held to the model they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
for framework in ("torch", "tensorflow", "jax", "flax", "orbax.checkpoint"):
    pytest.importorskip(framework)
keras = pytest.importorskip("keras", minversion="3")

import orbax.checkpoint as ocp  # noqa: E402  # there is one only where Orbax is
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from flax.serialization import msgpack_restore  # noqa: E402

from electra_convert import (  # noqa: E402
    ExportError,
    ExportOptions,
    cli,
    export_model,
    load_mappings,
    verify_export,
)
from electra_convert.export import keras as keras_module  # noqa: E402
from electra_convert.export import proof as proof_module  # noqa: E402
from electra_convert.export.alone import leaves  # noqa: E402
from electra_convert.export.model import named_tensors  # noqa: E402
from electra_convert.export.proof import Proof  # noqa: E402
from electra_convert.formats import FRAMEWORKS, pytorch  # noqa: E402
from electra_convert.mapping import default_directory  # noqa: E402
from electra_convert.model_directory import open_model_directory  # noqa: E402
from electra_convert.models import tensorflow as models  # noqa: E402
from tests.hub.server import HubServer  # noqa: E402
from tests.hub.state import Repo  # noqa: E402
from tests.hub.test_read import commit, model_blobs  # noqa: E402
from tests.small import CONFIG, build_tensorflow  # noqa: E402

if TYPE_CHECKING:
    from electra_convert.tensor import Array

HEADS = tuple(models.MODELS)
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def inputs_of(head: str, length: int = 11) -> dict[str, Array]:
    """Return rows that are whole, padded on the right, on the left, and padding alone."""
    draw = np.random.default_rng(1)
    shape = (2, 2, length) if head == "multiple_choice" else (4, length)
    mask = np.ones((4, length), np.int32)
    mask[1, length // 2 :] = 0
    mask[2, : length // 2] = 0
    mask[3] = 0
    return {
        "input_ids": draw.integers(0, CONFIG.vocab_size, shape, np.int32),
        "attention_mask": mask.reshape(shape),
        "token_type_ids": draw.integers(0, CONFIG.type_vocab_size, shape, np.int32),
    }


def outputs_of(model: Any, inputs: dict[str, Array]) -> dict[str, Array]:
    """Return what the reference model computes, by name."""
    named = model(**inputs)._asdict()
    return {name: np.asarray(value) for name, value in named.items() if value is not None}


def described(node: Any) -> Iterator[Any]:
    """Yield each thing that a graph describes: by its class, and by what that is set up with."""
    if isinstance(node, dict):
        if not node.get("class_name", "__").startswith("__"):
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from described(each)


def differences(computed: Any, expected: Array) -> Array:
    """Return how far two outputs are apart in each row of the inputs, in units of the largest value."""
    apart = np.abs(np.asarray(computed) - expected) / max(1, np.abs(expected).max())
    return np.asarray(apart.reshape(4, -1).max(axis=1))


def saved(model: Any, folder: Path) -> Path:
    """Export a model to Keras in this process, unproven; return the file."""
    model.save_pretrained(folder / "model")
    mappings = load_mappings()
    keras_module.write(open_model_directory(folder / "model", mappings), mappings, folder / "model.keras")
    return folder / "model.keras"


def run(*arguments: object) -> Result:
    """Run `export` in this process."""
    return CliRunner().invoke(cli.main, ["export", *map(str, arguments)])


class TestKeras:
    @pytest.mark.parametrize(
        ("head", "changes"),
        [
            *((head, {}) for head in HEADS),
            *((head, {"embedding_size": 32}) for head in ("base", "causal_lm")),
            *((head, {"hidden_act": act}) for head in ("pretraining", "masked_lm") for act in ("relu", "tanh")),
            *((head, {"hidden_act": "linear"}) for head in ("masked_lm", "sequence_classification")),
            ("multiple_choice", {"hidden_act": "relu", "num_attention_heads": 4}),
            ("base", {"layer_norm_eps": 1e-3, "type_vocab_size": 3, "hidden_dropout_prob": 0.0}),
        ],
    )
    def test_every_head_computes_what_the_reference_model_computes(
        self, tmp_path: Path, head: str, changes: dict[str, Any]
    ) -> None:
        """A model that was saved and loaded in safe mode has the same outputs, also where all is padding."""
        model = build_tensorflow(head, **changes)
        loaded = keras.models.load_model(saved(model, tmp_path))
        for length in (1, 11, 40):
            inputs = inputs_of(head, length)
            expected = outputs_of(model, inputs)
            computed = loaded(inputs, training=False)
            assert computed.keys() == expected.keys()
            for name, array in expected.items():
                assert computed[name].shape == array.shape
                apart = differences(computed[name], array)
                assert apart[:2].max() < 1e-5, (name, length)
                assert apart.max() < 1e-3, (name, length)  # float32 cuts scores of -10000 to three decimals

    def test_a_row_of_padding_alone_tells_one_mask_from_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Google's -10000 leaves the scores of such a row; a mask that takes more takes them all."""
        monkeypatch.setattr(keras_module, "MASKED", -1e9)
        model, inputs = build_tensorflow("base"), inputs_of("base")
        loaded = keras.models.load_model(saved(model, tmp_path))
        apart = differences(loaded(inputs)["last_hidden_state"], outputs_of(model, inputs)["last_hidden_state"])
        assert apart[:3].max() < 1e-5
        assert apart[3].max() > 1e-2

    def test_it_is_of_stock_layers_with_the_inventorys_names(self, tmp_path: Path) -> None:
        """Every layer is Keras' own, and a module is found by its name in the inventory."""
        loaded = keras.models.load_model(saved(build_tensorflow("masked_lm"), tmp_path), safe_mode=True)
        assert {type(layer).__module__.partition(".")[0] for layer in loaded._operations} == {"keras"}
        assert loaded.get_layer("layer_1_attention_query").kernel.shape == (32, 2, 16)
        assert loaded.get_layer("generator_output_bias").embeddings.shape == (1, 101)
        assert {name: each.shape for name, each in loaded.input.items()} == dict.fromkeys(INPUTS, (None, None))
        assert {variable.dtype for variable in loaded.trainable_variables} == {"float32"}
        assert loaded.name == "ElectraForMaskedLM"

    def test_it_trains(self, tmp_path: Path) -> None:
        """Every parameter moves, the word table of both its uses; dropout is there in training alone."""
        loaded = keras.models.load_model(saved(build_tensorflow("masked_lm"), tmp_path))
        inputs = {name: array[:3] for name, array in inputs_of("masked_lm").items()}
        assert np.abs(loaded(inputs, training=True)["logits"] - loaded(inputs, training=False)["logits"]).max() > 0.1
        before = [np.array(variable) for variable in loaded.trainable_variables]
        losses = {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
        loaded.compile(keras.optimizers.SGD(0.1), loss=losses)
        loaded.fit(inputs, {"logits": inputs["input_ids"]}, verbose=0)
        still = [
            variable.path
            for variable, values in zip(loaded.trainable_variables, before, strict=True)
            if (np.asarray(variable) == values).all()
        ]
        assert all("key/bias" in path for path in still), still  # no output shows it

    def test_another_backend_reads_it(self, tmp_path: Path) -> None:
        """The file names no backend: JAX computes the same from it."""
        model = build_tensorflow("causal_lm")
        file, inputs = saved(model, tmp_path), inputs_of("causal_lm")
        for name, array in inputs.items():
            np.save(tmp_path / f"{name}.npy", array)
        code = (
            "import keras, numpy; model = keras.models.load_model('model.keras');"
            "inputs = {name: numpy.load(f'{name}.npy') for name in model.input};"
            "numpy.save('logits.npy', model(inputs)['logits'])"
        )
        environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
        subprocess.run([sys.executable, "-c", code], cwd=file.parent, env=environment, check=True, capture_output=True)
        apart = differences(np.load(tmp_path / "logits.npy"), outputs_of(model, inputs)["logits"])
        assert apart[:2].max() < 1e-5
        assert apart.max() < 1e-3

    def test_older_versions_read_it(self, tmp_path: Path) -> None:
        """No setting is in the graph that is not set, and no operation is set up with a name: 3.3 knows the others."""
        file = saved(build_tensorflow("pretraining"), tmp_path)
        with zipfile.ZipFile(file) as archive:
            graph = json.loads(archive.read("config.json"))
        kinds = [*described(graph)]
        assert {"Dense", "EinsumDense", "Einsum", "Cumsum", "DTypePolicy"} <= {kind["class_name"] for kind in kinds}
        assert not [kind for kind in kinds if None in kind["config"].values()]
        assert not [kind for kind in kinds if kind["module"].startswith("keras.src.ops") and "name" in kind["config"]]
        names = [layer["name"] for layer in graph["config"]["layers"]]
        for _ in range(2):
            assert {each.name for each in keras.models.load_model(file).layers} <= set(names)

    def test_the_same_model_is_the_same_bytes(self, tmp_path: Path) -> None:
        """Neither the date nor a seed that is drawn is in the file."""
        model, digests = build_tensorflow("base"), set()
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            keras.utils.clear_session()  # which counts the names of layers, as a process of its own does
            digests.add(hashlib.sha256(saved(model, tmp_path / name).read_bytes()).hexdigest())
        assert len(digests) == 1


@pytest.fixture(scope="session")
def model(converted: Callable[..., Path]) -> Path:
    """A discriminator with its native head, in all formats."""
    return converted("electra_tiny", "discriminator") / "pretraining"


@pytest.fixture(scope="session")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Every target of it, and what was said."""
    out = tmp_path_factory.mktemp("exported") / "deep" / "out"
    return out, run(model, out)


class TestEveryTarget:
    def test_what_is_said(self, exported: tuple[Path, Result]) -> None:
        """Every target agrees, and the calls that are printed load it."""
        _, result = exported
        assert result.exit_code == 0, result.stderr
        rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if "logits" in line}
        assert list(rows) == ["Orbax", "Keras", "SavedModel"]
        assert all(0 < float(row[4]) < 1e-4 for row in rows.values())
        calls = [line.strip() for line in result.stdout.partition("Load it with:")[2].splitlines() if line]
        assert len(calls) == 3
        modules = {"orbax": __import__("orbax"), "keras": keras, "tensorflow": tf}
        for call in calls:
            assert eval(call, modules)  # noqa: S307  # what was printed is what is tested

    def test_what_is_there(self, model: Path, exported: tuple[Path, Result]) -> None:
        """The targets, and what belongs to the model whatever the framework; nothing else, and nothing half-written."""
        out, _ = exported
        copied = {"config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
        assert {path.name for path in out.iterdir()} == {"orbax", "model.keras", "saved_model", *copied}
        assert all((out / name).read_bytes() == (model / name).read_bytes() for name in copied)
        assert [path.name for path in out.parent.iterdir()] == ["out"]

    def test_orbax_is_the_tree_of_flax(self, model: Path, exported: tuple[Path, Result]) -> None:
        """What Orbax restores is what flax reads from the file of weights."""
        out, _ = exported
        restored = dict(leaves(ocp.StandardCheckpointer().restore(out.absolute() / "orbax")))
        expected = dict(leaves(msgpack_restore((model / "flax_model.msgpack").read_bytes())))
        assert restored.keys() == expected.keys()
        assert all((restored[name] == array).all() for name, array in expected.items())

    def test_the_signature_takes_any_batch_and_length(self, model: Path, exported: tuple[Path, Result]) -> None:
        """TensorFlow Serving finds a version, and in it one signature with the names transformers gives."""
        out, _ = exported
        loaded = tf.saved_model.load(str(out / "saved_model" / "1"))
        serve = loaded.signatures["serving_default"]
        specs = serve.structured_input_signature[1]
        assert {name: (spec.shape.as_list(), spec.dtype) for name, spec in specs.items()} == {
            name: ([None, None], tf.int32) for name in INPUTS
        }
        assert list(serve.structured_outputs) == ["logits"]
        assert loaded.layer_1_attention_query.kernel.shape == (64, 4, 16)
        size = sum(path.stat().st_size for path in (out / "saved_model" / "1" / "variables").iterdir())
        assert size < 1.05 * 4 * sum(
            variable.shape.num_elements() for variable in serve.variables
        )  # each is there once
        right = models.TFElectraForPreTraining.from_pretrained(model)
        for shape in ((1, 1), (3, 17)):
            inputs = {name: np.ones(shape, np.int32) for name in INPUTS}
            got = serve(**{name: tf.constant(array) for name, array in inputs.items()})["logits"]
            assert np.abs(np.asarray(got) - np.asarray(right(**inputs).logits)).max() < 1e-5

    def test_it_is_verified_later(self, model: Path, exported: tuple[Path, Result], tmp_path: Path) -> None:
        """Every target is loaded and compared again, and the files beside them; without the model nothing is proven."""
        out, _ = exported
        result = CliRunner().invoke(cli.main, ["verify", str(out), "--source", str(model)])
        assert result.exit_code == 0, result.stderr
        assert [line.split()[0] for line in result.stdout.splitlines() if "logits" in line] == [
            "Orbax",
            "Keras",
            "SavedModel",
        ]
        assert "✓ proven" in result.stdout
        refused = CliRunner().invoke(cli.main, ["verify", str(out)])
        assert refused.exit_code == 2
        assert "--source MODEL" in refused.stderr
        other = Path(shutil.copytree(model, tmp_path / "model"))
        arrays = load_file(other / "model.safetensors")
        arrays["discriminator_predictions.dense_prediction.bias"] += 1
        save_file(arrays, other / "model.safetensors", {"format": "pt"})
        (other / "vocab.txt").write_text((model / "vocab.txt").read_text() + "more\n")
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "out").mkdir()
        for name in ("config.json", "model.keras", "vocab.txt"):
            shutil.copy(out / name, tmp_path / "out")
        with pytest.raises(ExportError) as error:
            verify_export(tmp_path / "out", other)
        assert "keras: logits differs by " in str(error.value)
        assert "vocab.txt is not that of the model" in str(error.value)

    def test_again(self, model: Path, exported: tuple[Path, Result], tmp_path: Path) -> None:
        """What exists is replaced when that is asked for; the same model gives the same bytes, but for identities."""
        out, _ = exported
        again = Path(shutil.copytree(out, tmp_path / "out"))
        (again / "model.keras").write_text("old")
        result = run(model, again, "--to", "keras,saved_model", "--overwrite", "--json")
        assert result.exit_code == 0, result.stderr
        assert not (again / "orbax").exists()
        (first, second) = json.loads(result.stdout)["exported"]
        assert (first["target"], second["target"]) == ("keras", "saved_model")
        assert first["nbytes"] == (out / "model.keras").stat().st_size
        files = [path.relative_to(again) for path in again.rglob("*") if path.is_file()]
        changed = [name for name in files if (again / name).read_bytes() != (out / name).read_bytes()]
        assert len(files) == 10
        assert [path.name for path in changed] == ["fingerprint.pb"]


@pytest.mark.parametrize(
    ("head", "targets", "options"),
    [
        ("question_answering", ("saved_model",), {}),
        ("multiple_choice", ("keras",), {"layout": "shared"}),
        ("causal_lm", ("orbax",), {"dtype": "float16"}),
    ],
)
def test_other_heads(
    converted: Callable[..., Path], tmp_path: Path, head: str, targets: Any, options: dict[str, Any]
) -> None:
    """Two outputs, an axis of choices, a causal mask; one shared backbone, values of half the width."""
    directory = converted("electra_tiny", "discriminator", **options) / head
    report = export_model(directory, tmp_path / "out", ExportOptions(targets=targets))
    assert [each.target for each in report.exported] == list(targets)
    outputs = ["start_logits", "end_logits"] if head == "question_answering" else ["logits"]
    for each in report.exported:
        assert [found.output for found in each.agreement] == outputs
        assert all(found.difference <= found.limit for found in each.agreement)


def test_a_model_on_the_hub(hub: HubServer, model: Path, tmp_path: Path) -> None:
    """It is read there as it is here, tokenizer and all."""
    hub.repos["org/electra"] = repo = Repo("org/electra", private=False)
    commit(repo, model_blobs(model))
    result = run("hf://org/electra", tmp_path / "out", "--to", "orbax")
    assert result.exit_code == 0, result.stderr
    assert "hf://org/electra: ElectraForPreTraining, 140,513 parameters, pytorch" in result.stdout
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == (model / "vocab.txt").read_bytes()


class TestFaults:
    def swapped(self, folder: Path) -> Path:
        """Return mappings that take PyTorch's queries for keys, and keys for queries."""
        mappings = Path(shutil.copytree(default_directory(), folder / "mappings"))
        file = mappings / "pytorch.yaml"
        spelt = {"query": "key", "key": "query"}
        text, count = re.subn(r"self\.(query|key)", lambda found: f"self.{spelt[found[1]]}", file.read_text())
        assert count
        file.write_text(text)
        return mappings

    @pytest.mark.parametrize("target", ["orbax", "saved_model"])
    def test_a_wrong_export_never_appears(self, model: Path, tmp_path: Path, target: str) -> None:
        """Queries and keys exchanged: exit 1, the output named and by how much, and nothing there."""
        result = run(model, tmp_path / "out", "--to", target, "--mappings", self.swapped(tmp_path))
        assert result.exit_code == 1
        assert f"what was exported does not compute what {model} computes; nothing was written" in result.stderr
        assert f"{target}: logits differs by " in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["mappings"]

    def test_values_that_are_no_numbers(self, model: Path, tmp_path: Path) -> None:
        """A model whose training diverged is told as such."""
        broken = Path(shutil.copytree(model, tmp_path / "model"))
        arrays = load_file(broken / "model.safetensors")
        arrays["electra.embeddings.LayerNorm.bias"][:] = np.nan
        save_file(arrays, broken / "model.safetensors", {"format": "pt"})
        with pytest.raises(ExportError, match="its values are no finite numbers"):
            export_model(broken, tmp_path / "out", ExportOptions(targets=("keras",)))
        assert not (tmp_path / "out").exists()

    def test_what_cannot_be_loaded(self, model: Path, tmp_path: Path) -> None:
        """A file that the library refuses is told with what the library says."""
        for name in ("shaped.npz", "probes.npz"):
            (tmp_path / name).touch()
        opened = open_model_directory(model, load_mappings())
        proof = Proof(opened, load_mappings(), (), tmp_path)
        (tmp_path / "model.keras").write_text("{}")
        agreement, (fault,) = proof.compare("keras", tmp_path / "model.keras")
        assert not agreement
        assert fault.startswith("keras: it cannot be loaded and run: ValueError: ")

    def test_a_restored_tree_that_differs(self, model: Path, tmp_path: Path) -> None:
        """A tree is compared bit for bit: every value, every name."""
        opened = open_model_directory(model, load_mappings())
        tree = dict(named_tensors(opened, load_mappings(), "flax"))
        first, second, *_ = tree
        tree[first] = tree[first] + np.float32(1e-7)
        tree["surplus"] = tree.pop(second)
        (tmp_path / "tree").mkdir()
        for number, array in enumerate(tree.values()):
            np.save(tmp_path / "tree" / f"{number}.npy", array)
        (tmp_path / "tree" / "names.json").write_text(json.dumps(list(tree)))
        assert [*Proof(opened, load_mappings(), (), tmp_path)._tree_faults()] == [
            f"{first} is restored with other values",
            f"{second} is missing in the tree that was restored",
            "surplus is unexpected in the tree that was restored",
        ]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_what_is_ended_leaves_nothing(self, model: Path, tmp_path: Path, number: signal.Signals) -> None:
        """A run that is ended while a model runs or is written takes its processes with it, and what they wrote."""
        command = [
            sys.executable,
            "-m",
            "electra_convert",
            "export",
            str(model),
            str(tmp_path / "out"),
            "--to",
            "orbax",
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}) as process:
            deadline = time.monotonic() + 60
            while not [*tmp_path.glob(".out.*.partial/new.partial")] and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(2)
            process.send_signal(number)
            process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert not [*tmp_path.iterdir()]

    def test_this_package_is_barred_where_an_export_is_loaded(self) -> None:
        """A custom layer of this package would not be found: neither it nor transformers can be imported there."""
        for package in ("electra_convert", "transformers"):
            code = (
                f"import sys; sys.argv[1:] = ['keras']; source = open({str(proof_module.ALONE)!r}).read();"
                f"exec(source.replace('json.loads(Path(sys.argv[2]).read_text())', '__import__(\"{package}\")'))"
            )
            result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            assert result.returncode == 1
            assert f"import of {package} halted" in result.stderr


class TestReference:
    def test_the_models_own_files_are_run(self, model: Path, tmp_path: Path) -> None:
        """What is right comes from the files that were read, whatever the format."""
        for target in FRAMEWORKS:
            proof = Proof(open_model_directory(model, load_mappings(), target), load_mappings(), (), tmp_path)
            assert proof._reference() == (target, model)

    def test_else_a_copy_is(self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where its framework is not, or a switch of the config is one that only does not matter, a copy is run."""
        masked = model.parent / "masked_lm"
        switched = Path(shutil.copytree(masked, tmp_path / "switched"))
        config = json.loads((switched / "config.json").read_text())
        (switched / "config.json").write_text(json.dumps(config | {"summary_activation": None}))
        inputs = {name: np.ones((1, 5), np.int32) for name in INPUTS}
        right = models.TFElectraForMaskedLM.from_pretrained(masked)(**inputs).logits.numpy()
        for path, lacking, expected in ((switched, "", "pytorch"), (masked, "pytorch", "tensorflow")):
            monkeypatch.setattr(proof_module, "installed", lambda name, lacking=lacking: name != lacking)
            (tmp_path / expected).mkdir()
            proof = Proof(open_model_directory(path, load_mappings()), load_mappings(), (), tmp_path / expected)
            framework, directory = proof._reference()
            assert (framework, directory) == (expected, tmp_path / expected / "model")
        assert (models.TFElectraForMaskedLM.from_pretrained(directory)(**inputs).logits.numpy() == right).all()

    def test_the_file_that_is_named(self, model: Path, tmp_path: Path) -> None:
        """Of two kinds of files, the one that was read is run, if from a copy."""
        other = Path(shutil.copytree(model, tmp_path / "model"))
        torch.save(
            {name: torch.from_numpy(array) for name, array in load_file(model / pytorch.SINGLE).items()},
            other / "pytorch_model.bin",
        )
        named = open_model_directory(other, load_mappings(), file=other / "pytorch_model.bin")
        (tmp_path / "scratch").mkdir()
        place = tmp_path / "scratch"
        assert Proof(named, load_mappings(), (), place)._reference() == ("pytorch", place / "model")
