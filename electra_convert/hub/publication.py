"""What is published: which heads, to which repository, with which files, and whether it may be.

Nothing here talks to the Hub.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import msgspec

from electra_convert._version import __version__
from electra_convert.digest import sha256_of
from electra_convert.errors import ConfigError, ElectraConvertError, OptionError, PublishError
from electra_convert.formats import TARGETS, module_of
from electra_convert.hub.names import MAIN, check_repo_id, place_name
from electra_convert.mapping import load_mappings
from electra_convert.models.files import CONFIG_FILE
from electra_convert.options import take_paths
from electra_convert.parity.directories import Directory, find_directories
from electra_convert.parity.verification import VERIFICATION_FILE, Verification, read_verification
from electra_convert.plan import RECORD_FILE, is_native
from electra_convert.report.card import LARGEST_CARD, CardMetadata, check_card, render_card
from electra_convert.source import step_of
from electra_convert.template import fill
from electra_convert.tokenizer import TOKENIZER_FILES
from electra_convert.whole_file import read_whole

CARD_FILE = "README.md"
DOCUMENTS = frozenset({CONFIG_FILE, RECORD_FILE, VERIFICATION_FILE, CARD_FILE, *TOKENIZER_FILES})
"""The files of a model that are no weights."""
LOADED_INSTEAD = frozenset({"pytorch_model.bin", "pytorch_model.bin.index.json", "added_tokens.json"})
"""Files that others write, and that transformers would load beside, or in place of, those that are published."""
CHUNK = 1 << 20


class UploadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to publish, and how.

    Args:
        repo: The repository, `owner/name`; a template with `{part}`, `{head}`, `{format}` and `{step}` for several.
        heads: The heads to publish; none means those that were trained.
        private: Make the repository private, if it has to be made; one that is public is then refused.
        revision: The branch; it is made if there is none. A template as `repo` is.
        create_pr: Open a pull request, in place of a commit.
        commit_message: Title of the commit.
        allow_unverified: Publish what was never proven; its card says so.
        include: Other files that are published beside each model: a license, a picture.
        card: What nobody but the publisher knows.
        card_template: A template for the card, in place of the package's own.
        mappings: A folder of mappings to use instead of the package's own.

    Raises:
        OptionError: These contradict one another; all contradictions are listed.
    """

    repo: str
    heads: tuple[str, ...] = ()
    private: bool = False
    revision: str = MAIN
    create_pr: bool = False
    commit_message: str = ""
    allow_unverified: bool = False
    include: tuple[Path, ...] = ()
    card: CardMetadata = CardMetadata()
    card_template: Path | None = None
    mappings: Path | None = None

    def __post_init__(self) -> None:
        take_paths(self, "include", "card_template", "mappings")
        problems = []
        if self.create_pr and self.revision != MAIN:
            problems.append(f"a pull request is made against {MAIN}, but the revision is {self.revision!r}")
        if not self.revision:
            problems.append("the revision is empty")
        if "\n" in self.commit_message:
            problems.append("the commit message has several lines; it is the title of a commit")
        own = [str(path) for path in self.include if is_model_file(path.name)]
        problems += (f"{path} has the name of a model's own file" for path in own)
        problems += (f"there is no file {path}" for path in self.include if not path.is_file())
        counts = Counter(path.name for path in self.include)
        problems += (f"{count} files to include are called {name}" for name, count in counts.items() if count > 1)
        if problems:
            raise OptionError("this cannot be published", problems=problems, hint="change these options")


@dataclass(frozen=True)
class LocalFile:
    """A file to publish.

    Args:
        content: Where it is, or what it holds.
        sha256: Its SHA-256.
        size: Its length in bytes.
    """

    content: Path | bytes
    sha256: str
    size: int

    @classmethod
    def of(cls, content: bytes) -> LocalFile:
        """Return a file that is not on disk."""
        return cls(content, hashlib.sha256(content).hexdigest(), len(content))

    @classmethod
    def at(cls, path: Path, sha256: str | None = None) -> LocalFile:
        """Return a file on disk; its SHA-256 is computed unless it is known."""
        return cls(path, sha256 or sha256_of(path), path.stat().st_size)

    @cached_property
    def git_oid(self) -> str:
        """The name that git has for its content."""
        digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        if isinstance(self.content, bytes):
            digest.update(self.content)
        else:
            with self.content.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True)
