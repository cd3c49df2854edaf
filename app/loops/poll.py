"""Poll: what no wake-up told of, for everybody who waits in this process; and the report of who that is.

While hints of the other replicas arrive, polling only has to see what time brings: leases that end and retries that
are due. Their moment is known at each look, and an alarm set for it; so a look now and then is enough. Without hints
it is the only way to hear of anything, and as frequent as was configured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from app.broker.pull import Puller
from app.broker.wakeups import Wakeups
from app.loops.loop import Loop
from app.storage import consumers
from app.storage.database import Database

# Redelivery is due within a second of a deadline while anyone waits.
LISTENING_INTERVAL_S = 0.4
REPORT_INTERVAL_MS = 3000


def poll_loop(puller: Puller, wakeups: Wakeups, *, interval_ms: int) -> Loop:
    """Looks every ``interval_ms``, less often while LISTEN works."""
    clock = asyncio.get_running_loop().time
    next_at = 0.0

    async def once() -> bool:
        nonlocal next_at
        if clock() >= next_at or not wakeups.listening:
            next_at = clock() + max(LISTENING_INTERVAL_S, interval_ms / 1000)
            await puller.poll_once()
        return False

    return Loop("poll", once, interval_ms=interval_ms)


def report_loop(db: Database, puller: Puller, replica_id: str) -> Loop:
    """Says who stands in line here, as long as anybody does."""
    return Loop("consumers", reporting(db, puller, replica_id), interval_ms=REPORT_INTERVAL_MS)


def reporting(db: Database, puller: Puller, replica_id: str) -> Callable[[], Awaitable[bool]]:
    had_any = False

    async def report_once() -> bool:
        nonlocal had_any
        owners = puller.owners()
        if owners or had_any:
            await consumers.report(db, replica_id, owners)
        had_any = bool(owners)
        return False

    return report_once
