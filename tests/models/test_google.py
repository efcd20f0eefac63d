"""The oracle computes what Google's own code recorded, and notices when it does not."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from msgspec.structs import replace

pytest.importorskip("scipy")

from electra_convert import PartNotFoundError, TensorMismatchError, initialize, load_mappings
from electra_convert.config import ElectraConfig
from electra_convert.formats.google_tf1 import open_checkpoint
from electra_convert.models import google
from electra_convert.models.google import Inputs, Oracle, Part
from electra_convert.tensor import Tensor, numpy_dtype

if TYPE_CHECKING:
    from electra_convert.tensor import Array

FIXTURES = Path(__file__).parents[2] / "fixtures"
RECORDED = sorted(path.parent.name for path in FIXTURES.glob("*/expected.npz"))
PRETRAINED = [name for name in RECORDED if name.startswith("elect")]
TOLERANCE = 2e-6
"""Times the largest output, or 1: what the oracle may differ from what Google's code recorded in float32."""
NATIVE: dict[Part, str] = {"discriminator": "pretraining", "generator": "masked_lm"}
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Recording:
    """A fixture: its variables, and what Google's code computed with them."""

    variables: Mapping[str, Tensor]
    description: Mapping[str, Any]
    inputs: Inputs
    outputs: Mapping[str, Array]

    def config(self, part: Part) -> ElectraConfig:
        described = self.description
        sizes, embedding_size = described["discriminator_config"], described["embedding_size"]
        if part == "generator":
            sizes = described.get("generator_config", sizes)
            embedding_size = described.get("generator_embedding_size", embedding_size)
        return ElectraConfig(**sizes, embedding_size=embedding_size)

    @property
    def parts(self) -> list[Part]:
        return [part for part in NATIVE if f"{part}_logits" in self.outputs]

    def oracle(self, part: Part = "discriminator", **options: Any) -> Oracle:
        config = replace(self.config(part), **options.pop("config", {}))
        return Oracle(options.pop("variables", self.variables), config, part=part, **options)


@cache
def recording(name: str) -> Recording:
    arrays = dict(np.load(FIXTURES / name / "expected.npz"))
    description = json.loads((FIXTURES / name / "expected.json").read_text())
    variables = open_checkpoint(FIXTURES / name / description["checkpoint"]).tensors
    return Recording(variables, description, Inputs(*(arrays.pop(key) for key in INPUTS)), arrays)


def computed(recorded: Recording, dtype: str) -> Iterator[tuple[str, Array]]:
    """Compute everything that was recorded."""
    for part in recorded.parts:
        states, outputs = recorded.oracle(part, dtype=dtype).run(NATIVE[part], recorded.inputs)
        yield f"{part}_logits", outputs["logits"]
        yield f"{part}_embedding_output", states[0]
        yield f"{part}_hidden_states", np.stack(states[1:])
    if "cloze_logits" in recorded.outputs:
        yield "cloze_logits", recorded.oracle(dtype=dtype).cloze_logits(recorded.inputs)
    for task in recorded.description.get("tasks", ()):
        for key, values in recorded.oracle(dtype=dtype).task_outputs(task, recorded.inputs).items():
            yield f"{task}/{key}", values


def excess(found: Array, expected: Array) -> float:
    """Return the largest difference, in tolerances."""
    assert found.size
    assert found.shape == expected.shape
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max()
    return float(difference / (TOLERANCE * max(1.0, np.abs(expected).max())))


def comparable(key: str, dtype: str, recorded: Recording) -> list[Array]:
    """Return the positions to compare, each set with a scale of its own."""
    expected, mask = recorded.outputs[key], recorded.inputs.attention_mask.astype(bool)
    if key.endswith(("start_logits", "end_logits")):
        return [expected > -500, expected <= -500]  # where Google subtracts 1000, which leaves four digits
    if key != "cloze_logits":
        return [np.ones_like(expected, bool)]
    if dtype == "float64":
        # A position reads the right-to-left tower at the next one. Where that is padding, all it could see is
        # masked, and Google's float32 rounds the scores, lowered by 10000, to a thousandth.
        mask = mask & np.roll(mask, -1, axis=1)
    return [np.broadcast_to(mask[..., None], expected.shape)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RECORDED)
