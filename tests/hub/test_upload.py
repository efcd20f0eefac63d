"""Publishing, with the real client against a Hub on loopback: what is there afterwards, whatever goes wrong."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from electra_convert import (
    CardMetadata,
    ConfigError,
    ElectraConvertError,
    HubError,
    HubPermissionError,
    OptionError,
    PartialUploadError,
    PublishError,
    UploadOptions,
    UploadReport,
    upload_output,
)
from electra_convert.hub.publication import is_model_file
from electra_convert.parity.report import Status
from tests.hub.conftest import verify_as
from tests.hub.protocol import Answer
from tests.hub.server import Fault, HubServer, Phase
from tests.hub.state import MAIN, Blob, Commit, Repo, Token

QUICK = (0.01, 0.01, 0.01, 0.01)
DISCRIMINATOR, GENERATOR = "org/tiny-discriminator", "org/tiny-generator"


def upload(output: Path, repo: str = "org/tiny-{part}", *, dry_run: bool = False, **options: Any) -> UploadReport:
    """Publish, with hardly a wait between tries."""
    return upload_output(output, UploadOptions(repo=repo, **options), dry_run=dry_run, waits=QUICK)


def files_of(repo: Repo, revision: str = MAIN) -> dict[str, bytes]:
    """Return the files of a repository that we published."""
    return {name: blob.content for name, blob in repo.head(revision).files.items() if name != ".gitattributes"}


def made(repo: Repo, revision: str = MAIN) -> list[Commit]:
    """Return the commits after the first one, which the Hub makes."""
    return repo.history(revision)[1:]


def is_right(repo: Repo, directory: Path, revision: str = MAIN) -> bool:
    """Say whether a repository holds every file of a directory, bit for bit, and the card beside them."""
    held = files_of(repo, revision)
    return {name: content for name, content in held.items() if name != "README.md"} == {
        path.name: path.read_bytes() for path in directory.iterdir()
    } and "README.md" in held


class TestPublished:
    def test_each_native_head_becomes_a_repository(self, hub: HubServer, proven: Path) -> None:
        """Of both parts, the head that was trained is published: its files bit for bit, its proof, and a card."""
        report = upload(proven)
        assert set(hub.repos) == {DISCRIMINATOR, GENERATOR}
        assert is_right(hub.repos[DISCRIMINATOR], proven / "discriminator" / "pretraining")
        assert is_right(hub.repos[GENERATOR], proven / "generator" / "masked_lm")
        assert [(repo.outcome, repo.created, repo.status) for repo in report.repos] == [
            ("committed", ("repository",), "proven")
        ] * 2
        assert [repo.oid for repo in report.repos] == [hub.repos[repo.repo_id].head(MAIN).oid for repo in report.repos]

    def test_weights_are_stored_apart_in_parts(self, hub: HubServer, proven: Path) -> None:
        """Weights go through large file storage, in parts where the Hub wants that; documents are git's own."""
        hub.multipart_threshold, hub.part_size = 300_000, 100_000
        upload(proven)
        files = hub.repos[DISCRIMINATOR].head(MAIN).files
        assert {name for name, blob in files.items() if blob.lfs} == {
            "model.safetensors",
            "tf_model.h5",
            "flax_model.msgpack",
        }
        puts = [seen for seen in hub.requests if seen.method == "PUT" and seen.status == 200]
        assert len(puts) > 10

    def test_card(self, hub: HubServer, proven: Path) -> None:
        """The card has what the publisher says, and the calls that load this very repository."""
        upload(proven, card=CardMetadata(license="apache-2.0", language=("ko",)))
        card = ModelCard(files_of(hub.repos[DISCRIMINATOR])["README.md"].decode())
        assert (card.data.license, card.data.language) == ("apache-2.0", "ko")
        assert f'ElectraForPreTraining.from_pretrained("{DISCRIMINATOR}")' in card.text

    def test_titles(self, hub: HubServer, proven: Path) -> None:
        """A commit says what it is, in the words that were given or in our own."""
        upload(proven, heads=("pretraining",), repo="org/a-{part}")
        upload(proven, heads=("pretraining",), repo="org/b-{part}", commit_message="Final model")
        titles = [hub.repos[f"org/{name}-discriminator"].head(MAIN).title for name in "ab"]
        assert titles[0].startswith("Publish discriminator of model.ckpt-30, pretraining, with electra-convert ")
        assert titles[1] == "Final model"

    def test_private(self, hub: HubServer, proven: Path) -> None:
        """A repository is made private on request, and one that is public is then refused before anything is sent."""
        upload(proven, private=True)
        assert hub.repos[DISCRIMINATOR].private
        hub.repos[GENERATOR].private = False
        with pytest.raises(PublishError, match=f"{GENERATOR} is public"):
            upload(proven, private=True, commit_message="never", card=CardMetadata(license="mit"))
        assert len(made(hub.repos[DISCRIMINATOR])) == 1, "all are looked at before anything is sent"
        hub.repos["org/open"] = Repo("org/open", private=False)
        with pytest.raises(PublishError, match="org/open is public, and you ask for a private repository"):
            upload(proven / "discriminator" / "pretraining", repo="org/open", private=True)
        assert not made(hub.repos["org/open"])

    def test_branch(self, hub: HubServer, proven: Path) -> None:
        """A branch is made where it is missing; the main one stays as it was."""
        report = upload(proven, revision="step-{step}")
        repo = hub.repos[DISCRIMINATOR]
        assert is_right(repo, proven / "discriminator" / "pretraining", "step-30")
        assert not made(repo)
        assert report.repos[0].created == ("repository", "branch")
        assert 'revision="step-30"' in files_of(repo, "step-30")["README.md"].decode()

    def test_weights_of_another_conversion_go(self, hub: HubServer, proven: Path) -> None:
        """Files of a model that are not published any more are deleted, and what no model has is left alone."""
        repo = hub.repos[DISCRIMINATOR] = Repo(DISCRIMINATOR, private=False)
        before = {
            **repo.head(MAIN).files,
            "model-00001-of-00002.safetensors": Blob(b"old", lfs=True),
            "model.safetensors.index.json": Blob(b"{}"),
            "pytorch_model.bin": Blob(b"older", lfs=True),
            "figure.png": Blob(b"a picture"),
        }
        repo.branches[MAIN].append(Commit("old", "", repo.head(MAIN).oid, before, author="somebody"))
        report = upload(proven)
        assert set(files_of(repo)) - {"figure.png"} == {
            "README.md",
            *(path.name for path in (proven / "discriminator" / "pretraining").iterdir()),
        }
        assert files_of(repo)["figure.png"] == b"a picture"
        deleted = [change.path for change in report.repos[0].changes if change.kind == "deleted"]
        assert deleted == [
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
        ]
        assert report.repos[0].left_alone == (".gitattributes", "figure.png")

    def test_other_files_are_published_only_by_name(self, hub: HubServer, output: Path, tmp_path: Path) -> None:
        """What no model has stays behind; files from anywhere are published where they are named."""
        directory = output / "discriminator" / "pretraining"
        for name in ("notes.txt", ".env"):
            (directory / name).write_text(name)
        (tmp_path / "LICENSE").write_text("do what you like")
        verify_as(directory, "proven")
        report = upload(directory, include=(tmp_path / "LICENSE",))
        assert files_of(hub.repos[DISCRIMINATOR])["LICENSE"] == b"do what you like"
        assert report.repos[0].left_behind == (".env", "notes.txt")
        assert not {"notes.txt", ".env"} & set(files_of(hub.repos[DISCRIMINATOR]))

    def test_files_that_cannot_be_included(self, tmp_path: Path) -> None:
        """A file that is not there, or would take the place of a model's, is told; all of them."""
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(OptionError) as error:
            UploadOptions(repo="org/x", include=(tmp_path / "config.json", tmp_path / "none"))
        assert error.value.problems == (
            f"{tmp_path}/config.json has the name of a model's own file",
            f"there is no file {tmp_path}/none",
        )

    def test_own_card(self, hub: HubServer, proven: Path) -> None:
        """A README.md in the directory is published as it is, if it says what must be said."""
        own = proven / "discriminator" / "pretraining" / "README.md"
        own.write_text("---\nlicense: mit\n---\n\n# Mine\n")
        upload(own.parent)
        assert files_of(hub.repos[DISCRIMINATOR])["README.md"] == own.read_bytes()
        (own.parent / "verification.json").unlink()
        with pytest.raises(ConfigError, match=r"README\.md does not say that the model is unverified"):
            upload(own.parent, allow_unverified=True)
        with pytest.raises(OptionError, match="is your own card"):
            upload(own.parent, allow_unverified=True, card=CardMetadata(license="mit"))


