"""What a Hub answers: one function for each endpoint, written down from what the clients ask and read."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from math import ceil
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

from tests.hub.card import card_metadata
from tests.hub.protocol import (
    ENDPOINTS,
    UNAUTHENTICATED,
    Answer,
    Call,
    endpoint,
    paged,
    permitted,
    refused,
    require,
    stamp,
    told,
)
from tests.hub.state import MAIN, Blob, Commit, Hub, Permission, PullRequest, Refusal, Repo, Upload, git_hash, tree_oid

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def answer_to(hub: Hub, call: Call) -> Answer:
    """Do what a call asks and answer it."""
    try:
        for method, pattern, action in ENDPOINTS:
            if method == call.method and (match := pattern.fullmatch(urlsplit(call.target).path)):
                named = {name: unquote(value) for name, value in match.groupdict(default="").items()}
                return action(hub, replace(call, named=named))
        raise Refusal(404, f"there is no endpoint {call.method} {call.target}")  # noqa: TRY301 - answered like others
    except Refusal as refusal:
        return refused(refusal)


# Who one is, and repositories


@endpoint("GET", "/api/whoami-v2")
def whoami(_: Hub, call: Call) -> Answer:
    """Tell whose token it is and what it may do."""
    token = call.token
    if token is None:
        raise Refusal(401, UNAUTHENTICATED)
    scoped = [
        {"entity": {"type": "model" if "/" in name else "namespace", "name": name}, "permissions": list(permissions)}
        for name, permissions in token.scopes.items()
        if name
    ]
    access: dict[str, Any] = {"displayName": "test", "role": token.role}
    if token.role == "fineGrained":
        access["fineGrained"] = {"global": list(token.scopes.get("", ())), "scoped": scoped}
    orgs = [{"type": "org", "name": name, "fullname": name, "roleInOrg": role} for name, role in token.orgs.items()]
    auth = {"type": "access_token", "accessToken": access}
    return told({"type": "user", "name": token.user, "fullname": token.user, "orgs": orgs, "auth": auth})


@endpoint("POST", "/api/repos/create")
def create_repo(hub: Hub, call: Call) -> Answer:
    """Create a repository."""
    asked = call.json()
    if asked.get("type", "model") != "model":
        raise Refusal(400, f"only models are kept here, not {asked['type']}")
    if call.token is None:
        raise Refusal(401, UNAUTHENTICATED)
    namespace = asked.get("organization") or call.token.user
    require(call.token, "repo.write", namespace)
    name = f"{namespace}/{asked['name']}"
    place = {"url": f"{hub.url}/{name}", "name": name}
    if name in hub.repos:
        return told({"error": f"the repository {name} exists already", **place}, 409)
    hub.repos[name] = Repo(name, private=bool(asked.get("private")) or asked.get("visibility") == "private")
    return told(place)


@endpoint("GET", r"/api/models/{repo}(/revision/{revision})?")
def model_info(hub: Hub, call: Call) -> Answer:
    """Tell what a repository holds."""
    repo = permitted(hub, call, "repo.content.read")
    history = repo.history(call.named["revision"] or MAIN)
    head = history[-1]
    card = card_metadata(head.files["README.md"].content.decode()) if "README.md" in head.files else None
    metadata = card or {}
    siblings = [sibling(path, blob, detailed=call.asks("blobs")) for path, blob in sorted(head.files.items())]
    return told(
        {
            "id": repo.id,
            "modelId": repo.id,
            "author": repo.id.partition("/")[0],
            "sha": head.oid,
            "createdAt": stamp(history[0].date),
            "lastModified": stamp(head.date),
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "cardData": card,
            "tags": metadata.get("tags", []),
            "library_name": metadata.get("library_name"),
            "pipeline_tag": metadata.get("pipeline_tag"),
            "siblings": siblings,
        }
    )


def sibling(path: str, blob: Blob, *, detailed: bool) -> dict[str, Any]:
    """Tell of a file as `model_info` does."""
    if not detailed:
        return {"rfilename": path}
    size = len(blob.content)
    lfs = {"lfs": {"sha256": blob.sha256, "size": size, "pointerSize": len(blob.pointer)}} if blob.lfs else {}
    return {"rfilename": path, "size": size, "blobId": blob.oid, **lfs}


# Files


@endpoint("GET", r"/api/models/{repo}/tree/{revision}(/{path})?")
def tree(hub: Hub, call: Call) -> Answer:
    """List a folder."""
    repo = permitted(hub, call, "repo.content.read")
    files = repo.head(call.named["revision"]).files
    folder = f"{call.named['path']}/" if call.named["path"] else ""
    if folder and folder not in folders_of(files):
        raise Refusal(404, f"{repo.id} has no folder {folder}", code="EntryNotFound")
    entries = [
        entry(files, path)
        for path in sorted({*files, *folders_of(files)})
        if path.startswith(folder) and path != folder
        if call.asks("recursive") or "/" not in path.removeprefix(folder).rstrip("/")
    ]
    return paged(hub, call, entries)


@endpoint("POST", "/api/models/{repo}/paths-info/{revision}")
def paths_info(hub: Hub, call: Call) -> Answer:
    """Tell of some files and folders; those that do not exist are left out."""
    files = permitted(hub, call, "repo.content.read").head(call.named["revision"]).files
    asked = parse_qs(call.body.decode()).get("paths", [])
    known = {*files, *folders_of(files)}
    return told([entry(files, path) for name in asked for path in (name, f"{name}/") if path in known])


def folders_of(files: Iterable[str]) -> set[str]:
    """Return the path of every folder, with a slash at its end."""
    return {path[: index + 1] for path in files for index, letter in enumerate(path) if letter == "/"}


def entry(files: Mapping[str, Blob], path: str) -> dict[str, Any]:
    """Tell of a file or folder as `tree` does."""
    if path.endswith("/"):
        return {"type": "directory", "path": path.rstrip("/"), "oid": tree_oid(files, path), "size": 0}
    blob = files[path]
    size = len(blob.content)
    lfs = {"lfs": {"oid": blob.sha256, "size": size, "pointerSize": len(blob.pointer)}} if blob.lfs else {}
    return {"type": "file", "path": path, "oid": blob.oid, "size": size, **lfs}


@endpoint("HEAD", "/{repo}/resolve/{revision}/{path}")
@endpoint("GET", "/{repo}/resolve/{revision}/{path}")
def resolve(hub: Hub, call: Call) -> Answer:
    """Give a file's content, or the part of it that is asked for."""
    repo = permitted(hub, call, "repo.content.read")
    if repo.gated:
        raise Refusal(403 if call.token else 401, f"Access to model {repo.id} is restricted", code="GatedRepo")
    head = repo.head(call.named["revision"])
    headers = {"X-Repo-Commit": head.oid, "Accept-Ranges": "bytes"}
    blob = head.files.get(call.named["path"])
    if blob is None:
        raise Refusal(404, f"{repo.id} has no file {call.named['path']}", code="EntryNotFound", headers=headers)
    size = len(blob.content)
    headers |= {"Content-Type": "application/octet-stream", "ETag": f'"{blob.etag}"'}
    if blob.lfs:
        headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(size)}
    if "Range" not in call.headers:
        return Answer(200, blob.content, headers)
    first, last = byte_range(call.headers["Range"], size)
    headers |= {"Content-Range": f"bytes {first}-{last}/{size}"}
    return Answer(206, blob.content[first : last + 1], headers)


