"""Purge: empties a topic at once. Offsets go on; every group's lag is 0 and its old ackIds are stale."""

from __future__ import annotations

from app import failpoints, metrics
from app.domain.partition import partition_id
from app.domain.topic import Topic
from app.storage import cursors, retention
from app.storage.database import Database, on_collision_again
from app.telemetry import log

# Record batches deleted before the answer, so that a small topic's space is free with it; retention takes the rest.
SWEPT_AT_ONCE = 1000


async def purge(db: Database, topic: Topic) -> int:
    """Removes messages, leases, deferred messages, dead letters and idempotency keys, all or nothing; returns how many
    messages. Nobody waits long: what readers see changes here, what is stored goes afterwards."""
    ids = [partition_id(topic.id, number) for number in range(topic.partitions)]

    async def attempt() -> int:
        async with db.transaction() as tx:
            removed = 0
            for place in ids:
                removed += await cursors.purge(tx, place)
                failpoints.hit(failpoints.PURGING)
            return removed

    removed = await on_collision_again(attempt)
    failpoints.hit(failpoints.PURGED)
    metrics.purge.inc()
    metrics.purged.inc(removed)
    log.info("purge", topic=topic.name, removed=removed)
    for place in ids:
        await retention.sweep(db, place, most=SWEPT_AT_ONCE)
    return removed
