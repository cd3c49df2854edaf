"""What many would write themselves: a table, and ``for update skip locked``.

A message for several groups is a row for each. Taking is a transaction that holds the rows' locks until the messages
are done; deleting them is the ack.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import asyncpg

from bench.peers.peer import WAIT_S, Peer, Publish, Taken
from bench.peers.postgres import OnPostgres

POLL_S = 0.005

TABLE = """
create table jobs (
    id bigint generated always as identity primary key,
    queue text not null,
    body bytea not null
);
create index on jobs (queue, id)
"""
INSERT = """
insert into jobs (queue, body)
select queue, body from unnest($1::text[]) queue cross join unnest($2::bytea[]) body
"""
CLAIM = "select id, body from jobs where queue = $1 order by id limit $2 for update skip locked"
DELETE = "delete from jobs where id = any($1::bigint[])"


class SkipLocked(OnPostgres):
    title = "SKIP LOCKED table"
    lacks: frozenset[str] = frozenset()

    def missing(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return f"Postgres {self.connection.get_server_version().major}"

    async def install(self) -> None:
        await self.connection.execute(TABLE)

    async def fan_out(self, topic: str, groups: int) -> None:
        """Nothing to declare: a queue is a value in a column."""


PEERS: Mapping[str, Callable[[], Peer]] = {"skip-locked": SkipLocked}


class TableSession:
    def __init__(self, connection: asyncpg.Connection[Any], topic: str, groups: int) -> None:
        self._connection = connection
        self._topic = topic
        self._queues = [f"{topic}.g{n}" for n in range(groups)]

    def one(self, body: bytes) -> Publish:
        return self.batch([body])

    def batch(self, bodies: Sequence[bytes]) -> Publish:
        rows = list(bodies)

        async def publish() -> None:
            await self._connection.execute(INSERT, self._queues, rows)

        return publish

    async def take(self, group: str, wanted: int, *, each: bool) -> Taken:
        until = time.perf_counter() + WAIT_S
        while not (taken := await self._take(f"{self._topic}.{group}", 1 if each else wanted)).messages:
            if time.perf_counter() > until:
                break
            await asyncio.sleep(POLL_S)
        return taken

    async def _take(self, queue: str, wanted: int) -> Taken:
        async with self._connection.transaction():
            rows = await self._connection.fetch(CLAIM, queue, wanted)
            if rows:
                await self._connection.execute(DELETE, [row["id"] for row in rows])
        return Taken(len(rows), b"".join(row["body"] for row in rows))

    async def close(self) -> None:
        await self._connection.close()


async def connect(place: str, topic: str, groups: int) -> TableSession:
    return TableSession(await asyncpg.connect(place), topic, groups)
