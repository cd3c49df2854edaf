"""The HTTP side of the command line client: paths, calls, problem documents as exceptions, pages, patience.

httpx is imported when a client is made, not before: ``logpost --help`` must not wait for it. Answers stay bytes
(``msgspec.Raw`` for the items of a list), so that what is printed is what the server stored, digit by digit.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0  # beyond what the server itself was asked to wait
PAGE = 100
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0

Headers = Sequence[tuple[str, str]]
T = TypeVar("T")


class CallError(Exception):
    """A call that did not give what was asked for. ``str()`` is one line for a person."""


class Unreachable(CallError):
    """Nobody answered. ``sent``: the request may have arrived all the same, so its outcome is unknown."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class NotSendable(CallError):
    """The address or a header cannot be put into a request."""


@dataclass(eq=False)
class Problem(CallError):
    """The server's problem document (RFC 9457), or what there is of one."""

    status: int
    code: str
    detail: str
    retry_after_s: float | None = None
    document: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"

    @property
    def faults(self) -> list[dict[str, Any]]:
        """What is at fault: ``reason``, and ``field``, ``index`` or ``path`` where it has one."""
        found = self.document.get("errors")
        return [fault for fault in found if isinstance(fault, dict)] if isinstance(found, list) else []


class _Page(msgspec.Struct, rename="camel"):
    items: list[msgspec.Raw]
    next_cursor: str | None = None


def path(*parts: str) -> str:
    """``path("topics", name, "stats")`` → ``/v1/topics/<name, escaped>/stats``."""
    for part in parts:
        if part in ("", ".", ".."):  # these would lead to another path
            raise NotSendable(f"{part!r} is not a name")
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


class Client:
    """One server and one key. Every call gives the body of a 2xx, or raises CallError."""

    def __init__(self, url: str, key: str | None = None) -> None:
        import httpx  # noqa: PLC0415 - a fifth of a second that only calls have to pay

        self.url = url.rstrip("/")
        self.answered = False
        try:
            # A proxy of the environment is for the world outside, never for a server on this machine.
            local = urlsplit(self.url).hostname in ("127.0.0.1", "::1", "localhost")
            self._http = httpx.Client(
                base_url=self.url,
                headers=[(b"authorization", f"Bearer {key}".encode())] if key else None,
                timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
                trust_env=not local,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise NotSendable(f"{url!r} is not the URL of a server: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        content: bytes | None = None,
        headers: Headers = (),
        params: Mapping[str, str | int] | None = None,
        wait_ms: int = 0,
    ) -> bytes:
        """``body`` is sent as JSON, ``content`` as it is. ``wait_ms``: how long the server was asked to wait."""
        import httpx  # noqa: PLC0415

        pairs = [(name.encode("ascii", "replace"), value.encode()) for name, value in headers]
        if body is not None:
            content = json.dumps(body, ensure_ascii=False).encode()
        if content is not None and not any(name.lower() == b"content-type" for name, _ in pairs):
            pairs.append((b"content-type", b"application/json"))
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S + wait_ms / 1000, connect=CONNECT_TIMEOUT_S)
        try:
            answer = self._http.request(
                method, target, content=content, headers=pairs, params=params, timeout=timeout
            )  # fmt: skip
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise NotSendable(f"the request cannot be sent to {self.url}: {error}") from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"no server can be reached at {self.url} ({_reason(error)})", sent=False) from error
        except httpx.TransportError as error:
            raise Unreachable(f"the server at {self.url} did not answer ({_reason(error)})", sent=True) from error
        self.answered = True
        if not answer.is_success:
            raise problem_of(answer.status_code, answer.content, answer.headers)
        return answer.content

    @contextmanager
    def lines(
        self, target: str, params: Mapping[str, str | int], headers: Headers, *, silence_s: float
    ) -> Iterator[Iterator[str]]:
        """The lines of a stream, without their ends. A server that says nothing for ``silence_s`` is gone."""
        import httpx  # noqa: PLC0415

        pairs = [(name.encode("ascii", "replace"), value.encode()) for name, value in headers]
        timeout = httpx.Timeout(silence_s, connect=CONNECT_TIMEOUT_S)
        try:
            with self._http.stream("GET", target, params=params, headers=pairs, timeout=timeout) as answer:
                self.answered = True
                if not answer.is_success:
                    raise problem_of(answer.status_code, answer.read(), answer.headers)
                yield _lines(answer.iter_bytes())
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"no server can be reached at {self.url} ({_reason(error)})", sent=False) from error
        except httpx.TransportError as error:
            raise Unreachable(f"the server at {self.url} went away ({_reason(error)})", sent=True) from error

    def pages(
        self, target: str, params: Mapping[str, str | int] | None = None, *, limit: int | None = None
    ) -> Iterator[bytes]:
        """The items of a list, page after page, at most ``limit`` of them."""
        asked = dict(params or {})
        left = limit
        while left is None or left > 0:
            asked["limit"] = PAGE if left is None else min(PAGE, left)
            page = decode(self.call("GET", target, params=asked), _Page)
            for item in page.items[:left]:
                yield bytes(item)
            if left is not None:
                left -= len(page.items)
            if page.next_cursor is None:
                return
            asked["cursor"] = page.next_cursor

    def insist(
        self, call: Callable[[], bytes], *, patience_ms: int, rest: Callable[[float], None] = time.sleep
    ) -> bytes:
        """Makes a call that may be made twice until it works: over 503s, a restart, a lost connection.

        A server that was never there is not waited for. Gives up, with the last error, after ``patience_ms``.
        """
        deadline = time.monotonic() + patience_ms / 1000
        longest = FIRST_PAUSE_S
        while True:
            try:
                return call()
            except (Problem, Unreachable) as error:
                asked_for = _pause_before_repeating(error, answered=self.answered)
                pause = max(asked_for or 0.0, longest * random.uniform(0.5, 1))
                if asked_for is None or time.monotonic() + pause > deadline:
                    raise
            rest(pause)
            longest = min(longest * 2, LONGEST_PAUSE_S)


def decode(answer: bytes, kind: type[T]) -> T:
    """The answer as a ``kind``. Raises CallError where it is something else: another server's, most likely."""
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as error:
        raise CallError(f"the answer is not what a Logpost server gives ({error})") from error


def problem_of(status: int, body: bytes, headers: Mapping[str, str]) -> Problem:
    """From an answer that is not a 2xx; proxies answer too, so nothing is taken for granted."""
    try:
        document = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        document = {}
    code = str(document.get("code") or f"http_{status}")
    detail = str(document.get("detail") or document.get("title") or f"the server answered {status}")
    return Problem(status, code, detail, _seconds(headers.get("retry-after", "")), document)


def _pause_before_repeating(error: CallError, *, answered: bool) -> float | None:
    """Seconds the server wants to be left alone; None: repeating will not help."""
    if isinstance(error, Problem):
        return (error.retry_after_s or 0.0) if error.status == 503 else None
    return 0.0 if isinstance(error, Unreachable) and (error.sent or answered) else None


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Our streams end their lines with a line feed, whatever else others may do. What is cut off is dropped."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() else None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