def byte_range(asked: str, size: int) -> tuple[int, int]:
    """Return the first and the last byte that a `Range` asks for.

    Raises:
        Refusal: There are no such bytes.
    """
    found = RANGE.fullmatch(asked.strip())
    start, end = found.groups() if found else ("", "")
    first = int(start) if start else max(0, size - int(end or 0))
    last = min(int(end), size - 1) if start and end else size - 1
    if first > last:
        raise Refusal(416, f"{asked} is not in {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    return first, last


# Sending files


@endpoint("POST", "/api/validate-yaml")
def validate_yaml(_: Hub, call: Call) -> Answer:
    """Check the metadata of a card; that there is none is a warning."""
    try:
        metadata = card_metadata(call.json()["content"])
    except ValueError as error:
        return told({"errors": [{"message": str(error)}], "warnings": []}, 400)
    warnings = [] if metadata else [{"message": "the card has no metadata"}]
    return told({"errors": [], "warnings": warnings})


def right_to_commit(call: Call) -> Permission:
    """Return the right that a commit needs: a smaller one if it goes to a pull request."""
    beside = call.asks("create_pr") or call.named["revision"].startswith("refs/pr/")
    return "discussion.write" if beside else "repo.write"


@endpoint("POST", "/api/models/{repo}/preupload/{revision}")
def preupload(hub: Hub, call: Call) -> Answer:
    """Tell for each file how it is to be sent, and the hash of what is there now."""
    repo = permitted(hub, call, right_to_commit(call))
    files = repo.head(call.named["revision"]).files
    asked = call.json()["files"]
    answers = [
        {
            "path": file["path"],
            "uploadMode": hub.upload_mode(file["path"], file["size"]),
            "shouldIgnore": False,
            **({"oid": files[file["path"]].etag} if file["path"] in files else {}),
        }
        for file in asked
    ]
    return told({"files": answers})


@endpoint("POST", "/{repo}.git/info/lfs/objects/batch")
def lfs_batch(hub: Hub, call: Call) -> Answer:
    """Tell where each object is to be sent, and nothing for one that is stored."""
    repo = permitted(hub, call, "discussion.write")
    asked = call.json()
    multipart = "multipart" in asked["transfers"]
    objects = [announce(hub, repo, item["oid"], item["size"], multipart=multipart) for item in asked["objects"]]
    in_parts = any("chunk_size" in item.get("actions", {}).get("upload", {}).get("header", {}) for item in objects)
    return told({"transfer": "multipart" if in_parts else "basic", "objects": objects})


def announce(hub: Hub, repo: Repo, oid: str, size: int, *, multipart: bool) -> dict[str, Any]:
    """Prepare for an object, and tell where it is to be sent.

    The address holds a ticket, as those of a real storage are signed: it needs no token.
    """
    if oid in repo.objects:
        return {"oid": oid, "size": size}
    part_size = hub.part_size if multipart and size > hub.multipart_threshold else None
    ticket = uuid4().hex
    hub.uploads[ticket] = Upload(repo, oid, size, part_size)
    address = f"{hub.url}/storage/{ticket}"
    header: dict[str, str] = {}
    if part_size:
        header = {str(part): f"{address}/{part}" for part in range(1, ceil(size / part_size) + 1)}
        header["chunk_size"] = str(part_size)
    actions = {
        "upload": {"href": address, "header": header},
        "verify": {"href": f"{hub.url}/{repo.id}.git/info/lfs/verify", "header": {}},
    }
    return {"oid": oid, "size": size, "authenticated": True, "actions": actions}


def upload_of(hub: Hub, call: Call) -> Upload:
    """Return the upload whose ticket a call shows.

    Raises:
        Refusal: There is none.
    """
    upload = hub.uploads.get(call.named["ticket"])
    if upload is None:
        raise Refusal(403, "this address was not given to anyone")
    return upload


@endpoint("PUT", "/storage/{ticket}")
def store(hub: Hub, call: Call) -> Answer:
    """Store an object that comes in one piece."""
    upload_of(hub, call).store(call.body)
    return Answer()


@endpoint("PUT", "/storage/{ticket}/{part}")
def store_part(hub: Hub, call: Call) -> Answer:
    """Keep a part of an object."""
    upload_of(hub, call).parts[int(call.named["part"])] = call.body
    return Answer(headers={"ETag": f'"{git_hash("part", call.body)}"'})


@endpoint("POST", "/storage/{ticket}")
def join_parts(hub: Hub, call: Call) -> Answer:
    """Store an object whose parts are all there; joining twice is joining once."""
    upload = upload_of(hub, call)
    for part in call.json()["parts"]:
        content = upload.parts.get(part["partNumber"])
        if content is None or part["etag"] != f'"{git_hash("part", content)}"':
            raise Refusal(400, f"part {part['partNumber']} of {upload.oid} is not what came")
    upload.store(b"".join(upload.parts[number] for number in sorted(upload.parts)))
    return told({"success": True})


@endpoint("POST", "/{repo}.git/info/lfs/verify")
def verify_object(hub: Hub, call: Call) -> Answer:
    """Tell whether an object is stored."""
    repo = permitted(hub, call, "discussion.write")
    asked = call.json()
    if len(repo.objects.get(asked["oid"], b"")) != asked["size"]:
        raise Refusal(404, f"object {asked['oid']} of {asked['size']} bytes is not stored")
    return told({"success": True})


# Commits, branches and pull requests


@endpoint("POST", "/api/models/{repo}/commit/{revision}")
def commit(hub: Hub, call: Call) -> Answer:
    """Add a commit to a branch or a pull request, or open a pull request with it. It may change nothing."""
    revision, create_pr = call.named["revision"], call.asks("create_pr")
    repo = permitted(hub, call, "repo.content.read")
    author = require(call.token, right_to_commit(call), repo.id).user
    header, *operations = (json.loads(line) for line in call.body.splitlines())
    history = (repo.branches if create_pr else repo.references()).get(revision)
    if history is None:
        raise Refusal(404, f"{repo.id} has no branch {revision}", code="RevisionNotFound")
    parent = header["value"].get("parentCommit")
    if create_pr:
        history = list(repo.history(parent or revision))
    elif parent not in {None, history[-1].oid}:
        raise Refusal(412, f"{revision} is at {history[-1].oid} by now, not at {parent}")
    files = changed(hub, repo, history[-1].files, operations)
    title, description = header["value"]["summary"], header["value"].get("description", "")
    made = Commit(title, description, history[-1].oid, files, author)
    history.append(made)
    answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{hub.url}/{repo.id}/commit/{made.oid}"}
    if create_pr:
        request = PullRequest(len(repo.pull_requests) + 1, title, description, author, revision, history)
        repo.pull_requests.append(request)
        answer["pullRequestUrl"] = f"{hub.url}/{repo.id}/discussions/{request.number}"
    return told(answer)


def changed(
    hub: Hub, repo: Repo, files: Mapping[str, Blob], operations: Iterable[Mapping[str, Any]]
) -> dict[str, Blob]:
    """Return the files after some operations.

    Raises:
        Refusal: An operation cannot be done.
    """
    after = dict(files)
    for operation in operations:
        value = operation["value"]
        path = value["path"]
        match operation["key"]:
            case "file":
                after[path] = regular_file(hub, path, base64.b64decode(value["content"]))
            case "lfsFile":
                if value["oid"] not in repo.objects:
                    raise Refusal(400, f"{path} points to object {value['oid']}, which is not stored")
                after[path] = Blob(repo.objects[value["oid"]], lfs=True)
            case "deletedFile":
                after = without(after, path, {path} & after.keys())
            case "deletedFolder":
                after = without(after, path, {name for name in after if name.startswith(f"{path.rstrip('/')}/")})
            case key:
                raise Refusal(400, f"unknown operation {key}")
    return after


def without(files: Mapping[str, Blob], path: str, gone: Collection[str]) -> dict[str, Blob]:
    """Return the files that are not gone.

    Raises:
        Refusal: None of them is.
    """
    if not gone:
        raise Refusal(404, f"there is no {path} to delete", code="EntryNotFound")
    return {name: blob for name, blob in files.items() if name not in gone}


def regular_file(hub: Hub, path: str, content: bytes) -> Blob:
    """Return a file that git holds itself.

    Raises:
        Refusal: It is to be an object instead, or is a card with wrong metadata.
    """
    if content and hub.upload_mode(path, len(content)) == "lfs":
        raise Refusal(400, f"{path} is to be sent as an object")
    if path == "README.md":
        try:
            card_metadata(content.decode())
        except ValueError as error:
            raise Refusal(400, str(error)) from error
    return Blob(content)


@endpoint("POST", "/api/models/{repo}/branch/{branch}")
def create_branch(hub: Hub, call: Call) -> Answer:
    """Create a branch."""
    repo = permitted(hub, call, "repo.write")
    name = call.named["branch"]
    if name in repo.branches:
        raise Refusal(409, f"{repo.id} has a branch {name} already")
    start = json.loads(call.body or b"{}").get("startingPoint", MAIN)
    repo.branches[name] = list(repo.history(start))
    return told({"success": True})


@endpoint("GET", "/api/models/{repo}/refs")
def references(hub: Hub, call: Call) -> Answer:
    """List branches, and pull requests if asked for."""
    repo = permitted(hub, call, "repo.content.read")
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": history[-1].oid}
        for name, history in repo.branches.items()
    ]
    requests = [
        {"name": request.revision, "ref": request.revision, "targetCommit": request.commits[-1].oid}
        for request in repo.pull_requests
    ]
    asked = {"pullRequests": requests} if call.asks("include_prs") else {}
    return told({"branches": branches, "converts": [], "tags": [], **asked})


