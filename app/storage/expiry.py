"""Removal of records that have outlived their use, in bounded batches: idempotency keys, recorded attempts, and what is
remembered of leases.

What somebody has locked is left for the next time: who waits while it holds locks of its own may be waited for.
"""

from __future__ import annotations

from datetime import timedelta

from app.storage.database import Database

# A key ends with its topic's window, or with the purge of the partition that its message is in. Each topic has an index
# range of its own; what a purge in another partition of it spared is looked at in vain until the window ends it.
EXPIRE_KEYS = """
with expired as materialized (
    select k.ctid
    from topics t
    cross join lateral (
        select clock_timestamp() - make_interval(secs => (t.config #>> '{idempotency,windowMs}')::bigint / 1000.0)
               as window_start,
               (select max(l.purged_at) from partitions l
                where l.id between t.id << 16 and (t.id << 16) + 65535) as last_purge) ended
    cross join lateral (
        select k.ctid from idempotency_keys k
        where k.partition_id >> 16 = t.id and k.published_at <= greatest(ended.window_start, ended.last_purge)
          and (k.published_at <= ended.window_start
               or k.published_at <= (select l.purged_at from partitions l where l.id = k.target_id))
        order by k.published_at limit $1 for update skip locked) k
    limit $1)
delete from idempotency_keys where ctid = any (array(select ctid from expired))
"""


async def expire_keys(db: Database, *, most: int) -> int:
    return _count(await db.execute(EXPIRE_KEYS, most))


# Here and below: clock_timestamp() may change from row to row, so that no index is asked for what is before it.
EXPIRE_ATTEMPTS = """
delete from attempts where ctid = any (array(
    select a.ctid from attempts a where a.at < statement_timestamp() - $2::interval order by a.at limit $1
    for update skip locked))
"""


async def expire_attempts(db: Database, *, kept_for: timedelta, most: int) -> int:
    return _count(await db.execute(EXPIRE_ATTEMPTS, most, kept_for))


# An index range by age; a lease that was extended to end sooner keeps its row until the time its id says.
EXPIRE_PAST_LEASES = """
delete from past_leases where ctid = any (array(
    select x.ctid from past_leases x
    where x.until < statement_timestamp() and x.id >> 20 < extract(epoch from statement_timestamp()) * 1000
    order by x.until limit $1 for update skip locked))
"""


async def expire_past_leases(db: Database, *, most: int) -> int:
    return _count(await db.execute(EXPIRE_PAST_LEASES, most))


def _count(command_tag: str) -> int:
    """``DELETE 17`` → 17."""
    return int(command_tag.rpartition(" ")[2])
