"""Publish: choose each message's partition, see that the topic accepts it, and have it appended.

The topic may be a moment old; what was chosen by an old one is refused by the database and chosen again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Collection, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any

import msgspec

from app.broker.appender import Appender
from app.broker.catalog import Catalog
from app.broker.drain import digest_of
from app.domain.errors import DatabaseUnavailable, Fault, IdempotencyKeyReused, MessageRejected
from app.domain.expression import Context, Expression, Verdict, compile_expression, seen
from app.domain.message import Landed, NewMessage, holds_json
from app.domain.options import key_fault
from app.domain.partition import NUMBER_BITS, partition_for, partition_id
from app.domain.payload import decode
from app.domain.schema import MessageSchema, compile_schema
from app.domain.topic import Topic
from app.storage.database import Database, Outdated
from app.storage.idempotency import find_taken

# Topics whose turn is remembered; another one starts anywhere.
MAX_TURNS = 10_000
MAX_TRIES = 8
_key = attrgetter("key")


@dataclasses.dataclass(frozen=True, slots=True)
class Checks:
    """What a topic wants to know of a message's content, compiled."""

    schema: MessageSchema | None
    rules: tuple[tuple[Expression, str], ...]
    key: Expression | None

    @classmethod
    def of(cls, topic: Topic) -> Checks | None:
        """None for a topic that takes everything and derives no key."""
        config = topic.config
        validation = config.validate
        if validation.schema is None and not validation.rules and config.partition_key is None:
            return None
        return cls(
            None if validation.schema is None else compile_schema(validation.schema, "validate.schema"),
            tuple(
                (compile_expression(rule.rule, "rule", f"validate.rules[{at}].rule"), rule.message or rule.rule)
                for at, rule in enumerate(validation.rules)
            ),
            None
            if config.partition_key is None
            else compile_expression(config.partition_key, "partitionKey", "distribution.partitionKey"),
        )


class Publisher:
    """One per process."""

    def __init__(self, db: Database, catalog: Catalog, appender: Appender) -> None:
        self._db = db
        self._catalog = catalog
        self._appender = appender
        self._turns: dict[int, int] = {}

    async def publish(
        self, namespace_id: int, topic: str, messages: Sequence[NewMessage], *, batch: bool = False
    ) -> list[Landed]:
        """Where the messages are, once all of them are committed; if any is refused, none is stored.

        ``batch`` says that they came as one, so that faults name their index. Raises TopicNotFound, MessageRejected,
        IdempotencyKeyReused, QueueFull, CommitUnknown and other Unavailable.
        """
        repeats: Collection[int] = ()
        # catalog.with_topic, written out: this is once per message.
        for _ in range(MAX_TRIES):
            known = self._catalog.fresh_topic(namespace_id, topic) or await self._catalog.topic(namespace_id, topic)
            try:
                return await self._append(known, messages, batch, repeats)
            except Outdated:
                self._catalog.forget_topic(namespace_id, topic)
            except MessageRejected:
                # Appending would have told that the topic has changed; a rejection has to ask.
                self._catalog.forget_topic(namespace_id, topic)
                now = await self._catalog.topic(namespace_id, topic)
                if (now.id, now.version) == (known.id, known.version):
                    if len(found := await self._repeats(now, messages)) <= len(repeats):
                        raise
                    repeats = found
            except IdempotencyKeyReused as error:
                raise _in_callers_words(error, batch) from None
        raise DatabaseUnavailable(f"Topic {topic!r} keeps changing; try again.")

    def takes_everything(self, topic: Topic) -> bool:
        """Whether nothing of a message's content matters to the topic: ``begin`` may be asked."""
        return not topic.config.idempotency.cloud_events_id and self._catalog.of_topic(topic, Checks.of) is None

    def begin(self, topic: Topic, messages: Sequence[NewMessage]) -> asyncio.Future[list[Landed]]:
        """``publish`` to a topic that takes everything, without waiting: for who has a callback.

        Raises QueueFull, ShuttingDown; the answer also Outdated, with which it is to be published all over again.
        """
        return self._appender.append(topic, messages, self._partition_ids(topic, messages))

    async def _repeats(self, topic: Topic, messages: Sequence[NewMessage]) -> set[int]:
        """The indexes of those that were published before, with the same payload under the same idempotency key: they
        are answered as then, whatever the topic takes by now."""
        if topic.config.idempotency.cloud_events_id:
            messages = [_once_as_event(message) for message in messages]
        keys = {
            index: (partition_id(topic.id, partition_for(key, topic.home_partitions)), key)
            for index, message in enumerate(messages)
            if (key := message.idempotency_key) is not None
        }
        if not keys:
            return set()
        asked = sorted(set(keys.values()))
        async with self._db.connection() as connection:
            taken = await find_taken(connection, asked, [topic.config.idempotency.window_ms] * len(asked))
        return {
            index
            for index, key in keys.items()
            if key in taken and taken[key].digest == digest_of(messages[index].payload)
        }

    def _append(
        self, topic: Topic, messages: Sequence[NewMessage], batch: bool, repeats: Collection[int]
    ) -> Awaitable[list[Landed]]:
        """``repeats``: the indexes of those that need not be what the topic takes."""
        if topic.config.idempotency.cloud_events_id:
            messages = [_once_as_event(message) for message in messages]
        checks = self._catalog.of_topic(topic, Checks.of)
        if checks is not None:
            messages = _checked(topic, checks, messages, batch, repeats)
        return self._appender.append(topic, messages, self._partition_ids(topic, messages))

    def _partition_ids(self, topic: Topic, messages: Sequence[NewMessage]) -> list[int]:
        first, count = topic.id << NUMBER_BITS, topic.partitions
        if count == 1:
            return [first] * len(messages)
        keys = [*map(_key, messages)]
        if None not in keys:
            return [first | number for number in map(partition_for, keys, repeat(count))]
        return [
            first | (self._without_key(topic, message) if message.key is None else partition_for(message.key, count))
            for message in messages
        ]

    def _without_key(self, topic: Topic, message: NewMessage) -> int:
        """The number of the partition for a message that has no key."""
        if message.idempotency_key is not None:
            return partition_for(message.idempotency_key, topic.home_partitions)
        return self._turn(topic.id) % topic.partitions

    def _turn(self, topic_id: int) -> int:
        """Counts up from somewhere, so that processes do not all begin with the same partition."""
        turn = self._turns.get(topic_id)
        if turn is None:
            if len(self._turns) >= MAX_TURNS:
                self._turns.clear()
            turn = random.getrandbits(16)
        self._turns[topic_id] = turn + 1
        return turn


