"""Observe: what there is to know of topics, groups and single messages. Reads only, and never scans messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.broker.doubts import owner_of
from app.domain.errors import MessageNotFound
from app.domain.group import Group
from app.domain.message import parse_message_id, stamp_of
from app.domain.partition import partition_id, topic_of
from app.domain.topic import Topic
from app.storage import attempts, consumers, cursors, endpoints, groups, partitions
from app.storage.attempts import Attempt, Delivery, State
from app.storage.cursors import Standing
from app.storage.database import Database, clock

STATES: tuple[State, ...] = ("leased", "retrying", "held", "delayed")
MAX_ATTEMPTS = 1000
# Groups told of in one topic's stats; a topic has a handful.
MAX_GROUPS = 1000

# Names of consumers by group id (Puller.owners).
Owners = Mapping[int, Sequence[str]]


@dataclass(frozen=True, slots=True)
class GroupStats:
    """A group over all its partitions. ``consumers``: how many hold leases or wait for messages, on any replica.
    ``endpoint``: of a push group. ``now``: the database's clock when this was read."""

    group: Group
    standings: Sequence[Standing]
    consumers: int
    endpoint: endpoints.Seen | None
    now: datetime

    def total(self, name: str) -> int:
        return sum(getattr(standing, name) for standing in self.standings)

    @property
    def letters(self) -> int:
        """Dead letters there are; ``dead`` counts also those that were dropped because none are kept."""
        return self.total("letters")

    @property
    def oldest_unsettled_age_ms(self) -> int | None:
        """None when everything is settled."""
        times = [standing.oldest_unsettled_at for standing in self.standings if standing.oldest_unsettled_at]
        return max(int((self.now - min(times)).total_seconds() * 1000), 0) if times else None


async def group_stats(db: Database, group: Group, here: Owners | None = None) -> GroupStats:
    """``here``: who waits in this process, which storage hears of now and then only."""
    standings = await cursors.standings(db, group.id)
    async with db.connection() as connection:
        now = await clock(connection)
    owners = {owner_of(name) for standing in standings for name in standing.owners}
    waiting = await consumers.waiting(db, group.id)
    waiting.update((here or {}).get(group.id, ()))
    endpoint = await endpoints.read(db, group.id) if group.config.delivery.mode == "push" else None
    return GroupStats(group, standings, len(owners | waiting), endpoint, now)


@dataclass(frozen=True, slots=True)
class TopicStats:
    topic: Topic
    extents: Sequence[partitions.Extent]
    groups: Sequence[GroupStats]

    @property
    def messages(self) -> int:
        return sum(extent.last_offset - extent.first_offset + 1 for extent in self.extents)

    @property
    def oldest_at(self) -> datetime | None:
        return min((extent.oldest_at for extent in self.extents if extent.oldest_at), default=None)

    @property
    def newest_at(self) -> datetime | None:
        return max((extent.newest_at for extent in self.extents if extent.newest_at), default=None)


async def topic_stats(db: Database, topic: Topic, here: Owners | None = None) -> TopicStats:
    """Counts are exact at any size: offsets have no gaps. ``here``: as in ``group_stats``."""
    extents = await partitions.extents(db, topic.id)
    known = await groups.list_groups(db, topic.id, after="", limit=MAX_GROUPS)
    return TopicStats(topic, extents, [await group_stats(db, group, here) for group in known])


async def list_deliveries(
    db: Database, group: Group, *, states: Sequence[State], after: tuple[int, int], limit: int
) -> list[Delivery]:
    """By partition number and offset, from the ones behind ``after`` (number, offset)."""
    found: list[Delivery] = []
    number, offset = after
    while number < group.partitions and len(found) < limit:
        place = partition_id(group.topic_id, number)
        found += await attempts.deliveries(db, place, group.id, after=offset, limit=limit - len(found), states=states)
        number, offset = number + 1, 0
    return found


@dataclass(frozen=True, slots=True)
class Story:
    """A message in every group of its topic: where it is now, by group, and what is recorded of its attempts."""

    deliveries: Sequence[tuple[str, Delivery]]
    attempts: Sequence[Attempt]


async def story_of(db: Database, topic: Topic, message_id: str) -> Story:
    """Raises MessageNotFound. A message that only a group still holds, as a copy, has a story too."""
    found = parse_message_id(message_id)
    if found is None or topic_of(found.partition_id) != topic.id:
        raise MessageNotFound.of(message_id)
    at = await partitions.published_at(db, found.partition_id, found.offset)
    if at is None or stamp_of(at) != found.stamp:
        raise MessageNotFound.of(message_id)
    return Story(
        await attempts.deliveries_of(db, topic.id, found.partition_id, found.offset),
        await attempts.attempts_of(db, topic.id, found.partition_id, found.offset, limit=MAX_ATTEMPTS),
    )
