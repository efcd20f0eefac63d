"""The Hub, met with patience: what passes by itself is tried again, and what does not is told in one message.

The client is `huggingface_hub`, before version 1 on `requests`, since then on `httpx`: their errors are told apart
here and nowhere else.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from electra_convert.errors import HubError, HubPermissionError

T = TypeVar("T")
Notify = Callable[[str], None]
"""Is told what is waited for."""

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds to wait before each further try."""
LONGEST_WAIT = 3600.0
"""Seconds that the Hub may ask to wait; it counts requests over five minutes, and commits over an hour."""
RESET = re.compile(r"\bt=(\d+)")
"""Seconds until a limit on requests is lifted, in the header `RateLimit`."""

WRITE = "write access to the contents and settings of the repositories of {owner} (`repo.write`)"
SCOPES = {
    "read": "read access to the contents of the repositories of {owner} (`repo.content.read`)",
    "create": WRITE,
    "branch": WRITE,
    "commit": WRITE,
    "open a pull request": "permission to open discussions and pull requests for {owner} (`discussion.write`)",
}
"""What a fine-grained token needs for each thing that is done."""


class Doing(NamedTuple):
    """What is asked of the Hub: one of `SCOPES`, and of which repository."""

    action: str
    repo_id: str

    def __str__(self) -> str:
        names = {"create": "create {}", "read": "read {}", "branch": "make a branch of {}", "commit": "commit to {}"}
        return names.get(self.action, f"{self.action} for {{}}").format(self.repo_id)

    @property
    def scope(self) -> str:
        """What a token needs for it."""
        return SCOPES[self.action].format(owner=self.repo_id.partition("/")[0])


class Hub:
    """The Hub's client.

    Args:
        notify: Is told what is waited for.
        waits: Seconds to wait before each further try.
    """

    def __init__(self, *, notify: Notify = lambda _: None, waits: tuple[float, ...] = WAITS) -> None:
        from huggingface_hub import HfApi

        self.api: Any = HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None)
        self.notify = notify
        self.waits = waits

    def call(self, doing: Doing, function: Callable[[], T]) -> T:
        """Call a function of the client that may be called twice; what passes by itself is tried again.

        Raises:
            HubError: It did not pass; the subclass says if the token is at fault.
        """
        patience = Patience(self, doing)
        while True:
            try:
                return function()
            except client_errors() as error:
                patience.wait(error)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Have what the client logs and warns of told; it waits by itself too, in some requests."""
        logger = logging.getLogger("huggingface_hub")
        handlers, propagates = logger.handlers, logger.propagate
        logger.handlers, logger.propagate = [_Told(self.notify)], False
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                yield
        finally:
            logger.handlers, logger.propagate = handlers, propagates
        for warning in caught:
            if issubclass(warning.category, UserWarning):
                self.notify(without_token(str(warning.message)))

    def require_token(self, doing: Doing) -> None:
        """Check that there is a token.

        Raises:
            HubPermissionError: There is none, or it can be none.
        """
        if not find_token():
            raise HubPermissionError(
                f"there is no token for the Hub, so one cannot {doing}",
                hint=f"run `hf auth login`, or set HF_TOKEN, to a token with {doing.scope}",
            )


class _Told(logging.Handler):
    """Tells what the client logs."""

    def __init__(self, notify: Notify) -> None:
        super().__init__(logging.WARNING)
        self._notify = notify

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it, without the token."""
        self._notify(without_token(record.getMessage()))


def find_token() -> str | None:
    """Return the token, from where the client looks for it.

    Raises:
        HubPermissionError: What is there can be none: a client would show it in its errors.
    """
    import huggingface_hub.errors
    from huggingface_hub import get_token

    odd: tuple[type[Exception], ...] = (OSError, RuntimeError, ValueError)
    try:
        token: str | None = get_token()
    except (*odd, getattr(huggingface_hub.errors, "OIDCError", OSError)) as error:
        raise HubPermissionError(
            f"the token for the Hub cannot be had: {error}", hint="run `hf auth login`, or set HF_TOKEN"
        ) from error
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise HubPermissionError(
            "the token for the Hub has characters that no token has", hint="copy it again: `hf auth login`, or HF_TOKEN"
        )
    return token


class Patience:
    """How long something is waited for: first seconds, then longer, then no more.

    Args:
        hub: The Hub.
        doing: What is asked of it.
    """

    def __init__(self, hub: Hub, doing: Doing) -> None:
        self.hub, self.doing = hub, doing
        self._waits = list(hub.waits)

    def wait(self, error: Exception, *, passing: bool = False) -> None:
        """Wait before another try.

        Args:
            error: Why the last one failed.
            passing: It is known to pass by itself, whatever it looks like.

        Raises:
            HubError: It does not pass by itself, or not soon enough.
        """
        asked = _asked_wait(error)
        if not (passing or passes(error)) or not self._waits or (asked or 0) > LONGEST_WAIT:
            raise explained(error, self.doing, self.hub) from safe_cause(error)
        wait = max(asked or 0, self._waits.pop(0) * random.uniform(1, 1.25))  # noqa: S311  # so that many do not come at once
        self.hub.notify(f"{_what(error)}: trying again in {wait:.0f} s to {self.doing}")
        time.sleep(wait)


