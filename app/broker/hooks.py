"""Keeping hooks as topics and groups declare them: a log for each, and a group that pushes it.

Part of the transaction that declares or deletes, whose lock on the topic keeps everybody else from the same hooks.
"""

from __future__ import annotations

import msgspec

from app.domain import hook as domain
from app.domain.group import Group
from app.domain.hook import GROUP, LOG_CONFIG, Event, Hook
from app.domain.topic import Topic
from app.storage import endpoints, groups, hooks, topics
from app.storage.database import Tx, clock


async def keep_topic_hooks(tx: Tx, topic: Topic) -> None:
    """Makes the topic's hooks what its configuration says, in all its partitions, which are locked or new."""
    config = topic.config.hooks
    wanted = domain.urls_of(config)
    for hook in await hooks.hooks_of(tx, topic.id):
        if hook.group_id:  # its URL is its group's affair, but the secret is the topic's
            await _change(tx, hook, None, config.secret)
        elif hook.event in wanted:
            await _change(tx, hook, wanted.pop(hook.event), config.secret)
        else:
            await _drop(tx, hook)
    for event, url in wanted.items():
        await _create(tx, topic.id, event, 0, url, config.secret)
    if config.on_publish is None:
        await hooks.unfollow(tx, topic.id)
    else:
        await hooks.follow(tx, topic.id)


async def keep_group_hook(tx: Tx, topic: Topic, group: Group) -> None:
    """The group's own deadLetter.onDead."""
    url, secret = group.config.dead_letter.on_dead, topic.config.hooks.secret
    present = [hook for hook in await hooks.hooks_of(tx, topic.id) if hook.group_id == group.id]
    if url is None:
        for hook in present:
            await _drop(tx, hook)
    elif present:
        await _change(tx, present[0], url, secret)
    else:
        await _create(tx, topic.id, "dead", group.id, url, secret)


async def drop_hooks(tx: Tx, topic_id: int, group_id: int | None = None) -> None:
    """Of a topic that goes, or of one group of it. What was not told yet will not be."""
    for hook in await hooks.hooks_of(tx, topic_id):
        if group_id in (None, hook.group_id):
            await _drop(tx, hook)
    if group_id is None:
        await hooks.unfollow(tx, topic_id)


async def _create(tx: Tx, topic_id: int, event: Event, group_id: int, url: str, secret: str | None) -> None:
    log = await topics.insert_topic(
        tx, await hooks.namespace_id(tx), domain.log_name(topic_id, event, group_id), config=LOG_CONFIG, tags=(),
        partitions=1,
    )  # fmt: skip
    await topics.insert_partitions(tx, log.id, range(1), log.version)
    group = await groups.insert_group(tx, log.id, GROUP, domain.group_config(url, secret))
    await groups.insert_cursors(tx, group, "earliest")
    await hooks.insert_hook(tx, Hook(topic_id, event, group_id, log.id))


async def _change(tx: Tx, hook: Hook, url: str | None, secret: str | None) -> None:
    present = await groups.lock_group(tx, hook.log_id, GROUP)
    assert present is not None, "a log and its group come and go together"
    before = present.config.delivery
    assert before.url is not None
    wanted = domain.group_config(url or before.url, secret)
    config = msgspec.structs.replace(wanted, delivery=wanted.delivery.replacing(before, await clock(tx)))
    if config == present.config:
        return
    if config.delivery.url != before.url:
        await endpoints.forget(tx, [present.id])
    await groups.update_group(tx, present, config)
    await groups.tell_cursors(tx, [present.id])


async def _drop(tx: Tx, hook: Hook) -> None:
    await hooks.delete_hook(tx, hook)
    group_ids = await groups.lock_groups(tx, hook.log_id)
    await topics.lock_partitions(tx, hook.log_id)
    await groups.delete_groups(tx, group_ids)
    await topics.delete_partitions(tx, hook.log_id)
    await topics.delete_topic(tx, hook.log_id)
