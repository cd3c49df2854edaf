"""Pushes: I12 and I13 as far as a receiver can judge them. It sees requests and what it answered, never a lease.

A 2xx that was written whole is an ack, unless the server that was to settle it was hit before it had; then the lease
runs out and the message comes again. So each repeat after a 2xx needs a fault, or a standstill of the whole, and all of
them together are at most what was under way when those came. Where nothing was hit, attempts count up by one.
"""

from __future__ import annotations

from itertools import pairwise

from bench.faults.context import Context
from bench.faults.delivery import Delivery
from bench.faults.history import SECOND
from bench.faults.picture import GroupPicture, Picture
from bench.faults.verdict import Findings

Repeats = dict[tuple[str, str], int]

# Within this a 2xx is settled, where nothing happens.
SETTLED = SECOND


def check(picture: Picture, findings: Findings, repeats: Repeats) -> None:
    """Adds to ``repeats`` how often a group's messages came again after a 2xx."""
    for group in picture.groups.values():
        if not group.info.is_push:
            continue
        for deliveries in group.by_offset.values():
            _check_first(picture, group, deliveries[0], findings)
            for first, second in pairwise(deliveries):
                _check_pair(picture.context, group, first, second, findings, repeats)


def _check_first(picture: Picture, group: GroupPicture, delivery: Delivery, findings: Findings) -> None:
    event = delivery.event
    published = picture.publish_of(event.val)
    since = published.t0 if published else 0
    if event.att > 1 and not picture.context.troubled(since, event.t1):
        findings.add("I13", "attempts skipped", f"{group.name}: {event.val} starts at attempt {event.att}", event)


def _check_pair(
    context: Context, group: GroupPicture, first: Delivery, second: Delivery, findings: Findings, repeats: Repeats
) -> None:
    what = f"{group.name}: {second.event.val}, attempt {second.event.att} after {first.event.att}"
    was_hit = context.troubled(first.event.t1, second.event.t1)
    ok = first.ack_ok
    if ok is not None and ok.t1 < second.event.t1:
        place = group.info.topic, group.name
        repeats[place] = repeats.get(place, 0) + 1
        if not context.troubled(first.event.t1, ok.t1 + SETTLED):
            findings.add("I12", "acknowledged redelivered", what, first.event, ok, second.event)
        return
    if second.event.att < first.event.att:
        findings.add("I13", "attempt fell", what, first.event, second.event)
    elif second.event.att == first.event.att and not was_hit:
        findings.add("I13", "attempt not counted", what, first.event, second.event)
    elif second.event.att > first.event.att + 1 and not was_hit:
        findings.add("I13", "attempts burned", what, first.event, second.event)


def check_total(context: Context, repeats: Repeats, findings: Findings) -> None:
    """I12: what a fault can bring again is what was at the receiver or about to be settled, and no more."""
    faults = sum(not (fault.data or {}).get("hung") for fault in context.faults) + len(context.standstills())
    for place, count in repeats.items():
        most = faults * (context.groups[place].in_flight or 0)
        if count > most:
            detail = f"{place[1]}: {count} came again after a 2xx; {faults} faults and standstills explain {most}"
            findings.add("I12", "redelivered too often", detail)
