"""Retention: takes from topics what is too old or too many, oldest first, then the record batches from the disk."""

from __future__ import annotations

from app import failpoints, metrics
from app.broker.retain import place_of, trim
from app.domain.errors import Unavailable
from app.storage import retention
from app.storage.database import Database
from app.telemetry import log

# Record batches deleted in one transaction. It holds up the partition's groups, never its publishers, for its length.
SWEEP_BATCHES = 100


async def retain_once(db: Database, *, sweep_batches: int = SWEEP_BATCHES) -> bool:
    """Trims every topic to its limits, then deletes some of what lies below. True if more may be left to delete."""
    await trim_once(db)
    return await sweep_once(db, sweep_batches)


async def trim_once(db: Database) -> bool:
    for limits in await retention.limited_topics(db):
        try:
            await trim(db, limits)
        except Unavailable:
            raise
        except Exception:  # one topic must not keep the others from being trimmed
            log.exception("trim_failed", **place_of(limits))
            metrics.loop_failed("retention")
    return False


async def sweep_once(db: Database, sweep_batches: int) -> bool:
    """One bounded deletion in each partition that needs one: no partition's backlog holds up another's."""
    is_more = False
    for one in await retention.sweepable(db):
        swept = await retention.sweep(db, one, most=sweep_batches)
        failpoints.hit(failpoints.SWEPT)
        is_more = is_more or bool(swept)
    return is_more
