"""Sends the request of a push or a hook, and says what came of it. Never raises for anything a receiver does.

One deadline bounds a request from the first look-up to the status. The status decides, so that the body is only read
for an excerpt: a little of it, for a moment, as the bytes it is. What a receiver claims about its body (its length, a
compression, a charset) is not believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Self
from weakref import WeakValueDictionary

import aiohttp
import msgspec

from app.domain.outcome import Answer, ErrorClass, action_of, excerpt_of, retry_after_ms
from app.domain.secret import MASK
from app.tracing import Tracing
from app.webhook.address import Policy
from app.webhook.dial import CONNECT_TIMEOUT_S, AddressRefused, HeadTooLarge, Lookup, open_session, post
from app.webhook.request import Request

# Of an answer's body: bytes read so that the connection can serve again, and how long after the head they may take.
MAX_BODY_BYTES = 64 * 1024
BODY_GRACE_S = 1.0

# Requests on the way at a time, and how many of them may be to one origin: an endpoint that hangs keeps its share only.
MAX_REQUESTS = 500
MAX_REQUESTS_PER_ORIGIN = 100


class Sender:
    """The client for everything this process calls on behalf of others. Made within the running loop; close it."""

    def __init__(
        self,
        policy: Policy,
        *,
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
        max_requests: int = MAX_REQUESTS,
        max_requests_per_origin: int = MAX_REQUESTS_PER_ORIGIN,
        tracing: Tracing | None = None,
    ) -> None:
        self._session = open_session(policy, lookup=lookup, tls=tls)
        self._free = asyncio.Semaphore(max_requests)
        self._tracing = tracing
        self._max_requests_per_origin = max_requests_per_origin
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._session.close()

    async def send(self, request: Request) -> Answer:
        """Sends once. Waiting for a place among the requests on the way is not counted against the deadline.

        The cancellation of the caller ends the request and its connection.
        """
        # The share first: who waits for an origin that hangs must not hold a place that others need.
        async with self._share(_origin(request.url)), self._free:
            if self._tracing is None or not request.is_traced:
                return await self._send(request)
            with self._tracing.delivering(request.url, request.headers) as delivering:
                answer = await self._send(msgspec.structs.replace(request, headers=delivering.headers))
                delivering.ended(answer.status, answer.error_class)
                return answer

    async def _send(self, request: Request) -> Answer:
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + request.timeout_ms / 1000
        try:
            async with asyncio.timeout_at(deadline):
                response = await post(self._session, request.url, request.headers, request.body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            error_class, sentence = _explained(error, request.timeout_ms)
            return Answer(error_class=error_class, error=sentence, latency_ms=_since(started))
        latency_ms = _since(started)
        body = await _beginning(response, min(deadline, loop.time() + BODY_GRACE_S))
        accepted = 200 <= response.status <= 299
        return Answer(
            status=response.status,
            error_class=None if accepted else "status",
            error=None if accepted else f"the endpoint answered {response.status}",
            latency_ms=latency_ms,
            excerpt=excerpt_of(_without(request.hidden, body)),
            retry_after_ms=retry_after_ms(response.headers, datetime.now(UTC)),
            action=action_of(response.headers.get("Logpost-Action")),
        )

    def _share(self, origin: str) -> asyncio.Semaphore:
        share = self._shares.get(origin)
        if share is None:
            share = self._shares[origin] = asyncio.Semaphore(self._max_requests_per_origin)
        return share


async def _beginning(response: aiohttp.ClientResponse, deadline: float) -> bytes:
    """Up to MAX_BODY_BYTES of the body; the connection goes back to the pool if that was all of it, else it is cut."""
    content, body = response.content, bytearray()
    try:
        if content.is_eof() and content.exception() is None:  # the common case: it came with the head
            return content.read_nowait(MAX_BODY_BYTES)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
            async with asyncio.timeout_at(deadline):
                while len(body) < MAX_BODY_BYTES and (data := await content.readany()):
                    body += data
        return bytes(body)
    finally:
        response.release()  # aiohttp cuts a connection whose body was not read to its end


def _without(hidden: Iterable[str], body: bytes) -> bytes:
    """An endpoint that answers with what it was asked tells its secrets to whoever may read the attempts."""
    for secret in hidden:
        body = body.replace(secret.encode(), MASK.encode())
    return body


def _explained(error: Exception, timeout_ms: int) -> tuple[ErrorClass, str]:
    """The class of a failure, and a sentence that names neither the address nor anything else of our network."""
    causes = list(_causes(error))
    if any(isinstance(cause, AddressRefused) for cause in causes):
        return "blocked_address", str(AddressRefused())
    if any(isinstance(cause, HeadTooLarge) for cause in causes):
        return "too_large", "the head of the answer is over the limits"
    match error:
        case aiohttp.ConnectionTimeoutError():
            return "connect", f"no connection within {CONNECT_TIMEOUT_S} s"
        case TimeoutError():
            return "timeout", f"no answer within {timeout_ms} ms"
        case aiohttp.ClientConnectorDNSError():
            return "dns", "the host name does not resolve"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls", _tls_sentence(causes)
        case aiohttp.ClientConnectorError():
            return "connect", f"no connection: {os.strerror(error.os_error.errno or 0)}"
        case aiohttp.InvalidURL():
            return "unsendable", "the URL cannot be called"
        case aiohttp.ClientConnectionError() | OSError():
            return "disconnected", "the connection ended before an answer came"
        case aiohttp.ClientError():
            return "protocol", "the answer is not HTTP"
        case _:
            return "unsendable", "the request has a header that cannot be sent"


def _tls_sentence(causes: list[BaseException]) -> str:
    for cause in causes:
        # aiohttp's own error has the type without the attribute.
        if reason := getattr(cause, "verify_message", None):
            return f"the certificate is not trusted: {reason}"
    return "no TLS handshake"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or getattr(error, "os_error", None)


@lru_cache(maxsize=4096)
def _origin(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _since(started: float) -> int:
    return round((asyncio.get_running_loop().time() - started) * 1000)
