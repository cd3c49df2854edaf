"""Deliveries as one can look at them: what is in flight or deferred, and what is known of past attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from app.storage.database import Database

State = Literal["leased", "retrying", "held", "delayed"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message of a group that is not settled and no longer ahead. ``stamp_at``: its publishedAt, None if gone."""

    partition_id: int
    offset: int
    key: str | None
    state: State
    attempt: int
    due_at: datetime | None
    lease_expires_at: datetime | None
    consumer: str | None
    error: str | None
    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A recorded attempt. ``outcome``: nacked, timeout, discarded, acked, …"""

    group: str
    attempt: int
    at: datetime
    latency_ms: int | None
    status: int | None
    error_class: str | None
    error: str | None
    excerpt: str | None
    outcome: str


# One page of one partition after an offset; leased messages come from the leases, whose rows may be older than what
# is deferred in them, so a deferred message in a lease counts as leased.
DELIVERIES = """
    select $1::bigint, x.o, coalesce(x.key, e.key), x.state, x.attempt, x.due_at, x.ends, x.owner, x.error,
           coalesce(x.published_at, e.published_at)
    from (
        select f.o, d.key, 'leased' as state, coalesce(d.attempt, 0) + 1 as attempt, null::timestamptz as due_at,
               l.deadline as ends, l.owner, d.error, d.published_at
        from leases l
        cross join lateral unnest(l.pending) r (r)
        cross join lateral generate_series(lower(r.r), upper(r.r) - 1) f (o)
        left join deferred d on d.partition_id = $1 and d.group_id = $2 and d."offset" = f.o
        where l.partition_id = $1 and l.group_id = $2 and 'leased' = any ($5)
        union all
        select d."offset", d.key, d.state, d.attempt + case when d.state = 'retrying' then 0 else 1 end,
               nullif(d.due_at, '-infinity'), null, null, d.error, d.published_at
        from deferred d
        where d.partition_id = $1 and d.group_id = $2 and d.lease_id is null and d.state = any ($5)) x
    left join envelopes_at($1, array[x.o]) e on true
    where x.o > $3
    order by x.o
    limit $4
"""


async def deliveries(
    db: Database, partition_id: int, group_id: int, *, after: int, limit: int, states: Sequence[State]
) -> list[Delivery]:
    """Of one partition, by offset, from the one behind ``after``."""
    rows = await db.fetch(DELIVERIES, partition_id, group_id, after, limit, states)
    return [Delivery(*row.values()) for row in rows]


DELIVERIES_OF = """
    select g.id, g.name, d.*
    from groups g
    cross join lateral (
        select coalesce(x.key, e.key) as key, x.state, x.attempt, x.due_at, x.ends, x.owner, x.error,
               coalesce(x.published_at, e.published_at) as published_at
        from (
            select d.key, 'leased' as state, coalesce(d.attempt, 0) + 1 as attempt, null::timestamptz as due_at,
                   l.deadline as ends, l.owner, d.error, d.published_at
            from leases l
            left join deferred d on d.partition_id = $2 and d.group_id = g.id and d."offset" = $3
            where l.partition_id = $2 and l.group_id = g.id and l.pending @> $3
            union all
            select d.key, d.state, d.attempt + case when d.state = 'retrying' then 0 else 1 end,
                   nullif(d.due_at, '-infinity'), null, null, d.error, d.published_at
            from deferred d
            where d.partition_id = $2 and d.group_id = g.id and d."offset" = $3 and d.lease_id is null) x
        left join envelopes_at($2, array[$3]) e on true) d
    where g.topic_id = $1
    order by g.name
"""


async def deliveries_of(db: Database, topic_id: int, partition_id: int, offset: int) -> list[tuple[str, Delivery]]:
    """Where a message is in each group of its topic that has it in flight or deferred, by the group's name."""
    rows = await db.fetch(DELIVERIES_OF, topic_id, partition_id, offset)
    return [(row["name"], Delivery(partition_id, offset, *list(row.values())[2:])) for row in rows]


ATTEMPTS_OF = """
    select g.name, a.attempt, a.at, a.latency_ms, a.status, a.error_class, a.error, a.excerpt, a.outcome
    from attempts a join groups g on g.id = a.group_id and g.topic_id = $1
    where a.partition_id = $2 and a."offset" = $3
    order by a.at, g.name, a.attempt
    limit $4
"""


async def attempts_of(db: Database, topic_id: int, partition_id: int, offset: int, *, limit: int) -> list[Attempt]:
    """What is recorded of a message's attempts in every group, in the order of time."""
    return [Attempt(*row.values()) for row in await db.fetch(ATTEMPTS_OF, topic_id, partition_id, offset, limit)]
