"""I9: an ackId is good for its own delivery while that lives, and for nothing else."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

from bench.faults.delivery import Delivery
from bench.faults.history import NEVER, SLACK, Event
from bench.faults.picture import GroupPicture, Picture
from bench.faults.verdict import Findings


def check(picture: Picture, findings: Findings) -> None:
    for group in picture.groups.values():
        seeks = sorted((seek for seek in group.seeks if seek.type == "ok"), key=lambda seek: seek.t0)
        for first, second in group.repeated_tokens:
            findings.add("I9", "ackId given twice", f"{group.name}: one ackId for two deliveries", first, second)
        newer = _next_deliveries(group)
        for settle in group.settles:
            delivery = group.by_token.get(settle.tok or "")
            if settle.type == "ok" and delivery is not None and not group.info.is_push:
                _check_settle(group, settle, delivery, newer.get(settle.tok or ""), findings)
                _check_not_moved(group, settle, delivery, seeks, findings)
        _check_epochs(group, findings)
        _check_seeks(group, seeks, findings)


def _next_deliveries(group: GroupPicture) -> dict[str, Delivery]:
    """For each ackId the next delivery of the same message."""
    following: dict[str, Delivery] = {}
    for deliveries in group.by_offset.values():
        for first, second in pairwise(deliveries):
            following[first.event.tok or ""] = second
    return following


def _check_settle(
    group: GroupPicture, settle: Event, delivery: Delivery, newer: Delivery | None, findings: Findings
) -> None:
    what = f"{group.name}: {settle.f} of {delivery.event.val}, attempt {delivery.event.att}"
    if settle.f in ("ack", "discard") and delivery.acked < settle.t0:
        return  # a repeat, which changes nothing
    if newer is not None and newer.event.t1 < settle.t0:
        findings.add("I9", "zombie settle", f"{what}, was accepted after the next delivery", newer.event, settle)
    elif delivery.expires_hi + SLACK < settle.t0 and settle.f != "extend":
        findings.add("I9", "late settle", f"{what}, was accepted after its deadline", delivery.event, settle)
    if delivery.nack_ok is not None and settle is not delivery.nack_ok and delivery.nack_ok.t1 < settle.t0:
        findings.add("I9", "settled twice", f"{what}, was accepted after a nack", delivery.nack_ok, settle)
    if settle.f == "nack" and delivery.ack_ok is not None and delivery.ack_ok.t1 < settle.t0:
        findings.add("I9", "settled twice", f"{what}, was accepted after an ack", delivery.ack_ok, settle)


def _check_not_moved(
    group: GroupPicture, settle: Event, delivery: Delivery, seeks: Sequence[Event], findings: Findings
) -> None:
    """``seeks``: answered ok, in the order they were invoked. Of those after the delivery the first is over first, as
    far as it matters: seeks of a group come one after the other."""
    if settle.f in ("ack", "discard") and delivery.acked < settle.t0:
        return
    at = bisect_right(seeks, delivery.event.t1, key=lambda seek: seek.t0)
    if at < len(seeks) and seeks[at].t1 < settle.t0:
        what = f"{group.name}: {settle.f} of {delivery.event.val}, attempt {delivery.event.att}"
        findings.add("I9", "settle across a seek", f"{what}, was accepted after a seek", seeks[at], settle)


def _check_epochs(group: GroupPicture, findings: Findings) -> None:
    """Epochs rise with claims, and only a seek raises them."""
    last: Delivery | None = None
    for delivery in sorted(group.deliveries, key=lambda each: each.claimed):
        if last is not None and delivery.event.epoch < last.event.epoch and delivery.claimed > last.claimed + SLACK:
            findings.add("I9", "epoch fell", f"{group.name}: an older epoch was handed out", last.event, delivery.event)
        if last is not None and delivery.event.epoch > last.event.epoch:
            invoked = sum(seek.t0 < delivery.event.t1 for seek in group.seeks)
            if delivery.event.epoch > 1 + invoked:
                findings.add(
                    "I9", "epoch rose", f"{group.name}: a new epoch without a seek", last.event, delivery.event
                )
        if last is None or delivery.event.epoch >= last.event.epoch:
            last = delivery


def _check_seeks(group: GroupPicture, seeks: Sequence[Event], findings: Findings) -> None:
    """What is claimed after a seek has another epoch than what was claimed before it."""
    if not seeks:
        return
    by_end = sorted(group.deliveries, key=lambda delivery: delivery.event.t1)
    highest = list(accumulate((delivery.event.epoch for delivery in by_end), max))
    asked = sorted((delivery for delivery in by_end if delivery.claimed < NEVER), key=lambda each: each.event.t0)
    # From the back: the delivery with the lowest epoch among those asked for later.
    lowest: list[Delivery] = []
    for delivery in reversed(asked):
        is_lower = not lowest or delivery.event.epoch < lowest[-1].event.epoch
        lowest.append(delivery if is_lower else lowest[-1])
    for seek in seeks:
        before = bisect_left(by_end, seek.t0, key=lambda delivery: delivery.event.t1)
        after = len(asked) - bisect_right(asked, seek.t1, key=lambda delivery: delivery.event.t0)
        if before and after and lowest[after - 1].event.epoch <= highest[before - 1]:
            ignored = lowest[after - 1].event
            findings.add("I9", "seek ignored", f"{group.name}: handed out under the epoch before it", seek, ignored)
