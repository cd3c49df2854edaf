"""Seek: moves a group to another place in the log. Replay is a seek into the past by time or offset."""

from __future__ import annotations

from datetime import datetime

from app import failpoints, metrics
from app.broker.wakeups import Wakeups
from app.domain.errors import MessageNotFound
from app.domain.group import Group
from app.domain.message import parse_message_id, stamp_of
from app.domain.partition import number_of, partition_id, topic_of
from app.domain.position import Position
from app.storage import cursors, messages
from app.storage.database import Database, Tx, on_collision_again
from app.telemetry import log


async def seek(db: Database, wakeups: Wakeups, group: Group, position: Position) -> dict[int, int]:
    """Moves every partition's cursor, all or none: below it everything counts as settled, from it on all is delivered
    afresh. An offset is inclusive and clamped to what exists. Returns the new next offset by partition number.

    Raises Outdated where the group is not as it is stored.
    """

    async def attempt() -> dict[int, int]:
        async with db.transaction() as tx:
            # Those there are, not those we know: partitions may have been added a moment ago.
            moved: dict[int, int] = {}
            for place in await cursors.lock(tx, group.id):
                moved[place] = await _move(tx, place, group.id, position)
                failpoints.hit(failpoints.SEEKING)
            return moved

    moved = await on_collision_again(attempt)
    failpoints.hit(failpoints.SOUGHT)
    metrics.seek.inc()
    log.info("seek", topic=group.topic, group=group.name, position=str(position))
    wakeups.freed(group.id, moved)
    return {number_of(place): offset for place, offset in moved.items()}


async def seek_message(db: Database, wakeups: Wakeups, group: Group, message_id: str) -> dict[int, int]:
    """Moves one partition's cursor to a message, inclusive. Raises MessageNotFound, and then nothing has changed."""
    found = parse_message_id(message_id)
    if found is None or topic_of(found.partition_id) != group.topic_id:
        raise MessageNotFound.of(message_id)
    stored = await messages.messages_at(db, found.partition_id, [found.offset])
    if not stored or stamp_of(stored[0].published_at) != found.stamp:
        raise MessageNotFound.of(message_id)

    async def attempt() -> int:
        async with db.transaction() as tx:
            return await _move(tx, found.partition_id, group.id, found.offset)

    moved = await on_collision_again(attempt)
    metrics.seek.inc()
    log.info("seek", topic=group.topic, group=group.name, position=message_id)
    wakeups.freed(group.id, (found.partition_id,))
    return {found.partition_id - partition_id(group.topic_id, 0): moved}


async def _move(tx: Tx, place: int, group_id: int, position: Position) -> int:
    if isinstance(position, datetime):
        return await cursors.seek(tx, place, group_id, "timestamp", at=position)
    if isinstance(position, int):
        return await cursors.seek(tx, place, group_id, "offset", offset=position)
    return await cursors.seek(tx, place, group_id, position)