class Publication:
    """One repository, as it is to be.

    Args:
        directory: The directory it is made of.
        repo_id: The repository.
        revision: The branch.
        files: Its files, by name.
        left_behind: Files of the directory that are not published.
        status: The verdict on the directory; `never verified`, or why it holds no longer.
        title: Title of the commit.
        notes: What the publisher should know.
    """

    directory: Directory
    repo_id: str
    revision: str
    files: Mapping[str, LocalFile]
    left_behind: tuple[str, ...]
    status: str
    title: str
    notes: tuple[str, ...] = ()


def plan_publications(
    output: Path, options: UploadOptions, names: Mapping[str, str | None] | None = None
) -> list[Publication]:
    """Say what is published where; nothing is sent.

    Args:
        output: The output directory of a conversion, or one head's.
        options: What to publish, and how.
        names: What further placeholders of the templates stand for.

    Raises:
        PublishError: Something must not be published as it is; all such things are listed.
        OptionError: The options do not fit the output.
        ElectraConvertError: The directory, or a card, cannot be used.
    """
    inventory = load_mappings(options.mappings).inventory
    directories = choose_directories(find_directories(output, inventory), options.heads)
    places = [_place(directory, options, names or {}) for directory in directories]
    _require_apart(directories, places, options)
    standings = [_standing(directory) for directory in directories]
    refused = [
        f"{directory.path}: {standing.says}"
        for directory, standing in zip(directories, standings, strict=True)
        if standing.refused(options)
    ]
    if refused:
        raise PublishError(
            "only what is proven is published",
            problems=refused,
            hint="run `electra-convert verify` on it"
            + ("" if any(each.failed for each in standings) else ", or publish it as unverified: --allow-unverified"),
        )
    return [
        _publication(directory, standing, place, options)
        for directory, standing, place in zip(directories, standings, places, strict=True)
    ]


def choose_directories(found: Sequence[Directory], heads: Sequence[str]) -> list[Directory]:
    """Return the directories of the heads that are named; by default of those that were trained.

    Raises:
        PublishError: None of them was trained, and none is named.
        OptionError: A head that is named is not there.
    """
    there = list(dict.fromkeys(directory.head for directory in found))
    if absent := [head for head in heads if head not in there]:
        raise OptionError(
            f"there is no {' and no '.join(absent)} here", hint=f"choose from {', '.join(there)}, or convert it first"
        )
    chosen = [each for each in found if (each.head in heads if heads else _is_native(each))]
    if not chosen:
        raise PublishError(
            "no head here is known to be trained",
            problems=[f"{each.path}: {each.head}, {_unknown_or(each)}" for each in found],
            hint=f"name what you want to publish all the same: --head {there[0]}",
        )
    return chosen


def is_stale_file(name: str) -> bool:
    """Say whether a file that is in a repository, and not published any more, would still be loaded."""
    return is_model_file(name) or name in LOADED_INSTEAD


def is_model_file(name: str) -> bool:
    """Say whether a file of this name belongs to a model that this package writes."""
    if name in DOCUMENTS:
        return True
    modules = [module_of(target) for target in TARGETS]
    shards = [f"{Path(module.SINGLE).stem}-?????-of-?????{Path(module.SINGLE).suffix}" for module in modules]
    return any(name in {module.SINGLE, module.INDEX} for module in modules) or any(
        fnmatchcase(name, pattern) for pattern in shards
    )


def _is_native(directory: Directory) -> bool:
    return directory.record is not None and is_native(directory.record.note)


def _unknown_or(directory: Directory) -> str:
    return directory.record.note or "the backbone alone" if directory.record else "written by something else"


