"""Windows: what each stream has handed out and not seen settled. It bounds how much more the stream may take.

    settled here ──────▶ told at once ─────────────┐
    settled elsewhere ─▶ hint, or the next look ───┴▶ room for more
    not settled ───────▶ renewed every third of lockTtlMs, until ackTimeoutMs after it was handed out
    extended ──────────▶ left alone from then on: it ends when its consumer said

Storage is the truth: one statement now and then tells of every lease of every window in this process.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from app.broker.demand import Pulled
from app.broker.settle import Settlement, Settler
from app.broker.wakeups import Wakeups
from app.domain.group import Group
from app.domain.lease import AckId
from app.storage import windows
from app.storage.database import Database
from app.storage.windows import Held, Place

# Hints that come together are one look.
COALESCE_S = 0.01
# Messages remembered as returned by consumers whose connection closed.
MAX_RETURNED = 10_000
CLOSED = "every consumer that had it closed its connection without settling it"


@dataclass(eq=False, slots=True)
class Holding:
    """A lease: its deliveries by offset, the deadline it got from us (None where we do not know which), until when that
    is, and when it is renewed no longer (both by the loop's clock)."""

    ack_ids: dict[int, AckId]
    deadline: datetime | None
    until: float
    bound: float


class Window:
    """Of one stream: at most ``size`` deliveries."""

    def __init__(self, group_id: int, size: int) -> None:
        self.group_id = group_id
        self.size = size
        self.leases: dict[Place, Holding] = {}
        self._waiter: asyncio.Future[None] | None = None

    @property
    def room(self) -> int:
        return self.size - sum(len(holding.ack_ids) for holding in self.leases.values())

    def add(self, pulled: Pulled, lease_ms: int) -> None:
        by_place: dict[Place, dict[int, AckId]] = defaultdict(dict)
        for ack_id in pulled.ack_ids():
            by_place[ack_id.partition_id, self.group_id, ack_id.lease_id][ack_id.offset] = ack_id
        bound = asyncio.get_running_loop().time() + pulled.group.config.ack_timeout_ms / 1000
        ends = {
            (taken.partition_id, self.group_id, taken.claim.lease_id): (
                taken.claim.deadline,
                taken.since + lease_ms / 1000,
            )
            for taken in pulled.taken
        }
        self.leases |= {place: Holding(ack_ids, *ends[place], bound) for place, ack_ids in by_place.items()}

    def settled(self, partition_id: int, lease_id: int, offsets: Collection[int]) -> None:
        holding = self.leases.get(place := (partition_id, self.group_id, lease_id))
        if holding is None:
            return
        for offset in offsets:
            holding.ack_ids.pop(offset, None)
        if not holding.ack_ids:
            del self.leases[place]
        self.wake()

    def see(self, place: Place, parts: Iterable[Held]) -> None:
        """What storage says of a lease: nothing of one that is gone. One whose time is up is nobody's any more: there
        is room again, so that this stream, who may be all there is, claims and by that takes it back."""
        holding = self.leases.get(place)
        if holding is None:
            return
        parts = [part for part in parts if part.seconds > 0]
        gone = [
            offset
            for offset in holding.ack_ids
            if not any(low <= offset < high for part in parts for low, high in part.ranges)
        ]
        if parts:
            ours = [part.seconds for part in parts if holding.deadline in (None, part.deadline)]
            holding.until = asyncio.get_running_loop().time() + min(ours, default=math.inf)
        if gone:
            self.settled(place[0], place[2], gone)

    def ack_ids(self) -> list[AckId]:
        """Of everything that is not settled."""
        return [ack_id for holding in self.leases.values() for ack_id in holding.ack_ids.values()]

    async def news(self) -> None:
        """Until there is more room, or ``wake`` is called."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Windows:
    """Of all streams of a process. ``look`` is to be called every now and then, and soon after ``on_hint`` was."""

    def __init__(self, db: Database, wakeups: Wakeups, settler: Settler, *, lock_ttl_ms: int) -> None:
        self.lock_ttl_ms = lock_ttl_ms
        self.on_hint: Callable[[], None] = lambda: None
        self._db = db
        self._wakeups = wakeups
        self._settler = settler
        self._open: dict[Window, list[Callable[[], None]]] = {}
        self._returned: OrderedDict[tuple[int, int, int], int] = OrderedDict()

    def open(self, group: Group, size: int) -> Window:
        window = Window(group.id, size)

        def hinted(_partition_ids: Iterable[int]) -> None:
            if window.room <= 0:
                self.on_hint()

        self._open[window] = [
            self._wakeups.listen_settled(group.id, window.settled),
            self._wakeups.listen(group.topic_id, group.id, hinted),
        ]
        return window

    async def close(self, window: Window, group: Group, *, client_closed: bool) -> None:
        """Hands back what is not settled, at once and without using up an attempt.

        ``client_closed``: it was the client's doing. A message whose consumers do that again and again, maxAttempts
        times, is taken for the cause of it, and each time from then on is a failed attempt. Raises Unavailable; then
        the leases end by themselves.
        """
        for stop in self._open.pop(window):
            stop()
        ack_ids = window.ack_ids()
        worn = [ack_id for ack_id in ack_ids if self._is_worn(ack_id, group)] if client_closed else []
        if worn:
            await self._settler.settle(group, [Settlement("nack", ack_id, reason=CLOSED) for ack_id in worn])
        rest = set(ack_ids).difference(worn)
        if rest:
            await self._settler.hand_back(group.id, sorted(rest))

    def _is_worn(self, ack_id: AckId, group: Group) -> bool:
        key = (group.id, ack_id.partition_id, ack_id.offset)
        count = self._returned[key] = self._returned.get(key, 0) + 1
        self._returned.move_to_end(key)
        if len(self._returned) > MAX_RETURNED:
            self._returned.popitem(last=False)
        return count > group.config.max_attempts

    async def look(self) -> bool:
        """Sees what was settled elsewhere, and renews what would end soon."""
        holders = {place: window for window in self._open for place in window.leases}
        if not holders:
            return False
        await asyncio.sleep(COALESCE_S)
        asked = list(holders)
        parts: dict[Place, list[Held]] = {place: [] for place in asked}
        for part in await windows.held(self._db, asked):
            parts[part.place].append(part)
        for place, found in parts.items():
            holders[place].see(place, found)
        await self._renew(holders)
        return False

    async def _renew(self, holders: dict[Place, Window]) -> None:
        now = asyncio.get_running_loop().time()
        due: dict[tuple[int, int], dict[int, tuple[Holding, int]]] = defaultdict(dict)
        for place, window in holders.items():
            holding = window.leases.get(place)
            if holding is None or holding.until - now > self.lock_ttl_ms / 1000 * 2 / 3:
                continue
            if (until := min(now + self.lock_ttl_ms / 1000, holding.bound)) > holding.until + 0.01:
                due[place[0], place[1]][place[2]] = (holding, int((until - now) * 1000))
        for partition_id, group_id in sorted(due):
            by_lease = due[partition_id, group_id]
            holdings, timeouts_ms = zip(*by_lease.values(), strict=True)
            deadlines = [holding.deadline for holding in holdings]
            for holding in holdings:
                holding.deadline = None  # until the answer is there
            ends = await windows.renew(self._db, partition_id, group_id, [*by_lease], deadlines, timeouts_ms)
            for holding, deadline in zip(holdings, ends, strict=True):
                holding.deadline = deadline