def test_everything_google_recorded_comes_out(name: str, dtype: str) -> None:
    """Every output in a fixture is computed within 2e-6 of its largest value, at every position.

    Padding included, but for Electric's cloze logits, which look at rows where all is masked.
    """
    recorded = recording(name)
    found = dict(computed(recorded, dtype))
    assert found.keys() >= recorded.outputs.keys()
    for key, expected in recorded.outputs.items():
        assert found[key].dtype == (dtype if expected.dtype.kind == "f" else expected.dtype), key
        for positions in comparable(key, dtype, recorded):
            if positions.any():
                assert excess(found[key][positions], expected[positions]) <= 1, key


def test_the_hidden_states_are_among_what_is_recorded() -> None:
    """`electra_tiny` records the embeddings and every layer of both parts."""
    keys = {f"{part}_{kind}" for part in NATIVE for kind in ("embedding_output", "hidden_states", "logits")}
    assert keys <= recording("electra_tiny").outputs.keys()


def test_a_sharded_checkpoint_is_the_same_model() -> None:
    """The variables of `electra_tiny` in four data files give what was recorded for `electra_tiny`."""
    recorded = recording("electra_tiny")
    variables = open_checkpoint(FIXTURES / "electra_tiny_sharded" / "model.ckpt-30").tensors
    for part, head in NATIVE.items():
        outputs = recorded.oracle(part, variables=variables).run(head, recorded.inputs)[1]
        assert excess(outputs["logits"], recorded.outputs[f"{part}_logits"]) <= 1


class TestTeeth:
    """What is wrong is outside the tolerance, on every checkpoint and part."""

    WRONG: Mapping[str, Callable[[ElectraConfig], dict[str, Any]]] = {
        "twice the heads": lambda config: {"num_attention_heads": config.num_attention_heads * 2},
        "epsilon": lambda _: {"layer_norm_eps": 1e-5},
        "activation": lambda _: {"hidden_act": "relu"},
    }

    @staticmethod
    def assert_refuted(recorded: Recording, part: Part, **options: Any) -> None:
        found = recorded.oracle(part, **options).run(NATIVE[part], recorded.inputs)[1]["logits"]
        assert excess(found, recorded.outputs[f"{part}_logits"]) > 2

    @pytest.mark.parametrize("fault", WRONG)
    @pytest.mark.parametrize("name", PRETRAINED)
    def test_a_wrong_config_is_refuted(self, name: str, fault: str) -> None:
        """A wrong head count, epsilon 1e-5 and another activation all show."""
        recorded = recording(name)
        for part in recorded.parts:
            self.assert_refuted(recorded, part, config=self.WRONG[fault](recorded.config(part)))

    @pytest.mark.parametrize("name", PRETRAINED)
    def test_the_approximate_gelu_is_refuted(self, name: str) -> None:
        """The GELU made of tanh, which others call GELU, shows."""
        recorded = recording(name)
        for part in recorded.parts:
            self.assert_refuted(recorded, part, config={"hidden_act": google.TANH_GELU})

    @pytest.mark.parametrize("name", PRETRAINED)
    def test_exchanged_variables_are_refuted(self, name: str) -> None:
        """Query and key exchanged in one layer, and two layers exchanged, show."""
        recorded = recording(name)
        for one, other in [("layer_1/attention/self/query", "layer_1/attention/self/key"), ("layer_0", "layer_1")]:
            exchanged = {
                key.replace(one, "\0").replace(other, one).replace("\0", other): tensor
                for key, tensor in recorded.variables.items()
            }
            for part in recorded.parts:
                self.assert_refuted(recorded, part, variables=exchanged)

    @pytest.mark.parametrize("ignored", ["attention_mask", "token_type_ids"])
    def test_ignored_inputs_are_refuted(self, ignored: str) -> None:
        """A mask of ones, and types of 0, show."""
        recorded = recording("electra_tiny")
        value = np.full_like(recorded.inputs.input_ids, ignored == "attention_mask")
        for part in NATIVE:
            found = recorded.oracle(part).run(NATIVE[part], recorded.inputs._replace(**{ignored: value}))[1]["logits"]
            assert excess(found, recorded.outputs[f"{part}_logits"]) > 2


