"""What the checker says: valid, invalid with witnesses, or unknown, which is a failure too."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from bench.faults.history import Event

MAX_WITNESSES = 32

INVARIANTS = {
    "I1": "what was acknowledged is in the log",
    "I2": "what is read was published, and not refused",
    "I3": "one value at one place, whoever looks",
    "I4": "offsets have no gap and no repeat",
    "I5": "acknowledged before published means a smaller offset",
    "I6": "a reader of the log skips nothing",
    "I7": "messages of a key come in order, one after the other",
    "I8": "what is in flight is in flight at one consumer",
    "I9": "a stale ackId changes nothing",
    "I10": "the cursor passes nothing that is unsettled",
    "I11": "the cursor falls by a seek only",
    "I12": "what was acknowledged or is in flight is not delivered again",
    "I13": "attempts are counted, and end in a dead letter",
    "I14": "one message per idempotency key",
    "I15": "a hanging group slows down no other",
    "I16": "after the faults everything is settled",
    "I17": "retention takes what it may, and nothing else",
    "I18": "no delivery before it is due",
    "I19": "memory, files and connections do not leak",
    "I20": "bodies and headers arrive as they were sent",
}


class Witness(msgspec.Struct):
    """One violation: the events that contradict each other, and the faults of that moment."""

    invariant: str
    kind: str
    detail: str
    faults: list[str]
    events: list[Event]


@dataclass
class Findings:
    """Collects violations: every one is counted, the first of each class are kept."""

    faults: list[Event] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    witnesses: list[Witness] = field(default_factory=list)
    # Not violations: what the checker could not decide, for the report.
    undecided: Counter[str] = field(default_factory=Counter)

    def add(self, invariant: str, kind: str, detail: str, *events: Event | None) -> None:
        self.counts[invariant, kind] += 1
        if self.counts[invariant, kind] <= MAX_WITNESSES:
            shown = [event for event in events if event is not None]
            self.witnesses.append(Witness(invariant, kind, detail, self._faults_at(shown), shown))

    def join(self, others: Findings) -> None:
        room = {kind: MAX_WITNESSES - count for kind, count in self.counts.items()}
        self.counts.update(others.counts)
        self.undecided.update(others.undecided)
        for witness in others.witnesses:
            kind = witness.invariant, witness.kind
            if room.setdefault(kind, MAX_WITNESSES) > 0:
                room[kind] -= 1
                self.witnesses.append(witness)

    def invariants(self) -> set[str]:
        return {invariant for invariant, _ in self.counts}

    def _faults_at(self, events: Iterable[Event]) -> list[str]:
        """Names of the faults that touch the events' time, or the last one before it."""
        events = list(events)
        if not events or not self.faults:
            return []
        begin, end = min(e.t0 or e.t1 for e in events), max(e.t1 or e.t0 for e in events)
        within = [f"{f.val}" for f in self.faults if f.t0 <= end and f.t1 >= begin]
        if within:
            return within[:8]
        before = bisect_right([f.t0 for f in self.faults], begin) - 1
        return [f"after {self.faults[before].val}"] if before >= 0 else []


@dataclass
class Verdict:
    outcome: Literal["valid", "invalid", "unknown"]
    findings: Findings
    reasons: list[str]
    report: dict[str, Any]

    @property
    def passed(self) -> bool:
        return self.outcome == "valid"
