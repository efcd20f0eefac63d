"""Outputs are copied elsewhere, and what a copy that broke off leaves does not look like a model."""

from __future__ import annotations

import shutil
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec

from electra_convert.errors import OptionError, OutputError, OutputExistsError
from electra_convert.output import make_directory, replacing
from electra_convert.plan import RECORD_FILE
from electra_convert.progress import Advance, Progress, no_progress
from electra_convert.remote.cache import digest_of, sync
from electra_convert.remote.place import CHUNK, LOCAL, Remote, Seen, open_remote, stream, told

MARKER = "config.json"
"""Without it a directory is no model to anything that loads one."""


class CopyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a copy.

    Args:
        url: Where it is, without secrets.
        sent: The files that were sent, in that order.
        unchanged: Those that were there: their checksum is the same, or every byte.
        removed: What else lay in the directory of a model that was replaced.
        nbytes: Bytes that were sent.
    """

    url: str
    sent: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    nbytes: int


def copy_directory(
    directory: Path, url: str, *, overwrite: bool = False, progress: Progress = no_progress
) -> CopyReport:
    """Copy a finished output, or one head's directory, to a URL.

    Hidden files are notes for this machine, and stay here. Each model's `config.json` goes last, and is taken away
    before a file of it is replaced: what a copy that broke off leaves does not look like a model. A model that the
    same conversion made, as its `conversion.json` says, is completed; any other is in the way.

    Args:
        directory: What to copy.
        url: The folder it is to be.
        overwrite: Replace models that are there and differ.
        progress: Shows progress.

    Raises:
        OutputExistsError: Something else is there, and is not to be replaced.
        OutputError: It cannot be written.
        OptionError: There is no such kind of URL, or what it needs is not installed.
    """
    target = open_remote(url)
    if not target.is_writable:
        raise OptionError(
            f"{target} cannot be written to", hint="copy to gs://, s3:// or another that can; the Hub takes uploads"
        )
    folders = [_compared(folder, target, directory) for folder in _folders(directory)]
    others = [folder for folder in folders if not folder.is_this]
    in_the_way = [str(remote) for folder in others for remote in (*folder.differing.values(), *folder.foreign)]
    if in_the_way and not overwrite:
        raise OutputExistsError(
            f"{target} holds something else already",
            problems=in_the_way,
            hint="choose another place, or replace what is there with --overwrite",
        )
    sent = [path for folder in folders for path in folder.to_send]
    nbytes = sum(path.stat().st_size for path in sent)
    with progress("copying", nbytes) as advance:
        for folder in folders:
            _send_folder(folder, advance)
    return CopyReport(
        url=str(target),
        sent=tuple(path.relative_to(directory).as_posix() for path in sent),
        unchanged=tuple(path.relative_to(directory).as_posix() for folder in folders for path in folder.unchanged),
        removed=tuple(str(remote) for folder in folders for remote in folder.foreign),
        nbytes=nbytes,
    )


class _Compared(msgspec.Struct, frozen=True):
    """The files of a folder beside those of the folder they are copied to.

    Args:
        same: Those that are there, by their path here.
        new: Those that are not.
        differing: Those that are, with another content.
        foreign: What else is there in a model that is to be replaced.
    """

    same: dict[Path, Remote]
    new: dict[Path, Remote]
    differing: dict[Path, Remote]
    foreign: list[Remote]

    @property
    def is_this(self) -> bool:
        """Whether what is there was made by the same conversion."""
        return any(path.name == RECORD_FILE for path in self.same)

    @property
    def marker(self) -> dict[Path, Remote]:
        """What makes a model of a folder there that is to be replaced."""
        there = {**self.same, **self.differing} if self.differing else {}
        return {path: remote for path, remote in there.items() if path.name == MARKER}

    @property
    def to_send(self) -> dict[Path, Remote]:
        """The files to send, in that order."""
        files = {**self.new, **self.differing, **self.marker}
        return {path: files[path] for path in sorted(files, key=_order)}

    @property
    def unchanged(self) -> list[Path]:
        """The files that stay as they are."""
        return sorted(self.same.keys() - self.marker.keys())


def _order(path: Path) -> tuple[bool, bool, Path]:
    """Sort what says which conversion made a model first, and what makes it one last."""
    return path.name == MARKER, path.name != RECORD_FILE, path


def _folders(directory: Path) -> list[Path]:
    """Return the folders that hold files to be copied.

    Raises:
        OptionError: There are none.
    """
    inside = [path for path in directory.rglob("*") if path.is_file() and not _is_hidden(path, directory)]
    if not inside:
        raise OptionError(f"{directory} holds nothing that could be copied", hint="give the output of a conversion")
    return sorted({path.parent for path in inside})


def _is_hidden(path: Path, directory: Path) -> bool:
    return any(name.startswith(".") for name in path.relative_to(directory).parts)


def _compared(folder: Path, target: Remote, directory: Path) -> _Compared:
    for name in folder.relative_to(directory).parts:
        target = target.child(name)
    files = {path: target.child(path.name) for path in folder.iterdir() if path.is_file() and path.name[0] != "."}
    seen = {path: there for path, remote in files.items() if (there := remote.look())}
    same = {path: files[path] for path, there in seen.items() if _is_same(path, files[path], there)}
    compared = _Compared(
        same=same,
        new={path: remote for path, remote in files.items() if path not in seen},
        differing={path: files[path] for path in seen if path not in same},
        foreign=[],
    )
    if compared.differing and not compared.is_this and folder / MARKER in files:
        compared.foreign.extend(_foreign(target, {path.name for path in files}))
    return compared


def _foreign(target: Remote, names: AbstractSet[str]) -> list[Remote]:
    """Return the files in a folder elsewhere that have other names, hidden ones aside."""
    there = [name for name, is_folder in target.listed().items() if not is_folder and not name.startswith(".")]
    return [target.child(name) for name in sorted(set(there) - names)]


def _is_same(path: Path, remote: Remote, seen: Seen) -> bool:
    """Return whether a file is there with this content: by its checksum, or else by every byte of it."""
    if seen.is_folder or seen.size not in (None, path.stat().st_size):
        return False
    if seen.checksum:
        return digest_of(path, seen.checksum[0]) == seen.checksum[1]
    if seen.etag.strip('"') == digest_of(path, "md5").hex():  # S3: as a rule, not always
        return True
    with stream(remote, seen) as (chunks, _), path.open("rb") as file:
        return all(file.read(len(data)) == data for data in chunks) and not file.read(1)


def _send_folder(folder: _Compared, advance: Advance) -> None:
    for remote in (*folder.marker.values(), *folder.foreign):
        with told(remote, writing=True):
            remote.fs.rm_file(remote.path)
    for path, remote in folder.to_send.items():
        _send(path, remote)
        advance(path.stat().st_size)


def _send(path: Path, remote: Remote) -> None:
    """Copy a file, and see that it arrived."""
    with told(remote, writing=True):
        if remote.scheme in LOCAL:
            _copy(path, Path(remote.path))
        else:
            remote.fs.put_file(str(path), remote.path)
    seen = remote.look()
    size = path.stat().st_size
    if seen is None or seen.size not in (None, size):
        raise OutputError(f"{remote} did not arrive: {seen.size if seen else 'none'} of {size} bytes", hint="try again")
    if seen.checksum and digest_of(path, seen.checksum[0]) != seen.checksum[1]:
        raise OutputError(f"{remote} is damaged: its {seen.checksum[0]} is another than here", hint="try again")


def _copy(path: Path, target: Path) -> None:
    make_directory(target.parent)
    with replacing(target) as beside, path.open("rb") as source, beside.open("xb") as file:
        shutil.copyfileobj(source, file, CHUNK)
        sync(file)
