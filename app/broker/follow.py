"""Follow: one client's way through a topic, first what was there before, then the feed's rounds as they come.

    bookmark ──▶ storage, up to where the feed was when we looked ──▶ the feed's rounds from there on

Everything is read by offset and the feed only says when, so nothing falls between the two and nothing comes twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from app.broker.feed import READ_PARTITIONS, Feed, Feeds, log_has_changed, read
from app.broker.retain import trim_topic
from app.broker.round import Gap, Selection
from app.domain.bookmark import Bookmark
from app.domain.errors import LogpostError, ShuttingDown, TooSlow, TopicNotFound
from app.domain.message import Message
from app.domain.partition import number_of, partition_id
from app.domain.position import Position
from app.domain.topic import Topic
from app.storage.database import Database
from app.storage.follow import Followed, Reach, reach
from app.storage.messages import offsets_at

# Filters judged before others get their turn.
AT_ONCE = 50


async def open_follower(
    db: Database, feeds: Feeds, topic: Topic, start: Position | Bookmark, selection: Selection
) -> Follower:
    """Raises TopicNotFound, ShuttingDown, DatabaseUnavailable. A bookmark of another log is told by the follower."""
    if feeds.is_stopped:
        raise ShuttingDown("This replica is stopping; another one answers.")
    await trim_topic(db, topic)
    at = (await reach(db, [topic.id])).get(topic.id)
    if at is None:
        raise TopicNotFound.named(topic.name)
    if isinstance(start, Bookmark):
        return _resumed(db, feeds, topic, at, start, selection)
    if start == "latest":
        offsets: Sequence[int] = at.next
    elif start == "earliest":
        offsets = at.first
    elif isinstance(start, int):
        offsets = [min(max(start, first), after) for first, after in zip(at.first, at.next, strict=True)]
    else:
        found = await offsets_at(db, [partition_id(topic.id, number) for number in range(len(at.next))], start)
        offsets = [min(found[partition_id(topic.id, number)], after) for number, after in enumerate(at.next)]
    return Follower(db, feeds, topic, at, tuple(offsets), selection)


def _resumed(db: Database, feeds: Feeds, topic: Topic, at: Reach, bookmark: Bookmark, selection: Selection) -> Follower:
    known = bookmark.offsets if bookmark.topic_id == topic.id else ()
    offsets = tuple(known[number] if number < len(known) else 1 for number in range(len(at.next)))
    clamped = tuple(map(min, offsets, at.next))
    is_other = (bookmark.topic_id, bookmark.timeline) != (topic.id, at.timeline) or len(known) > len(at.next)
    error = log_has_changed() if is_other or clamped != offsets else None
    return Follower(db, feeds, topic, at, clamped, selection, resumes=True, error=error)


class Follower:
    """``offsets``: by partition number the next one for this client. ``chunks`` is to be read once, and then closed."""

    def __init__(
        self,
        db: Database,
        feeds: Feeds,
        topic: Topic,
        at: Reach,
        offsets: tuple[int, ...],
        selection: Selection,
        *,
        resumes: bool = False,
        error: LogpostError | None = None,
    ) -> None:
        self.topic = topic
        self.offsets = offsets
        self._is_untold = not resumes and self._is_there(offsets, at.next, selection)
        self._db = db
        self._feeds = feeds
        self._selection = selection
        self._timeline = at.timeline
        self._error = error
        self._has_ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._round = 0
        self._feed = feeds.join(topic, at, self._wake)

    def bookmark(self) -> str:
        """After everything that was given out."""
        return str(Bookmark(self.topic.id, self._timeline, self.offsets))

    def end(self) -> None:
        """``chunks`` ends after the chunk under way."""
        self._has_ended = True
        self._wake()

    drain = end

    async def close(self) -> None:
        self._feeds.leave(self._feed, self._wake)

    def heartbeat(self) -> bytes:
        """What says that we are there, and to a client that was sent nothing for a while how far it has come."""
        if not self._is_untold:
            return b""
        self._is_untold = False
        return self._feeds.encoder.position(self.bookmark())

    async def chunks(self) -> AsyncIterator[bytes]:
        """What the client is to be sent.

        Raises LogEpochChanged, TopicNotFound, TooSlow for a client that fell behind what is kept for it, Unavailable.
        """
        if self._error is not None:
            raise self._error
        if self._is_untold:
            yield self.heartbeat()
        async for chunk in self._history():
            yield chunk
        feed = self._feed
        while not self._has_ended:
            new = feed.rounds.get(self._round)
            if new is not None:
                self._round += 1
                self.offsets = new.offsets
                chunk = new.chunk(self.topic.name, self._selection)
                self._is_untold = not chunk
                if chunk:
                    yield chunk
            elif self._round < feed.next_round:
                raise TooSlow("This client does not read as fast as messages come; go on from the last id.")
            elif feed.error is not None:
                raise self._changed(feed)
            else:
                await self._news()

    async def _history(self) -> AsyncIterator[bytes]:
        """Up to the feed, and sets the round to go on with."""
        feed = self._feed
        while not self._has_ended:
            if feed.error is not None:
                raise self._changed(feed)
            self._round, target = feed.next_round, tuple(feed.offsets)
            self._skip_what_is_not_selected(target)
            if any(mine > there for mine, there in zip(self.offsets, target, strict=False)):
                self._feeds.hurry(feed)  # another replica, or our own look, has seen more than the feed
                await self._news()
                continue
            async for chunk in self._up_to(target):
                yield chunk
            if self._round in feed.rounds or self._round == feed.next_round:
                return

    async def _up_to(self, target: tuple[int, ...]) -> AsyncIterator[bytes]:
        while not self._has_ended:
            behind = [(number, offset) for number, offset in enumerate(self.offsets) if offset < target[number]]
            if not behind:
                return
            starts = behind[:READ_PARTITIONS]
            found = await read(self._db, self.topic.id, starts)
            if len(found.first) < len(starts):
                raise TopicNotFound.named(self.topic.name)
            if found.timeline != self._timeline:
                raise log_has_changed()
            chunk = await self._framed(found, target)
            self._is_untold = not chunk
            if chunk:
                yield chunk

    async def _framed(self, found: Followed, target: tuple[int, ...]) -> bytes:
        encoder, offsets = self._feeds.encoder, list(self.offsets)
        contents = []
        gaps = []
        for number, retained in sorted(found.first.items()):
            if (upto := min(retained, target[number])) > offsets[number]:
                gaps.append(Gap(number, offsets[number], upto - 1))
                offsets[number] = upto
        if gaps:
            contents.append(encoder.gap(gaps, self._written(offsets)))
        for at, message in enumerate(found.messages, 1):
            number = number_of(message.partition_id)
            if not offsets[number] <= message.offset < target[number]:
                continue
            offsets[number] = message.offset + 1
            if self._takes(message):
                contents.append(encoder.message(self.topic.name, message, self._written(offsets)))
            if at % AT_ONCE == 0:
                await asyncio.sleep(0)
        self.offsets = tuple(offsets)
        return b"".join(contents)

    def _takes(self, message: Message) -> bool:
        return self._selection.takes(self.topic.name, message)

    def _written(self, offsets: Sequence[int]) -> str:
        return str(Bookmark(self.topic.id, self._timeline, tuple(offsets)))

    def _skip_what_is_not_selected(self, target: tuple[int, ...]) -> None:
        only = self._selection.partition
        mine = self.offsets + (1,) * (len(target) - len(self.offsets))
        self.offsets = tuple(
            there if only is not None and number != only else offset
            for number, (offset, there) in enumerate(zip(mine, target, strict=False))
        )

    def _changed(self, feed: Feed) -> LogpostError:
        assert feed.error is not None
        self._timeline = feed.timeline
        self.offsets = tuple(map(min, self.offsets, feed.offsets))
        return feed.error

    @staticmethod
    def _is_there(offsets: tuple[int, ...], target: tuple[int, ...], selection: Selection) -> bool:
        return all(
            mine >= there
            for number, (mine, there) in enumerate(zip(offsets, target, strict=True))
            if selection.has(number)
        )

    async def _news(self) -> None:
        if self._has_ended:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
