"""From what the user typed to where the checkpoint is.

A source is a directory, a prefix, one of a checkpoint's files, or an archive of such a directory, which is
unpacked for as long as it is needed. It may lie elsewhere, at a URL: then a mirror of its directory stands for it, in
which only the files that are needed have content, so that what holds for directories is said once.
"""

from __future__ import annotations

import glob
import os
import re
from contextlib import contextmanager, suppress
from itertools import takewhile
from math import inf
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from electra_convert.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    OptionError,
    SourceError,
    UnsupportedCheckpointError,
)
from electra_convert.formats.google_tf1 import HEADER_KEY, MAX_INDEX_SIZE, index_path, shard_path
from electra_convert.formats.sstable import MAGIC, read_table
from electra_convert.formats.weights import named_files, weight_names
from electra_convert.formats.wire import DamageError, Message
from electra_convert.model_directory import is_model_directory, is_weight_file, nearby_model_directories
from electra_convert.models.files import CONFIG_FILE as MODEL_CONFIG
from electra_convert.output import scratch_folder
from electra_convert.progress import Progress, no_progress
from electra_convert.remote.place import LOCAL, is_url, open_remote, shown
from electra_convert.tokenizer import TOKENIZER_FILES
from electra_convert.whole_file import NAME_LIMIT, open_file, read_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from electra_convert.remote.cache import Mirror
    from electra_convert.remote.place import Remote

EXAMPLE = "for example: electra-convert --part discriminator path/to/electra_small"
RESAVE_HINT = (
    "restore it in TensorFlow, save it again with tf.compat.v1.train.Saver(write_version="
    "tf.compat.v1.train.SaverDef.V2), and convert what that writes"
)
INDEX_HINT = "copy the .index files too: without its index a checkpoint cannot be read"

STATE_FILE = "checkpoint"
"""Name of the file in which TensorFlow notes the latest checkpoint of a directory."""
STATE_LINE = re.compile(r'^[^\S\n]*model_checkpoint_path\s*:\s*"(?P<path>(?:[^"\\\n]++|\\.)*+)"', re.MULTILINE)
STATE_ESCAPE = re.compile(r"\\(?P<code>\\|[0-3][0-7]{2})")
STATE_LIMIT = 1 << 22
"""Bytes; it has a line of a hundred for each checkpoint that was kept."""
VOCABULARY = "vocab.txt"
DATA_FILE = re.compile(r"(?P<prefix>.+)\.data-\d{5}-of-\d{5}")
STEP = re.compile(r".+-(?P<step>[0-9]{1,18})")
SAVED_MODEL = "saved_model.pb"

MOST_SHOWN = 10

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MOST_DOCUMENT = 1 << 27
"""Bytes of a file in an archive that is no data file."""


class Location(msgspec.Struct, frozen=True):
    """Where a checkpoint is.

    Args:
        prefix: What the paths of its files begin with: `electra_small/model.ckpt-30`; the directory of a model.
        name: What to call it: the name of its directory, or of the archive.
        vocabulary: The `vocab.txt` that belongs to it, if there is one.
        is_model: It is a model of a framework, and not a checkpoint of Google's code.
        file: The file of the model's weights that is named, if one is.
    """

    prefix: Path
    name: str
    vocabulary: Path | None
    is_model: bool = False
    file: Path | None = None


