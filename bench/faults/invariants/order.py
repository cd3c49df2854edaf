"""Order and exclusion: I7 a key's messages come in order, one settled before the next; I8 one consumer at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Hashable

from bench.faults.delivery import Delivery, Flying, take_back_followers
from bench.faults.history import NEVER, SLACK
from bench.faults.picture import GroupPicture, Picture, floor_of
from bench.faults.verdict import Findings


def check(picture: Picture, findings: Findings) -> None:
    for group in picture.groups.values():
        if group.info.ordering != "none":
            _check_keys(picture, group, findings)
        _check_exclusion(group, findings)


def _check_keys(picture: Picture, group: GroupPicture, findings: Findings) -> None:
    """I7, and marks what failures took back, which I8 and I13 need."""
    by_key: dict[tuple[str, int], list[Delivery]] = defaultdict(list)
    for delivery in group.deliveries:
        if delivery.event.key is not None:
            by_key[delivery.event.key, delivery.event.epoch].append(delivery)
    done: dict[int, dict[int, int]] = defaultdict(dict)
    for (key, epoch), deliveries in by_key.items():
        take_back_followers(deliveries)
        for delivery in deliveries:
            moment = _released(group, delivery)
            known = done[epoch].get(delivery.offset, NEVER)
            done[epoch][delivery.offset] = min(known, moment)
        _check_one_key(picture, group, key, deliveries, done[epoch], findings)


def _released(group: GroupPicture, delivery: Delivery) -> int:
    """The earliest a delivery can have let go of its key for good: settled, or dead."""
    if delivery.event.att >= group.info.max_attempts:
        return min(delivery.acked, delivery.failed)
    return delivery.acked


def _check_one_key(
    picture: Picture,
    group: GroupPicture,
    key: str,
    deliveries: list[Delivery],
    done: dict[int, int],
    findings: Findings,
) -> None:
    offsets = picture.keys.get(key, [])
    ordered = sorted(deliveries, key=lambda each: (each.claimed, each.offset))
    # Of the seek that began this epoch: the answer of the last claim may have come after the next one.
    floor, _ = floor_of(picture, group, ordered[-1].claimed) if group.seeks else (0, 0)
    reached = bisect_left(offsets, floor)
    unsettled: dict[
        int, None
    ] = {}  # offsets before this index, as far as they were not settled before the claim at hand
    flying = Flying()
    hands: Counter[tuple[int, str]] = Counter()  # of what is flying: offset and consumer
    for delivery in ordered:
        index = picture.index.get(delivery.offset)
        if index is None or picture.log[delivery.offset].key != key:
            continue
        hands.subtract((other.offset, other.event.cons) for other in flying.land(delivery.claimed - SLACK))
        flying.take(delivery)
        hands[delivery.offset, delivery.event.cons] += 1
        unsettled |= dict.fromkeys(offsets[reached:index])
        reached = max(reached, index)
        for offset in [*unsettled]:
            if offset >= delivery.offset:
                break
            if done.get(offset, NEVER) <= delivery.claimed:
                del unsettled[offset]
                continue
            is_in_hand = hands[offset, delivery.event.cons] > 0
            if is_in_hand or _may_be_passed(picture, group, offset, delivery, done):
                continue
            earlier = group.by_offset.get(offset)
            findings.add(
                "I7", "key order", f"{group.name}: {key!r} at {delivery.offset} came before {offset} was settled",
                earlier[-1].event if earlier else picture.log.get(offset), delivery.event,
            )  # fmt: skip
            break


def _may_be_passed(picture: Picture, group: GroupPicture, offset: int, by: Delivery, done: dict[int, int]) -> bool:
    """Whether a later message of the key may be handed out although this one was not settled long before, and was not
    handed to the same consumer before."""
    if done.get(offset, NEVER) <= by.event.t1:
        return True
    if any(dead.exp <= by.event.t1 for dead in group.dead.get(offset, ())):
        return True
    value = picture.log[offset].val
    return bool(picture.asked(value, "delayMs") or picture.asked(value, "ttlMs"))


def _check_exclusion(group: GroupPicture, findings: Findings) -> None:
    """I8: from when one consumer has received something until it let go, no other one receives it.

    What "it" is depends on the ordering: the partition, the key, or the message.
    """
    scopes: dict[Hashable, list[Delivery]] = defaultdict(list)
    for delivery in group.deliveries:
        scopes[_scope(group, delivery)].append(delivery)
    for scope, deliveries in scopes.items():
        holding: dict[str, Delivery] = {}
        for delivery in sorted(deliveries, key=lambda each: each.event.t1):
            begin, owner = delivery.event.t1, delivery.event.cons
            if delivery.ended <= begin:
                continue  # it was over when it arrived
            for other in [name for name, held in holding.items() if held.ended <= begin + SLACK]:
                del holding[other]
            clash = next((held for name, held in holding.items() if name != owner), None)
            if clash is not None:
                what = f"{group.name}: {scope} is with {clash.event.cons} and {owner}"
                findings.add("I8", "concurrent in-flight", what, clash.event, delivery.event)
            if owner not in holding or holding[owner].ended < delivery.ended:
                holding[owner] = delivery


def _scope(group: GroupPicture, delivery: Delivery) -> Hashable:
    if group.info.ordering == "partition":
        return "the partition"
    if group.info.ordering == "key" and delivery.event.key is not None:
        return f"key {delivery.event.key!r}"
    return f"offset {delivery.offset}"
