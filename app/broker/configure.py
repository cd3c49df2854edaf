"""Declaring and deleting topics and groups: each one transaction.

Declaring says what should be; what is there already is changed to it. Two declarations of one name at a time take
turns. A change raises the version that appends and claims compare, in the same transaction, so that no process works
by an old configuration for longer than one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from app.broker.catalog import Catalog
from app.broker.hooks import drop_hooks, keep_group_hook, keep_topic_hooks
from app.broker.wakeups import Wakeups
from app.domain.errors import Fault, FewerPartitions, GroupNotFound, TopicNotFound
from app.domain.group import Group, GroupConfig
from app.domain.limits import DEFAULT_LIMITS, Limits
from app.domain.names import Namespace
from app.domain.partition import partition_id
from app.domain.position import parse_position
from app.domain.topic import Topic, TopicConfig
from app.storage import deletions, endpoints, groups, namespaces, topics
from app.storage.database import Database, Tx, clock, on_collision_again
from app.telemetry import log

T = TypeVar("T")

# Pieces removed before a deletion is answered: a small topic is gone with the answer, the rest of a large one later.
PIECES_AT_ONCE = 16

# The configuration that is wanted, given the one that is there: "the secret you have" depends on it.
WantedTopic = Callable[[TopicConfig | None], TopicConfig]
WantedGroup = Callable[[GroupConfig | None], GroupConfig]


@dataclass(frozen=True, slots=True)
class Declared(Generic[T]):
    """What there is now, and whether it was not there before."""

    value: T
    created: bool


@dataclass(frozen=True, slots=True)
class TopicDeclaration:
    """``partitions``: None leaves a topic's as they are, and gives a new one ``default_partitions``."""

    config: WantedTopic
    tags: Sequence[str] = ()
    partitions: int | None = None
    default_partitions: int = 1
    limits: Limits = DEFAULT_LIMITS


async def declare_topic(
    db: Database, catalog: Catalog, namespace: Namespace, name: str, declaration: TopicDeclaration
) -> Declared[Topic]:
    """Makes the topic, or changes it. Raises FewerPartitions, LimitReached, and what ``config`` raises."""

    async def attempt() -> Declared[Topic]:
        async with db.transaction() as tx:
            present = await topics.lock_topic(tx, namespace.id, name)
            if present is None:
                return Declared(await _create_topic(tx, namespace, name, declaration), created=True)
            return Declared(await _change_topic(tx, present, declaration), created=False)

    declared = await on_collision_again(attempt)
    catalog.forget_topic(namespace.id, name)
    return declared


async def delete_topic(db: Database, catalog: Catalog, namespace: Namespace, name: str) -> None:
    """Deletes the topic with its messages and groups. Raises TopicNotFound."""

    async def attempt() -> None:
        async with db.transaction() as tx:
            topic = await topics.lock_topic(tx, namespace.id, name)
            if topic is None:
                raise TopicNotFound.named(name)
            group_ids = await groups.lock_groups(tx, topic.id)
            await topics.lock_partitions(tx, topic.id)
            await drop_hooks(tx, topic.id)
            await groups.delete_groups(tx, group_ids)
            await topics.delete_partitions(tx, topic.id)
            await topics.delete_topic(tx, topic.id)

    await on_collision_again(attempt)
    log.info("topic_deleted", topic=name)
    catalog.forget_topic(namespace.id, name)
    await remove_deleted_once(db, pieces=PIECES_AT_ONCE)


async def declare_group(
    db: Database,
    catalog: Catalog,
    wakeups: Wakeups,
    namespace: Namespace,
    topic_name: str,
    name: str,
    wanted: WantedGroup,
    limits: Limits = DEFAULT_LIMITS,
) -> Declared[Group]:
    """Makes the group, or changes it. Raises TopicNotFound, LimitReached, and whatever ``wanted`` raises."""

    async def attempt() -> Declared[Group]:
        async with db.transaction() as tx:
            # Not shared: partitions may not be added, nor the topic paused or deleted, between reading and writing.
            topic = await topics.lock_topic(tx, namespace.id, topic_name)
            if topic is None:
                raise TopicNotFound.named(topic_name)
            present = await groups.lock_group(tx, topic.id, name)
            if present is None:
                limits.check_groups(1 + await groups.count_groups(tx, topic.id))
                return Declared(await _create_group(tx, topic, name, wanted(None)), created=True)
            return Declared(await _change_group(tx, topic, present, wanted(present.config)), created=False)

    declared = await on_collision_again(attempt)
    catalog.forget_group(namespace.id, topic_name, name)
    group = declared.value
    wakeups.freed(group.id, [partition_id(group.topic_id, number) for number in range(group.partitions)])
    return declared