@contextmanager
def locate(
    source: str | os.PathLike[str], *, step: int | None = None, values: bool = True, progress: Progress = no_progress
) -> Iterator[Location]:
    """Find the checkpoint that `source` names.

    Args:
        source: A directory, prefix, `.index`, `.data-*` or `checkpoint` file, an archive, or the URL of one of these:
            `hf://org/name` on the Hub, and `google://electra-small` for what Google released, are URLs too. Or the
            directory of a model, or a file of its weights.
        step: The step to use; by default the one the `checkpoint` file names.
        values: Whether the values will be read. If not, the data files of a checkpoint elsewhere are not downloaded:
            files of their sizes stand for them.
        progress: Shows the progress of downloading and unpacking.

    Raises:
        SourceError: There is none, or it is of a kind that is not read; the subclass says which.
        OptionError: The source names one step, and `step` another; or what reads its URL is not installed.
        HubPermissionError: The token for the Hub can be none.
        DiskSpaceError: There is no room to download it, or to unpack an archive.
    """
    if is_url(source):
        place = open_remote(str(source))
        if place.scheme not in LOCAL:
            with _elsewhere(place, step, values=values, progress=progress) as location:
                yield location
            return
        source = place.path
    with _here(Path(source), step, progress) as location:
        yield location


@contextmanager
def _here(source: Path, step: int | None, progress: Progress) -> Iterator[Location]:
    suffix = archive_suffix(source.name)
    if suffix and os.path.isfile(source):  # noqa: PTH113 false, where Path.is_file() raises
        from electra_convert.archive import unpack

        with scratch_folder() as folder:
            unpack(source, folder, limit=_limit, progress=progress)
            with _told_of(source, stand_in=str(folder)):
                with _readable(source):
                    prefix = _in_directory(_only_checkpoint_directory(folder, source), step)
                    vocabulary = _vocabulary(prefix, within=folder)
                yield Location(prefix, source.name.removesuffix(suffix), vocabulary)
    elif model := _model(source, step):
        yield model
    else:
        with _readable(source):
            prefix = _find(source, step)
            location = Location(prefix, prefix.parent.resolve().name or "electra", _vocabulary(prefix))
        yield location


def _model(source: Path, step: int | None) -> Location | None:
    """Return where a model of a framework is, given its directory or a file of its weights; `None`, if it is none."""
    with _readable(source):
        file = source if is_weight_file(source) else None
        directory = source.parent if file else source
        if not is_model_directory(directory):
            return None
        if step is not None:
            raise OptionError(f"{directory} is a model, which has no steps", hint="leave --step out")
        return Location(
            directory,
            directory.resolve().name or "electra",
            _first_file([directory / VOCABULARY]),
            is_model=True,
            file=file,
        )


def _limit(name: str) -> float:
    """Return the bytes that a file of a checkpoint may have in an archive, by its name; 0, if it is none.

    macOS adds files whose names begin with `._`.
    """
    if name.startswith("._"):
        return 0
    if DATA_FILE.fullmatch(name):
        return inf
    return MOST_DOCUMENT if name in (STATE_FILE, VOCABULARY) or name.endswith((".index", ".json")) else 0


def archive_suffix(name: str) -> str:
    """Return what makes a name that of an archive, as it is written there; nothing, if it is not."""
    return next((name[-len(suffix) :] for suffix in ARCHIVES if name.lower().endswith(suffix)), "")


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"cannot read {error.filename or source}: {error.strerror}", hint="give a checkpoint that you may read"
        ) from error


@contextmanager
def _told_of(place: object, *, stand_in: str, blind_spot: str = "") -> Iterator[None]:
    """Tell of errors with paths in an archive, or elsewhere; those of what stands for it here will be gone."""
    try:
        yield
    except SourceError as error:
        hint = "; ".join(filter(None, [blind_spot, error.hint]))
        texts = [text.replace(stand_in, str(place)) for text in (error.message, hint, *error.problems)]
        raise type(error)(texts[0], hint=texts[1], problems=texts[2:]) from None


def _find(source: Path, step: int | None) -> Path:
    if source.is_dir():
        return _in_directory(source, step)
    if source.name == STATE_FILE and source.is_file():
        return _in_directory(source.parent, step)
    prefix = _prefix(source)
    if not index_path(prefix).is_file():
        raise _not_found(source, prefix)
    if step is not None and not _is_at(prefix, step):
        raise OptionError(
            f"{source} names one checkpoint, and --step {step} another",
            hint="give the directory, or leave --step out",
        )
    return prefix


