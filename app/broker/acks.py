"""Acks of a whole process, in as few commits as there can be.

Whoever comes first carries out what waits, in one round trip and one commit; whoever comes meanwhile waits, and the
first of them carries out all of those. So an idle server answers at once, and a busy one pays for a commit once for
many requests. A commit that takes long, because somebody has locked a lease, holds up its own groups only: acks of
others go on beside it. Which of its groups it was for shows when each goes alone; that one does so for a while.
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
from app.storage.database import Database, is_of_a_lock, on_collision_again

Place = tuple[int, int]  # partition id, group id
Asked = dict[Place, dict[int, list[int]]]  # offsets by place and lease id
Settled = dict[Place, dict[int, set[int]]]

# A commit under way for longer than this is waited for by its own groups only; so many go on beside each other, but
# they leave half of the connections to others.
SLOW_S = 0.05
MAX_COMMITS = 4
# A group shares no commit for so long after a lock on its leases was in the way of one.
APART_S = 10.0


@dataclass(eq=False, slots=True)
class Commit:
    """One under way, or about to be: ``groups`` are those whose acks it carries out."""

    groups: set[int]
    is_slow: bool = False


@dataclass(eq=False, slots=True)
class Waiting:
    """One request's acks. ``turn`` becomes a commit when it is to carry out what waits, None when that has been done.

    ``is_eager``: settling the last message of a lease frees the partition for other consumers. ``is_counted``: not a
    hook's.
    """

    asked: Asked
    is_eager: bool
    is_counted: bool
    turn: asyncio.Future[Commit | None]
    settled: Settled = field(default_factory=dict)
    groups: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        self.groups = frozenset(group_id for _, group_id in self.asked)


class Acks:
    """One for a process. Only touched on its event loop."""

    def __init__(self, db: Database, wakeups: Wakeups) -> None:
        self._db = db
        self._wakeups = wakeups
        self._queue: list[Waiting] = []
        self._commits: list[Commit] = []
        self._apart: dict[int, float] = {}  # groups that share no commit for the moment, and until when at least

    async def settle(self, asked: Asked, *, is_eager: bool, is_counted: bool = True) -> Settled:
        """Returns what was in flight and is now settled, after the commit. Raises DatabaseUnavailable."""
        if not asked:
            return {}
        waiting = Waiting(asked, is_eager, is_counted, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        commit = self._begin(waiting) or await self._turn_of(waiting)
        while commit is not None and not await self._lead(waiting, commit):
            commit = await self._turn_of(waiting)
        return waiting.settled

    def _begin(self, waiting: Waiting) -> Commit | None:
        """The commit it is to lead, unless it has to wait for one that is under way."""
        if self._commits and not self._may_go_beside(waiting):
            return None
        commit = Commit(set(waiting.groups))
        self._commits.append(commit)
        return commit

    def _may_go_beside(self, waiting: Waiting) -> bool:
        if len(self._commits) >= min(MAX_COMMITS, self._db.size // 2):
            return False
        return all(commit.is_slow and commit.groups.isdisjoint(waiting.groups) for commit in self._commits)

    async def _turn_of(self, waiting: Waiting) -> Commit | None:
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if waiting in self._queue:
                self._queue.remove(waiting)
            has_result = waiting.turn.done() and not waiting.turn.cancelled() and waiting.turn.exception() is None
            if has_result and (commit := waiting.turn.result()) is not None:
                self._end(commit)
            raise

    async def _lead(self, leader: Waiting, commit: Commit) -> bool:
        """Carries out what waits. False: some group's leases were locked, and all that was in the commit waits anew."""
        batch = self._take(commit)
        followers = [waiting for waiting in batch if waiting is not leader]
        alarm = asyncio.get_running_loop().call_later(SLOW_S, self._let_others_go, commit)
        try:
            await self._carry_out_for(leader, followers)
        except BaseException as error:
            if is_of_a_lock(error) and self._part(commit, leader, followers):
                return False
            told = error if isinstance(error, Exception) else DatabaseUnavailable("The outcome is unknown; ack again.")
            for waiting in followers:
                if not waiting.turn.done():
                    waiting.turn.set_exception(told)
            raise
        else:
            for waiting in followers:
                if not waiting.turn.done():
                    waiting.turn.set_result(None)
            self._let_rejoin(commit)
            return True
        finally:
            alarm.cancel()
            self._end(commit)

    async def _carry_out_for(self, leader: Waiting, followers: Sequence[Waiting]) -> None:
        try:
            await self._carry_out([leader, *followers])
        except Unavailable:
            raise
        except Exception:
            if not followers:
                raise
            # One of them is to blame; the others must not suffer for it.
            await self._one_by_one(followers)
            await self._carry_out([leader])

    def _part(self, commit: Commit, leader: Waiting, followers: Iterable[Waiting]) -> bool:
        """A lock was in the way. True: of which group shows when all that was in the commit is carried out anew."""
        if len(commit.groups) == 1:
            self._apart |= dict.fromkeys(commit.groups, asyncio.get_running_loop().time() + APART_S)
            return False
        self._apart = dict.fromkeys(commit.groups, 0.0) | self._apart
        leader.turn = asyncio.get_running_loop().create_future()
        self._queue[:0] = [leader, *(waiting for waiting in followers if not waiting.turn.done())]
        return True

    def _let_rejoin(self, commit: Commit) -> None:
        if self._apart:
            now = asyncio.get_running_loop().time()
            for group_id in commit.groups & self._apart.keys():
                if self._apart[group_id] <= now:
                    del self._apart[group_id]

    def _take(self, commit: Commit) -> list[Waiting]:
        """What waits, as far as it may share this commit."""
        elsewhere = {*self._apart}.union(*(other.groups for other in self._commits if other is not commit))
        shared: list[Waiting] = []
        left: list[Waiting] = []
        for waiting in self._queue:
            goes_along = waiting.groups <= commit.groups or (
                commit.groups.isdisjoint(self._apart.keys()) and elsewhere.isdisjoint(waiting.groups)
            )
            (shared if goes_along else left).append(waiting)
        self._queue = left
        commit.groups.update(*(waiting.groups for waiting in shared))
        return shared

    def _let_others_go(self, commit: Commit) -> None:
        commit.is_slow = True
        self._pass_on()

    def _end(self, commit: Commit) -> None:
        self._commits.remove(commit)
        self._pass_on()

    def _pass_on(self) -> None:
        for waiting in self._queue:
            if not waiting.turn.done() and (commit := self._begin(waiting)) is not None:
                waiting.turn.set_result(commit)
                return

    async def _one_by_one(self, followers: Iterable[Waiting]) -> None:
        for waiting in followers:
            try:
                await self._carry_out([waiting])
            except Exception as error:  # noqa: BLE001 - it is told to whom it belongs
                if not waiting.turn.done():
                    waiting.turn.set_exception(error)
            else:
                if not waiting.turn.done():
                    waiting.turn.set_result(None)

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
