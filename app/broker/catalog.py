"""The topics and groups this process knows, so that a publish or a pull does not have to read them first.

What is cached may be old. Calls for which that matters hand the version to the database, which refuses another one
(Outdated); then it is read again and the call repeated: ``with_topic``, ``with_group``. Everything else is at most
FRESH_S and one read behind the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from app.domain.errors import DatabaseUnavailable, NotFound
from app.domain.group import Group
from app.domain.topic import Topic
from app.storage.database import Database, Outdated
from app.storage.groups import read_group
from app.storage.topics import read_topic

FRESH_S = 1.0
MAX_ENTRIES = 10_000
MAX_TRIES = 8

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Topic | Group)
T = TypeVar("T")

TopicKey = tuple[int, str]
GroupKey = tuple[int, str, str]


class Catalog:
    """One per process. Keys are names within a namespace's id."""

    def __init__(self, db: Database) -> None:
        self._topics: Shelf[TopicKey, Topic] = Shelf(lambda key: read_topic(db, *key))
        self._groups: Shelf[GroupKey, Group] = Shelf(lambda key: read_group(db, *key))
        # After a failover an id may stand for something else.
        db.lineage.on_change += [self._topics.clear, self._groups.clear]

    async def topic(self, namespace_id: int, name: str) -> Topic:
        """Raises TopicNotFound."""
        return await self._topics.get((namespace_id, name))

    def fresh_topic(self, namespace_id: int, name: str) -> Topic | None:
        """The topic if it need not be read; ``topic`` reads it. For those who cannot afford to ask in vain."""
        return self._topics.fresh((namespace_id, name))

    async def group(self, namespace_id: int, topic: str, name: str) -> Group:
        """Raises TopicNotFound, GroupNotFound."""
        return await self._groups.get((namespace_id, topic, name))

    async def require(self, namespace_id: int, topic: str, group: str | None = None) -> None:
        """Raises TopicNotFound, GroupNotFound: for those who want to know before they look at a body."""
        if group is None:
            await self.topic(namespace_id, topic)
        else:
            await self.group(namespace_id, topic, group)

    def forget_topic(self, namespace_id: int, name: str) -> None:
        """It is read again before the next use, and so are its groups."""
        self._topics.forget((namespace_id, name))
        for key in self._groups.keys_now():
            if key[:2] == (namespace_id, name):
                self._groups.forget(key)

    def forget_group(self, namespace_id: int, topic: str, name: str) -> None:
        self._groups.forget((namespace_id, topic, name))

    async def with_topic(self, namespace_id: int, name: str, verb: Callable[[Topic], Awaitable[T]]) -> T:
        """Calls ``verb`` with the topic, again while it finds it outdated. Raises TopicNotFound."""
        for _ in range(MAX_TRIES):
            try:
                return await verb(await self.topic(namespace_id, name))
            except Outdated:
                self._topics.forget((namespace_id, name))
        raise DatabaseUnavailable(f"Topic {name!r} keeps changing; try again.")

    async def with_group(self, namespace_id: int, topic: str, name: str, verb: Callable[[Group], Awaitable[T]]) -> T:
        """Calls ``verb`` with the group, again while it finds it outdated. Raises TopicNotFound, GroupNotFound."""
        for _ in range(MAX_TRIES):
            try:
                return await verb(await self.group(namespace_id, topic, name))
            except Outdated:
                self.forget_group(namespace_id, topic, name)
        raise DatabaseUnavailable(f"Group {name!r} keeps changing; try again.")

    def of_topic(self, topic: Topic, make: Callable[[Topic], T]) -> T:
        """``make(topic)``, made once for each version of the topic: its compiled expressions and schema."""
        return self._topics.derived(topic, make)

    def of_group(self, group: Group, make: Callable[[Group], T]) -> T:
        """``make(group)``, made once for each version of the group."""
        return self._groups.derived(group, make)


@dataclass(slots=True)
class Entry(Generic[V]):
    """``made``: what was derived from this version of the value, by the function that made it."""

    value: V
    read_at: float
    made: dict[Callable[[V], Any], Any] = field(default_factory=dict)


class Shelf(Generic[K, V]):
    """Values by key, read when missing or no longer fresh."""

    def __init__(self, read: Callable[[K], Awaitable[V]]) -> None:
        self._read = read
        self._entries: dict[K, Entry[V]] = {}
        self._by_id: dict[int, Entry[V]] = {}

    async def get(self, key: K) -> V:
        entry = self._entries.get(key)
        now = asyncio.get_running_loop().time()
        if entry is not None:
            if now - entry.read_at < FRESH_S:
                return entry.value
            if entry.read_at > float("-inf"):
                # Whoever comes while we read may have the old one: a busy topic is read once, not a hundred times.
                entry.read_at = now
        try:
            value = await self._read(key)
        except BaseException as error:
            self.forget(key)
            if isinstance(error, NotFound):
                self._drop(key)
            raise
        self._put(key, value, now)
        return value

    def fresh(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is not None and asyncio.get_running_loop().time() - entry.read_at < FRESH_S:
            return entry.value
        return None

    def forget(self, key: K) -> None:
        if (entry := self._entries.get(key)) is not None:
            entry.read_at = float("-inf")

    def clear(self) -> None:
        self._entries.clear()
        self._by_id.clear()

    def keys_now(self) -> list[K]:
        return list(self._entries)

    def derived(self, value: V, make: Callable[[V], T]) -> T:
        entry = self._by_id.get(value.id)
        if entry is None or entry.value.version != value.version:
            return make(value)
        if make not in entry.made:
            entry.made[make] = make(value)
        made: T = entry.made[make]
        return made

    def _put(self, key: K, value: V, read_at: float) -> None:
        known = self._entries.get(key)
        if known is not None and known.value.id == value.id and known.value.version > value.version:
            return  # two reads have overtaken each other
        entry = Entry(value, read_at)
        if known is not None and (known.value.id, known.value.version) == (value.id, value.version):
            entry.made = known.made
        self._drop(key)
        while len(self._entries) >= MAX_ENTRIES:
            self._drop(next(iter(self._entries)))
        self._entries[key] = self._by_id[value.id] = entry

    def _drop(self, key: K) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self._by_id.pop(entry.value.id, None)
