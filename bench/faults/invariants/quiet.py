"""When the faults are over: I16 everything is settled. While one group hangs: I15 the others do not notice."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice

from bench.faults.context import Context
from bench.faults.history import MS, NEVER, Event, option
from bench.faults.picture import GroupPicture, Picture, floor_of
from bench.faults.verdict import Findings

# Two times slower, and by more than what a busy machine does to anybody, is the hanging group's doing. The 90th
# percentile and not the 99th: consumers that fail on purpose make their followers wait, and that is the slow end.
SLOWER = 2.0
TOLERATED = 1000 * MS
ENOUGH = 100
SAMPLES = 20_000  # of a partition, at most twice as many

# By group: when a message was first delivered, and how long after its publish.
Latencies = dict[str, list[tuple[int, int]]]


def check(picture: Picture, findings: Findings) -> None:
    for group in picture.groups.values():
        for snapshot in group.snapshots:
            if snapshot.cons == "final":
                _check_final(group, snapshot, findings)
        if picture.final_audit is not None:
            _check_seen(picture, group, findings)


def _check_final(group: GroupPicture, snapshot: Event, findings: Findings) -> None:
    left = {name: count for name, count in (snapshot.data or {}).items() if count and name in UNSETTLED}
    if left:
        findings.add("I16", "stuck", f"{group.name}: {left} after the drain", snapshot)
    last = option(snapshot, "lastOffset")
    if last is not None and snapshot.off is not None and snapshot.off < last and not left:
        findings.add("I16", "cursor behind", f"{group.name}: {snapshot.off} of {last} with lag 0", snapshot)


UNSETTLED = ("lag", "inFlight", "retrying", "held", "delayed", "ahead")


def _check_seen(picture: Picture, group: GroupPicture, findings: Findings) -> None:
    """Every message of the log was settled by somebody who had received it, or is dead."""
    floor, since = floor_of(picture, group)
    final = picture.final_audit
    assert final is not None
    for event in picture.reads[final.cons]:
        assert event.off is not None
        if event.off < floor or not group.info.wants(event.key) or picture.asked(event.val, "ttlMs"):
            continue
        deliveries = [d for d in group.by_offset.get(event.off, ()) if d.event.t1 >= since]
        if any(d.acked < NEVER for d in deliveries) or group.dead.get(event.off):
            continue
        if any(d.event.att >= group.info.max_attempts and d.failed < NEVER for d in deliveries):
            continue
        if not deliveries:
            findings.add("I16", "unseen", f"{group.name} never received {event.val} at {event.off}", event)
        else:
            findings.add("I16", "unsettled", f"{group.name}: {event.val}", deliveries[-1].event, event)


def collect_latencies(picture: Picture, latencies: Latencies) -> None:
    """Adds each message's way, or where there are many a sample's, from its publisher to a group's first consumer."""
    if not any(option(fault, "hung") for fault in picture.context.faults):
        return
    for group in picture.groups.values():
        if group.info.is_push:
            continue  # its receiver hangs by itself
        step = max(1, len(group.by_offset) // SAMPLES)
        for deliveries in islice(group.by_offset.values(), 0, None, step):
            first = deliveries[0].event
            published = picture.publish_of(first.val)
            if published is not None and not option(published.first, "delayMs"):
                latencies.setdefault(group.name, []).append((first.t1, first.t1 - published.t0))


def check_independence(context: Context, latencies: Latencies, findings: Findings) -> None:
    """I15: while a group hangs and nothing else goes wrong, the others are about as fast as over the whole run.

    The rest of the run counts with its faults: leaving those out would leave out what was slow, and only that.
    """
    hangs = [fault for fault in context.faults if option(fault, "hung")]
    others = [fault for fault in context.faults if not option(fault, "hung")]
    if not hangs:
        return
    for name, samples in latencies.items():
        if all(option(fault, "hung") == name for fault in hangs):
            continue
        buckets: dict[bool, list[int]] = defaultdict(list)
        for moment, latency in samples:
            begin = moment - latency
            if any(option(fault, "hung") == name and fault.t0 <= moment for fault in hangs):
                continue  # it hangs itself, or catches up
            hang = next((fault for fault in hangs if fault.t0 <= begin <= fault.t1), None)
            if hang and any(fault.t0 <= min(moment, hang.t1) and begin <= fault.t1 for fault in others):
                continue
            buckets[hang is not None].append(latency)
        if min(len(buckets[True]), len(buckets[False])) < ENOUGH:
            findings.undecided["independence: too few messages"] += 1
            continue
        hung, usual = _p90(buckets[True]), _p90(buckets[False])
        if hung > SLOWER * usual + TOLERATED:
            detail = f"{name}: p90 {hung // MS} ms while another hangs, {usual // MS} ms otherwise"
            findings.add("I15", "cross-talk", detail, hangs[0])


def _p90(values: list[int]) -> int:
    return sorted(values)[int(len(values) * 0.9)]