def _prefix(source: Path) -> Path:
    """Return what the paths of a checkpoint's files begin with, given any of them."""
    if source.suffix in (".index", ".meta"):
        return source.with_suffix("")
    data = DATA_FILE.fullmatch(source.name)
    return source.with_name(data["prefix"]) if data else source


def _not_found(source: Path, prefix: Path) -> SourceError:
    """Say why there is no checkpoint at a path that is no directory."""
    if _is_version_1(prefix):
        return _version_1(prefix)
    if prefix.parent.is_dir() and prefix in _without_index(prefix.parent):
        return CheckpointNotFoundError(f"{index_path(prefix)} is missing", hint=INDEX_HINT)
    if source.is_file():
        return UnsupportedCheckpointError(
            f"{source} is no file of a checkpoint of Google's code",
            hint="give the directory that google-research/electra wrote: it holds .index and .data files",
        )
    if os.path.lexists(source):
        return UnsupportedCheckpointError(f"{source} is no file and no folder that can be read", hint=EXAMPLE)
    return CheckpointNotFoundError(f"there is no checkpoint at {source}", hint=EXAMPLE)


# Directories


def _in_directory(directory: Path, step: int | None) -> Path:
    found = [_prefix(path) for path in directory.glob("*.index") if path.is_file() and not path.name.startswith("._")]
    found.sort(key=_by_step)
    if step is not None and found:
        return _at_step(directory, found, step)
    state = directory / STATE_FILE
    if os.path.lexists(state) and not state.is_dir():
        return _latest(state, found)
    if not found:
        raise _nothing_in(directory)
    if len(found) > 1:
        raise CheckpointNotFoundError(
            f"{directory} holds {len(found)} checkpoints, and no file {STATE_FILE!r} that says which is the latest",
            problems=[prefix.name for prefix in found],
            hint="choose one with --step, or name it",
        )
    return found[0]


def _only_checkpoint_directory(folder: Path, archive: Path) -> Path:
    directories = sorted({path.parent for path in folder.rglob("*.index")})
    if len(directories) != 1:
        raise CheckpointNotFoundError(
            f"{archive} holds {len(directories) or 'no'} directories with a checkpoint",
            problems=[str(path.relative_to(folder)) for path in directories],
            hint="unpack it, and give the directory you want" if directories else EXAMPLE,
        )
    return directories[0]


def _is_at(prefix: Path, step: int) -> bool:
    return step_of(prefix.name) == step


def step_of(name: str) -> int | None:
    """Return the step in the name of a prefix, `model.ckpt-1000`; nothing, if there is none."""
    found = STEP.fullmatch(name)
    return int(found["step"]) if found else None


def _by_step(path: PurePath) -> tuple[int, str]:
    """Sort step 9 before step 10, and what has no step before both."""
    name = path.name.removesuffix(archive_suffix(path.name))
    step = step_of(name)
    return -1 if step is None else step, str(path)


def _at_step(directory: Path, found: list[Path], step: int) -> Path:
    matching = [prefix for prefix in found if _is_at(prefix, step)]
    if len(matching) != 1:
        raise CheckpointNotFoundError(
            f"{directory} holds {len(matching) or 'no'} checkpoint{'s' if matching else ''} of step {step}",
            problems=[prefix.name for prefix in matching or found],
            hint="name one of these by its .index file" if matching else "choose one of these",
        )
    return matching[0]


def _latest(state: Path, found: list[Path]) -> Path:
    """Follow a `checkpoint` file: paths in it may be of the machine that trained, so only base names count."""
    name = _latest_name(state)
    prefix = state.with_name(name)
    if prefix in found:
        return prefix
    if _is_version_1(prefix):
        raise _version_1(prefix)
    there = "beside it is no file that can be read" if os.path.lexists(index_path(prefix)) else "is not beside it"
    raise CheckpointNotFoundError(
        f"{state} says that the latest checkpoint is {name}, but {name}.index {there}",
        problems=[f"{other.name} is" for other in found],
        hint=f"copy {name}.* too" + (", or choose one that is there with --step" if found else ""),
    )


