"""Topics, groups and messages for tests of the background loops, straight into the database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from app.domain.partition import partition_id
from app.storage.database import Database

APPEND = "select base_offset from append($1, 1, $2, null, $3, false, $4, $5, $6, $7, 60000)"


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    database = await Database.open(dsn, pool_size=4)
    yield database
    await database.close()


@pytest.fixture
async def log(db: Database) -> Log:
    return await Log.create(db)


class Log:
    """One topic with its partitions, and ways to fill it and look inside."""

    def __init__(self, db: Database, topic_id: int) -> None:
        self.db = db
        self.topic_id = topic_id
        self.partitions: list[int] = []

    @classmethod
    async def create(
        cls, db: Database, name: str = "orders", *, partitions: int = 1, retention: dict[str, int] | None = None,
        window_ms: int = 60_000,
    ) -> Log:  # fmt: skip
        namespace_id = await db.fetchval(
            "insert into namespaces (project, environment) values ('default', 'default') "
            "on conflict (project, environment) do update set project = excluded.project returning id"
        )
        limits = {"maxAgeMs": None, "maxCount": None} | (retention or {})
        config = {"retention": limits, "idempotency": {"windowMs": window_ms}}
        topic_id = await db.fetchval(
            "insert into topics (namespace_id, name, config, partitions, home_partitions) "
            "values ($1, $2, $3, $4, $4) returning id",
            namespace_id, name, json.dumps(config), partitions,
        )  # fmt: skip
        log = cls(db, topic_id)
        for number in range(partitions):
            log.partitions.append(partition_id(topic_id, number))
            await db.execute(
                "insert into partitions (id, topic_id, number, version) values ($1, $2, $3, 1)",
                log.partitions[-1], topic_id, number,
            )  # fmt: skip
        return log

    async def limit(self, **retention: int) -> None:
        await self.db.execute(
            "update topics set config = jsonb_set(config, '{retention}', $2) where id = $1",
            self.topic_id, json.dumps(retention),
        )  # fmt: skip

    async def append(
        self, messages: int, *, number: int = 0, key: str | None = None, batch: int = 1000, once: str | None = None
    ) -> None:
        """Payloads are the offsets, as text. ``once``: an idempotency key for the first message."""
        partition = self.partitions[number]
        first = await self.past(number)
        for start in range(first, first + messages, batch):
            count = min(batch, first + messages - start)
            payloads = [str(start + i).encode() for i in range(count)]
            keys = [key] * count if key else None
            homes = ([partition], [once], [b"digest"], [0]) if once else (None, None, None, None)
            assert start == await self.db.fetchval(APPEND, partition, keys, payloads, *homes)

    async def age(self, seconds: float, *, number: int = 0) -> None:
        """Moves everything published so far into the past."""
        for table in ("batches", "idempotency_keys"):
            await self.db.execute(
                f"update {table} set published_at = published_at - make_interval(secs => $2) where partition_id = $1",
                self.partitions[number], seconds,
            )  # fmt: skip

    async def first(self, number: int = 0) -> int:
        first: int = await self.db.fetchval(
            "select first_offset from partitions where id = $1", self.partitions[number]
        )
        return first

    async def past(self, number: int = 0) -> int:
        """The offset that the next message gets."""
        past: int = await self.db.fetchval(
            "select greatest(l.first_offset, (select max(base_offset + count) from batches where partition_id = l.id)) "
            "from partitions l where l.id = $1",
            self.partitions[number],
        )
        return past

    async def retained(self) -> list[tuple[int, int]]:
        """(partition number, offset) of every message that readers see, by time."""
        rows = await self.db.fetch(
            'select partition, "offset" from messages where partition_id = any($1) '
            'order by published_at, partition, "offset"',
            self.partitions,
        )
        return [(row["partition"], row["offset"]) for row in rows]

    async def batches(self, number: int = 0) -> list[tuple[int, int]]:
        """(first offset, count) of the record batches on disk."""
        rows = await self.db.fetch(
            "select base_offset, count from batches where partition_id = $1 order by 1", self.partitions[number]
        )
        return [(row["base_offset"], row["count"]) for row in rows]

    async def group(self, name: str = "billing", *, next_offset: int = 1) -> int:
        config = {
            "ordering": "partition",
            "retries": {"max": 3, "strategy": "fixed", "baseDelay": 1000, "maxDelay": 60000},
            "deadLetter": {"enabled": True},
        }
        group_id: int = await self.db.fetchval(
            "insert into groups (topic_id, name, config) values ($1, $2, $3) returning id",
            self.topic_id, name, json.dumps(config),
        )  # fmt: skip
        for partition in self.partitions:
            await self.db.execute(
                "insert into cursors (partition_id, group_id, next_offset, version) values ($1, $2, $3, 1)",
                partition, group_id, next_offset,
            )  # fmt: skip
        return group_id

    async def lease(self, group_id: int, first: int, last: int, *, number: int = 0, seconds: float = 60) -> None:
        """A lease on these offsets that ends in so many seconds; negative is overdue."""
        await self.db.execute(
            "insert into leases (partition_id, group_id, id, deadline, owner, pending) values "
            "($1, $2, $3, clock_timestamp() + make_interval(secs => $4), 'test', int8multirange(int8range($3, $5)))",
            self.partitions[number], group_id, first, seconds, last + 1,
        )  # fmt: skip


async def column(db: Database, statement: str, *arguments: Any) -> Sequence[Any]:
    return [row[0] for row in await db.fetch(statement, *arguments)]
