"""From what the user types to where the checkpoint is."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_convert import archive as archive_module
from electra_convert.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    DiskSpaceError,
    ElectraConvertError,
    OptionError,
    SourceError,
    UnsupportedCheckpointError,
)
from electra_convert.formats.google_tf1 import open_checkpoint
from electra_convert.source import locate

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = FIXTURES / "electra_tiny"
STATE = b'model_checkpoint_path: "%s"\nall_model_checkpoint_paths: "model.ckpt-1"\n'
GOOGLES_ZIP = {
    "electra_small/checkpoint": STATE % b"electra_small",
    "electra_small/electra_small.index": b"index",
    "electra_small/electra_small.data-00000-of-00001": b"data",
    "electra_small/electra_small.meta": b"graph",
    "electra_small/vocab.txt": b"[PAD]",
}


def fill(directory: Path, *names: str, state: bytes | None = None) -> Path:
    """Make a directory of empty files; finding a checkpoint reads none of them but the `checkpoint` file."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).touch()
    if state is not None:
        (directory / "checkpoint").write_bytes(STATE % state)
    return directory


def prefix_of(source: Path, step: int | None = None) -> Path:
    """Return the prefix a source leads to."""
    with locate(source, step=step) as location:
        return location.prefix


def zipped(path: Path, members: Mapping[str, bytes]) -> Path:
    """Make a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: Mapping[str, bytes]) -> Path:
    """Make a tar, compressed if its name says so."""
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


# What leads to a checkpoint


@pytest.mark.parametrize(
    "name",
    [
        "",
        "model.ckpt-30",
        "model.ckpt-30.index",
        "model.ckpt-30.data-00000-of-00001",
        "model.ckpt-30.meta",
        "checkpoint",
    ],
)
def test_a_checkpoint_is_found_by_any_of_its_files(name: str) -> None:
    """Its directory, its prefix, and each of its files."""
    with locate(TINY / name) as location:
        assert location.prefix == TINY / "model.ckpt-30"
        assert location.name == "electra_tiny"
        assert location.vocabulary == TINY / "vocab.txt"


def test_the_current_directory_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called what it is called from outside."""
    monkeypatch.chdir(TINY)
    for source in (Path(), Path("model.ckpt-30")):
        with locate(source) as location:
            assert location.name == "electra_tiny"


def test_a_vocabulary_may_be_absent(tmp_path: Path) -> None:
    """Then there is none."""
    with locate(fill(tmp_path / "a", "m.index")) as location:
        assert location.vocabulary is None


def test_the_vocabulary_is_also_where_googles_code_keeps_it(tmp_path: Path) -> None:
    """`run_pretraining.py` writes below the folder of its data."""
    fill(tmp_path / "data", "vocab.txt")
    with locate(fill(tmp_path / "data" / "models" / "small", "m.index")) as location:
        assert location.vocabulary == (tmp_path / "data" / "vocab.txt")


@pytest.mark.parametrize(
    "recorded",
    [
        b"model.ckpt-9",
        b"/home/someone/model.ckpt-9",
        b"gs://bucket/electra/model.ckpt-9",
        rb"C:\\\\models\\\\electra\\\\model.ckpt-9",
        rb"C:\models\train\model.ckpt-9",
        rb"/home/\354\240\234/model.ckpt-9",
    ],
)
def test_only_the_base_name_in_a_checkpoint_file_counts(tmp_path: Path, recorded: bytes) -> None:
    """The rest is of the machine that trained."""
    directory = fill(tmp_path / "a", "model.ckpt-9.index", "model.ckpt-10.index", state=recorded)
    assert prefix_of(directory) == directory / "model.ckpt-9"


@pytest.mark.parametrize("recorded", [rb"\354\240\234.ckpt", "제.ckpt".encode()])
def test_names_in_a_checkpoint_file_may_be_escaped(tmp_path: Path, recorded: bytes) -> None:
    """TensorFlow writes other bytes than those of ASCII as octal numbers."""
    directory = fill(tmp_path / "a", "제.ckpt.index", "other.index", state=recorded)
    assert prefix_of(directory) == directory / "제.ckpt"


