"""Pause and resume, of a group or of a whole topic. After the answer to a pause nothing new is leased."""

from __future__ import annotations

from collections import defaultdict

from app import metrics
from app.broker.wakeups import Wakeups
from app.domain.group import Group
from app.domain.partition import partition_id
from app.domain.topic import Topic
from app.storage import cursors, endpoints
from app.storage.database import Database, on_collision_again
from app.telemetry import log


async def pause_group(db: Database, group: Group, reason: str | None = None) -> None:
    """What is in flight may still be settled. Only ``resume_group`` ends it."""

    async def attempt() -> None:
        async with db.transaction() as tx:
            await cursors.pause(tx, group.id, reason)

    await on_collision_again(attempt)
    metrics.paused.inc()
    log.info("paused", topic=group.topic, group=group.name, reason=reason)


async def resume_group(db: Database, wakeups: Wakeups, group: Group) -> None:
    async def attempt() -> None:
        async with db.transaction() as tx:
            await cursors.resume(tx, group.id)
            await endpoints.forget(tx, [group.id])  # whoever resumes a push believes that it works now

    await on_collision_again(attempt)
    metrics.resumed.inc()
    log.info("resumed", topic=group.topic, group=group.name)
    wakeups.freed(group.id, [partition_id(group.topic_id, number) for number in range(group.partitions)])


async def pause_topic(db: Database, topic: Topic, reason: str | None = None) -> None:
    """Pauses the present groups, and those that are declared while it lasts. Publishing goes on."""

    async def attempt() -> None:
        async with db.transaction() as tx:
            await cursors.pause_topic(tx, topic.id, reason)

    await on_collision_again(attempt)
    metrics.paused.inc()
    log.info("paused", topic=topic.name, reason=reason)


async def resume_topic(db: Database, wakeups: Wakeups, topic: Topic) -> None:
    """Groups that were paused themselves stay paused."""

    async def attempt() -> list[tuple[int, int]]:
        async with db.transaction() as tx:
            return await cursors.resume_topic(tx, topic.id)

    by_group = defaultdict(list)
    for group_id, place in await on_collision_again(attempt):
        by_group[group_id].append(place)
    metrics.resumed.inc()
    log.info("resumed", topic=topic.name)
    for group_id, places in by_group.items():
        wakeups.freed(group_id, places)
