"""Open streams of a namespace, as each replica reports its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from app.storage.database import Database

# A report that was not repeated for this long no longer counts.
SEEN_FOR = timedelta(seconds=10)

REPORT = """
    with gone as (
        delete from open_streams s
        where s.replica_id = $1 and s.namespace_id <> all ($2) or s.seen_at < clock_timestamp() - interval '1 minute')
    insert into open_streams (namespace_id, replica_id, count, seen_at)
    select x.n, $1, x.count, clock_timestamp() from unnest($2::int[], $3::int[]) x (n, count)
    on conflict (namespace_id, replica_id) do update set count = excluded.count, seen_at = excluded.seen_at
"""


async def report(db: Database, replica_id: str, counts: Mapping[int, int]) -> None:
    """Says how many there are on this replica, by namespace, in place of what it said before."""
    await db.execute(REPORT, replica_id, [*counts], [*counts.values()])


ADD = """
    with mine as (
        insert into open_streams (namespace_id, replica_id, count, seen_at) values ($1, $2, $3, clock_timestamp())
        on conflict (namespace_id, replica_id) do update set count = excluded.count, seen_at = excluded.seen_at)
    select coalesce(sum(s.count), 0)::bigint from open_streams s
    where s.namespace_id = $1 and s.replica_id <> $2 and s.seen_at > clock_timestamp() - $4::interval
"""


async def add(db: Database, namespace_id: int, replica_id: str, count: int) -> int:
    """Says that there are ``count`` of a namespace here; returns how many there are elsewhere."""
    elsewhere: int = await db.fetchval(ADD, namespace_id, replica_id, count, SEEN_FOR)
    return elsewhere
