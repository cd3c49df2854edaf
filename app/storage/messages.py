"""Messages in the log: appending them, and reading them without a group.

A record batch holds the messages of one commit in one partition as arrays side by side; here is where they become
single messages and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

from app.domain.message import Message, NewMessage, meta_of
from app.storage.database import Connection, Database, Tx
from app.storage.idempotency import OnceKey

# A row holds at most this many messages (the table checks it) and about this many bytes.
MAX_ROW_MESSAGES = 1000
MAX_ROW_BYTES = 4 * 1024 * 1024
_key, _payload = attrgetter("key"), attrgetter("payload")


@dataclass(slots=True)
class Row:
    """A record batch in the making: what one call of ``append`` takes. ``size``: bytes of its payloads."""

    partition_id: int
    version: int
    window_ms: int
    messages: list[NewMessage] = field(default_factory=list)
    size: int = 0
    once_homes: list[int] = field(default_factory=list)
    once_keys: list[str] = field(default_factory=list)
    once_digests: list[bytes] = field(default_factory=list)
    once_at: list[int] = field(default_factory=list)

    def add_all(self, messages: Sequence[NewMessage], size: int) -> int | None:
        """Adds messages whose payloads have ``size`` bytes; returns the first one's position in the row.

        None, and nothing was added, if there is no room for them. An empty row has room for everything.
        """
        held = len(self.messages)
        if held and (held + len(messages) > MAX_ROW_MESSAGES or self.size + size > MAX_ROW_BYTES):
            return None
        self.messages += messages
        self.size += size
        return held

    def add_once(self, key: OnceKey, digest: bytes, index: int) -> None:
        """The message at ``index`` came with an idempotency key."""
        self.once_homes.append(key[0])
        self.once_keys.append(key[1])
        self.once_digests.append(digest)
        self.once_at.append(index)

    def arguments(self) -> tuple[Any, ...]:
        once = bool(self.once_keys)
        keys = [*map(_key, self.messages)]
        metas = [meta_of(message) for message in self.messages]
        described = any(metas)
        return (
            self.partition_id,
            self.version,
            keys if keys.count(None) < len(keys) else None,
            metas if described else None,
            [*map(_payload, self.messages)],
            described and any(each.delay_ms is not None or each.ttl_ms is not None for each in self.messages),
            self.once_homes if once else None,
            self.once_keys if once else None,
            self.once_digests if once else None,
            self.once_at if once else None,
            self.window_ms,
        )


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a row went: its first message's offset, and the time of all of them."""

    base_offset: int
    published_at: datetime


APPEND = "select base_offset, published_at from append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"


async def append(tx: Tx, rows: Iterable[Row]) -> list[Appended]:
    """Appends the rows in the order given, all in one transaction and one round trip.

    Raises what the function raises: LP404, LP412, 23505 (see migrations/functions/append.sql).
    """
    results = await tx.fetchmany(APPEND, [row.arguments() for row in rows])
    return [Appended(base_offset, published_at) for base_offset, published_at in results]


UNLOCKED = "select id from partitions where id = $1 for no key update skip locked"


async def unlocked(connection: Connection, partition_ids: Iterable[int]) -> set[int]:
    """Those of the partitions that nobody else is changing at this moment."""
    rows = await connection.fetchmany(UNLOCKED, [(partition_id,) for partition_id in partition_ids])
    return {row[0] for row in rows}


def _messages(partition_id: int, rows: Sequence[Any]) -> list[Message]:
    return [Message(partition_id, *row) for row in rows]


AT = """
select m."offset", m.published_at, m.key, m.meta, m.payload
from messages_at($1, $2) m
join partitions l on l.id = $1
where m."offset" >= l.first_offset
order by m."offset"
"""


async def messages_at(db: Database, partition_id: int, offsets: Sequence[int]) -> list[Message]:
    """The messages of a partition at these offsets, without those that are not retained."""
    return _messages(partition_id, await db.fetch(AT, partition_id, offsets))


