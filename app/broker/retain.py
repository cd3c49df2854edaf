"""Retain: hides what a topic no longer keeps, exactly and at once; the disk is freed later (loops/retention.py)."""

from __future__ import annotations

from app import metrics
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
        for limits in await retention.limited_topics(db, topic.id):
            await trim(db, limits)


def place_of(limits: Limits) -> dict[str, str]:
    return {"project": limits.project, "environment": limits.environment, "topic": limits.topic}
