"""Wake-ups: hints that something may be worth a look. Storage is the truth; a lost hint costs latency, never a message.

publish ──published──▶ ┌─────────┐ ──▶ lines of this process: pulls, pushes, streams
settle  ──freed──────▶ │ Wakeups │
LISTEN  ──heard──────▶ └─────────┘ ──take_outgoing──▶ NOTIFY ──▶ the other replicas

A replica that is alone tells nobody: a NOTIFY costs the server about as much as the commit it speaks of. It is alone
while the heartbeat sees no other and no other has been heard of since; one that starts says so to all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

from app.domain.partition import topic_of

# NOTIFY takes payloads below 8000 bytes.
MAX_PAYLOAD = 7000

# What a hint calls: with the partitions in question, or with none for "look at everything".
Listener = Callable[[Iterable[int]], None]
# What is told of deliveries that ended: partition, lease, offsets.
SettledListener = Callable[[int, int, Collection[int]], None]


class Wakeups:
    """The hints of one process. Everything here runs on its event loop and returns at once."""

    def __init__(self) -> None:
        self.listening = False  # kept by loops/listen.py: while true, hints of other replicas arrive
        self.heard_count = 0
        self.outgoing = asyncio.Event()
        self._is_alone = False
        self._greets = False
        # Topics of which hooks are told, and what is called when something of them may have to be (broker/announce.py).
        self.hooked: frozenset[int] = frozenset()
        self.tell_hooks: Callable[[], None] = lambda: None
        self._published: set[int] = set()
        self._freed: set[tuple[int, int]] = set()
        self._by_topic: dict[int, set[Listener]] = {}
        self._by_group: dict[int, set[Listener]] = {}
        self._by_holder: dict[int, set[SettledListener]] = {}

    def published(self, partition_ids: Iterable[int]) -> None:
        """Messages were committed in these partitions, by this process."""
        partition_ids = tuple(partition_ids)
        if not self._is_alone:
            self._published.update(partition_ids)
            self.outgoing.set()
        self._tell_topics(partition_ids)
        self._hint_hooks(partition_ids)

    def freed(self, group_id: int, partition_ids: Iterable[int]) -> None:
        """Something of a group has become claimable there: it was settled, resumed, moved or brought back."""
        partition_ids = tuple(partition_ids)
        if not self._is_alone:
            self._freed.update((group_id, partition_id) for partition_id in partition_ids)
            self.outgoing.set()
        self._tell_group(group_id, partition_ids)

    def greet(self) -> None:
        """Tells the other replicas that this one is there."""
        self._greets = True
        self.outgoing.set()

    def counted(self, others: int, heard_before: int) -> None:
        """So many other replicas were alive, as the database has it; ``heard_before``: ``heard_count`` when it was
        asked, lest somebody who greeted meanwhile be overlooked."""
        self._is_alone = others == 0 and self.listening and self.heard_count == heard_before

    def settled(self, group_id: int, partition_id: int, lease_id: int, offsets: Collection[int]) -> None:
        """These deliveries have ended, by this process. Only told here: others see it in storage."""
        for listener in tuple(self._by_holder.get(group_id, ())):
            listener(partition_id, lease_id, offsets)
        self._hint_hooks((partition_id,))

    def heard(self, payload: str) -> None:
        """A hint of another replica: ``p`` or ``f``, then hexadecimal numbers; or ``h``, which is a greeting. What
        cannot be read wakes everyone."""
        self.heard_count += 1
        self._is_alone = False
        try:
            kind, *words = payload.split(" ")
            if kind == "p":
                self._tell_topics([int(word, 16) for word in words])
            elif kind == "f":
                group_id, *partition_ids = (int(word, 16) for word in words)
                self._tell_group(group_id, partition_ids)
        except ValueError:
            self.wake_all()

    def wake_all(self) -> None:
        """Hints may have been missed: everybody looks at everything."""
        self._is_alone = False
        for listeners in [*self._by_topic.values(), *self._by_group.values()]:
            for listener in tuple(listeners):
                listener(())

    def take_outgoing(self) -> list[str]:
        """The payloads to send now, each below MAX_PAYLOAD bytes; what they say is forgotten here."""
        self.outgoing.clear()
        published, self._published = self._published, set()
        freed, self._freed = self._freed, set()
        by_group: dict[int, list[int]] = {}
        for group_id, partition_id in freed:
            by_group.setdefault(group_id, []).append(partition_id)
        payloads = (["h"] if self._greets else []) + _split("p", published)
        self._greets = False
        for group_id, partition_ids in by_group.items():
            payloads += _split(f"f {group_id:x}", partition_ids)
        return payloads

    def listen(self, topic_id: int, group_id: int | None, listener: Listener) -> Callable[[], None]:
        """Calls ``listener`` on hints for the topic, and for the group if one is given. Returns what ends it."""
        places = [(self._by_topic, topic_id)] + ([(self._by_group, group_id)] if group_id is not None else [])
        for listeners, of in places:
            listeners.setdefault(of, set()).add(listener)

        def stop() -> None:
            for listeners, of in places:
                listeners[of].discard(listener)
                if not listeners[of]:
                    del listeners[of]

        return stop

    def listen_settled(self, group_id: int, listener: SettledListener) -> Callable[[], None]:
        """Calls ``listener`` when deliveries of the group are settled here. Returns what ends it."""
        self._by_holder.setdefault(group_id, set()).add(listener)

        def stop() -> None:
            self._by_holder[group_id].discard(listener)
            if not self._by_holder[group_id]:
                del self._by_holder[group_id]

        return stop

    def _tell_topics(self, partition_ids: Iterable[int]) -> None:
        by_topic: dict[int, list[int]] = {}
        for partition_id in partition_ids:
            if (topic_id := topic_of(partition_id)) in self._by_topic:
                by_topic.setdefault(topic_id, []).append(partition_id)
        for topic_id, hinted in by_topic.items():
            for listener in tuple(self._by_topic[topic_id]):
                listener(hinted)

    def _hint_hooks(self, partition_ids: Iterable[int]) -> None:
        if self.hooked and any(topic_of(partition_id) in self.hooked for partition_id in partition_ids):
            self.tell_hooks()

    def _tell_group(self, group_id: int, partition_ids: Iterable[int]) -> None:
        for listener in tuple(self._by_group.get(group_id, ())):
            listener(partition_ids)


def _split(head: str, numbers: Iterable[int]) -> list[str]:
    payloads = []
    payload = head
    for number in numbers:
        word = f" {number:x}"
        if len(payload) + len(word) > MAX_PAYLOAD:
            payloads.append(payload)
            payload = head
        payload += word
    return [*payloads, payload] if payload != head else payloads
