"""Hand: what a dispatcher holds, and its leases, which must outlive the requests.

They are renewed long before they end. One that could not be renewed in time counts as lost a little before it is: its
request is cut short, so that no two replicas have messages of one key on the way.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from app.domain.errors import Unavailable
from app.loops.push.leased import Leased
from app.storage import leases
from app.storage.database import Database
from app.telemetry import log

# Parts of a lease's time: how often it is looked at, from which age it is renewed, and when it counts as lost.
LOOK = 1 / 12
RENEW = 1 / 4
LOST = 3 / 4
# A message that waited longer than this is only sent once its lease was seen to live: a seek or a purge ends it.
SURE_S = 1.0


class Hand:
    """Of one dispatcher. ``freed`` is set whenever there is room for more."""

    def __init__(self, db: Database, group_id: int, *, lease_ms: int) -> None:
        self.held: set[Leased] = set()
        self.freed = asyncio.Event()
        self._db = db
        self._group_id = group_id
        self._lease_ms = lease_ms
        self._lease_s = lease_ms / 1000
        self._clock = asyncio.get_running_loop().time

    def drop(self, leased: Leased) -> None:
        self.held.discard(leased)
        self.freed.set()

    async def keep(self) -> None:
        """Renews until it is cancelled."""
        while True:
            await asyncio.sleep(self._lease_s * LOOK)
            now = self._clock()
            due = [leased for leased in self.held if now - leased.sure_at >= self._lease_s * RENEW]
            if not due:
                continue
            try:
                await self._renew(due)
            except Unavailable:
                pass  # the next look tries again, as long as there is time
            except Exception:
                log.exception("push_leases_not_renewed", group_id=self._group_id)
            for leased in due:
                if self._clock() - leased.sure_at > self._lease_s * LOST:
                    self._lose(leased)

    async def confirm(self, unsure: Iterable[Leased]) -> None:
        """Makes sure that these are still ours; those that are not are lost. Waits for the database if it is away."""
        while True:
            now = self._clock()
            asked = [leased for leased in unsure if not leased.is_lost and now - leased.sure_at > SURE_S]
            if not asked:
                return
            try:
                await self._renew(asked)
            except Unavailable:
                await asyncio.sleep(self._lease_s * LOOK)

    async def _renew(self, asked: Iterable[Leased]) -> None:
        by_partition: dict[int, list[Leased]] = defaultdict(list)
        for leased in asked:
            by_partition[leased.ack_id.partition_id].append(leased)
        for partition_id, part in sorted(by_partition.items()):
            at = self._clock()
            found = await leases.extend(
                self._db, partition_id, self._group_id, [leased.ack_id.lease_id for leased in part],
                [leased.ack_id.offset for leased in part], [self._lease_ms] * len(part),
            )  # fmt: skip
            for position, leased in enumerate(part):
                if position in found:
                    leased.sure_at = at
                elif not leased.is_ending:
                    self._lose(leased)

    def _lose(self, leased: Leased) -> None:
        leased.lose()
        self.drop(leased)
