"""Server-sent events: the life of a response that is a stream of them.

A bare ASGI response, without the library the rest of the world uses: what is sent is encoded already and shared by
all clients, so nothing is left for it to do but the timers, and those are two lines each here. After a client is gone
a server's ``send`` returns at once, so that a loop which only sends would never let anybody else run: every write is
followed by a real suspension.

A frame is terminated by an empty line, and nothing else is: parsers take an empty line after a lone comment for an
event. https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from fastapi import Response
from starlette.types import Receive, Scope, Send

from app.api.problems import problem_response
from app.domain.errors import LogpostError, TooMany, Unauthorized
from app.telemetry import log

CONTENT_TYPE = "text/event-stream"
COMMENT = b":\n"
# Written at once; a larger chunk goes out in pieces, so that no client makes us hold much for it.
MAX_WRITE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Life:
    """Seconds. ``age_s``: a stream ends somewhere in between, so that clients spread over replicas again.
    ``retry_ms``: clients come back somewhere in between, and not all at once after a restart."""

    heartbeat_s: float = 15.0
    age_s: tuple[float, float] = (480.0, 600.0)
    retry_ms: tuple[int, int] = (1000, 3000)


class Source(Protocol):
    """What a stream is fed from: a Follower or a GroupStream."""

    def chunks(self) -> AsyncIterator[bytes]: ...

    def heartbeat(self) -> bytes:
        """A frame to send where nothing was sent for a while; empty for a comment."""

    def bookmark(self) -> str | None:
        """The id a client should come back with after a problem."""

    def drain(self) -> None:
        """``chunks`` ends soon, and properly."""

    def end(self) -> None:
        """The client is gone: ``chunks`` ends now."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Opener:
    """Who opened a stream, by a key or a ticket. ``key``: the prefix of that key, None for the root key."""

    namespace_id: int
    key: str | None = None


class Streams:
    """Every stream of this process."""

    def __init__(self, life: Life | None = None) -> None:
        self.life = life or Life()
        self.open: set[EventStream] = set()

    def drain(self) -> None:
        for stream in tuple(self.open):
            stream.source.drain()

    @property
    def keys(self) -> set[str]:
        """Prefixes of the keys that opened them."""
        return {stream.opener.key for stream in self.open if stream.opener.key is not None}

    def cut(self, keys: set[str]) -> None:
        """Ends the streams of these keys, which were revoked or have expired."""
        for stream in tuple(self.open):
            if stream.opener.key in keys:
                stream.cut(Unauthorized("The key that opened this stream was revoked or has expired."))


class EventStream(Response):
    media_type = CONTENT_TYPE

    def __init__(self, source: Source, streams: Streams, opener: Opener) -> None:
        self.source = source
        self.opener = opener
        self.status_code = 200
        self.background = None
        self._streams = streams
        self._is_gone = False
        self._is_writing = False
        self._wrote_at = 0.0
        self._cut: LogpostError | None = None
        self.on_end: Callable[[], None] = lambda: None

    def cut(self, error: LogpostError) -> None:
        """Ends it with this problem, after the chunk under way: nothing more is read for it."""
        self._cut = error
        self.source.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        life, loop = self._streams.life, asyncio.get_running_loop()
        self._streams.open.add(self)
        aged = loop.call_later(random.uniform(*life.age_s), self.source.drain)
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]  # fmt: skip
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._write(send, b":\nretry: %d\n" % random.randint(*life.retry_ms))
            async with asyncio.TaskGroup() as tasks:
                watcher = tasks.create_task(self._watch(receive, send))
                try:
                    await self._pump(send)
                finally:
                    watcher.cancel()
            if not self._is_gone:
                await send({"type": "http.response.body", "body": b""})
        finally:
            aged.cancel()
            self._streams.open.discard(self)
            self.on_end()
            await self.source.close()

    async def _pump(self, send: Send) -> None:
        try:
            async with aclosing(self.source.chunks()) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    await self._write(send, chunk)
                    if self._is_gone:
                        return
                    if self._cut is not None:
                        break
            if self._cut is not None:
                raise self._cut
        except Exception as error:
            if not isinstance(error, LogpostError):
                log.exception("stream_failed")
            await self._write(send, problem_frame(error, self.source.bookmark()))

    async def _write(self, send: Send, content: bytes) -> None:
        self._is_writing = True
        try:
            for at in range(0, len(content), MAX_WRITE):
                if self._is_gone:
                    return
                part = content if len(content) <= MAX_WRITE else content[at : at + MAX_WRITE]
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await asyncio.sleep(0)
        finally:
            self._is_writing = False
            self._wrote_at = asyncio.get_running_loop().time()

    async def _watch(self, receive: Receive, send: Send) -> None:
        """Sees that the client is gone, and shows it that we are not."""
        clock, heartbeat_s = asyncio.get_running_loop().time, self._streams.life.heartbeat_s
        while True:
            try:
                async with asyncio.timeout_at(max(self._wrote_at + heartbeat_s, clock() + 0.001)):
                    message = await receive()
            except TimeoutError:
                if clock() < self._wrote_at + heartbeat_s:
                    continue
                if self._is_writing:
                    self._wrote_at = clock()
                else:
                    await self._write(send, self.source.heartbeat() or COMMENT)
                continue
            if message["type"] == "http.disconnect":
                self._is_gone = True
                self.source.end()
                return


class Trouble:
    """A source of nothing but a problem."""

    def __init__(self, error: LogpostError) -> None:
        self._error = error
        self._frames: tuple[bytes, ...] = ()

    async def chunks(self) -> AsyncIterator[bytes]:
        for frame in self._frames:
            yield frame
        raise self._error

    def heartbeat(self) -> bytes:
        return b""

    def bookmark(self) -> None:
        return None

    def drain(self) -> None:
        pass

    def end(self) -> None:
        pass

    async def close(self) -> None:
        pass


def problem_frame(error: BaseException, bookmark: str | None) -> bytes:
    place = b"" if bookmark is None else b"id: %b\n" % bookmark.encode()
    if isinstance(error, TooMany):  # the browser comes back by itself, and not before that
        place += b"retry: %d\n" % (error.retry_after * 1000)
    return b"%bevent: problem\ndata: %b\n\n" % (place, problem_response(error).body)