def _once_as_event(message: NewMessage) -> NewMessage:
    if message.idempotency_key is not None or message.event_key is None:
        return message
    return msgspec.structs.replace(message, idempotency_key=message.event_key)


def _checked(
    topic: Topic, checks: Checks, messages: Sequence[NewMessage], batch: bool, repeats: Collection[int]
) -> list[NewMessage]:
    """The messages with the keys the topic derives. Raises MessageRejected with every reason."""
    accepted: list[NewMessage] = []
    faults: list[Fault] = []
    for index, message in enumerate(messages):
        found, key = _check(topic, checks, message)
        if found and index not in repeats:
            field = f"messages[{index}].message" if batch else "message"
            at = index if batch else None
            faults += [dataclasses.replace(fault, field=fault.field or field, index=at) for fault in found]
        accepted.append(message if key is None else msgspec.structs.replace(message, key=key))
    if not faults:
        return accepted
    if not batch:
        raise MessageRejected(f"The topic does not accept this message: {faults[0].reason}", faults)
    rejected = sorted({fault.index for fault in faults if fault.index is not None})
    raise MessageRejected(f"The topic does not accept {len(rejected)} of the messages; none was stored.", faults)


def _check(topic: Topic, checks: Checks, message: NewMessage) -> tuple[list[Fault], str | None]:
    """What the topic has against a message, and the key it derives for it."""
    faults: list[Fault] = []
    if checks.schema is not None:
        faults = checks.schema.faults(decode(message.payload) if holds_json(message.content_type) else None)
    wants_key = checks.key is not None and message.key is None
    if not checks.rules and not wants_key:
        return faults, None
    meta: dict[str, Any] = {
        "topic": topic.name,
        "correlationId": message.correlation_id,
        "contentType": message.content_type,
    }
    value = seen(message.payload, message.content_type)
    context = Context(value, message.key, message.headers, meta)
    for rule, reason in checks.rules:
        verdict = rule.judge(context)
        if verdict is Verdict.ERROR:
            faults.append(Fault(f"{reason} (the rule {rule.text!r} cannot be evaluated for this message)", path=""))
        elif verdict is Verdict.NO_MATCH:
            faults.append(Fault(reason, path=""))
    if checks.key is None or not wants_key:
        return faults, None
    key = checks.key.string(context)
    if key is None:
        faults.append(Fault(f"the topic's partition key {checks.key.text!r} gives no string for this message", path=""))
    elif (unfit := key_fault(key)) is not None:
        faults.append(Fault(f"the topic's partition key {checks.key.text!r} gives a string that {unfit}", path=""))
    return faults, key


def _in_callers_words(error: IdempotencyKeyReused, batch: bool) -> IdempotencyKeyReused:
    if batch:
        faults = [
            dataclasses.replace(fault, field=f"messages[{fault.index}].options.idempotencyKey")
            for fault in error.faults
        ]
    else:
        faults = [dataclasses.replace(fault, index=None) for fault in error.faults]
    return IdempotencyKeyReused(error.detail, faults)
