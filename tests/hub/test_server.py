"""The Hub of the tests, as the real client sees it."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub.card import card_metadata
from tests.hub.server import Fault, HubServer, Phase
from tests.hub.state import Blob, Token, git_hash, tree_oid

REPO = "org/model"
WEIGHTS = bytes(range(256)) * 5
CARD = b"---\nlicense: apache-2.0\ntags: [electra]\n---\n# A model\n"
LFS_PUT = "^/storage/"
COMMIT = "/commit/main"


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    """The client, with an empty repository."""
    client = HfApi(endpoint=os.environ["HF_ENDPOINT"], token=os.environ["HF_TOKEN"])
    client.create_repo(REPO)
    assert hub.repos[REPO].private is False
    return client


def publish(api: HfApi, files: dict[str, bytes], **options: Any) -> str:
    """Commit files, and return the commit's hash."""
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    made = api.create_commit(REPO, operations, commit_message="Add files", **options)
    return str(made.oid)


def content(hub: HubServer, revision: str = "main") -> dict[str, bytes]:
    """Return what a revision holds, beside what every repository starts with."""
    files = hub.repos[REPO].head(revision).files
    return {path: blob.content for path, blob in files.items() if path != ".gitattributes"}


def puts(hub: HubServer) -> list[str]:
    """Return where objects and parts were sent."""
    return [seen.path for seen in hub.requests if seen.method == "PUT"]


# What is published


def test_small_files_and_objects_are_one_commit(hub: HubServer, api: HfApi) -> None:
    """Files that git holds and objects are published together, and the commit says which is which."""
    oid = publish(api, {"README.md": CARD, "model.safetensors": WEIGHTS, "config.json": b"{}"})
    assert content(hub) == {"README.md": CARD, "model.safetensors": WEIGHTS, "config.json": b"{}"}
    first, second = hub.repos[REPO].branches["main"]
    assert (second.oid, second.parent, second.title) == (oid, first.oid, "Add files")
    assert {path for path, blob in second.files.items() if blob.lfs} == {"model.safetensors"}
    assert len(puts(hub)) == 1