class TestGate:
    @pytest.mark.parametrize(
        ("status", "says"),
        [
            (None, "it was never verified"),
            ("incomplete", "incomplete: not all was run"),
            ("unverified", "unverified: all passed, but with loosened gates"),
            ("audited", "audited: consistent with itself"),
        ],
    )
    def test_only_what_is_proven(self, hub: HubServer, output: Path, status: Status | None, says: str) -> None:
        """What is not proven is refused; on request it is published, and its card says that it is unverified."""
        directory = output / "discriminator" / "pretraining"
        if status:
            verify_as(directory, status)
        with pytest.raises(PublishError, match=says) as refused:
            upload(directory)
        assert "--allow-unverified" in refused.value.hint
        assert not hub.requests
        upload(directory, allow_unverified=True)
        held = files_of(hub.repos[DISCRIMINATOR])
        assert "unverified" in ModelCard(held["README.md"].decode()).text.lower()
        assert ("verification.json" in held) == (status is not None)

    def test_all_that_is_not_proven_is_listed(self, hub: HubServer, output: Path) -> None:
        """Every directory that must not be published is named, and nothing is sent of the others."""
        verify_as(output / "discriminator" / "pretraining", "proven")
        with pytest.raises(PublishError) as refused:
            upload(output, heads=("pretraining", "masked_lm", "base"), repo="org/{part}-{head}")
        assert len(refused.value.problems) == 5
        assert not hub.requests

    @pytest.mark.parametrize("change", ["changed", "gone", "added"])
    def test_files_that_are_not_those_that_were_verified(self, hub: HubServer, proven: Path, change: str) -> None:
        """A proof holds for its files alone; published on request, it is not among them."""
        directory = proven / "discriminator" / "pretraining"
        if change == "changed":
            (directory / "config.json").write_text((directory / "config.json").read_text() + "\n")
        elif change == "gone":
            (directory / "special_tokens_map.json").unlink()
        else:
            shutil.copy(directory / "vocab.txt", directory / "more.txt")
        with pytest.raises(PublishError, match="it is not what was verified: "):
            upload(directory)
        upload(directory, allow_unverified=True)
        held = files_of(hub.repos[DISCRIMINATOR])
        assert "verification.json" not in held
        assert "unverified" in ModelCard(held["README.md"].decode()).text.lower()

    def test_what_failed_is_never_published(self, hub: HubServer, proven: Path) -> None:
        """Neither a request nor a change of the files gets a failed verification past the gate."""
        directory = proven / "discriminator" / "pretraining"
        verify_as(directory, "failed")
        for _ in range(2):
            with pytest.raises(PublishError, match="what failed is never published") as refused:
                upload(directory, allow_unverified=True)
            assert "--allow-unverified" not in refused.value.hint
            (directory / "vocab.txt").write_bytes((directory / "vocab.txt").read_bytes() + b"more\n")
        assert not hub.requests

    def test_a_proof_that_cannot_be_read(self, hub: HubServer, proven: Path) -> None:
        """A verification.json that is none is no proof."""
        directory = proven / "discriminator" / "pretraining"
        (directory / "verification.json").write_text("{}")
        with pytest.raises(PublishError, match=r"verification\.json cannot be read"):
            upload(directory)
        assert not hub.requests

    @pytest.mark.usefixtures("hub")
    def test_what_was_left_out_of_the_proof(self, proven: Path) -> None:
        """A proof that left out a format that is there is no proof of all that would be published."""
        directory = proven / "discriminator" / "pretraining"
        path = directory / "verification.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "left_out": ["flax"]}))
        with pytest.raises(PublishError):
            upload(directory)
        (directory / "flax_model.msgpack").unlink()
        said = json.loads(path.read_text())
        del said["files"]["flax_model.msgpack"]
        (directory / "conversion.json").write_text(
            (directory / "conversion.json").read_text().replace('"tensorflow",\n      "flax"', '"tensorflow"')
        )
        said["files"]["conversion.json"] = hashlib.sha256((directory / "conversion.json").read_bytes()).hexdigest()
        path.write_text(json.dumps(said))
        assert upload(directory).repos[0].outcome == "committed"


