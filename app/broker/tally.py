"""Tally: counts what became of deliveries and tells of it, once per batch.

What is common is told at debug, what somebody may have to look into at info. Hooks are pushes of the server's own and
have counters of their own (``logpost_hooks``).
"""

from __future__ import annotations

from app import metrics
from app.domain.group import Group
from app.storage.leases import Claim
from app.telemetry import log


def published(stored: int, duplicates: int) -> None:
    """One commit of the appender."""
    if stored:
        metrics.published.inc(stored)
    if duplicates:
        metrics.duplicate.inc(duplicates)
    log.debug("published", messages=stored, duplicates=duplicates)


def claimed(group: Group, claim: Claim) -> None:
    """A claim and those it came across: buried, hidden by the filter, past their time, taken by retention."""
    if group.is_hook:
        return
    named = {"topic": group.topic, "group": group.name}
    if claim.count:
        metrics.claimed.inc(claim.count)
        log.debug("claimed", **named, messages=claim.count)
    if claim.filtered:
        metrics.filtered.inc(claim.filtered)
        log.debug("filtered", **named, messages=claim.filtered)
    if claim.expired:
        metrics.expired.inc(claim.expired)
        log.info("expired", **named, messages=claim.expired)
    if claim.lost:
        metrics.lost.inc(claim.lost)
        log.warning("lost", **named, messages=claim.lost)
    if claim.dead:
        metrics.dead.inc(claim.dead)
        log.warning("dead", **named, messages=claim.dead)


def acked(count: int) -> None:
    """One commit of acks, of whatever groups."""
    if count:
        metrics.acked.inc(count)
        log.debug("acked", messages=count)


def nacked(group: Group, count: int, dead: int) -> None:
    """``count`` deliveries were given up as failed; ``dead`` of them had no attempt left."""
    if group.is_hook or not count:
        return
    metrics.nacked.inc(count)
    log.info("nacked", topic=group.topic, group=group.name, messages=count)
    if dead:
        metrics.dead.inc(dead)
        log.warning("dead", topic=group.topic, group=group.name, messages=dead)


def discarded(group: Group, count: int) -> None:
    if group.is_hook or not count:
        return
    metrics.discarded.inc(count)
    log.info("discarded", topic=group.topic, group=group.name, messages=count)


def repaired(messages: int, cursors: int, dead: int) -> None:
    """What the rescue took back: ``messages`` of ``cursors``, ``dead`` of them without an attempt left."""
    if messages:
        metrics.repaired.inc(messages)
        log.info("repaired", messages=messages, cursors=cursors)
    if dead:
        metrics.dead.inc(dead)
        log.warning("dead", messages=dead)