def test_a_single_checkpoint_needs_no_checkpoint_file(tmp_path: Path) -> None:
    """macOS leaves files beside it that look like another."""
    directory = fill(tmp_path / "a", "electra.index", "._electra.index")
    assert prefix_of(directory) == directory / "electra"


@pytest.mark.parametrize("recorded", [None, b"model.ckpt-10"])
def test_a_step_is_chosen(tmp_path: Path, recorded: bytes | None) -> None:
    """Whatever the `checkpoint` file says, and whole numbers only."""
    names = [f"model.ckpt-{step}.index" for step in (0, 10, 100, 1000)]
    directory = fill(tmp_path / "a", *names, state=recorded)
    assert prefix_of(directory, step=100) == directory / "model.ckpt-100"
    assert prefix_of(directory, step=0) == directory / "model.ckpt-0"
    assert prefix_of(directory / "checkpoint" if recorded else directory, step=10) == directory / "model.ckpt-10"
    assert prefix_of(directory / "model.ckpt-10", step=10) == directory / "model.ckpt-10"


# What does not


def refusal(source: Path, kind: type[SourceError], step: int | None = None) -> str:
    """Return the message with which a source is refused."""
    with pytest.raises(ElectraConvertError) as error:
        prefix_of(source, step)
    assert type(error.value) is kind
    return str(error.value)


def test_nothing_there_shows_an_example(tmp_path: Path) -> None:
    """Of a command that works."""
    message = refusal(tmp_path / "nothing", CheckpointNotFoundError)
    assert f"there is no checkpoint at {tmp_path / 'nothing'}" in message
    assert "electra-convert --part discriminator path/to/electra_small" in message


def test_an_empty_directory_shows_an_example(tmp_path: Path) -> None:
    """Of a command that works."""
    message = refusal(fill(tmp_path / "a", "notes.txt"), CheckpointNotFoundError)
    assert f"there is no checkpoint in {tmp_path / 'a'}" in message
    assert "electra-convert --part discriminator" in message


def test_checkpoints_one_level_down_are_pointed_at(tmp_path: Path) -> None:
    """They may be what was meant."""
    fill(tmp_path / "models" / "small", "m.index")
    assert f"a directory that holds one: {tmp_path}/models/small" in refusal(
        tmp_path / "models", CheckpointNotFoundError
    )


def test_several_checkpoints_are_listed_by_step(tmp_path: Path) -> None:
    """The user is to choose."""
    directory = fill(tmp_path / "a", *(f"model.ckpt-{step}.index" for step in (10, 9, 100)))
    message = refusal(directory, CheckpointNotFoundError)
    assert "holds 3 checkpoints, and no file 'checkpoint'" in message
    assert message.index("- model.ckpt-9\n") < message.index("- model.ckpt-10\n") < message.index("- model.ckpt-100\n")
    assert "choose one with --step" in message


def test_steps_that_are_there_are_listed(tmp_path: Path) -> None:
    """When the one that was asked for is not."""
    directory = fill(tmp_path / "a", "model.ckpt-10.index", "model.ckpt-20.index", state=b"model.ckpt-20")
    message = refusal(directory, CheckpointNotFoundError, step=1)
    assert "holds no checkpoint of step 1\n  - model.ckpt-10\n  - model.ckpt-20\n" in message


def test_two_checkpoints_of_a_step_are_told_apart_by_name(tmp_path: Path) -> None:
    """A step is not enough."""
    directory = fill(tmp_path / "a", "best-10.index", "model.ckpt-10.index", "model.ckpt-20.index")
    message = refusal(directory, CheckpointNotFoundError, step=10)
    assert "holds 2 checkpoints of step 10\n  - best-10\n  - model.ckpt-10\n" in message
    assert "name one of these" in message