class TestVariables:
    """What must be in the checkpoint."""

    @staticmethod
    def without(name: str, *missing: str) -> dict[str, Tensor]:
        variables = dict(recording(name).variables)
        for variable in missing:
            del variables[variable]
        return variables

    def test_all_missing_variables_are_in_one_error(self) -> None:
        """Embeddings, encoder and head are checked together; nothing else is named."""
        missing = (
            "electra/embeddings/word_embeddings",
            "electra/encoder/layer_2/attention/self/key/bias",
            "discriminator_predictions/dense_1/kernel",
        )
        with pytest.raises(TensorMismatchError) as error:
            recording("electra_tiny").oracle(variables=self.without("electra_tiny", *missing))
        assert {problem.split()[0] for problem in error.value.problems} == set(missing)

    def test_a_hole_in_the_generator_is_not_filled_from_the_discriminator(self) -> None:
        """A variable the generator lacks is missing, although the discriminator has one of that name."""
        missing = ("generator/embeddings/LayerNorm/gamma", "generator/encoder/layer_0/output/dense/bias")
        with pytest.raises(TensorMismatchError) as error:
            recording("electra_tiny_untied_embeddings").oracle(
                "generator", variables=self.without("electra_tiny_untied_embeddings", *missing)
            )
        assert {problem.split()[0] for problem in error.value.problems} == set(missing)

    def test_shapes_are_checked(self) -> None:
        """A config of other sizes is refused with every variable that does not fit it."""
        with pytest.raises(TensorMismatchError) as error:
            recording("electra_tiny").oracle(config={"max_position_embeddings": 32})
        assert error.value.problems == (
            "electra/embeddings/position_embeddings has shape [64, 32]; Google's graph has [32, 32] there",
        )

    @pytest.mark.parametrize(
        ("name", "missing"),
        [
            ("electric_tiny", "cloze_predictions/dense/kernel"),
            ("electric_tiny", "cloze_predictions/output_bias"),
            ("electric_tiny", "generator_rtl/encoder/layer_1/output/dense/kernel"),
            ("finetuned_mnli", "task_specific/mnli/dense/bias"),
            ("finetuned_squad_span", "task_specific/squadv1/dense/kernel"),
            ("finetuned_squad_joint", "task_specific/squad/dense_2/bias"),
        ],
    )
    def test_what_is_beside_the_parts_is_checked_when_used(self, name: str, missing: str) -> None:
        """The cloze model and the tasks name what they lack."""
        recorded = recording(name)
        oracle = recorded.oracle(variables=self.without(name, missing))
        with pytest.raises(TensorMismatchError, match=missing):
            if name == "electric_tiny":
                oracle.cloze_logits(recorded.inputs)
            else:
                oracle.task_outputs(missing.split("/")[1], recorded.inputs)

    @pytest.mark.parametrize(
        ("name", "part"),
        [
            ("electra_tiny_mlm_only", "discriminator"),
            ("electra_tiny_uniform", "generator"),
            ("electric_tiny", "generator"),
        ],
    )
    def test_a_part_that_is_not_there_is_said_so(self, name: str, part: Part) -> None:
        """Masked-LM training leaves no discriminator; a uniform generator and Electric leave no generator."""
        with pytest.raises(PartNotFoundError, match=part):
            recording(name).oracle(part)

    def test_a_task_that_is_not_there_is_said_so(self) -> None:
        """So is a cloze model."""
        recorded = recording("finetuned_mnli")
        with pytest.raises(PartNotFoundError, match="no task sts"):
            recorded.oracle().task_outputs("sts", recorded.inputs)
        with pytest.raises(PartNotFoundError, match="not Electric's"):
            recorded.oracle().cloze_logits(recorded.inputs)

    def test_a_sequence_longer_than_the_position_table_is_refused(self) -> None:
        """The error states both lengths."""
        inputs = Inputs(*(np.ones((1, 65), int) for _ in INPUTS))
        with pytest.raises(ValueError, match="65 tokens; the model takes at most 64"):
            recording("electra_tiny").oracle().hidden_states(inputs)

    @pytest.mark.parametrize("cast", ["float16", "bfloat16"])
    def test_cast_rounds_every_variable_first(self, cast: str) -> None:
        """It is the same as giving rounded variables, and moves the logits."""

        def rounded(tensor: Tensor) -> Tensor:
            return Tensor(tensor.name, tensor.shape, cast, lambda: tensor.load().astype(numpy_dtype(cast)))

        recorded = recording("electra_tiny")
        variables = {name: rounded(tensor) for name, tensor in recorded.variables.items()}
        logits = [
            recorded.oracle(**options).run("pretraining", recorded.inputs)[1]["logits"]
            for options in ({"cast": cast}, {"variables": variables}, {})
        ]
        assert np.array_equal(logits[0], logits[1])
        assert np.abs(logits[0] - logits[2]).max() > 1e-5

    def test_each_variable_is_loaded_once(self) -> None:
        """A second batch reads no file."""
        recorded = recording("electra_tiny")
        counts: dict[str, int] = {}

        def counted(tensor: Tensor) -> Tensor:
            def load() -> Array:
                counts[tensor.name] = counts.get(tensor.name, 0) + 1
                return tensor.load()

            return Tensor(tensor.name, tensor.shape, tensor.dtype, load)

        oracle = recorded.oracle(variables={name: counted(tensor) for name, tensor in recorded.variables.items()})
        assert not counts
        for _ in range(2):
            oracle.run("pretraining", recorded.inputs)
        assert set(counts.values()) == {1}
        assert not [name for name in counts if name.startswith("generator")]


