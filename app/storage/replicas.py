"""Replicas: who is alive, and which of them has which duty. Every time here is the database's clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.storage.database import Database

# A replica that has not been seen for this long counts as gone; after longer its row is removed.
ALIVE_FOR = timedelta(seconds=10)
REMEMBERED_FOR = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Replica:
    """One serving process."""

    id: str
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A replica as its row has it."""

    replica: Replica
    started_at: datetime
    seen_at: datetime


BEAT = """
with forgotten as (
    delete from replicas where seen_at < clock_timestamp() - $4::interval and id <> $1),
beaten as (
    insert into replicas (id, host, pid, started_at, seen_at)
    values ($1, $2, $3, clock_timestamp(), clock_timestamp())
    on conflict (id) do update set seen_at = excluded.seen_at)
select count(*) from replicas where id <> $1 and seen_at >= clock_timestamp() - $5::interval
"""


async def beat(db: Database, replica: Replica) -> int:
    """Says that ``replica`` is alive, and forgets those that have not said so for long. Returns how many others are."""
    others: int = await db.fetchval(BEAT, replica.id, replica.host, replica.pid, REMEMBERED_FOR, ALIVE_FOR)
    return others


HOLD = """
insert into leadership as l (duty, replica_id, until)
select d.duty, $2, clock_timestamp() + $3::interval from unnest($1::text[]) d (duty) order by d.duty
on conflict (duty) do update set replica_id = excluded.replica_id, until = excluded.until
where l.replica_id = excluded.replica_id or l.until <= clock_timestamp()
returning l.duty
"""


async def hold(db: Database, replica_id: str, duties: Sequence[str], ttl: timedelta) -> set[str]:
    """Takes or keeps every duty that is free, expired or ours already; returns those that are ours for ``ttl``."""
    return {row["duty"] for row in await db.fetch(HOLD, list(duties), replica_id, ttl)}


LEAVE = """
with resigned as (delete from leadership where replica_id = $1),
    left_seats as (delete from open_streams where replica_id = $1)
delete from replicas where id = $1
"""


async def leave(db: Database, replica_id: str) -> None:
    """Gives up every duty and every stream's seat at once, instead of letting the others wait for their end."""
    await db.execute(LEAVE, replica_id)


ALIVE = """
select id, host, pid, started_at, seen_at from replicas
where seen_at >= clock_timestamp() - $1::interval order by started_at, id
"""


async def alive(db: Database) -> list[Seen]:
    rows = await db.fetch(ALIVE, ALIVE_FOR)
    return [Seen(Replica(row["id"], row["host"], row["pid"]), row["started_at"], row["seen_at"]) for row in rows]