HEADS = """
select l.id, l.first_offset,
       greatest(l.first_offset, (select b.base_offset + b.count from batches b
                                 where b.partition_id = l.id order by b.base_offset desc limit 1)) as next_offset
from partitions l
where l.id = any ($1)
order by l.id
"""


@dataclass(frozen=True, slots=True)
class Head:
    """The retained part of a partition: from ``first_offset`` to before ``next_offset``."""

    partition_id: int
    first_offset: int
    next_offset: int


async def heads(db: Database, partition_ids: Sequence[int]) -> list[Head]:
    """In ascending order of id; partitions that are gone are absent."""
    return [Head(*row) for row in await db.fetch(HEADS, partition_ids)]


OFFSETS_AT = "select p, offset_at(p, $2) from unnest($1::bigint[]) p"


async def offsets_at(db: Database, partition_ids: Sequence[int], moment: datetime) -> dict[int, int]:
    """For each partition the first offset published at or after ``moment``, or the one after its last."""
    return {row[0]: row[1] for row in await db.fetch(OFFSETS_AT, partition_ids, moment)}


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive messages of one record batch, from ``offset`` on; ``size`` is the batch's, in bytes."""

    partition_id: int
    offset: int
    count: int
    published_at: datetime
    size: int


# The batch that an offset is in begins at or before it; nothing else finds it by the primary key.
STRETCHES = """
select f.id, greatest(b.base_offset, f.start), b.base_offset + b.count - greatest(b.base_offset, f.start),
       b.published_at, pg_column_size(b.payloads)::bigint
from unnest($1::bigint[], $2::bigint[]) f (id, start)
cross join lateral (
    select x.base_offset, x.count, x.published_at, x.payloads
    from batches x
    where x.partition_id = f.id
      and x.base_offset >= coalesce((select y.base_offset from batches y
                                     where y.partition_id = f.id and y.base_offset <= f.start
                                     order by y.base_offset desc limit 1), 0)
      and x.base_offset + x.count > f.start
    order by x.base_offset limit $3) b
order by b.published_at, f.id, b.base_offset
"""


async def stretches(db: Database, starts: Sequence[tuple[int, int]], limit: int) -> list[Stretch]:
    """What is stored from given (partition id, offset) pairs on, by time, without the payloads.

    At most ``limit`` per partition; an offset below what is retained has to be raised by the caller (``heads``).
    """
    ids, offsets = [pair[0] for pair in starts], [pair[1] for pair in starts]
    return [Stretch(*row) for row in await db.fetch(STRETCHES, ids, offsets, limit)]


RANGES = """
select f.id, b.base_offset + m.i - 1, b.published_at, m.key, m.meta, m.payload
from unnest($1::bigint[], $2::bigint[], $3::bigint[]) f (id, start, size)
cross join lateral (
    select x.base_offset, x.published_at, x.keys, x.meta, x.payloads
    from batches x
    where x.partition_id = f.id
      and x.base_offset >= coalesce((select y.base_offset from batches y
                                     where y.partition_id = f.id and y.base_offset <= f.start
                                     order by y.base_offset desc limit 1), 0)
      and x.base_offset < f.start + f.size) b
cross join lateral unnest(b.payloads, b.keys, b.meta) with ordinality m (payload, key, meta, i)
where b.base_offset + m.i - 1 >= f.start and b.base_offset + m.i - 1 < f.start + f.size
order by b.published_at, f.id, b.base_offset, m.i
"""


async def read_ranges(db: Database, ranges: Sequence[tuple[int, int, int]]) -> list[Message]:
    """The messages of (partition id, offset, count) triples, by time, then partition, then offset."""
    columns = [[each[at] for each in ranges] for at in range(3)]
    return [Message(*row) for row in await db.fetch(RANGES, *columns)]
