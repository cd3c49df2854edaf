"""One partition as its clients saw it: publishes by value, the log by offset, and each group's deliveries."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from bench.faults.context import Context, GroupInfo
from bench.faults.delivery import LATE_EXECUTION, Delivery, claim_together, end_at_seeks, settle_all
from bench.faults.history import NEVER, SLACK, Event, option


@dataclass(slots=True)
class Published:
    """Every attempt to publish one value. ``t0``: the first was invoked; ``t1``: the first ok answer, or NEVER."""

    first: Event
    t0: int
    t1: int = NEVER
    ok: list[Event] = field(default_factory=list)
    maybe: bool = False
    """An attempt may have been stored: ok, or of unknown outcome."""

    def take(self, event: Event) -> None:
        self.t0 = min(self.t0, event.t0)
        if event.type == "ok":
            self.t1 = min(self.t1, event.t1)
            self.ok.append(event)
        if event.type in ("ok", "info"):
            self.maybe = True


@dataclass
class GroupPicture:
    """One group in one partition. ``seeks`` are those that may have moved it here, by time."""

    info: GroupInfo
    deliveries: list[Delivery] = field(default_factory=list)
    by_token: dict[str, Delivery] = field(default_factory=dict)
    by_offset: dict[int, list[Delivery]] = field(default_factory=lambda: defaultdict(list))
    settles: list[Event] = field(default_factory=list)
    snapshots: list[Event] = field(default_factory=list)
    dead: dict[int, list[Event]] = field(default_factory=lambda: defaultdict(list))
    redrives: dict[int, list[Event]] = field(default_factory=lambda: defaultdict(list))
    seeks: list[Event] = field(default_factory=list)
    repeated_tokens: list[tuple[Event, Event]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.info.name

    def finish(self) -> None:
        """When everything is there."""
        if not self.info.is_push:
            claim_together(self.deliveries)
        settle_all(self.by_token, self.settles)
        end_at_seeks(self.deliveries, self.seeks)
        for entries in self.dead.values():
            entries.sort(key=lambda entry: entry.exp)
        for found in self.by_offset.values():
            found.sort(key=lambda delivery: (delivery.claimed, delivery.event.t1))

    def last_sure_seek(self, before: int = NEVER) -> Event | None:
        """The latest seek that was over before a time, whose effect nothing of unknown outcome can have followed."""
        return max((s for s in self.seeks if s.type == "ok" and s.t1 < before), key=lambda s: s.t0, default=None)

    def unsure_seeks(self, after: Event | None, until: int = NEVER) -> list[Event]:
        """Seeks that may have taken effect after ``after`` and before ``until``: under way, or of unknown outcome."""
        begin = after.t0 if after else 0
        return [
            seek
            for seek in self.seeks
            if seek is not after and seek.t0 < until and (seek.t0 > begin or latest_effect(seek) > begin)
        ]

    def seek_between(self, begin: int, end: int) -> bool:
        """Whether any seek may have taken effect in a time."""
        return any(s.t0 <= end and latest_effect(s) >= begin for s in self.seeks)


class Picture:
    """Everything of one partition. Built once; the invariants only read it."""

    def __init__(self, context: Context, topic: str, part: int, events: Iterable[Event]) -> None:
        self.context = context
        self.topic = topic
        self.part = part
        self.published: dict[str, Published] = {}
        self.by_idempotency: dict[str, list[Event]] = defaultdict(list)
        self.observed: list[Event] = []  # everything that says which value is at an offset, in no order
        self.reads: dict[str, list[Event]] = defaultdict(list)
        self.audits: list[Event] = []
        self.groups: dict[str, GroupPicture] = {}
        for (of, name), info in context.groups.items():
            if of == topic:
                seeks = [s for s in context.seeks if s.group == name and s.topic == topic and s.part in (None, part)]
                self.groups[name] = GroupPicture(info, seeks=seeks)
        for event in context.floating:
            if event.topic == topic:
                self._take_publish(event)
        for event in events:
            take = getattr(self, f"_take_{event.f}", None)
            if take is not None:
                take(event)
        self.log = self._make_log()
        self.keys: dict[str, list[int]] = defaultdict(list)
        self.offsets = sorted(self.log)
        self.index: dict[int, int] = {}  # of an offset among those of its key
        for offset in self.offsets:
            key = self.log[offset].key
            if key is not None:
                self.index[offset] = len(self.keys[key])
                self.keys[key].append(offset)
        for group in self.groups.values():
            group.finish()

    @property
    def final_audit(self) -> Event | None:
        return next((audit for audit in self.audits if option(audit, "final")), None)

    def publish_of(self, value: str | None) -> Published | None:
        return self.published.get(value) if value is not None else None

    @cached_property
    def begun(self) -> tuple[list[int], list[int]]:
        """When publishes were invoked, in order, and the last offset of those before each, and of all at the end."""
        invoked = []
        for offset, event in self.log.items():
            published = self.publish_of(event.val)
            invoked.append((published.t0 if published is not None else -1, offset))
        invoked.sort()
        return [at for at, _ in invoked], [0, *accumulate((offset for _, offset in invoked), max)]

    def asked(self, value: str | None, name: str) -> int | None:
        """What a message's publisher asked for: delayMs, ttlMs."""
        published = self.publish_of(value)
        return option(published.first, name) if published else None

    def _make_log(self) -> dict[int, Event]:
        """For every offset somebody saw: who saw it first, the final audit before all others."""
        log: dict[int, Event] = {}
        final = self.final_audit
        for event in self.reads[final.cons] if final else ():
            if event.off is not None:
                log.setdefault(event.off, event)
        for event in self.observed:
            if event.off is not None:
                log.setdefault(event.off, event)
        return log

    def _take_publish(self, event: Event) -> None:
        if event.val is None:
            return
        found = self.published.get(event.val)
        if found is None:
            found = self.published[event.val] = Published(event, event.t0)
        found.take(event)
        if event.idem is not None:
            self.by_idempotency[event.idem].append(event)
        if event.type == "ok" and event.off is not None:
            self.observed.append(event)

    def _take_read(self, event: Event) -> None:
        self.reads[event.cons].append(event)
        self.observed.append(event)

    def _take_audit(self, event: Event) -> None:
        self.audits.append(event)

    def _take_deliver(self, event: Event) -> None:
        self.observed.append(event)
        group = self.groups.get(event.group)
        if group is None or event.off is None or event.tok is None:
            return
        delivery = Delivery.of(event, group.info, self.context)
        if (twin := group.by_token.get(event.tok)) is not None:
            group.repeated_tokens.append((twin.event, event))
            return
        group.by_token[event.tok] = delivery
        group.deliveries.append(delivery)
        group.by_offset[event.off].append(delivery)

    def _take_settle(self, event: Event) -> None:
        group = self.groups.get(event.group)
        if group is not None:
            group.settles.append(event)

    _take_ack = _take_nack = _take_discard = _take_extend = _take_settle

    def _take_snapshot(self, event: Event) -> None:
        if event.group in self.groups:
            self.groups[event.group].snapshots.append(event)

    def _take_dlq(self, event: Event) -> None:
        self.observed.append(event)
        if event.group in self.groups and event.off is not None:
            self.groups[event.group].dead[event.off].append(event)

    def _take_redrive(self, event: Event) -> None:
        if event.group in self.groups and event.off is not None and event.type in ("ok", "info"):
            self.groups[event.group].redrives[event.off].append(event)


