"""A history that may be spoiled, ways to find a place worth spoiling, and the list of mutations."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from bench.faults.history import MS, Event

Mutate = Callable[["Copy"], None]


@dataclass(frozen=True, slots=True)
class Mutation:
    invariant: str
    name: str
    apply: Mutate


MUTATIONS: list[Mutation] = []


def mutation(invariant: str) -> Callable[[Mutate], Mutate]:
    def register(function: Mutate) -> Mutate:
        MUTATIONS.append(Mutation(invariant, function.__name__, function))
        return function

    return register


class Copy:
    """A history that may be changed, and ways to find a place worth changing."""

    def __init__(self, events: Iterable[Event], seed: int) -> None:
        self.events = [
            msgspec.structs.replace(event, data=dict(event.data) if event.data else None) for event in events
        ]
        self.random = random.Random(seed)

    def all(self, f: str, **values: Any) -> list[Event]:
        return [
            event
            for event in self.events
            if event.f == f and all(getattr(event, name) == value for name, value in values.items())
        ]

    def some(self, candidates: Iterable[Event]) -> Event:
        found = list(candidates)
        assert found, "this history has no place for the mutation"
        return self.random.choice(found)

    def add(self, event: Event, **changes: Any) -> Event:
        """Adds a changed copy of an event."""
        self.events.append(copy := msgspec.structs.replace(event, op=0, **changes))
        return copy

    def drop(self, *events: Event) -> None:
        gone = {id(event) for event in events}
        self.events = [event for event in self.events if id(event) not in gone]

    def acked(self, **values: Any) -> list[tuple[Event, Event]]:
        """Deliveries and the ack that was answered ok."""
        acks = {event.tok: event for event in self.all("ack", type="ok")}
        return [(event, acks[event.tok]) for event in self.all("deliver", **values) if event.tok in acks]

    def expired(self, group: str) -> list[Event]:
        """Deliveries that nothing was said about while their lease lived, and that no failure took back."""
        settled = {e.tok for f in ("ack", "nack", "discard", "extend") for e in self.all(f, type="ok")}
        return [event for event in self.all("deliver", group=group) if event.tok not in settled]

    def pairs(self, group: str, *, after: str = "nack") -> list[tuple[Event, Event, Event]]:
        """Two deliveries of a message in a row, attempt k and k+1, with the settle that failed the first."""
        failures = {event.tok: event for event in self.all(after, type="ok")}
        last: dict[tuple[int | None, int | None], Event] = {}
        found = []
        for event in sorted(self.all("deliver", group=group), key=lambda deliver: deliver.exp):
            first = last.get((event.part, event.off))
            if first is not None and first.tok in failures and event.att == first.att + 1:
                found.append((first, event, failures[first.tok]))
            last[event.part, event.off] = event
        return found

    def publishes(self, value: str | None) -> list[Event]:
        return self.all("publish", val=value)

    def shift(self, event: Event, moment: int) -> None:
        """Lets a delivery have happened at another time."""
        event.exp += moment - event.t1
        event.t0, event.t1 = moment - 2 * MS, moment
