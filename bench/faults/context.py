"""What every partition's check has to know of the whole run: configurations, faults, seeks, lost pulls."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import accumulate

from bench.faults.history import MS, SECOND, Event, Head, option

Place = tuple[str, int]

# How long after a fault, and the first success after it, a push may still suffer from it: everybody catches up.
AFTERMATH = 5 * SECOND
# A settle that took this long, or was given up after it, says that the machine stood still, or the database: as good as
# a fault to a push, whose server has to settle and to renew within LOCK_TTL_MS.
STANDSTILL = SECOND
# What was settled together differs by less, and is one.
ROUGHLY = 10 * MS
# While a client has vanished, a stream's messages run out and are claimed again no faster than this.
SHORTEST_LEASE = SECOND
LONGEST_VANISHED = 60 * SECOND


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group's configuration; times in nanoseconds."""

    topic: str
    name: str
    ordering: str
    max_attempts: int
    ack_timeout: int
    strategy: str
    base_delay: int
    max_delay: int
    dead_letters: bool
    in_flight: int | None = None
    """Of a push group: how many messages are at its receiver at most."""
    keys: frozenset[str] | None = None
    """What its filter lets through; None is everything."""

    @property
    def is_push(self) -> bool:
        return self.in_flight is not None

    def wants(self, key: str | None) -> bool:
        return self.keys is None or key in self.keys

    def shortest_backoff(self, attempt: int) -> int:
        """The least nanoseconds between the failure of an attempt and the next delivery."""
        if self.strategy == "fixed":
            return self.base_delay
        return min(self.max_delay, int(self.base_delay * 2 ** min(attempt - 1, 40) * 0.8))


