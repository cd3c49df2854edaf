"""Which server a session is with, and on which of its histories: the system identifier, and the timeline.

A failover begins a new timeline, and what the old primary had acknowledged after the new one stopped following it is
not there. So everything that remembers a place in the log remembers the timeline with it, and a session is refused
that is with a standby, or with an older history than this process has seen: a primary that came back, and would accept
what nobody will ever find. https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from app.domain.errors import DatabaseUnavailable
from app.telemetry import log

if TYPE_CHECKING:
    from app.storage.database import Tx

TIMELINE = "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint"


class History(NamedTuple):
    """``system``: what tells one database server, with its copies, from all others."""

    system: int
    timeline: int


LOOK = f"""
    select pg_is_in_recovery(), s.system_identifier, case when pg_is_in_recovery() then 0 else {TIMELINE} end
    from pg_control_system() s
"""


class Lineage:
    """What one process knows of its database. ``on_change`` are called when it has become another one."""

    def __init__(self) -> None:
        self.known: History | None = None
        self.on_change: list[Callable[[], None]] = []

    @property
    def timeline(self) -> int:
        """0 before the first session."""
        return self.known.timeline if self.known else 0

    async def admit(self, tx: Tx) -> None:
        """Takes note of a new session's history. Raises DatabaseUnavailable for one that must not be used."""
        row = await tx.fetchrow(LOOK)
        assert row is not None
        is_standby, found = row[0], History(row[1], row[2])
        if is_standby:
            raise DatabaseUnavailable("The database is a standby at the moment.")
        known = self.known
        if found == known:
            return
        if known is not None and found.system == known.system and found.timeline < known.timeline:
            raise DatabaseUnavailable("The database is one that another has taken over from.")
        self.known = found
        if known is not None:
            log.warning(
                "log_epoch_changed", before=known.timeline, now=found.timeline, same=found.system == known.system
            )
            for tell in self.on_change:
                tell()
