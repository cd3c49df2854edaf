"""Calls of the API and what their answers prove: ``ok``, ``fail`` (nothing happened) or ``info`` (nobody knows)."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import aiohttp
import msgspec

from bench.faults.history import MS, NO_EFFECT, SECOND, Event, Recorder, now

LOST = 0  # the status of a call that got no whole answer
# A replica that has not answered a call for so much longer than it was to wait is asked nothing more for the moment,
# or everybody would soon be waiting for it.
SILENT_S = 0.7
AVOIDED_S = 1.5


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    @property
    def type(self) -> str:
        if 200 <= self.status < 300:
            return "ok"
        return "fail" if self.status in NO_EFFECT else "info"


class Results(msgspec.Struct, rename="camel"):
    ack_id: str
    status: str


class Settled(msgspec.Struct):
    results: list[Results] = []


class Message(msgspec.Struct, rename="camel"):
    """A message as pull, browse and dead letters show it."""

    partition: int
    offset: int
    key: str | None = None
    headers: dict[str, str] = {}
    correlation_id: str | None = None
    message: msgspec.Raw = msgspec.Raw(b"null")
    id: str = ""
    message_id: str = ""
    ack_id: str = ""
    attempt: int = 0
    attempts: int = 0
    lease_expires_at: datetime | None = None
    dead_at: datetime | None = None

    def observed(self, event: Event) -> Event:
        """Fills in what it says of place and content."""
        body = bytes(self.message)
        event.part, event.off, event.key = self.partition, self.offset, self.key
        event.val, event.sha = value_of(body), digest(body, self.headers, self.correlation_id)
        return event


class Pulled(msgspec.Struct):
    messages: list[Message] = []
    empty: str | None = None


class Page(msgspec.Struct, rename="camel"):
    items: list[Message]
    next_cursor: str | None = None


class Payload(msgspec.Struct):
    val: str
    pad: str = ""


_payload = msgspec.json.Decoder(Payload)


def value_of(body: bytes) -> str:
    try:
        return _payload.decode(body).val
    except msgspec.DecodeError:
        return f"unreadable {body[:40]!r}"


def digest(body: bytes, headers: dict[str, str], correlation_id: str | None) -> str:
    """What has to arrive unchanged, in 16 characters."""
    rest = msgspec.json.encode([sorted(headers.items()), correlation_id])
    return sha256(body + b"\0" + rest).hexdigest()[:16]


def clocks() -> tuple[int, float]:
    """One moment on both clocks: not two, on a machine where we had to wait between them."""
    while True:
        moment, wall = now(), time.time()
        if now() - moment < MS:
            return moment, wall


def on_our_clock(moment: datetime | None, seen: int, seen_wall: float) -> int:
    """A time of the server's on our clock. ``seen`` and ``seen_wall`` are one moment on both: the same for everything
    of one answer, so that what is equal stays equal."""
    return seen + round((moment.timestamp() - seen_wall) * SECOND) if moment is not None else 0


class Pulse:
    """Counts of what goes well, and when it last began to: how the nemesis measures recovery."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self._beats: dict[str, tuple[int, int]] = {}

    def beat(self, what: str, begun: int, count: int = 1) -> None:
        """``begun`` is when the call was invoked that went well."""
        self.counts[what] += count
        self._beats[what] = max(self._beats.get(what, (0, 0)), (begun, now()))

    async def after(self, what: str, moment: int, timeout_s: float) -> int | None:
        """When the first call ended well that was invoked after a moment."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            begun, ended = self._beats.get(what, (0, 0))
            if begun > moment:
                return ended
            await asyncio.sleep(0.01)
        return None


class Client:
    """HTTP to any of the replicas, chosen anew for each call."""

    def __init__(self, urls: list[str], recorder: Recorder, pulse: Pulse, seed: int) -> None:
        self.urls = urls
        self.recorder = recorder
        self.pulse = pulse
        self.random = random.Random(seed)
        self._asked: dict[str, dict[object, float]] = {url: {} for url in urls}
        self._avoided: dict[str, float] = dict.fromkeys(urls, 0.0)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=5), auto_decompress=False
        )

    async def close(self) -> None:
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout_s: float = 8.0,
        wait_s: float = 0.0,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Never raises for what a server or a network does. ``wait_s``: how long the answer may be held back."""
        url, call = self._choose(), object()
        asked = self._asked[url]
        asked[call] = time.monotonic() + wait_s
        try:
            answer = await self._call(method, url + path, body, timeout_s, headers)
        finally:
            del asked[call]
        if answer.status == LOST:
            self._avoided[url] = time.monotonic() + AVOIDED_S * self.random.random()
        return answer

    def _choose(self) -> str:
        now_s = time.monotonic()
        heard = [
            url
            for url in self.urls
            if now_s > self._avoided[url] and all(now_s - due < SILENT_S for due in self._asked[url].values())
        ]
        return self.random.choice(heard or self.urls)

    async def _call(self, method: str, url: str, body: Any, timeout_s: float, headers: dict[str, str] | None) -> Answer:
        data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        said = {"content-type": "application/json"} | (headers or {})
        try:
            async with asyncio.timeout(timeout_s):
                async with self._session.request(method, url, data=data, headers=said) as response:
                    answer = Answer(response.status, await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.pulse.statuses[type(error).__name__] += 1
            return Answer(LOST, b"")
        if answer.type != "ok":
            self.pulse.statuses[f"{answer.status} {_code(answer.body)}"] += 1
        return answer

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response that goes on, of any replica. Raises ClientError, OSError, TimeoutError."""
        url = self._choose() + path
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        async with self._session.get(url, timeout=timeout) as response:
            yield response

    async def sure(self, method: str, path: str, body: Any = None, *, timeout_s: float = 60.0) -> bytes:
        """Repeats a call that may be repeated until it goes well. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        answer = Answer(LOST, b"")
        while time.monotonic() < deadline:
            answer = await self.call(method, path, body)
            if answer.type == "ok":
                return answer.body
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{method} {path}: {answer.status} {answer.body[:500]!r}")


def _code(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body).get("code"))
    except (msgspec.DecodeError, AttributeError):
        return "?"
