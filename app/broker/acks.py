"""Acks of a whole process, in as few commits as there can be.

Whoever comes first carries out what waits, in one round trip and one commit; whoever comes meanwhile waits, and the
first of them carries out all of those. So an idle server answers at once, and a busy one pays for a commit once for
many requests.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from app import failpoints
from app.broker import tally
from app.broker.wakeups import Wakeups
from app.domain.errors import DatabaseUnavailable, Unavailable
from app.domain.lease import multirange
from app.storage import leases
from app.storage.database import Database, on_collision_again

Place = tuple[int, int]  # partition id, group id
Asked = dict[Place, dict[int, list[int]]]  # offsets by place and lease id
Settled = dict[Place, dict[int, set[int]]]


@dataclass(eq=False, slots=True)
class Waiting:
    """One request's acks. ``turn`` becomes True when it is to carry out what waits, False when that has been done.

    ``is_eager``: settling the last message of a lease frees the partition for other consumers. ``is_counted``: not a
    hook's.
    """

    asked: Asked
    is_eager: bool
    is_counted: bool
    turn: asyncio.Future[bool]
    settled: Settled = field(default_factory=dict)


class Acks:
    """One for a process. Only touched on its event loop."""

    def __init__(self, db: Database, wakeups: Wakeups) -> None:
        self._db = db
        self._wakeups = wakeups
        self._queue: list[Waiting] = []
        self._is_led = False

    async def settle(self, asked: Asked, *, is_eager: bool, is_counted: bool = True) -> Settled:
        """Returns what was in flight and is now settled, after the commit. Raises DatabaseUnavailable."""
        waiting = Waiting(asked, is_eager, is_counted, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._is_led and not await self._turn_of(waiting):
            return waiting.settled
        self._is_led = True
        await self._lead(waiting)
        return waiting.settled

    async def _turn_of(self, waiting: Waiting) -> bool:
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if waiting in self._queue:
                self._queue.remove(waiting)
            if waiting.turn.done() and not waiting.turn.cancelled() and waiting.turn.result():
                self._pass_on()
            raise

    async def _lead(self, leader: Waiting) -> None:
        batch, self._queue = self._queue, []
        followers = [waiting for waiting in batch if waiting is not leader]
        try:
            try:
                await self._carry_out(batch)
            except Unavailable:
                raise
            except Exception:
                if not followers:
                    raise
                # One of them is to blame; the others must not suffer for it.
                await self._one_by_one(followers)
                await self._carry_out([leader])
        except BaseException as error:
            told = error if isinstance(error, Exception) else DatabaseUnavailable("The outcome is unknown; ack again.")
            for waiting in followers:
                if not waiting.turn.done():
                    waiting.turn.set_exception(told)
            raise
        else:
            for waiting in followers:
                if not waiting.turn.done():
                    waiting.turn.set_result(False)
        finally:
            self._pass_on()

    async def _one_by_one(self, followers: Iterable[Waiting]) -> None:
        for waiting in followers:
            try:
                await self._carry_out([waiting])
            except Exception as error:  # noqa: BLE001 - it is told to whom it belongs
                if not waiting.turn.done():
                    waiting.turn.set_exception(error)
            else:
                if not waiting.turn.done():
                    waiting.turn.set_result(False)

    def _pass_on(self) -> None:
        for waiting in self._queue:
            if not waiting.turn.done():
                waiting.turn.set_result(True)
                return
        self._is_led = False

    async def _carry_out(self, batch: Sequence[Waiting]) -> None:
        merged: dict[Place, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        for waiting in batch:
            for place, by_lease in waiting.asked.items():
                for lease_id, offsets in by_lease.items():
                    merged[place][lease_id].update(offsets)
        calls = [
            (partition_id, group_id, [*by_lease], [multirange(offsets) for offsets in by_lease.values()])
            for (partition_id, group_id), by_lease in sorted(merged.items())
        ]
        failpoints.hit(failpoints.ACKING)
        acked = await on_collision_again(lambda: self._send(calls))
        failpoints.hit(failpoints.ACKED)
        settled: Settled = defaultdict(lambda: defaultdict(set))
        for place, parts in acked.items():
            for part in parts:  # several of one lease where parts of it were extended
                settled[place][part.lease_id].update(_offsets(part.ranges))
        counted = {place for waiting in batch if waiting.is_counted for place in waiting.asked}
        tally.acked(sum(len(ended) for place in counted & settled.keys() for ended in settled[place].values()))
        for (partition_id, group_id), done in settled.items():
            for lease_id, ended in done.items():
                self._wakeups.settled(group_id, partition_id, lease_id, ended)
        eager = {place for waiting in batch if waiting.is_eager for place in waiting.asked}
        for place, parts in acked.items():
            if place in eager or any(part.freed for part in parts):
                partition_id, group_id = place
                self._wakeups.freed(group_id, (partition_id,))
        for waiting in batch:
            waiting.settled = settled

    async def _send(
        self, calls: Iterable[tuple[int, int, Sequence[int], Sequence[str]]]
    ) -> dict[Place, list[leases.Acked]]:
        async with self._db.connection() as connection:
            return await leases.ack(connection, calls)


def _offsets(ranges: Iterable[tuple[int, int]]) -> set[int]:
    return set().union(*(range(low, high) for low, high in ranges))
