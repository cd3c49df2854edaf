"""Deleting a group or a topic while it is in use, and purging one."""

from __future__ import annotations

import pytest

from app.broker.configure import delete_group, delete_topic
from app.broker.purge import purge
from app.domain.errors import GroupNotFound, NotFound, TopicNotFound
from app.domain.group import Retries
from tests.broker.test_wakeups import waiting
from tests.broker.world import GROUP, TOPIC, Replica, texts

Pair = tuple[Replica, Replica]


async def test_a_purge_empties_everything_and_offsets_go_on(pair: Pair) -> None:
    one, other = pair
    topic = await one.topic(partitions=2)
    await one.group(ordering="none", retries=Retries(0, "fixed", 1, 1))
    await one.group(name="other")
    published = await one.publish(*[str(n) for n in range(10)], idempotency_key=None)
    once = await one.publish("once", idempotency_key="once")
    got = await one.pull(6)
    await one.settle("nack", got[:2])
    await one.ack(got[2:3])
    assert await purge(other.db, topic) == 11
    stats = await one.stats()
    assert [stats.total(name) for name in ("lag", "letters", "acked", "ahead", "leased")] == [0, 0, 1, 0, 0]
    assert await one.lag("other") == 0
    assert await other.settle("ack", got[3:]) == [False] * 3
    again = await one.publish("once", idempotency_key="once")
    assert not again[0].duplicate
    assert again[0].offset > max(each.offset for each in published + once if each.partition == again[0].partition)
    assert texts(await other.pull()) == ["once"]
    assert await purge(one.db, topic) == 1
    assert await purge(one.db, topic) == 0


@pytest.mark.parametrize("what", ["group", "topic"])
async def test_deleting_what_is_in_use_ends_waits_pulls_and_settles(pair: Pair, what: str) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    await one.publish("a")
    group = await other.known()
    got = await one.pull()
    task = await waiting(other)
    if what == "group":
        await delete_group(one.db, one.catalog, one.namespace, TOPIC, GROUP)
    else:
        await delete_topic(one.db, one.catalog, one.namespace, TOPIC)
    for payload in one.wakeups.take_outgoing():
        other.wakeups.heard(payload)
    await other.puller.poll_once()
    with pytest.raises(GroupNotFound if what == "group" else TopicNotFound):
        await task
    assert await other.settler.ack(group, [str(got[0].ack_id)]) == [False]
    with pytest.raises(NotFound):
        await other.pull()


async def test_a_group_declared_again_knows_nothing_of_the_one_before(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group(retries=Retries(0, "fixed", 1, 1))
    await one.publish("a", "b")
    got = await one.pull()
    await one.settle("nack", got[:1])
    await delete_group(one.db, one.catalog, one.namespace, TOPIC, GROUP)
    await one.group()
    stats = await one.stats()
    assert [stats.total(name) for name in ("lag", "letters", "acked")] == [2, 0, 0]
    assert texts(await other.pull()) == ["a", "b"]
