"""The files that are written are those the formats' own libraries would write, or read."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import h5py
import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import load_file, save

from electra_convert import ConvertOptions, convert_checkpoint
from electra_convert.errors import OutputError
from electra_convert.formats import TARGETS, Contents, extents, flax, module_of, pytorch, stored, tensorflow
from electra_convert.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from electra_convert.tensor import Array

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
MODEL = "ElectraForMaskedLM"
SCOPE = "tf_electra_for_masked_lm"


def described(name: str, array: Array) -> Tensor:
    """Return an array as a tensor."""
    return Tensor(name, array.shape, array.dtype.name, lambda: array)


def contents(arrays: Mapping[str, Array], dtype: str = "float32", **options: Any) -> Contents:
    """Return arrays as what a file is to hold."""
    return Contents([described(name, array) for name, array in arrays.items()], dtype, MODEL, **options)


def sample(*shapes: tuple[int, ...]) -> list[Array]:
    """Return arrays of these shapes, with different values."""
    random = np.random.default_rng(0)
    return [random.standard_normal(shape, np.float32) for shape in shapes]


class Count:
    """Adds up the bytes that a writer tells of."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, count: int) -> None:
        self.total += count


@pytest.fixture
def written() -> Iterator[extents.Written]:
    """Yield an account of what is written, which lets go of the files in the end."""
    with closing(extents.Written()) as account:
        yield account


@contextmanager
def small_pieces(block: int, tile: int) -> Iterator[None]:
    """Cut arrays into small pieces, so that small arrays have many."""
    sizes: dict[str, Any] = dict.fromkeys(("READ_SIZE", "WRITE_SIZE", "STRIP_SIZE"), block)
    with patch.multiple(extents, STRIP_WIDTH=1, TILE=tile, **sizes), patch.object(stored, "READ_SIZE", block):
        yield


shapes = array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9)
numbers = st.floats(-1000, 1000, width=16)
source_dtypes = st.sampled_from([np.float16, np.float32, np.float64])


@st.composite
def views(draw: st.DrawFn) -> Array:
    """Draw an array of any memory order: C, Fortran, transposed, strided or reversed."""
    array: Array = draw(arrays(draw(source_dtypes), draw(shapes), elements=numbers))
    kind = draw(st.sampled_from(["c", "fortran", "transposed", "strided", "reversed", "swapped"]))
    if kind == "fortran":
        return np.asfortranarray(array)
    if kind == "transposed":
        return array.T
    if kind == "strided":
        return array[..., ::2]
    if kind == "reversed":
        return array[::-1]
    return np.swapaxes(array, 0, -1) if kind == "swapped" else array


