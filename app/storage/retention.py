"""Retention in storage: where partitions should begin, and the removal of what lies before that.

Trimming is logical first: raising ``first_offset`` hides messages from every reader at once, exactly, even in the
middle of a record batch. The batches themselves are deleted afterwards, in small transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.storage.database import Database


@dataclass(frozen=True, slots=True)
class Limits:
    """What a topic keeps: nothing from before ``oldest``, and the ``newest`` of the rest. None is no limit."""

    topic_id: int
    project: str
    environment: str
    topic: str
    oldest: datetime | None
    newest: int | None


@dataclass(frozen=True, slots=True)
class Trim:
    """A partition that has to begin later: at ``retained_offset`` instead of ``first_offset``."""

    partition_id: int
    first_offset: int
    retained_offset: int


LIMITED = """
select t.id, n.project, n.environment, t.name,
       clock_timestamp() - make_interval(secs => (t.config #>> '{retention,maxAgeMs}')::bigint / 1000.0) as oldest,
       (t.config #>> '{retention,maxCount}')::bigint as newest
from topics t
join namespaces n on n.id = t.namespace_id
where (t.config #>> '{retention,maxAgeMs}' is not null or t.config #>> '{retention,maxCount}' is not null)
  and ($1::bigint is null or t.id = $1)
order by t.id
"""


async def limited_topics(db: Database, topic_id: int | None = None) -> list[Limits]:
    """Topics that do not keep everything, or the one if it does not. Ages count back from the database's clock, now."""
    return [Limits(*row.values()) for row in await db.fetch(LIMITED, topic_id)]


RETAINED_FROM = "select partition_id, first_offset, retained_offset from retained_from($1, $2, $3)"


async def due_trims(db: Database, limits: Limits) -> list[Trim]:
    rows = await db.fetch(RETAINED_FROM, limits.topic_id, limits.oldest, limits.newest)
    return [Trim(*row.values()) for row in rows]


# The row is locked for this statement only: an append waits no longer for it than for another append.
RAISE = """
update partitions p
set first_offset = $2
from (select x.id, x.first_offset from partitions x where x.id = $1 for no key update) before
where p.id = before.id and before.first_offset < $2
returning $2 - before.first_offset
"""


async def trim(db: Database, due: Trim) -> int:
    """Hides the messages, as far as nobody else has meanwhile; returns how many."""
    return await db.fetchval(RAISE, due.partition_id, due.retained_offset) or 0


# By the oldest batch of each. One empty message right below the first retained one is what a sweep leaves behind.
SWEEPABLE = """
select l.id
from partitions l
cross join lateral (select b.base_offset, b.count, b.payloads from batches b where b.partition_id = l.id
                    order by b.base_offset limit 1) oldest
where oldest.base_offset + oldest.count <= l.first_offset
  and case when oldest.base_offset = l.first_offset - 1 then octet_length(oldest.payloads[1]) > 0 else true end
order by l.id
"""


async def sweepable(db: Database) -> Sequence[int]:
    """Partitions with record batches that nobody can read any more."""
    return [row["id"] for row in await db.fetch(SWEEPABLE)]


SWEEP = "select sweep($1, $2)"


async def sweep(db: Database, partition_id: int, *, most: int) -> int:
    """Deletes the oldest such batches, at most ``most``; returns how many."""
    swept: int = await db.fetchval(SWEEP, partition_id, most)
    return swept
