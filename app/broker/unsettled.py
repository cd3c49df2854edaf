"""Unsettled messages of a namespace: how many more may be leased, without asking the database at each pull.

What was counted, what this process has leased since, and what its pulls under way may lease make an estimate; only
where that leaves too little for a pull is it counted anew before the pull goes on. A process never passes the limit by
itself. What others lease is known as of the last count: FAR_S ago, NEAR_S from half the limit on. By what they lease in
that time it can be passed; nothing is locked for it, so that groups of a namespace never wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from app.domain.group import Group
from app.storage import unsettled
from app.storage.database import Database
from app.telemetry import log

SETTING = "LOGPOST_MAX_UNSETTLED"
FAR_S = 2.0
NEAR_S = 0.25
COUNT_INTERVAL_MS = 250
# Nobody has pulled for a while, and so nobody has counted.
STALE_S = 2 * FAR_S
# How often the log is told that a namespace is at its limit.
TELL_S = 60.0
MAX_NAMESPACES = 10_000


@dataclass(eq=False, slots=True)
class Tally:
    """Of one namespace. ``leased``: by this process since it was counted; ``reserved``: for its pulls under way."""

    counted: int = 0
    counted_at: float = float("-inf")
    leased: int = 0
    reserved: int = 0
    is_used: bool = False
    told_at: float = float("-inf")
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    freed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False, slots=True)
class Room:
    """What one pull may lease. ``end`` says how much it did."""

    tally: Tally
    messages: int

    def end(self, leased: int) -> None:
        self.tally.reserved -= self.messages
        self.tally.leased += leased
        self.tally.freed.set()


class Unsettled:
    """One per process. ``most`` per namespace; a hook's log belongs to nobody's."""

    def __init__(self, db: Database, most: int) -> None:
        self._db = db
        self._most = most
        self._tallies: dict[int, Tally] = {}

    @property
    def limit(self) -> str:
        """In words, for whoever finds no room."""
        return f"At most {self._most} messages of a namespace may be unsettled at a time ({SETTING})."

    async def reserve(self, namespace_id: int, group: Group, wanted: int, until: float) -> Room:
        """Room for ``wanted`` or fewer messages, or none; ``end`` it. Raises DatabaseUnavailable.

        ``until``, by the loop's clock: how long to wait where others may be about to give some back.
        """
        if group.is_hook:
            return Room(Tally(), wanted)
        tally = self._tallies.get(namespace_id) or self._open(namespace_id)
        tally.is_used = True
        age = asyncio.get_running_loop().time() - tally.counted_at
        if self._left(tally) - tally.reserved < wanted or age >= STALE_S:
            await self._count(namespace_id, tally)
        if 0 < self._left(tally) <= tally.reserved:
            await self._see_what_is_left(tally, until)
        room = Room(tally, max(min(wanted, self._left(tally) - tally.reserved), 0))
        tally.reserved += room.messages
        if not room.messages:
            self._tell(namespace_id, tally)
        return room

    async def count_once(self) -> bool:
        """Counts where it is time to, so that pulls need not. False: there is never more to do at once."""
        now = asyncio.get_running_loop().time()
        for namespace_id, tally in [*self._tallies.items()]:
            interval_s = NEAR_S if self._left(tally) * 2 <= self._most else FAR_S
            if tally.is_used and now - tally.counted_at >= interval_s:
                tally.is_used = False
                await self._count(namespace_id, tally)
        return False

    def _left(self, tally: Tally) -> int:
        return self._most - tally.counted - tally.leased

    async def _see_what_is_left(self, tally: Tally, until: float) -> None:
        """All of it is reserved, by pulls that may take less."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while 0 < self._left(tally) <= tally.reserved:
                    tally.freed.clear()
                    await tally.freed.wait()

    def _open(self, namespace_id: int) -> Tally:
        if len(self._tallies) >= MAX_NAMESPACES:
            self._tallies.pop(next(iter(self._tallies)))
        tally = self._tallies[namespace_id] = Tally()
        return tally

    async def _count(self, namespace_id: int, tally: Tally) -> None:
        """One at a time; a count that began after it was asked for is everybody's."""
        clock = asyncio.get_running_loop().time
        asked = clock()
        async with tally.turn:
            if tally.counted_at >= asked:
                return
            began, before = clock(), tally.leased
            tally.counted = await unsettled.count(self._db, namespace_id)
            tally.counted_at = began
            tally.leased -= before

    def _tell(self, namespace_id: int, tally: Tally) -> None:
        now = asyncio.get_running_loop().time()
        if now - tally.told_at >= TELL_S:
            tally.told_at = now
            log.warning("unsettled_limit", namespace=namespace_id, most=self._most, setting=SETTING)
