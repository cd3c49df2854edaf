"""Tally: counts what became of deliveries and tells of it, once per batch.

What is common is told at debug, what somebody may have to look into at info. Hooks are pushes of the server's own and
have counters of their own (``logpost_hooks``).
"""

from __future__ import annotations

from typing import Literal

from prometheus_client import Counter

from app import metrics
from app.domain.group import Group
from app.storage.claims import Claim
from app.telemetry import log, tells_debug

Level = Literal["debug", "info", "warning"]


def published(stored: int, duplicates: int) -> None:
    """One commit of the appender."""
    if stored:
        metrics.published.inc(stored)
    if duplicates:
        metrics.duplicate.inc(duplicates)
    if tells_debug():
        log.debug("published", messages=stored, duplicates=duplicates)


def claimed(group: Group, claim: Claim) -> None:
    """A claim and those it came across: buried, hidden by the filter, past their time, taken by retention."""
    _tell(group, "claimed", metrics.claimed, claim.count, "debug")
    _tell(group, "filtered", metrics.filtered, claim.filtered, "debug")
    _tell(group, "expired", metrics.expired, claim.expired, "info")
    _tell(group, "lost", metrics.lost, claim.lost, "warning")
    _tell(group, "dead", metrics.dead, claim.dead, "warning")


def acked(count: int) -> None:
    """One commit of acks, of whatever groups."""
    if count:
        metrics.acked.inc(count)
        if tells_debug():
            log.debug("acked", messages=count)


def nacked(group: Group, count: int, dead: int) -> None:
    """``count`` deliveries were given up as failed; ``dead`` of them had no attempt left."""
    _tell(group, "nacked", metrics.nacked, count, "info")
    _tell(group, "dead", metrics.dead, dead, "warning")


def discarded(group: Group, count: int) -> None:
    _tell(group, "discarded", metrics.discarded, count, "info")


def _tell(group: Group, event: str, counter: Counter, count: int, level: Level) -> None:
    if count and not group.is_hook:
        counter.inc(count)
        if level != "debug" or tells_debug():
            getattr(log, level)(event, topic=group.topic, group=group.name, messages=count)


def repaired(messages: int, cursors: int, dead: int) -> None:
    """What the rescue took back: ``messages`` of ``cursors``, ``dead`` of them without an attempt left."""
    if messages:
        metrics.repaired.inc(messages)
        log.info("repaired", messages=messages, cursors=cursors)
    if dead:
        metrics.dead.inc(dead)
        log.warning("dead", messages=dead)
