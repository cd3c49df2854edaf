"""Namespaces: a row for each (project, environment) pair, made when it is first heard of and never removed."""

from __future__ import annotations

from app.domain.names import Namespace
from app.storage.database import Database, Tx

READ = "select id from namespaces where project = $1 and environment = $2"
CREATE = "insert into namespaces (project, environment) values ($1, $2) on conflict do nothing"


async def namespace_of(db: Database, project: str, environment: str) -> Namespace:
    """The namespace of that name, which exists from now on."""
    found = await db.fetchval(READ, project, environment)
    if found is None:
        await db.execute(CREATE, project, environment)
        found = await db.fetchval(READ, project, environment)
    return Namespace(found, project, environment)


LOCK = "select from namespaces where id = $1 for no key update"
HELD = "select count(*) as topics, coalesce(sum(partitions), 0) as partitions from topics where namespace_id = $1"


async def lock_and_count(tx: Tx, namespace_id: int) -> tuple[int, int]:
    """The namespace's topics and partitions, and nobody else adds any until this transaction ends.

    Lock a topic of it first, if you need one: whoever waits here holds no other namespace, and at most one topic.
    """
    await tx.execute(LOCK, namespace_id)
    row = await tx.fetchrow(HELD, namespace_id)
    assert row is not None
    return row["topics"], row["partitions"]
