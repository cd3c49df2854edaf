"""Retain: hides what a topic no longer keeps, exactly and at once; the disk is freed later (loops/retention.py)."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from app import failpoints, metrics
from app.domain.group import Group
from app.domain.topic import Topic
from app.storage import retention
from app.storage.database import Database
from app.storage.retention import Limits
from app.telemetry import log

# How old what a pull sees of an age limit may be: this part of the age, and at most so long.
AGE_SHARE = 0.001
MAX_FRESH_S = 1.0


async def trim(db: Database, limits: Limits) -> None:
    """Moves the beginning of every partition of the topic to what it still keeps."""
    messages = 0
    for due in await retention.due_trims(db, limits):
        messages += await retention.trim(db, due)
        failpoints.hit(failpoints.TRIMMING)
    if messages:
        metrics.trimmed.inc(messages)
        log.info("trimmed", **place_of(limits), messages=messages)


async def trim_topic(db: Database, topic: Topic) -> None:
    """Before somebody looks at a topic: what is seen of it is exact at that moment, not at the last pass of a loop."""
    if topic.config.retention.is_limited:
        await _trim_now(db, topic.id)


async def trim_for(db: Database, group: Group) -> None:
    """Before somebody looks at where a group is."""
    if group.retention.is_limited:
        await _trim_now(db, group.topic_id)


class Trims:
    """The same for those who pull, however many they are: who comes while a topic is being trimmed waits for the next
    time, which is shared by all who do. An age of days is not looked at for every pull."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._turns: dict[int, Turn] = {}

    async def trim_for(self, group: Group) -> None:
        """Raises DatabaseUnavailable."""
        kept = group.retention
        if not kept.is_limited or group.is_hook:
            return
        now = asyncio.get_running_loop().time()
        turn = self._turns.setdefault(group.topic_id, Turn())
        if kept.max_count is None and kept.max_age_ms is not None:
            fresh_s = min(kept.max_age_ms / 1000 * AGE_SHARE, MAX_FRESH_S)
            if now - turn.begun < fresh_s:
                return
        turn.waiting += 1
        try:
            async with turn.lock:
                if turn.begun < now:
                    begun = asyncio.get_running_loop().time()
                    await _trim_now(self._db, group.topic_id)
                    turn.begun = begun
        finally:
            turn.waiting -= 1

    def forget(self) -> None:
        """Topics that nobody pulls from at the moment."""
        self._turns = {topic_id: turn for topic_id, turn in self._turns.items() if turn.waiting}


@dataclass(eq=False, slots=True)
class Turn:
    """``begun``: when the last trim that was carried out began, by the loop's clock."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    begun: float = -math.inf
    waiting: int = 0


async def _trim_now(db: Database, topic_id: int) -> None:
    for limits in await retention.limited_topics(db, topic_id):
        await trim(db, limits)


def place_of(limits: Limits) -> dict[str, str]:
    return {"project": limits.project, "environment": limits.environment, "topic": limits.topic}
