"""From what the user typed to where the checkpoint is.

A source is a directory, a prefix, one of a checkpoint's files, or an archive of such a directory, which is
unpacked for as long as it is needed.
"""

from __future__ import annotations

import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from electra_convert.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    DiskSpaceError,
    OptionError,
    SourceError,
    UnsupportedCheckpointError,
)
from electra_convert.output import in_bytes

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]

EXAMPLE = "electra-convert --part discriminator path/to/electra_small"
STATE_FILE = "checkpoint"
VOCABULARY = "vocab.txt"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
DATA_FILE = re.compile(r"(?P<prefix>.+)\.data-\d{5}-of-\d{5}")
STATE_LINE = re.compile(r'^\s*model_checkpoint_path\s*:\s*"(?P<path>(?:[^"\\]|\\.)*)"', re.MULTILINE)
STATE_LIMIT = 1 << 24
OTHER_MODELS = ("model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack")
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Location:
    """Where a checkpoint is.

    Args:
        prefix: Path of its files, without `.index`.
        name: What to call it: the name of its directory, or of the archive.
        vocabulary: The `vocab.txt` that belongs to it, if there is one.
    """

    prefix: Path
    name: str
    vocabulary: Path | None


@contextmanager
def _no_progress(_description: str, _total: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


@contextmanager
def locate(source: Path, *, step: int | None = None, progress: Progress = _no_progress) -> Iterator[Location]:
    """Find the checkpoint that `source` names.

    Args:
        source: A directory, prefix, `.index`, `.data-*` or `checkpoint` file, or an archive.
        step: The step to use; by default the one the `checkpoint` file names.
        progress: Shows the progress of unpacking.

    Raises:
        SourceError: There is none, or it is of a kind that is not read; the subclass says which.
        OptionError: The source names one step, and `step` another.
    """
    if source.is_file() and source.name.endswith(ARCHIVES):
        with tempfile.TemporaryDirectory(prefix="electra-convert-") as folder:
            _unpack(source, Path(folder), progress)
            prefix = _in_directory(_only_checkpoint_directory(Path(folder), source), step)
            name = re.sub(r"\.(zip|tar|tar\.gz|tgz)$", "", source.name)
            yield Location(prefix, name, _vocabulary(prefix, within=Path(folder)))
        return
    prefix = _find(source, step)
    yield Location(prefix, prefix.absolute().parent.resolve().name or "electra", _vocabulary(prefix))


def _find(source: Path, step: int | None) -> Path:
    if source.is_dir():
        return _in_directory(source, step)
    prefix = _prefix(source)
    if prefix.name == STATE_FILE and source.is_file():
        return _in_directory(source.parent, step)
    if _index(prefix).is_file():
        if step is not None and not prefix.name.endswith(f"-{step}"):
            raise OptionError(
                f"{source} names one checkpoint, and --step {step} another", hint="give the directory, or leave --step out"
            )
        return prefix
    raise _not_found(source, prefix)


def _prefix(source: Path) -> Path:
    if source.name.endswith((".index", ".meta")):
        return source.with_suffix("")
    data = DATA_FILE.fullmatch(source.name)
    return source.with_name(data["prefix"]) if data else source


def _index(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")


def _not_found(source: Path, prefix: Path) -> SourceError:
    """Say why there is no checkpoint at a path that is no directory."""
    if source.is_file() and prefix == source:
        return UnsupportedCheckpointError(
            f"{source} is one file, and there is no {source.name}.index: a version 1 checkpoint, or none at all",
            hint="restore it in TensorFlow and save it again with tf.compat.v1.train.Saver(write_version="
            "tf.compat.v1.train.SaverDef.V2), then convert what that writes",
        )
    if any(prefix.parent.glob(f"{prefix.name}.data-*")) or source.exists():
        return CheckpointNotFoundError(
            f"{_index(prefix)} is missing: without its index a checkpoint cannot be read",
            hint="copy the .index file to where its .data files are",
        )
    return CheckpointNotFoundError(f"there is no checkpoint at {source}", hint=f"for example: {EXAMPLE}")


def _in_directory(directory: Path, step: int | None) -> Path:
    found = sorted(path.with_suffix("") for path in directory.glob("*.index"))
    if step is not None:
        return _at_step(directory, found, step)
    state = directory / STATE_FILE
    if state.is_file():
        return _latest(state, found)
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointNotFoundError(
            f"{directory} holds {len(found)} checkpoints and no file named {STATE_FILE!r} that says which is the latest",
            problems=[path.name for path in found],
            hint="choose one with --step, or name it",
        )
    raise _nothing_in(directory)


def _at_step(directory: Path, found: list[Path], step: int) -> Path:
    matching = [path for path in found if path.name.endswith(f"-{step}")]
    if len(matching) == 1:
        return matching[0]
    raise CheckpointNotFoundError(
        f"{directory} holds {len(matching) or 'no'} checkpoint{'s' if matching else ''} of step {step}",
        problems=[path.name for path in (matching or found)],
        hint="name one of these" if found else f"for example: {EXAMPLE}",
    )


def _latest(state: Path, found: list[Path]) -> Path:
    """Follow a `checkpoint` file: paths in it may be of the machine that trained, so only base names count."""
    if state.stat().st_size > STATE_LIMIT:
        raise CorruptCheckpointError(f"{state} is too large to be a list of checkpoints")
    match = STATE_LINE.search(state.read_text(encoding="utf-8", errors="replace"))
    if match is None:
        raise CorruptCheckpointError(
            f"{state} names no checkpoint: it has no line `model_checkpoint_path: \"...\"`",
            hint="name the checkpoint itself, for example " + (str(found[-1]) if found else EXAMPLE),
        )
    name = re.split(r"[/\\]+", match["path"])[-1]
    prefix = state.with_name(name)
    if _index(prefix).is_file():
        return prefix
    raise CheckpointNotFoundError(
        f"{state} says that the latest checkpoint is {name}, but {name}.index is not beside it",
        problems=[f"{path.name} is" for path in found],
        hint="copy that checkpoint too, or choose one that is there with --step" if found else f"copy {name}.* too",
    )


def _nothing_in(directory: Path) -> SourceError:
    other = [name for name in OTHER_MODELS if (directory / name).is_file()]
    if other:
        return UnsupportedCheckpointError(
            f"{directory} holds {', '.join(other)}: a model in a framework's format, not a checkpoint of Google's code",
            hint="give the checkpoint that google-research/electra wrote: its .index and .data files",
        )
    data = sorted({match["prefix"] for path in directory.glob("*.data-*") if (match := DATA_FILE.fullmatch(path.name))})
    if data:
        return CheckpointNotFoundError(
            f"{directory} holds data files without their index",
            problems=[f"{name}.index is missing" for name in data],
            hint="copy the .index files too: without its index a checkpoint cannot be read",
        )
    return CheckpointNotFoundError(f"there is no checkpoint in {directory}", hint=f"for example: {EXAMPLE}")


def _vocabulary(prefix: Path, within: Path | None = None) -> Path | None:
    """Find `vocab.txt`: beside the checkpoint, or where Google's code keeps it.

    `run_pretraining.py` reads `<data>/vocab.txt` and writes to `<data>/models/<name>/`.
    """
    folder = prefix.absolute().parent
    places = [folder]
    if folder.parent.name == "models":
        places.append(folder.parent.parent)
    if within is not None:
        places += [parent for parent in folder.parents if parent.is_relative_to(within)]
    return next((place / VOCABULARY for place in places if (place / VOCABULARY).is_file()), None)


# Archives


@dataclass(frozen=True, slots=True)
class _Member:
    """A file in an archive."""

    name: str
    size: int
    regular: bool
    open: Callable[[], IO[bytes]]


def _unpack(archive: Path, folder: Path, progress: Progress) -> None:
    """Unpack what belongs to a checkpoint, and nothing else."""
    try:
        with _members(archive) as members:
            wanted = [member for member in members if _is_wanted(member)]
            total = sum(member.size for member in wanted)
            free = shutil.disk_usage(folder).free
            if free < total:
                raise DiskSpaceError(
                    f"{archive} unpacks to {in_bytes(total)}, but {folder.parent} has {in_bytes(free)} free",
                    hint="free some space, or set TMPDIR to a larger disk",
                )
            with progress("unpacking", total) as advance:
                for member in wanted:
                    _copy(member, folder / PurePosixPath(member.name), archive, advance)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise CorruptCheckpointError(
            f"{archive} cannot be unpacked: {error}", hint="download it again, or unpack it yourself"
        ) from error


def _is_wanted(member: _Member) -> bool:
    path = PurePosixPath(member.name)
    name = path.name
    belongs = name in (STATE_FILE, VOCABULARY) or name.endswith((".index", ".json")) or DATA_FILE.fullmatch(name)
    if not belongs or any(part.startswith("._") or part == "__MACOSX" for part in path.parts):
        return False
    if path.is_absolute() or ".." in path.parts or not member.regular:
        raise CorruptCheckpointError(f"the archive's member {member.name!r} is a link, or lies outside the archive")
    return True


def _copy(member: _Member, path: Path, archive: Path, advance: Callable[[int], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    copied = 0
    with member.open() as stream, path.open("xb") as file:
        while chunk := stream.read(CHUNK):
            copied += len(chunk)
            if copied > member.size:
                raise CorruptCheckpointError(f"{archive}: {member.name} unpacks to more than the {member.size} bytes it declares")
            file.write(chunk)
            advance(len(chunk))
    if copied < member.size:
        raise CorruptCheckpointError(f"{archive}: {member.name} unpacks to {copied} of the {member.size} bytes it declares")


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as pack:
            yield (
                _Member(info.filename, info.file_size, _is_regular(info), lambda info=info: pack.open(info))  # type: ignore[misc]
                for info in pack.infolist()
                if not info.is_dir()
            )
    else:
        with tarfile.open(archive) as tar:
            yield (
                _Member(info.name, info.size, info.isreg(), lambda info=info: _stream(tar, info))  # type: ignore[misc]
                for info in tar.getmembers()
                if not info.isdir()
            )


def _is_regular(info: zipfile.ZipInfo) -> bool:
    mode = info.external_attr >> 16
    return not mode or not stat.S_IFMT(mode) or stat.S_ISREG(mode)


def _stream(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(info)
    if stream is None:
        raise tarfile.ReadError(f"{info.name} has no content")
    return stream


def _only_checkpoint_directory(folder: Path, archive: Path) -> Path:
    directories = sorted({path.parent for path in folder.rglob("*.index")})
    if len(directories) == 1:
        return directories[0]
    raise CheckpointNotFoundError(
        f"{archive} holds {len(directories) or 'no'} directories with a checkpoint",
        problems=[str(path.relative_to(folder)) for path in directories],
        hint="unpack it, and give the directory you want",
    )
