"""Feeds: one reader per topic and process for all who watch it.

    wake-up ──▶ dirty ──▶ follow ──▶ round: encoded once ──▶ window ──▶ every follower (broker/follow.py)
                                                              └ the oldest rounds leave it, read or not

A feed exists while somebody follows it. It decides on one order of the messages of all partitions, so that one
bookmark after each of them is true for everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

from app.broker.round import Encoder, Frame, Gap, Round
from app.broker.wakeups import Wakeups
from app.domain.bookmark import written
from app.domain.errors import LogEpochChanged, LogpostError, TopicNotFound, Unavailable
from app.domain.partition import number_of
from app.domain.topic import Topic
from app.storage.database import Database
from app.storage.follow import Followed, Reach, follow, reach
from app.telemetry import log

# In one read of a topic.
READ_MESSAGES = 500
READ_BYTES = 1024 * 1024
READ_PARTITIONS = 64
# What is kept for followers that are not quite there. Who falls behind it is dropped.
WINDOW_BYTES = 4 * 1024 * 1024
# How often it is looked whether a hint was lost.
LISTENING_POLL_S = 1.0
OUTAGE_PAUSE_S = 0.5


class Feed:
    """One topic. ``offsets``: by partition number the next one to read; ``rounds`` by number, the newest last."""

    def __init__(self, topic: Topic, at: Reach, encoder: Encoder) -> None:
        self.topic = topic
        self.timeline = at.timeline
        self.offsets = list(at.next)
        self.error: LogpostError | None = None
        self.rounds: dict[int, Round] = {}
        self.next_round = 0
        self.followers: set[Callable[[], None]] = set()
        self.dirty: set[int] = set()
        self.stop_listening: Callable[[], None] = lambda: None
        self._encoder = encoder
        self._size = 0

    def bookmark(self) -> str:
        return written(self.topic.id, self.timeline, self.offsets)

    def starts(self) -> list[tuple[int, int]]:
        """(partition, offset) of what is to be read now, and is not dirty any more."""
        numbers = sorted(self.dirty)[:READ_PARTITIONS]
        self.dirty.difference_update(numbers)
        self.offsets += [1] * (max(numbers, default=-1) + 1 - len(self.offsets))
        return [(number, self.offsets[number]) for number in numbers]

    def add(self, found: Followed) -> None:
        """Makes a round of what was read, and wakes everybody."""
        if found.timeline != self.timeline and found.first:
            self.fail(log_has_changed())
            return
        frames: list[Frame] = []
        for number, retained in found.first.items():
            if retained > self.offsets[number]:
                gap = Gap(number, self.offsets[number], retained - 1)
                self.offsets[number] = retained
                frames.append(Frame(number, None, self._encoder.gap([gap], self.bookmark())))
        for message in found.messages:
            number = number_of(message.partition_id)
            if message.offset < self.offsets[number]:
                continue
            self.offsets[number] = message.offset + 1
            content = self._encoder.message(self.topic.name, message, self.bookmark())
            frames.append(Frame(number, message, content))
        self.dirty |= found.more
        if frames:
            self._append(Round(frames, tuple(self.offsets)))

    def see(self, at: Reach | None) -> None:
        """Compares with how far the log reaches; hints may have been lost, and logs may lose their end."""
        if at is None:
            self.fail(TopicNotFound.named(self.topic.name))
            return
        behind = [number for number, after in enumerate(at.next) if after > _at(self.offsets, number)]
        ahead = any(after < _at(self.offsets, number) for number, after in enumerate(at.next))
        if ahead or at.timeline != self.timeline:
            self.timeline = at.timeline
            self.offsets = [min(_at(self.offsets, number), after) for number, after in enumerate(at.next)]
            self.fail(log_has_changed())
        self.dirty.update(behind)

    def fail(self, error: LogpostError) -> None:
        """Nothing comes any more, and everybody hears why."""
        self.error = error
        self._wake()

    def _append(self, new: Round) -> None:
        self.rounds[self.next_round] = new
        self.next_round += 1
        self._size += new.size
        while self._size > WINDOW_BYTES and len(self.rounds) > 1:
            self._size -= self.rounds.pop(next(iter(self.rounds))).size
        self._wake()

    def _wake(self) -> None:
        for wake in tuple(self.followers):
            wake()


class Feeds:
    """All feeds of a process. ``run`` is its one reader."""

    def __init__(self, db: Database, wakeups: Wakeups, encoder: Encoder, *, poll_interval_ms: int = 100) -> None:
        self.encoder = encoder
        self._db = db
        self._wakeups = wakeups
        self._poll_interval_s = poll_interval_ms / 1000
        self._feeds: dict[int, Feed] = {}
        self._news = asyncio.Event()
        self.is_stopped = False

    def join(self, topic: Topic, at: Reach, wake: Callable[[], None]) -> Feed:
        """The topic's feed, for somebody who just saw that the log reaches to ``at``. ``wake`` is called for news."""
        feed = self._feeds.get(topic.id)
        if feed is None or feed.error is not None:
            feed = self._feeds[topic.id] = Feed(topic, at, self.encoder)
            of = feed
            feed.stop_listening = self._wakeups.listen(topic.id, None, lambda places: self._hinted(of, places))
            self._news.set()  # the reader has somebody to poll for
        feed.followers.add(wake)
        return feed

    def leave(self, feed: Feed, wake: Callable[[], None]) -> None:
        feed.followers.discard(wake)
        if not feed.followers:
            feed.stop_listening()
            feed.stop_listening = lambda: None
            if self._feeds.get(feed.topic.id) is feed:
                del self._feeds[feed.topic.id]

    def hurry(self, feed: Feed) -> None:
        """Has everything of the feed looked at now: somebody knows of more."""
        feed.dirty.update(range(len(feed.offsets)))
        self._news.set()

    def stop(self) -> None:
        self.is_stopped = True
        self._news.set()

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        poll_at = 0.0
        while not self.is_stopped:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(poll_at - clock(), 0) if self._feeds else None):
                    await self._news.wait()
            self._news.clear()
            try:
                if clock() >= poll_at:
                    await self._poll()
                    poll_at = clock() + (LISTENING_POLL_S if self._wakeups.listening else self._poll_interval_s)
                await self._read()
            except Unavailable as error:
                log.warning("feeds_interrupted", error=str(error.__cause__ or error))
                poll_at = clock() + OUTAGE_PAUSE_S
                await asyncio.sleep(OUTAGE_PAUSE_S)

    async def _poll(self) -> None:
        feeds = [feed for feed in self._feeds.values() if feed.error is None]
        if not feeds:
            return
        found = await reach(self._db, [feed.topic.id for feed in feeds])
        for feed in feeds:
            feed.see(found.get(feed.topic.id))

    async def _read(self) -> None:
        dirty = [feed for feed in self._feeds.values() if feed.dirty and feed.error is None]
        if not dirty:
            return
        results = await asyncio.gather(*(self._read_one(feed) for feed in dirty), return_exceptions=True)
        if any(feed.dirty for feed in dirty):
            self._news.set()
        for result in results:
            if result is not None:
                raise result

    async def _read_one(self, feed: Feed) -> None:
        starts = feed.starts()
        try:
            feed.add(await read(self._db, feed.topic.id, starts))
        except BaseException:
            feed.dirty.update(number for number, _ in starts)
            raise

    def _hinted(self, feed: Feed, partition_ids: Iterable[int]) -> None:
        numbers = [number_of(partition_id) for partition_id in partition_ids]
        feed.dirty.update(numbers or range(len(feed.offsets)))
        self._news.set()


async def read(db: Database, topic_id: int, starts: Sequence[tuple[int, int]]) -> Followed:
    """A bounded look at what at most READ_PARTITIONS partitions have."""
    share = max(len(starts), 1)
    return await follow(
        db, topic_id, starts, limit=max(READ_MESSAGES // share, 10), byte_limit=max(READ_BYTES // share, 16 * 1024)
    )


def log_has_changed(**extra: str) -> LogEpochChanged:
    return LogEpochChanged(
        "The log is not the one this position was taken in; what it lost, or was given, is not known.", extra=extra
    )


def _at(offsets: list[int], number: int) -> int:
    """A partition that was not there yet begins at 1."""
    return offsets[number] if number < len(offsets) else 1