def test_a_step_that_contradicts_the_source_is_refused(tmp_path: Path) -> None:
    """It is not clear which is meant."""
    fill(tmp_path, "model.ckpt-10.index")
    with pytest.raises(OptionError, match="names one checkpoint, and --step 20 another"):
        prefix_of(tmp_path / "model.ckpt-10", step=20)


@pytest.mark.parametrize(("names", "hint"), [([], "copy model.ckpt-9.* too"), (["model.ckpt-8.index"], "--step")])
def test_a_stale_checkpoint_file_is_told(tmp_path: Path, names: list[str], hint: str) -> None:
    """With what is there instead."""
    message = refusal(fill(tmp_path / "a", *names, state=b"/x/model.ckpt-9"), CheckpointNotFoundError)
    assert "says that the latest checkpoint is model.ckpt-9, but model.ckpt-9.index is not beside it" in message
    assert all(f"- {name.removesuffix('.index')} is" in message for name in names)
    assert hint in message


@pytest.mark.parametrize(
    "text", [b"", b"\xff\0\xfe", b"model_checkpoint_path: electra", STATE % b"", STATE % b"a/.", STATE % b"..", b'm: "']
)
def test_a_checkpoint_file_that_names_none_is_told(tmp_path: Path, text: bytes) -> None:
    """It is damaged, or something else."""
    directory = fill(tmp_path / "a", "m.index")
    (directory / "checkpoint").write_bytes(text)
    assert "names no checkpoint" in refusal(directory, CorruptCheckpointError)


