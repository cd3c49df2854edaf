"""Browse: reads a topic's messages without a group, one partition or all of them merged by publishedAt.

Where a page ends is an offset for each partition, so that the next one leaves nothing out, whatever is published
meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.domain.errors import InvalidField, MessageNotFound
from app.domain.message import Message, parse_message_id, stamp_of
from app.domain.partition import partition_id, topic_of
from app.domain.position import Position
from app.domain.topic import Topic
from app.storage import messages
from app.storage.database import Database
from app.storage.messages import Stretch

# Payload bytes of a page; at least one message is always given.
PAGE_BYTES = 8 * 1024 * 1024
# How far ahead each partition is looked at, at least.
MIN_AHEAD = 8

# The next offset to read by partition id.
Positions = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """``next_positions`` is None when nothing came after these at the moment of reading."""

    messages: list[Message]
    next_positions: Positions | None


def partition_ids(topic: Topic, partition: int | None) -> list[int]:
    """Those of one partition, by number, or of all. Raises InvalidField."""
    if partition is None:
        return [partition_id(topic.id, number) for number in range(topic.partitions)]
    if not 0 <= partition < topic.partitions:
        raise InvalidField.of("partition", f"must be 0 to {topic.partitions - 1}")
    return [partition_id(topic.id, partition)]


async def positions_at(db: Database, ids: list[int], position: Position) -> Positions:
    """Where reading begins in each of the partitions."""
    if isinstance(position, datetime):
        return await messages.offsets_at(db, ids, position)
    if isinstance(position, int):
        return dict.fromkeys(ids, position)
    if position == "earliest":
        return dict.fromkeys(ids, 0)
    return {head.partition_id: head.next_offset for head in await messages.heads(db, ids)}


async def clamp(db: Database, positions: Positions) -> Positions:
    """None of them ahead of the log."""
    ends = {head.partition_id: head.next_offset for head in await messages.heads(db, list(positions))}
    return {of: min(position, ends.get(of, position)) for of, position in positions.items()}


async def browse(db: Database, positions: Positions, limit: int) -> Found:
    """Up to ``limit`` messages from the positions on. What is no longer retained is passed over."""
    heads = await messages.heads(db, list(positions))
    at = {head.partition_id: max(head.first_offset, positions[head.partition_id]) for head in heads}
    ends = {head.partition_id: head.next_offset for head in heads}
    open_ids = [of for of in at if at[of] < ends[of]]
    if not open_ids:
        return Found([], None)

    ahead = min(limit, max(MIN_AHEAD, 2 * limit // len(open_ids)))
    stretches = await messages.stretches(db, [(of, at[of]) for of in open_ids], ahead)
    counts = _counts(stretches, limit, ahead)
    found = await messages.read_ranges(db, [(of, at[of], count) for of, count in counts.items()])
    after = {of: at[of] + counts.get(of, 0) for of in at}
    return Found(found, after if any(after[of] < ends[of] for of in at) else None)


def _counts(stretches: list[Stretch], limit: int, ahead: int) -> dict[int, int]:
    """How many messages of each partition come first by time, as far as one can see."""
    counts: dict[int, int] = {}
    seen: dict[int, int] = {}
    size = 0
    for stretch in stretches:
        of = stretch.partition_id
        count = min(stretch.count, limit)
        size += stretch.size * count // stretch.count
        if counts and size > PAGE_BYTES:
            break
        counts[of] = counts.get(of, 0) + count
        seen[of] = seen.get(of, 0) + 1
        limit -= count
        # Behind the last stretch we know of may be another, and before those of other partitions.
        if limit == 0 or seen[of] == ahead:
            break
    return counts


async def read_message(db: Database, topic: Topic, message_id: str) -> Message:
    """Raises MessageNotFound, also for a message that is no longer retained."""
    wanted = parse_message_id(message_id)
    if wanted is None or topic_of(wanted.partition_id) != topic.id:
        raise MessageNotFound.of(message_id)
    found = await messages.messages_at(db, wanted.partition_id, [wanted.offset])
    # The same place may hold another message after the log went another way.
    if not found or stamp_of(found[0].published_at) != wanted.stamp:
        raise MessageNotFound.of(message_id)
    return found[0]
