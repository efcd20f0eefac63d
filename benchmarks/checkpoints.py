"""Checkpoints of the released sizes, in Google's format, with values nobody trained."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from electra_convert import load_mappings
from electra_convert.config import ElectraConfig
from electra_convert.formats.google_tf1 import write_checkpoint
from electra_convert.inventory import Part
from electra_convert.tensor import Tensor

if TYPE_CHECKING:
    from electra_convert.tensor import Array


def _config(hidden_size: int, layers: int, embedding_size: int) -> ElectraConfig:
    return ElectraConfig(
        vocab_size=30522,
        embedding_size=embedding_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 64,
        intermediate_size=4 * hidden_size,
    )


SIZES: dict[str, dict[Part, ElectraConfig]] = {
    "small": {"discriminator": _config(256, 12, 128), "generator": _config(256, 12, 128)},
    "base": {"discriminator": _config(768, 12, 768), "generator": _config(256, 12, 768)},
    "large": {"discriminator": _config(1024, 24, 1024), "generator": _config(256, 24, 1024)},
}
"""The configs of the released models, by size."""

NATIVE_HEADS: dict[Part, str] = {"discriminator": "pretraining", "generator": "masked_lm"}
SLOTS = ("adam_m", "adam_v")
BLOCK = 1 << 20
"""Numbers that are drawn; every tensor repeats them."""
PREFIX = "model.ckpt-1"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_checkpoint(directory: Path, size: str, *, slots: bool = False) -> Path:
    """Write a checkpoint.

    Args:
        directory: Where to; it must not exist.
        size: A key of `SIZES`.
        slots: Add Adam's moments and the training step, as in a checkpoint of a run that goes on.

    Returns:
        The directory.
    """
    directory.mkdir(parents=True)
    write_checkpoint(directory / PREFIX, sorted(_tensors(size, slots=slots), key=lambda tensor: tensor.name))
    (directory / "checkpoint").write_text(f'model_checkpoint_path: "{PREFIX}"\n')
    (directory / "vocab.txt").write_text("".join(f"{token}\n" for token in _vocabulary(size)))
    return directory


def _vocabulary(size: str) -> list[str]:
    count = SIZES[size]["discriminator"].vocab_size
    return [*SPECIAL_TOKENS, *(f"word{number}" for number in range(count - len(SPECIAL_TOKENS)))]


def _tensors(size: str, *, slots: bool) -> Iterator[Tensor]:
    mappings = load_mappings()
    google = mappings.formats["google_tf1"]
    scopes = ["electra/embeddings/", "electra/", "generator/encoder/"]
    shapes: dict[str, tuple[int, ...]] = {}
    for part, config in SIZES[size].items():
        inventory = mappings.inventory
        specs = inventory.backbone_tensors(config) + inventory.head_tensors(NATIVE_HEADS[part], config)
        bindings = google.bind(specs, google.resolve({"part": part}, scopes))
        shapes |= {binding.name: binding.shape for binding in bindings}
    names = dict(shapes)
    if slots:
        names |= {f"{name}/{slot}": shape for name, shape in shapes.items() for slot in SLOTS}
    block = np.random.default_rng(0).normal(0, 0.02, BLOCK).astype(np.float32)
    for name, shape in names.items():
        yield Tensor(name, shape, "float32", partial(_values, block, shape))


def _values(block: Array, shape: tuple[int, ...]) -> Array:
    return np.resize(block, shape)
