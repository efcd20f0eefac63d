"""Calls and answers in the form that a Hub's clients send and expect, and the rights that a call needs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.hub.state import (
    Hub,
    Permission,
    Refusal,
    Repo,
    Token,
)

UNAUTHENTICATED = "Invalid username or password."
"""Told to whom sends no token, where one is needed."""
WRONG_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - words the client looks for


@dataclass(frozen=True)
class Call:
    """A request, read to its end, from someone who may have sent a token that the Hub knows."""

    method: str
    target: str
    headers: Message
    body: bytes
    token: Token | None = None
    named: Mapping[str, str] = field(default_factory=dict)

    @property
    def query(self) -> dict[str, str]:
        """The query; of a name that comes twice, the last value."""
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    def asks(self, flag: str) -> bool:
        """Say whether a flag of the query is set; clients write true in three ways."""
        return self.query.get(flag, "").lower() in {"1", "true"}

    def json(self) -> Any:
        """Return the body's JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What the Hub answers."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Action = Callable[[Hub, Call], Answer]
ENDPOINTS: list[tuple[str, re.Pattern[str], Action]] = []


def endpoint(method: str, path: str) -> Callable[[Action], Action]:
    """Register a function for a path, in which `{repo}` and other names stand for what it is asked about."""
    any_path = {"repo": "[^/]+/[^/]+", "path": ".+"}
    pattern = re.sub(r"\{(\w+)\}", lambda name: f"(?P<{name[1]}>{any_path.get(name[1], '[^/]+')})", path)

    def register(action: Action) -> Action:
        ENDPOINTS.append((method, re.compile(pattern), action))
        return action

    return register


def told(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with JSON."""
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})


def refused(refusal: Refusal) -> Answer:
    """Answer with a refusal."""
    code = {"X-Error-Code": refusal.code} if refusal.code else {}
    headers = {"X-Error-Message": refusal.message, **code, **refusal.headers}
    return told({"error": refusal.message}, refusal.status, headers)


def permitted(hub: Hub, call: Call, permission: Permission) -> Repo:
    """Return the repository a call is about, if the caller may do that in it.

    Raises:
        Refusal: There is none that the caller may see, or the token has too few rights.
    """
    name, token = call.named["repo"], call.token
    repo = hub.repos.get(name)
    if repo is None or (repo.private and not (token and token.may("repo.content.read", name))):
        raise Refusal(404 if token else 401, "Repository not found" if token else UNAUTHENTICATED, code="RepoNotFound")
    if permission != "repo.content.read":
        require(token, permission, name)
    return repo


def require(token: Token | None, permission: Permission, *entities: str) -> Token:
    """Return a token that permits something.

    Raises:
        Refusal: There is none, or it does not.
    """
    if token is None:
        raise Refusal(401, UNAUTHENTICATED)
    if not any(token.may(permission, entity) for entity in entities):
        raise Refusal(403, f"this token has not the right {permission} on {entities[0]}")
    return token


def paged(hub: Hub, call: Call, entries: list[dict[str, Any]]) -> Answer:
    """Answer with one page of a list, and the address of the next."""
    start = int(call.query.get("cursor", 0))
    end = start + hub.page_size
    rest = {**call.query, "cursor": str(end)}
    address = f"{hub.url}{urlsplit(call.target).path}?{urlencode(rest)}"
    link = {"Link": f'<{address}>; rel="next"'} if end < len(entries) else {}
    return told(entries[start:end], headers=link)


def stamp(date: datetime) -> str:
    """Write a date as the Hub does."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.") + f"{date.microsecond // 1000:03d}Z"
