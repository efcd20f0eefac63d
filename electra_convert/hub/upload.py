"""Publish on the Hub: `look -> compare -> commit`, and after anything that may pass by itself, look again.

Nothing is committed that is there already: not by a second run, not by one that was killed, not when a commit
succeeded and its answer was lost. So what is done is always: look, and do what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import msgspec

from electra_convert.errors import HubError, HubPermissionError, PartialUploadError, PublishError
from electra_convert.hub.client import WAITS, Doing, Hub, Notify, Patience, client_errors, find_token, status_of
from electra_convert.hub.names import MAIN, place_name
from electra_convert.hub.publication import (
    LocalFile,
    Publication,
    UploadOptions,
    is_stale_file,
    plan_publications,
)
from electra_convert.inventory import Part

CONFLICT = 412
"""The status of a commit on a parent that is not the head any more."""
PULL_REQUESTS = "refs/pr/"

Kind = Literal["added", "changed", "deleted", "unchanged"]
Outcome = Literal["unchanged", "committed", "opened", "reused", "planned"]
"""`reused`: an open pull request has this content. `planned`: something is to be done, in a dry run."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one file of a repository.

    Args:
        path: Its name.
        kind: What becomes of it.
        nbytes: Its length in bytes.
    """

    path: str
    kind: Kind
    nbytes: int


class RepoReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one repository, or would become of it.

    Args:
        repo_id: The repository.
        revision: The branch, or the reference of a pull request.
        directory: What it was made of.
        part: The part, where that is known.
        head: The head.
        note: What to know about the head: that it is untrained, say.
        status: The verdict on the directory.
        outcome: What was done.
        created: What was not there before: `repository`, `branch`.
        changes: Its files.
        left_alone: Its other files, which are not touched.
        left_behind: Files of the directory that are not published.
        notes: What else the publisher should know.
        oid: The commit that holds all this; empty in a dry run that changes something.
        url: Where to look at it.
    """

    repo_id: str
    revision: str
    directory: Path
    part: Part | None
    head: str
    note: str
    status: str
    outcome: Outcome
    created: tuple[str, ...]
    changes: tuple[Change, ...]
    left_alone: tuple[str, ...]
    left_behind: tuple[str, ...]
    notes: tuple[str, ...]
    oid: str
    url: str

    @property
    def place(self) -> str:
        """Where it was published: `org/name at step-30`."""
        return place_name(self.repo_id, self.revision)

    @property
    def sent(self) -> int:
        """Bytes of the files that are not there yet."""
        return sum(change.nbytes for change in self.changes if change.kind in {"added", "changed"})


class UploadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an upload did, or would do.

    Args:
        output: What was published.
        dry_run: Nothing was sent.
        repos: Each repository.
    """

    output: Path
    dry_run: bool
    repos: tuple[RepoReport, ...]


def upload_output(
    output: str | os.PathLike[str],
    options: UploadOptions,
    *,
    dry_run: bool = False,
    names: Mapping[str, str | None] | None = None,
    notify: Notify = lambda _: None,
    waits: tuple[float, ...] = WAITS,
) -> UploadReport:
    """Publish what a conversion wrote, and a verification proved, on the Hub.

    ::

        from electra_convert import UploadOptions, upload_output

        report = upload_output("out", UploadOptions(repo="org/electra-ko-{part}"))

    Args:
        output: The output directory of a conversion, or one head's.
        options: What to publish, and how.
        dry_run: Only look at what would change.
        names: What further placeholders of the templates stand for.
        notify: Is told what is waited for.
        waits: Seconds to wait before each further try.

    Raises:
        PublishError: Something must not be published as it is; nothing was sent.
        PartialUploadError: Some of several repositories could not be published; it has the report on the others.
        HubError: The Hub cannot be reached, or refuses.
        ElectraConvertError: The subclass says what else went wrong; nothing was sent.
    """
    publications = plan_publications(Path(output), options, names)
    find_token()  # tells now of one that can be none
    hub = Hub(notify=notify, waits=waits)
    uploads = [_Upload(hub, publication, options) for publication in publications]
    repos: list[RepoReport] = []
    failures: list[HubError] = []
    with hub.heard():
        if options.private:
            for upload in uploads:
                upload.require_private()  # of all, before anything is sent
        for upload in uploads:
            try:
                repos.append(upload.report_plan() if dry_run else upload.run())
            except HubError as error:
                failures.append(error)
    report = UploadReport(output=Path(output), dry_run=dry_run, repos=tuple(repos))
    if failures:
        raise _failed(report, failures) from failures[0].__cause__
    return report


def _failed(report: UploadReport, failures: Sequence[HubError]) -> HubError:
    """Return one error for all repositories that could not be published."""
    if not report.repos:
        first, *others = failures
        more = dict.fromkeys(error.message for error in others if error.message != first.message)
        return type(first)(first.message, problems=tuple(more), hint=first.hint)
    return PartialUploadError(
        report,
        f"{len(failures)} of {len(failures) + len(report.repos)} repositories could not be published",
        problems=[error.message for error in failures],
        hint="; ".join(dict.fromkeys(error.hint for error in failures)),
    )


class _RemoteFile(NamedTuple):
    """A file in a repository: by its SHA-256 if it is stored apart, by git's name if it is not."""

    size: int
    sha256: str | None
    git_oid: str

    def equals(self, local: LocalFile) -> bool:
        return self.sha256 == local.sha256 if self.sha256 else self.git_oid == local.git_oid


