"""Dead letters: deliveries that used up their attempts, each with its own copy of the message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.storage.database import Database, Record, on_collision_again


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """``meta``: the stored document beside a payload (domain/message.py)."""

    partition_id: int
    offset: int
    published_at: datetime
    key: str | None
    meta: str | None
    payload: bytes
    error: str | None
    attempts: int
    dead_at: datetime


COLUMNS = 'partition_id, "offset", published_at, key, meta, payload, error, attempts, dead_at'

# Newest first; of one moment, by place. A page goes on behind the last letter of the page before.
LIST = f"""
    select {COLUMNS} from dead_letters
    where group_id = $1 and ($2::timestamptz is null or (dead_at, partition_id, "offset") < ($2, $3, $4))
    order by dead_at desc, partition_id desc, "offset" desc
    limit $5
"""


async def list_dead_letters(
    db: Database, group_id: int, *, after: tuple[datetime, int, int] | None, limit: int
) -> list[DeadLetter]:
    """A page, newest first. ``after``: deadAt, partition id and offset of the last one of the page before."""
    return [DeadLetter(*row.values()) for row in await db.fetch(LIST, group_id, *(after or (None, None, None)), limit)]


READ = f'select {COLUMNS} from dead_letters where partition_id = $1 and group_id = $2 and "offset" = $3'


async def read_dead_letter(db: Database, partition_id: int, group_id: int, offset: int) -> DeadLetter | None:
    row: Record | None = await db.fetchrow(READ, partition_id, group_id, offset)
    return DeadLetter(*row.values()) if row is not None else None


DELETE = """
    with gone as (
        delete from dead_letters where partition_id = $1 and group_id = $2 and "offset" = $3 returning 1)
    update cursors set removed = removed + 1
    where partition_id = $1 and group_id = $2 and exists (select from gone)
"""


async def delete_dead_letter(db: Database, partition_id: int, group_id: int, offset: int) -> bool:
    """False if there was none."""
    return await on_collision_again(lambda: db.execute(DELETE, partition_id, group_id, offset)) != "UPDATE 0"


OFFSETS = """
    select partition_id, array_agg("offset") from (
        select partition_id, "offset" from dead_letters
        where group_id = $1 and dead_at <= $2
          and (published_at + make_interval(secs => (meta ->> 'ttlMs')::bigint / 1000.0) <= clock_timestamp())
              is not true
        order by dead_at, partition_id, "offset" limit $3) oldest
    group by partition_id order by partition_id
"""


async def oldest_dead_letters(
    db: Database, group_id: int, *, until: datetime, limit: int
) -> list[tuple[int, Sequence[int]]]:
    """Offsets by partition id of the oldest letters that died up to ``until`` and are not past their ttlMs."""
    return [(row[0], row[1]) for row in await db.fetch(OFFSETS, group_id, until, limit)]


REDRIVE = "select redrive($1, $2, $3)"


async def redrive(db: Database, partition_id: int, group_id: int, offsets: Sequence[int]) -> int:
    """Gives letters a full new budget; returns how many. What is past its ttlMs stays as it is."""
    redriven: int = await on_collision_again(lambda: db.fetchval(REDRIVE, partition_id, group_id, offsets))
    return redriven