class TestExtents:
    @settings(deadline=None)  # disks take the time they take
    @given(array=views(), dtype=st.sampled_from(sorted(DTYPES)), block=st.integers(1, 40), tile=st.integers(1, 5))
    def test_blocks_put_together_are_the_array(self, array: Array, dtype: str, block: int, tile: int) -> None:
        """Whatever its memory order and dtype, the pieces of an array are its values in C order."""
        target = np.dtype(DTYPES[dtype])
        with small_pieces(block, tile):
            content = b""
            for piece in extents.contiguous_blocks(array, target):
                assert piece.flags.c_contiguous
                assert piece.dtype == target
                content += piece.tobytes()
        assert content == array.astype(target).tobytes()

    @settings(deadline=None)  # disks take the time they take
    @given(views=st.lists(views(), max_size=6), dtype=st.sampled_from(sorted(DTYPES)), gap=st.integers(0, 9))
    def test_tensors_lie_at_their_places(self, views: list[Array], dtype: str, gap: int) -> None:
        """Each tensor's bytes are where its extent says, nothing between them is touched, and all are counted."""
        target = np.dtype(DTYPES[dtype])
        expected, places, count = b"", [], Count()
        for number, array in enumerate(views):
            expected += b"\xaa" * gap
            places.append(extents.Extent(len(expected), described(f"tensor {number}", array)))
            expected += array.astype(target).tobytes()
        with tempfile.TemporaryFile() as file:
            file.write(b"\xaa" * len(expected))
            file.flush()
            with small_pieces(7, 3):
                extents.write_extents(file.fileno(), places, dtype, count)
            file.seek(0)
            assert file.read() == expected
        assert count.total == sum(array.size for array in views) * target.itemsize

    def test_array_that_fits_is_not_copied(self) -> None:
        """What needs no change is written straight from where it lies."""
        (array,) = sample((3, 4))
        (piece,) = extents.contiguous_blocks(array, array.dtype)
        assert np.shares_memory(piece, array)

    @pytest.mark.parametrize("target", ["pytorch", "tensorflow", "flax"])
    def test_tensors_that_were_written_are_copied(self, tmp_path: Path, written: extents.Written, target: Any) -> None:
        """The next file gets the bytes of the first, whose name is another by now; values are loaded once."""
        loaded = []

        def made(name: str, number: int, origin: str | None) -> Tensor:
            def load() -> Array:
                loaded.append(name)
                return np.full((4, 5), number, np.float32)

            return Tensor(f"electra/{name}", (4, 5), "float32", load, origin)

        write = module_of(target).write
        first = [made("a", 1, "A"), made("b", 2, "B"), made("c", 3, None)]
        write(tmp_path / "first", Contents(first, "float32", MODEL), Count(), written)
        (tmp_path / "first").rename(tmp_path / "elsewhere")
        again, count = [made("head", 4, None), made("x", 2, "B"), made("y", 1, "A")], Count()
        write(tmp_path / "copied", Contents(again, "float32", MODEL), count, written)
        assert loaded == ["a", "b", "c", "head"]
        assert count.total == 3 * 80
        write(tmp_path / "made", Contents(again, "float32", MODEL), Count())
        assert (tmp_path / "copied").read_bytes() == (tmp_path / "made").read_bytes()

    def test_tensors_are_made_where_the_kernel_cannot_copy(
        self, tmp_path: Path, written: extents.Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also if it could begin."""

        begun: list[int] = []

        def half(_source: int, target: int, _count: int, start: int, place: int) -> int:
            begun.append(start)
            if len(begun) > 1:
                raise OSError(errno.EOPNOTSUPP, "no")
            return os.pwrite(target, b"wrong", place)

        monkeypatch.setattr(os, "copy_file_range", half)
        tensors = [Tensor("a", (4,), "float32", lambda: np.ones(4, np.float32), "A")]
        for name in ("first", "second"):
            module_of("pytorch").write(tmp_path / name, Contents(tensors, "float32", MODEL), Count(), written)
        assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()

    def test_a_full_disk_is_not_taken_for_a_kernel_that_cannot_copy(
        self, tmp_path: Path, written: extents.Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is told as what it is."""

        def full(*_: int) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "copy_file_range", full)
        tensors = [Tensor("a", (4,), "float32", lambda: np.ones(4, np.float32), "A")]
        module_of("pytorch").write(tmp_path / "first", Contents(tensors, "float32", MODEL), Count(), written)
        with pytest.raises(OSError, match="No space left"):
            module_of("pytorch").write(tmp_path / "second", Contents(tensors, "float32", MODEL), Count(), written)

    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize(
        ("value", "dtype", "hint"),
        [
            (7e4, "float16", "--dtype float32 or bfloat16"),
            (3.4e38, "bfloat16", "--dtype float32"),
            (1e39, "float32", ""),
        ],
    )
    def test_overflow_names_the_tensor(self, tmp_path: Path, order: Any, value: float, dtype: str, hint: str) -> None:
        """A value beyond the dtype's range is an error, which says what dtype would hold it."""
        array = np.full((300, 300), value, np.float64 if value > 3.5e38 else np.float32, order=order)
        with (
            (tmp_path / "file").open("wb") as file,
            pytest.raises(OutputError, match=f"kernel holds values that {dtype} cannot hold") as error,
        ):
            extents.write_extents(file.fileno(), [extents.Extent(0, described("kernel", array))], dtype, Count())
        assert error.value.hint.endswith(hint)
        assert bool(error.value.hint) == bool(hint)

    def test_short_writes_are_continued(self, tmp_path: Path) -> None:
        """A system that takes a few bytes at a time gets them all."""
        written = os.pwrite
        with (tmp_path / "file").open("w+b") as file:
            with patch.object(os, "pwrite", lambda fd, data, offset: written(fd, data[:3], offset)):
                extents.write_at(file.fileno(), b"eleven bytes", 2)
            assert file.read() == b"\0\0eleven bytes"


