"""A drain: everything that waited for the appender, sorted into the rows of one transaction.

Each publish finds its place: a position in a row, or the message that its idempotency key already stands for, be it
stored or in this same drain. What a publish cannot have, it is refused as a whole; no row holds anything of it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from operator import attrgetter, itemgetter

import msgspec

from app.domain.errors import Fault, IdempotencyKeyReused
from app.domain.message import Landed, Landing, NewMessage, id_prefix
from app.domain.partition import number_of, partition_for, partition_id
from app.domain.topic import Topic
from app.storage.idempotency import OnceKey, Taken
from app.storage.messages import MAX_ROW_BYTES, MAX_ROW_MESSAGES, Appended, Row

# Two payloads are told apart by half of a SHA-256.
DIGEST_BYTES = 16
_payload = attrgetter("payload")


class Publish(msgspec.Struct, gc=False):
    """Messages that are published together, and who waits for the answer. Lists run side by side."""

    topic: Topic
    messages: Sequence[NewMessage]
    partition_ids: Sequence[int]
    size: int
    answer: asyncio.Future[list[Landed]]
    has_keys: bool

    def once_key(self, key: str) -> OnceKey:
        topic = self.topic
        return partition_id(topic.id, partition_for(key, topic.home_partitions)), key


class Run(msgspec.Struct, frozen=True, gc=False):
    """A whole publish, one message after the other in a row of the drain."""

    row: int
    index: int


class Spread(msgspec.Struct, frozen=True, gc=False):
    """A publish over several rows of the drain: a row, where its first message stands there, and which ones of the
    publish they are."""

    parts: list[tuple[int, int, list[int]]]


class Place(msgspec.Struct, frozen=True, gc=False):
    """A position in a row of the drain, of a publish with idempotency keys."""

    row: int
    index: int
    digest: bytes | None = None
    duplicate: bool = False


Places = Run | Spread | list[Place | Taken]


def once_keys(publishes: Iterable[Publish]) -> dict[OnceKey, int]:
    """The idempotency keys in there, each with its window in milliseconds."""
    return {
        publish.once_key(message.idempotency_key): publish.topic.config.idempotency.window_ms
        for publish in publishes
        if publish.has_keys
        for message in publish.messages
        if message.idempotency_key is not None
    }


class Drain:
    """``taken``: those of the idempotency keys that stand for a stored message."""

    def __init__(self, publishes: Iterable[Publish], taken: Mapping[OnceKey, Taken]) -> None:
        self.refused: list[tuple[Publish, IdempotencyKeyReused]] = []
        self._taken = taken
        self._rows: list[Row] = []
        self._open: dict[tuple[int, int], int] = {}
        self._once: dict[OnceKey, Place] = {}
        self._placed: list[tuple[Publish, Places]] = []
        for publish in publishes:
            if not publish.has_keys:
                self._placed.append((publish, self._run(publish) or self._spread(publish)))
            elif (error := self._reuse(publish)) is not None:
                self.refused.append((publish, error))
            else:
                self._placed.append((publish, self._place_once(publish)))
        # Ascending, as everybody locks partitions; rows of one partition stay in order.
        self._order = sorted(range(len(self._rows)), key=lambda at: self._rows[at].partition_id)

    @property
    def rows(self) -> list[Row]:
        """What is to be appended, in this order."""
        return [self._rows[at] for at in self._order]

    def answers(self, appended: Sequence[Appended]) -> Iterator[tuple[Publish, list[Landed]]]:
        """Each publish that was not refused with its results, once the rows were appended."""
        in_order = [where for _, where in sorted(zip(self._order, appended, strict=True), key=itemgetter(0))]
        bases = [where.base_offset for where in in_order]
        landings = [
            _landing(row.partition_id, where.published_at) for row, where in zip(self._rows, in_order, strict=True)
        ]
        for publish, places in self._placed:
            if isinstance(places, Run):
                at = places.row
                yield publish, [Landed(landings[at], bases[at] + places.index, len(publish.messages))]
            elif isinstance(places, Spread):
                yield (
                    publish,
                    [
                        Landed(landings[at], bases[at] + index, len(positions), positions)
                        for at, index, positions in places.parts
                    ],
                )
            else:
                yield (
                    publish,
                    [
                        Landed(landings[place.row], bases[place.row] + place.index, 1, (position,), place.duplicate)
                        if isinstance(place, Place)
                        else Landed(
                            _landing(place.partition_id, place.published_at), place.offset, 1, (position,), True
                        )
                        for position, place in enumerate(places)
                    ],
                )

    def _run(self, publish: Publish) -> Run | None:
        """The common case, cheap: all into one row. None if they go to several partitions, or are too many for it."""
        partition = publish.partition_ids[0]
        count = len(publish.messages)
        if count > MAX_ROW_MESSAGES or (count > 1 and publish.size > MAX_ROW_BYTES):
            return None
        if count > 1 and publish.partition_ids.count(partition) < count:
            return None
        return Run(*self._add(publish.topic, publish.messages, partition, publish.size))

    def _spread(self, publish: Publish) -> Spread:
        positions: defaultdict[int, list[int]] = defaultdict(list)
        for position, partition in enumerate(publish.partition_ids):
            positions[partition].append(position)
        parts: list[tuple[int, int, list[int]]] = []
        for partition, those in positions.items():
            messages = [publish.messages[position] for position in those]
            size = sum(map(len, map(_payload, messages)))
            if len(those) <= MAX_ROW_MESSAGES and size <= MAX_ROW_BYTES:
                parts.append((*self._add(publish.topic, messages, partition, size), those))
            else:
                parts += [(*self._place(publish.topic, publish.messages[each], partition), [each]) for each in those]
        return Spread(parts)

    def _place(self, topic: Topic, message: NewMessage, partition: int) -> tuple[int, int]:
        return self._add(topic, (message,), partition, len(message.payload))

    def _add(self, topic: Topic, messages: Sequence[NewMessage], partition: int, size: int) -> tuple[int, int]:
        """To the newest row of the partition, or to a new one: returns which, and the first one's position there."""
        where = partition, topic.version
        at = self._open.get(where)
        if at is not None and (index := self._rows[at].add_all(messages, size)) is not None:
            return at, index
        row = Row(partition, topic.version, topic.config.idempotency.window_ms)
        row.add_all(messages, size)
        at = self._open[where] = len(self._rows)
        self._rows.append(row)
        return at, 0

    def _place_once(self, publish: Publish) -> list[Place | Taken]:
        places: list[Place | Taken] = []
        for message, partition in zip(publish.messages, publish.partition_ids, strict=True):
            if message.idempotency_key is None:
                places.append(Place(*self._place(publish.topic, message, partition)))
                continue
            key = publish.once_key(message.idempotency_key)
            if (known := self._taken.get(key)) is not None:
                places.append(known)
            elif (first := self._once.get(key)) is not None:
                places.append(Place(first.row, first.index, first.digest, duplicate=True))
            else:
                at, index = self._place(publish.topic, message, partition)
                digest = digest_of(message.payload)
                self._rows[at].add_once(key, digest, index)
                self._once[key] = Place(at, index, digest)
                places.append(self._once[key])
        return places

    def _reuse(self, publish: Publish) -> IdempotencyKeyReused | None:
        """What is wrong with its keys: another payload came with one of them before."""
        own: dict[OnceKey, bytes] = {}
        faults = []
        for index, message in enumerate(publish.messages):
            if message.idempotency_key is None:
                continue
            key = publish.once_key(message.idempotency_key)
            digest = digest_of(message.payload)
            first = self._taken.get(key) or self._once.get(key)
            if (first.digest if first is not None else own.setdefault(key, digest)) != digest:
                faults.append(Fault("was used with another payload", "Idempotency-Key", index))
        if not faults:
            return None
        return IdempotencyKeyReused("The idempotency key was used with another payload.", faults)


def digest_of(payload: bytes) -> bytes:
    return sha256(payload).digest()[:DIGEST_BYTES]


def _landing(partition_id: int, published_at: datetime) -> Landing:
    return Landing(id_prefix(partition_id, published_at), number_of(partition_id), published_at)