def _latest_name(state: Path) -> str:
    """Return the base name in a `checkpoint` file, a text protocol buffer: other bytes than ASCII are escaped."""
    line = STATE_LINE.search(read_whole(state, STATE_LIMIT).decode("latin-1"))
    path = STATE_ESCAPE.sub(_unescape, line["path"]) if line else ""
    name = re.split(r"[/\\]", path)[-1]
    if name in ("", ".", "..") or "\0" in name or len(name) > NAME_LIMIT:
        raise CorruptCheckpointError(
            f'{state} names no checkpoint: it has no line `model_checkpoint_path: "..."` that does',
            hint="name the checkpoint itself, by its .index file",
        )
    return os.fsdecode(name.encode("latin-1"))


def _unescape(escape: re.Match[str]) -> str:
    code = escape["code"]
    return code if code == "\\" else chr(int(code, 8))


def _nothing_in(directory: Path) -> SourceError:
    """Say what there is in a directory without an index."""
    if (directory / SAVED_MODEL).is_file():
        return UnsupportedCheckpointError(
            f"{directory} holds {SAVED_MODEL}, which is not read",
            hint="give the directory that google-research/electra wrote, with .index and .data files, or of a model, "
            "with config.json and weights",
        )
    version_1 = [path for path in sorted(directory.iterdir()) if _is_version_1(path)]
    if version_1:
        return _version_1(version_1[-1])
    incomplete = [f"{index_path(prefix).name} is missing" for prefix in sorted(_without_index(directory))]
    if incomplete:
        return CheckpointNotFoundError(
            f"{directory} holds files of checkpoints without their index",
            problems=incomplete,
            hint=INDEX_HINT,
        )
    below = sorted({str(path.parent) for path in directory.glob("*/*.index")})
    below += map(str, nearby_model_directories(directory))
    hint = f"give a directory that holds one: {', '.join(below[:MOST_SHOWN])}" if below else EXAMPLE
    there = [f"{path.name} is there" for path in sorted(directory.iterdir())]
    return CheckpointNotFoundError(
        f"there is no checkpoint in {directory}", problems=[] if below else there[:MOST_SHOWN], hint=hint
    )


def _without_index(directory: Path) -> set[Path]:
    """Return the prefixes of data files and graphs that have no index."""
    prefixes = {_prefix(path) for path in directory.iterdir() if _prefix(path) != path}
    return {prefix for prefix in prefixes if not index_path(prefix).is_file()}


def _is_version_1(path: Path) -> bool:
    """Return whether a file is a checkpoint of version 1, a single table of names, shapes and values.

    It may be one of several: `model.ckpt-30-00000-of-00004`.
    """
    if path.suffix == ".index" or not path.is_file():
        return False
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(MAGIC)))
        return file.read(len(MAGIC)) == MAGIC


def _version_1(path: Path) -> SourceError:
    return UnsupportedCheckpointError(
        f"{path} is a version 1 checkpoint, the format from before TensorFlow 0.12; only version 2 is read",
        hint=RESAVE_HINT,
    )


def _vocabulary(prefix: Path, within: Path | None = None) -> Path | None:
    """Find `vocab.txt` where it may lie, or anywhere above the checkpoint in an archive."""
    places = _vocabularies(prefix.absolute().parent)
    if within is not None:
        above = prefix.absolute().parent.parents
        places += [parent / VOCABULARY for parent in above if parent.is_relative_to(within)]
    return _first_file(places)


def _first_file(places: Iterable[Path]) -> Path | None:
    """Return the first of some paths at which something is, if that can be read."""
    place = next(filter(os.path.lexists, places), None)
    if place is not None and not place.is_file():
        open_file(place).close()  # says why it cannot be read
    return place


