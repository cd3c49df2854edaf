"""pgmq: the SQL of its extension, from the Python package that brings it, on a Postgres like Logpost's.

A group is a queue of its own, and a message for several is sent by pgmq's topics, which put a copy into each.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import asyncpg

from bench.peers.peer import WAIT_S, Peer, Publish, Taken
from bench.peers.postgres import OnPostgres

POLL_S = 0.005  # its own read_with_poll looks every 100 ms
HIDDEN_S = 60

READ = "select msg_id, message::text from pgmq.read($1, $2, $3)"
DELETE = "select pgmq.delete($1, $2::bigint[])"
SEND = "select pgmq.send($1, $2::jsonb)"
SEND_BATCH = "select pgmq.send_batch($1, $2::jsonb[])"
SEND_TO_ALL = "select pgmq.send_batch_topic($1, $2::jsonb[])"


class Pgmq(OnPostgres):
    title = "pgmq"
    lacks: frozenset[str] = frozenset()

    def missing(self) -> str:
        return "" if importlib.util.find_spec("pgmq") else "pgmq is not installed"

    @property
    def version(self) -> str:
        return "pgmq " + (resources.files("pgmq") / "sql" / "VERSION").read_text().strip()

    async def install(self) -> None:
        await self.connection.execute((resources.files("pgmq") / "sql" / "pgmq.sql").read_text())

    async def fan_out(self, topic: str, groups: int) -> None:
        for n in range(groups):
            queue = queue_of(topic, f"g{n}")
            await self.connection.execute(f"select pgmq.create('{queue}')")
            await self.connection.execute(f"select pgmq.bind_topic('{queue_of(topic)}', '{queue}')")


PEERS: Mapping[str, Callable[[], Peer]] = {"pgmq": Pgmq}


def queue_of(topic: str, *group: str) -> str:
    """Names of queues are names of tables."""
    return "_".join((topic.replace("-", "_"), *group))


class PgmqSession:
    def __init__(self, connection: asyncpg.Connection[Any], topic: str, groups: int) -> None:
        self._connection = connection
        self._topic = topic
        self._groups = groups

    def one(self, body: bytes) -> Publish:
        if self._groups > 1:
            return self.batch([body])
        queue, message = queue_of(self._topic, "g0"), body.decode()

        async def publish() -> None:
            await self._connection.fetch(SEND, queue, message)

        return publish

    def batch(self, bodies: Sequence[bytes]) -> Publish:
        is_one = self._groups == 1
        statement = SEND_BATCH if is_one else SEND_TO_ALL
        to = queue_of(self._topic, "g0") if is_one else queue_of(self._topic)
        messages = [body.decode() for body in bodies]

        async def publish() -> None:
            await self._connection.fetch(statement, to, messages)

        return publish

    async def take(self, group: str, wanted: int, *, each: bool) -> Taken:
        queue, until = queue_of(self._topic, group), time.perf_counter() + WAIT_S
        while not (rows := await self._connection.fetch(READ, queue, HIDDEN_S, wanted)):
            if time.perf_counter() > until:
                return Taken(0, b"")
            await asyncio.sleep(POLL_S)
        ids = [row["msg_id"] for row in rows]
        for some in [[one] for one in ids] if each else [ids]:
            await self._connection.fetch(DELETE, queue, some)
        return Taken(len(rows), "".join(row["message"] for row in rows).encode())

    async def close(self) -> None:
        await self._connection.close()


async def connect(place: str, topic: str, groups: int) -> PgmqSession:
    return PgmqSession(await asyncpg.connect(place), topic, groups)