class TestPyTorch:
    @settings(deadline=None)  # disks take the time they take
    @given(
        shapes=st.dictionaries(
            st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda name: name != "__metadata__"), shapes
        ),
        dtype=st.sampled_from(sorted(DTYPES)),
    )
    def test_bytes_are_those_of_the_library(self, shapes: dict[str, tuple[int, ...]], dtype: str) -> None:
        """For any names and shapes the file is what safetensors writes, with the metadata transformers wants."""
        values = dict(zip(shapes, sample(*shapes.values()), strict=True))
        narrow = {name: array.astype(DTYPES[dtype]) for name, array in values.items()}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            pytorch.write(path, contents(values, dtype), Count())
            assert path.read_bytes() == save(narrow, metadata={"format": "pt"})

    def test_order_of_the_tensors_does_not_matter(self, tmp_path: Path) -> None:
        """The same tensors in another order are the same file."""
        values = dict(zip("bca", sample((2, 3), (4,), (1,)), strict=True))
        pytorch.write(tmp_path / "one", contents(values), Count())
        pytorch.write(tmp_path / "two", contents(dict(reversed(values.items()))), Count())
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
        assert list(load_file(tmp_path / "one")) == ["a", "b", "c"]


class TestTensorFlow:
    REPEATED: Mapping[str, Sequence[str]] = {"generator_lm_head": ["electra/word/weight:0", "electra/norm/gamma:0"]}

    def values(self) -> dict[str, Array]:
        names = ("electra/word/weight:0", "electra/norm/gamma:0", "generator_lm_head/bias:0")
        return dict(zip(names, sample((7, 4), (4,), (7,)), strict=True))

    def test_groups_of_a_model(self, tmp_path: Path) -> None:
        """Layers and weights are listed in order, and each dataset lies below layer and model."""
        values, count = self.values(), Count()
        tensorflow.write(tmp_path / "file", contents(values, repeated=self.REPEATED), count)
        with h5py.File(tmp_path / "file") as file:
            assert list(file.attrs["layer_names"]) == ["electra", "generator_lm_head"]
            assert list(file["electra"].attrs["weight_names"]) == [
                f"{SCOPE}/electra/word/weight:0",
                f"{SCOPE}/electra/norm/gamma:0",
            ]
            assert list(file["generator_lm_head"].attrs["weight_names"]) == [
                f"{SCOPE}/generator_lm_head/bias:0",
                f"{SCOPE}/electra/word/weight:0",
                f"{SCOPE}/electra/norm/gamma:0",
            ]
            for name, array in values.items():
                dataset = file[f"{name.partition('/')[0]}/{SCOPE}/{name}"]
                assert dataset.dtype == np.float32
                assert dataset.chunks is None
                np.testing.assert_array_equal(dataset[()], array)
        assert count.total == sum(array.nbytes for array in values.values())

    def test_repeated_names_are_hard_links(self, tmp_path: Path) -> None:
        """A weight that two layers list is one dataset."""
        tensorflow.write(tmp_path / "file", contents(self.values(), repeated=self.REPEATED), Count())
        with h5py.File(tmp_path / "file") as file:
            for name in self.REPEATED["generator_lm_head"]:
                link = file.get(f"generator_lm_head/{SCOPE}/{name}", getlink=True)
                assert isinstance(link, h5py.HardLink)
                assert file[f"generator_lm_head/{SCOPE}/{name}"] == file[f"electra/{SCOPE}/{name}"]
                assert h5py.h5o.get_info(file[f"electra/{SCOPE}/{name}"].id).rc == 2

    def test_layer_that_is_not_there_repeats_nothing(self, tmp_path: Path) -> None:
        """A head without that layer has no such links."""
        values = {"electra/word/weight:0": sample((7, 4))[0]}
        tensorflow.write(tmp_path / "file", contents(values, repeated=self.REPEATED), Count())
        with h5py.File(tmp_path / "file") as file:
            assert list(file) == ["electra"]

    def test_layers_whose_tensors_are_apart(self, tmp_path: Path) -> None:
        """A mapping may name modules layer by layer, whose tensors then do not come one after the other."""
        names = [f"{layer}/{module}/weight:0" for module in "ab" for layer in ("first", "second")]
        values = {name: sample((2, number + 1))[0] for number, name in enumerate(names)}
        tensorflow.write(tmp_path / "file", contents(values), Count())
        read = tensorflow.read(tmp_path / "file")
        assert {name: tensor.shape for name, tensor in read.items()} == {
            name: each.shape for name, each in values.items()
        }

    def test_shard_is_flat(self, tmp_path: Path) -> None:
        """Datasets of a shard lie at the root, under their names."""
        values = self.values()
        tensorflow.write(tmp_path / "file", contents(values, sharded=True, repeated=self.REPEATED), Count())
        with h5py.File(tmp_path / "file") as file:
            assert list(file.attrs["layer_names"]) == list(values)
            for name, array in values.items():
                np.testing.assert_array_equal(file[name][()], array)

    @pytest.mark.parametrize("sharded", [False, True])
    def test_no_time_is_stored(self, tmp_path: Path, sharded: bool) -> None:  # noqa: FBT001  # pytest passes it by name
        """HDF5 keeps the time an object was made, if it is let."""
        tensorflow.write(tmp_path / "file", contents(self.values(), sharded=sharded), Count())
        times = []

        def visit(name: str, _item: Any) -> None:
            times.append(h5py.h5g.get_objinfo(file.id, name.encode()).mtime)

        with h5py.File(tmp_path / "file") as file:
            file.visititems(visit)
        assert times
        assert not any(times)

    @pytest.mark.parametrize(
        ("model", "scope"),
        [
            ("ElectraModel", "tf_electra_model"),
            ("ElectraForPreTraining", "tf_electra_for_pre_training"),
            ("ElectraForMaskedLM", "tf_electra_for_masked_lm"),
            ("ElectraForSequenceClassification", "tf_electra_for_sequence_classification"),
            ("ElectraForMultipleChoice", "tf_electra_for_multiple_choice"),
            ("ElectraForTokenClassification", "tf_electra_for_token_classification"),
            ("ElectraForQuestionAnswering", "tf_electra_for_question_answering"),
        ],
    )
    def test_scope_is_keras_name_of_the_class(self, tmp_path: Path, model: str, scope: str) -> None:
        """Keras names a model by its class in lower case."""
        tensor = described("electra/weight:0", sample((2,))[0])
        tensorflow.write(tmp_path / "file", Contents([tensor], "float32", model), Count())
        with h5py.File(tmp_path / "file") as file:
            assert list(file["electra"]) == [scope]

    def test_every_head_of_a_checkpoint(self, fixtures: Path, tmp_path: Path) -> None:
        """Each listed weight of a converted head is there; a prediction head lists the embeddings as links."""
        options = ConvertOptions(part="generator", targets=("tensorflow",), tokenizer=False)
        report = convert_checkpoint(fixtures / "electra_tiny", tmp_path / "out", options)
        for head in report.heads:
            with h5py.File(head.directory / "tf_model.h5") as file:
                layers = list(file.attrs["layer_names"])
                assert sorted(layers) == sorted(file)
                assert layers[0] == "electra"
                for layer in layers:
                    for name in file[layer].attrs["weight_names"]:
                        assert isinstance(file[layer][name], h5py.Dataset)
                if head.head == "masked_lm":
                    embeddings = f"{SCOPE}/electra/embeddings"
                    tables = ("position_embeddings/embeddings:0", "token_type_embeddings/embeddings:0")
                    for table in ("word_embeddings/weight:0", *tables):
                        linked = file[f"generator_lm_head/{embeddings}/{table}"]
                        assert linked == file[f"electra/{embeddings}/{table}"]