@endpoint("GET", "/api/models/{repo}/commits/{revision}")
def commits(hub: Hub, call: Call) -> Answer:
    """List commits, the last one first."""
    history = permitted(hub, call, "repo.content.read").history(call.named["revision"])
    entries = [
        {
            "id": made.oid,
            "title": made.title,
            "message": made.description,
            "authors": [{"user": made.author}],
            "date": stamp(made.date),
        }
        for made in reversed(history)
    ]
    return paged(hub, call, entries)


@endpoint("GET", "/api/models/{repo}/discussions")
def discussions(hub: Hub, call: Call) -> Answer:
    """List pull requests, the last one first; there are no other discussions here."""
    repo = permitted(hub, call, "repo.content.read")
    wanted = {"open": {"open"}, "closed": {"closed", "merged"}}.get(call.query.get("status", ""))
    found = [
        summary(repo, request)
        for request in reversed(repo.pull_requests)
        if wanted is None or request.status in wanted
        if call.query.get("author", request.author) == request.author
        if call.query.get("type") != "discussion"
    ]
    start = int(call.query.get("p", 0)) * hub.page_size
    return told({"discussions": found[start : start + hub.page_size], "count": len(found), "start": start})


@endpoint("GET", r"/api/models/{repo}/discussions/{number}")
def discussion(hub: Hub, call: Call) -> Answer:
    """Tell of one pull request."""
    repo = permitted(hub, call, "repo.content.read")
    found = [request for request in repo.pull_requests if str(request.number) == call.named["number"]]
    if not found:
        raise Refusal(404, f"{repo.id} has no discussion {call.named['number']}")
    request = found[0]
    base = {made.oid for made in repo.branches[request.base]}
    said = {"edited": False, "hidden": False, "latest": {"raw": request.description}}
    told_of = [{"type": "comment", "data": said, "createdAt": stamp(request.date)}] + [
        {"type": "commit", "data": {"subject": made.title, "oid": made.oid}, "createdAt": stamp(made.date)}
        for made in request.commits
        if made.oid not in base
    ]
    author = {"name": request.author}
    events = [{"id": f"{index:024x}", "author": author, **event} for index, event in enumerate(told_of)]
    changes = {"base": f"refs/heads/{request.base}"}
    return told({**summary(repo, request), "events": events, "changes": changes, "filesWithConflicts": [], "diff": ""})


def summary(repo: Repo, request: PullRequest) -> dict[str, Any]:
    """Tell of a pull request in a list."""
    return {
        "num": request.number,
        "title": request.title,
        "status": request.status,
        "isPullRequest": True,
        "author": {"name": request.author},
        "repo": {"name": repo.id, "type": "model"},
        "createdAt": stamp(request.date),
    }