def _vocabularies(folder: Path) -> list[Path]:
    """Return where `vocab.txt` may lie: beside the checkpoint, or where Google's code keeps it.

    `run_pretraining.py` reads `<data>/vocab.txt` and writes to `<data>/models/<name>/`.
    """
    places = [folder]
    if folder.parent.name == "models":
        places.append(folder.parent.parent)
    return [place / VOCABULARY for place in places]


# Elsewhere


@contextmanager
def _elsewhere(place: Remote, step: int | None, *, values: bool, progress: Progress) -> Iterator[Location]:
    """Find a checkpoint in a mirror of the directory that a URL names, or names a file in."""
    from electra_convert.remote.cache import Mirror, fetch

    archive = bool(archive_suffix(place.name)) and _is_file(place)
    inside = archive or _is_in_its_folder(place)
    folder = place.parent if inside else place
    with scratch_folder() as root:
        mirror = Mirror(folder, root)
        source = mirror.path / place.name if inside else mirror.path
        with _told_of(folder, stand_in=str(mirror.path), blind_spot=folder.blind_spot):
            if archive:
                fetch({source: place}, progress)
            else:
                _fill(mirror, source, step, values=values, progress=progress)
            with _here(source, step, progress) as location:
                yield location


def _is_file(place: Remote) -> bool:
    seen = place.look()
    if seen is None:
        raise CheckpointNotFoundError(f"there is nothing at {place}", hint="check the address")
    return not seen.is_folder


def _is_in_its_folder(place: Remote) -> bool:
    """Return whether a URL names a prefix, or a file, and not a directory: of these a web server knows nothing."""
    if place.is_root:
        return False
    name = Path(place.name)
    if name.name == STATE_FILE or _prefix(name) != name or name.name in weight_names():
        return True
    if place.parent.child(index_path(name).name).look():
        return True
    seen = None if place.is_web else place.look()
    return seen is not None and not seen.is_folder


def _fill(mirror: Mirror, source: Path, step: int | None, *, values: bool, progress: Progress) -> None:
    """Let a mirror have what is needed to find a checkpoint, and to read it."""
    if source.name == STATE_FILE or source == mirror.path:
        _fill_directory(mirror)
    elif source.name not in weight_names():
        mirror.place(index_path(_prefix(source)))
    if source.name in weight_names() or is_model_directory(mirror.path):
        _fill_model(mirror, source, progress)
        return
    prefix = _find(source, step)
    mirror.fill([index_path(prefix)])
    data = list(takewhile(mirror.place, _data_files(prefix)))
    vocabulary = next(filter(mirror.place, _vocabularies(prefix.parent)), None)
    wanted = [*(data if values else ()), *filter(None, [vocabulary])]
    mirror.fill(wanted, progress)


def _fill_model(mirror: Mirror, source: Path, progress: Progress) -> None:
    """Let a mirror have a model: the weights that are named, or those that are read first, and what is beside them."""
    names = weight_names() if source == mirror.path else [source.name]
    weights = next(filter(mirror.place, (mirror.path / name for name in names)), None)
    for name in {*weight_names()} - {weights.name if weights else ""}:
        (mirror.path / name).unlink(missing_ok=True)  # which was listed, and is not read
    mirror.fill(filter(mirror.place, (mirror.path / name for name in (MODEL_CONFIG, *TOKENIZER_FILES))))
    mirror.fill(filter(None, [weights]), progress)
    mirror.fill([file for file in named_files(mirror.path) if file != weights and mirror.place(file)], progress)


def _fill_directory(mirror: Mirror) -> None:
    """Let a mirror have the names in a directory, and the content of its `checkpoint` file."""
    state = mirror.path / STATE_FILE
    is_listed = mirror.list()
    if state.is_file() if is_listed else mirror.place(state):
        mirror.fill([state])
        if not is_listed:
            mirror.place(index_path(state.with_name(_latest_name(state))))