class TestHeads:
    def test_untrained_heads_must_be_named(self, hub: HubServer, proven: Path) -> None:
        """An untrained head is published only where it is named, its own directory too; its card says what it is."""
        directory = proven / "discriminator" / "token_classification"
        with pytest.raises(PublishError, match="no head here is known to be trained") as refused:
            upload(directory)
        assert refused.value.problems == (f"{directory}: token_classification, untrained: fine-tune it",)
        upload(directory, heads=("token_classification",))
        assert "untrained" in ModelCard(files_of(hub.repos[DISCRIMINATOR])["README.md"].decode()).text

    def test_base_may_be_named(self, hub: HubServer, proven: Path) -> None:
        """The backbone alone is published where it is named, and is not called untrained."""
        upload(proven / "discriminator", repo="org/base", heads=("base",))
        assert "untrained" not in ModelCard(files_of(hub.repos["org/base"])["README.md"].decode()).text

    def test_a_head_that_is_not_there(self, proven: Path) -> None:
        """A head that was not converted is named, with those that were."""
        with pytest.raises(OptionError, match="there is no question_answering here") as error:
            upload(proven, heads=("question_answering",))
        assert "base, pretraining, masked_lm, token_classification" in error.value.hint

    def test_written_by_something_else(self, hub: HubServer, proven: Path) -> None:
        """Of a directory without a record, nobody knows what was trained: it must be named."""
        directory = proven / "discriminator" / "pretraining"
        for name in ("conversion.json", "verification.json"):
            (directory / name).unlink()
        with pytest.raises(PublishError, match="pretraining, written by something else"):
            upload(directory, repo="org/foreign", allow_unverified=True)
        upload(directory, repo="org/foreign", allow_unverified=True, heads=("pretraining",))
        assert "model.safetensors" in files_of(hub.repos["org/foreign"])


