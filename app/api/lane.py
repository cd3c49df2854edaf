"""The fast lane: the calls a message passes through, answered before FastAPI gets to see them.

A bare ASGI callable in front of the application: it knows the few paths it answers, by splitting them, and passes
everything else on. Errors are the same problem documents as everywhere. A call is

    async def call(caller, names, headers, receive) -> (status, JSON body)

where ``names`` are the topic's and, below a group, the group's. It raises domain errors. To add one, put it into the
table given to ``Lane`` under what follows the topic in its path, with ``{group}`` left out: ``messages``,
``messages/batch``, ``groups/pull``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from app.api.auth import Caller, Gate
from app.api.problems import problem_response
from app.domain.errors import Fault, LogpostError, TooLarge, UnsupportedMedia
from app.domain.names import check_name
from app.telemetry import log

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
# As ASGI gives them: names in lower case, values as they came.
Headers = Iterable[tuple[bytes, bytes]]
Answer = tuple[int, bytes]
Call = Callable[[Caller, Sequence[str], Headers, Receive], Awaitable[Answer]]

# What a caller must be allowed to do.
Right = Literal["publish", "consume"]


# Names that were found good; bad ones raise, and are not remembered.
_checked = lru_cache(maxsize=4096)(check_name)


class Entry(NamedTuple):
    call: Call
    right: Right


# (namespace's id, topic[, group]) → nothing. Raises TopicNotFound, GroupNotFound, before a body is looked at.
Require = Callable[..., Awaitable[None]]


class ClientGone(Exception):
    """The client went away before its request was complete: nothing of it is done."""


class Lane:
    def __init__(self, app: App, gate: Gate, require: Require, table: Mapping[str, Entry]) -> None:
        self._app = app
        self._gate = gate
        self._require = require
        self._table = table

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        parts = scope["path"].split("/")
        entry = self._find(parts)
        if entry is None:
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._gate.admit_to_lane(scope, entry.right, parts[3])
            names = [_checked("topic", parts[3])]
            if len(parts) == 7:
                names.append(_checked("group", parts[5]))
            await self._require(caller.namespace.id, *names)
            status, body = await entry.call(caller, names, scope["headers"], self._gate.metered(caller, receive))
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        except ClientGone:
            return
        except Exception as error:
            if not isinstance(error, LogpostError):
                log.error("request_failed", path=scope["path"], exc_info=error)
            status, headers, body = problem_response(error)
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _find(self, parts: list[str]) -> Entry | None:
        """``["", "v1", "topics", topic, …]`` → what answers it."""
        size = len(parts)
        if size < 5 or parts[2] != "topics" or parts[1] != "v1" or parts[0]:
            return None
        if size == 5:
            return self._table.get(parts[4])
        if size == 6:
            return self._table.get(f"{parts[4]}/{parts[5]}")
        if size == 7 and parts[4] == "groups":
            return self._table.get(f"groups/{parts[6]}")
        return None


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, most: int) -> bytes:
    """The whole body. Raises TooLarge as soon as it is known to be larger than ``most`` bytes, UnsupportedMedia if it
    is compressed, ClientGone."""
    if b"content-encoding" in headers and headers[b"content-encoding"].strip().lower() not in (b"", b"identity"):
        raise UnsupportedMedia("A compressed body is not taken.", [Fault("is not taken", "Content-Encoding")])
    length = headers.get(b"content-length")
    if length is not None and length.isdigit() and int(length) > most:
        raise _too_large(most)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > most:
            raise _too_large(most)
        return body
    return await _read_rest(body, receive, most)


async def _read_rest(body: bytes, receive: Receive, most: int) -> bytes:
    buffer = bytearray(body)
    more = True
    while more:
        if len(buffer) > most:
            raise _too_large(most)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        buffer += message.get("body", b"")
        more = message.get("more_body", False)
    if len(buffer) > most:
        raise _too_large(most)
    return bytes(buffer)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"The body is larger than {most} bytes.", [Fault(f"is larger than {most} bytes", "body")])


async def answered_by_the_lane() -> None:
    """Stands for a call of the lane among FastAPI's routes, for the API's document: the lane is asked first."""
    raise AssertionError("the lane answers this path")
