"""The appender: every publish of this process goes through its one connection, everything that waits in one commit.

    publish ──▶ waiting ──▶ drain: look up keys ─▶ append rows ─▶ commit ──▶ answers, wake-ups
                   ▲                       │
                   └── the others again ◀──┘ a topic has changed, a key was taken meanwhile, a partition is locked

A commit costs the same for one message or a thousand, so requests never contend for a partition; while one commit is
on its way the next ones gather. A publish is answered when COMMIT has returned and the server had nothing to say about
it: a cancelled wait for a synchronous replica also commits, with a notice 01000. What happened to a commit that ended
in any other way is unknown, and so the caller is told.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter

import structlog

from app import failpoints
from app.broker import tally
from app.broker.drain import Drain, Publish, once_keys
from app.domain.errors import CommitUnknown, DatabaseUnavailable, LogpostError, QueueFull, ShuttingDown
from app.domain.message import Landed, NewMessage
from app.domain.partition import topic_of
from app.domain.topic import Topic
from app.storage.appends import AppendConnection, Failure, Fate
from app.storage.database import Database, Outdated

log: structlog.stdlib.BoundLogger = structlog.get_logger()

# One transaction: large enough that its cost is shared, small enough that nobody waits long for it.
MAX_DRAIN_MESSAGES = 10_000
MAX_DRAIN_BYTES = 32 * 1024 * 1024
MAX_TRIES = 8
# A commit costs as much for one as for many, so whoever is just arriving joins in: requests are read as long as each
# turn of the event loop brings some, within these bounds. Somebody who publishes alone waits for two empty turns.
GATHER_S = 0.002
GATHER_MESSAGES = 100
QUIET_TURNS = 2
MAX_BACKOFF_S = 0.25

_payload, _idempotency_key = attrgetter("payload"), attrgetter("idempotency_key")

OnPublished = Callable[[Collection[int]], None]


class Appender:
    """One per process. ``run`` does the work, in a task of the supervisor's."""

    def __init__(
        self, db: Database, *, max_messages: int, max_bytes: int, on_published: OnPublished = lambda _: None
    ) -> None:
        """``max_messages`` and ``max_bytes`` may wait for a drain. ``on_published`` gets the ids of partitions right
        after a commit of messages in them."""
        self._connection = AppendConnection(db)
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._on_published = on_published
        self._waiting: deque[Publish] = deque()
        self._messages = 0
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._blocked: set[int] = set()
        self._stopping = False
        self._ended = asyncio.Event()
        self._ended.set()
        self._backoff_s = 0.0
        self._told = ""  # why it cannot be reached, as the log has it

    def append(
        self, topic: Topic, messages: Sequence[NewMessage], partition_ids: Sequence[int]
    ) -> asyncio.Future[list[Landed]]:
        """Where the messages are, once they are committed: all or none of them.

        Raises QueueFull and ShuttingDown at once; the awaited answer raises Outdated (read the topic again and
        repeat), IdempotencyKeyReused, DatabaseUnavailable and CommitUnknown.
        """
        size = sum(map(len, map(_payload, messages)))
        has_keys = any(map(_idempotency_key, messages))
        if self._stopping:
            raise ShuttingDown("The server is shutting down.")
        if self._messages + len(messages) > self._max_messages or self._bytes + size > self._max_bytes:
            raise QueueFull("Too many messages are waiting for their commit; try again.")
        answer: asyncio.Future[list[Landed]] = asyncio.get_running_loop().create_future()
        self._waiting.append(Publish(topic, messages, partition_ids, size, answer, has_keys))
        self._messages += len(messages)
        self._bytes += size
        self._arrived.set()
        return answer

    async def run(self) -> None:
        """Works until ``stop``, whatever fails. Cancelled, it gives up what it has; nobody is left without an
        answer."""
        self._ended.clear()
        taken: list[Publish] = []
        try:
            await self._connected()
            while await self._something_waits():
                if await self._connected():
                    await self._gather()
                    taken = self._take()
                    await self._settle(taken)
                    taken = []
        finally:
            self._fail(taken, CommitUnknown, "The server stopped before the commit returned.")
            self._fail(self._take_all(), ShuttingDown, "The server is shutting down.")
            self._connection.close()
            self._ended.set()

    def end(self) -> None:
        """Takes nothing more; ``run`` returns when everything that was accepted has its answer."""
        self._stopping = True
        self._arrived.set()

    async def stop(self) -> None:
        """The same, and waits for it."""
        self.end()
        await self._ended.wait()

    async def _something_waits(self) -> bool:
        while not self._waiting:
            if self._stopping:
                return False
            self._arrived.clear()
            await self._arrived.wait()
        return True

    async def _gather(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + GATHER_S
        quiet = 0
        while quiet < QUIET_TURNS and self._messages < GATHER_MESSAGES and loop.time() < until:
            before = self._messages
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._messages == before else 0

    async def _connected(self) -> bool:
        """With the database away everybody waiting is told so, and after a pause it is tried again."""
        try:
            await self._connection.open()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt may succeed
            if (reason := str(error) or type(error).__name__) != self._told:
                self._told = reason
                log.warning("append_connection_failed", error=reason)
            self._fail(self._take_all(), DatabaseUnavailable, "The database cannot be reached at the moment.")
            self._backoff_s = min(max(2 * self._backoff_s, 0.05), MAX_BACKOFF_S)
            await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1.0))
            return False
        self._backoff_s, self._told = 0.0, ""
        return True

    def _take(self) -> list[Publish]:
        """The first that waited, as many as fit into one transaction. Who has gone away is left out."""
        taken: list[Publish] = []
        messages = size = 0
        while self._waiting:
            publish = self._waiting[0]
            messages += len(publish.messages)
            size += publish.size
            if taken and (messages > MAX_DRAIN_MESSAGES or size > MAX_DRAIN_BYTES):
                break
            self._waiting.popleft()
            self._messages -= len(publish.messages)
            self._bytes -= publish.size
            if not publish.answer.done():
                taken.append(publish)
        return taken

    def _take_all(self) -> list[Publish]:
        taken = list(self._waiting)
        self._waiting.clear()
        self._messages = self._bytes = 0
        return taken

    async def _settle(self, publishes: list[Publish]) -> None:
        """Gives every one of the publishes its answer."""
        for tried in range(1, MAX_TRIES + 1):
            publishes = [publish for publish in publishes if not publish.answer.done()]
            if self._blocked:
                publishes = await self._without_blocked(publishes)
            if not publishes:
                return
            try:
                await self._commit(publishes)
            except Failure as failure:
                await self._recover(failure, publishes, tried)
            else:
                return
        self._fail(publishes, DatabaseUnavailable, "Too many others are changing the same thing; try again.")

    async def _commit(self, publishes: list[Publish]) -> None:
        """One transaction; on plain Postgres one commit for all partitions is what costs least.

        This is the seam: where partitions live on different machines, each row is a call of its own here, and only a
        publish that spans several needs a transaction around them. Raises Failure.
        """
        keys = once_keys(publishes)
        drain = Drain(publishes, await self._connection.find_taken(keys) if keys else {})
        rows = drain.rows
        failpoints.hit(failpoints.APPENDING)
        appended = await self._connection.append(rows) if rows else []
        failpoints.hit(failpoints.APPENDED)
        answered = 0
        for publish, landed in drain.answers(appended):
            answered += len(publish.messages)
            if not publish.answer.done():
                publish.answer.set_result(landed)
        tally.published(stored := sum(len(row.messages) for row in rows), answered - stored)
        for publish, error in drain.refused:
            self._refuse(publish, error)
        if rows:
            self._on_published({row.partition_id for row in rows})

    async def _recover(self, failure: Failure, publishes: list[Publish], tried: int) -> None:
        """Answers those for whom it is over; the others are tried again."""
        match failure.fate:
            case Fate.UNKNOWN:
                log.warning("commit_unknown", messages=sum(len(x.messages) for x in publishes), error=failure.reason)
                self._fail(publishes, CommitUnknown, "It is not known whether the commit succeeded; publish again with "
                           "the same Idempotency-Key.")  # fmt: skip
            case Fate.AWAY:
                self._fail(publishes, DatabaseUnavailable, "The database cannot be reached at the moment.")
            case Fate.OUTDATED:
                topic = None if failure.partition_id is None else topic_of(failure.partition_id)
                self._outdated([publish for publish in publishes if topic in (None, publish.topic.id)])
            case Fate.LOCKED:
                self._blocked.update(*(publish.partition_ids for publish in publishes))
            case Fate.COLLISION:
                await asyncio.sleep(random.uniform(0, 0.002 * 2**tried))
            case Fate.NOTHING if len(publishes) > 1:
                # One of them is to blame; the others must not suffer for it.
                for publish in publishes:
                    await self._settle([publish])
            case Fate.NOTHING:
                log.error("append_failed", topic=publishes[0].topic.name, error=failure.reason)
                self._fail(publishes, LogpostError, "Something went wrong here; nothing was stored.")

    async def _without_blocked(self, publishes: list[Publish]) -> list[Publish]:
        """A partition that somebody else locked for long must not hold up the others: those who want it are told."""
        wanted = self._blocked.intersection(*[{x for publish in publishes for x in publish.partition_ids}])
        if not wanted:
            return publishes
        try:
            self._blocked -= await self._connection.unlocked(wanted)
        except Failure:
            self._fail(publishes, DatabaseUnavailable, "The database cannot be reached at the moment.")
            return []
        stuck = [publish for publish in publishes if not self._blocked.isdisjoint(publish.partition_ids)]
        self._fail(stuck, DatabaseUnavailable, "A partition of the topic is locked at the moment.")
        return [publish for publish in publishes if not publish.answer.done()]

    def _outdated(self, publishes: list[Publish]) -> None:
        for publish in publishes:
            self._refuse(publish, Outdated())

    def _fail(self, publishes: Sequence[Publish], kind: type[LogpostError], detail: str) -> None:
        for publish in publishes:
            self._refuse(publish, kind(detail))

    def _refuse(self, publish: Publish, error: Exception) -> None:
        if not publish.answer.done():
            publish.answer.set_exception(error)
