"""Leases: what a group could claim, and settling what it has claimed, one partition and one function at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from app.storage.database import Database, Record, Tx, on_collision_again


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a stale look at a cursor says: ``claimable`` now, or perhaps in ``due_in`` seconds without any wake-up."""

    group_id: int
    partition_id: int
    next_offset: int
    claimable: bool
    deferred: bool
    leased: bool
    paused: bool
    due_in: float | None


SURVEY = """
    select c.group_id, c.partition_id, greatest(c.next_offset, p.first_offset) as next_offset, c.paused,
           coalesce(head.next > greatest(c.next_offset, p.first_offset), false) as ahead,
           exists (select from deferred d
                   where d.partition_id = c.partition_id and d.group_id = c.group_id and d.lease_id is null
                     and d.state <> 'delayed') as waiting,
           due.at is not null as scheduled, ends.at is not null as leased,
           extract(epoch from least(due.at, expiry.at, ends.at) - clock_timestamp())::float8 as due_in
    from cursors c
    join partitions p on p.id = c.partition_id
    left join lateral (
        select b.base_offset + b.count as next from batches b
        where b.partition_id = c.partition_id order by b.base_offset desc limit 1) head on true
    left join lateral (
        select d.due_at as at from deferred d
        where d.partition_id = c.partition_id and d.group_id = c.group_id and d.lease_id is null and d.state <> 'held'
        order by d.due_at limit 1) due on true
    left join lateral (
        select d.expires_at as at from deferred d
        where d.partition_id = c.partition_id and d.group_id = c.group_id and d.lease_id is null
          and d.expires_at is not null
        order by d.expires_at limit 1) expiry on true
    left join lateral (
        select min(l.deadline) as at from leases l
        where l.partition_id = c.partition_id and l.group_id = c.group_id) ends on true
    where c.group_id = any ($1)
    order by c.served_at, c.partition_id
"""


async def survey(db: Database, group_ids: Sequence[int]) -> list[Prospect]:
    """The cursors of these groups, least recently served first. May be stale; the claim looks again."""
    prospects = []
    for row in await db.fetch(SURVEY, group_ids):
        due_in: float | None = row["due_in"]
        is_due = due_in is not None and due_in <= 0
        prospects.append(
            Prospect(
                group_id=row["group_id"], partition_id=row["partition_id"], next_offset=row["next_offset"],
                claimable=(row["ahead"] or row["waiting"] or is_due) and not row["paused"],
                deferred=row["waiting"] or row["scheduled"], leased=row["leased"], paused=row["paused"],
                due_in=None if is_due or row["paused"] else due_in,
            )
        )  # fmt: skip
    return prospects


@dataclass(frozen=True, slots=True)
class Acked:
    """What an ack settled of one lease, as pairs of the first offset and the one after the last."""

    lease_id: int
    ranges: Sequence[tuple[int, int]]
    freed: bool


ACK = "select $1::bigint, $2::int, * from ack($1, $2, $3, $4)"


async def ack(
    tx: Tx, leases: Iterable[tuple[int, int, Sequence[int], Sequence[str]]]
) -> dict[tuple[int, int], list[Acked]]:
    """Settles, in one round trip and one commit, parts of leases: (partition id, group id, lease ids, multiranges).

    Partitions and groups in ascending order, each at most once. Returns what was settled by (partition id, group id).
    """
    rows: list[Record] = await tx.fetchmany(ACK, leases)
    acked: dict[tuple[int, int], list[Acked]] = {}
    for partition_id, group_id, lease_id, settled, freed in rows:
        ranges = [(part.lower, part.upper) for part in settled]
        acked.setdefault((partition_id, group_id), []).append(Acked(lease_id, ranges, freed))
    return acked


async def _positions(db: Database, statement: str, *arguments: Any) -> set[int]:
    """Positions in the arguments' arrays, from 0, of what the function found in flight."""
    positions = await on_collision_again(lambda: db.fetchval(statement, *arguments))
    return {position - 1 for position in positions}


NACK = "select held, n_dead from nack($1, $2, $3, $4, $5, $6, $7, $8)"


async def nack(
    db: Database,
    partition_id: int,
    group_id: int,
    lease_ids: Sequence[int],
    offsets: Sequence[int],
    *,
    delays_ms: Sequence[int | None],
    reasons: Sequence[str | None],
    outcome: str = "nacked",
    details: Sequence[str | None] | None = None,
) -> tuple[set[int], int]:
    """Gives deliveries up as failed; a delay of None is the backoff's. ``details``: JSON objects, see
    functions/record_attempts.sql. Returns the positions of what was in flight, and how many of it are dead now."""
    details = details or [None] * len(offsets)
    row = await on_collision_again(
        lambda: db.fetchrow(NACK, partition_id, group_id, lease_ids, offsets, delays_ms, reasons, outcome, details)
    )
    assert row is not None
    return {position - 1 for position in row["held"]}, row["n_dead"]


DISCARD = "select discard($1, $2, $3, $4, $5, $6)"


async def discard(
    db: Database,
    partition_id: int,
    group_id: int,
    lease_ids: Sequence[int],
    offsets: Sequence[int],
    *,
    reasons: Sequence[str | None],
    details: Sequence[str | None] | None = None,
) -> set[int]:
    """Ends deliveries for good, without retry and without dead letter."""
    details = details or [None] * len(offsets)
    return await _positions(db, DISCARD, partition_id, group_id, lease_ids, offsets, reasons, details)


EXTEND = "select extend($1, $2, $3, $4, $5)"


async def extend(
    db: Database,
    partition_id: int,
    group_id: int,
    lease_ids: Sequence[int],
    offsets: Sequence[int],
    timeouts_ms: Sequence[int],
) -> set[int]:
    """Moves the deadlines to so many milliseconds from now."""
    return await _positions(db, EXTEND, partition_id, group_id, lease_ids, offsets, timeouts_ms)


HAND_BACK = "select hand_back($1, $2, $3, $4)"


async def hand_back(
    db: Database, partition_id: int, group_id: int, lease_ids: Sequence[int], offsets: Sequence[int]
) -> set[int]:
    """Returns deliveries for immediate redelivery, without using up an attempt."""
    return await _positions(db, HAND_BACK, partition_id, group_id, lease_ids, offsets)


REPEATED = "select repeated($1, $2, $3, $4, $5, $6)"


async def repeated(
    db: Database,
    partition_id: int,
    group_id: int,
    epochs: Sequence[int],
    lease_ids: Sequence[int],
    offsets: Sequence[int],
    discards: Sequence[bool],
) -> set[int]:
    """Of settles that found nothing in flight, those that repeat one that was carried out."""
    return await _positions(db, REPEATED, partition_id, group_id, epochs, lease_ids, offsets, discards)
