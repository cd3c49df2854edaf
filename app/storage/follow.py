"""Following a topic: what every partition has from some offset on, in one statement for all of them.

The timeline of the database stands beside what is read, because a log that lost its end to a failover has other
messages at the same offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.message import Message
from app.domain.partition import partition_id
from app.storage.database import Database
from app.storage.lineage import TIMELINE


@dataclass(frozen=True, slots=True)
class Reach:
    """What is retained of each partition, by number: from ``first[n]`` to before ``next[n]``."""

    timeline: int
    first: tuple[int, ...]
    next: tuple[int, ...]


REACH = f"""
    select p.topic_id, p.first_offset, greatest(p.first_offset, newest.next), {TIMELINE}
    from partitions p
    left join lateral (
        select b.base_offset + b.count as next from batches b
        where b.partition_id = p.id order by b.base_offset desc limit 1) newest on true
    where exists (select from unnest($1::bigint[]) t (id) where p.id between t.id << 16 and (t.id << 16) + 65535)
    order by p.id
"""


async def reach(db: Database, topic_ids: Sequence[int]) -> dict[int, Reach]:
    """By topic id; a topic that is gone is absent."""
    rows: dict[int, list[tuple[int, int]]] = {}
    found = await db.fetch(REACH, topic_ids)
    for topic_id, first, after, _ in found:
        rows.setdefault(topic_id, []).append((first, after))
    return {
        topic_id: Reach(found[0][3], tuple(first for first, _ in ends), tuple(after for _, after in ends))
        for topic_id, ends in rows.items()
    }


@dataclass(frozen=True, slots=True)
class Followed:
    """Messages by time, and of each partition that was asked for where its retained part begins.

    ``more``: partitions of which there may be more right behind what was read.
    """

    timeline: int
    first: dict[int, int]
    messages: list[Message]
    more: set[int]


# As cursors.PEEK: whole batches, from the one the offset is in.
FOLLOW = f"""
    select f.id, p.first_offset, {TIMELINE}, b.*
    from unnest($1::bigint[], $2::bigint[]) f (id, start)
    join partitions p on p.id = f.id
    left join lateral (
        select x.base_offset, x.published_at, x.keys, x.meta, x.payloads
        from (select y.*, sum(y.count) over w - y.count as count_before,
                     sum(pg_column_size(y.payloads)) over w as size
              from batches y
              where y.partition_id = f.id
                and y.base_offset + y.count > greatest(f.start, p.first_offset)
                and y.base_offset >= coalesce(
                    (select z.base_offset from batches z
                     where z.partition_id = f.id and z.base_offset <= greatest(f.start, p.first_offset)
                     order by z.base_offset desc limit 1), 0)
              window w as (order by y.base_offset rows unbounded preceding)
              order by y.base_offset limit $3) x
        where x.count_before = 0 or x.count_before < $3 and x.size <= $4) b on true
    order by b.published_at, f.id, b.base_offset
"""


async def follow(
    db: Database, topic_id: int, starts: Sequence[tuple[int, int]], *, limit: int, byte_limit: int
) -> Followed:
    """What the partitions (number, offset) have from there on: of each about ``limit`` messages or ``byte_limit``
    bytes, at least one batch. Partitions that are gone are absent."""
    ids = [partition_id(topic_id, number) for number, _ in starts]
    offsets = {partition_id(topic_id, number): offset for number, offset in starts}
    first: dict[int, int] = {}
    messages: list[Message] = []
    sizes: dict[int, tuple[int, int]] = {}
    timeline = 0
    for row in await db.fetch(FOLLOW, ids, [offset for _, offset in starts], limit, byte_limit):
        place, retained, timeline, base, published_at, keys, metas, payloads = row
        first[place & 0xFFFF] = retained
        if base is None:
            continue
        start = max(offsets[place], retained)
        found = [
            Message(place, base + i, published_at, keys[i] if keys else None, metas[i] if metas else None, payload)
            for i, payload in enumerate(payloads)
            if base + i >= start
        ]
        messages += found
        count, size = sizes.get(place, (0, 0))
        sizes[place] = count + len(payloads), size + sum(map(len, payloads))
    # A batch too large for what was left of the bytes was not read: half of them already means there may be more.
    more = {place & 0xFFFF for place, (count, size) in sizes.items() if count >= limit or size >= byte_limit // 2}
    return Followed(timeline, first, messages, more)