async def delete_group(db: Database, catalog: Catalog, namespace: Namespace, topic_name: str, name: str) -> None:
    """Deletes the group with its cursors, leases and dead letters. Raises TopicNotFound, GroupNotFound."""

    async def attempt() -> None:
        async with db.transaction() as tx:
            topic = await topics.lock_topic(tx, namespace.id, topic_name)
            if topic is None:
                raise TopicNotFound.named(topic_name)
            group = await groups.lock_group(tx, topic.id, name)
            if group is None:
                raise GroupNotFound.named(topic_name, name)
            await drop_hooks(tx, topic.id, group.id)
            await groups.delete_groups(tx, [group.id])

    await on_collision_again(attempt)
    log.info("group_deleted", topic=topic_name, group=name)
    catalog.forget_group(namespace.id, topic_name, name)
    await remove_deleted_once(db, pieces=PIECES_AT_ONCE)


async def remove_deleted_once(db: Database, *, pieces: int) -> int:
    """Removes up to so many pieces of what deleted topics and groups left; returns how many there were."""
    for done in range(pieces):
        if not await deletions.remove_piece(db):
            return done
    return pieces


async def _create_topic(tx: Tx, namespace: Namespace, name: str, declaration: TopicDeclaration) -> Topic:
    config = declaration.config(None)
    partitions = declaration.partitions or declaration.default_partitions
    topics_there, partitions_there = await namespaces.lock_and_count(tx, namespace.id)
    declaration.limits.check_topics(topics_there + 1)
    declaration.limits.check_partitions(partitions, partitions_there + partitions)
    topic = await topics.insert_topic(
        tx, namespace.id, name, config=config, tags=declaration.tags, partitions=partitions
    )  # fmt: skip
    await topics.insert_partitions(tx, topic.id, range(topic.partitions), topic.version)
    await keep_topic_hooks(tx, topic)
    log.info("topic_created", topic=name, partitions=topic.partitions)
    return topic


async def _change_topic(tx: Tx, present: Topic, declaration: TopicDeclaration) -> Topic:
    partitions = declaration.partitions or present.partitions
    if partitions < present.partitions:
        reason = f"can be raised only: the topic has {present.partitions}"
        raise FewerPartitions(f"distribution.partitions {reason}.", [Fault(reason, "distribution.partitions")])
    config = declaration.config(present.config)
    if (config, tuple(declaration.tags), partitions) == (present.config, present.tags, present.partitions):
        return present
    if partitions > present.partitions:
        _, there = await namespaces.lock_and_count(tx, present.namespace_id)
        declaration.limits.check_partitions(partitions, there + partitions - present.partitions)

    topic = await topics.update_topic(tx, present, config=config, tags=declaration.tags, partitions=partitions)
    group_ids = await groups.lock_groups(tx, topic.id)
    await topics.lock_partitions(tx, topic.id)
    await topics.set_version(tx, topic.id, topic.version)
    if partitions > present.partitions:
        added = range(present.partitions, partitions)
        await topics.insert_partitions(tx, topic.id, added, topic.version)
        await groups.bump_versions(tx, group_ids)
        await groups.tell_cursors(tx, group_ids)
        await groups.insert_cursors_of_new(tx, topic.id, added)
    await keep_topic_hooks(tx, topic)
    log.info("topic_changed", topic=topic.name, version=topic.version, partitions=partitions)
    return topic


async def _create_group(tx: Tx, topic: Topic, name: str, config: GroupConfig) -> Group:
    start = parse_position(config.start_from, "startFrom")
    await topics.lock_partitions(tx, topic.id)
    group = await groups.insert_group(tx, topic.id, name, config)
    await groups.insert_cursors(tx, group, start)
    await keep_group_hook(tx, topic, group)
    log.info("group_created", topic=topic.name, group=name)
    return group


async def _change_group(tx: Tx, topic: Topic, present: Group, wanted: GroupConfig) -> Group:
    delivery = wanted.delivery.replacing(present.config.delivery, await clock(tx))
    config = msgspec.structs.replace(wanted, delivery=delivery)
    if config == present.config:
        return present
    if config.delivery.url != present.config.delivery.url:
        await endpoints.forget(tx, [present.id])
    group = await groups.update_group(tx, present, config)
    await groups.tell_cursors(tx, [group.id])
    await keep_group_hook(tx, topic, group)
    log.info("group_changed", topic=group.topic, group=group.name, version=group.version)
    return group