class TestDrawnHeads:
    """The heads that Google's graph lacks."""

    SEED = 7

    @pytest.fixture
    def draws(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Array]:
        """Record what the oracle draws, by canonical name."""
        draws: dict[str, Array] = {}
        draw = google.truncated_normal

        def recorded(seed: int, name: str, shape: tuple[int, ...], deviation: float) -> Array:
            draws[name] = draw(seed, name, shape, deviation)
            return draws[name]

        monkeypatch.setattr(google, "truncated_normal", recorded)
        return draws

    @pytest.mark.parametrize("head", load_mappings().inventory.heads)
    @pytest.mark.parametrize("part", NATIVE)
    def test_the_draws_are_the_converters_bit_for_bit(self, draws: dict[str, Array], part: Part, head: str) -> None:
        """For every head: the same tensors are drawn, and the same values; for a native head none."""
        recorded, inventory = recording("electra_tiny"), load_mappings().inventory
        oracle = recorded.oracle(part, seed=self.SEED, config={"labels": ("a", "b", "c")})
        oracle.run(head, recorded.inputs)
        expected = {
            spec.name: initialize.initial_tensor(
                spec, inventory.initializers[spec.leaf], seed=self.SEED, deviation=oracle.config.initializer_range
            ).load()
            for spec in inventory.head_tensors(head, oracle.config)
            if inventory.initializers[spec.leaf] == "normal" and inventory.origin(head) != NATIVE[part]
        }
        assert draws.keys() == expected.keys()
        for name, values in expected.items():
            assert draws[name].dtype == values.dtype == np.float32
            assert np.array_equal(draws[name], values)

    def test_the_rule_holds_at_any_size_and_seed(self) -> None:
        """Many redraws happen in a large tensor, none in a small one."""
        for seed, shape in [(0, (1,)), (1, (3, 5)), (2**40, (200, 300)), (0, (50000,))]:
            expected = initialize.truncated_normal("a.name", shape, seed=seed, deviation=0.15)
            assert np.array_equal(google.truncated_normal(seed, "a.name", shape, 0.15), expected)

    @staticmethod
    def kernel(name: str, *shape: int) -> Array:
        return initialize.truncated_normal(name, shape, seed=0, deviation=0.15).astype(np.float64)

    @staticmethod
    def gelu(x: Array) -> Array:
        return np.asarray(np.vectorize(lambda value: value * 0.5 * (1 + math.erf(value / math.sqrt(2))))(x))

    @pytest.mark.parametrize("part", NATIVE)
    def test_they_compute_what_they_are_defined_as(self, part: Part) -> None:
        """Each head, written out on the last hidden state."""
        recorded = recording("electra_tiny")
        oracle = recorded.oracle(part, config={"labels": ("a", "b", "c")})
        states = oracle.hidden_states(recorded.inputs)
        last, size = states[-1], oracle.config.hidden_size
        pooled = {
            name: self.gelu(last[:, 0] @ self.kernel(f"{name}.kernel", size, size))
            for name in ("classifier.dense", "choice.summary")
        }
        expected = {
            "base": {"last_hidden_state": last},
            "sequence_classification": {
                "logits": pooled["classifier.dense"] @ self.kernel("classifier.output.kernel", size, 3)
            },
            "multiple_choice": {
                "logits": pooled["choice.summary"] @ self.kernel("choice.output.kernel", size, 1)[:, 0]
            },
            "token_classification": {"logits": last @ self.kernel("tagger.output.kernel", size, 3)},
            "question_answering": {
                f"{end}_logits": last @ self.kernel(f"span.{end}.kernel", size, 1)[:, 0] for end in ("start", "end")
            },
        }
        if part == "generator":
            x = self.gelu(last @ self.kernel("discriminator.dense.kernel", size, size))
            expected["pretraining"] = {"logits": x @ self.kernel("discriminator.score.kernel", size, 1)[:, 0]}
        else:
            x = self.gelu(last @ self.kernel("generator.dense.kernel", size, 32))
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
            words = recorded.variables["electra/embeddings/word_embeddings"].load().astype(np.float64)
            expected["masked_lm"] = expected["causal_lm"] = {"logits": x @ words.T}
        for head, outputs in expected.items():
            found = oracle.outputs(head, states)
            assert found.keys() == outputs.keys()
            for key, values in outputs.items():
                np.testing.assert_allclose(found[key], values, rtol=0, atol=1e-12)

    def test_seed_and_deviation_change_them(self) -> None:
        """Neither is ignored."""
        recorded = recording("electra_tiny")
        options: list[dict[str, Any]] = [{}, {"seed": 1}, {"config": {"initializer_range": 0.02}}]
        logits = [recorded.oracle(**each).run("token_classification", recorded.inputs)[1]["logits"] for each in options]
        assert not np.allclose(logits[0], logits[1])
        np.testing.assert_allclose(logits[0] * 0.02 / 0.15, logits[2], rtol=0, atol=1e-6)

    def test_a_fine_tuned_checkpoint_has_no_native_head(self, draws: dict[str, Array]) -> None:
        """Google's fine-tuning keeps no head of pre-training."""
        recorded = recording("finetuned_mnli")
        recorded.oracle().run("pretraining", recorded.inputs)
        assert set(draws) == {"discriminator.dense.kernel", "discriminator.score.kernel"}

    def test_an_unknown_head_is_refused(self) -> None:
        """The error names it."""
        with pytest.raises(ValueError, match="no head 'pooler'"):
            recording("electra_tiny").oracle().run("pooler", recording("electra_tiny").inputs)


