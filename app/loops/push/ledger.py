"""Ledger: how deliveries ended, written down in as few calls as there can be.

One writer for a dispatcher: whatever comes while it writes is written together next. What cannot be written because
the database is away is kept and tried again, until the lease is lost and it means nothing any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from app.broker.settle import Settlement, Settler
from app.domain.errors import Unavailable
from app.domain.group import Group
from app.domain.outcome import Answer
from app.loops.loop import backoff_s, wait_for
from app.loops.push.leased import Leased
from app.storage import attempts
from app.storage.attempts import Success
from app.storage.database import Database
from app.telemetry import log

# The last successes are recorded, so many of a group and no more often than that: a sample where there are many.
SUCCESSES = 100
RECORD_EVERY_S = 1.0


@dataclass(eq=False, slots=True)
class Entry:
    """A settlement other than an ack, or, without one, a message to hand back."""

    leased: Leased
    settlement: Settlement | None
    written: asyncio.Future[bool]


class Ledger:
    """``ended`` is called for every message that is not this process's business any more."""

    def __init__(self, db: Database, settler: Settler, group: Group, ended: Callable[[Leased], None]) -> None:
        self.group = group
        self._db = db
        self._settler = settler
        self._ended = ended
        self._acks: list[Leased] = []
        self._entries: list[Entry] = []
        self._successes: deque[tuple[Leased, Answer, float]] = deque(maxlen=SUCCESSES)
        self._recorded_at = 0.0
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()

    def ack(self, leased: Leased, answer: Answer) -> None:
        """Soon; nobody has to wait for it."""
        leased.is_ending = True
        self._acks.append(leased)
        self._successes.append((leased, answer, asyncio.get_running_loop().time()))
        self._news.set()

    async def settle(self, leased: Leased, settlement: Settlement) -> bool:
        """After the commit: whether it was in flight."""
        leased.is_ending = True
        entry = Entry(leased, settlement, asyncio.get_running_loop().create_future())
        self._entries.append(entry)
        self._news.set()
        return await entry.written

    async def hand_back(self, returned: Iterable[Leased]) -> None:
        """Unsent or unanswered: for immediate redelivery, without using up an attempt. Returns after the commit."""
        loop = asyncio.get_running_loop()
        entries = [Entry(leased, None, loop.create_future()) for leased in returned if not leased.is_lost]
        for entry in entries:
            entry.leased.is_ending = True
        self._entries += entries
        self._news.set()
        for entry in entries:
            await entry.written

    async def run(self) -> None:
        """Writes until it is cancelled."""
        failures = 0
        while True:
            if not self._news.is_set():
                await wait_for(self._news, RECORD_EVERY_S) if self._successes else await self._news.wait()
            try:
                await self.write()
                failures = 0
            except Unavailable:
                failures += 1
                await asyncio.sleep(backoff_s(failures))

    async def write(self) -> None:
        """Writes everything there is. Raises DatabaseUnavailable; then all of it is still there."""
        async with self._writing:
            self._news.clear()
            try:
                await self._write_acks()
                await self._write_entries()
                await self.record(every_s=RECORD_EVERY_S)
            except Unavailable:
                self._forget_lost()
                self._news.set()
                raise

    async def _write_acks(self) -> None:
        acks = self._acks[:]
        if not acks:
            return
        try:
            await self._settler.ack_leased(self.group, [leased.ack_id for leased in acks])
        except Unavailable:
            raise
        except Exception:  # what is wrong with these must not keep others from being settled; their leases will end
            log.exception("push_not_settled", group=self.group.name)
        del self._acks[: len(acks)]
        for leased in acks:
            self._ended(leased)

    async def _write_entries(self) -> None:
        entries = self._entries[:]
        settled = [entry for entry in entries if entry.settlement is not None]
        returned = [entry.leased.ack_id for entry in entries if entry.settlement is None]
        if not entries:
            return
        results: Sequence[bool] = [False] * len(settled)
        try:
            if settled:
                chosen = [entry.settlement for entry in settled if entry.settlement is not None]
                results = await self._settler.settle(self.group, chosen)
            if returned:
                await self._settler.hand_back(self.group.id, returned)
        except Unavailable:
            raise
        except Exception:
            log.exception("push_not_settled", group=self.group.name)
        del self._entries[: len(entries)]
        found = dict(zip(map(id, settled), results, strict=True))
        for entry in entries:
            self._finish(entry, found.get(id(entry), True))

    def _finish(self, entry: Entry, result: bool) -> None:
        self._ended(entry.leased)
        if not entry.written.done():
            entry.written.set_result(result)

    def _forget_lost(self) -> None:
        self._acks = [leased for leased in self._acks if not leased.is_lost]
        lost = [entry for entry in self._entries if entry.leased.is_lost]
        self._entries = [entry for entry in self._entries if not entry.leased.is_lost]
        for entry in lost:
            self._finish(entry, False)

    async def hand_back_now(self, returned: Iterable[Leased]) -> None:
        """For the end, when nobody writes any more."""
        await self._settler.hand_back(self.group.id, [leased.ack_id for leased in returned])

    async def record(self, *, every_s: float = 0) -> None:
        """The last successes, unless that was done a moment ago."""
        now = asyncio.get_running_loop().time()
        if not self._successes or now - self._recorded_at < every_s:
            return
        self._recorded_at = now
        successes = [
            Success(
                leased.message.partition_id, leased.message.offset, leased.attempt, now - at, answer.latency_ms,
                answer.status, answer.excerpt,
            )
            for leased, answer, at in self._successes
        ]  # fmt: skip
        self._successes.clear()
        await attempts.record_successes(self._db, self.group.id, successes, kept=SUCCESSES)
