"""What a Hub keeps: repositories with their branches and pull requests, stored objects, tokens and their rights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from threading import RLock
from typing import Literal

Permission = Literal["repo.content.read", "repo.write", "discussion.write"]
Status = Literal["open", "closed", "merged"]

LFS_SUFFIXES = (".safetensors", ".h5", ".msgpack", ".bin", ".onnx")
"""Files stored as objects whatever their size, as `.gitattributes` of a new repository says."""
MAIN = "main"


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """An answer that says no, in the Hub's way.

    Args:
        status: Of HTTP.
        message: Told in the body and in `X-Error-Message`.
        code: The Hub's `X-Error-Code`, by which clients choose an exception.
        headers: More headers of the answer.
    """

    def __init__(self, status: int, message: str, *, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Token:
    """What someone who sends a token may do.

    Args:
        user: Whose token it is; the user owns the namespace of that name.
        role: `read`, `write`, or `fineGrained`, which may do what its scopes say and nothing else.
        orgs: Organisations the user belongs to, with the role in each: `admin`, `write`, `contributor` or `read`.
        scopes: Of a fine-grained token: a namespace, a repository, or "" for all -> permissions there.
    """

    user: str
    role: Literal["read", "write", "fineGrained"] = "write"
    orgs: Mapping[str, str] = field(default_factory=dict)
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def may(self, permission: Permission, entity: str) -> bool:
        """Say whether the token permits something in a namespace, or in a repository."""
        namespace = entity.partition("/")[0]
        if self.role == "fineGrained":
            granted = {name for key in ("", namespace, entity) for name in self.scopes.get(key, ())}
            return permission in granted or (permission == "repo.content.read" and "repo.write" in granted)
        place = "admin" if namespace == self.user else self.orgs.get(namespace)
        match permission:
            case "repo.content.read":
                return place is not None
            case "discussion.write":
                return self.role == "write"
            case "repo.write":
                return self.role == "write" and place in {"admin", "write", "contributor"}


@dataclass(frozen=True)
class Blob:
    """A file in a commit; `lfs` if git holds a pointer and the content is a stored object."""

    content: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        """The hash by which the content is stored."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git holds in place of the content."""
        version = "https://git-lfs.github.com/spec/v1"
        return f"version {version}\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()

    @cached_property
    def oid(self) -> str:
        """The hash that git gives to what it holds."""
        return git_hash("blob", self.pointer if self.lfs else self.content)

    @property
    def etag(self) -> str:
        """The hash by which a client tells contents apart: the object's, or git's."""
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """All files as of one commit."""

    title: str
    description: str
    parent: str | None
    files: Mapping[str, Blob]
    author: str
    date: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def oid(self) -> str:
        """A hash of everything the commit says, history included."""
        said = (tree_oid(self.files), self.parent, self.author, self.date.isoformat(), self.title, self.description)
        return git_hash("commit", "\n".join(map(str, said)).encode())


@dataclass
class PullRequest:
    """Commits that wait beside a branch; `commits` is the whole history, the branch's own included, oldest first."""

    number: int
    title: str
    description: str
    author: str
    base: str
    commits: list[Commit]
    status: Status = "open"
    date: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def revision(self) -> str:
        """The reference to its last commit."""
        return f"refs/pr/{self.number}"


@dataclass
class Repo:
    """A model repository; each branch is its history, oldest commit first. If it is gated, nobody reads its files."""

    id: str
    private: bool
    gated: bool = False
    branches: dict[str, list[Commit]] = field(default_factory=dict)
    pull_requests: list[PullRequest] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rules = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        attributes = {".gitattributes": Blob(rules.encode())}
        self.branches[MAIN] = [Commit("initial commit", "", None, attributes, author="system")]

    def references(self) -> dict[str, list[Commit]]:
        """Return the history of every branch and pull request, by the names that clients use."""
        heads = {f"refs/heads/{name}": history for name, history in self.branches.items()}
        return {**self.branches, **heads, **{request.revision: request.commits for request in self.pull_requests}}

    def history(self, revision: str) -> list[Commit]:
        """Return the commits up to a branch's head, a pull request's head, or a commit.

        Raises:
            Refusal: There is none of that name.
        """
        references = self.references()
        if revision in references:
            return references[revision]
        for history in references.values():
            for index, commit in enumerate(history):
                if commit.oid == revision:
                    return history[: index + 1]
        raise Refusal(404, f"{self.id} has no revision {revision}", code="RevisionNotFound")

    def head(self, revision: str) -> Commit:
        """Return the commit that a revision names.

        Raises:
            Refusal: There is none of that name.
        """
        return self.history(revision)[-1]


@dataclass
class Upload:
    """An object that may be sent to the storage: in one piece, or in parts of `part_size` bytes."""

    repo: Repo
    oid: str
    size: int
    part_size: int | None
    parts: dict[int, bytes] = field(default_factory=dict)

    def store(self, content: bytes) -> None:
        """Keep the object, if it is what was announced.

        Raises:
            Refusal: It has another size or hash.
        """
        if len(content) != self.size:
            raise Refusal(400, f"object {self.oid} has {self.size} bytes, but {len(content)} came")
        if (sha256 := hashlib.sha256(content).hexdigest()) != self.oid:
            raise Refusal(400, f"object {self.oid} was announced, but {sha256} came")
        self.repo.objects[self.oid] = content


@dataclass(repr=False)  # tokens are not to be printed
class Hub:
    """Everything a Hub knows, and the sizes that decide how it is sent.

    Args:
        url: Where the Hub is.
        regular_limit: The most bytes of a file that git holds itself.
        multipart_threshold: Objects with more bytes are sent in parts.
        part_size: Bytes of a part.
        page_size: The most entries of one page of a list.
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    regular_limit: int = 10 * 2**20
    multipart_threshold: int = 64 * 2**20
    part_size: int = 16 * 2**20
    page_size: int = 1000
    lock: RLock = field(default_factory=RLock)

    def upload_mode(self, path: str, size: int) -> Literal["lfs", "regular"]:
        """Say how a file is to be sent."""
        return "lfs" if path.endswith(LFS_SUFFIXES) or size > self.regular_limit else "regular"


def git_hash(kind: str, content: bytes) -> str:
    """Return the hash that git gives to an object."""
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(content)) + content, usedforsecurity=False).hexdigest()


def tree_oid(files: Mapping[str, Blob], folder: str = "") -> str:
    """Return the hash that git gives to a folder; `folder` ends with a slash, or is the root."""
    rows = b""
    for name in names_in(files, folder):
        is_folder = name.endswith("/")
        oid = tree_oid(files, folder + name) if is_folder else files[folder + name].oid
        rows += f"{'40000' if is_folder else '100644'} {name.rstrip('/')}\0".encode() + bytes.fromhex(oid)
    return git_hash("tree", rows)


def names_in(files: Mapping[str, Blob], folder: str) -> list[str]:
    """Return the names right in a folder, in git's order; names of folders end with a slash."""
    below = [path.removeprefix(folder) for path in files if path.startswith(folder)]
    return sorted({name + slash for name, slash, _ in (path.partition("/") for path in below)})
