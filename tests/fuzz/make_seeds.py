"""Make the seeds of all targets from the fixtures and the mappings: `python -m tests.fuzz.make_seeds`.

They are genuine files where those are small, and small ones of each kind where they are not. Inputs that were findings
lie beside them and are left alone.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from electra_convert.formats import Contents, TargetFormat, module_of
from electra_convert.formats.google_tf1 import (
    HEADER_KEY,
    index_path,
    open_checkpoint,
    shard_path,
    write_checkpoint,
)
from electra_convert.formats.sstable import read_table
from electra_convert.mapping import default_directory
from electra_convert.tensor import Tensor, numpy_dtype
from tests.fuzz.readers import PREFIX, join_bundle
from tests.fuzz.targets import SEEDS

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
BUNDLES = FIXTURES / "bundles"
FEW = ("electra/embeddings/LayerNorm/beta", "electra/embeddings/LayerNorm/gamma", "global_step")
"""Some small variables of every checkpoint."""

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##s", "\ud55c", "##\u56fd"]
INVENTORY = """\
version: 1
backbone:
  embeddings.word: {kind: table, shape: [vocab_size, embedding_size]}
  embeddings.project: {kind: dense, shape: [embedding_size, hidden_size], when: projects_embeddings}
  "layer.{layer}.norm": {kind: norm, shape: [hidden_size]}
heads:
  base: {architecture: ElectraModel}
  pretraining:
    architecture: ElectraForPreTraining
    modules:
      pretraining.output: {kind: dense, shape: [hidden_size, 1]}
    tied: {}
initializers: {table: normal, kernel: normal, bias: zeros, scale: ones}
"""
MAPPING = """\
version: 1
format: tiny
leaves:
  table.table: "{module}"
  dense.kernel: "{module}/kernel"
  dense.bias: "{module}/bias"
  norm.scale: "{module}/gamma"
  norm.bias: "{module}/beta"
placeholders:
  scope:
    - {is: "generator", when: {part: generator}, if_present: true}
    - {is: "electra"}
modules:
  embeddings.word: "{scope}/word_embeddings"
  embeddings.project: "{scope}/embeddings_project"
  "layer.{layer}.norm": "{scope}/encoder/layer_{layer}/LayerNorm"
absent: [pretraining.output]
ignore: {"*/adam_m": "slots of Adam"}
unsupported: {"task_specific/*": "a task"}
topologies:
  both:
    has: ["electra/", "generator/"]
    lacks: ["task_specific/"]
    parts: {discriminator: pretraining, generator: null}
    says: a discriminator and a generator
"""
PLAN = """\
version: 1
defaults:
  part: both
  upload: {repo_id: "my-org/{name}-{part}", revision: "step-{step}", license: apache-2.0}
jobs:
  - source: runs/ko-small/model.ckpt-*
    config: runs/ko-small/hparams.json
    heads: [pretraining, base]
    targets: [pytorch, flax]
    tokenizer: {vocab: vocab.txt, lowercase: false}
    upload: {language: [ko], private: true}
  - {source: runs/ja-base, name: ja, labels: [O, B, I], seed: 3, layout: shared, dtype: float16, verify: false}
"""
YAML = """\
# all that YAML has, or nearly
text: plain
"quoted \\u00e9": 'single ''quotes'''
numbers: [1, -2.5, 1e3, 0x1f, 0o17, .inf, .nan, 12:30:45, 2024-01-02, 2024-01-02T03:04:05Z]
others: [yes, ~, null, true, !!str 1, !!binary aGk=, !!set {a, b}]
block: |
  one
   two
folded: >-
  three
  four
? complex
: {flow: [a, b], c: {d: e}}
"""


def main() -> None:
    """Write all seeds anew."""
    for target, contents in seeds().items():
        folder = SEEDS / target
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("seed-*"):
            path.unlink()
        for name, content in contents.items():
            (folder / f"seed-{name}").write_bytes(content)


def seeds() -> dict[str, dict[str, bytes]]:
    """Return the seeds of each target, by name."""
    indexes = {path.parent.name: path.read_bytes() for path in sorted(BUNDLES.glob("*/*.index"))}
    genuine = index_path(FIXTURES / "electra_tiny_uniform" / "model.ckpt-30").read_bytes()
    return {
        "wire": {"header": read_table(indexes["tiled"])[HEADER_KEY], **dict(entries(indexes))},
        "table": {**indexes, "genuine": genuine},
        "bundle": {**dict(bundles()), "genuine": genuine_bundle()},
        "inspection": {
            name: index_path(FIXTURES / name / "model.ckpt-30").read_bytes()
            for name in ("electra_tiny_uniform", "electra_tiny_mlm_only")
        },
        "state": dict(states()),
        "zip": {"stored": zipped(zipfile.ZIP_STORED), "deflated": zipped(zipfile.ZIP_DEFLATED)},
        "tar": {
            "plain": tarred(),
            "gnu": tarred(tarfile.GNU_FORMAT),
            "gzip": gzip.compress(tarred(), mtime=0),
            "links": linked(),
        },
        "safetensors": {name: weights("pytorch", name) for name in module_of("pytorch").DTYPES},
        "msgpack": {name: weights("flax", name) for name in module_of("flax").DTYPES} | {"chunks": chunked()},
        "h5": {name: weights("tensorflow", name) for name in module_of("tensorflow").DTYPES},
        "weights_index": {
            "good": b'{"metadata": {"total_size": 4}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}'
        },
        "yaml": {
            "all": YAML.encode(),
            **{path.stem: path.read_bytes() for path in default_directory().glob("f*.yaml")},
        },
        "plan": {"plan": PLAN.encode()},
        "mappings": {"tiny": f"{INVENTORY}\n...\n{MAPPING}".encode()},
        "config": dict(configs()),
        "vocabulary": {
            "small": "\n".join(VOCABULARY).encode() + b"\n",
            "odd": "\r\n".join(["\ufeff[PAD]", *VOCABULARY[1:], "the", "", "a\rb", "\u3000"]).encode(),
        },
        "labels": {"three": b"O,B-PER,I-PER", "spaced": b" yes , no "},
    }


def entries(indexes: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield an entry of each kind: of a tensor, of a partitioned one."""
    for name, data in indexes.items():
        yield name, max(read_table(data).values(), key=len)


