"""Retain: hides what a topic no longer keeps, exactly and at once; the disk is freed later (loops/retention.py)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from app import metrics
from app.domain.group import Group
from app.domain.topic import Topic
from app.storage import retention
from app.storage.database import Database
from app.storage.retention import Limits
from app.telemetry import log


async def trim(db: Database, limits: Limits) -> None:
    """Moves the beginning of every partition of the topic to what it still keeps."""
    messages = sum([await retention.trim(db, due) for due in await retention.due_trims(db, limits)])
    if messages:
        metrics.trimmed.inc(messages)
        log.info("trimmed", **place_of(limits), messages=messages)


async def trim_topic(db: Database, topic: Topic) -> None:
    """Before somebody looks at a topic: what is seen of it is exact at that moment, not at the last pass of a loop."""
    kept = topic.config.retention
    if kept.max_age_ms is not None or kept.max_count is not None:
        await _trim_now(db, topic.id)


async def trim_for(db: Database, group: Group) -> None:
    """Before somebody looks at where a group is."""
    if group.is_limited:
        await _trim_now(db, group.topic_id)


class Trims:
    """The same for those who pull, however many they are: who comes while a topic is being trimmed waits for the next
    time, which is shared by all who do."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._turns: dict[int, Turn] = {}

    async def trim_for(self, group: Group) -> None:
        """Raises DatabaseUnavailable."""
        if not group.is_limited or group.is_hook:
            return
        turn = self._turns.setdefault(group.topic_id, Turn())
        turn.asked += 1
        mine = turn.asked
        turn.waiting += 1
        try:
            async with turn.lock:
                if turn.done < mine:
                    asked = turn.asked
                    await _trim_now(self._db, group.topic_id)
                    turn.done = asked
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[group.topic_id]


@dataclass(eq=False, slots=True)
class Turn:
    """``done``: the last of those who ``asked`` that a trim began after."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: int = 0
    done: int = 0
    waiting: int = 0


async def _trim_now(db: Database, topic_id: int) -> None:
    for limits in await retention.limited_topics(db, topic_id):
        await trim(db, limits)


def place_of(limits: Limits) -> dict[str, str]:
    return {"project": limits.project, "environment": limits.environment, "topic": limits.topic}
