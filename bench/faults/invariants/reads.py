"""Readers of the log and what retention leaves them: I6 no skip, I17 nothing gone early, nothing kept too long."""

from __future__ import annotations

from bench.faults.history import MS, SLACK, Event, option
from bench.faults.picture import Picture
from bench.faults.verdict import Findings


def check(picture: Picture, findings: Findings) -> None:
    for session, events in picture.reads.items():
        if session.startswith("tail:"):
            _check_session(session, events, findings)
    for audit in picture.audits:
        _check_retention(picture, audit, findings)
    _check_ttl(picture, findings)


def _check_session(session: str, events: list[Event], findings: Findings) -> None:
    """I6: who reads on from the last offset gets the next one. A declared gap (data {gap: true}) is no skip."""
    last: Event | None = None
    for event in events:
        if last is not None and last.off is not None and event.off is not None:
            if event.off <= last.off:
                findings.add("I6", "nonmonotonic poll", f"{session} got {event.off} after {last.off}", last, event)
            elif event.off > last.off + 1 and not option(event, "gap"):
                findings.add("I6", "poll skip", f"{session} got {event.off} after {last.off}", last, event)
        last = event


def _check_retention(picture: Picture, audit: Event, findings: Findings) -> None:
    """I17: below the first offset of an audit everything is past its limit; from it on nothing is."""
    topic = picture.context.topics.get(picture.topic)
    base = option(audit, "first") or 1
    max_age, max_count = (option(topic, "maxAgeMs"), option(topic, "maxCount")) if topic else (None, None)
    here = picture.reads[audit.cons]
    if max_count is not None and option(audit, "final"):
        total, kept = option(audit, "topicTotal"), option(audit, "topicKept")
        if total is not None and kept != min(total, max_count):
            findings.add("I17", "wrong count", f"{kept} kept of {total} with maxCount {max_count}", audit)
    for offset, event in picture.log.items():
        published = picture.publish_of(event.val)
        if published is None or offset >= base or max_count is not None:
            continue
        if max_age is None:
            findings.add("I17", "trimmed without limit", f"offset {offset} is gone", event, audit)
        elif published.t0 + max_age * MS > audit.t1 + SLACK:
            findings.add("I17", "early delete", f"offset {offset} is gone before its time", published.first, audit)
    if max_age is None:
        return
    for event in here:
        published = picture.publish_of(event.val)
        if published is not None and published.t1 + max_age * MS < event.t0 - SLACK:
            findings.add("I17", "late delete", f"offset {event.off} is past retention and read", published.ok[0], event)


def _check_ttl(picture: Picture, findings: Findings) -> None:
    """I17: a message past its ttlMs is not handed out."""
    for group in picture.groups.values():
        for delivery in group.deliveries:
            published = picture.publish_of(delivery.event.val)
            ttl = picture.asked(delivery.event.val, "ttlMs")
            if published is None or ttl is None:
                continue
            if published.t1 < 2**62 and delivery.claimed - SLACK > published.t1 + ttl * MS:
                findings.add(
                    "I17", "past its ttl", f"{delivery.event.val} was handed out", published.first, delivery.event
                )