class TestNames:
    @pytest.mark.parametrize(
        ("repo", "says"),
        [
            ("org/x", "names one repository for several models"),
            ("org/{name}-{part}", r"there is no \{name\}"),
            ("org/{part", "is no template"),
            ("{part}", "does not say whose repository it is"),
            ("org/a b-{part}", "is no name of a repository"),
        ],
    )
    def test_wrong(self, hub: HubServer, proven: Path, repo: str, says: str) -> None:
        """A name that cannot be one, or is one for several models, is refused before anything is sent."""
        with pytest.raises(OptionError, match=says):
            upload(proven, repo=repo)
        assert not hub.requests

    def test_contradictions(self) -> None:
        """All that contradicts itself in the options is listed at once."""
        with pytest.raises(OptionError) as error:
            UploadOptions(repo="a/b", create_pr=True, revision="v2", commit_message="a\nb")
        assert len(error.value.problems) == 2

    def test_formats_apart(self, hub: HubServer, converted: Callable[..., Path]) -> None:
        """Directories of single formats are told apart by `{format}`."""
        output = converted("electra_tiny", "discriminator", heads=("pretraining",), split_formats=True)
        upload(output, repo="org/tiny-{format}", allow_unverified=True)
        assert set(hub.repos) == {"org/tiny-pytorch", "org/tiny-tensorflow", "org/tiny-flax"}


class TestAgain:
    def test_nothing_is_committed_twice(self, hub: HubServer, proven: Path) -> None:
        """A second run looks, sends nothing, and says where everything is."""
        first = upload(proven)
        hub.requests.clear()
        second = upload(proven)
        assert {seen.method for seen in hub.requests} == {"GET"}
        assert [repo.outcome for repo in second.repos] == ["unchanged", "unchanged"]
        assert [repo.oid for repo in second.repos] == [repo.oid for repo in first.repos]
        assert len(made(hub.repos[DISCRIMINATOR])) == 1

    def test_only_what_changed_is_sent(self, hub: HubServer, proven: Path) -> None:
        """Of a model that was verified again, the weights are not sent again."""
        upload(proven / "discriminator")
        directory = proven / "discriminator" / "pretraining"
        (directory / "vocab.txt").write_bytes((directory / "vocab.txt").read_bytes() + b"more\n")
        verify_as(directory, "proven")
        hub.requests.clear()
        report = upload(proven / "discriminator")
        changed = [change.path for change in report.repos[0].changes if change.kind != "unchanged"]
        assert changed == ["verification.json", "vocab.txt"]
        assert not [seen for seen in hub.requests if seen.method == "PUT"]
        assert is_right(hub.repos[DISCRIMINATOR], directory)

    def test_a_pull_request_is_found_again(self, hub: HubServer, proven: Path) -> None:
        """An open pull request with this content is reused, among others; one that was closed is not."""
        hub.page_size = 2
        repo = hub.repos[DISCRIMINATOR] = Repo(DISCRIMINATOR, private=False)
        for number in range(3):
            upload(proven / "discriminator", create_pr=True, card=CardMetadata(tags=(f"other-{number}",)))
        first = upload(proven / "discriminator", create_pr=True)
        again = upload(proven / "discriminator", create_pr=True)
        assert [report.repos[0].outcome for report in (first, again)] == ["opened", "reused"]
        assert again.repos[0].revision == "refs/pr/4"
        assert len(repo.pull_requests) == 4
        assert not made(repo)
        repo.pull_requests[3].status = "closed"
        assert upload(proven / "discriminator", create_pr=True).repos[0].revision == "refs/pr/5"

    def test_no_pull_request_for_what_is_there(self, hub: HubServer, proven: Path) -> None:
        """What the main branch has needs no pull request."""
        upload(proven)
        report = upload(proven, create_pr=True)
        assert [each.outcome for each in report.repos] == ["unchanged", "unchanged"]
        assert not hub.repos[DISCRIMINATOR].pull_requests