class TestFlax:
    @staticmethod
    def packed(node: Any) -> Any:
        """Return what `flax.serialization` hands to msgpack for a tree of arrays."""
        if isinstance(node, dict):
            return {key: TestFlax.packed(node[key]) for key in sorted(node)}
        payload = (node.shape, node.dtype.name, node.tobytes())
        return msgpack.ExtType(1, msgpack.packb(payload, use_bin_type=True))

    @settings(deadline=None)  # disks take the time they take
    @given(
        shapes=st.dictionaries(
            st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="/"), max_size=40)] * 2), shapes
        ),
        dtype=st.sampled_from(sorted(DTYPES)),
    )
    def test_bytes_are_those_of_msgpack(self, shapes: dict[tuple[str, str], tuple[int, ...]], dtype: str) -> None:
        """For any tree the file is what msgpack packs, keys sorted."""
        values = dict(zip(shapes, sample(*shapes.values()), strict=True))
        tree: dict[str, dict[str, Array]] = {}
        for (module, leaf), array in values.items():
            tree.setdefault(module, {})[leaf] = array.astype(DTYPES[dtype])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "flax_model.msgpack"
            flax.write(path, contents({"/".join(name): array for name, array in values.items()}, dtype), Count())
            assert path.read_bytes() == msgpack.packb(self.packed(tree), use_bin_type=True)

    @pytest.mark.parametrize("size", [1, 50, 56, 57, 63, 64, 16370, 16384, 16385])
    def test_headers_of_every_width(self, tmp_path: Path, size: int) -> None:
        """Lengths in one, two and four bytes, and the fixed ones, are spelt as msgpack spells them."""
        (array,) = sample((size,))
        flax.write(tmp_path / "file", contents({"module/kernel": array}), Count())
        assert (tmp_path / "file").read_bytes() == msgpack.packb(self.packed({"module": {"kernel": array}}))

    def test_large_leaves_are_chunked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A leaf over the limit is a map of pieces, as `flax.serialization` cuts it; one at the limit is whole."""
        monkeypatch.setattr(flax, "MAX_CHUNK_SIZE", 40)
        large, exact = sample((5, 5), (2, 5))
        flax.write(tmp_path / "file", contents({"a/exact": exact, "a/large": large.T}), Count())
        pieces = [large.T.reshape(-1)[start : start + 10] for start in range(0, 25, 10)]
        expected = {
            "__msgpack_chunked_array__": True,
            "shape": {"0": 5, "1": 5},
            "chunks": {str(number): self.packed(piece) for number, piece in enumerate(pieces)},
        }
        tree = {"a": {"exact": self.packed(exact), "large": expected}}
        assert (tmp_path / "file").read_bytes() == msgpack.packb(tree)

    def test_chunks_are_of_whole_elements_of_the_written_dtype(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The limit is one of bytes in the file: half as wide, twice as many."""
        monkeypatch.setattr(flax, "MAX_CHUNK_SIZE", 41)
        (array,) = sample((21,))
        flax.write(tmp_path / "file", contents({"leaf": array}, "float16"), Count())
        found = msgpack.unpackb((tmp_path / "file").read_bytes())["leaf"]["chunks"]
        shapes = [msgpack.unpackb(chunk.data)[0] for chunk in found.values()]
        assert shapes == [[20], [1]]


