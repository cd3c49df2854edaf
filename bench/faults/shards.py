"""Splits a history by partition, so that one partition's events are in memory at a time and no more.

A history on disk is read once: each event goes to the file of its shard, and what concerns the whole run is kept in
the context. Then the shards are loaded one after the other. A history in memory is split in memory.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from bench.faults.context import Context, Place
from bench.faults.history import Event, operations, read_lines


class Load(Protocol):
    """The events of one partition, once. ``is_shared``: another process can load them as well."""

    @property
    def is_shared(self) -> bool: ...

    def __call__(self) -> list[Event]: ...


Partitions = Mapping[Place, Load]


@dataclass(frozen=True, slots=True)
class Kept:
    events: list[Event]
    is_shared: bool = False

    def __call__(self) -> list[Event]:
        return self.events


@dataclass(frozen=True, slots=True)
class Shard:
    topic: str
    path: Path
    is_shared: bool = True

    def __call__(self) -> list[Event]:
        known: dict[str, str] = {}
        events = []
        for event in read_lines(self.path):
            # The same few strings a million times: once each.
            event.f, event.type = known.setdefault(event.f, event.f), known.setdefault(event.type, event.type)
            event.proc, event.topic = known.setdefault(event.proc, event.proc), self.topic
            event.group, event.cons = (
                known.setdefault(event.group, event.group),
                known.setdefault(event.cons, event.cons),
            )
            if event.key is not None:
                event.key = known.setdefault(event.key, event.key)
            events.append(event)
        self.path.unlink()
        return events


def in_memory(events: Iterable[Event]) -> tuple[Context, Partitions]:
    context, partitions = Context(), defaultdict[Place, list[Event]](list)
    for event in events:
        place = context.take(event)
        if place is not None:
            partitions[place].append(event)
    context.finish()
    return context, {place: Kept(kept) for place, kept in partitions.items()}


def on_disk(directory: Path, scratch: Path) -> tuple[Context, Partitions]:
    """Splits the files of a run under ``scratch``; the shards are removed as they are used up."""
    folder = Path(tempfile.mkdtemp(prefix="shards-", dir=scratch))
    files: dict[Place, BinaryIO] = {}
    decoder = msgspec.json.Decoder(Event)
    context = Context()
    for path in sorted(directory.glob("*.jsonl")):
        for head, line in operations(path):
            place = context.take(decoder.decode(line) if context.learns_of(head) else head)
            if place is not None:
                if place not in files:
                    files[place] = (folder / f"{len(files)}.shard").open("wb", buffering=1 << 20)
                files[place].write(line)
    for file in files.values():
        file.close()
    context.finish()
    return context, {place: Shard(place[0], Path(file.name)) for place, file in files.items()}
