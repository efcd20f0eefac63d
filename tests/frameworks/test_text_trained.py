"""Models that are trained here, on English that comes with Python, show which head count they were trained with."""

from __future__ import annotations

import json
import pydoc_data.topics
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

pytest.importorskip("scipy")

from electra_convert import ConvertOptions, convert_checkpoint, load_mappings, verify_output
from electra_convert.cli import main
from electra_convert.config import ElectraConfig
from electra_convert.formats.google_tf1 import open_checkpoint, write_checkpoint
from electra_convert.inventory import Part
from electra_convert.parity.report import Ranking
from electra_convert.parity.text import SURE, rank_assumptions
from electra_convert.tensor import Tensor
from electra_convert.tokenizer import SPECIAL_TOKENS, ElectraTokenizer, Vocabulary

torch = pytest.importorskip("torch")
models = pytest.importorskip("electra_convert.models.pytorch")

Head = Literal["masked_lm", "pretraining"]

TEXT = "\n\n".join(pydoc_data.topics.topics.values())
"""Half a million characters of Python's reference."""
HEADS = 4
CONFIG = ElectraConfig(
    vocab_size=1000,
    embedding_size=64,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=HEADS,
    intermediate_size=128,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    max_position_embeddings=32,
    initializer_range=0.1,
)
"""Short sequences, so that many steps take little time; wide first values, so that attention starts to matter early."""
STEPS: Mapping[Head, int] = {"masked_lm": 2200, "pretraining": 1500}
"""Half a minute to a minute each on a core, after which no other head count is nearer than 9 standard errors."""
BATCH = 32
RATE = 4e-3
NOT_MASKED = -100
COMFORTABLE = 2 * SURE
"""Standard errors that are still enough with another version of Python's text, or of PyTorch."""
PARTS: Mapping[Head, Part] = {"masked_lm": "generator", "pretraining": "discriminator"}


@cache
def vocabulary() -> Vocabulary:
    """Train a vocabulary on the text."""
    from tokenizers import Tokenizer, trainers
    from tokenizers import models as algorithms
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    tokenizer = Tokenizer(algorithms.WordPiece(unk_token=ElectraTokenizer.unk_token))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=CONFIG.vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    ids: dict[str, int] = tokenizer.get_vocab()
    return Vocabulary(tuple(sorted(ids, key=ids.__getitem__)))


