"""Cursors: where groups are, what they still owe, and moving them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from app.domain.message import Message
from app.storage.database import Database, Outdated, Tx

Target = Literal["earliest", "latest", "offset", "timestamp"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A group in one partition. Offsets start at 1; ``last_offset`` is 0 in a log that never had a message.

    Every message that the cursor passed is leased, deferred, dead, or settled one way or another.
    """

    partition_id: int
    number: int
    first_offset: int
    last_offset: int
    next_offset: int
    epoch: int
    committed_offset: int
    leased: int
    retrying: int
    held: int
    delayed: int
    filtered: int
    filter_errors: int
    expired: int
    lost: int
    discarded: int
    dead: int
    letters: int
    acked: int
    oldest_unsettled_at: datetime | None
    owners: Sequence[str]
    served_at: datetime

    @property
    def ahead(self) -> int:
        return max(self.last_offset + 1 - max(self.next_offset, self.first_offset), 0)

    @property
    def lag(self) -> int:
        return self.ahead + self.leased + self.retrying + self.held + self.delayed


STANDINGS = """
    select s.*,
           (select b.published_at from batches b
            where b.partition_id = s.partition_id
              and b.base_offset <= least(s.oldest_deferred, greatest(s.committed_offset + 1, s.first_offset))
              and s.last_offset > s.committed_offset
            order by b.base_offset desc limit 1) as oldest_unsettled_at
    from (
        select c.partition_id, p.number, p.first_offset, c.next_offset, c.epoch, c.served_at,
               greatest(head.next, p.first_offset) - 1 as last_offset,
               least(greatest(c.next_offset, p.first_offset), leased.low, waiting.low) - 1 as committed_offset,
               waiting.low as oldest_deferred,
               leased.n as leased, leased.owners,
               waiting.retrying, waiting.held, waiting.delayed,
               c.filtered, c.filter_errors, c.expired,
               c.lost + greatest(p.first_offset - c.next_offset, 0) as lost, c.discarded,
               c.dead + c.dropped - c.removed as dead,
               c.dead - c.removed as letters,
               c.passed - c.filtered - c.expired - c.discarded - c.dead - c.dropped + c.redriven
                   - leased.n - waiting.retrying - waiting.held - waiting.delayed as acked
        from cursors c
        join partitions p on p.id = c.partition_id
        left join lateral (
            select b.base_offset + b.count as next from batches b
            where b.partition_id = c.partition_id order by b.base_offset desc limit 1) head on true
        -- A dead letter that was given another chance has been settled before: committedOffset does not go back to it.
        cross join lateral (
            select coalesce(range_agg(int8range(d."offset", d."offset" + 1)), '{}') as again
            from deferred d
            where d.partition_id = c.partition_id and d.group_id = c.group_id and d.redriven) redriven
        cross join lateral (
            select coalesce(sum(m.n), 0)::bigint as n, min(lower(l.pending - redriven.again)) as low,
                   coalesce(array_agg(distinct l.owner), '{}') as owners
            from leases l
            cross join lateral (select sum(upper(r.r) - lower(r.r)) as n from unnest(l.pending) r (r)) m
            where l.partition_id = c.partition_id and l.group_id = c.group_id) leased
        cross join lateral (
            select count(*) filter (where d.state = 'retrying') as retrying,
                   count(*) filter (where d.state = 'held') as held,
                   count(*) filter (where d.state = 'delayed') as delayed,
                   min(d."offset") filter (where not d.redriven) as low
            from deferred d
            where d.partition_id = c.partition_id and d.group_id = c.group_id and d.lease_id is null) waiting
        where c.group_id = $1) s
    order by s.number
"""


async def standings(db: Database, group_id: int) -> list[Standing]:
    """The group in every partition, by number. Reads no message."""
    rows = await db.fetch(STANDINGS, group_id)
    names = Standing.__dataclass_fields__
    return [Standing(**{name: row[name] for name in names}) for row in rows]


LOCK = "select partition_id from cursors where group_id = $1 order by partition_id for no key update"


async def lock(tx: Tx, group_id: int) -> list[int]:
    """The partitions a group has cursors in; nobody else moves them until this transaction ends. Raises Outdated if
    the group is gone."""
    rows = await tx.fetch(LOCK, group_id)
    if not rows:
        raise Outdated
    return [row["partition_id"] for row in rows]


SEEK = "select seek($1, $2, $3, $4, $5)"


async def seek(
    tx: Tx, partition_id: int, group_id: int, target: Target, *, offset: int | None = None, at: datetime | None = None
) -> int:
    """Moves the cursor, drops leases and deferred messages, raises the epoch. Returns the new position."""
    position: int = await tx.fetchval(SEEK, partition_id, group_id, target, offset, at)
    return position


