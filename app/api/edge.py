"""The outermost layer of the application: what holds for every request, whoever answers it.

- A request id, the caller's ``X-Request-Id`` if it is a plain word: in the answer and in every log line.
- An error nobody foresaw is logged, once, and becomes a problem document.
- Security headers, and CORS for the origins that were configured.
- A page of another site may not make a browser change anything here (Sec-Fetch-Site), and while there are no keys a
  name that a foreign page pointed at our loopback address is not ours (Host).
- Bodies are not compressed.

Pure ASGI, because a class of Starlette's own middleware costs five times as much as a request on the fast lane.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import ProblemResponse, problem_response
from app.domain.errors import Fault, Forbidden, LogpostError, UnsupportedMedia
from app.telemetry import CALLER, REQUEST, log

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_HOST = re.compile(rb"(localhost|([a-z0-9-]+\.)*localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)

# For answers that do not say otherwise. Those that hold data are nobody's to keep, and none is a page.
DEFAULT_HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
DEFAULT_ITEMS = tuple(DEFAULT_HEADERS.items())
# Ids are unlike any other process's; within one they count.
_PROCESS = secrets.token_hex(6).encode() + b"-"
_requests = itertools.count(1)
PREFLIGHT_HEADERS = [
    (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
    (b"access-control-max-age", b"600"),
]
EXPOSED = (b"access-control-expose-headers", b"X-Request-Id, Retry-After")


def new_request_id() -> bytes:
    return b"%b%x" % (_PROCESS, next(_requests))


class Edge:
    """``origins``: whose pages may call. ``loopback_only``: only names of this machine are ours."""

    def __init__(self, app: ASGIApp, *, origins: Collection[str] = (), loopback_only: bool = False) -> None:
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = new_request_id()
        sender = _Sender(send, [(b"x-request-id", request_id), *self._cors(headers)])
        token = REQUEST.set(request_id.decode())
        CALLER.set("")  # the gate says who
        try:
            if _is_preflight(scope, headers):
                await sender.preflight(headers)
                return
            self._check(scope, headers)
            await self._app(scope, receive, sender.send)
        except ClientDisconnect:
            pass
        except Exception as error:
            if not isinstance(error, LogpostError):
                log.exception("request_failed", method=scope["method"], path=scope["path"])
            if not sender.started:
                await sender.problem(problem_response(error))
        finally:
            REQUEST.reset(token)

    def _cors(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        if not self._origins:
            return []
        origin = headers.get(b"origin")
        if origin not in self._origins:
            return [(b"vary", b"Origin")]
        return [(b"vary", b"Origin"), (b"access-control-allow-origin", origin), EXPOSED]

    def _check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        if self._loopback_only and not LOOPBACK_HOST.fullmatch(headers.get(b"host", b"localhost")):
            raise Forbidden(
                "This server has no keys and answers to names of its own machine only, like localhost.",
                [Fault("is not a name of this machine", "Host")],
            )
        if scope["method"] not in SAFE_METHODS and self._is_foreign(headers):
            raise Forbidden(
                "Pages of this origin may not call; LOGPOST_CORS_ORIGINS allows it.",
                [Fault("is not an allowed origin", "Origin")],
            )
        if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
            raise UnsupportedMedia("A compressed body is not taken.", [Fault("is not taken", "Content-Encoding")])

    def _is_foreign(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a browser sends this for a page of another origin that was not allowed. Others send no Origin."""
        origin = headers.get(b"origin")
        if origin is None or origin in self._origins:
            return False
        site = headers.get(b"sec-fetch-site")
        if site is not None:
            return site not in (b"same-origin", b"none")
        return urlsplit(origin.decode("latin-1")).netloc.encode("latin-1") != headers.get(b"host")


class _Sender:
    """Sends an answer with what every answer has."""

    def __init__(self, send: Send, extra: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._extra = extra
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = list(message.get("headers", ()))
            present = {name for name, _ in headers}
            headers += self._extra
            headers += [item for item in DEFAULT_ITEMS if item[0] not in present]
            message = {**message, "headers": headers}
        await self._send(message)

    async def problem(self, response: ProblemResponse) -> None:
        status, headers, body = response
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def preflight(self, headers: Mapping[bytes, bytes]) -> None:
        """Without an allowed origin the browser finds no permission in it."""
        wanted = headers.get(b"access-control-request-headers")
        allowed = [(b"access-control-allow-headers", wanted)] if wanted else []
        answer = [*PREFLIGHT_HEADERS, *allowed]
        await self.send({"type": "http.response.start", "status": 204, "headers": answer})
        await self.send({"type": "http.response.body", "body": b""})


def _is_preflight(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    return scope["method"] == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers
