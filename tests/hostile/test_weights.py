"""Broken files of weights, as `verify` meets them in a directory whose source is not known."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest

from electra_convert.origin import NOTE_FILE
from electra_convert.plan import RECORD_FILE
from tests.hostile.corpus import MOST_MEMORY, MOST_SECONDS, ROOT, Runner

SAFETENSORS, H5, MSGPACK = "model.safetensors", "tf_model.h5", "flax_model.msgpack"
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00001.safetensors"
WORD_TABLE = "electra/tf_electra_for_pre_training/electra/embeddings/word_embeddings/weight:0"


@dataclass(frozen=True, slots=True)
class Broken:
    """A directory with one file that is broken.

    Args:
        file: The file.
        damage: Makes it of the sound one, in its directory.
        words: What is said of it, beside its name.
    """

    file: str
    damage: Callable[[Path], object]
    words: tuple[str, ...]


def content(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Change the bytes of a file."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


def in_place(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Make something else where a file was."""

    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Change what the header of a safetensors file says; the values stay."""

    def changed(data: bytes) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        table = json.loads(data[8 : 8 + length])
        change(table)
        return with_header(json.dumps(table).encode(), data)

    return content(changed)


def header_text(text: bytes) -> Callable[[Path], object]:
    """Put another text in place of the header of a safetensors file."""
    return content(lambda data: with_header(text, data))


def with_header(text: bytes, data: bytes) -> bytes:
    """Return a safetensors file with another header."""
    (length,) = struct.unpack("<Q", data[:8])
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def entry(**changes: Any) -> Callable[[Path], object]:
    """Change what the header says of the first tensor."""
    return header(lambda table: first(table).update(changes))


def first(table: dict[str, Any]) -> dict[str, Any]:
    """Return what a header says of the tensor that lies first."""
    names = [name for name in table if name != "__metadata__"]
    found: dict[str, Any] = table[min(names, key=lambda name: table[name]["data_offsets"])]
    return found


def hole(table: dict[str, Any]) -> None:
    """Leave out a tensor in the middle."""
    del table[sorted(table)[len(table) // 2]]


def same_place(table: dict[str, Any]) -> None:
    """Let a tensor lie where another one does."""
    twins = [name for name in table if name.endswith("query.weight")]
    table[twins[1]]["data_offsets"] = table[twins[0]]["data_offsets"]


def escape_in_name(table: dict[str, Any]) -> None:
    """Give a tensor a name that would change the terminal's colour."""
    table["\x1b[31mred"] = table.pop("electra.embeddings.LayerNorm.bias")


def hdf5(change: Callable[[h5py.File], object]) -> Callable[[Path], object]:
    """Change a file with HDF5's own library."""

    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return damage


def dataset(**options: Any) -> Callable[[Path], object]:
    """Make the word table another kind of dataset."""

    def change(file: h5py.File) -> None:
        values = file[WORD_TABLE][()]
        del file[WORD_TABLE]
        file.create_dataset(WORD_TABLE, **({} if "shape" in options else {"data": values}), **options)

    return hdf5(change)


def another(make: Callable[[], Any]) -> Callable[[Path], object]:
    """Put a link in place of the word table."""

    def change(file: h5py.File) -> None:
        del file[WORD_TABLE]
        file[WORD_TABLE] = make()

    return hdf5(change)


def attribute(value: Any) -> Callable[[Path], object]:
    """Put something else in place of the list of layers."""
    return hdf5(lambda file: file.attrs.__setitem__("layer_names", value))


def compact(file: h5py.File) -> None:
    """Let HDF5 keep the word table in the header of its dataset."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((4, 4))
    del file[WORD_TABLE]
    h5py.h5d.create(file.id, WORD_TABLE.encode(), h5py.h5t.IEEE_F32LE, space, dcpl=plan)


def virtual(file: h5py.File) -> None:
    """Let the word table be a view of another file's."""
    layout = h5py.VirtualLayout(shape=(600, 32), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(600, 32))
    del file[WORD_TABLE]
    file.create_virtual_dataset(WORD_TABLE, layout)