@dataclass(frozen=True)
class _Standing:
    """What is known of a directory: its proof, if it has one that holds, and what to say where it has none."""

    verification: Verification | None
    says: str = ""
    failed: bool = False

    def refused(self, options: UploadOptions) -> bool:
        return self.failed or bool(self.says and not options.allow_unverified)


def _standing(directory: Directory) -> _Standing:
    try:
        found = read_verification(directory.path)
    except ElectraConvertError as error:
        return _Standing(None, error.message)
    if found is None:
        return _Standing(None, f"it was never verified: there is no {VERIFICATION_FILE}")
    if found.status == "failed":
        return _Standing(
            None, f"its verification failed, and what failed is never published: {found.verdict}", failed=True
        )
    if changes := found.changes(directory.path):
        return _Standing(None, f"it is not what was verified: {'; '.join(changes)}")
    if found.status != "proven" or set(found.left_out) & set(directory.formats):
        return _Standing(found, found.verdict)
    return _Standing(found)


def _place(directory: Directory, options: UploadOptions, names: Mapping[str, str | None]) -> tuple[str, str]:
    """Return repository and branch of a directory."""
    record = directory.record
    step = step_of(record.source.checkpoint) if record else None
    values = {
        "part": record.part if record else None,
        "head": directory.head,
        "format": "-".join(directory.formats),
        "step": None if step is None else str(step),
        **names,
    }
    repo_id = fill(options.repo, values)
    check_repo_id(repo_id)
    return repo_id, fill(options.revision, values)


def _require_apart(directories: Sequence[Directory], places: Sequence[tuple[str, str]], options: UploadOptions) -> None:
    """Refuse to publish several directories in one place."""
    shared = [
        f"{directory.path} -> {place_name(*place)}"
        for directory, place in zip(directories, places, strict=True)
        if places.count(place) > 1
    ]
    if shared:
        raise OptionError(
            f"{options.repo!r} names one repository for several models",
            problems=shared,
            hint="tell them apart with {part}, {head} or {format}, name one head with --head, or one directory",
        )


def _publication(
    directory: Directory, standing: _Standing, place: tuple[str, str], options: UploadOptions
) -> Publication:
    repo_id, revision = place
    known = standing.verification.files if standing.verification else {}
    names = [path.name for path in sorted(directory.path.iterdir()) if path.is_file()]
    files = {name: LocalFile.at(directory.path / name, known.get(name)) for name in names if is_model_file(name)}
    files |= {path.name: LocalFile.at(path) for path in options.include}
    left_behind = tuple(name for name in names if name not in files)
    if standing.verification is None:
        files.pop(VERIFICATION_FILE, None)  # it is about other files
    card = _card(directory, standing, place, options)
    files[CARD_FILE] = LocalFile.of(card.encode())
    return Publication(
        directory=directory,
        repo_id=repo_id,
        revision=revision,
        files=files,
        left_behind=left_behind,
        status=standing.says or (standing.verification.status if standing.verification else ""),
        title=options.commit_message or _title(directory),
        notes=() if "\nlicense: " in card.partition("\n---")[0] else ("the card names no license: --license",),
    )


def _card(directory: Directory, standing: _Standing, place: tuple[str, str], options: UploadOptions) -> str:
    """Return the model card: the user's own, or one that is made; either must say what has to be said."""
    own = directory.path / CARD_FILE
    if own.is_file():
        if options.card_template or options.card != CardMetadata():
            raise OptionError(
                f"{own} is your own card, and nothing is changed in it", hint="remove it, or write your words into it"
            )
        try:
            text = read_whole(own, LARGEST_CARD).decode()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"{own} is no text: {why}", hint="save it as UTF-8") from error
        check_card(text, directory, standing.verification)
        return text
    repo_id, revision = place
    return render_card(
        directory,
        standing.verification,
        repo_id=repo_id,
        revision=None if revision == MAIN else revision,
        metadata=options.card,
        template=options.card_template,
    )


def _title(directory: Directory) -> str:
    record = directory.record
    what = f"{record.part} of {record.source.checkpoint}, {directory.head}" if record else directory.head
    return f"Publish {what}, with electra-convert {__version__}"