# First of all, as everybody does who changes groups: pauses and resumes of a topic and of its groups decide together
# which cursors move, each from what the other has committed.
LOCK_TOPIC_OF = """
    select from topics where id = (select topic_id from groups where id = $1) for no key update
"""

PAUSE_GROUP = """
    update groups
    set paused_since = coalesce(paused_since, clock_timestamp()), pause_reason = coalesce($2, pause_reason)
    where id = $1
"""
PAUSE_CURSORS = "update cursors set paused = true where group_id = $1"


async def pause(tx: Tx, group_id: int, reason: str | None) -> None:
    """From the commit on, nothing of the group is claimed: claims that are under way have been waited for."""
    await tx.execute(LOCK_TOPIC_OF, group_id)
    await tx.execute(PAUSE_GROUP, group_id, reason)
    await tx.execute(PAUSE_CURSORS, group_id)


RESUME_GROUP = "update groups set paused_since = null, pause_reason = null where id = $1"
RESUME_CURSORS = """
    update cursors set paused = false
    where group_id = $1 and not exists (
        select from groups g join topics t on t.id = g.topic_id where g.id = $1 and t.paused_since is not null)
"""


async def resume(tx: Tx, group_id: int) -> None:
    """A group of a paused topic stays paused until its topic is resumed."""
    await tx.execute(LOCK_TOPIC_OF, group_id)
    await tx.execute(RESUME_GROUP, group_id)
    await tx.execute(RESUME_CURSORS, group_id)


PAUSE_TOPIC = """
    update topics
    set paused_since = coalesce(paused_since, clock_timestamp()), pause_reason = coalesce($2, pause_reason)
    where id = $1
"""
PAUSE_TOPIC_CURSORS = """
    update cursors set paused = true where group_id in (select id from groups where topic_id = $1)
"""


async def pause_topic(tx: Tx, topic_id: int, reason: str | None) -> None:
    await tx.execute(PAUSE_TOPIC, topic_id, reason)
    await tx.execute(PAUSE_TOPIC_CURSORS, topic_id)


RESUME_TOPIC = "update topics set paused_since = null, pause_reason = null where id = $1"
RESUME_TOPIC_CURSORS = """
    update cursors set paused = false
    where group_id in (select id from groups where topic_id = $1 and paused_since is null)
    returning group_id, partition_id
"""


async def resume_topic(tx: Tx, topic_id: int) -> list[tuple[int, int]]:
    """Groups that were paused themselves stay so. Returns (group id, partition id) of what moves again."""
    await tx.execute(RESUME_TOPIC, topic_id)
    return [tuple(row) for row in await tx.fetch(RESUME_TOPIC_CURSORS, topic_id)]


PURGE = "select purge($1)"


async def purge(tx: Tx, partition_id: int) -> int:
    """Takes everything of a partition out of sight; returns how many messages that were."""
    removed: int = await tx.fetchval(PURGE, partition_id)
    return removed


PEEK = """
    select greatest(c.next_offset, p.first_offset) as start, b.*
    from cursors c
    join partitions p on p.id = c.partition_id
    left join lateral (
        select x.base_offset, x.published_at, x.keys, x.meta, x.payloads
        from (select y.*, sum(y.count) over w - y.count as count_before,
                     sum(pg_column_size(y.payloads)) over w as size
              from batches y
              where y.partition_id = c.partition_id
                and y.base_offset + y.count > greatest(c.next_offset, p.first_offset)
                and y.base_offset >= coalesce(
                    (select z.base_offset from batches z
                     where z.partition_id = c.partition_id
                       and z.base_offset <= greatest(c.next_offset, p.first_offset)
                     order by z.base_offset desc limit 1), 0)
              window w as (order by y.base_offset rows unbounded preceding)
              order by y.base_offset limit $3) x
        where x.count_before = 0 or x.count_before < $3 and x.size <= $4
        order by x.base_offset) b on true
    where c.partition_id = $1 and c.group_id = $2
"""


async def peek(
    db: Database, partition_id: int, group_id: int, *, limit: int, byte_limit: int
) -> tuple[int, list[Message]]:
    """Where the group's cursor is, and the next messages from there: about ``limit`` of them, about ``byte_limit``."""
    rows = await db.fetch(PEEK, partition_id, group_id, limit, byte_limit)
    if not rows:
        raise Outdated
    start = rows[0]["start"]
    found = [
        Message(
            partition_id, row["base_offset"] + i, row["published_at"],
            row["keys"][i] if row["keys"] else None, row["meta"][i] if row["meta"] else None, payload,
        )
        for row in rows if row["base_offset"] is not None
        for i, payload in enumerate(row["payloads"]) if row["base_offset"] + i >= start
    ]  # fmt: skip
    return start, found[:limit]
