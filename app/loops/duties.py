"""Everything that goes on in the background of one replica, started in one place.

               ┌ listen, notify   hints between replicas              every replica
foundations ───┤
               └ elect            heartbeat, who leads what           every replica
               ┌ trim             what topics no longer keep, hidden  the leader
               │ retention        and deleted                         the leader
duties ────────┤ expiry           idempotency keys, attempts          the leader
               │ rescue           expired leases nobody reads past    the leader
               │ deletion         what deleted topics left behind     the leader
               └ reseal           secrets under the newest key        the leader
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from app.broker.wakeups import Wakeups
from app.loops.elect import Election
from app.loops.expiry import expire_once
from app.loops.listen import Listener, Notifier
from app.loops.loop import Loop
from app.loops.rescue import rescue_once
from app.loops.retention import retain_once, trim_once
from app.loops.supervisor import Supervisor
from app.storage import deletions
from app.storage.database import Database
from app.storage.replicas import Replica
from app.storage.reseal import reseal_once

DELETION_INTERVAL_MS = 10_000
# Keys change with a start, and whoever leads then looks at once: the rest is for what a replica with older keys wrote.
RESEAL_INTERVAL_MS = 60_000
# Hiding costs a statement for each topic with limits, deleting costs I/O: readers need not wait for the latter.
TRIM_INTERVAL_MS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often and how much; the settings of the same names. An interval of 0 is off."""

    retention_interval_ms: int
    attempt_retention_ms: int
    reconciliation_interval_ms: int
    reconciliation_batch_size: int


def start_duties(supervisor: Supervisor, db: Database, wakeups: Wakeups, replica: Replica, pace: Pace) -> Election:
    """Starts all of the above. Returns the election, for duties of others: ``election.elected(loop)``."""
    listener = Listener(db, wakeups, replica.id)
    notifier = Notifier(db, wakeups, replica.id)
    election = Election(db, wakeups, replica)
    loops = [
        Loop("trim", partial(trim_once, db), interval_ms=min(pace.retention_interval_ms, TRIM_INTERVAL_MS)),
        Loop("retention", partial(retain_once, db), interval_ms=pace.retention_interval_ms),
        Loop(
            "expiry",
            partial(expire_once, db, attempt_retention_ms=pace.attempt_retention_ms),
            interval_ms=pace.retention_interval_ms,
        ),
        Loop(
            "rescue",
            partial(rescue_once, db, wakeups, batch_size=pace.reconciliation_batch_size),
            interval_ms=pace.reconciliation_interval_ms,
        ),
        Loop("deletion", partial(deletions.remove_piece, db), interval_ms=DELETION_INTERVAL_MS),
        Loop("reseal", partial(reseal_once, db), interval_ms=RESEAL_INTERVAL_MS),
    ]
    supervisor.start("listen", listener.run, stop=listener.stop, foundation=True)
    supervisor.start("notify", notifier.run, stop=notifier.stop, foundation=True)
    for loop in loops:
        supervisor.start_loop(election.elected(loop))
    supervisor.start("elect", election.run, stop=election.stop, foundation=True)
    return election