@given(recorded=st.binary(max_size=20))
@settings(deadline=None)  # disks take the time they take
def test_no_checkpoint_file_does_harm(recorded: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever it names, only what is in the directory is found."""
    directory = fill(tmp_path_factory.mktemp("a"), "m.index", state=recorded)
    with suppress(SourceError):
        assert prefix_of(directory) == directory / "m"


@pytest.mark.parametrize("source", ["", "m", "m.meta", "m.data-00000-of-00001", "m.index"])
@pytest.mark.parametrize("there", ["m.meta", "m.data-00000-of-00001"])
def test_a_missing_index_is_told(tmp_path: Path, source: str, there: str) -> None:
    """Data files or a graph are no checkpoint without it."""
    message = refusal(fill(tmp_path / "a", there) / source, CheckpointNotFoundError)
    assert "m.index is missing" in message
    assert "copy the .index files too" in message


@pytest.mark.parametrize("source", ["", "model.ckpt-7", "checkpoint"])
@pytest.mark.parametrize("state", [True, False])
def test_a_version_1_checkpoint_is_told(tmp_path: Path, source: str, *, state: bool) -> None:
    """With how to save it again."""
    directory = tmp_path / "a"
    shutil.copytree(FIXTURES / "bundles" / "version_1", directory)
    if not state:
        (directory / "checkpoint").unlink()
    if source != "checkpoint" or state:
        message = refusal(directory / source, UnsupportedCheckpointError)
        assert f"{directory / 'model.ckpt-7'} is a version 1 checkpoint" in message
        assert "tf.compat.v1.train.SaverDef.V2" in message


@pytest.mark.parametrize("weights", ["model.safetensors", "tf_model.h5", "flax_model.msgpack"])
def test_a_model_is_a_source(tmp_path: Path, weights: str) -> None:
    """By its directory, or by a file of its weights, which names the format."""
    directory = fill(tmp_path / "a", "config.json", "vocab.txt", weights)
    for source in (directory, directory / weights):
        with locate(source) as location:
            assert (location.prefix, location.name, location.is_model) == (directory, "a", True)
            assert location.vocabulary == directory / "vocab.txt"
            assert location.file == (None if source == directory else source)


def test_a_checkpoint_beside_a_model_is_the_source(tmp_path: Path) -> None:
    """What has an index is a checkpoint of Google's code."""
    directory = fill(tmp_path / "a", "config.json", "model.safetensors", "model.ckpt-7.index")
    with locate(directory) as location:
        assert (location.prefix, location.is_model) == (directory / "model.ckpt-7", False)


def test_other_models_are_told(tmp_path: Path) -> None:
    """What is neither is named."""
    directory = fill(tmp_path / "a", "saved_model.pb")
    assert "holds saved_model.pb, which is not read" in refusal(directory, UnsupportedCheckpointError)
    assert "is no file of a checkpoint" in refusal(directory / "saved_model.pb", UnsupportedCheckpointError)


def test_a_directory_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In our words, with its path."""

    def forbid(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "is_dir", forbid)
    assert f"cannot read {tmp_path / 'a'}: Permission denied" in refusal(tmp_path / "a", SourceError)


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    """The system refuses it."""
    assert "File name too long" in refusal(tmp_path / ("a" * 300), SourceError)
    assert "File name too long" in refusal(tmp_path / f"{'a' * 300}.zip", SourceError)


@pytest.mark.parametrize("name", ["vocab.txt", "checkpoint"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "it is a pipe, a socket or a device, not a file"),
        (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
    ],
    ids=["pipe", "link"],
)
def test_what_is_there_and_cannot_be_read_is_told(
    tmp_path: Path, name: str, make: Callable[[Path], None], reason: str
) -> None:
    """It is not taken for absent: what is missing in the output would be noticed late."""
    directory = fill(tmp_path / "a", "m.index")
    make(directory / name)
    assert f"cannot read {directory / name}: {reason}" in refusal(directory, SourceError)


def test_a_folder_beside_a_checkpoint_may_be_called_like_its_state(tmp_path: Path) -> None:
    """A folder `checkpoint` says nothing of which is the latest."""
    directory = fill(tmp_path / "a", "m.index")
    (directory / "checkpoint").mkdir()
    assert prefix_of(directory) == directory / "m"


def test_a_current_directory_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From there a checkpoint can be found, and its name cannot."""
    fill(tmp_path / "good", "m.index")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "cannot read ../good: No such file or directory" in refusal(Path("../good"), SourceError)


# Archives


@pytest.mark.parametrize("name", ["small.zip", "small.ZIP", "small.Tgz", "small.tar", "small.tar.gz", "small.tgz"])
@pytest.mark.parametrize("nested", ["", "./", "a/b/"])
def test_archives_are_unpacked_while_they_are_needed(tmp_path: Path, name: str, nested: str) -> None:
    """Only what belongs to a checkpoint is, and nothing is left."""
    pack = zipped if name.lower().endswith(".zip") else tarred
    archive = pack(tmp_path / name, {nested + path: content for path, content in GOOGLES_ZIP.items()})
    with locate(archive) as location:
        directory = location.prefix.parent
        assert (location.prefix.name, location.name) == ("electra_small", "small")
        assert location.vocabulary == directory / "vocab.txt"
        found = {path.name: path.read_bytes() for path in directory.iterdir()}
        assert found == {Path(path).name: content for path, content in GOOGLES_ZIP.items() if ".meta" not in path}
    assert not directory.exists()


def test_a_genuine_checkpoint_can_be_read_from_an_archive(tmp_path: Path) -> None:
    """Its values as well, even after the archive was left: the files stay mapped."""
    archive = Path(shutil.make_archive(str(tmp_path / "tiny"), "gztar", FIXTURES, "electra_tiny"))
    with locate(archive, step=30) as location:
        checkpoint = open_checkpoint(location.prefix)
        checkpoint.check(checkpoint.tensors)
    checkpoint.check(checkpoint.tensors)


def test_the_vocabulary_may_be_elsewhere_in_an_archive(tmp_path: Path) -> None:
    """Above the checkpoint."""
    archive = zipped(tmp_path / "a.zip", {"vocab.txt": b"[PAD]", "x/small/m.index": b""})
    with locate(archive) as location:
        assert location.vocabulary is not None
        assert location.vocabulary.read_bytes() == b"[PAD]"


def test_macos_leftovers_in_an_archive_are_ignored(tmp_path: Path) -> None:
    """They have the names of the files they belong to."""
    leftovers = {f"__MACOSX/{Path(path).parent}/._{Path(path).name}": b"" for path in GOOGLES_ZIP}
    with locate(zipped(tmp_path / "a.zip", {**leftovers, **GOOGLES_ZIP})) as location:
        assert location.prefix.name == "electra_small"


@pytest.mark.parametrize("members", [{}, {"readme.txt": b""}, {"a/m.index": b"", "b/m.index": b""}])
def test_an_archive_must_hold_one_directory_of_checkpoints(tmp_path: Path, members: dict[str, bytes]) -> None:
    """Else it is not clear which is meant."""
    message = refusal(zipped(tmp_path / "a.zip", members), CheckpointNotFoundError)
    count = sum(name.endswith(".index") for name in members) or "no"
    assert f"holds {count} directories with a checkpoint" in message


def test_errors_name_the_archive_and_not_where_it_was_unpacked(tmp_path: Path) -> None:
    """That is gone when they are read."""
    archive = zipped(tmp_path / "a.zip", GOOGLES_ZIP)
    message = refusal(archive, CheckpointNotFoundError, step=3)
    assert f"{archive}/electra_small holds no checkpoint of step 3" in message
    assert "electra-convert-" not in message


def test_progress_is_told(tmp_path: Path) -> None:
    """Of every byte that is unpacked, and of how many there are."""
    told: list[tuple[str, int]] = []
    steps: list[int] = []

    @contextmanager
    def progress(description: str, total: int, *, unit: str = "bytes") -> Iterator[Callable[[int], None]]:
        assert unit == "bytes"
        told.append((description, total))
        yield steps.append

    with locate(zipped(tmp_path / "a.zip", GOOGLES_ZIP), progress=progress):
        pass
    total = sum(len(content) for path, content in GOOGLES_ZIP.items() if ".meta" not in path)
    assert told == [("unpacking", total)]
    assert sum(steps) == total


def links(kind: bytes) -> Callable[[Path], Path]:
    """Return what makes a tar with a member of that type."""

    def make(directory: Path) -> Path:
        archive = tarred(directory / "a.tar", GOOGLES_ZIP)
        with tarfile.open(archive, "a") as tar:
            member = tarfile.TarInfo("electra_small/other.index")
            member.type, member.linkname = kind, "../../etc/passwd"
            tar.addfile(member)
        return archive

    return make


def zip_with_a_link(directory: Path) -> Path:
    """Make a zip with a symbolic link, as Unix stores it."""
    archive = zipped(directory / "a.zip", GOOGLES_ZIP)
    member = zipfile.ZipInfo("electra_small/other.index")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as pack:
        pack.writestr(member, "/etc/passwd")
    return archive


@pytest.mark.parametrize(
    "make",
    [links(tarfile.SYMTYPE), links(tarfile.LNKTYPE), links(tarfile.CHRTYPE), links(tarfile.FIFOTYPE), zip_with_a_link],
    ids=["symbolic link", "hard link", "device", "pipe", "link in a zip"],
)
def test_links_and_devices_in_archives_are_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """They would read or write elsewhere."""
    assert "'electra_small/other.index' is a link or a device" in refusal(make(tmp_path), CorruptCheckpointError)


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_members_that_lie_elsewhere_are_refused(tmp_path: Path, pack: Callable[..., Path]) -> None:
    """All are told, and nothing is written there."""
    evil = {"../evil.index": b"", "/tmp/evil.index": b"", "a/../../evil.json": b""}  # noqa: S108 it is not written
    archive = pack(tmp_path / ("a.zip" if pack is zipped else "a.tar"), {**evil, **GOOGLES_ZIP})
    message = refusal(archive, CorruptCheckpointError)
    assert message.count("lies outside the folder") == len(evil)
    assert [path.name for path in tmp_path.rglob("*")] == [archive.name]


def test_members_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    """It is not clear which counts."""
    archive = tarred(tmp_path / "a.tar", {**GOOGLES_ZIP, "./electra_small/checkpoint": b"other"})
    assert "'electra_small/checkpoint' is there 2 times" in refusal(archive, CorruptCheckpointError)


def test_a_link_is_told_where_a_file_has_its_name(tmp_path: Path) -> None:
    """Whichever comes first."""
    archive = links(tarfile.SYMTYPE)(tmp_path)
    with tarfile.open(archive, "a") as tar:
        tar.addfile(tarfile.TarInfo("electra_small/other.index"))
    message = refusal(archive, CorruptCheckpointError)
    assert "'electra_small/other.index' is a link or a device" in message
    assert "'electra_small/other.index' is there 2 times" in message


def test_the_disk_must_have_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at before anything is written."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(DiskSpaceError, match=r"unpacks to \d+ bytes, but .* has 5 bytes free(.|\n)*TMPDIR"):
        prefix_of(zipped(tmp_path / "a.zip", GOOGLES_ZIP))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_truncated_archives_are_told(tmp_path: Path, name: str) -> None:
    """At many lengths; a tar may end early and hold less."""
    pack = zipped if name.endswith(".zip") else tarred
    data = pack(tmp_path / name, GOOGLES_ZIP).read_bytes()
    for size in range(0, len(data) - 1, len(data) // 100 + 1):
        (tmp_path / name).write_bytes(data[:size])
        with suppress(CheckpointNotFoundError, CorruptCheckpointError):
            prefix_of(tmp_path / name)


@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3))
@settings(deadline=None)  # disks take the time they take
@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_changed_bytes_of_an_archive_do_no_harm(
    name: str, flips: list[tuple[float, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """They are told, or do not matter."""
    directory = tmp_path_factory.mktemp("a")
    archive = (zipped if name.endswith(".zip") else tarred)(directory / name, GOOGLES_ZIP)
    data = bytearray(archive.read_bytes())
    for place, mask in flips:
        data[int(place * len(data))] ^= mask
    archive.write_bytes(data)
    with suppress(ElectraConvertError):
        prefix_of(archive)
    assert list(directory.iterdir()) == [archive]


def test_a_zip_that_declares_less_than_it_holds_is_told(tmp_path: Path) -> None:
    """Zip bombs do."""
    archive = zipped(tmp_path / "a.zip", {"m.index": bytes(100_000)})
    data = archive.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    archive.write_bytes(data)
    assert "cannot unpack" in refusal(archive, CorruptCheckpointError)


@pytest.mark.parametrize(("size", "complaint"), [(3, "more than the 3 bytes"), (5, "less than the 5 bytes")])
def test_members_are_as_long_as_they_declare(tmp_path: Path, size: int, complaint: str) -> None:
    """Whatever the library that reads the archive lets pass."""
    member = archive_module._Member("m.index", size, lambda: io.BytesIO(b"four"))
    with pytest.raises(tarfile.ReadError, match=complaint):
        archive_module._copy(member, tmp_path / "m.index", lambda _: None)
    assert (tmp_path / "m.index").stat().st_size <= size


def test_encrypted_archives_are_told(tmp_path: Path) -> None:
    """There is no password to try."""
    archive = zipped(tmp_path / "a.zip", {"m.index": b"secret"})
    data = bytearray(archive.read_bytes())
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + place] |= 1
    archive.write_bytes(data)
    assert "encrypted" in refusal(archive, CorruptCheckpointError)


def test_files_that_are_no_archives_are_told(tmp_path: Path) -> None:
    """Whatever they are called."""
    for name in ("a.zip", "a.tar", "a.tgz"):
        (tmp_path / name).write_bytes(b"<html>404</html>")
        assert f"cannot unpack {tmp_path / name}" in refusal(tmp_path / name, CorruptCheckpointError)


def test_a_directory_may_be_called_like_an_archive(tmp_path: Path) -> None:
    """It is a directory."""
    directory = fill(tmp_path / "a.zip", "m.index")
    with locate(directory) as location:
        assert (location.prefix, location.name) == (directory / "m", "a.zip")
