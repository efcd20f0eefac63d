"""A repository on the Hub, read by the Hub's own client: `hf://org/name[@revision][/folder]`.

What is downloaded lies in the client's cache, where other programs find it too. All files are those of one commit, the
one that the revision named at first. Offline (`HF_HUB_OFFLINE`), the files in that cache are all there is.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

import msgspec

from electra_convert.errors import CorruptCheckpointError, DiskSpaceError, ElectraConvertError, SourceError
from electra_convert.hub.client import Doing, Hub, causes, client_errors, explained, find_token, safe_cause, status_of
from electra_convert.hub.names import MAIN, check_repo_id, place_name

AT_REFERENCE = re.compile(r"@(refs/(?:pr|convert)/[^/]+)")
"""References of the Hub itself, whose slashes need not be spelt as %2F."""
CACHE_HINT = "free some space, or set HF_HUB_CACHE to a folder on a larger disk"


class _Commit(msgspec.Struct, frozen=True):
    """What a repository holds.

    Args:
        oid: The hash of the commit.
        sizes: The bytes of each file, by its path.
    """

    oid: str
    sizes: Mapping[str, int | None]


@dataclass(frozen=True)
class Repository:
    """A repository at a revision, with those verbs of an `fsspec` file system that reading needs.

    Args:
        repo_id: The repository: `org/name`.
        revision: A branch, a tag or a commit.
    """

    repo_id: str
    revision: str

    @classmethod
    def named(cls, parts: tuple[str, ...]) -> Repository:
        """Return the repository that the first two parts of a URL name; the Hub is not asked.

        Raises:
            OptionError: They name none.
        """
        repo_id, _, revision = "/".join(parts[:2]).partition("@")
        check_repo_id(repo_id)
        return cls(repo_id, unquote(revision) or MAIN)

    def __str__(self) -> str:
        """Return what to call it."""
        return place_name(self.repo_id, self.revision)

    @property
    def blind_spot(self) -> str:
        """What is there and may not be seen."""
        return "HF_HUB_OFFLINE is set: only files in the cache of the Hub's client are seen" if _is_offline() else ""

    # What `fsspec` calls

    def _strip_protocol(self, url: str) -> str:
        return "/".join(url.partition("://")[2].split("/")[2:])

    def invalidate_cache(self) -> None:
        """Do nothing: a commit does not change."""

    def info(self, path: str) -> dict[str, object]:
        """Tell of a file or a folder.

        Raises:
            FileNotFoundError: There is none.
            SourceError: The repository cannot be read.
        """
        if path in self._commit.sizes:
            return {"type": "file", "size": self._commit.sizes[path], "kept": self._kept(path)}
        if path in self._folders:
            return {"type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, *, detail: bool) -> list[dict[str, str]]:  # noqa: ARG002  # fsspec's signature
        """List what is in a folder, and in the folders in it: it is known all the same.

        Raises:
            FileNotFoundError: There is no such folder.
            SourceError: The repository cannot be read.
        """
        if path not in self._folders:
            raise FileNotFoundError(path)
        kinds = {**dict.fromkeys(self._folders, "directory"), **dict.fromkeys(self._commit.sizes, "file")}
        below = f"{path}/" if path else ""
        return [{"name": each, "type": kind} for each, kind in kinds.items() if each.startswith(below)]

    def keep(self, path: str) -> None:
        """Let a file be in the client's cache. The client shows its own bars, and goes on where it broke off.

        Raises:
            SourceError: It cannot be read, or is of another commit than what was read before.
            DiskSpaceError: There is no room for it.
        """
        with self._told():
            self._hub.api.hf_hub_download(self.repo_id, path, revision=self.revision)
        if not self._kept(path).is_file():
            raise CorruptCheckpointError(f"{self} changed while it was read", hint="run it again")

    # What the Hub tells

    @cached_property
    def _hub(self) -> Hub:
        return Hub(waits=())

    @cached_property
    def _commit(self) -> _Commit:
        with self._told():
            return self._cached() if _is_offline() else self._current()

    def _current(self) -> _Commit:
        find_token()  # one that can be none would be in the client's errors
        found = self._hub.api.model_info(self.repo_id, revision=self.revision, files_metadata=True)
        return _Commit(found.sha, {each.rfilename: each.size for each in found.siblings})

    def _cached(self) -> _Commit:
        """Return the commit that is in the cache, and those of its files that are; it need not be all of them."""
        options = {"revision": self.revision, "allow_patterns": [], "local_files_only": True}
        folder = Path(self._hub.api.snapshot_download(self.repo_id, **options))
        files = (path for path in folder.rglob("*") if path.is_file())
        return _Commit(folder.name, {path.relative_to(folder).as_posix(): path.stat().st_size for path in files})

    @cached_property
    def _folders(self) -> list[str]:
        """The paths of all folders, those within others after them; the repository itself is the first."""
        folders = {str(folder) for path in self._commit.sizes for folder in PurePosixPath(path).parents} | {"."}
        return sorted("" if folder == "." else folder for folder in folders)

    def _kept(self, path: str) -> Path:
        """Return where the client keeps a file of the commit, as its documentation says."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        repository: str = repo_folder_name(repo_id=self.repo_id, repo_type="model")
        return Path(constants.HF_HUB_CACHE, repository, "snapshots", self._commit.oid, path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the client says into one of our errors, without the token in its text or its cause."""
        try:
            yield
        except client_errors() as error:
            raise self._explained(error) from safe_cause(error)

    def _explained(self, error: Exception) -> ElectraConvertError:
        from huggingface_hub import errors

        log_in = "log in with `hf auth login`, or set HF_TOKEN"
        if isinstance(error, errors.GatedRepoError):
            return SourceError(
                f"{self} is gated: who may read it, its owner decides", hint=f"ask for access on its page; {log_in}"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return SourceError(
                f"the Hub does not know {self.repo_id}, or does not show it to you",
                hint=f"check the name; if it is private, {log_in}",
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return SourceError(
                f"{self.repo_id} has no revision {self.revision!r}", hint="give a branch, a tag or a whole commit hash"
            )
        if _is_offline() and isinstance(error, errors.LocalEntryNotFoundError):
            return SourceError(
                f"{self} is not in the cache of the Hub's client", hint="unset HF_HUB_OFFLINE to download it"
            )
        return self._unnamed(error, log_in)

    def _unnamed(self, error: Exception, log_in: str) -> ElectraConvertError:
        """Explain an error that the client has no name for."""
        if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes(error)):
            return DiskSpaceError(f"{self} does not fit into the cache of the Hub's client", hint=CACHE_HINT)
        doing = Doing("read", self.repo_id)
        refused = status_of(error) in {401, 403}
        hint = f"{log_in}, to a token with {doing.scope}" if refused else "check the connection, and run it again"
        return SourceError(explained(error, doing, self._hub).message, hint=hint)


def split(rest: str) -> tuple[str, ...]:
    """Return what stands between the slashes of an address on the Hub, its revision in one piece."""
    return tuple(AT_REFERENCE.sub(lambda found: "@" + quote(found[1], safe=""), rest, count=1).rstrip("/").split("/"))


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
