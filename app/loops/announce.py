"""Announce: tells hooks of what happened. Every replica does it, because each knows best of what it did itself."""

from __future__ import annotations

from functools import partial

from app.broker.announce import announce_once
from app.broker.wakeups import Wakeups
from app.loops.loop import Loop
from app.storage.database import Database

# For what no hint told of: leases that ended, and replicas that died before they were done.
INTERVAL_MS = 1000


def announce_loop(db: Database, wakeups: Wakeups) -> Loop:
    loop = Loop("announce", partial(announce_once, db, wakeups), interval_ms=INTERVAL_MS)
    wakeups.tell_hooks = loop.wake
    return loop
