"""The log itself: I1 nothing acknowledged is lost, I2 no phantom, I3 one value at one place, I4 no gap, I5 real-time
order, I14 idempotency, I20 bodies."""

from __future__ import annotations

from bench.faults.history import Event, option
from bench.faults.picture import Picture, Published
from bench.faults.verdict import Findings


def check(picture: Picture, findings: Findings) -> None:
    for audit in picture.audits:
        _check_nothing_lost(picture, audit, findings)
        _check_offsets(picture, audit, findings)
    _check_observers(picture, findings)
    _check_real_time_order(picture, findings)
    _check_idempotency(picture, findings)


def _check_nothing_lost(picture: Picture, audit: Event, findings: Findings) -> None:
    """I1: every value acknowledged before an audit began is in it."""
    found = {event.val for event in picture.reads[audit.cons]}
    base = option(audit, "first") or 1
    for value, published in picture.published.items():
        here = next((event for event in published.ok if event.part == picture.part), None)
        if here is None or published.t1 >= audit.t0 or value in found:
            continue
        if here.off is not None and here.off < base:
            continue  # trimmed: retention's business
        kind = "lost write, still handed out" if any(e.val == value for e in picture.log.values()) else "lost write"
        findings.add("I1", kind, f"{value} was acknowledged and is not in {audit.cons}", here, audit)


def _check_offsets(picture: Picture, audit: Event, findings: Findings) -> None:
    """I4: the offsets of an audit are contiguous, and no value is there twice."""
    expected = option(audit, "first") or 1
    values: dict[str, Event] = {}
    for event in sorted(picture.reads[audit.cons], key=lambda read: read.off or 0):
        assert event.off is not None
        if event.off > expected:
            findings.add("I4", "gap", f"{audit.cons} has no offset {expected} to {event.off - 1}", event, audit)
        elif event.off < expected:
            findings.add("I4", "repeat", f"{audit.cons} has offset {event.off} twice", event, audit)
        expected = event.off + 1
        if event.val is None:
            continue
        if (twin := values.get(event.val)) is not None and twin.off != event.off:
            findings.add("I4", "duplicate", f"{event.val} is stored at {twin.off} and at {event.off}", twin, event)
        values[event.val] = event
    if audit.off is not None and expected <= audit.off:
        findings.add("I4", "gap", f"{audit.cons} ends before offset {audit.off}, which exists", audit)


def _check_observers(picture: Picture, findings: Findings) -> None:
    """I2, I3, I20: whoever saw a message saw one that was published, the same one at this offset, and unharmed."""
    for event in picture.observed:
        published = picture.publish_of(event.val)
        if published is None:
            findings.add("I2", "phantom", f"{event.val} at {event.off} was never published here", event)
            continue
        if not published.maybe:
            findings.add("I2", "aborted read", f"{event.val} was refused and is there", published.first, event)
        if event.sha is not None and event.sha != published.first.sha:
            findings.add("I20", "corruption", f"{event.val} arrived changed", published.first, event)
        if event.f != "publish" and event.key != published.first.key:
            findings.add("I20", "other key", f"{event.val} has another key", published.first, event)
        first = picture.log.get(event.off or 0)
        if first is not None and first.val != event.val:
            findings.add("I3", "inconsistent offset", f"offset {event.off}: {first.val} and {event.val}", first, event)


def _check_real_time_order(picture: Picture, findings: Findings) -> None:
    """I5: A acknowledged before B was invoked has the smaller offset."""
    latest: Published | None = None
    for offset in sorted(picture.log):
        published = picture.publish_of(picture.log[offset].val)
        if published is None:
            continue
        if latest is not None and published.t1 < latest.t0:
            findings.add(
                "I5", "nonmonotonic send",
                f"{published.first.val} at {offset} was acknowledged before {latest.first.val}, which lies before it, "
                "was invoked", published.ok[0], latest.first,
            )  # fmt: skip
        if latest is None or published.t0 > latest.t0:
            latest = published


def _check_idempotency(picture: Picture, findings: Findings) -> None:
    """I14: a key has one message, every answer says where it is, and another payload is refused."""
    for key, events in picture.by_idempotency.items():
        ok = [event for event in events if event.type == "ok"]
        if not ok:
            continue
        first = min(ok, key=lambda event: event.t1)
        if (other := next((e for e in ok if (e.part, e.off) != (first.part, first.off)), None)) is not None:
            findings.add("I14", "two answers", f"key {key} led to {first.off} and {other.off}", first, other)
        if (other := next((e for e in ok if e.sha != first.sha), None)) is not None:
            findings.add("I14", "reuse accepted", f"key {key} was accepted with another payload", first, other)
        fresh = [event for event in ok if not event.dup]
        if len(fresh) > 1:
            findings.add("I14", "two firsts", f"key {key} was new twice", *fresh[:2])
        if not fresh and all(event.dup for event in events if event.type in ("ok", "info")):
            findings.add("I14", "duplicate of nothing", f"key {key} was a repeat the first time", first)
    stored: dict[str, Event] = {}
    for event in picture.log.values():
        published = picture.publish_of(event.val)
        key_of = published.first.idem if published else None
        if key_of is None:
            continue
        if (twin := stored.get(key_of)) is not None and twin.val != event.val:
            findings.add("I14", "duplicate", f"key {key_of} has messages at {twin.off} and {event.off}", twin, event)
        stored[key_of] = event
