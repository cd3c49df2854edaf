"""Logpost, with one and with two workers.

Its groups keep no order, like the competing consumers of the others; nothing is published with a key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import asyncpg

from bench.client import Client, ack_body, ack_ids
from bench.peers.peer import WAIT_S, Peer, Publish, Taken
from bench.server import Server, logpost

PARTITIONS = 4


class Logpost:
    title = "Logpost"
    durability = "a 2xx after COMMIT of its Postgres, which is an fsync; a settle likewise"
    durable = True
    copies = False
    lacks: frozenset[str] = frozenset()
    workers = 1

    def missing(self) -> str:
        return ""

    async def start(self, directory: Path) -> None:
        self._stack = contextlib.ExitStack()
        running = logpost(settings={"LOGPOST_WORKERS": str(self.workers)})
        self._server: Server = await asyncio.to_thread(self._stack.enter_context, running)

    @property
    def version(self) -> str:
        from importlib.metadata import version  # noqa: PLC0415

        return version("logpost")

    @property
    def place(self) -> str:
        return self._server.url

    async def fan_out(self, topic: str, groups: int) -> None:
        client = await Client.open(self.place)
        await client.put(f"/v1/topics/{topic}", {"distribution": {"partitions": PARTITIONS}})
        for n in range(groups):
            group = {"startFrom": "earliest", "maxInFlight": 1_000_000, "batchSize": 1000, "ordering": "none"}
            await client.put(f"/v1/topics/{topic}/groups/g{n}", group)
        client.close()

    async def size_on_disk(self) -> int:
        connection = await asyncpg.connect(self._server.dsn)
        size: int = await connection.fetchval("select pg_database_size(current_database())")
        await connection.close()
        return size

    async def stop(self) -> None:
        await asyncio.to_thread(self._stack.close)


class TwoWorkers(Logpost):
    title = "Logpost, 2 workers"
    workers = 2


PEERS: Mapping[str, Callable[[], Peer]] = {"logpost": Logpost, "logpost-2": TwoWorkers}


class HttpSession:
    def __init__(self, client: Client, topic: str) -> None:
        self._client = client
        self._topic = f"/v1/topics/{topic}"

    def one(self, body: bytes) -> Publish:
        async def publish() -> None:
            await self._client.post(f"{self._topic}/messages", body)

        return publish

    def batch(self, bodies: Sequence[bytes]) -> Publish:
        request = b'{"messages":[' + b",".join(b'{"message":%b}' % body for body in bodies) + b"]}"

        async def publish() -> None:
            await self._client.post(f"{self._topic}/messages/batch", request)

        return publish

    async def take(self, group: str, wanted: int, *, each: bool) -> Taken:
        path = f"{self._topic}/groups/{group}"
        pulled = await self._client.post(f"{path}/pull", b'{"max":%d,"waitMs":%d}' % (wanted, WAIT_S * 1000))
        ids = ack_ids(pulled)
        if each:
            for ack_id in ids:
                await self._client.post(f"{path}/ack", ack_body([ack_id]))
        elif ids:
            await self._client.post(f"{path}/ack", ack_body(ids))
        return Taken(len(ids), pulled)

    async def close(self) -> None:
        self._client.close()


async def connect(place: str, topic: str, groups: int) -> HttpSession:
    return HttpSession(await Client.open(place), topic)
