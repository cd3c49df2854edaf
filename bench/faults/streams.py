"""Consumers that read a group's stream, settle by POST at any replica, and now and then are gone without a word."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import msgspec

from bench.faults.client import Message, clocks, on_our_clock
from bench.faults.consumers import Consumer
from bench.faults.history import MS, SECOND, SLACK, Event, now
from bench.faults.plan import LEASE_MS, LOCK_TTL_MS, TOPIC

# How long before the last thing we read the server may have ended the stream: it ran ahead of us by as much.
RAN_AHEAD = SECOND
STREAM_LEASE_MS = min(LOCK_TTL_MS, LEASE_MS)


class StreamConsumer(Consumer):
    """One stream after the other, each under a label of its own."""

    async def run(self) -> None:
        while not self.phase.over:
            if self.phase.hung == self.group and not self.phase.draining:
                await self.phase.sleep(0.05)
                continue
            self.renamed += 1
            await self._stream()
            await self.phase.sleep(self.random.uniform(0.02, 0.3))

    async def _stream(self) -> None:
        stream = Event(f="stream", topic=TOPIC, group=self.group, cons=self.label, t0=now())
        self.client.recorder.invoke([stream])
        path = f"{self.path}/stream?max={self.random.choice((1, 100, 200))}&consumer={self.label}"
        is_ours = False
        last = read = now()
        try:
            async with self.client.stream(path) as response:
                if response.status != 200:
                    await self.phase.sleep(0.2)
                    return
                end = time.monotonic() + self.random.uniform(2, 15)
                rest = b""
                while not self.phase.over and time.monotonic() < end:
                    data = await _read(response)
                    if data == b"":
                        return
                    if data is not None:
                        *frames, rest = (rest + data).split(b"\n\n")
                        last = read = now()
                        await self._take(frames)
                if response.content.is_eof():
                    return  # the server was first, while we were at work
                is_ours, last = True, now()
                if self.random.random() < 0.2 and not self.phase.draining:
                    # Gone, and nobody is told: the connection stands, and what comes is not read.
                    await self.phase.sleep(LEASE_MS / 1000 * self.random.uniform(0.5, 1.6))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.client.pulse.statuses[type(error).__name__] += 1
        finally:
            stream.data = {"read": max(stream.t0, read - RAN_AHEAD)}
            stream.t0 = last if is_ours else max(stream.t0, last - RAN_AHEAD)
            self.client.recorder.complete([stream], "ok")

    async def _take(self, frames: list[bytes]) -> None:
        seen = clocks()
        messages: list[Message] = []
        for frame in frames:
            fields = dict(line.partition(b": ")[::2] for line in frame.splitlines())
            if fields.get(b"event") == b"message":
                messages.append(msgspec.json.decode(fields[b"data"], type=Message))
        for message in messages:
            self._record(message, self.label, _claimed(message, seen), seen, STREAM_LEASE_MS)
        if messages:
            self.client.pulse.beat("delivered", _claimed(messages[-1], seen), len(messages))
            await self._work(messages)


def _claimed(message: Message, seen: tuple[int, float]) -> int:
    """Before it was claimed, by what the server says."""
    expires = on_our_clock(message.lease_expires_at, *seen)
    return min(seen[0], expires - STREAM_LEASE_MS * MS - SLACK) if expires else seen[0]


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """What is there, empty at the end; None when nothing comes for a while."""
    try:
        async with asyncio.timeout(0.5):
            return await response.content.readany()
    except TimeoutError:
        return None