class TestDryRun:
    def test_sends_nothing_and_says_what_would_change(self, hub: HubServer, proven: Path) -> None:
        """A dry run only looks: at a repository that is not there, one that differs, one that has all of it."""
        directory = proven / "discriminator" / "pretraining"
        plan = upload(directory, dry_run=True).repos[0]
        assert (plan.outcome, plan.created, plan.oid) == ("planned", ("repository",), "")
        assert plan.sent == sum(change.nbytes for change in plan.changes) > 1_000_000
        assert not hub.repos
        upload(directory)
        (directory / "vocab.txt").write_bytes((directory / "vocab.txt").read_bytes() + b"more\n")
        hub.requests.clear()
        differs = upload(directory, dry_run=True, allow_unverified=True).repos[0]
        kinds = {change.path: change.kind for change in differs.changes}
        assert (kinds["vocab.txt"], kinds["README.md"]) == ("changed", "changed")
        assert (kinds["model.safetensors"], kinds["verification.json"]) == ("unchanged", "deleted")
        branch = upload(directory, dry_run=True, allow_unverified=True, revision="next").repos[0]
        assert branch.created == ("branch",)
        assert {change.path: change.kind for change in branch.changes}["model.safetensors"] == "unchanged"
        assert {seen.method for seen in hub.requests} == {"GET"}

    def test_needs_no_token(self, hub: HubServer, proven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One may look at what would change without a token."""
        monkeypatch.delenv("HF_TOKEN")
        assert [repo.outcome for repo in upload(proven, dry_run=True).repos] == ["planned", "planned"]
        with pytest.raises(HubPermissionError, match="there is no token for the Hub"):
            upload(proven)
        assert not hub.repos


COMMIT, LFS, BATCH = "/commit/", "/lfs/|/objects/|storage", "info/lfs/objects/batch"


class TestFaults:
    @pytest.mark.parametrize("status", [429, 500, 503])
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/api/models/"),
            ("GET", "/tree/"),
            ("POST", "/api/repos/create"),
            ("POST", "/preupload/"),
            ("POST", BATCH),
            ("PUT", "."),
            ("POST", COMMIT),
        ],
    )
    def test_what_passes_by_itself(
        self, hub: HubServer, proven: Path, method: str, path: str, status: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Too many requests and a server in trouble are waited for, wherever they happen; there is one commit."""
        monkeypatch.setattr("time.sleep", lambda _: None)
        fault = Fault(method, path, "status", times=2, status=status)
        hub.faults.append(fault)
        upload(proven / "discriminator")
        assert fault.met == 2
        assert is_right(hub.repos[DISCRIMINATOR], proven / "discriminator" / "pretraining")
        assert len(made(hub.repos[DISCRIMINATOR])) == 1

    def test_waits_as_long_as_the_hub_asks(self, hub: HubServer, proven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`Retry-After` is honoured, and told."""
        slept: list[float] = []
        told: list[str] = []
        monkeypatch.setattr("time.sleep", slept.append)
        hub.faults.append(Fault("POST", COMMIT, "status", status=429, retry_after=7))
        upload_output(proven / "discriminator", UploadOptions(repo=DISCRIMINATOR), waits=QUICK, notify=told.append)
        assert slept == [7.0]
        assert told == [f"the Hub has had too many requests (429): trying again in 7 s to commit to {DISCRIMINATOR}"]

    def test_does_not_wait_for_hours(self, hub: HubServer, proven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A Hub that asks for more than some minutes is told of at once."""
        monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"it waits for {seconds} s"))
        hub.faults.append(Fault("POST", COMMIT, "status", status=429, retry_after=86400))
        with pytest.raises(HubError, match="429"):
            upload(proven / "discriminator")

    def test_gives_up_in_the_end(self, hub: HubServer, proven: Path) -> None:
        """A Hub that stays in trouble is one message, which says that running again is safe."""
        hub.faults.append(Fault("POST", COMMIT, "status", status=500, times=99))
        with pytest.raises(HubError, match=f"the Hub fails to commit to {DISCRIMINATOR}: 500") as error:
            upload(proven / "discriminator")
        assert "run the same command again" in error.value.hint
        hub.faults.clear()
        upload(proven / "discriminator")
        assert is_right(hub.repos[DISCRIMINATOR], proven / "discriminator" / "pretraining")

    @pytest.mark.parametrize(("method", "path"), [("PUT", "."), ("POST", COMMIT), ("POST", "/preupload/")])
    def test_a_connection_that_is_cut(
        self, hub: HubServer, proven: Path, method: str, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection that breaks in the middle of what is sent is made anew."""
        monkeypatch.setattr("time.sleep", lambda _: None)
        fault = Fault(method, path, "cut_request")
        hub.faults.append(fault)
        upload(proven / "discriminator")
        assert fault.met == 1
        assert is_right(hub.repos[DISCRIMINATOR], proven / "discriminator" / "pretraining")
        assert len(made(hub.repos[DISCRIMINATOR])) == 1

    @pytest.mark.parametrize("create_pr", [False, True])
    def test_a_commit_whose_answer_is_lost(self, hub: HubServer, proven: Path, *, create_pr: bool) -> None:
        """A commit that succeeded is not made again because its answer was lost; the report says that it was made."""
        fault = Fault("POST", COMMIT, "lose_answer")
        hub.faults.append(fault)
        report = upload(proven / "discriminator", create_pr=create_pr)
        repo = hub.repos[DISCRIMINATOR]
        assert fault.met == 1
        assert len([seen for seen in hub.requests if COMMIT in seen.path]) == 1
        assert (len(made(repo)), len(repo.pull_requests)) == ((0, 1) if create_pr else (1, 0))
        assert report.repos[0].outcome == ("opened" if create_pr else "committed")
        assert report.repos[0].oid == repo.head("refs/pr/1" if create_pr else MAIN).oid

    @pytest.mark.parametrize("path", ["/api/repos/create", "/branch/"])
    def test_what_is_made_and_its_answer_lost(self, hub: HubServer, proven: Path, path: str) -> None:
        """A repository or a branch that was made although its answer was lost is used."""
        fault = Fault("POST", path, "lose_answer")
        hub.faults.append(fault)
        upload(proven / "discriminator", revision="next")
        assert fault.met == 1
        assert is_right(hub.repos[DISCRIMINATOR], proven / "discriminator" / "pretraining", "next")

    def test_somebody_commits_in_between(self, hub: HubServer, proven: Path) -> None:
        """A commit of somebody else's between the look and the commit is neither lost nor overwritten unseen."""
        repo = hub.repos[DISCRIMINATOR] = Repo(DISCRIMINATOR, private=False)

        def commit(_method: str, path: str, phase: Phase) -> None:
            if COMMIT in path and phase == "begin" and len(repo.branches[MAIN]) == 1:
                theirs = {"figure.png": Blob(b"a picture"), "model.safetensors.index.json": Blob(b"{}")}
                files = {**repo.head(MAIN).files, **theirs}
                repo.branches[MAIN].append(Commit("theirs", "", repo.head(MAIN).oid, files, author="somebody"))

        hub.on_request = commit
        upload(proven / "discriminator")
        assert made(repo)[0].title == "theirs"
        assert len(made(repo)) == 2
        assert files_of(repo)["figure.png"] == b"a picture"
        assert "model.safetensors.index.json" not in files_of(repo), "what they added was looked at before committing"

    @pytest.mark.usefixtures("hub")
    def test_nothing_listens(self, proven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A Hub that cannot be reached is one message."""
        monkeypatch.setattr("time.sleep", lambda _: None)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(HubError, match="the Hub cannot be reached to read"):
            upload(proven)

    def test_a_gateway_that_answers_in_html(
        self, hub: HubServer, proven: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The client reads a validation's answer as JSON before it looks at the status; that passes too."""
        monkeypatch.setattr("time.sleep", lambda _: None)
        monkeypatch.setattr("tests.hub.server.refused", lambda _: Answer(502, b"<html>Bad Gateway</html>"))
        fault = Fault("POST", "/api/validate-yaml", "status", status=502)
        hub.faults.append(fault)
        upload(proven / "discriminator")
        assert fault.met == 1
        assert is_right(hub.repos[DISCRIMINATOR], proven / "discriminator" / "pretraining")

    def test_what_the_client_waits_for_is_told(
        self, hub: HubServer, proven: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The client waits by itself in some requests; that is told too, and its logging is as it was afterwards."""
        logger = logging.getLogger("huggingface_hub")
        before = (list(logger.handlers), logger.propagate)
        told: list[str] = []
        monkeypatch.setattr("time.sleep", lambda _: None)
        hub.faults.append(Fault("POST", "/preupload/", "status", status=503, times=2))
        upload_output(proven / "discriminator", UploadOptions(repo=DISCRIMINATOR), waits=QUICK, notify=told.append)
        assert [text for text in told if "503" in text]
        assert (list(logger.handlers), logger.propagate) == before

    def test_of_several_the_others_are_published(self, hub: HubServer, proven: Path) -> None:
        """One repository that is refused stops no other; the error has the report on those that were done."""
        hub.faults.append(Fault("POST", f"{DISCRIMINATOR}/commit/", "status", status=403))
        with pytest.raises(PartialUploadError, match="1 of 2 repositories could not be published") as error:
            upload(proven)
        assert [repo.repo_id for repo in error.value.report.repos] == [GENERATOR]
        assert is_right(hub.repos[GENERATOR], proven / "generator" / "masked_lm")
        hub.faults.append(Fault("POST", f"{DISCRIMINATOR}/commit/", "status", status=403))
        said = _said(proven, "--repo", "org/tiny-{part}", environment=hub.environment)
        assert f"{GENERATOR}: generator masked_lm, proven" in said
        assert f"does not let you commit to {DISCRIMINATOR}" in said


class TestPermission:
    @pytest.mark.parametrize(
        ("token", "options", "says", "needs"),
        [
            (Token("author", orgs={"org": "read"}), {}, "does not let you create", "repo.write"),
            (Token("author", role="read", orgs={"org": "write"}), {}, "does not let you create", "the role 'read'"),
            (
                Token("author", role="fineGrained", scopes={"org": ("repo.content.read",)}),
                {},
                "does not let you create",
                "the role 'fineGrained'",
            ),
        ],
    )
    def test_which_scope_is_needed(
        self, hub: HubServer, proven: Path, secret: str, token: Token, options: Any, says: str, needs: str
    ) -> None:
        """What a token may not do is said, with the right it needs and the role it has."""
        hub.tokens[secret] = token
        with pytest.raises(HubPermissionError, match=says) as error:
            upload(proven, **options)
        assert needs in error.value.hint
        assert not hub.repos

    def test_pull_request(self, hub: HubServer, proven: Path, secret: str) -> None:
        """Who may not open a pull request is told the right that takes."""
        hub.repos[DISCRIMINATOR] = Repo(DISCRIMINATOR, private=False)
        hub.tokens[secret] = Token("author", role="fineGrained", scopes={"org": ("repo.content.read",)})
        with pytest.raises(HubPermissionError, match=f"open a pull request for {DISCRIMINATOR}") as error:
            upload(proven / "discriminator", create_pr=True)
        assert "discussion.write" in error.value.hint

    def test_commit(self, hub: HubServer, proven: Path, secret: str) -> None:
        """Who may not write in a repository that is there is told so."""
        hub.repos[DISCRIMINATOR] = Repo(DISCRIMINATOR, private=False)
        hub.tokens[secret] = Token("author", orgs={"org": "read"})
        with pytest.raises(HubPermissionError, match=f"does not let you commit to {DISCRIMINATOR}") as error:
            upload(proven / "discriminator")
        assert "repo.write" in error.value.hint

    @pytest.mark.usefixtures("hub")
    def test_unknown_token(self, proven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A token that the Hub does not know is told of, and not shown."""
        monkeypatch.setenv("HF_TOKEN", "hf_madeUp")
        with pytest.raises(HubPermissionError, match="the Hub knows no such token") as error:
            upload(proven)
        assert "hf_madeUp" not in str(error.value)

    def test_somebody_elses_private_repository(self, hub: HubServer, proven: Path, secret: str) -> None:
        """A name that is taken, and not shown, is explained."""
        hub.repos[DISCRIMINATOR] = Repo(DISCRIMINATOR, private=True)
        hub.tokens[secret] = Token("author", orgs={})
        with pytest.raises(HubPermissionError):
            upload(proven / "discriminator")
        assert not made(hub.repos[DISCRIMINATOR])

    def test_who_signed_in_by_a_browser(self, hub: HubServer, proven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sign-in that the Hub tells no role of is told by its name."""
        hub.repos[DISCRIMINATOR] = Repo(DISCRIMINATOR, private=False)
        monkeypatch.setattr("huggingface_hub.HfApi.whoami", lambda _: {"name": "kim", "auth": {"type": "oauth"}})
        hub.faults.append(Fault("POST", COMMIT, "status", status=403))
        with pytest.raises(HubPermissionError) as error:
            upload(proven / "discriminator")
        assert "the one here is kim's. Make one" in error.value.hint

    def test_a_token_that_can_be_none(self, hub: HubServer, proven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A token with a character that no token has is refused before a client could show it in an error."""
        monkeypatch.setenv("HF_TOKEN", "hf_Bad\x0bToken")
        with pytest.raises(HubPermissionError, match="characters that no token has") as error:
            upload(proven)
        assert "Bad" not in str(error.value)
        assert not hub.requests


class TestSecrets:
    def test_the_token_is_nowhere(self, hub: HubServer, proven: Path, secret: str) -> None:
        """Whatever goes wrong, and however much is asked for, the token is in no output and in nothing published."""
        echo = f"you sent {secret}"
        calls: list[tuple[list[Fault], list[str]]] = [
            ([], []),
            ([], ["--json"]),
            ([], ["--dry-run", "--debug"]),
            ([Fault("POST", COMMIT, "status", status=403)], ["--debug", "--revision", "next"]),
        ]
        said = ""
        for faults, options in calls:
            hub.faults[:] = faults
            said += _said(proven, "--repo", "org/tiny-{part}", *options, environment=hub.environment)
        said += str(_echoed(echo))
        published = b"".join(blob.content for repo in hub.repos.values() for blob in repo.head(MAIN).files.values())
        assert "Traceback" in said
        assert "***" in said
        assert secret not in said
        assert secret.encode() not in published

    def test_nothing_published_tells_of_this_machine(self, hub: HubServer, output: Path) -> None:
        """No path, user or host of the machine is in any file or commit, whatever the verdict."""
        directory = output / "discriminator" / "pretraining"
        for status in ("proven", "incomplete", "unverified", "audited"):
            verify_as(directory, status)
            upload(directory, allow_unverified=True)
        private = {str(output), str(Path.home()), str(Path.cwd()), socket.gethostname(), output.parent.name}
        for commit in made(hub.repos[DISCRIMINATOR]):
            for text in (each for each in private if len(each) > 4):  # less may be in weights by chance
                assert text not in commit.title + commit.description
                assert not [name for name, blob in commit.files.items() if text.encode() in blob.content]


def _said(output: Path, *options: str, environment: dict[str, str]) -> str:
    """Return all that the command prints."""
    run = subprocess.run(
        [sys.executable, "-m", "electra_convert", "upload", str(output), *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout + run.stderr


def _echoed(text: str) -> ElectraConvertError:
    """Return what becomes of an answer that echoes the token."""
    from electra_convert.hub.client import Doing, Hub, explained

    return explained(ValueError(text), Doing("commit", "org/x"), Hub())


class TestCommandLine:
    def test_what_a_publisher_should_know(self, hub: HubServer, proven: Path) -> None:
        """An untrained head, no license, and a card that is replaced are told; what is there already is not listed."""
        arguments = (proven / "discriminator", "org/x", "--head", "masked_lm")
        first = _said(*arguments, environment=hub.environment)
        assert first.splitlines()[0] == "org/x: discriminator masked_lm (untrained: fine-tune it), proven"
        assert "note: the card names no license: --license" in first
        again = _said(*arguments, "--license", "mit", environment=hub.environment)
        assert "the card names no license" not in again
        assert "note: the card on the Hub is replaced" in again
        third = _said(*arguments, "--license", "mit", environment=hub.environment).splitlines()
        assert third[1:] == ["Nothing to do: all of it is there", f"{hub.url}/org/x"]

    def test_one_model(self, hub: HubServer, proven: Path) -> None:
        """`upload DIR REPO_ID` says what it did, and where it is."""
        directory = proven / "discriminator" / "pretraining"
        said = _said(directory, "org/one", "--license", "mit", environment=hub.environment)
        lines = said.splitlines()
        assert lines[0] == "org/one: discriminator pretraining, proven"
        assert lines[-2].startswith("Made the repository. Committed 11 files as ")
        assert lines[-1] == f"{hub.url}/org/one"
        assert b"license: mit" in files_of(hub.repos["org/one"])["README.md"]

    def test_json(self, hub: HubServer, proven: Path) -> None:
        """`--json` prints the report."""
        report = json.loads(_said(proven, "--repo", "org/x-{part}", "--json", environment=hub.environment))
        assert [repo["outcome"] for repo in report["repos"]] == ["committed", "committed"]

    @pytest.mark.parametrize("arguments", [(), ("org/x", "--repo", "org/{part}")])
    def test_the_repository_is_named_once(self, hub: HubServer, proven: Path, arguments: tuple[str, ...]) -> None:
        """Neither none nor two names do."""
        said = _said(proven, *arguments, environment=hub.environment)
        assert said.startswith("error: ")
        assert "give REPO_ID for one model: org/name, or --repo 'org/name-{part}' for several" in said
        assert not hub.requests


def test_names_of_model_files() -> None:
    """Every file that a conversion writes is a model's, in both layouts; others are not."""
    names = ["model-00001-of-00002.safetensors", "tf_model.h5.index.json", "flax_model-00002-of-00002.msgpack"]
    assert all(map(is_model_file, names))
    assert not any(map(is_model_file, ("model-1.safetensors", "pytorch_model.bin", "notes.txt", "model.ckpt-30.index")))