def test_a_large_object_comes_in_parts(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    """An object above the threshold is sent in parts from a file, which are joined in order."""
    hub.multipart_threshold, hub.part_size = 1000, 500
    (tmp_path / "weights").write_bytes(WEIGHTS)
    operation = CommitOperationAdd("model.safetensors", tmp_path / "weights")
    api.create_commit(REPO, [operation], commit_message="Add weights")
    assert sorted(path.rpartition("/")[2] for path in puts(hub)) == ["1", "2", "3"]
    assert content(hub) == {"model.safetensors": WEIGHTS}


def test_a_stored_object_is_not_sent_again(hub: HubServer, api: HfApi) -> None:
    """An object that is stored needs no second upload, in whatever file it is."""
    publish(api, {"model.safetensors": WEIGHTS})
    publish(api, {"copy.safetensors": WEIGHTS})
    assert len(puts(hub)) == 1
    assert set(content(hub)) == {"model.safetensors", "copy.safetensors"}


def test_unchanged_files_make_no_commit(hub: HubServer, api: HfApi) -> None:
    """The client learns the hashes of what is there, and then commits nothing."""
    files = {"README.md": CARD, "model.safetensors": WEIGHTS}
    assert publish(api, files) == publish(api, files)
    assert len(hub.repos[REPO].branches["main"]) == 2


def test_files_can_be_deleted(hub: HubServer, api: HfApi) -> None:
    """A file and a folder can go; what does not exist cannot."""
    publish(api, {"a.txt": b"a", "folder/b.txt": b"b", "folder/deep/c.txt": b"c", "d.txt": b"d"})
    gone = [CommitOperationDelete("a.txt"), CommitOperationDelete("folder/")]
    api.create_commit(REPO, gone, commit_message="Delete")
    assert content(hub) == {"d.txt": b"d"}
    with pytest.raises(EntryNotFoundError):
        api.create_commit(REPO, gone, commit_message="Delete again")


def test_a_pull_request_leaves_the_branch_alone(hub: HubServer, api: HfApi) -> None:
    """A commit can open a pull request, which the client finds and can read, and can add to."""
    made = api.create_commit(
        REPO, [CommitOperationAdd("a.txt", b"a")], commit_message="Title", commit_description="Why", create_pr=True
    )
    assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
    assert (content(hub), content(hub, "refs/pr/1")) == ({}, {"a.txt": b"a"})
    publish(api, {"b.txt": b"b"}, revision="refs/pr/1")
    assert content(hub, "refs/pr/1") == {"a.txt": b"a", "b.txt": b"b"}
    (request,) = hub.repos[REPO].pull_requests
    assert (request.status, request.author, request.base, len(request.commits)) == ("open", "author", "main", 3)
    details = api.get_discussion_details(REPO, 1)
    assert (details.title, details.status, details.target_branch) == ("Title", "open", "refs/heads/main")
    assert [event.type for event in details.events] == ["comment", "commit", "commit"]
    references = api.list_repo_refs(REPO, include_pull_requests=True)
    assert [reference.target_commit for reference in references.pull_requests or []] == [request.commits[-1].oid]


def test_discussions_are_listed_in_pages(hub: HubServer, api: HfApi) -> None:
    """The list has all pages, and can be asked for by status."""
    hub.page_size = 2
    for number in range(5):
        publish(api, {f"{number}.txt": b"content"}, create_pr=True)
    hub.repos[REPO].pull_requests[1].status = "closed"
    hub.repos[REPO].pull_requests[2].status = "merged"
    listed = api.get_repo_discussions(REPO, discussion_type="pull_request")
    assert [request.num for request in listed] == [5, 4, 3, 2, 1]
    assert [request.num for request in api.get_repo_discussions(REPO, discussion_status="open")] == [5, 4, 1]
    assert [request.num for request in api.get_repo_discussions(REPO, discussion_status="closed")] == [3, 2]
    assert not list(api.get_repo_discussions(REPO, discussion_type="discussion"))


def test_branches(hub: HubServer, api: HfApi) -> None:
    """A branch starts where it is told to, is written to, and cannot be created twice."""
    first = hub.repos[REPO].head("main").oid
    publish(api, {"a.txt": b"a"})
    api.create_branch(REPO, branch="step/100", revision=first)
    publish(api, {"b.txt": b"b"}, revision="step/100")
    assert (content(hub), content(hub, "step/100")) == ({"a.txt": b"a"}, {"b.txt": b"b"})
    assert {branch.name for branch in api.list_repo_refs(REPO).branches} == {"main", "step/100"}
    api.create_branch(REPO, branch="step/100", exist_ok=True)
    with pytest.raises(HfHubHTTPError) as raised:
        api.create_branch(REPO, branch="step/100")
    assert raised.value.response.status_code == 409


def test_a_commit_on_another_parent_is_refused(hub: HubServer, api: HfApi) -> None:
    """A commit that expects another head is refused and changes nothing; one that expects the head is made."""
    before = hub.repos[REPO].head("main").oid
    after = publish(api, {"a.txt": b"a"}, parent_commit=before)
    with pytest.raises(HfHubHTTPError) as raised:
        publish(api, {"b.txt": b"b"}, parent_commit=before)
    assert raised.value.response.status_code == 412
    assert hub.repos[REPO].head("main").oid == after


def test_a_missing_object_or_a_wrong_way_is_refused(hub: HubServer, api: HfApi) -> None:
    """An object that was never stored cannot be committed, nor can weights as a small file."""
    operation = CommitOperationAdd("model.safetensors", WEIGHTS)
    operation._upload_mode, operation._is_uploaded = "lfs", True
    with pytest.raises(BadRequestError, match="is not stored"):
        api.create_commit(REPO, [operation], commit_message="Never sent")
    operation = CommitOperationAdd("model.safetensors", WEIGHTS)
    operation._upload_mode = "regular"
    with pytest.raises(BadRequestError, match="to be sent as an object"):
        api.create_commit(REPO, [operation], commit_message="Sent the wrong way")
    assert content(hub) == {}


@pytest.mark.parametrize(("attribute", "announced"), [("sha256", hashlib.sha256(b"else").digest()), ("size", 3)])
def test_an_object_is_what_was_announced(hub: HubServer, api: HfApi, attribute: str, announced: object) -> None:
    """Content with another hash or size is not stored."""
    operation = CommitOperationAdd("model.safetensors", WEIGHTS)
    setattr(operation.upload_info, attribute, announced)
    with pytest.raises(RuntimeError, match="while uploading"):
        api.create_commit(REPO, [operation], commit_message="Other content")
    assert hub.repos[REPO].objects == {}


@pytest.mark.parametrize(
    "metadata",
    [
        "license: 2.0",
        "license: Apache-2.0",
        "tags: electra",
        "tags: [1]",
        "language: Korean",
        "base_model: /home/someone/model",
        "library_name: [transformers]",
        "{",
    ],
)
def test_a_card_with_wrong_metadata_is_refused(hub: HubServer, api: HfApi, metadata: str) -> None:
    """Metadata of a wrong type, or that is no YAML, is refused before and in a commit."""
    card = f"---\n{metadata}\n---\n# A model\n".encode()
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        publish(api, {"README.md": card})
    assert hub.requests[-1].status == 400
    with pytest.raises(ValueError, match="metadata is wrong"):
        card_metadata(card.decode())


def test_a_card_without_metadata_is_warned_of(hub: HubServer, api: HfApi) -> None:
    """A card that has no metadata is published with a warning."""
    with pytest.warns(UserWarning, match="no metadata"):
        publish(api, {"README.md": b"# A model\n"})
    assert set(content(hub)) == {"README.md"}


# What is read


def test_what_was_published_is_downloaded(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    """A snapshot of a branch or a pull request, and a single file, are what was published."""
    files = {"README.md": CARD, "model.safetensors": WEIGHTS, "folder/config.json": b"{}"}
    publish(api, files)
    publish(api, {"model.safetensors": WEIGHTS[::-1]}, create_pr=True)
    snapshot = Path(api.snapshot_download(REPO))
    assert tmp_path in snapshot.parents
    assert {path: (snapshot / path).read_bytes() for path in files} == files
    proposed = Path(api.hf_hub_download(REPO, "model.safetensors", revision="refs/pr/1"))
    assert proposed.read_bytes() == WEIGHTS[::-1]
    assert hub.repos[REPO].head("main").oid in str(snapshot)


def test_a_cut_download_goes_on_where_it_stopped(hub: HubServer, api: HfApi) -> None:
    """A part of a file can be asked for: its first bytes, its last, or those from one on."""
    publish(api, {"model.safetensors": WEIGHTS})
    from huggingface_hub.utils import get_session

    session = get_session()
    for asked, status, expected, told in [
        ("bytes=0-9", 206, WEIGHTS[:10], "bytes 0-9/1280"),
        ("bytes=1270-", 206, WEIGHTS[1270:], "bytes 1270-1279/1280"),
        ("bytes=-3", 206, WEIGHTS[-3:], "bytes 1277-1279/1280"),
        ("bytes=1270-9999", 206, WEIGHTS[1270:], "bytes 1270-1279/1280"),
        ("bytes=5000-", 416, None, "bytes */1280"),
    ]:
        response = session.get(f"{hub.url}/{REPO}/resolve/main/model.safetensors", headers={"Range": asked})
        assert response.status_code == status
        assert expected is None or response.content == expected
        assert response.headers["Content-Range"] == told


def test_the_tree_is_listed_in_pages(hub: HubServer, api: HfApi) -> None:
    """Files and folders are listed with git's hashes and those of objects, in as many pages as it takes."""
    hub.page_size = 2
    publish(api, {"a/b/c.txt": b"c", "a/d.txt": b"d", "model.h5": WEIGHTS})
    listed: dict[str, Any] = {item.path: item for item in api.list_repo_tree(REPO, recursive=True)}
    assert list(listed) == [".gitattributes", "a", "a/b", "a/b/c.txt", "a/d.txt", "model.h5"]
    assert [item.path for item in api.list_repo_tree(REPO)] == [".gitattributes", "a", "model.h5"]
    assert [item.path for item in api.list_repo_tree(REPO, "a")] == ["a/b", "a/d.txt"]
    assert listed["a/d.txt"].blob_id == git_hash("blob", b"d")
    weights = listed["model.h5"]
    assert weights.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert weights.lfs.size == weights.size == len(WEIGHTS)
    assert [item.path for item in api.get_paths_info(REPO, ["a", "a/d.txt", "none"])] == ["a", "a/d.txt"]
    assert [commit.title for commit in api.list_repo_commits(REPO)] == ["Add files", "initial commit"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(REPO, "none"))


def test_information_about_a_model(hub: HubServer, api: HfApi) -> None:
    """The client reads the head, the files and the card's metadata."""
    oid = publish(api, {"README.md": CARD, "model.safetensors": WEIGHTS})
    information = api.model_info(REPO, files_metadata=True)
    assert (information.sha, information.private, information.tags) == (oid, False, ["electra"])
    sizes = {file.rfilename: (file.size, file.lfs is not None) for file in information.siblings or []}
    assert sizes["README.md"] == (len(CARD), False)
    assert sizes["model.safetensors"] == (len(WEIGHTS), True)
    assert api.model_info(REPO, revision=oid).sha == oid
    assert hub.repos[REPO].head(oid).oid == oid


def test_git_agrees_about_hashes(tmp_path: Path) -> None:
    """Git gives a folder of the same files the same hash."""
    files = {"a/b.txt": Blob(b"b"), "a.txt": Blob(b"a"), "a-b/c": Blob(b"c"), "weights": Blob(WEIGHTS, lfs=True)}
    for path, blob in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(blob.pointer if blob.lfs else blob.content)

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True, text=True).stdout  # noqa: S607

    git("init", "--quiet")
    git("-c", "core.autocrlf=false", "add", ".")
    assert git("write-tree").strip() == tree_oid(files)


# Who may do what


def test_what_does_not_exist_is_not_found(hub: HubServer, api: HfApi) -> None:
    """Missing repositories, revisions and files are told apart."""
    cases: list[tuple[type[Exception], Callable[[], object]]] = [
        (RepositoryNotFoundError, lambda: api.model_info("org/none")),
        (RevisionNotFoundError, lambda: api.model_info(REPO, revision="none")),
        (RevisionNotFoundError, lambda: publish(api, {"a.txt": b"a"}, revision="none")),
        (EntryNotFoundError, lambda: api.hf_hub_download(REPO, "none")),
    ]
    for kind, action in cases:
        with pytest.raises(kind):
            action()
        assert hub.requests[-1].status == 404


def test_a_private_repository_is_hidden(hub: HubServer, api: HfApi) -> None:
    """Who may not read a private repository is told that there is none."""
    api.create_repo("org/private", private=True)
    hub.tokens["hf_other"] = Token("other")
    assert api.model_info("org/private").private is True
    for token, status in [("hf_other", 404), (False, 401)]:
        with pytest.raises(RepositoryNotFoundError) as raised:
            api.model_info("org/private", token=token)
        assert raised.value.response.status_code == status


def test_a_repository_is_created_once(hub: HubServer, api: HfApi) -> None:
    """Creating a repository twice is a conflict, unless the client says it may be there."""
    with pytest.raises(HfHubHTTPError) as raised:
        api.create_repo(REPO)
    assert raised.value.response.status_code == 409
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    assert list(hub.repos) == [REPO]


@pytest.mark.parametrize(
    ("token", "write", "propose", "create"),
    [
        (None, 401, 401, 401),
        (Token("other", role="read", orgs={"org": "write"}), 403, 403, 403),
        (Token("other"), 403, 200, 403),
        (Token("other", orgs={"org": "read"}), 403, 200, 403),
        (Token("other", orgs={"org": "write"}), 200, 200, 200),
        (Token("other", "fineGrained", scopes={"org": ("repo.content.read",)}), 403, 403, 403),
        (Token("other", "fineGrained", scopes={"": ("discussion.write",)}), 403, 200, 403),
        (Token("other", "fineGrained", scopes={REPO: ("repo.write", "discussion.write")}), 200, 200, 403),
        (Token("other", "fineGrained", scopes={"org": ("repo.write",)}), 200, 403, 200),
    ],
)
def test_rights(hub: HubServer, api: HfApi, token: Token | None, write: int, propose: int, create: int) -> None:
    """A token's role, organisations and scopes decide what it may do."""
    other = HfApi(endpoint=api.endpoint, token="hf_other" if token else "hf_unknown")
    if token:
        hub.tokens["hf_other"] = token

    def status(action: Callable[[], object]) -> int:
        try:
            action()
        except HfHubHTTPError as error:
            return int(error.response.status_code)
        return 200

    assert status(lambda: publish(other, {"a.txt": b"a"})) == write
    assert status(lambda: publish(other, {"b.txt": b"b"}, create_pr=True)) == propose
    if propose == 200:
        publish(other, {"c.txt": b"c"}, revision="refs/pr/1")
    assert status(lambda: other.create_branch(REPO, branch="new")) == write
    assert status(lambda: other.create_repo("org/new")) == create
    assert len(hub.repos[REPO].branches["main"]) == 1 + (write == 200)
    assert len(hub.repos[REPO].pull_requests) == (propose == 200)


def test_who_one_is(hub: HubServer, api: HfApi) -> None:
    """The client learns the user, the organisations and the role of its token."""
    user = api.whoami()
    assert (user["name"], user["auth"]["accessToken"]["role"]) == ("author", "write")
    assert [(org["name"], org["roleInOrg"]) for org in user["orgs"]] == [("org", "write")]
    hub.tokens["hf_fine"] = Token("author", "fineGrained", scopes={"": ("discussion.write",), REPO: ("repo.write",)})
    access = api.whoami(token="hf_fine")["auth"]["accessToken"]  # noqa: S106 - not a real one
    assert access["fineGrained"]["global"] == ["discussion.write"]
    assert [scope["entity"]["name"] for scope in access["fineGrained"]["scoped"]] == [REPO]


def test_a_token_is_recorded_as_known_or_unknown(hub: HubServer, api: HfApi, secret: str) -> None:
    """What came tells whether a token was sent and known, and never which; storage needs none."""
    publish(api, {"model.safetensors": WEIGHTS})
    with pytest.raises(HfHubHTTPError):
        api.model_info(REPO, token="hf_unknown")  # noqa: S106 - not a real one
    api.model_info(REPO, token=False)
    assert {seen.token for seen in hub.requests if seen.path.startswith("/storage/")} == {None}
    assert [seen.token for seen in hub.requests[-2:]] == ["unknown", None]
    assert secret not in repr(hub.requests)


# What goes wrong


def test_a_status_is_answered_as_often_as_asked(hub: HubServer, api: HfApi) -> None:
    """A fault lets some requests through, meets some with nothing done, and is over."""
    fault = Fault("POST", COMMIT, "status", times=2, after=1, status=429, retry_after=7)
    hub.faults.append(fault)
    publish(api, {"a.txt": b"a"})
    assert fault.met == 0
    for met in (1, 2):
        with pytest.raises(HfHubHTTPError) as raised:
            publish(api, {"b.txt": b"b"})
        assert (raised.value.response.status_code, raised.value.response.headers["Retry-After"]) == (429, "7")
        assert fault.met == met
    assert content(hub) == {"a.txt": b"a"}
    publish(api, {"c.txt": b"c"})
    assert [seen.status for seen in hub.requests if COMMIT in seen.path] == [200, 429, 429, 200]
    assert content(hub) == {"a.txt": b"a", "c.txt": b"c"}


def test_an_upload_is_cut(hub: HubServer, api: HfApi) -> None:
    """A connection cut in mid-upload stores nothing; the client sends the object again."""
    fault = Fault("PUT", LFS_PUT, "cut_request")
    hub.faults.append(fault)
    publish(api, {"model.safetensors": WEIGHTS * 1000})
    assert [seen.status for seen in hub.requests if seen.method == "PUT"] == [None, 200]
    assert content(hub) == {"model.safetensors": WEIGHTS * 1000}
    assert fault.met == 1


def test_a_commit_is_made_and_its_answer_lost(hub: HubServer, api: HfApi) -> None:
    """The work is done, and the client sees an error."""
    hub.faults.append(Fault("POST", COMMIT, "lose_answer"))
    with pytest.raises(Exception, match=r"(?i)disconnected|aborted"):
        publish(api, {"a.txt": b"a"})
    assert content(hub) == {"a.txt": b"a"}
    assert hub.requests[-1].status == 200


@pytest.mark.parametrize(("where", "made"), [("body", 1), ("answer", 2)])
def test_a_request_stalls(hub: HubServer, api: HfApi, where: Literal["body", "answer"], made: int) -> None:
    """A request waits in the middle of its body, or with the work done, until it is released."""
    reached = threading.Event()
    phase = {"body": "body", "answer": "done"}[where]
    hub.on_request = lambda _, path, now: reached.set() if COMMIT in path and now == phase else None
    hub.faults.append(Fault("POST", COMMIT, "stall", where=where))
    client = threading.Thread(target=publish, args=(api, {"a.txt": b"a"}))
    client.start()
    assert reached.wait(10)
    client.join(0.2)
    assert client.is_alive()
    assert len(hub.repos[REPO].branches["main"]) == made
    hub.release.set()
    client.join(10)
    assert content(hub) == {"a.txt": b"a"}


def test_a_stall_ends_by_itself(hub: HubServer, api: HfApi) -> None:
    """A request that nobody releases goes on after some time."""
    hub.faults.append(Fault("GET", "whoami", "stall", seconds=0.3))
    start = time.monotonic()
    api.whoami()
    assert time.monotonic() - start > 0.3


def test_phases_are_told(hub: HubServer, api: HfApi) -> None:
    """A test can look on: nothing read, half of the body read, work done."""
    told: list[tuple[Phase, int]] = []

    def look(method: str, path: str, phase: Phase) -> None:
        if method == "POST" and COMMIT in path:
            told.append((phase, len(hub.repos[REPO].branches["main"])))

    hub.on_request = look
    publish(api, {"a.txt": b"a"})
    assert told == [("begin", 1), ("body", 1), ("done", 2)]


@pytest.mark.usefixtures("api")
def test_half_a_request_does_nothing(hub: HubServer, secret: str) -> None:
    """A client that goes away in the middle of a body is not served."""
    head = f"POST /api/repos/create HTTP/1.1\r\nAuthorization: Bearer {secret}\r\nContent-Length: 99\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(hub.url.rpartition(":")[2]))) as connection:
        connection.sendall(head.encode() + b'{"name": "half", "organization": "org"}')
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert hub.requests[-1] == ("POST", "/api/repos/create", None, "known", None)
    assert list(hub.repos) == [REPO]


@pytest.mark.parametrize(("phase", "stored"), [("body", 0), ("done", 1)])
@pytest.mark.usefixtures("api")
def test_a_client_is_killed_in_mid_work(hub: HubServer, phase: str, stored: int) -> None:
    """A process can be killed exactly when half of an object has come, or when it is stored and not yet answered."""
    program = (
        "from huggingface_hub import HfApi;"
        f"HfApi().upload_file(path_or_fileobj=b'x' * 5_000, path_in_repo='model.h5', repo_id={REPO!r})"
    )
    client = subprocess.Popen([sys.executable, "-c", program], env=hub.environment, stderr=subprocess.DEVNULL)

    def kill(method: str, _: str, now: Phase) -> None:
        if method == "PUT" and now == phase:
            client.kill()
            raise ConnectionAbortedError

    hub.on_request = kill
    assert client.wait(30) == -9
    hub.__exit__(None, None, None)  # waits for what was begun
    assert [seen.status for seen in hub.requests if seen.method == "PUT"] == [200 if stored else None]
    assert len(hub.repos[REPO].objects) == stored
    assert content(hub) == {}