@dataclass
class Context:
    topics: dict[str, Event] = field(default_factory=dict)
    groups: dict[tuple[str, str], GroupInfo] = field(default_factory=dict)
    faults: list[Event] = field(default_factory=list)
    recoveries: list[Event] = field(default_factory=list)
    windows: list[Event] = field(default_factory=list)
    torn: list[Event] = field(default_factory=list)
    seeks: list[Event] = field(default_factory=list)
    samples: list[Event] = field(default_factory=list)
    quiesces: list[Event] = field(default_factory=list)
    # Publishes without a known partition: a reader of any partition may meet their values.
    floating: list[Event] = field(default_factory=list)
    # Streams that have ended, by the consumer's label.
    streams: dict[str, Event] = field(default_factory=dict)
    lost_pulls: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)
    places: Counter[Place] = field(default_factory=Counter)
    acknowledged: array[int] = field(default_factory=lambda: array("q"))
    _slow: set[tuple[int, int]] = field(default_factory=set)
    begin: int = 2**63 - 1
    end: int = 0
    _troubles: list[int] = field(default_factory=list)
    _lasting: list[int] = field(default_factory=list)

    def learns_of(self, head: Head) -> bool:
        """Whether more than its head is wanted of an event."""
        return hasattr(self, f"_take_{head.f}")

    def take(self, event: Head) -> Place | None:
        """Learns from an event; returns the partition whose check needs it, or None if only the whole does."""
        self.counts[f"{event.f}.{event.type}"] += 1
        if event.t0:
            self.begin = min(self.begin, event.t0)
        if event.t1 < 2**62:
            self.end = max(self.end, event.t1)
            if event.f == "ack" and event.t1 - event.t0 >= STANDSTILL:
                self._slow.add((event.t0 // ROUGHLY * ROUGHLY, event.t1 // ROUGHLY * ROUGHLY))
        learn = getattr(self, f"_take_{event.f}", None)
        if learn is not None:
            learn(event)
        if event.part is None:
            return None
        place = (event.topic, event.part)
        self.places[place] += 1
        return place

    def finish(self) -> None:
        self.faults.sort(key=lambda event: event.t0)
        self.seeks.sort(key=lambda event: event.t0)
        lasting = [event for event in (*self.faults, *self.recoveries) if not option(event, "hung")]
        troubles = sorted([*((event.t0, event.t1) for event in lasting), *self._slow])
        self._troubles = [begin for begin, _ in troubles]
        self._lasting = list(accumulate((end for _, end in troubles), max))
        for pulls in self.lost_pulls.values():
            pulls.sort()

    def troubled(self, begin: int, end: int) -> bool:
        """Whether a fault, what it left behind, or a standstill fell into a time."""
        before = bisect_right(self._troubles, end)
        return before > 0 and self._lasting[before - 1] + AFTERMATH >= begin

    def lost_between(self, topic: str, group: str, begin: int, end: int) -> int:
        """How many pulls of a group lost their answer, of those invoked in a time."""
        pulls = self.lost_pulls.get((topic, group), [])
        return bisect_right(pulls, end) - bisect_left(pulls, begin)

    def standstills(self) -> list[tuple[int, int]]:
        """From when to when settles took that long, or were given up, where no fault explains it."""
        faults = sorted((each.t0, each.t1) for each in (*self.faults, *self.recoveries) if not option(each, "hung"))
        begins, ends = [begin for begin, _ in faults], list(accumulate((end for _, end in faults), max))
        found: list[tuple[int, int]] = []
        for begin, end in sorted(self._slow):
            before = bisect_right(begins, end)
            if before > 0 and ends[before - 1] + AFTERMATH >= begin:
                continue
            if found and begin <= found[-1][1]:
                found[-1] = found[-1][0], max(end, found[-1][1])
            else:
                found.append((begin, end))
        return found

    def fault_windows(self) -> int:
        """In how many of its windows the nemesis broke anything."""
        begins = sorted(fault.t0 for fault in self.faults)
        return sum(bisect_right(begins, window.t1) > bisect_left(begins, window.t0) for window in self.windows)

    def was_alone(self, recovery: Event) -> bool:
        """Whether only one fault fell into the time of a recovery."""
        return sum(fault.t0 <= recovery.t1 and fault.t1 >= recovery.t0 for fault in self.faults) <= 1

    def at_risk(self) -> dict[str, int]:
        """Publishes acknowledged shortly before processes were killed."""
        kills = sorted(f.t0 for f in self.faults if option(f, "kill"))
        risk = {"10ms": 0, "100ms": 0, "1000ms": 0}
        for moment in self.acknowledged:
            at = bisect_left(kills, moment)
            if at == len(kills):
                continue
            before = kills[at] - moment
            for name, limit in (("10ms", 10 * MS), ("100ms", 100 * MS), ("1000ms", 1000 * MS)):
                risk[name] += before <= limit
        return risk

    def _take_topic(self, event: Event) -> None:
        self.topics[event.topic] = event

    def _take_group(self, event: Event) -> None:
        data = event.data or {}
        self.groups[event.topic, event.group] = GroupInfo(
            topic=event.topic,
            name=event.group,
            ordering=data["ordering"],
            max_attempts=data["maxAttempts"],
            ack_timeout=data["ackTimeoutMs"] * MS,
            strategy=data["strategy"],
            base_delay=data["baseDelay"] * MS,
            max_delay=data["maxDelay"] * MS,
            dead_letters=data.get("deadLetter", True),
            in_flight=data.get("maxInFlight"),
            keys=frozenset(data["keys"]) if "keys" in data else None,
        )

    def _take_publish(self, event: Event) -> None:
        if event.type == "ok":
            self.acknowledged.append(event.t1)
        if event.part is None:
            self.floating.append(event)

    def _take_pull(self, event: Event) -> None:
        if event.type == "info":
            self.lost_pulls[event.topic, event.group].append(event.t0)

    def _take_stream(self, event: Event) -> None:
        """What it was sent last may never have arrived; while nobody reads, the same message runs out again."""
        self.streams[event.cons] = event
        begin = option(event, "read") or event.t0
        end = min(event.t1, begin + LONGEST_VANISHED)
        self.lost_pulls[event.topic, event.group] += range(begin, end + 1, SHORTEST_LEASE)

    def _take_seek(self, event: Event) -> None:
        if event.type in ("ok", "info"):
            self.seeks.append(event)

    def _take_fault(self, event: Event) -> None:
        if event.type != "fail":
            self.faults.append(event)

    def _take_recovery(self, event: Event) -> None:
        self.recoveries.append(event)

    def _take_window(self, event: Event) -> None:
        self.windows.append(event)

    def _take_torn(self, event: Event) -> None:
        self.torn.append(event)

    def _take_sample(self, event: Event) -> None:
        self.samples.append(event)

    def _take_quiesce(self, event: Event) -> None:
        self.quiesces.append(event)
