"""Rescue: takes back what expired leases hold in groups that nobody reads.

Where somebody reads, the next claim finds them within a second. Without this loop the others would keep their
messages in flight for ever: uncounted, undead, and in the way of retention.
"""

from __future__ import annotations

from app import metrics
from app.broker import tally
from app.broker.wakeups import Wakeups
from app.domain.errors import Unavailable
from app.storage import rescue
from app.storage.database import Database
from app.telemetry import log


async def rescue_once(db: Database, wakeups: Wakeups, *, batch_size: int) -> bool:
    """Ends the expired leases of at most ``batch_size`` cursors. True if there may be more."""
    late = await rescue.late_cursors(db, most=batch_size)
    messages = buried = 0
    for partition_id, group_id in late:
        try:
            repaired, dead = await rescue.expire(db, partition_id, group_id)
        except Unavailable:
            raise
        except Exception:  # one cursor must not keep the others from being rescued
            log.exception("rescue_failed", partition_id=partition_id, group_id=group_id)
            metrics.loop_failed("rescue")
            continue
        if repaired:
            messages, buried = messages + repaired, buried + dead
            wakeups.freed(group_id, [partition_id])
    tally.repaired(messages, len(late), buried)
    # Nothing repaired means that somebody else was quicker, or that every one of them fails: rest either way.
    return len(late) == batch_size and messages > 0
