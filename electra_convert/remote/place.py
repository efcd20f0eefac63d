"""What a URL names: files and folders elsewhere, which may be there or not.

`fsspec` opens it, or one that we know by its name: a repository on the Hub, or a checkpoint that Google released.

No URL is told with the credentials in it, nor with its query, which may be a signature.
"""

from __future__ import annotations

import base64
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from electra_convert.errors import CheckpointNotFoundError, ElectraConvertError, OptionError, OutputError, SourceError
from electra_convert.hub.names import SCHEME as HUB
from electra_convert.remote import released

MARK = "://"
CHAIN = "::"
WEB = ("http", "https")
LOCAL = ("file", "local")
EXTRAS = {"http": "remote", "https": "remote", "gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3"}
"""The extra of this package that a kind of URL needs."""
KINDS = sorted({*EXTRAS, HUB, released.SCHEME})
"""Kinds of URLs that are told where another was given."""
GOOGLE = "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
AMAZON = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; FSSPEC_S3_ANON=true for a public bucket"
LOGINS = {"gs": GOOGLE, "gcs": GOOGLE, "s3": AMAZON, "s3a": AMAZON}
RESUME_HINT = "check the address and the connection, and run it again: a download goes on where it stopped"
AGAIN_HINT = "check the address and the connection, and run it again: what is there already is not sent again"
PATIENCE = 60.0
"""Seconds a web server may take to answer, and between two pieces of its answer."""

