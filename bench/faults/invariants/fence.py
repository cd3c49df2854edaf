"""I9: an ackId is good for its own delivery while that lives, and for nothing else."""

from __future__ import annotations

from itertools import pairwise

from bench.faults.delivery import Delivery
from bench.faults.history import NEVER, SLACK, Event
from bench.faults.picture import GroupPicture, Picture
from bench.faults.verdict import Findings


def check(picture: Picture, findings: Findings) -> None:
    for group in picture.groups.values():
        for first, second in group.repeated_tokens:
            findings.add("I9", "ackId given twice", f"{group.name}: one ackId for two deliveries", first, second)
        newer = _next_deliveries(group)
        for settle in group.settles:
            delivery = group.by_token.get(settle.tok or "")
            if settle.type == "ok" and delivery is not None and not group.info.is_push:
                _check_settle(group, settle, delivery, newer.get(settle.tok or ""), findings)
        _check_epochs(group, findings)


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
    moved = next(
        (s for s in group.seeks if s.type == "ok" and delivery.event.t1 < s.t0 and s.t1 < settle.t0), None
    )  # fmt: skip
    if moved is not None:
        findings.add("I9", "settle across a seek", f"{what}, was accepted after a seek", moved, settle)


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
    for seek in group.seeks:
        if seek.type == "ok":
            _check_seek(group, seek, findings)


def _check_seek(group: GroupPicture, seek: Event, findings: Findings) -> None:
    """What is claimed after a seek has another epoch than what was claimed before it."""
    before = max((d.event.epoch for d in group.deliveries if d.event.t1 < seek.t0), default=None)
    if before is None:
        return
    ignored = next(
        (d for d in group.deliveries if d.event.epoch <= before and d.event.t0 > seek.t1 and d.claimed < NEVER), None
    )
    if ignored is not None:
        findings.add("I9", "seek ignored", f"{group.name}: handed out under the epoch before it", seek, ignored.event)