@dataclass(frozen=True)
class _Remote:
    """A repository as it is: its files on a branch, or `None` where there is no such repository or no such branch."""

    exists: bool
    private: bool
    head: str | None
    files: Mapping[str, _RemoteFile]


NOWHERE = _Remote(exists=False, private=False, head=None, files={})


@dataclass(frozen=True)
class _Upload:
    """The upload of one repository."""

    hub: Hub
    publication: Publication
    options: UploadOptions

    @property
    def repo_id(self) -> str:
        return self.publication.repo_id

    def report_plan(self) -> RepoReport:
        """Look, and say what would be done."""
        remote = self._look(self.publication.revision)
        if remote.exists and remote.head is None:
            self._require_branch_name()
            remote = self._look(MAIN, branch=False)  # what a new branch would begin with
        self._require_private(remote)
        missing = () if remote.exists else ("repository",)
        if self.publication.revision != MAIN and remote.head is None:
            missing = (*missing, "branch")
        changes = compare(self.publication.files, remote.files)
        if self.options.create_pr and is_needed(changes) and remote.exists and (found := self._find_pull_request()):
            return self._report("reused", *found, changes)
        outcome: Outcome = "planned" if is_needed(changes) or missing else "unchanged"
        return self._report(outcome, remote, self.publication.revision, changes, missing)

    def run(self) -> RepoReport:
        """Do what is missing."""
        action = "open a pull request" if self.options.create_pr else "commit"
        doing = Doing(action, self.repo_id)
        self.hub.require_token(doing)
        patience = Patience(self.hub, doing)
        created: tuple[str, ...] = ()
        first: tuple[Change, ...] | None = None
        while True:
            remote, made = self._prepared()
            created = tuple(dict.fromkeys((*created, *made)))
            changes = compare(self.publication.files, remote.files)
            if not is_needed(changes):  # nothing was missing; or it is our own commit, whose answer was lost
                done: Outcome = "committed" if first else "unchanged"
                return self._report(done, remote, self.publication.revision, first or changes, created)
            if self.options.create_pr and (found := self._find_pull_request()):
                return self._report("opened" if first else "reused", *found, changes, created)
            first = first or changes
            try:
                info = self._commit(changes, remote.head)
            except client_errors() as error:
                patience.wait(error, passing=status_of(error) == CONFLICT)
            else:
                return self._finished(info, remote, changes, created)

    def _prepared(self) -> tuple[_Remote, tuple[str, ...]]:
        """Return the repository as it is, made first if it was not there, and what was made."""
        made: tuple[str, ...] = ()
        remote = self._look(self.publication.revision)
        if not remote.exists:
            self._create()
            made = ("repository",)
            remote = self._look(self.publication.revision)
        if not remote.exists:
            raise HubPermissionError(
                f"the Hub has {self.repo_id}, but does not show it to this token",
                hint=f"the token needs {Doing('read', self.repo_id).scope}",
            )
        self._require_private(remote)
        if remote.head is None:
            self._branch()
            made = (*made, "branch")
            remote = self._look(self.publication.revision)
        if remote.head is None:
            raise HubError(
                f"{self.repo_id} does not show the branch {self.publication.revision!r} that was made",
                hint="run the same command again",
            )
        return remote, made

    def _look(self, revision: str, *, branch: bool = True) -> _Remote:
        """Return the repository at a revision."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        api, doing = self.hub.api, Doing("read", self.repo_id)

        def look() -> _Remote:
            try:
                info = api.model_info(self.repo_id)
            except RepositoryNotFoundError:
                return NOWHERE
            private = bool(info.private)
            try:
                if revision != MAIN:
                    info = api.model_info(self.repo_id, revision=revision)
                head = str(info.sha)
                files = self._files(head)
            except RevisionNotFoundError:
                return _Remote(exists=True, private=private, head=None, files={})
            return _Remote(exists=True, private=private, head=head if branch else None, files=files)

        return self.hub.call(doing, look)

    def _files(self, revision: str) -> dict[str, _RemoteFile]:
        entries = self.hub.api.list_repo_tree(self.repo_id, recursive=True, revision=revision)
        return {
            entry.path: _RemoteFile(entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
            for entry in entries
            if hasattr(entry, "size")  # folders have none
        }

    def require_private(self) -> None:
        """Check that the repository, if there is one, is private.

        Raises:
            PublishError: It is public.
        """
        self._require_private(self._look(self.publication.revision))

    def _require_private(self, remote: _Remote) -> None:
        if self.options.private and remote.exists and not remote.private:
            raise PublishError(
                f"{self.repo_id} is public, and you ask for a private repository",
                hint="make it private in its settings on the Hub, choose another name, or leave --private out",
            )

    def _create(self) -> None:
        doing = Doing("create", self.repo_id)
        self.hub.require_token(doing)
        self.hub.call(
            doing, lambda: self.hub.api.create_repo(self.repo_id, private=self.options.private or None, exist_ok=True)
        )

    def _require_branch_name(self) -> None:
        revision = self.publication.revision
        if revision.startswith("refs/"):
            raise HubError(f"{self.repo_id} has no {revision}", hint="name a pull request that is there, or a branch")

    def _branch(self) -> None:
        revision = self.publication.revision
        doing = Doing("branch", self.repo_id)
        self._require_branch_name()
        self.hub.call(doing, lambda: self.hub.api.create_branch(self.repo_id, branch=revision, exist_ok=True))

    def _find_pull_request(self) -> tuple[_Remote, str] | None:
        """Return an open pull request that has this content already, and its reference."""
        api = self.hub.api

        def find() -> tuple[_Remote, str] | None:
            opened = api.get_repo_discussions(self.repo_id, discussion_type="pull_request", discussion_status="open")
            for number in sorted((each.num for each in opened), reverse=True):
                reference = f"{PULL_REQUESTS}{number}"
                files = self._files(reference)
                if not is_needed(compare(self.publication.files, files)):
                    head = str(api.model_info(self.repo_id, revision=reference).sha)
                    return _Remote(exists=True, private=False, head=head, files=files), reference
            return None

        return self.hub.call(Doing("read", self.repo_id), find)

    def _commit(self, changes: Sequence[Change], parent: str | None) -> Any:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations: list[Any] = []
        for change in changes:
            if change.kind == "deleted":
                operations.append(CommitOperationDelete(change.path))
            elif change.kind != "unchanged":
                operations.append(CommitOperationAdd(change.path, self.publication.files[change.path].content))
        return self.hub.api.create_commit(
            self.repo_id,
            operations,
            commit_message=self.publication.title,
            revision=self.publication.revision,
            create_pr=self.options.create_pr,
            parent_commit=parent,
        )

    def _finished(
        self, info: Any, remote: _Remote, changes: tuple[Change, ...], created: tuple[str, ...]
    ) -> RepoReport:
        there = _Remote(exists=True, private=remote.private, head=str(info.oid), files=remote.files)
        if self.options.create_pr:
            return self._report("opened", there, str(info.pr_revision), changes, created)
        return self._report("committed", there, self.publication.revision, changes, created)

    def _report(
        self,
        outcome: Outcome,
        remote: _Remote,
        revision: str,
        changes: tuple[Change, ...],
        created: tuple[str, ...] = (),
    ) -> RepoReport:
        publication = self.publication
        record = publication.directory.record
        return RepoReport(
            repo_id=self.repo_id,
            revision=revision,
            directory=publication.directory.path,
            part=record.part if record else None,
            head=publication.directory.head,
            note=record.note if record else "",
            status=publication.status,
            outcome=outcome,
            created=created,
            changes=changes,
            left_alone=tuple(sorted(remote.files.keys() - {change.path for change in changes})),
            left_behind=publication.left_behind,
            notes=publication.notes,
            oid=remote.head or "",
            url=self._url(revision),
        )

    def _url(self, revision: str) -> str:
        base = f"{self.hub.api.endpoint}/{self.repo_id}"
        if revision.startswith(PULL_REQUESTS):
            return f"{base}/discussions/{revision.removeprefix(PULL_REQUESTS)}"
        return base if revision == MAIN else f"{base}/tree/{quote(revision, safe='')}"


def compare(local: Mapping[str, LocalFile], remote: Mapping[str, _RemoteFile]) -> tuple[Change, ...]:
    """Say what makes a repository's files those that are to be published.

    Files of a model that are not published any more are deleted: transformers would load weights of another
    conversion. Files that no model has are left alone.
    """
    changes = [
        Change(path=path, kind=_kind(file, remote.get(path)), nbytes=file.size) for path, file in sorted(local.items())
    ]
    changes += (
        Change(path=path, kind="deleted", nbytes=file.size)
        for path, file in sorted(remote.items())
        if path not in local and is_stale_file(path)
    )
    return tuple(changes)


def is_needed(changes: Sequence[Change]) -> bool:
    """Say whether anything is to be done."""
    return any(change.kind != "unchanged" for change in changes)


def _kind(local: LocalFile, remote: _RemoteFile | None) -> Kind:
    if remote is None:
        return "added"
    return "unchanged" if remote.equals(local) else "changed"
