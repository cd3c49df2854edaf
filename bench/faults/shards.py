"""Splits a history by partition, so that one partition's events are in memory at a time and no more.

A history on disk is read once: each event goes to the file of its shard, and what concerns the whole run is kept in
the context. Then the shards are loaded one after the other. A history in memory is split in memory.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from zlib import crc32

import msgspec

from bench.faults.context import Context, Place
from bench.faults.history import Event, history, read_lines

EVENTS_PER_SHARD = 1_500_000  # about 1 GB while it is checked
BYTES_PER_EVENT = 220

Partitions = Iterator[tuple[Place, list[Event]]]


def in_memory(events: Iterable[Event]) -> tuple[Context, Partitions]:
    context, partitions = Context(), defaultdict[Place, list[Event]](list)
    for event in events:
        place = context.take(event)
        if place is not None:
            partitions[place].append(event)
    context.finish()
    return context, iter(sorted(partitions.items()))


def on_disk(directory: Path, scratch: Path) -> tuple[Context, Partitions]:
    """Splits the files of a run under ``scratch``; the shards are removed as they are used up."""
    total = sum(path.stat().st_size for path in directory.glob("*.jsonl"))
    shards = max(1, round(total / BYTES_PER_EVENT / EVENTS_PER_SHARD))
    folder = Path(tempfile.mkdtemp(prefix="shards-", dir=scratch))
    paths = [folder / f"{number}.shard" for number in range(shards)]
    files = [path.open("wb") for path in paths]
    encoder = msgspec.json.Encoder()
    context = Context()
    for event in history(directory):
        place = context.take(event)
        if place is not None:
            files[crc32(f"{place[0]}/{place[1]}".encode()) % shards].write(encoder.encode(event) + b"\n")
    for file in files:
        file.close()
    context.finish()
    return context, _shards(folder, paths)


def _shards(folder: Path, paths: list[Path]) -> Partitions:
    for path in paths:
        partitions = defaultdict[Place, list[Event]](list)
        for event in read_lines(path):
            assert event.part is not None
            partitions[event.topic, event.part].append(event)
        path.unlink()
        for place in sorted(partitions):
            yield place, partitions.pop(place)
    folder.rmdir()