def latest_effect(seek: Event) -> int:
    """Until when a seek may take effect: what was not answered may be carried out by a replica that stood still."""
    return seek.t1 if seek.type == "ok" else seek.t0 + LATE_EXECUTION


def floor_of(picture: Picture, group: GroupPicture, until: int = NEVER) -> tuple[int, int]:
    """The first offset a group has certainly to deliver since its last seek before a time, and since when.

    What lies below may count as settled by the seek. ``latest`` counts up to the last message whose publish was
    invoked before the seek was over.
    """
    sure = group.last_sure_seek(until)
    floor = _target(picture, sure) if sure else 0
    for seek in group.unsure_seeks(sure, until):
        floor = max(floor, _target(picture, seek))
    return floor, sure.t0 - SLACK if sure else 0


def _target(picture: Picture, seek: Event) -> int:
    if seek.off is not None:
        return seek.off
    times, lasts = picture.begun
    return lasts[bisect_left(times, latest_effect(seek))] + 1


def sections(group: GroupPicture) -> Iterator[tuple[Event | None, int, int]]:
    """The times between sure seeks: the seek each starts with, its begin and its end."""
    sure = sorted((s for s in group.seeks if s.type == "ok"), key=lambda s: s.t0)
    begin, seek = 0, None
    for following in sure:
        yield seek, begin, following.t0
        seek, begin = following, following.t1
    yield seek, begin, NEVER
