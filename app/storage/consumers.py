"""Consumers that wait for messages, as each replica reports its own. Those that hold a lease are seen there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from app.storage.database import Database

# A report that was not repeated for this long no longer counts.
SEEN_FOR = timedelta(seconds=10)

REPORT = """
    with gone as (
        delete from consumers c
        where c.replica_id = $1 and c.group_id <> all ($2) or c.seen_at < clock_timestamp() - interval '1 minute')
    insert into consumers (group_id, replica_id, owners, seen_at)
    select x.g, $1, x.owners::text[], clock_timestamp() from unnest($2::int[], $3::text[]) x (g, owners)
    on conflict (group_id, replica_id) do update set owners = excluded.owners, seen_at = excluded.seen_at
"""


async def report(db: Database, replica_id: str, owners: Mapping[int, Sequence[str]]) -> None:
    """Says who waits on this replica, by group id, in place of what it said before."""
    arrays = [_array(names) for names in owners.values()]
    await db.execute(REPORT, replica_id, [*owners], arrays)


WAITING = """
    select distinct o.owner from consumers c cross join lateral unnest(c.owners) o (owner)
    where c.group_id = $1 and c.seen_at > clock_timestamp() - $2::interval
"""


async def waiting(db: Database, group_id: int) -> set[str]:
    return {row[0] for row in await db.fetch(WAITING, group_id, SEEN_FOR)}


def _array(names: Sequence[str]) -> str:
    """A text array as Postgres writes it: several of different length do not go into one parameter otherwise."""
    return "{" + ",".join('"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names) + "}"