def again_and_again(file: h5py.File) -> None:
    """Let a layer list a tensor more often than a model has tensors, and the file that layer twice."""
    (layer, *_), name = file.attrs["layer_names"], WORD_TABLE.partition("/")[2]
    file[layer].attrs["weight_names"] = np.full(300, name.encode())
    file.attrs["layer_names"] = np.full(20, layer.encode())


def other_copy(file: h5py.File) -> None:
    """Let another layer list the word table with other values."""
    name = WORD_TABLE.partition("/")[2]
    file.create_dataset(f"another/{name}", data=np.ones((600, 32), "f4"))
    file["another"].attrs["weight_names"] = [name]
    file.attrs["layer_names"] = [*file.attrs["layer_names"], "another"]


def config(**changes: Any) -> Callable[[Path], object]:
    """Change what `config.json` says."""
    return content(lambda data: json.dumps(json.loads(data) | changes).encode())


def tree(node: Any) -> Callable[[Path], object]:
    """Put another msgpack object in place of a file's."""
    return lambda path: path.write_bytes(msgpack.packb(node))


def array(shape: Any, dtype: Any = "float32", values: Any = bytes(8)) -> msgpack.ExtType:
    """Return an array as Flax writes it."""
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, values)))


def cut(**changes: Any) -> Mapping[str, Any]:
    """Return a leaf in two chunks, changed."""
    chunks = {"0": array([2]), "1": array([2])}
    return {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 2}, "chunks": chunks} | changes}


def deep(levels: int) -> Any:
    """Return a tree of so many levels."""
    node: Any = array([2])
    for _ in range(levels):
        node = {"a": node}
    return node


def index(weight_map: Any, **others: Any) -> Callable[[Path], object]:
    """Write an index, and nothing that it names."""
    return lambda path: path.write_text(json.dumps({"weight_map": weight_map, **others}))


def sharded(change: Callable[[dict[str, str]], object]) -> Callable[[Path], object]:
    """Write a shard, and an index that is wrong about it."""

    def damage(path: Path) -> None:
        data = path.with_name(SAFETENSORS).read_bytes()
        path.with_name(SAFETENSORS).rename(path.with_name(SHARD))
        (length,) = struct.unpack("<Q", data[:8])
        weight_map = {name: SHARD for name in json.loads(data[8 : 8 + length]) if name != "__metadata__"}
        change(weight_map)
        path.write_text(json.dumps({"weight_map": weight_map}))

    return damage


