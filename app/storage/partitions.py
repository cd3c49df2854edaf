"""Partitions as one can look at them: what they hold, and when a message came."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.storage.database import Database


@dataclass(frozen=True, slots=True)
class Extent:
    """What a partition retains: ``first_offset`` to ``last_offset``, nothing if the last is before the first."""

    number: int
    first_offset: int
    last_offset: int
    oldest_at: datetime | None
    newest_at: datetime | None


EXTENTS = """
    select p.number, p.first_offset, greatest(newest.next, p.first_offset) - 1 as last_offset,
           case when newest.next > p.first_offset then
               (select b.published_at from batches b
                where b.partition_id = p.id and b.base_offset <= p.first_offset
                order by b.base_offset desc limit 1) end as oldest_at,
           case when newest.next > p.first_offset then newest.published_at end as newest_at
    from partitions p
    left join lateral (
        select b.base_offset + b.count as next, b.published_at from batches b
        where b.partition_id = p.id order by b.base_offset desc limit 1) newest on true
    where p.id between $1::bigint << 16 and ($1::bigint << 16) + 65535
    order by p.id
"""


async def extents(db: Database, topic_id: int) -> list[Extent]:
    """Every partition of a topic, by number. Two probes each, however much there is."""
    return [Extent(*row.values()) for row in await db.fetch(EXTENTS, topic_id)]


PUBLISHED_AT = """
    select coalesce(
        (select e.published_at from envelopes_at($1, array[$2::bigint]) e),
        (select d.published_at from deferred d where d.partition_id = $1 and d."offset" = $2
           and d.published_at is not null limit 1),
        (select l.published_at from dead_letters l where l.partition_id = $1 and l."offset" = $2 limit 1))
"""


async def published_at(db: Database, partition_id: int, offset: int) -> datetime | None:
    """Of a message that the log or a group's own copy still has."""
    moment: datetime | None = await db.fetchval(PUBLISHED_AT, partition_id, offset)
    return moment
