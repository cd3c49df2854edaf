"""A webhook endpoint that misbehaves on demand, down to the bytes, and remembers every request it got.

::

    async with Receiver() as receiver:
        receiver.behave(answer(500), when=lambda request: b"poison" in request.body)
        receiver.behave(answer(503, {"Retry-After": "1"}), times=2)
        ... push to receiver.url ...
        await receiver.received(3)

The latest behaviour that matches a request and is not used up answers it; without one it is 200. A behaviour is any
coroutine function of a ``Conversation``: when it returns, the connection goes on to its next request, unless the
behaviour cut it. ``tests/misbehaviour.py`` has the usual ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

from tests.servers import PATIENCE_S


@dataclass(frozen=True)
class Request:
    """One request as it came. ``headers`` keeps order and spelling; ``header`` looks one up whatever its case.

    ``at``: time.monotonic when all of it was here; ``connection`` numbers the connection it came on.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    at: float
    connection: int

    def header(self, name: str) -> str | None:
        for candidate, value in self.headers:
            if candidate.lower() == name.lower():
                return value
        return None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Conversation:
    """What a behaviour may do with one request. ``closing`` is set when the receiver is told to stop."""

    request: Request
    writer: asyncio.StreamWriter
    closing: asyncio.Event
    cut: bool = False

    async def send(self, *parts: bytes) -> None:
        self.writer.writelines(parts)
        await self.writer.drain()

    async def wait(self, seconds: float | None = None) -> None:
        """Sleeps, but not past the end of the receiver."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.closing.wait()

    def close(self) -> None:
        """FIN after what was sent."""
        self.cut = True

    def reset(self) -> None:
        """RST: what was sent and not yet read over there may be lost."""
        self.cut = True
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Conversation], Awaitable[None]]


@dataclass
class _Rule:
    behaviour: Behaviour
    when: Callable[[Request], bool]
    times: int | None


@dataclass
class Receiver:
    """A server on a free loopback port. ``requests``: all that came, in order of their last byte."""

    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self._rules: list[_Rule] = []
        self._changed = asyncio.Condition()
        self._closing = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Of this receiver; ``/hook`` is as good as any other path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}/hook"

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    def behave(
        self,
        behaviour: Behaviour,
        *,
        when: Callable[[Request], bool] = lambda _: True,
        times: int | None = None,
    ) -> None:
        """From now on requests that ``when`` picks are treated so, ``times`` times."""
        self._rules.append(_Rule(behaviour, when, times))

    async def received(self, count: int) -> list[Request]:
        """Waits until ``count`` requests have come in all; returns them."""
        return await self.until(lambda requests: len(requests) >= count)

    async def until(self, condition: Callable[[list[Request]], object]) -> list[Request]:
        """Waits until what has come satisfies ``condition``."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: condition(self.requests))
        return list(self.requests)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Ends every conversation, also those that hang. ``start`` opens it again on the same port."""
        assert self._server is not None
        self._closing.set()
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        closing = self._closing
        # Whatever goes wrong here goes wrong for the sender too, and that is where it is looked at.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async for request in _requests(reader, number):
                conversation = Conversation(request, writer, closing)
                behaviour = self._pick(request)
                async with self._changed:
                    self.requests.append(request)
                    self._changed.notify_all()
                await behaviour(conversation)
                if conversation.cut:
                    break
        self._writers.discard(writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def _pick(self, request: Request) -> Behaviour:
        for rule in reversed(self._rules):
            if rule.times != 0 and rule.when(request):
                if rule.times is not None:
                    rule.times -= 1
                return rule.behaviour
        return _accept


async def _accept(talk: Conversation) -> None:
    await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def _requests(reader: asyncio.StreamReader, connection: int) -> AsyncIterator[Request]:
    while head := await _head(reader):
        lines = head.decode("utf-8", "surrogateescape").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = tuple((name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines[1:-2]))
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        body = await reader.readexactly(length)
        yield Request(method, path, headers, body, time.monotonic(), connection)


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
