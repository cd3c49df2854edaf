"""Hooks that are kept, and what has to be told to them: taken from where it was written down, once and for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from app.domain.hook import ENVIRONMENT, PROJECT, Event, Happened, Hook
from app.domain.partition import NUMBER_BITS
from app.storage.database import Database, Tx
from app.storage.topics import PARTITIONS_OF

NAMESPACE = "select id from namespaces where project = $1 and environment = $2"


async def namespace_id(tx: Tx) -> int:
    """Where the logs of hooks are."""
    found: int = await tx.fetchval(NAMESPACE, PROJECT, ENVIRONMENT)
    return found


OF_TOPIC = "select topic_id, event, group_id, log_id from hooks where topic_id = $1 order by event, group_id"


async def hooks_of(tx: Tx, topic_id: int) -> list[Hook]:
    """The hooks of a topic and of its groups. Lock the topic first: then they are as they will stay."""
    return [Hook(*row) for row in await tx.fetch(OF_TOPIC, topic_id)]


INSERT = "insert into hooks (topic_id, event, group_id, log_id) values ($1, $2, $3, $4)"


async def insert_hook(tx: Tx, hook: Hook) -> None:
    await tx.execute(INSERT, hook.topic_id, hook.event, hook.group_id, hook.log_id)


DELETE = "delete from hooks where topic_id = $1 and event = $2 and group_id = $3"


async def delete_hook(tx: Tx, hook: Hook) -> None:
    await tx.execute(DELETE, hook.topic_id, hook.event, hook.group_id)


# In every partition that is not followed yet, from what is published next.
FOLLOW = f"""
insert into hook_cursors (partition_id, next_offset)
select l.id, greatest(l.first_offset, (select b.base_offset + b.count from batches b
                                       where b.partition_id = l.id order by b.base_offset desc limit 1))
from partitions l where l.{PARTITIONS_OF}
on conflict (partition_id) do nothing
"""


async def follow(tx: Tx, topic_id: int) -> None:
    """From now on what is published in the topic is told of. Lock the partitions first."""
    await tx.execute(FOLLOW, topic_id)


UNFOLLOW = f"delete from hook_cursors where partition_{PARTITIONS_OF}"


async def unfollow(tx: Tx, topic_id: int) -> None:
    await tx.execute(UNFOLLOW, topic_id)


@dataclass(frozen=True, slots=True)
class Target:
    """The partition of a hook's log, and the version of that topic."""

    topic_id: int
    event: Event
    group_id: int
    partition_id: int
    version: int


TARGETS = f"""
select h.topic_id, h.event, h.group_id, l.id, l.version
from hooks h join partitions l on l.id = h.log_id << {NUMBER_BITS}
"""


async def targets(db: Database) -> list[Target]:
    """Every hook there is."""
    return [Target(*row) for row in await db.fetch(TARGETS)]


# Whoever else takes some meanwhile takes others.
TAKE = f"""
with taken as (
    delete from announcements a
    where a.ctid = any (array(select ctid from announcements order by at limit $1 for update skip locked))
    returning a.*)
select a.event, a.partition_id, a.group_id, t.name, g.name, o, coalesce(a.published_at, e.published_at),
       coalesce(a.key, e.key), coalesce(a.meta, e.meta), a.error, a.at
from taken a
join topics t on t.id = a.partition_id >> {NUMBER_BITS}
join groups g on g.id = a.group_id
cross join lateral (
    select array_agg(f.o) as offsets
    from unnest(a.offsets) r cross join lateral generate_series(lower(r), upper(r) - 1) f (o)) w
cross join lateral unnest(w.offsets) o
left join lateral envelopes_at(a.partition_id, w.offsets) e on e."offset" = o
order by a.at, a.partition_id, o
"""


async def take_announcements(tx: Tx, most: int) -> list[Happened]:
    """The oldest ``most`` announcements, which are gone with the commit; each may be of many messages."""
    return [Happened(*row) for row in await tx.fetch(TAKE, most)]


class Behind(NamedTuple):
    """A partition with messages from ``start`` to before ``end`` that have to be told of."""

    partition_id: int
    start: int
    end: int


BEHIND = """
select c.partition_id, greatest(c.next_offset, l.first_offset),
       least(head.next, greatest(c.next_offset, l.first_offset) + $2)
from hook_cursors c
join partitions l on l.id = c.partition_id
cross join lateral (
    select b.base_offset + b.count as next from batches b
    where b.partition_id = c.partition_id order by b.base_offset desc limit 1) head
where head.next > greatest(c.next_offset, l.first_offset)
order by random() limit $1
for no key update of c skip locked
"""


async def behind(tx: Tx, *, partitions: int, messages: int) -> list[Behind]:
    """Some partitions, in no order so that all have their turn; nobody else has them until the end of ``tx``."""
    return [Behind(*row) for row in await tx.fetch(BEHIND, partitions, messages)]


ENVELOPES = f"""
select 'published', $1::bigint, 0, t.name, null, e."offset", e.published_at, e.key, e.meta, null, e.published_at
from topics t
cross join lateral envelopes_at($1, array(select generate_series($2::bigint, $3::bigint - 1))) e
where t.id = $1 >> {NUMBER_BITS}
order by e."offset"
"""
ADVANCE = "update hook_cursors set next_offset = $2 where partition_id = $1"


async def take_published(tx: Tx, place: Behind) -> Sequence[Happened]:
    """What was published there, which counts as told of with the commit."""
    rows = await tx.fetch(ENVELOPES, *place)
    await tx.execute(ADVANCE, place.partition_id, place.end)
    return [Happened(*row) for row in rows]