VERSIONS = ("ETag", "etag", "generation", "md5Hash", "Content-MD5", "Digest")
"""What file systems call that which differs for every other content."""
TIMES = ("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "modified", "created")
"""What they call the time of the last change."""
CHECKSUMS = (("md5Hash", "md5", 16), ("Content-MD5", "md5", 16), ("crc32c", "crc32c", 4))
"""What they call a checksum, which it is, and its length in bytes."""

CHUNK = 1 << 20
"""Bytes that are read at once."""
BLOCK = 1 << 23
"""Bytes of one request to a store."""
LONGEST_NAME = 255
UNLISTED = (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
"""What web servers answer that tell no names."""

QUOTED = "%/:=&?~#+!$,;@()*[]"
"""Letters of a web address that are meant as they are typed."""
ADDRESS = re.compile(r"(?P<scheme>\w[\w+.-]*://)(?P<user>[^\s/'\"]*@)?(?P<path>[^\s?'\"]*)(?P<query>\?[^\s'\"]*)?")


def is_url(source: str | os.PathLike[str]) -> bool:
    """Return whether a source is a URL; a path is none, for it has one slash where a URL has two."""
    return isinstance(source, str) and MARK in source


def shown(text: str) -> str:
    """Return a text without what is secret in the URLs in it: user names, passwords and queries."""
    return ADDRESS.sub(_redacted, text)


def _redacted(address: re.Match[str]) -> str:
    user = "***@" if address["user"] else ""
    query = address["query"] or ""
    secret = "=" in query or (query and address["scheme"].startswith(WEB))
    return f"{address['scheme']}{user}{address['path']}{'?***' if secret else query}"


# Files and folders elsewhere


class Seen(msgspec.Struct, frozen=True):
    """What a file system tells of a file.

    Args:
        size: Its bytes, if they are known.
        identity: What differs when the content does; nothing, if nothing is told that does.
        checksum: The name of a checksum of all of its content, and the bytes of it.
        etag: Its ETag, which may or may not be a checksum.
        is_folder: Whether it is a folder.
        kept: Where it is kept here, once it is downloaded, by what reads its file system.
    """

    size: int | None
    identity: str | None
    checksum: tuple[str, bytes] | None
    etag: str
    is_folder: bool
    kept: Path | None

    @property
    def is_strong(self) -> bool:
        """Whether the ETag is that of the bytes, and not of what they mean."""
        return self.etag.startswith('"')

    @classmethod
    def told(cls, info: Mapping[str, object]) -> Seen:
        """Read what `fsspec` calls `info`."""
        size, kept = info.get("size"), info.get("kept")
        known = next((name for name in (*VERSIONS, *TIMES) if info.get(name)), None)
        is_file = isinstance(size, int) and known is not None
        return cls(
            size=size if isinstance(size, int) else None,
            identity=f"{size} {known} {info[known]}" if known is not None and is_file else None,
            checksum=_checksum(info),
            etag=str(info.get("ETag") or info.get("etag") or ""),
            is_folder=info.get("type") == "directory",
            kept=kept if isinstance(kept, Path) else None,
        )


def _checksum(info: Mapping[str, object]) -> tuple[str, bytes] | None:
    for name, algorithm, length in CHECKSUMS:
        with suppress(ValueError):
            value = base64.b64decode(str(info.get(name) or ""), validate=True)
            if len(value) == length:
                return algorithm, value
    return None


@dataclass(frozen=True)
class Remote:
    """A file or a folder that a URL names, whether it is there or not.

    Args:
        fs: Its file system.
        scheme: What its URL begins with, without the colon.
        parts: What stands between the slashes, as it is spelt in a URL.
    """

    fs: Any
    scheme: str
    parts: tuple[str, ...]

    def __str__(self) -> str:
        """Return its URL without secrets."""
        return shown(self.url)

    @property
    def url(self) -> str:
        """Its URL, with what is secret in it: not to be shown."""
        return f"{self.scheme}{MARK}{'/'.join(self.parts)}"

    @cached_property
    def path(self) -> str:
        """Its name in its file system."""
        return str(self.fs._strip_protocol(self.url))  # as fsspec documents

    @property
    def names(self) -> tuple[str, ...]:
        """What stands between the slashes, as it would be spelt on a disk."""
        first, *others = self.parts
        if self.is_on_hub:
            return first, *(name.partition("@")[0] for name in others[:1]), *others[1:]
        names = (first.rpartition("@")[2], *others)
        return tuple(unquote(name.partition("?")[0]) for name in names) if self.is_web else names

    @property
    def name(self) -> str:
        """The last of its names."""
        return self.names[-1]

    @property
    def is_web(self) -> bool:
        """Whether a web server has it, which knows no folders."""
        return self.scheme in WEB

    @property
    def is_on_hub(self) -> bool:
        """Whether a repository on the Hub has it."""
        return self.scheme == HUB

    @property
    def is_writable(self) -> bool:
        """Whether files can be copied there; to the Hub, they are uploaded."""
        return not (self.is_web or self.is_on_hub)

    @property
    def is_root(self) -> bool:
        """Whether it is in no folder: a bucket, a server, a repository."""
        return len(self.parts) <= (2 if self.is_on_hub else 1)

    @property
    def blind_spot(self) -> str:
        """What of it may not be seen, and why."""
        return str(self.fs.blind_spot) if self.is_on_hub else ""

    @property
    def parent(self) -> Remote:
        """The folder it is in; the highest is in itself."""
        return self if self.is_root else replace(self, parts=self.parts[:-1])

    def child(self, name: str) -> Remote:
        """Return a file or folder in this folder."""
        return replace(self, parts=(*self.parts, quote(name) if self.is_web else name))

    def look(self) -> Seen | None:
        """Ask for what is there now; nothing, if nothing is.

        Raises:
            SourceError: The file system does not answer, or not to us.
        """
        try:
            with told(self):
                self.fs.invalidate_cache()
                return Seen.told(self.fs.info(self.path))
        except CheckpointNotFoundError:
            return None

    def listed(self) -> dict[str, bool]:
        """Return the names in this folder, each with whether it is a folder. A web server need not tell any.

        The Hub also tells the paths of what is in the folders in it.

        Raises:
            SourceError: There is no such folder, or it cannot be read.
        """
        with told(self):
            self.fs.invalidate_cache()
            try:
                entries = self.fs.ls(f"{self.path}/" if self.is_web else self.path, detail=True)
            except Exception as error:
                if self.is_web and _status(error) in UNLISTED:
                    return {}
                raise
        own = self.path.strip("/")
        paths = {entry["name"].strip("/"): entry["type"] == "directory" for entry in entries}
        inside = {path.removeprefix(own).strip("/"): folder for path, folder in paths.items() if path != own}
        names = {unquote(name) if self.is_web else name: folder for name, folder in inside.items() if "?" not in name}
        return {name: folder for name, folder in names.items() if self._is_safe(name)}

    def _is_safe(self, name: str) -> bool:
        return all(map(is_safe, name.split("/") if self.is_on_hub else [name]))


def is_safe(name: str) -> bool:
    """Return whether a name that a server tells can be that of a file here."""
    return name not in ("", ".", "..") and not {"/", "\0"} & set(name) and len(os.fsencode(name)) <= LONGEST_NAME


def open_remote(url: str) -> Remote:
    """Return what a URL names; nothing is asked of a server.

    Raises:
        OptionError: There is no such kind of URL, or what it needs is not installed.
    """
    scheme, _, rest = url.partition(MARK)
    scheme = scheme.lower()
    if scheme == released.SCHEME:
        return open_remote(released.address_of(rest.rstrip("/")))
    if scheme == HUB:
        from electra_convert.remote.repository import Repository, split

        parts = split(rest)
        return Remote(Repository.named(parts), scheme, parts)
    if CHAIN in url:
        raise OptionError(
            f"{shown(url)} is a chain of URLs, which is not read", hint="give the URL of an archive, or of a folder"
        )
    if scheme in WEB:
        rest = quote(rest.partition("#")[0], safe=QUOTED)
    return Remote(_file_system(url, scheme), scheme, tuple(rest.rstrip("/").split("/")))


def _file_system(url: str, scheme: str) -> Any:
    extra = EXTRAS.get(scheme)
    try:
        from fsspec.core import url_to_fs

        file_system = url_to_fs(url, **(_web_options() if scheme in WEB else {}))[0]
    except ImportError as error:
        package = f'pip install "electra-convert[{extra or "remote"}]"'
        other = "" if extra else f", and what {scheme}:// needs: {error}"
        raise OptionError(
            f"{shown(url)} cannot be opened: what reads {scheme}:// is not installed", hint=package + other
        ) from error
    except ValueError as error:
        raise OptionError(
            f"{shown(url)} is of no kind that is known: {shown(str(error))}",
            hint=f"URLs of {', '.join(KINDS)} and others that fsspec knows can be read",
        ) from None
    _quieten(type(file_system).__module__.partition(".")[0])
    return file_system


def _quieten(library: str) -> None:
    """Let a library not print what it logs where nobody set up logging: what goes wrong is told once, by an error."""
    logger = logging.getLogger(library)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def _web_options() -> dict[str, object]:
    """Return how web servers are asked: as typed, unpacked by nobody, as long as they go on, through proxies."""
    from aiohttp import ClientTimeout

    patience = ClientTimeout(total=None, sock_connect=PATIENCE, sock_read=PATIENCE)
    return {
        "encoded": True,
        "headers": {"Accept-Encoding": "identity"},
        "client_kwargs": {"timeout": patience, "trust_env": True},
    }


def matches(pattern: str) -> dict[str, bool]:
    """Return the URLs that match a pattern, each with whether it is a folder.

    Raises:
        SourceError: The file system does not answer, or not to us.
        OptionError: There is no such kind of URL, or what it needs is not installed.
    """
    remote = open_remote(pattern)
    with told(remote):
        remote.fs.invalidate_cache()
        found = remote.fs.glob(remote.path, detail=True)
    root = remote.url.removesuffix(remote.path)
    return {f"{root}{path}".rstrip("/"): info["type"] == "directory" for path, info in found.items()}


@contextmanager
def stream(remote: Remote, seen: Seen, begin: int = 0) -> Iterator[tuple[Iterator[bytes], int]]:
    """Open a file; yield its content from a place on, with the place: the beginning where no other can be had.

    Args:
        remote: The file.
        seen: What was told of it.
        begin: The place.

    Raises:
        SourceError: It is not there, or cannot be read; also while it is read.
    """
    with told(remote):
        if not remote.is_web:
            file = remote.fs.open(remote.path, "rb", block_size=BLOCK, cache_type="none")
            file.seek(begin)
        elif begin and seen.is_strong:  # the rest if the file is the same, else all of it
            headers = {**remote.fs.kwargs["headers"], "Range": f"bytes={begin}-", "If-Range": seen.etag}
            file = remote.fs.open(remote.path, "rb", block_size=0, size=seen.size, headers=headers)
            begin = begin if file.r.status == HTTPStatus.PARTIAL_CONTENT else 0
        else:
            file, begin = remote.fs.open(remote.path, "rb", block_size=0), 0
    try:
        yield _chunks(remote, file), begin
    finally:
        with suppress(Exception):  # what was read is what counts
            file.close()


def _chunks(remote: Remote, file: Any) -> Iterator[bytes]:
    while True:
        with told(remote):
            data = bytes(file.read(CHUNK))
        if not data:
            return
        yield data


@contextmanager
def told(remote: Remote, *, writing: bool = False) -> Iterator[None]:
    """Turn what a file system says into one of our errors, without secrets in its text or its cause.

    Args:
        remote: What is read, or written.
        writing: Whether it is written.
    """
    try:
        yield
    except ElectraConvertError:
        raise
    except Exception as error:  # noqa: BLE001  # every file system has errors of its own
        explained = _explained(error, remote, writing=writing)
        raise explained from (error if str(error) == shown(str(error)) else None)


def _explained(error: BaseException, remote: Remote, *, writing: bool) -> ElectraConvertError:
    if remote.is_web and isinstance(error, FileNotFoundError):
        error = error.__cause__ or error  # fsspec calls whatever goes wrong "not found"
    kind = OutputError if writing else SourceError
    verb = "written" if writing else "read"
    status = _status(error)
    login = LOGINS.get(remote.scheme, "")
    if isinstance(error, TimeoutError):
        return kind(f"{remote} does not answer, or stopped answering", hint=AGAIN_HINT if writing else RESUME_HINT)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return kind(f"{remote} may not be {verb}: {_words(error)}", hint=login or "check the address and the password")
    if not writing and status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return CheckpointNotFoundError(f"there is nothing at {remote}", hint="check the address")
    hint = "; or ".join(filter(None, (AGAIN_HINT if writing else RESUME_HINT, login)))
    return kind(f"{remote} cannot be {verb}: {_words(error)}", hint=hint)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error stands for, whatever library it is from."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, PermissionError):
        return HTTPStatus.FORBIDDEN
    known = (getattr(error, name, None) for name in ("status", "code"))  # of aiohttp, of gcsfs
    return next((status for status in known if isinstance(status, int)), None)


def _words(error: BaseException) -> str:
    """Return what is wrong in a few words without secrets."""
    status = _status(error)
    if status is not None and not isinstance(error, OSError):
        known = {each.value: each.phrase for each in HTTPStatus}
        return f"the server answers {status} {known.get(status, '')}".strip()
    return shown(str(error)) or type(error).__name__
