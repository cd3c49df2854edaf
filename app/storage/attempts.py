"""Deliveries as one can look at them: what is in flight or deferred, and what is known of past attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from app.domain.lease import AckId
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
    with x as materialized (
        select f.o, d.key, 'leased' as state, coalesce(d.attempt, 0) + 1 as attempt, null::timestamptz as due_at,
               l.deadline as ends, l.owner, d.error, d.published_at
        from leases l
        cross join lateral unnest(l.pending) r (r)
        cross join lateral generate_series(greatest(lower(r.r), $3 + 1), upper(r.r) - 1) f (o)
        left join deferred d on d.partition_id = $1 and d.group_id = $2 and d."offset" = f.o
        where l.partition_id = $1 and l.group_id = $2 and 'leased' = any ($5)
        union all
        select d."offset", d.key, d.state, d.attempt + case when d.state = 'retrying' then 0 else 1 end,
               nullif(d.due_at, '-infinity'), null, null, d.error, d.published_at
        from deferred d
        where d.partition_id = $1 and d.group_id = $2 and d."offset" > $3 and d.lease_id is null
          and d.state = any ($5)
        order by 1 limit $4)
    select $1::bigint, x.o, coalesce(x.key, e.key), x.state, x.attempt, x.due_at, x.ends, x.owner, x.error,
           coalesce(x.published_at, e.published_at)
    from x left join envelopes_at($1, array(select o from x)) e on e."offset" = x.o
    order by x.o
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


IS_PENDING = """
    select exists (
        select from leases l
        where l.partition_id = $1 and l.group_id = $2 and l.id = $3 and l.pending @> $4::bigint
          and l.deadline > clock_timestamp())
"""


async def is_pending(db: Database, group_id: int, ack_id: AckId) -> bool:
    """Whether a delivery is still in flight under its lease."""
    found: bool = await db.fetchval(IS_PENDING, ack_id.partition_id, group_id, ack_id.lease_id, ack_id.offset)
    return found


@dataclass(frozen=True, slots=True)
class Success:
    """A push that was acked, ``age_s`` seconds ago."""

    partition_id: int
    offset: int
    attempt: int
    age_s: float
    latency_ms: int
    status: int | None
    excerpt: str | None


RECORD_SUCCESSES = """
    with recorded as (
        insert into attempts (partition_id, "offset", group_id, attempt, at, outcome, latency_ms, status, excerpt)
        select x.p, x.o, $1, x.n, clock_timestamp() - make_interval(secs => x.age), 'acked', x.latency, x.status,
               x.excerpt
        from unnest($2::bigint[], $3::bigint[], $4::int[], $5::float8[], $6::int[], $7::int[], $8::text[])
             x (p, o, n, age, latency, status, excerpt))
    delete from attempts where ctid = any (array(
        select a.ctid from attempts a where a.group_id = $1 and a.outcome = 'acked'
        order by a.at desc offset greatest($9::int - cardinality($2::bigint[]), 0)))
"""


async def record_successes(db: Database, group_id: int, successes: Sequence[Success], *, kept: int) -> None:
    """Keeps these as the group's last, and of those before only so many that ``kept`` remain."""
    await db.execute(
        RECORD_SUCCESSES, group_id, [s.partition_id for s in successes], [s.offset for s in successes],
        [s.attempt for s in successes], [s.age_s for s in successes], [s.latency_ms for s in successes],
        [s.status for s in successes], [s.excerpt for s in successes], kept,
    )  # fmt: skip
