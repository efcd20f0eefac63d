"""What is fuzzed, tried without a fuzzer: seeds, former findings, and some inputs made from them by chance."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_convert.errors import CorruptCheckpointError
from electra_convert.formats import flax, pytorch
from electra_convert.formats.sstable import read_table, write_table
from electra_convert.formats.wire import DamageError
from electra_convert.tensor import Tensor
from tests.fuzz import make_seeds, mutators, readers
from tests.fuzz.readers import split_bundle
from tests.fuzz.targets import SEEDS, TARGETS, Target, reader

MOST_BYTES = 300_000
BY_LIBRARIES = {"h5", "zip", "tar"}
"""Targets whose seeds have other bytes with another version of HDF5 or zlib."""
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@pytest.mark.parametrize(
    ("target", "seed"),
    [
        pytest.param(target, seed, id=f"{target.name}-{seed.name}")
        for target in TARGETS.values()
        for seed in target.inputs
    ],
)
def test_seeds_and_former_findings_hold(target: Target, seed: Path) -> None:
    """Each is read, or refused in this package's words."""
    with reader(target) as read:
        read(seed.read_bytes())


@pytest.mark.parametrize("target", [target for target in TARGETS.values() if target.share == 1], ids=lambda t: t.name)
@settings(max_examples=25, deadline=None)
@given(chance=st.randoms(use_true_random=False), data=st.data())
def test_changed_seeds_hold(target: Target, chance: Random, data: st.DataObject) -> None:
    """As the fuzzer changes them, in parts whose checksums are then right."""
    seed = data.draw(st.sampled_from(target.seeds)).read_bytes()

    def mutate(part: bytes) -> bytes:
        place = chance.randrange(len(part) + 1)
        return part[:place] + data.draw(st.binary(max_size=4)) + part[place + chance.randrange(3) :]

    with reader(target) as read:
        read(target.mutator(seed, mutate, chance)[: target.longest])


def test_the_seeds_are_those_that_are_made() -> None:
    """`make_seeds.py` makes them again; there is one for each target, and they stay small."""
    made = make_seeds.seeds()
    committed = {path for path in SEEDS.glob("*/*") if path.name.startswith("seed-")}
    assert committed == {SEEDS / target / f"seed-{name}" for target, contents in made.items() for name in contents}
    assert set(made) == set(TARGETS)
    for target in set(made) - BY_LIBRARIES:
        for name, content in made[target].items():
            assert (SEEDS / target / f"seed-{name}").read_bytes() == content, f"{target}/{name}"
    assert sum(path.stat().st_size for path in SEEDS.glob("*/*")) < MOST_BYTES


@each_target
def test_a_seed_of_each_target_is_read(target: Target) -> None:
    """Not all are refused: past the first check of a reader there is something to fuzz."""
    accepted = []

    def prepare(folder: Path) -> readers.Read:
        read = target.prepare(folder)

        def note(data: bytes) -> None:
            read(data)
            accepted.append(data)

        return note

    with reader(Target(target.name, prepare, target.modules)) as read:
        for seed in target.seeds:
            read(seed.read_bytes())
    assert accepted


# What the harness itself must do


def test_other_errors_are_findings() -> None:
    """An error of this package is what a reader promises; any other passes through."""

    def failing(error: Exception) -> Callable[[bytes], None]:
        def read(_: bytes) -> None:
            raise error

        return read

    with reader(Target("planted", lambda _: failing(CorruptCheckpointError("told")), ())) as read:
        read(b"")
    for error in (IndexError("a bug"), MemoryError(), RecursionError()):
        with reader(Target("planted", lambda _, error=error: failing(error), ())) as read, pytest.raises(type(error)):  # type: ignore[misc]
            read(b"")


def test_values_that_are_not_as_described_are_findings() -> None:
    """A shape or a dtype that a tensor does not have, and one that no small input can hold."""
    array = np.ones(2, np.float32)
    readers.read_values({"a": Tensor("a", (2,), "float32", lambda: array)})
    for shape, dtype in (((3,), "float32"), ((2,), "float16"), ((1 << 30,), "float32")):
        with pytest.raises(AssertionError):
            readers.read_values({"a": Tensor("a", shape, dtype, lambda: array)})


def test_values_that_change_when_written_again_are_findings() -> None:
    """By name, shape, dtype and bits."""
    ones = np.ones(2, np.float32)
    first = {"a": Tensor("a", (2,), "float32", lambda: ones)}
    readers.require_same(first, first)
    for other in (
        {},
        {"b": Tensor("b", (2,), "float32", lambda: ones)},
        {"a": Tensor("a", (2, 1), "float32", lambda: ones)},
        {"a": Tensor("a", (2,), "float32", lambda: 2 * ones)},
    ):
        with pytest.raises(AssertionError):
            readers.require_same(first, other)


def appended(part: bytes) -> bytes:
    """Change a part in the plainest way."""
    return part + b"!"


@pytest.mark.parametrize("name", ["table", "bundle", "inspection"])
def test_changed_indexes_get_past_their_checksums(name: str) -> None:
    """Most of them are tables still, with other entries."""
    seed = TARGETS[name].seeds[0].read_bytes()
    index = split_bundle(seed)[0] if name == "bundle" else seed
    changed = 0
    for number in range(100):
        data = TARGETS[name].mutator(seed, appended, mutators.seeded(number))
        with suppress(DamageError):
            changed += read_table(split_bundle(data)[0] if name == "bundle" else data) != read_table(index)
    assert changed > 25


def test_a_table_with_a_changed_byte_has_its_checksums_set_right() -> None:
    """The mutator computes them."""
    table = write_table({b"one": b"1", b"two": b"22"})
    changed = table.replace(b"22", b"33")
    with pytest.raises(DamageError, match="checksum"):
        read_table(changed)
    assert read_table(mutators.with_checksums(changed)) == {b"one": b"1", b"two": b"33"}


def test_changed_headers_of_tar_get_past_their_checksums() -> None:
    """Names that are changed are read as they are."""
    seed = (SEEDS / "tar" / "seed-plain").read_bytes()
    names = set()
    for number in range(60):
        data = mutators.tar_archive(seed, bytes.upper, mutators.seeded(number))
        with suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(data)) as tar:
            names |= {*tar.getnames()}
    assert {True, False} == {name.startswith("ELECTRA/") for name in names}


@pytest.mark.parametrize(("mutator", "name"), [(mutators.safetensors, "safetensors"), (mutators.msgpack, "msgpack")])
def test_changed_weights_get_past_their_lengths(mutator: mutators.Mutator, name: str) -> None:
    """The lengths around what is changed are right, so that the change itself is what is judged."""
    seed = (SEEDS / name / "seed-float32").read_bytes()
    others: set[frozenset[str]] = set()
    with reader(Target(name, lambda folder: noting(folder, name, others), ())) as read:
        for number in range(200):
            read(mutator(seed, lambda part: part.replace(b"kernel", b"colonel"), mutators.seeded(number)))
    assert {True, False} == {any("colonel" in tensor for tensor in names) for names in others}


def noting(folder: Path, name: str, found: set[frozenset[str]]) -> readers.Read:
    """Make a reader that notes the names of tensors it reads."""
    module = {"safetensors": pytorch, "msgpack": flax}[name]

    def read(data: bytes) -> None:
        (folder / "weights").write_bytes(data)
        found.add(frozenset(module.read(folder / "weights")))

    return read