def train(head: Head) -> Any:
    """Train a model of two layers, and return it."""
    tokenizer = ElectraTokenizer.from_vocabulary(vocabulary(), lowercase=True)
    ids = np.array(tokenizer.encode(TEXT, add_special_tokens=False, split_special_tokens=True))
    random = np.random.RandomState(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # matrices this small gain little from a second, and lose much where it is busy
    model = models.MODELS[head](CONFIG).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98))
    steps = STEPS[head]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * max(0.02, 1.0 - step / steps)
    )
    make = {"masked_lm": masked, "pretraining": replaced}[head]
    for _ in range(steps):
        starts = random.randint(0, len(ids) - CONFIG.max_position_embeddings, BATCH)
        rows = ids[starts[:, None] + np.arange(CONFIG.max_position_embeddings)]
        rows[:, 0], rows[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
        chosen = random.rand(*rows.shape) < 0.2
        chosen[:, [0, -1]] = False
        inputs, labels = make(rows, chosen, tokenizer, random)
        loss = model(input_ids=torch.tensor(inputs), labels=torch.tensor(labels)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


def masked(rows: Any, chosen: Any, tokenizer: ElectraTokenizer, _: Any) -> tuple[Any, Any]:
    """Mask what is chosen, and ask for it."""
    return np.where(chosen, tokenizer.mask_token_id, rows), np.where(chosen, rows, NOT_MASKED)


def replaced(rows: Any, chosen: Any, _: ElectraTokenizer, random: Any) -> tuple[Any, Any]:
    """Replace what is chosen by pieces of the same batch, and ask where that was."""
    inputs = np.where(chosen, random.choice(rows[:, 1:-1].ravel(), rows.shape), rows)
    return inputs, (inputs != rows).astype(np.int64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Head], Path]:
    """Train a model and write it as Google's code would have, once for each head; return the checkpoint's prefix."""

    @cache
    def write(head: Head) -> Path:
        model = train(head)
        mappings = load_mappings()
        specs = [*mappings.inventory.backbone_tensors(CONFIG), *mappings.inventory.head_tensors(head, CONFIG)]
        ours, google = mappings.formats["pytorch"], mappings.formats["google_tf1"]
        state = {name: tensor.detach().numpy() for name, tensor in model.named_parameters()}
        canonical = {
            tensor.name: tensor
            for binding in ours.bind(specs, ours.resolve({"head": head, "layout": "single"}))
            for tensor in binding.unpack(as_tensor(binding.name, state[binding.name]))
        }
        # Without a scope of its own, a generator is the one transformer of a masked-LM-only run.
        bindings = google.bind(specs, google.resolve({"part": PARTS[head]}))
        prefix = tmp_path_factory.mktemp(head) / "model.ckpt-1"
        write_checkpoint(prefix, [binding.pack(canonical) for binding in bindings])
        prefix.with_name("vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary().tokens))
        return prefix

    return write


@pytest.fixture(scope="module")
def checkpoint(trained: Callable[[Head], Path]) -> Callable[[Head], Mapping[str, Tensor]]:
    """Return the variables of a trained model."""
    return lambda head: open_checkpoint(trained(head)).tensors


def as_tensor(name: str, values: Any) -> Tensor:
    """Describe an array."""
    return Tensor(name, values.shape, str(values.dtype), lambda: values)


def ranked(variables: Mapping[str, Tensor], head: Head, assumed: int, text: str = TEXT) -> Ranking:
    """Rank head counts on the text."""
    (ranking,) = rank_assumptions(
        variables,
        replace(CONFIG, num_attention_heads=assumed),
        part=PARTS[head],
        native_head=head,
        text=text,
        vocabulary=vocabulary(),
        lowercase=True,
        strip_accents=None,
        fields=("num_attention_heads",),
    )
    return ranking


@pytest.mark.parametrize("head", STEPS)
def test_the_head_count_a_model_was_trained_with_is_confirmed(
    head: Head, checkpoint: Callable[[Head], Mapping[str, Tensor]]
) -> None:
    """The right head count is the best by far, and is said to be confirmed."""
    ranking = ranked(checkpoint(head), head, HEADS)
    assert ranking.finding == "confirmed", ranking.says
    assert ranking.candidates[0].value == HEADS
    assert min(each.margin for each in ranking.candidates[1:]) > COMFORTABLE


@pytest.mark.parametrize("head", STEPS)
@pytest.mark.parametrize("wrong", [1, 2, 8])
def test_a_wrong_head_count_is_refuted(
    head: Head, wrong: int, checkpoint: Callable[[Head], Mapping[str, Tensor]]
) -> None:
    """A wrong head count is refuted, and the ranking begins with the right one."""
    ranking = ranked(checkpoint(head), head, wrong)
    assert ranking.finding == "refuted", ranking.says
    assert ranking.candidates[0].value == HEADS
    assert next(each.margin for each in ranking.candidates if each.value == wrong) > COMFORTABLE


@pytest.mark.parametrize("head", STEPS)
def test_the_casing_a_model_was_trained_with_is_never_refuted(
    head: Head, checkpoint: Callable[[Head], Mapping[str, Tensor]]
) -> None:
    """The text has few capitals and shows the casing less clearly, but not wrongly."""
    variables, about = checkpoint(head), {"text": TEXT, "vocabulary": vocabulary(), "strip_accents": None}
    right, wrong = (
        rank_assumptions(
            variables,
            CONFIG,
            part=PARTS[head],
            native_head=head,
            lowercase=lowercase,
            fields=("lowercase",),
            **about,  # type: ignore[arg-type]
        )[0]
        for lowercase in (True, False)
    )
    assert right.finding in ("confirmed", "undecided"), right.says
    assert wrong.finding in ("refuted", "undecided"), wrong.says


@pytest.mark.parametrize("head", STEPS)
def test_a_verification_with_text_fails_a_wrong_head_count_and_confirms_the_right_one(
    head: Head, trained: Callable[[Head], Path], tmp_path: Path
) -> None:
    """Given as --config when it was converted, a wrong count passes every comparison; text refutes it, exit 1."""
    text = tmp_path / "text"
    text.write_text(TEXT)
    for heads in (2, HEADS):
        config = tmp_path / f"{heads}.json"
        sizes = ("hidden_size", "num_hidden_layers", "intermediate_size")
        config.write_text(json.dumps({"num_attention_heads": heads} | {size: getattr(CONFIG, size) for size in sizes}))
        out = tmp_path / f"out-{heads}"
        options = ConvertOptions(part=PARTS[head], heads=(head,), targets=("pytorch",), config=config)
        convert_checkpoint(trained(head), out, options)
        assert verify_output(out).status == "proven"
        result = CliRunner().invoke(main, ["verify", str(out), "--text", str(text)])
        if heads == HEADS:
            assert result.exit_code == 0, result.output
            assert "num_attention_heads confirmed" in result.stdout
        else:
            assert result.exit_code == 1
            assert "num_attention_heads refuted" in result.stdout
            assert result.stdout.splitlines()[-1].startswith("✗ failed")