def _data_files(prefix: Path) -> Iterator[Path]:
    """Yield the data files that an index counts; none of a damaged one, which tells of itself when it is opened."""
    with suppress(DamageError, KeyError, OSError):
        count = Message(read_table(read_whole(index_path(prefix), MAX_INDEX_SIZE))[HEADER_KEY]).number(1)
        yield from (shard_path(prefix, number, count) for number in range(count))


# Patterns


def expand_source(pattern: str | os.PathLike[str]) -> list[str | Path]:
    """Return the checkpoints that match a pattern, in the order of their steps.

    ::

        expand_source("run/model.ckpt-*")  # [Path("run/model.ckpt-900"), Path("run/model.ckpt-1000")]

    Args:
        pattern: A source, which is returned as it is, or one with `*`, `?`, `[...]` or `**` in its path: it matches
            prefixes, directories that hold a checkpoint or a model, and archives. In a web address `?` begins the
            query; on the Hub there are no patterns.

    Raises:
        CheckpointNotFoundError: None does.
        SourceError: The place cannot be read.
        OptionError: What reads the URL is not installed, or it cannot be a pattern.
    """
    text = os.fspath(pattern)
    place = open_remote(text) if is_url(text) else None
    if place and place.scheme not in LOCAL:
        path, _, query = text.partition("?") if place.is_web else (text, "", "")
        if not glob.has_magic(path):
            return [text]
        if place.is_on_hub:
            raise OptionError(f"{place} is a pattern, which matches nothing on the Hub", hint="name each checkpoint")
        if query:
            raise OptionError(f"{place} is a pattern with a query, which matches nothing", hint="leave the query out")
        from electra_convert.remote.place import matches

        return list(_expanded(path, matches, lambda folder: open_remote(folder).listed()))
    text = place.path if place else text
    if not glob.has_magic(text) or os.path.lexists(text) or index_path(Path(text)).is_file():
        return [Path(text)]
    with _readable(Path(text)):
        return [Path(path) for path in _expanded(text, _matches, _names)]


def _expanded(
    pattern: str, find: Callable[[str], Mapping[str, bool]], names: Callable[[str], Iterable[str]]
) -> list[str]:
    """Return what matches a pattern and is a source, in the order of steps.

    Args:
        pattern: The pattern.
        find: Tells what matches one, each with whether it is a folder.
        names: Tells the names in a folder.
    """
    pattern = pattern.rstrip("/")
    sources = set()
    for path, is_folder in {**find(f"{pattern}.index"), **find(pattern)}.items():
        name = PurePosixPath(path).name
        if is_folder:
            sources |= {path} if any(_is_telling(inside) for inside in names(path)) else set()
        elif archive_suffix(name):
            sources.add(path)
        elif name.endswith(".index") and not name.startswith("._"):
            sources.add(path.removesuffix(".index"))
    if not sources:
        raise _no_match(pattern, names)
    return sorted(sources, key=lambda path: _by_step(PurePosixPath(path)))


def _is_telling(name: str) -> bool:
    """Say whether a folder with a file of this name holds a checkpoint, or a model."""
    return name.endswith(".index") or name in weight_names()


def _no_match(pattern: str, names: Callable[[str], Iterable[str]]) -> CheckpointNotFoundError:
    fixed = "/".join(takewhile(lambda part: not glob.has_magic(part), pattern.split("/"))) or os.curdir
    there: Iterable[str] = ()
    with suppress(OSError, SourceError):
        there = sorted(names(fixed), key=lambda name: _by_step(PurePosixPath(name)))
    return CheckpointNotFoundError(
        f"no checkpoint matches {shown(pattern)}",
        problems=[f"{name} is there" for name in list(there)[:MOST_SHOWN]],
        hint="a pattern matches prefixes (run/model.ckpt-*), directories that hold a checkpoint, and archives",
    )


def _matches(pattern: str) -> dict[str, bool]:
    return {path: Path(path).is_dir() for path in glob.glob(pattern, recursive=True)}  # noqa: PTH207  # no Path.glob


def _names(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()]
