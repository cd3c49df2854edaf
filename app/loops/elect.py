"""Election: duties that one replica does for all.

Each duty is a row with a leader and a time until which it leads; the leader keeps extending it, and whoever finds it
expired takes it. The leader itself stops a little earlier than the row says, because it counts from before it asked.
Two leaders would only do the same work twice: every duty is correct whoever does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from datetime import timedelta

from app.broker.wakeups import Wakeups
from app.domain.errors import Unavailable
from app.loops.loop import Loop
from app.storage import replicas
from app.storage.database import Database
from app.storage.replicas import Replica
from app.telemetry import log

# A dead leader is replaced after at most the sum of the two, and a live one may miss a beat.
INTERVAL_MS = 2000
TTL_S = 6.0


def this_replica() -> Replica:
    """A new identity for this process."""
    return Replica(id=secrets.token_hex(8), host=socket.gethostname(), pid=os.getpid())


class Election:
    """Keeps this replica's row and the duties it leads. ``interval_ms`` and ``ttl_s`` are for tests."""

    def __init__(
        self,
        db: Database,
        wakeups: Wakeups,
        replica: Replica,
        *,
        interval_ms: int = INTERVAL_MS,
        ttl_s: float = TTL_S,
    ) -> None:
        self.replica = replica
        self._db = db
        self._wakeups = wakeups
        self._has_greeted = False
        self._ttl_s = ttl_s
        self._clock = asyncio.get_running_loop().time
        self._duties: dict[str, Loop] = {}
        self._led_until: dict[str, float] = {}
        self._loop = Loop("elect", self.elect_once, interval_ms=interval_ms)

    def elected(self, loop: Loop) -> Loop:
        """Makes ``loop`` run on the leader only; its name is the duty. Returns it."""
        self._duties[loop.name] = loop
        loop.may_run = lambda: self.leads(loop.name)
        return loop

    def leads(self, duty: str) -> bool:
        return self._clock() < self._led_until.get(duty, 0.0)

    def stop(self) -> None:
        self._loop.stop()

    async def run(self) -> None:
        try:
            await self._loop.run()
        finally:
            await self._leave()

    async def elect_once(self) -> bool:
        """Says that we live, and takes or keeps what duties can be had."""
        heard_before = self._wakeups.heard_count
        self._wakeups.counted(await replicas.beat(self._db, self.replica), heard_before)
        if not self._has_greeted:  # whoever counts from now on counts us; who has counted hears of us
            self._wakeups.greet()
            self._has_greeted = True
        asked = self._clock()
        ours = await replicas.hold(self._db, self.replica.id, [*self._duties], timedelta(seconds=self._ttl_s))
        before = {duty for duty in self._duties if self.leads(duty)}
        self._led_until = dict.fromkeys(ours, asked + self._ttl_s)
        for duty in sorted(ours - before):
            log.info("duty_taken", duty=duty, replica=self.replica.id)
            self._duties[duty].wake()
        for duty in sorted(before - ours):
            log.warning("duty_lost", duty=duty, replica=self.replica.id)
        return False

    async def _leave(self) -> None:
        self._led_until.clear()
        with contextlib.suppress(Unavailable):  # then the others find out by themselves
            await replicas.leave(self._db, self.replica.id)
