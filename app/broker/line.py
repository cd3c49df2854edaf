"""Lines: where the consumers of a group stand in this process, with hints of which partitions may have something.

Lines hold nothing that matters: a claim looks at the truth again, and nothing is called empty without a survey.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from app.storage.leases import Prospect

# So many partitions at most are claimed from in one transaction.
MAX_SHARE = 64


class Patience:
    """How long a consumer waits for messages. It can be ended from outside: the client is gone, the server stops."""

    __slots__ = ("has_ended", "until", "waiter")

    def __init__(self, wait_ms: int) -> None:
        self.until = asyncio.get_running_loop().time() + wait_ms / 1000
        self.has_ended = False
        self.waiter: asyncio.Future[None] | None = None

    def end(self) -> None:
        """Nothing more is taken for this consumer; what has been is still given to it."""
        self.has_ended = True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


@dataclass(eq=False)
class Line:
    """Consumers of one group in this process. Only touched on the event loop, between two awaits."""

    group_id: int
    hints: dict[int, None] = field(default_factory=dict)  # in the order they came: nobody is overtaken
    must_survey: bool = True
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)
    owners: Counter[str] = field(default_factory=Counter)
    left_at: float = 0.0
    stop_listening: Callable[[], None] = lambda: None
    alarm: asyncio.TimerHandle | None = None
    turns: dict[int, asyncio.Lock] = field(default_factory=dict)

    def hint(self, partition_ids: Iterable[int]) -> None:
        """Partitions that may have something; none means: anything may have changed."""
        hinted = dict.fromkeys(partition_ids)
        if hinted:
            self.hints |= hinted
        else:
            self.must_survey = True
        self._wake(max(len(hinted), 1))

    def put_back(self, partition_ids: Iterable[int]) -> None:
        """Hints that were taken and not used: they stay the oldest."""
        left = dict.fromkeys(partition_ids)
        self.hints = left | self.hints
        self._wake(len(left))

    def has_news(self) -> bool:
        return bool(self.hints) or self.must_survey

    def take_hint(self) -> int | None:
        if not self.hints:
            return None
        partition_id = next(iter(self.hints))
        del self.hints[partition_id]
        return partition_id

    def take_share(self) -> list[int]:
        """The oldest hints, as many as are this consumer's part where others stand here too, in ascending order.

        Those of partitions where a claim is on its way are left.
        """
        free = [partition_id for partition_id in self.hints if partition_id not in self.turns]
        share = sorted(free[: min(-(-len(free) // max(self.owners.total(), 1)), MAX_SHARE)])
        for partition_id in share:
            del self.hints[partition_id]
        return share

    async def wait(self, patience: Patience) -> None:
        """Until there is news, or the patience ends."""
        waiter = patience.waiter = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        try:
            async with asyncio.timeout_at(patience.until):
                await waiter
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake(1)  # it was this one's turn, and it will not take it
            raise
        finally:
            if waiter in self.waiters:
                self.waiters.remove(waiter)

    @asynccontextmanager
    async def turn_at(self, *partition_ids: int) -> AsyncIterator[None]:
        """Claims of one partition take turns here rather than in the database, where each would hold a connection."""
        async with AsyncExitStack() as stack:
            for partition_id in partition_ids:
                turn = self.turns.setdefault(partition_id, asyncio.Lock())
                stack.callback(self._forget_turn, partition_id)
                await stack.enter_async_context(turn)
            yield

    def _forget_turn(self, partition_id: int) -> None:
        turn = self.turns.get(partition_id)
        if turn is not None and not turn.locked():
            del self.turns[partition_id]

    def note(self, prospects: Iterable[Prospect]) -> None:
        """Has somebody look again when the first of what is scheduled is due."""
        dues = [prospect.due_in for prospect in prospects if prospect.due_in is not None]
        if dues:
            self.alarm_in(min(dues))

    def leave(self) -> None:
        self.stop_listening()
        if self.alarm is not None:
            self.alarm.cancel()

    def alarm_in(self, seconds: float) -> None:
        """Has somebody look again in so many seconds: a lease will have ended, a retry will be due."""
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        if self.alarm is not None and self.alarm.when() <= at and not self.alarm.cancelled():
            return
        if self.alarm is not None:
            self.alarm.cancel()
        self.alarm = loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self.alarm = None
        self.hint(())

    def _wake(self, count: int) -> None:
        while self.waiters and count > 0:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1
