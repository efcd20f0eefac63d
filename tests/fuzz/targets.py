"""The readers that are fuzzed, as data, and what all of them promise.

The promise: a reader of bytes from anywhere returns what holds together, or raises an error of this package. Whatever
else it does, ends the process, hangs or takes memory, is a finding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import mutators, readers
from tests.fuzz.mutators import Mutator
from tests.fuzz.readers import Read

SEEDS = Path(__file__).parent / "seeds"
FORMATS = "electra_convert.formats"
TABLES = (f"{FORMATS}.table", f"{FORMATS}.stored")


@dataclass(frozen=True)
class Target:
    """A reader, and how it is fuzzed.

    Args:
        name: What it is called, and its folder of seeds.
        prepare: Makes the reader, given a folder of its own.
        modules: What is instrumented: where the reader's code lies.
        mutator: How inputs are changed.
        share: How many of the executions asked for it gets. Less than 1 has a reason beside it.
        longest: Bytes of an input at most.
    """

    name: str
    prepare: Callable[[Path], Read]
    modules: tuple[str, ...]
    mutator: Mutator = mutators.plain
    share: float = 1.0
    longest: int = 4096

    @property
    def seeds(self) -> list[Path]:
        """Whole files of the kind it reads."""
        return sorted((SEEDS / self.name).glob("seed-*"))

    @property
    def inputs(self) -> list[Path]:
        """What fuzzing begins with: the seeds, and inputs that once were findings."""
        return sorted((SEEDS / self.name).iterdir())


TARGETS = {
    target.name: target
    for target in (
        Target("wire", readers.wire, (f"{FORMATS}.wire",), longest=512),
        Target("table", readers.table, (f"{FORMATS}.sstable", f"{FORMATS}.wire"), mutators.table),
        Target(
            "bundle",
            readers.bundle,
            (f"{FORMATS}.google_tf1", f"{FORMATS}.sstable", f"{FORMATS}.wire", f"{FORMATS}.stored"),
            mutators.bundle,
        ),
        Target(
            "inspection",
            readers.inspection,
            ("electra_convert.part", "electra_convert.config"),
            mutators.index,
        ),
        Target("state", readers.state, ("electra_convert.source",), longest=512),
        Target("zip", readers.zip_archive, ("electra_convert.archive", "zipfile"), mutators.zip_archive),
        Target("tar", readers.tar_archive, ("electra_convert.archive", "tarfile"), mutators.tar_archive, longest=9216),
        Target(
            "safetensors",
            readers.safetensors,
            (f"{FORMATS}.pytorch", f"{FORMATS}.weights", *TABLES, "electra_convert.json_text"),
            mutators.safetensors,
        ),
        Target("msgpack", readers.msgpack, (f"{FORMATS}.flax", f"{FORMATS}.msgpack_tree", *TABLES), mutators.msgpack),
        Target(
            "h5",
            readers.h5,
            (f"{FORMATS}.tensorflow", f"{FORMATS}.hdf5", *TABLES),
            share=1 / 50,  # HDF5 is C, which is not instrumented, and meets each in a process of its own
            longest=16384,
        ),
        Target("weights_index", readers.weights_index, (FORMATS, "electra_convert.json_text"), mutators.json),
        Target("yaml", readers.yaml, ("electra_convert.yaml",)),
        Target("plan", readers.plan, ("electra_convert.batch.plan_file", "electra_convert.yaml"), mutators.yaml),
        Target(
            "mappings", readers.mappings, ("electra_convert.mapping", "electra_convert.inventory"), mutators.mappings
        ),
        Target("config", readers.config, ("electra_convert.config_file", "electra_convert.json_text"), mutators.json),
        Target("vocabulary", readers.vocabulary, ("electra_convert.tokenizer",)),
        Target("labels", readers.labels, ("electra_convert.options", "electra_convert.cli.arguments"), longest=256),
    )
}


@contextmanager
def reader(target: Target) -> Iterator[Read]:
    """Make the reader of a target; what it returns lets pass what the reader promises, and raises what is a finding."""
    from electra_convert.errors import ElectraConvertError
    from electra_convert.formats.wire import DamageError

    with tempfile.TemporaryDirectory(prefix="electra-convert-fuzz-") as name:
        folder, temporary = Path(name, "files"), Path(name, "temporary")
        folder.mkdir()
        temporary.mkdir()
        before, tempfile.tempdir = tempfile.tempdir, str(temporary)
        try:
            read = target.prepare(folder)
            promised = (DamageError, ElectraConvertError) if target.name in {"wire", "table"} else ElectraConvertError

            def read_one(data: bytes) -> None:
                try:
                    read(data)
                except promised as error:
                    assert str(error), "it says nothing"  # noqa: PT017  # any of them may be raised

            yield read_one
        finally:
            tempfile.tempdir = before