def bundles() -> Iterator[tuple[str, bytes]]:
    """Yield the checkpoints of few variables: one that is partitioned, and one of every dtype, among them."""
    for path in sorted(BUNDLES.glob("*/*.index")):
        yield path.parent.name, join_bundle(path.read_bytes(), shard_path(path.with_suffix(""), 0, 1).read_bytes())


def genuine_bundle() -> bytes:
    """Return a few small variables of a genuine checkpoint, as one of their own."""
    tensors = open_checkpoint(FIXTURES / "electra_tiny" / "model.ckpt-30").tensors
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / PREFIX
        write_checkpoint(prefix, [tensors[name] for name in FEW])
        return join_bundle(index_path(prefix).read_bytes(), shard_path(prefix, 0, 1).read_bytes())


def states() -> Iterator[tuple[str, bytes]]:
    """Yield `checkpoint` files: a genuine one, one of another machine, one with escapes."""
    yield "genuine", (FIXTURES / "electra_tiny" / "checkpoint").read_bytes()
    yield "elsewhere", f'model_checkpoint_path: "gs://bucket/run/{PREFIX}"\nall_model_checkpoint_paths: "a"\n'.encode()
    yield "escaped", b'model_checkpoint_path: "C:\\\\run\\\\model.ckpt-\\303\\251"\n'


MEMBERS = {
    "electra/checkpoint": b'model_checkpoint_path: "model.ckpt-30"\n',
    "electra/model.ckpt-30.index": bytes(64),
    "electra/model.ckpt-30.data-00000-of-00001": bytes(600),
    "electra/vocab.txt": "\n".join(VOCABULARY).encode(),
    "electra/model.ckpt-30.meta": b"a graph, which is not wanted",
}


def zipped(compression: int) -> bytes:
    """Return an archive as `zip` makes it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as pack:
        for name, content in MEMBERS.items():
            pack.writestr(zipfile.ZipInfo(name), content, compression)
    return packed.getvalue()


def tarred(layout: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an archive as `tar` makes it; one name is too long for a header."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=layout) as tar:
        for name, content in {**MEMBERS, f"electra/{'long' * 30}.json": b"{}"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return trimmed(packed)


def linked() -> bytes:
    """Return an archive with links and a device, which must be refused."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, kind in (("a.index", tarfile.SYMTYPE), ("b.index", tarfile.LNKTYPE), ("c.index", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../../etc/passwd"
            tar.addfile(info)
    return trimmed(packed)


def trimmed(packed: io.BytesIO) -> bytes:
    """Return an archive without the zeros that fill its last record."""
    content = packed.getvalue().rstrip(b"\0")
    return content + bytes(-len(content) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def weights(target: TargetFormat, dtype: str) -> bytes:
    """Return a small file of weights."""
    arrays = {"electra/a/kernel": np.ones((2, 3)), "electra/a/bias": np.ones(3), "head/scale": np.ones(1)}
    tensors = [
        Tensor(name, array.shape, dtype, lambda array=array: array.astype(numpy_dtype(dtype)))  # type: ignore[misc]
        for name, array in arrays.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        module_of(target).write(path, Contents(tensors, dtype, "ElectraModel"), lambda _: None)
        return path.read_bytes()


def chunked() -> bytes:
    """Return a Flax file with a leaf that is cut into chunks, as those above a gigabyte are."""
    import msgpack

    def leaf(length: int) -> msgpack.ExtType:
        return msgpack.ExtType(1, msgpack.packb([[length], "float32", bytes(4 * length)]))

    cut = {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3}, "chunks": {"0": leaf(4), "1": leaf(2)}}
    packed: bytes = msgpack.packb({"electra": {"a": {"kernel": cut}}})
    return packed


def configs() -> Iterator[tuple[str, bytes]]:
    """Yield hparams of a genuine run, hparams with all that they can say, and the config of one model."""
    recorded = json.loads((FIXTURES / "electra_tiny" / "expected.json").read_text())
    yield "genuine", json.dumps(recorded["hparams"]).encode()
    said = {
        "model_size": "base",
        "vocab_size": 32000,
        "embedding_size": None,
        "debug": False,
        "do_lower_case": True,
        "electra_objective": True,
        "electric_objective": False,
        "uniform_generator": False,
        "untied_generator": True,
        "untied_generator_embeddings": True,
        "generator_hidden_size": 0.3333,
        "generator_layers": 1.0,
        "model_hparam_overrides": {"hidden_size": 512, "num_attention_heads": 8, "hidden_act": "relu"},
    }
    yield "hparams", json.dumps(said).encode()
    model = {
        "vocab_size": 30522,
        "embedding_size": 128,
        "hidden_size": 256,
        "num_hidden_layers": 12,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "hidden_act": "GELU",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
    }
    yield "model", json.dumps(model).encode()


if __name__ == "__main__":
    main()