BROKEN = {
    "safetensors: empty": Broken(SAFETENSORS, content(lambda _: b""), ("it has 0 bytes",)),
    "safetensors: seven bytes": Broken(SAFETENSORS, content(lambda data: data[:7]), ("it has 7 bytes",)),
    "safetensors: enormous header": Broken(SAFETENSORS, content(lambda d: b"\xff" * 8 + d[8:]), ("at most 4000000",)),
    "safetensors: cut in the header": Broken(SAFETENSORS, content(lambda d: d[:100]), ("it ends at byte 100",)),
    "safetensors: cut after the header": Broken(
        SAFETENSORS, content(lambda d: d[: 8 + struct.unpack("<Q", d[:8])[0]]), ("takes bytes",)
    ),
    "safetensors: one byte short": Broken(SAFETENSORS, content(lambda d: d[:-1]), ("takes bytes", "of a file that")),
    "safetensors: one byte too many": Broken(SAFETENSORS, content(lambda d: d + b"\0"), ("the values end at byte",)),
    "safetensors: no JSON": Broken(SAFETENSORS, header_text(b'{"a": '), ("its header, at byte 8", "Expecting value")),
    "safetensors: not UTF-8": Broken(SAFETENSORS, header_text(b'{"\xff": 1}'), ("its header, at byte 8", "utf-8")),
    "safetensors: a list": Broken(SAFETENSORS, header_text(b"[]"), ("at byte 8", "is no JSON object")),
    "safetensors: deep": Broken(SAFETENSORS, header_text(b'{"a":' * 50_000), ("nested too deeply",)),
    "safetensors: a name twice": Broken(
        SAFETENSORS, header_text(b'{"a": {}, "a": {}}'), ("at byte 8", "'a' stands twice")
    ),
    "safetensors: not a number": Broken(SAFETENSORS, header_text(b'{"a": NaN}'), ("NaN is no number",)),
    "safetensors: endless number": Broken(SAFETENSORS, header_text(b'{"a": ' + b"9" * 9999 + b"}"), ("at byte 8",)),
    "safetensors: many names": Broken(
        SAFETENSORS,
        header_text(
            json.dumps(
                {f"a{n}": {"dtype": "F32", "shape": [], "data_offsets": [n, n + 4]} for n in range(20_000)}
            ).encode()
        ),
        ("20000 tensors; expected at most 10000",),
    ),
    "safetensors: unknown dtype": Broken(SAFETENSORS, entry(dtype="F31"), ("is 'F31'",)),
    "safetensors: whole numbers": Broken(SAFETENSORS, entry(dtype="I32"), ("is 'I32'",)),
    "safetensors: negative length": Broken(SAFETENSORS, entry(shape=[-1]), ("has the shape [-1]",)),
    "safetensors: enormous length": Broken(SAFETENSORS, entry(shape=[2**62, 2**62]), ("has the shape",)),
    "safetensors: no values": Broken(SAFETENSORS, entry(shape=[0, 2**62]), ("has the shape [0,",)),
    "safetensors: hundred axes": Broken(SAFETENSORS, entry(shape=[1] * 100), ("has 100 axes",)),
    "safetensors: shape that does not fit": Broken(SAFETENSORS, entry(shape=[3]), ("takes 12 bytes; the header",)),
    "safetensors: negative offset": Broken(SAFETENSORS, entry(data_offsets=[-9_999_999, 8]), ("takes bytes -",)),
    "safetensors: offsets in reverse": Broken(SAFETENSORS, entry(data_offsets=[8, 0]), ("begins at byte", "within")),
    "safetensors: offset beyond the file": Broken(
        SAFETENSORS, entry(data_offsets=[2**60, 2**60 + 8]), ("takes bytes 11529",)
    ),
    "safetensors: a hole": Broken(SAFETENSORS, header(hole), ("expected byte",)),
    "safetensors: two in one place": Broken(SAFETENSORS, header(same_place), ("begins at byte", "within")),
    "safetensors: a name that cannot be printed": Broken(SAFETENSORS, header(escape_in_name), ("is no name",)),
    "safetensors: a field too many": Broken(SAFETENSORS, entry(more=1), ("unknown field `more`",)),
    "safetensors: no shape": Broken(SAFETENSORS, header(lambda t: first(t).pop("shape")), ("field `shape`",)),
    "safetensors: metadata that is no text": Broken(
        SAFETENSORS, header(lambda table: table.update(__metadata__={"a": 1})), ("Expected `str`",)
    ),
    "safetensors: unreadable": Broken(SAFETENSORS, lambda path: path.chmod(0), ("Permission denied",)),
    "safetensors: a directory": Broken(SAFETENSORS, in_place(Path.mkdir), ("no weights in",)),
    "safetensors: a pipe": Broken(SAFETENSORS, in_place(os.mkfifo), ("no weights in",)),
    "safetensors: a loop of links": Broken(
        SAFETENSORS, in_place(lambda path: path.symlink_to(path.name)), ("no weights in",)
    ),
    "safetensors: a link to nothing": Broken(
        SAFETENSORS, in_place(lambda path: path.symlink_to("gone")), ("no weights in",)
    ),
    "h5: unreadable": Broken(H5, lambda path: path.chmod(0), ("Permission denied",)),
    "h5: empty": Broken(H5, content(lambda _: b""), ("file of Keras weights",)),
    "h5: cut after the signature": Broken(H5, content(lambda data: data[:8]), ("file of Keras weights",)),
    "h5: cut in the middle": Broken(H5, content(lambda data: data[: len(data) // 2]), ("truncated file",)),
    "h5: no layers": Broken(H5, hdf5(lambda file: file.attrs.pop("layer_names")), ("no attribute layer_names",)),
    "h5: layers that are numbers": Broken(H5, attribute([1, 2]), ("layer_names", "expected names")),
    "h5: one layer, not a list": Broken(H5, attribute("electra"), ("layer_names", "expected names")),
    "h5: layers without end": Broken(H5, attribute(np.zeros(20_000, "S2")), ("layer_names", "(20000,)")),
    "h5: names without end": Broken(H5, attribute(np.zeros(4, "S9000")), ("layer_names", "expected names")),
    "h5: a layer that is not there": Broken(H5, attribute(["gone"]), ("gone is not in /",)),
    "h5: a path without end": Broken(H5, attribute(["/".join("a" * 99)]), ("has 99 levels",)),
    "h5: external link": Broken(H5, another(lambda: h5py.ExternalLink("/etc/passwd", "/a")), ("is a link to some",)),
    "h5: soft link": Broken(H5, another(lambda: h5py.SoftLink("/electra")), ("is a link to somewhere else",)),
    "h5: a link to itself": Broken(H5, another(lambda: h5py.SoftLink("/" + WORD_TABLE)), ("is a link to some",)),
    "h5: a group for a dataset": Broken(
        H5, hdf5(lambda f: (f.__delitem__(WORD_TABLE), f.create_group(WORD_TABLE))), ("is no dataset",)
    ),
    "h5: a type for a dataset": Broken(H5, another(lambda: np.dtype("f4")), ("neither a group nor a dataset",)),
    "h5: values in another file": Broken(
        H5, dataset(shape=(600, 32), dtype="f4", external=[("/etc/passwd", 0, 76800)]), ("in another file",)
    ),
    "h5: virtual": Broken(H5, hdf5(virtual), ("virtual",)),
    "h5: in chunks": Broken(H5, dataset(chunks=(10, 32)), ("in chunks",)),
    "h5: compressed": Broken(H5, dataset(compression="gzip"), ("filtered",)),
    "h5: in the header": Broken(H5, hdf5(compact), ("is compact",)),
    "h5: big-endian": Broken(H5, dataset(dtype=">f4"), ("is >f4; expected",)),
    "h5: whole numbers": Broken(H5, dataset(dtype="i8"), ("is int64; expected",)),
    "h5: references": Broken(H5, dataset(shape=(2,), dtype=h5py.ref_dtype), ("expected one of float32",)),
    "h5: texts": Broken(H5, dataset(shape=(2,), dtype=h5py.string_dtype()), ("expected one of float32",)),
    "h5: enormous": Broken(H5, dataset(shape=(2**40, 2**20), dtype="f4"), ("and 0 bytes of float32",)),
    "h5: no values": Broken(H5, dataset(shape=(600, 32), dtype="f4"), ("and 0 bytes of float32",)),
    "h5: nothing": Broken(H5, dataset(shape=None, dtype="f4"), ("has the shape None",)),
    "h5: copies that differ": Broken(H5, hdf5(other_copy), ("word_embeddings", "is another one at byte")),
    "h5: one dataset again and again": Broken(H5, hdf5(again_and_again), ("it lists more than 2000 tensors",)),
    "msgpack: empty": Broken(MSGPACK, content(lambda _: b""), ("it ends at byte 0",)),
    "msgpack: cut in the middle": Broken(MSGPACK, content(lambda d: d[: len(d) // 2]), ("it ends at byte",)),
    "msgpack: one byte short": Broken(MSGPACK, content(lambda data: data[:-1]), ("takes bytes",)),
    "msgpack: one byte too many": Broken(MSGPACK, content(lambda d: d + b"\0"), ("the tree ends at byte",)),
    "msgpack: a list": Broken(MSGPACK, tree([1, 2]), ("byte 0: array; expected a map",)),
    "msgpack: a number": Broken(MSGPACK, tree(7), ("is 7; expected an array or a map",)),
    "msgpack: nothing": Broken(MSGPACK, tree({"a": None}), ("byte 3: code 0xc0",)),
    "msgpack: no code": Broken(MSGPACK, content(lambda _: b"\x81\xa1a\xc1"), ("byte 3: code 0xc1",)),
    "msgpack: a float": Broken(MSGPACK, tree({"a": 1.5}), ("byte 3: code 0xcb",)),
    "msgpack: a key twice": Broken(MSGPACK, content(lambda _: b"\x82\xa1a\x80\xa1a\x80"), ("byte 4: the key 'a'",)),
    "msgpack: a number for a key": Broken(MSGPACK, tree({1: {}}), ("byte 1: int 1; expected str",)),
    "msgpack: a key that is a path": Broken(MSGPACK, tree({"a/b": array([2])}), ("the key 'a/b' is a path",)),
    "msgpack: a key that is not UTF-8": Broken(MSGPACK, content(lambda _: b"\x81\xa1\xff\x80"), ("byte 1: a name",)),
    "msgpack: a key without end": Broken(MSGPACK, tree({"a" * 2000: {}}), ("byte 1: a name has 2000 bytes",)),
    "msgpack: a map without end": Broken(MSGPACK, content(lambda _: b"\xdf\xff\xff\xff\xff"), ("it ends at byte 5",)),
    "msgpack: an array without end": Broken(
        MSGPACK,
        content(lambda _: b"\x81\xa1a\xc9\xff\xff\xff\xff\x01\x93\x91\x01\xa7float32\xc6\xff\xff\xff\xf0"),
        ("byte 9: an array",),
    ),
    "msgpack: deep": Broken(MSGPACK, tree(deep(100)), ("32 levels",)),
    "msgpack: deeper than the stack": Broken(MSGPACK, content(lambda _: b"\x81\xa1a" * 100_000), ("32 levels",)),
    "msgpack: many maps": Broken(
        MSGPACK, tree({f"{number}": {} for number in range(50_000)}), ("more than 40000 maps",)
    ),
    "msgpack: complex number": Broken(MSGPACK, tree({"a": msgpack.ExtType(2, b"12")}), ("type 2 is no array",)),
    "msgpack: scalar": Broken(MSGPACK, tree({"a": msgpack.ExtType(3, b"12")}), ("type 3 is no array",)),
    "msgpack: time": Broken(MSGPACK, content(lambda _: b"\x81\xa1a\xd6\xff1234"), ("type 255 is no array",)),
    "msgpack: negative length": Broken(MSGPACK, tree({"a": array([-1])}), ("code 0xff",)),
    "msgpack: enormous length": Broken(MSGPACK, tree({"a": array([2**62])}), ("has 8 bytes of",)),
    "msgpack: hundred axes": Broken(MSGPACK, tree({"a": array([1] * 100)}), ("has 100 axes",)),
    "msgpack: shape that does not fit": Broken(MSGPACK, tree({"a": array([3])}), ("array [3]", "has 8 bytes of")),
    "msgpack: unknown dtype": Broken(MSGPACK, tree({"a": array([2], "float31")}), ("a is 'float31'",)),
    "msgpack: objects": Broken(MSGPACK, tree({"a": array([1], "object")}), ("a is 'object'",)),
    "msgpack: dtype that is no text": Broken(MSGPACK, tree({"a": array([2], 7)}), ("int 7; expected str",)),
    "msgpack: values that are text": Broken(MSGPACK, tree({"a": array([2], values="12345678")}), ("expected bin",)),
    "msgpack: a chunk is lost": Broken(MSGPACK, tree(cut(chunks={"0": array([2])})), ("the chunks of 'a'",)),
    "msgpack: chunks by other numbers": Broken(
        MSGPACK, tree(cut(chunks={"1": array([4], values=bytes(16))})), ("the chunks of 'a'",)
    ),
    "msgpack: chunks of another shape": Broken(MSGPACK, tree(cut(shape={"0": 5})), ("the chunks of 'a'",)),
    "msgpack: chunks without shape": Broken(MSGPACK, tree(cut(shape=3)), ("the chunks of 'a'",)),
    "index: no JSON": Broken(INDEX, lambda path: path.write_text("{"), ("no index of sharded weights",)),
    "index: not UTF-8": Broken(INDEX, lambda path: path.write_bytes(b"\xff\xfe{\0}\0"), ("no index of",)),
    "index: deep": Broken(INDEX, lambda path: path.write_text('{"a":' * 50_000), ("nested too deeply",)),
    "index: a key twice": Broken(
        INDEX, lambda path: path.write_text('{"weight_map": {"a": "b", "a": "c"}}'), ("'a' stands twice",)
    ),
    "index: too large": Broken(INDEX, lambda path: path.write_bytes(b" " * 5_000_000), ("more than 4000000 bytes",)),
    "index: no map": Broken(INDEX, index({}), ("there is no such map",)),
    "index: a shard elsewhere": Broken(INDEX, index({"a": "../model.safetensors"}), ("'../model.safetensors'",)),
    "index: a shard at a root": Broken(INDEX, index({"a": "/etc/passwd.safetensors"}), ("'/etc/passwd",)),
    "index: the folder above": Broken(INDEX, index({"a": ".."}), ("is in '..'",)),
    "index: another kind of file": Broken(INDEX, index({"a": "pytorch_model.bin"}), ("'pytorch_model.bin'",)),
    "index: a name with an end in it": Broken(INDEX, index({"a": "a\0.safetensors"}), (r"a\x00.safetensors",)),
    "index: thousands of shards": Broken(
        INDEX, index({f"a{n}": f"{n}.safetensors" for n in range(5000)}), ("names 5000 files; expected at most 200",)
    ),
    "index: a shard is lost": Broken(INDEX, index({"a": SHARD}), ("names files that are not there", SHARD)),
    "index: a tensor that no shard has": Broken(INDEX, sharded(lambda m: m.update(a=SHARD)), (f"a is not in {SHARD}",)),
    "index: a tensor that is not named": Broken(INDEX, sharded(lambda m: m.popitem()), ("does not say so",)),
    "config: empty": Broken(CONFIG, content(lambda _: b""), ("is not JSON",)),
    "config: not UTF-8": Broken(CONFIG, content(lambda data: b"\xff\xfe" + data), ("is not JSON", "utf-8")),
    "config: deep": Broken(CONFIG, content(lambda _: b"[" * 50_000), ("nested too deeply",)),
    "config: a list": Broken(CONFIG, content(lambda _: b"[]"), ("holds list, not an object",)),
    "config: a key twice": Broken(CONFIG, content(lambda data: b'{"a": 1, "a": 2, ' + data[1:]), ("'a' stands twice",)),
    "config: too large": Broken(CONFIG, content(lambda data: data + b" " * 5_000_000), ("more than 4000000 bytes",)),
    "config: layers without end": Broken(CONFIG, config(num_hidden_layers=10**9), ("num_hidden_layers is 1000000000",)),
    "config: enormous words": Broken(CONFIG, config(vocab_size=2**62), ("vocab_size is 4611686018427387904",)),
    "config: labels without end": Broken(
        CONFIG, config(num_labels=10**12), ("num_labels is 100001; expected at most",)
    ),
    "config: labels that are text": Broken(CONFIG, config(id2label="x" * 10_000), ("has the id2label", "xxx...")),
    "config: not a number": Broken(CONFIG, config(layer_norm_eps=float("nan")), ("NaN is no number",)),
    "config: an endless number": Broken(
        CONFIG, content(lambda d: b'{"a": 1' + b"0" * 9999 + b", " + d[1:]), ("digits",)
    ),
    "record: a pipe": Broken(RECORD_FILE, os.mkfifo, ("a pipe",)),
    "record: a dangling link": Broken(RECORD_FILE, lambda path: path.symlink_to("nowhere"), ("No such file",)),
    "config: unreadable": Broken(CONFIG, lambda path: path.chmod(0), ("Permission denied",)),
}


@pytest.fixture
def folder(converted: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder with a model that somebody else made: no record says what it should be."""
    sound = converted("electra_tiny", "discriminator") / "pretraining"
    (tmp_path / "work/model").mkdir(parents=True)
    for name in ("config.json", SAFETENSORS, H5, MSGPACK):
        shutil.copyfile(sound / name, tmp_path / "work/model" / name)
    return tmp_path / "work"


def left(folder: Path, *kept: str) -> None:
    """Leave only some of the files of weights in the model's directory."""
    for name in {SAFETENSORS, H5, MSGPACK} - set(kept):
        (folder / "model" / name).unlink()


@pytest.mark.parametrize("name", BROKEN)
def test_broken_weights_are_refused(runner: Runner, folder: Path, name: str) -> None:
    """The file and the place are named, no traceback is seen, and it costs little; only the verdict is written."""
    broken = BROKEN[name]
    left(folder, SAFETENSORS if broken.file in (INDEX, CONFIG, RECORD_FILE) else broken.file)
    broken.damage(folder / "model" / broken.file)
    if broken.file == INDEX:
        (folder / "model" / SAFETENSORS).unlink(missing_ok=True)
    outcome = runner.run(["verify", "--json", "model"], folder)
    said = outcome.stderr + faults(outcome.stdout)
    assert outcome.code == 1, said
    assert [word for word in (*broken.words, broken.file) if word not in said] == [], said
    assert "Traceback" not in said
    assert {Path(path).name for path in outcome.written} <= {"verification.json", "model"}
    assert outcome.seconds < MOST_SECONDS
    assert outcome.memory < MOST_MEMORY


def faults(stdout: str) -> str:
    """Return what a report says is wrong."""
    if not stdout:
        return ""
    return "\n".join(f for head in json.loads(stdout)["heads"] for check in head["checks"] for f in check["faults"])


def test_sound_weights_are_not(runner: Runner, folder: Path) -> None:
    """The same files, undamaged, agree with one another: it is the damage that is refused."""
    outcome = runner.run(["verify", "--json", "model"], folder)
    assert json.loads(outcome.stdout)["status"] == "audited"
    assert not faults(outcome.stdout)


def test_weights_that_are_no_numbers_are_told(runner: Runner, folder: Path) -> None:
    """NaN among the values agrees with nothing, even where one format is there alone."""
    left(folder, SAFETENSORS)
    path = folder / "model" / SAFETENSORS
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\xc0\x7f")
    outcome = runner.run(["verify", "--json", "model"], folder)
    assert outcome.code == 1
    assert faults(outcome.stdout) == "layer.2.ffn.down.kernel holds values that are no numbers"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
@pytest.mark.parametrize(
    ("command", "name", "code"),
    [
        (("verify", "model", "--text", "t.txt"), "t.txt", 2),
        (("upload", "model", "org/name", "--allow-unverified", "--dry-run", "--card-template", "t.j2"), "t.j2", 1),
        (("verify", "model"), f"model/{NOTE_FILE}", 1),
        (("verify", "model", "--json"), f"model/{RECORD_FILE}", 1),
    ],
    ids=["text", "template of a card", "note", "record"],
)
def test_what_is_no_file_is_told(
    runner: Runner,
    folder: Path,
    converted: Callable[..., Path],
    command: tuple[str, ...],
    name: str,
    code: int,
    make: Any,
) -> None:
    """A pipe or a device in place of a file is neither read for ever, nor passed over: it is named."""
    record = converted("electra_tiny", "discriminator") / "pretraining" / RECORD_FILE
    shutil.copyfile(record, folder / "model" / RECORD_FILE)
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    outcome = runner.run(command, folder)
    assert (outcome.code, outcome.stdout) == (code, ""), outcome.stderr
    assert outcome.stderr.startswith("error: ")
    assert name in outcome.stderr
    assert "a pipe, a socket or a device" in outcome.stderr or f"{NOTE_FILE} is no file" in outcome.stderr
    assert outcome.seconds < 2 * MOST_SECONDS  # the Hub's client takes one to load


def test_no_pickle_is_ever_loaded() -> None:
    """Nothing in the package unpickles, nor has a library do so, but PyTorch, which then runs nothing.

    What is exported for Keras, Keras loads again, in its safe mode.
    """
    ways = re.compile(r"\b(pickle|marshal|shelve|dill|joblib|allow_pickle|torch\.load|load_model|unsafe_load)\b[^\n]*")
    package = ROOT / "electra_convert"
    found = {
        str(path.relative_to(package)): [*ways.finditer(path.read_text("utf-8"))] for path in package.rglob("*.py")
    }
    assert len(found) > 50
    (load,) = found.pop("formats/pytorch_bin.py")
    assert load[0] == 'torch.load(file.path, map_location="cpu", weights_only=True, mmap=is_zip)'
    assert {path: {way[1] for way in there} for path, there in found.items() if there} == {
        f"export/{name}.py": {"load_model"} for name in ("alone", "keras", "targets")
    }
    assert not any("safe_mode" in (package / path).read_text("utf-8") for path in found)
