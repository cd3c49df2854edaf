"""Expired leases that no claim has come across."""

from __future__ import annotations

from app.storage.database import Database, on_collision_again

# Live leases are few, so that no index has to be kept for this.
LATE = """
select l.partition_id, l.group_id from leases l
where l.deadline <= clock_timestamp()
group by l.partition_id, l.group_id
order by min(l.deadline)
limit $1
"""


async def late_cursors(db: Database, *, most: int) -> list[tuple[int, int]]:
    """(partition id, group id) of cursors with leases past their deadline, the longest overdue first."""
    return [(row["partition_id"], row["group_id"]) for row in await db.fetch(LATE, most)]


EXPIRE = "select n, n_dead from expire_leases($1, $2)"


async def expire(db: Database, partition_id: int, group_id: int) -> tuple[int, int]:
    """Fails what leases past their deadline still hold there; returns how many deliveries that were, and how many of
    them are dead now."""
    row = await on_collision_again(lambda: db.fetchrow(EXPIRE, partition_id, group_id))
    assert row is not None
    return row["n"], row["n_dead"]
