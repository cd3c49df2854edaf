"""Redrive: dead letters back to delivery, each with a full new budget of attempts."""

from __future__ import annotations

from app import failpoints, metrics
from app.broker.retain import trim_for
from app.broker.wakeups import Wakeups
from app.domain.errors import DeadLetterNotFound
from app.domain.group import Group
from app.domain.message import MessageId, parse_message_id, stamp_of
from app.domain.partition import topic_of
from app.storage import dead_letters
from app.storage.database import Database, clock
from app.storage.dead_letters import DeadLetter
from app.telemetry import log

AT_ONCE = 500


async def redrive(db: Database, wakeups: Wakeups, group: Group, message_id: str) -> int:
    """Returns how many: none where it is past its ttlMs, and stays a dead letter. Raises DeadLetterNotFound."""
    letter = await find_dead_letter(db, group, message_id)
    await trim_for(db, group)  # else what the log is about to lose would be left for the group to find there
    if not await dead_letters.redrive(db, letter.partition_id, group.id, [letter.offset]):
        await find_dead_letter(db, group, message_id)
        return 0
    failpoints.hit(failpoints.REDRIVEN)
    metrics.redriven.inc()
    log.info("redriven", topic=group.topic, group=group.name, count=1)
    wakeups.freed(group.id, (letter.partition_id,))
    return 1


async def redrive_all(db: Database, wakeups: Wakeups, group: Group) -> int:
    """Every letter there is now and that may still be delivered, oldest first; returns how many. What dies again
    meanwhile is not among them."""
    await trim_for(db, group)
    async with db.connection() as connection:
        until = await clock(connection)
    count = 0
    while True:
        letters = await dead_letters.oldest_dead_letters(db, group.id, until=until, limit=AT_ONCE)
        for partition_id, offsets in letters:
            count += await dead_letters.redrive(db, partition_id, group.id, offsets)
            wakeups.freed(group.id, (partition_id,))
        if sum(len(offsets) for _, offsets in letters) < AT_ONCE:
            metrics.redriven.inc(count)
            log.info("redriven", topic=group.topic, group=group.name, count=count)
            return count


async def delete_dead_letter(db: Database, group: Group, message_id: str) -> None:
    """Raises DeadLetterNotFound."""
    letter = await find_dead_letter(db, group, message_id)
    if not await dead_letters.delete_dead_letter(db, letter.partition_id, group.id, letter.offset):
        raise DeadLetterNotFound.of(message_id)


async def find_dead_letter(db: Database, group: Group, message_id: str) -> DeadLetter:
    """Raises DeadLetterNotFound, whatever the id looks like."""
    found = parse_message_id(message_id)
    if found is not None and topic_of(found.partition_id) == group.topic_id:
        letter = await dead_letters.read_dead_letter(db, found.partition_id, group.id, found.offset)
        if letter is not None and _is(letter, found):
            return letter
    raise DeadLetterNotFound.of(message_id)


def _is(letter: DeadLetter, found: MessageId) -> bool:
    return stamp_of(letter.published_at) == found.stamp
