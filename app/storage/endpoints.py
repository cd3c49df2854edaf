"""Endpoints: how the receivers of push groups fare, as all replicas know it. Those that fare well have no row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from app.domain.breaker import decode, encode
from app.domain.endpoint import Endpoint
from app.domain.rate import Bucket
from app.storage.database import Database, Record, Tx, on_collision_again


class Seen(NamedTuple):
    """An endpoint, and the database's time when it was read, in milliseconds since 1970."""

    endpoint: Endpoint
    now: int


COLUMNS = """
    (extract(epoch from clock_timestamp()) * 1000)::bigint as now, e.breaker, e.reason, e.tokens, e.tokens_at,
    coalesce((extract(epoch from e.throttled_until) * 1000)::bigint, 0) as throttled_until,
    coalesce((extract(epoch from e.since) * 1000)::bigint, 0) as since"""


def _seen(row: Record | None) -> Seen:
    assert row is not None, "a row is made, or stands for none"
    tokens, at = row["tokens"], row["tokens_at"]
    bucket = None if tokens is None else Bucket(tokens, at)
    endpoint = Endpoint(decode(row["breaker"]), row["throttled_until"], row["since"], row["reason"], bucket)
    return Seen(endpoint, row["now"])


READ = f"select {COLUMNS} from (select $1::int as id) g left join endpoints e on e.group_id = g.id"


async def read(db: Database, group_id: int) -> Seen:
    return _seen(await db.fetchrow(READ, group_id))


LOCK = f"select {COLUMNS} from endpoints e where e.group_id = $1 for no key update"
CREATE = "insert into endpoints (group_id) select id from groups where id = $1 on conflict do nothing"
WRITE = """
    update endpoints
    set breaker = $2::jsonb, throttled_until = to_timestamp(nullif($3::bigint, 0) / 1000.0),
        since = to_timestamp(nullif($4::bigint, 0) / 1000.0), reason = $5, tokens = $6, tokens_at = $7
    where group_id = $1
"""

Change = Callable[[Endpoint, int], Endpoint]


async def change(db: Database, group_id: int, changed: Change) -> Seen:
    """What ``changed(endpoint, now)`` makes of it, stored unless that is what is stored. Nobody else changes it
    meanwhile. ``changed`` may be called again, and the last call counts."""

    async def attempt() -> Seen:
        async with db.transaction() as tx:
            row = await tx.fetchrow(LOCK, group_id)
            if row is None:
                await tx.execute(CREATE, group_id)
                row = await tx.fetchrow(LOCK, group_id)
            if row is None:  # the group is gone
                return Seen(changed(Endpoint(), 0), 0)
            before, now = _seen(row)
            after = changed(before, now)
            if after != before:
                await _write(tx, group_id, after)
            return Seen(after, now)

    return await on_collision_again(attempt)


async def _write(tx: Tx, group_id: int, endpoint: Endpoint) -> None:
    tokens, at = endpoint.bucket or (None, None)
    await tx.execute(
        WRITE, group_id, encode(endpoint.breaker), endpoint.throttled_until, endpoint.since, endpoint.reason, tokens, at
    )


FORGET = "delete from endpoints where group_id = any ($1::int[])"


async def forget(tx: Tx, group_ids: Sequence[int]) -> None:
    """Starts anew: the endpoint is another one, or somebody says that it works again."""
    await tx.execute(FORGET, group_ids)


@dataclass(frozen=True, slots=True)
class Pushed:
    """A push group by its names."""

    group_id: int
    namespace_id: int
    topic: str
    name: str


PUSHED = """
    select g.id, t.namespace_id, t.name, g.name from groups g join topics t on t.id = g.topic_id
    where g.config #>> '{delivery,mode}' = 'push'
"""


async def pushed(db: Database) -> list[Pushed]:
    """Every push group of the database, in whatever namespace."""
    return [Pushed(*row.values()) for row in await db.fetch(PUSHED)]
