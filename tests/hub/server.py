"""A Hub on loopback that the real clients can talk to, and that can fail at any moment a test chooses."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from tests.hub.api import answer_to
from tests.hub.protocol import WRONG_TOKEN, Answer, Call, refused
from tests.hub.state import Hub, Refusal

Phase = Literal["begin", "body", "done"]


class Seen(NamedTuple):
    """A request that came.

    Args:
        method: Of HTTP.
        path: With the query.
        status: What it was answered, or was to be if the answer was lost; None if it broke off before.
        token: Whether a token came with it, and whether the Hub knows it.
        range: The part of a file that was asked for.
    """

    method: str
    path: str
    status: int | None
    token: Literal["known", "unknown"] | None
    range: str | None


@dataclass
class Fault:
    """Something that goes wrong with some requests.

    Args:
        method: Of HTTP.
        path: An expression found somewhere in the path and query.
        kind: `status` answers `status` and does nothing; `cut_request` closes the connection when half of the body
            has come; `lose_answer` does the work and closes the connection; `cut_answer` does so when half of the
            answer's body is sent; `stall` waits until the server's `release` is set, or for `seconds`.
        times: How many requests it meets.
        after: How many that match it lets through first.
        status: What `status` answers.
        retry_after: What it says in `Retry-After`, in seconds.
        where: Where `stall` waits: when half of the `body` has come, or before the `answer`, with the work done.
        seconds: How long it waits at most.
    """

    method: str
    path: str
    kind: Literal["status", "cut_request", "lose_answer", "cut_answer", "stall"]
    times: int = 1
    after: int = 0
    status: int = 503
    retry_after: int | None = None
    where: Literal["body", "answer"] = "answer"
    seconds: float = 60
    matched: int = field(default=0, init=False)

    @property
    def met(self) -> int:
        """How many requests it has met."""
        return max(0, min(self.matched - self.after, self.times))

    def meets(self, method: str, path: str) -> bool:
        """Count a request that matches, and say whether the fault is to happen to it."""
        if method != self.method or not re.search(self.path, path):
            return False
        self.matched += 1
        return self.after < self.matched <= self.after + self.times


NO_FAULT = Fault("", "", "stall", seconds=0)


class BrokenOffError(Exception):
    """The connection ended, or is to end, without an answer."""


@dataclass(repr=False)
class HubServer(Hub):
    """A Hub that listens while its block runs.

    Args:
        faults: What is to go wrong.
        requests: What came, in the order in which it was done.
        on_request: Called with the method, the path, and the phase: `begin` when nothing of the body has been read,
            `body` when half of it has, `done` when the work is done and nothing is answered yet. If it raises a
            `ConnectionError`, the connection ends there. (What a killed client has given to its kernel arrives all the
            same, which is the whole body if that is small.)
        release: Ends every `stall`.
        errors: What went wrong here and is no part of a test.
        environment: What a process needs in its environment to use this Hub.
    """

    faults: list[Fault] = field(default_factory=list)
    requests: list[Seen] = field(default_factory=list)
    on_request: Callable[[str, str, Phase], None] | None = None
    release: Event = field(default_factory=Event)
    errors: list[BaseException] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._listener = _Listener(self)
        self.url = f"http://127.0.0.1:{self._listener.server_port}"
        self._thread = Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release.set()
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()

    def fault_of(self, method: str, path: str) -> Fault:
        """Return the first fault that is to happen to a request."""
        with self.lock:
            return next((fault for fault in self.faults if fault.meets(method, path)), NO_FAULT)

    def tell(self, method: str, path: str, phase: Phase) -> None:
        """Tell a test how far a request is."""
        if self.on_request:
            self.on_request(method, path, phase)


class _Listener(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for the requests, so that no test meets those of another

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Requests)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, to end it when the server closes."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self.connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """End connections that clients keep for later."""
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class names them
        """Keep what went wrong, unless a client went away."""
        error = sys.exception()
        if error and not isinstance(error, ConnectionError):
            self.hub.errors.append(error)


class _Requests(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def answer(self) -> None:
        """Read a request, do it and answer it, or fail as the test wants."""
        hub = self.server.hub
        try:
            hub.tell(self.command, self.path, "begin")
            fault = hub.fault_of(self.command, self.path)
            answer = self._done(fault)
            if fault.kind == "stall" and fault.where == "answer":
                hub.release.wait(fault.seconds)
            if fault.kind == "lose_answer":
                self.close_connection = True
            else:
                self._send(answer, cut=fault.kind == "cut_answer")
        except (BrokenOffError, ConnectionError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 - names that the base class looks for

    def _done(self, fault: Fault) -> Answer:
        hub, method, path = self.server.hub, self.command, self.path
        sent = self.headers.get("Authorization")
        token = hub.tokens.get(sent.removeprefix("Bearer ")) if sent else None
        credential: Literal["known", "unknown"] | None = "known" if token else "unknown" if sent else None
        status = None
        try:
            call = Call(method, path, self.headers, self._body(fault), token)
            answer = self._work(call, fault, known=credential != "unknown")
            status = answer.status
        finally:
            hub.requests.append(Seen(method, path, status, credential, self.headers.get("Range")))
        hub.tell(method, path, "done")
        return answer

    def _body(self, fault: Fault) -> bytes:
        length = int(self.headers.get("Content-Length", 0))
        body = self._read(length // 2)
        if length:
            self.server.hub.tell(self.command, self.path, "body")
        if fault.kind == "cut_request":
            raise BrokenOffError
        if fault.kind == "stall" and fault.where == "body":
            self.server.hub.release.wait(fault.seconds)
        return body + self._read(length - len(body))

    def _read(self, length: int) -> bytes:
        content = self.rfile.read(length)
        if len(content) < length:  # the client has gone
            raise BrokenOffError
        return content

    def _work(self, call: Call, fault: Fault, *, known: bool) -> Answer:
        if fault.kind == "status":
            wait = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            return refused(Refusal(fault.status, f"a fault of status {fault.status}", headers=wait))
        if not known:
            return refused(Refusal(401, WRONG_TOKEN))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.close_connection = True  # what follows is a body that nobody reads
            return refused(Refusal(411, "a storage takes nothing without Content-Length"))
        with self.server.hub.lock:
            return answer_to(self.server.hub, call)

    def _send(self, answer: Answer, *, cut: bool) -> None:
        self.send_response(answer.status)
        headers: Mapping[str, str] = {"Content-Length": str(len(answer.body)), **answer.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        self.close_connection |= cut