class TestGraph:
    """Properties that no recorded output shows."""

    def test_causal_hidden_states_do_not_see_what_follows(self) -> None:
        """Changing a token leaves those before it as they were; `causal_lm` runs this way."""
        recorded = recording("electra_tiny")
        oracle = recorded.oracle("generator")
        ids = recorded.inputs.input_ids.copy()
        ids[0, 20] += 1
        before, after = (
            oracle.run("causal_lm", recorded.inputs._replace(input_ids=each))[1]["logits"][0]
            for each in (recorded.inputs.input_ids, ids)
        )
        assert np.array_equal(before[:20], after[:20])
        assert (np.abs(before[20:] - after[20:]).max(axis=-1) > 1e-6).all()
        seen = oracle.run("masked_lm", recorded.inputs)[1]["logits"][0]
        assert np.abs(seen[0] - before[0]).max() > 1e-3

    def test_padding_is_not_seen(self) -> None:
        """A padded sequence gives what it gives alone."""
        recorded = recording("electra_tiny")
        oracle = recorded.oracle()
        row, length = 3, int(recorded.inputs.attention_mask[3].sum())
        alone = Inputs(*(array[row : row + 1, :length] for array in recorded.inputs))
        padded = oracle.hidden_states(recorded.inputs)[-1][row, :length]
        np.testing.assert_allclose(oracle.hidden_states(alone)[-1][0], padded, rtol=0, atol=1e-13)

    def test_gelu_is_exact_in_float64(self) -> None:
        """Frameworks round the square root of 2 to float32, and err by 5e-9."""
        x = np.linspace(-8, 8, 4001)
        expected = [0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x]
        np.testing.assert_allclose(google.gelu(x), expected, rtol=0, atol=1e-15)

    @pytest.mark.parametrize(
        ("name", "expected"), [("relu", [0.0, 0.0, 3.0]), ("tanh", np.tanh([-2, 0, 3])), ("linear", [-2.0, 0.0, 3.0])]
    )
    def test_the_other_activations_are_googles(self, name: str, expected: Any) -> None:
        """There are three besides GELU."""
        assert np.array_equal(google.ACTIVATIONS[name](np.array([-2.0, 0.0, 3.0])), expected)

    def test_an_answerability_classifier_of_one_layer(self) -> None:
        """Without `answerable_uses_start_logits` it is one dense module on [CLS]."""
        recorded = recording("finetuned_squad_span")
        kernel, bias = np.linspace(-1, 1, 64, dtype=np.float32)[:, None], np.ones(1, np.float32)
        scope = "task_specific/squadv1/dense_2"
        variables = dict(recorded.variables) | {
            f"{scope}/kernel": Tensor(f"{scope}/kernel", (64, 1), "float32", lambda: kernel),
            f"{scope}/bias": Tensor(f"{scope}/bias", (1,), "float32", lambda: bias),
        }
        oracle = recorded.oracle(variables=variables)
        first = oracle.hidden_states(recorded.inputs)[-1][:, 0]
        found = oracle.task_outputs("squadv1", recorded.inputs)["answerable_logit"]
        np.testing.assert_allclose(found, first @ kernel[:, 0].astype(np.float64) + 1, rtol=0, atol=1e-13)

    def test_it_imports_nothing_it_is_to_check(self) -> None:
        """Neither the mappings and what reads them, nor a framework, nor another model."""
        script = "import sys, electra_convert.models.google; print(*sys.modules)"
        output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
        ours = {module for module in output.split() if module.startswith("electra_convert.")}
        names = ("_version", "config", "errors", "models", "models.google", "tensor")
        assert ours == {f"electra_convert.{name}" for name in names}
        assert not {"torch", "tensorflow", "jax", "flax", "transformers", "yaml"} & set(output.split())
