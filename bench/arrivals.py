"""Load generators that are called or told: many clients of a stream, a receiver of pushes, and its bare counterpart."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from typing import cast
from urllib.parse import urlsplit

from app.webhook.address import Policy
from app.webhook.request import Request
from app.webhook.send import Sender
from bench.report import Result, percentiles

# A message says in ``at`` when it was published; the rest of it is not parsed.
AT = b'"at":'


def delays_of(data: bytes, now: float) -> list[float]:
    """Seconds since each message in ``data`` was published."""
    return [now - float(part[: part.index(b",")]) for part in data.split(AT)[1:]]


class Tally:
    """What has come: how late, and when. ``wanted`` 0 is never enough."""

    def __init__(self, wanted: int) -> None:
        self.delays: list[float] = []
        self.first = self.last = 0.0
        self._wanted = wanted
        self._is_enough = asyncio.Event()

    def add(self, delays: list[float]) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.delays += delays
        if self._wanted and len(self.delays) >= self._wanted:
            self._is_enough.set()

    async def enough(self, seconds: float) -> None:
        """Until there is, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_enough.wait()


class Watcher(asyncio.Protocol):
    """A client of one stream: counts events, each a frame that an empty line ends."""

    def __init__(self, request: bytes, tally: Tally) -> None:
        self._request = request
        self._tally = tally
        self._rest = b""
        self.received_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        whole, found, rest = (self._rest + data).rpartition(b"\n\n")
        self._rest = rest if found else self._rest + data
        if whole:
            self._tally.add(delays_of(whole, time.time()))


async def watch(url: str, path: str, clients: int, wanted: int, seconds: float) -> Result:
    """Until each of ``clients`` was sent ``wanted`` messages, at most ``seconds``; with ``wanted`` 0 that long."""
    place, loop = urlsplit(url), asyncio.get_running_loop()
    assert place.hostname
    assert place.port
    tally = Tally(clients * wanted)
    request = b"GET %b HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n" % path.encode()
    watchers = []
    for _ in range(clients):
        connected = await loop.create_connection(lambda: Watcher(request, tally), place.hostname, place.port)
        watchers.append(connected[1])
    await tally.enough(seconds)
    received = sum(watcher.received_bytes for watcher in watchers)
    events = len(tally.delays)
    return {"events": events, "bytes": received / max(events, 1), **percentiles(tally.delays)}


class Receiver(asyncio.Protocol):
    """Answers every request with an empty 200, except where it is to hang."""

    def __init__(self, tally: Tally, *, hangs: bool) -> None:
        self._tally = tally
        self._hangs = hangs
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(self._buffer) < end + 4 + length:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
            if not self._hangs:
                self._tally.add(delays_of(body, time.time()) or [0.0])
                self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


async def receive(port: int, wanted: int, seconds: float, *, hangs: bool = False) -> Result:
    """Until ``wanted`` requests were answered, at most ``seconds``. Rates count from the first to the last."""
    tally = Tally(wanted)
    server = await asyncio.get_running_loop().create_server(
        lambda: Receiver(tally, hangs=hangs), "127.0.0.1", port, backlog=1000
    )
    await tally.enough(seconds)
    server.close()
    elapsed, requests = tally.last - tally.first, len(tally.delays)
    return {"requests": requests, "requests_s": requests / elapsed if elapsed else 0.0, **percentiles(tally.delays)}


async def post_over_and_over(url: str, count: int, concurrency: int, body: str, headers: dict[str, str]) -> Result:
    """The client that pushes, and nothing else: it posts the same bytes in an empty loop."""
    request = Request(url, tuple(headers.items()), body.encode(), 30_000)
    policy = Policy((range(1, 65536),), (ipaddress.ip_network("127.0.0.0/8"),))
    left = count

    async def worker(sender: Sender) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await sender.send(request)

    began = time.perf_counter()
    async with Sender(policy) as sender:
        await asyncio.gather(*(worker(sender) for _ in range(concurrency)))
    return {"requests_s": count / (time.perf_counter() - began)}
