"""A drain: everything that waited for the appender, sorted into the rows of one transaction.

Each publish finds its place: a position in a row, or the message that its idempotency key already stands for, be it
stored or in this same drain. What a publish cannot have, it is refused as a whole; no row holds anything of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256

import msgspec

from app.domain.errors import Fault, IdempotencyKeyReused
from app.domain.message import NewMessage, Published, id_prefix, message_id
from app.domain.partition import number_of, partition_for, partition_id
from app.domain.topic import Topic
from app.storage.idempotency import OnceKey, Taken
from app.storage.messages import MAX_ROW_BYTES, MAX_ROW_MESSAGES, Appended, Row

# Two payloads are told apart by half of a SHA-256.
DIGEST_BYTES = 16


class Publish(msgspec.Struct, gc=False):
    """Messages that are published together, and who waits for the answer. Lists run side by side."""

    topic: Topic
    messages: Sequence[NewMessage]
    partition_ids: Sequence[int]
    size: int
    answer: asyncio.Future[list[Published]]
    has_keys: bool

    def once_key(self, key: str) -> OnceKey:
        topic = self.topic
        return partition_id(topic.id, partition_for(key, topic.home_partitions)), key


class Run(msgspec.Struct, frozen=True, gc=False):
    """A whole publish, one message after the other in a row of the drain."""

    row: int
    index: int


class Place(msgspec.Struct, frozen=True, gc=False):
    """A position in a row of the drain."""

    row: int
    index: int
    digest: bytes | None = None
    duplicate: bool = False


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
        self._placed: list[tuple[Publish, Run | list[Place | Taken]]] = []
        for publish in publishes:
            if not publish.has_keys:
                self._placed.append((publish, self._run(publish) or self._place_all(publish)))
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

    def answers(self, appended: Sequence[Appended]) -> Iterator[tuple[Publish, list[Published]]]:
        """Each publish that was not refused with its results, once the rows were appended."""
        landed: list[tuple[str, int, Appended]] = [("", 0, appended[0])] * len(appended) if appended else []
        for at, where in zip(self._order, appended, strict=True):
            of = self._rows[at].partition_id
            landed[at] = (id_prefix(of, where.published_at), number_of(of), where)
        for publish, places in self._placed:
            if isinstance(places, Run):
                yield publish, _in_a_row(places, len(publish.messages), *landed[places.row])
                continue
            results = []
            for place in places:
                if isinstance(place, Taken):
                    results.append(_published(place))
                    continue
                prefix, number, where = landed[place.row]
                offset = where.base_offset + place.index
                results.append(Published(f"{prefix}{offset:x}", number, offset, where.published_at, place.duplicate))
            yield publish, results

    def _run(self, publish: Publish) -> Run | None:
        """The common case, cheap: all into one row. None if they go to several partitions, or are too many for it."""
        partition = publish.partition_ids[0]
        count = len(publish.messages)
        if count > MAX_ROW_MESSAGES or (count > 1 and publish.size > MAX_ROW_BYTES):
            return None
        if count > 1 and publish.partition_ids.count(partition) < count:
            return None
        at = self._open.get((partition, publish.topic.version))
        if at is None or not self._rows[at].has_room_for(publish.size, count):
            at = self._new_row(publish.topic, partition)
        return Run(at, self._rows[at].add_all(publish.messages, publish.size))

    def _new_row(self, topic: Topic, partition: int) -> int:
        at = self._open[partition, topic.version] = len(self._rows)
        self._rows.append(Row(partition, topic.version, topic.config.idempotency.window_ms))
        return at

    def _place_all(self, publish: Publish) -> list[Place | Taken]:
        return [
            self._place(publish.topic, message, partition)
            for message, partition in zip(publish.messages, publish.partition_ids, strict=True)
        ]

    def _place_once(self, publish: Publish) -> list[Place | Taken]:
        places: list[Place | Taken] = []
        for message, partition in zip(publish.messages, publish.partition_ids, strict=True):
            if message.idempotency_key is None:
                places.append(self._place(publish.topic, message, partition))
                continue
            key = publish.once_key(message.idempotency_key)
            if (known := self._taken.get(key)) is not None:
                places.append(known)
            elif (first := self._once.get(key)) is not None:
                places.append(Place(first.row, first.index, first.digest, duplicate=True))
            else:
                place = self._place(publish.topic, message, partition)
                digest = digest_of(message.payload)
                self._once[key] = Place(place.row, place.index, digest)
                self._rows[place.row].add_once(key, digest, place.index)
                places.append(place)
        return places

    def _place(self, topic: Topic, message: NewMessage, partition: int) -> Place:
        at = self._open.get((partition, topic.version))
        size = len(message.payload)
        if at is None or not self._rows[at].has_room_for(size, 1):
            at = self._new_row(topic, partition)
        return Place(at, self._rows[at].add_all((message,), size))

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


def _in_a_row(run: Run, count: int, prefix: str, number: int, where: Appended) -> list[Published]:
    first = where.base_offset + run.index
    at = where.published_at
    return [Published(f"{prefix}{offset:x}", number, offset, at, False) for offset in range(first, first + count)]


def digest_of(payload: bytes) -> bytes:
    return sha256(payload).digest()[:DIGEST_BYTES]


def _published(taken: Taken) -> Published:
    return Published(
        message_id(taken.partition_id, taken.published_at, taken.offset),
        number_of(taken.partition_id), taken.offset, taken.published_at, True,
    )  # fmt: skip
