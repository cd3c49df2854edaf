"""One delivery, and between which times its lease must have, and may have, ended."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate

from bench.faults.context import Context, GroupInfo
from bench.faults.history import MS, NEVER, SECOND, SLACK, Event

# How long after its client gave up a request may still be carried out: a stopped replica goes on where it was.
LATE_EXECUTION = 60 * SECOND


Spans = list[tuple[int, int]]


@dataclass(slots=True, eq=False)
class Delivery:
    """A message handed to a consumer under one ackId. Nanoseconds; NEVER for what did not happen.

    ``claimed`` is when the server says it was: its deadline minus the group's ackTimeoutMs. ``expires_lo`` and
    ``expires_hi`` are the earliest and the latest its lease can have run out, extensions considered.
    """

    event: Event
    offset: int
    claimed: int
    expires_lo: int
    expires_hi: int
    acked: int = NEVER  # an ack or discard was invoked that may have counted
    ack_ok: Event | None = None  # one that was answered ok
    nacked: int = NEVER
    nack_ok: Event | None = None
    nack_over: int = NEVER
    nack_delay: int | None = None
    taken: int = NEVER  # a seek, the failure of an earlier message of its key, or the end of its stream took it back
    is_renewed: bool = False  # its server renews the lease
    late_length: int = NEVER  # of extensions without an answer: the shortest one,
    late_hi: int = 0  # and the latest that one of them can make the lease run out

    @classmethod
    def of(cls, event: Event, info: GroupInfo, context: Context) -> Delivery:
        assert event.off is not None
        if info.is_push:
            return cls._pushed(event, event.off, info, context)
        if not event.exp:
            return cls(event, event.off, event.t1, NEVER, NEVER)
        if not event.ms:
            return cls(event, event.off, event.exp - info.ack_timeout, event.exp, event.exp)
        latest = event.t1 + info.ack_timeout + LATE_EXECUTION
        delivery = cls(event, event.off, event.exp - event.ms * MS, event.exp, latest, is_renewed=True)
        if (stream := context.streams.get(event.cons)) is not None:
            delivery.taken = max(delivery.claimed, stream.t0)
        return delivery

    @classmethod
    def _pushed(cls, event: Event, offset: int, info: GroupInfo, context: Context) -> Delivery:
        """A push says nothing of its lease. The server gives up after ackTimeoutMs; where it cannot renew or dies,
        or is told to stop, at any time."""
        latest = event.t1 + info.ack_timeout + LATE_EXECUTION
        if context.troubled(event.t1, event.t1 + info.ack_timeout):
            return cls(event, offset, event.t1, event.t1, latest, taken=event.t1, is_renewed=True)
        return cls(event, offset, event.t1, event.t1 + info.ack_timeout - SECOND, latest, is_renewed=True)

    @property
    def failed(self) -> int:
        """The earliest it can have failed."""
        if self.ack_ok is not None and self.nacked == NEVER:
            return NEVER
        return min(self.nacked, self.expires_lo)

    @property
    def failures(self) -> Spans:
        """Every time, from and to, in which it may have failed: a nack without an answer may never have been carried
        out."""
        if self.ack_ok is not None and self.nacked == NEVER:
            return []
        ends = [(self.expires_lo, self.expires_hi)] if self.nack_ok is None else []
        return [(begin, end) for begin, end in ((self.nacked, self.nack_over), *ends) if begin < NEVER]

    @property
    def over(self) -> int:
        """The latest it can still have been in flight."""
        sure = [event.t1 for event in (self.ack_ok, self.nack_ok) if event is not None]
        return min([self.expires_hi + SLACK if self.expires_hi < NEVER else NEVER, *sure])

    @property
    def ended(self) -> int:
        """The earliest it can have stopped being in flight."""
        return min(self.acked, self.nacked, self.expires_lo, self.taken)

    def take_back(self, failures: Spans, since: int) -> None:
        """An earlier message of its key may have failed, at this time or later."""
        for begin, end in failures:
            if end >= since and begin < self.taken:
                self.taken = min(self.taken, max(begin, self.claimed))

    def settle(self, event: Event) -> None:
        if event.type == "fail":
            return
        if event.f == "extend":
            self._extend(event)
        elif event.f == "nack":
            if event.t0 < self.nacked:
                self.nacked, self.nack_over, self.nack_delay = event.t0, event.t1, event.ms
            if event.type == "ok" and self.nack_ok is None:
                self.nack_ok = event
        else:
            self.acked = min(self.acked, event.t0)
            if event.type == "ok" and self.ack_ok is None:
                self.ack_ok = event

    def _extend(self, event: Event) -> None:
        length = (event.ms or 0) * MS
        if event.type == "ok":
            renewed = self.expires_hi if self.is_renewed else 0
            # One that was given up before may be carried out after this one.
            self.expires_lo = event.t0 + min(length, self.late_length)
            self.expires_hi = max(event.t1 + length, self.late_hi, renewed)
        else:
            given_up = min(event.t1, event.t0 + LATE_EXECUTION)
            self.late_length = min(self.late_length, length)
            self.late_hi = max(self.late_hi, given_up + LATE_EXECUTION + length)
            self.expires_lo = min(self.expires_lo, event.t0 + length)
            self.expires_hi = max(self.expires_hi, self.late_hi)


def settle_all(by_token: dict[str, Delivery], settles: Iterable[Event]) -> None:
    """Applies settles in the order they were invoked."""
    for event in sorted(settles, key=lambda settle: settle.t0):
        delivery = by_token.get(event.tok or "")
        if delivery is not None:
            delivery.settle(event)


def claim_together(deliveries: Iterable[Delivery]) -> None:
    """What came under one lease was claimed at one moment, though its parts came at several, and the server's time was
    put on our clock anew for each."""
    claims: dict[str, int] = {}
    leases = [(delivery, (delivery.event.tok or "").rsplit("_", 2)[0]) for delivery in deliveries]
    for delivery, lease in leases:
        claims[lease] = min(claims.get(lease, NEVER), delivery.claimed)
    for delivery, lease in leases:
        if delivery.claimed - claims[lease] <= SLACK:
            delivery.claimed = claims[lease]


def end_at_seeks(deliveries: Iterable[Delivery], seeks: Iterable[Event]) -> None:
    """A seek ends what is in flight: ``taken``, whether it is sure to have happened or not."""
    spans = sorted((seek.t0, seek.t1 if seek.type == "ok" else seek.t0 + LATE_EXECUTION) for seek in seeks)
    begins, latest = [begin for begin, _ in spans], list(accumulate((end for _, end in spans), max))
    for delivery in deliveries:
        at = bisect_left(latest, delivery.claimed - SLACK)  # the first that was not over before the claim
        if at < len(begins):
            delivery.taken = min(delivery.taken, max(begins[at], delivery.claimed))


def take_back_followers(deliveries: Iterable[Delivery]) -> None:
    """Marks deliveries of one key that an earlier message of it took back by failing: ``taken``."""
    flying = Flying()
    for delivery in sorted(deliveries, key=lambda each: each.claimed):
        since = delivery.claimed - SLACK
        flying.land(since)
        for other, failures in flying.failing.items():
            if other.offset < delivery.offset:
                delivery.take_back(failures, since)
        failures = flying.take(delivery)
        for other in flying.all if failures else ():
            if other.offset > delivery.offset:
                other.take_back(failures, since)


class Flying:
    """Deliveries that may be in flight, while time goes by."""

    def __init__(self) -> None:
        self.all: dict[Delivery, None] = {}
        self.failing: dict[Delivery, Spans] = {}
        self._ends: list[tuple[int, int, Delivery]] = []

    def take(self, delivery: Delivery) -> Spans:
        """Returns when it may have failed."""
        self.all[delivery] = None
        failures = delivery.failures
        if failures:
            self.failing[delivery] = failures
        heappush(self._ends, (delivery.over, id(delivery), delivery))
        return failures

    def land(self, moment: int) -> list[Delivery]:
        """Forgets, and returns, what was over before."""
        landed = []
        while self._ends and self._ends[0][0] < moment:
            delivery = heappop(self._ends)[2]
            del self.all[delivery]
            self.failing.pop(delivery, None)
            landed.append(delivery)
        return landed