def client_errors() -> tuple[type[Exception], ...]:
    """Return what a call of the client may raise: its HTTP library's errors are no `OSError` in every version."""
    import huggingface_hub.errors

    xet = getattr(huggingface_hub.errors, "XetError", OSError)  # before version 1
    return (OSError, RuntimeError, ValueError, xet, *_transport_errors())


def _transport_errors() -> tuple[type[Exception], ...]:
    """Return the errors of connections in the HTTP library that the client uses."""
    from huggingface_hub.utils import get_session

    *_, base, _ = type(get_session()).__mro__  # a session may be a class of the user's own
    library = import_module(base.__module__.partition(".")[0])
    if hasattr(library, "TransportError"):  # httpx
        return (library.TransportError,)
    names = ("ConnectionError", "Timeout", "ChunkedEncodingError", "JSONDecodeError")
    return tuple(getattr(library.exceptions, name) for name in names)


def passes(error: Exception) -> bool:
    """Say whether an error may be gone at another try."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return False
    response = _response(error)
    if response is not None:
        return response.status_code in {408, 429} or response.status_code >= 500
    # A gateway in trouble answers with HTML, which the client reads as JSON before it looks at the status.
    kinds: tuple[type[Exception], ...] = (ConnectionError, TimeoutError, json.JSONDecodeError, *_transport_errors())
    return any(isinstance(cause, kinds) for cause in causes(error))


def status_of(error: Exception) -> int | None:
    """Return the status of the answer that an error is about, if there was one."""
    response = _response(error)
    return None if response is None else int(response.status_code)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__


def _response(error: Exception) -> Any:
    """Return the answer of the Hub that an error, or its cause, is about; `None` if there was none."""
    return next((found for cause in causes(error) if (found := getattr(cause, "response", None)) is not None), None)


def _asked_wait(error: Exception) -> float | None:
    """Return for how many seconds the Hub asks to wait."""
    response = _response(error)
    if response is None:
        return None
    after = response.headers.get("Retry-After", "")
    if after.isdigit():
        return float(after)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    reset = RESET.search(response.headers.get("RateLimit", "")) if response.status_code == 429 else None
    return float(reset[1]) if reset else None


def _what(error: Exception) -> str:
    """Say what happened, in a few words."""
    status = status_of(error)
    if status == 429:
        return "the Hub has had too many requests (429)"
    return f"the Hub answered {status}" if status else "the connection to the Hub broke"


def explained(error: Exception, doing: Doing, hub: Hub) -> HubError:
    """Return an error of the client as one message that says what to do; no token is in it."""
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    status = status_of(error)
    if isinstance(error, LocalTokenNotFoundError) or status in {401, 403}:
        return _refused(error, doing, hub)
    if isinstance(error, OfflineModeIsEnabled):
        return HubError(f"one cannot {doing} offline", hint="unset HF_HUB_OFFLINE")
    if status == 404:
        return HubError(
            f"the Hub does not know {doing.repo_id}, or does not show it to this token",
            hint=f"check the name; a token needs {doing.scope}",
        )
    says = _message(error)
    if passes(error):
        return HubError(
            f"the Hub cannot be reached to {doing}: {says}" if not status else f"the Hub fails to {doing}: {says}",
            hint="run the same command again: what is there already is not sent again",
        )
    return HubError(f"one cannot {doing}: {says}", hint="correct this, and run the same command again")


def _refused(error: Exception, doing: Doing, hub: Hub) -> HubPermissionError:
    says = _message(error)
    message = f"the Hub does not let you {doing}: {says}"
    needed = doing.scope
    if status_of(error) == 401:  # met at the first look, but looking is not all that is to be done
        message, needed = f"the Hub knows no such token: {says}", Doing("commit", doing.repo_id).scope
    return HubPermissionError(
        message,
        hint=f"the token needs {needed}; {_token_is(hub)}. Make one in your settings on the Hub, then "
        "`hf auth login`, or set HF_TOKEN",
    )


def _token_is(hub: Hub) -> str:
    """Say what the token at hand is."""
    if not find_token():
        return "there is none here"
    try:
        who = hub.api.whoami()
    except client_errors():
        return "the Hub does not know the one here"
    role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")  # who signed in by a browser has none
    return f"the one here is {who.get('name', 'somebody')}'s" + (f", with the role {role!r}" if role else "")


def _message(error: Exception) -> str:
    """Return what the Hub, or the system, says, without the token and in one line."""
    response = _response(error)
    said = next((found for cause in causes(error) if (found := getattr(cause, "server_message", None))), None)
    cause = list(causes(error))[-1]
    text = f"{response.status_code} {said or getattr(response, 'reason_phrase', '')}" if response is not None else ""
    return without_token(" ".join((text.strip() or str(cause) or type(cause).__name__).split()))


def safe_cause(error: Exception) -> Exception | None:
    """Return an error as a cause, which a traceback shows; nothing, if the token is in it."""
    texts = [str(cause) for cause in causes(error)]
    return error if texts == [without_token(text) for text in texts] else None


def without_token(text: str) -> str:
    """Return a text without the token, wherever it may have come from."""
    token = None
    with suppress(HubPermissionError):
        token = find_token()
    return text.replace(token, "***") if token else text