@pytest.mark.parametrize("target", TARGETS)
class TestEveryFormat:
    def test_existing_file_is_not_overwritten(self, tmp_path: Path, target: Any) -> None:
        """A writer makes a new file, or none."""
        (tmp_path / "file").write_bytes(b"mine")
        with pytest.raises(FileExistsError):
            module_of(target).write(tmp_path / "file", contents({"electra/a": sample((2,))[0]}), Count())
        assert (tmp_path / "file").read_bytes() == b"mine"

    def test_file_is_synced(self, tmp_path: Path, target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file is on disk when the writer returns."""
        synced: list[int] = []
        self.spy(monkeypatch, synced)
        module_of(target).write(tmp_path / "file", contents({"electra/a": sample((2,))[0]}), Count())
        assert synced == [(tmp_path / "file").stat().st_ino]

    def spy(self, monkeypatch: pytest.MonkeyPatch, synced: list[int]) -> None:
        fsync: Callable[[int], None] = os.fsync

        def note(descriptor: int) -> None:
            fsync(descriptor)
            synced.append(os.fstat(descriptor).st_ino)

        monkeypatch.setattr(os, "fsync", note)

    def test_sources_are_loaded_one_at_a_time(self, tmp_path: Path, target: Any) -> None:
        """No more arrays are alive at once than threads write, and one that is about to go."""
        lock, loaded, alive = threading.Lock(), [], []

        def load() -> Array:
            array = np.ones((64, 64))
            with lock:
                loaded.append(weakref.ref(array))
                alive.append(sum(reference() is not None for reference in loaded))
            return array

        tensors = [Tensor(f"electra/{number}", (64, 64), "float64", load) for number in range(30)]
        module_of(target).write(tmp_path / "file", Contents(tensors, "float32", MODEL), Count())
        assert len(alive) == 30
        assert max(alive) <= extents.THREADS + 1
