"""A small topic beside the tested one, for what would take the tested one's messages away: purge and retention.

Only one task uses it, so what is in it is known: a purge takes all or nothing, and retention leaves the newest.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from bench.faults.client import Client
from bench.faults.history import Event, now
from bench.faults.plan import Phase

BASE = "/v1/topics/scrap"
GROUP = f"{BASE}/groups/readers"
PARTITIONS = 4
KEPT = 40
FEW = 12


class Scrap:
    def __init__(self, client: Client, phase: Phase) -> None:
        self.client = client
        self.phase = phase
        self._turn = asyncio.Lock()

    async def declare(self) -> None:
        body = {"distribution": {"partitions": PARTITIONS}, "retention": {"maxCount": KEPT}}
        await self.client.sure("PUT", BASE, body)
        await self.client.sure("PUT", GROUP, {"delivery": {"mode": "pull"}, "startFrom": "earliest"})

    async def purge(self) -> None:
        """A few messages, and a purge, which may be cut off."""
        async with self._turn:
            if not self.phase.publishing:
                return
            await self._publish(FEW)
            before = await self._count()
            answer = await self.client.call("POST", f"{BASE}/purge")
            after = await self._count()
            if after not in (0, before) or (answer.type == "ok" and after != 0):
                self._found(f"a purge that was answered {answer.status} left {after} of {before} messages", answer.type)
            if after == 0 and (lag := await self._lag()) != 0:
                self._found(f"a purge left a lag of {lag}", answer.type)

    async def overfill(self) -> None:
        """More than the topic keeps."""
        async with self._turn:
            if not self.phase.publishing:
                return
            await self._publish(2 * KEPT)
            if (kept := await self._count()) != KEPT:
                self._found(f"{kept} messages where {KEPT} are kept", "ok")

    async def _publish(self, count: int) -> None:
        for _ in range(count // FEW + 1):
            await self.client.sure("POST", f"{BASE}/messages/batch", {"messages": [{"message": "x"}] * FEW})

    async def _count(self) -> int:
        found: dict[str, Any] = msgspec.json.decode(await self.client.sure("GET", f"{BASE}/stats"))
        count: int = found["messages"]
        return count

    async def _lag(self) -> int:
        found: dict[str, Any] = msgspec.json.decode(await self.client.sure("GET", f"{GROUP}/lag"))
        lag: int = found["lag"]
        return lag

    def _found(self, what: str, type_: str) -> None:
        self.client.recorder.note(Event(f="torn", topic="scrap", val=what, type=type_, t0=now()))
