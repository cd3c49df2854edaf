"""One message's deliveries in turn: I12 nothing acknowledged comes again, I13 attempts, dead letters, I18 backoff.
Pushes have rules of their own (pushes.py)."""

from __future__ import annotations

from itertools import pairwise

from bench.faults.context import Context
from bench.faults.delivery import Delivery
from bench.faults.history import MS, NEVER, SLACK, Event
from bench.faults.picture import GroupPicture, Picture
from bench.faults.verdict import Findings


def check(picture: Picture, findings: Findings) -> None:
    for group in picture.groups.values():
        for offset, deliveries in group.by_offset.items():
            for life in lives(group, offset, deliveries) if not group.info.is_push else ():
                _check_first(picture, group, life[0], findings, redriven=life[0] is not deliveries[0])
                for first, second in pairwise(life):
                    _check_pair(picture.context, group, first, second, findings)
            _check_limits(group, deliveries, findings)
            _check_buried(picture.context, group, offset, deliveries, findings)
        for offset, entries in group.dead.items():
            for entry in entries:
                _check_dead(picture.context, group, offset, entry, findings)


def lives(group: GroupPicture, offset: int, deliveries: list[Delivery]) -> list[list[Delivery]]:
    """Cuts a message's deliveries where a seek or a redrive began anew."""
    redrives = group.redrives.get(offset, [])
    found: list[list[Delivery]] = []
    for delivery in deliveries:
        last = found[-1][-1] if found else None
        if last is not None and last.event.epoch == delivery.event.epoch and not _redriven(redrives, last, delivery):
            found[-1].append(delivery)
        else:
            found.append([delivery])
    return found


def _redriven(redrives: list[Event], first: Delivery, second: Delivery) -> bool:
    return any(
        redrive.t0 < second.event.t1
        and (redrive.t1 > first.claimed or redrive.type == "info")
        and (redrive.type == "ok" or second.event.att <= first.event.att)
        for redrive in redrives
    )


def _check_first(
    picture: Picture, group: GroupPicture, delivery: Delivery, findings: Findings, *, redriven: bool
) -> None:
    """A first delivery that says more than attempt 1 needs as many claims whose answers were lost."""
    event = delivery.event
    lost = picture.context.lost_between(picture.topic, group.name, 0, event.t1)
    if event.att - 1 > lost and not redriven:
        findings.add("I13", "attempts skipped", f"{group.name}: {event.val} starts at attempt {event.att}", event)
    published, delay = picture.publish_of(event.val), picture.asked(event.val, "delayMs")
    if published is not None and delay and delivery.claimed + SLACK < published.t0 + delay * MS and not redriven:
        findings.add("I18", "before its delay", f"{group.name}: {event.val} came early", published.first, event)


def _check_pair(context: Context, group: GroupPicture, first: Delivery, second: Delivery, findings: Findings) -> None:
    """Two deliveries in a row of one life."""
    what = f"{group.name}: {second.event.val}, attempt {second.event.att} after {first.event.att}"
    ok = first.ack_ok
    if ok is not None and max(second.event.t0, second.claimed - SLACK) > ok.t1:
        findings.add("I12", "acknowledged redelivered", what, ok, second.event)
        return
    if second.claimed + SLACK < first.ended and second.claimed > first.event.t1:
        findings.add("I12", "duplicate in flight", what, first.event, second.event)
        return
    used = second.event.att - first.event.att
    if used < 0:
        findings.add("I13", "attempt fell", what, first.event, second.event)
    elif used == 0 and first.taken == NEVER and not (first.acked < NEVER and first.nacked == NEVER and ok is not None):
        findings.add("I13", "attempt not counted", what, first.event, second.event)
    elif used > 0:
        _check_used(context, group, first, second, findings)


def _check_used(context: Context, group: GroupPicture, first: Delivery, second: Delivery, findings: Findings) -> None:
    used = second.event.att - first.event.att
    what = f"{group.name}: {second.event.val}, attempt {second.event.att} after {first.event.att}"
    lost = context.lost_between(group.info.topic, group.name, first.event.t0, second.event.t1)
    failed = int(first.failed < second.claimed + SLACK)
    if used > failed + lost:
        findings.add("I13", "attempts burned", what, first.event, second.event)
        return
    if used > 1:
        return
    due = min(
        first.nacked + _delay(group, first, explicit=True) if first.nacked < NEVER else NEVER,
        first.expires_lo + _delay(group, first, explicit=False) if first.expires_lo < NEVER else NEVER,
    )
    if not lost and second.claimed + SLACK < due and second.claimed > first.event.t1:
        early = (due - second.claimed) // MS
        findings.add("I18", "too early", f"{what}: {early} ms before it was due", first.event, second.event)


def _delay(group: GroupPicture, delivery: Delivery, *, explicit: bool) -> int:
    if explicit and delivery.nack_delay is not None:
        return delivery.nack_delay * MS
    return group.info.shortest_backoff(delivery.event.att)


def _check_limits(group: GroupPicture, deliveries: list[Delivery], findings: Findings) -> None:
    for delivery in deliveries:
        if not 1 <= delivery.event.att <= group.info.max_attempts:
            findings.add("I13", "too many attempts", f"{group.name}: attempt {delivery.event.att}", delivery.event)
        if not group.info.wants(delivery.event.key):
            findings.add("I2", "filtered out", f"{group.name} was given {delivery.event.val}", delivery.event)


def _check_buried(
    context: Context, group: GroupPicture, offset: int, deliveries: list[Delivery], findings: Findings
) -> None:
    """Who failed the last attempt for certain is found among the dead letters."""
    if not group.info.dead_letters:
        return
    for delivery in deliveries:
        nack = delivery.nack_ok
        if nack is None or delivery.event.att < group.info.max_attempts or delivery.acked < NEVER:
            continue
        if group.info.is_push and context.troubled(nack.t0, nack.t1):
            continue  # an answer that was never carried out
        seen = any(dead.exp + SLACK >= nack.t0 for dead in group.dead.get(offset, ()))
        if not seen and not group.redrives.get(offset):
            findings.add("I13", "no dead letter", f"{group.name}: {delivery.event.val} failed for good", nack)


def _check_dead(context: Context, group: GroupPicture, offset: int, entry: Event, findings: Findings) -> None:
    what = f"{group.name}: {entry.val} is dead"
    if entry.att < group.info.max_attempts:
        findings.add("I13", "buried alive", f"{what} after {entry.att} attempts", entry)
    known = [d for d in group.by_offset.get(offset, ()) if d.claimed <= entry.exp - SLACK]
    if not known or group.seek_between(known[-1].claimed, entry.exp):
        return
    last = known[-1]
    if last.ack_ok is not None and not (group.info.is_push and context.troubled(last.event.t1, entry.exp)):
        findings.add("I13", "acked and dead", f"{what}, and its last delivery was acknowledged", last.ack_ok, entry)
    # One that was claimed and failed within a moment may lie on either side of the other clock's time of death.
    may_have = [d for d in group.by_offset.get(offset, ()) if d.claimed <= entry.exp + SLACK]
    if last.event.att >= group.info.max_attempts and not any(d.failed <= entry.exp + SLACK for d in may_have):
        findings.add("I13", "dead without failing", f"{what}, and its last delivery had not failed", last.event, entry)
