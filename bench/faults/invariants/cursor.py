"""I10: the committed offset passes nothing that is unsettled. I11: it falls by a seek only."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from bench.faults.history import NEVER, SLACK, Event, option
from bench.faults.picture import GroupPicture, Picture, floor_of, sections
from bench.faults.verdict import Findings


def check(picture: Picture, findings: Findings) -> None:
    for group in picture.groups.values():
        snapshots = sorted(group.snapshots, key=lambda snapshot: snapshot.t0)
        _check_never_falls(group, snapshots, findings)
        at = 0
        for seek, _, end in sections(group):
            inside = []
            while at < len(snapshots) and snapshots[at].t0 < end:
                inside.append(snapshots[at])
                at += 1
            if inside:
                _check_passes_nothing(picture, group, seek, inside, findings)


def _check_never_falls(group: GroupPicture, snapshots: Iterable[Event], findings: Findings) -> None:
    highest: Event | None = None
    for snapshot in snapshots:
        if snapshot.off is None:
            continue
        if highest is not None and group.seek_between(highest.t0, snapshot.t1):
            highest = None
        if highest is not None and highest.t1 < snapshot.t0 and snapshot.off < (highest.off or 0):
            findings.add("I11", "cursor fell", f"{group.name}: from {highest.off} to {snapshot.off}", highest, snapshot)
        if highest is None or snapshot.off > (highest.off or 0):
            highest = snapshot


def _check_passes_nothing(
    picture: Picture, group: GroupPicture, seek: Event | None, snapshots: list[Event], findings: Findings
) -> None:
    """Everything at or below a snapshot's offset had a settle invoked when the snapshot ended."""
    floor, since = floor_of(picture, group, snapshots[-1].t1)
    since = min(since, seek.t0 - SLACK) if seek else 0
    offsets, latest, worst = [], [], []
    running, culprit = 0, 0
    highest = max(snapshot.off or 0 for snapshot in snapshots)
    here = picture.offsets
    for offset in here[bisect_left(here, floor) : bisect_right(here, highest)]:
        moment = _settled_at(picture, group, offset, since)
        if moment > running:
            running, culprit = moment, offset
        offsets.append(offset)
        latest.append(running)
        worst.append(culprit)
    for snapshot in snapshots:
        at = bisect_right(offsets, snapshot.off or 0) - 1
        first = option(snapshot, "firstOffset") or 1
        if at < 0 or latest[at] <= snapshot.t1 or worst[at] < first:
            continue
        found = group.by_offset.get(worst[at])
        findings.add(
            "I10", "cursor passes unsettled", f"{group.name}: {snapshot.off} is committed, {worst[at]} was not settled",
            found[-1].event if found else picture.log[worst[at]], snapshot,
        )  # fmt: skip


def _settled_at(picture: Picture, group: GroupPicture, offset: int, since: int) -> int:
    """The earliest an offset can have counted as settled after a time, or NEVER."""
    if not group.info.wants(picture.log[offset].key):
        return 0
    moments = [d.acked for d in group.by_offset.get(offset, ()) if d.acked >= since]
    moments += [dead.exp - SLACK for dead in group.dead.get(offset, ()) if dead.exp >= since]
    moments += [
        d.failed - SLACK
        for d in group.by_offset.get(offset, ())
        if d.event.att >= group.info.max_attempts and d.failed >= since
    ]
    if not moments:
        return 0 if picture.asked(picture.log[offset].val, "ttlMs") else NEVER
    return min(moments)
