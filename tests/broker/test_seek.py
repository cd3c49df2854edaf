"""Seek: every form of it, on every partition, whatever is in flight."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.broker.configure import TopicDeclaration, declare_topic
from app.broker.pause import pause_group, resume_group
from app.broker.seek import seek, seek_message
from app.domain.errors import MessageNotFound
from app.domain.topic import TopicConfig
from tests.broker.world import TOPIC, Replica, texts

Pair = tuple[Replica, Replica]


@pytest.mark.parametrize(("position", "left"), [("earliest", 5), ("latest", 0), (0, 5), (1, 5), (4, 2), (99, 0)])
async def test_a_seek_moves_every_partition_and_is_clamped_to_what_exists(
    pair: Pair, position: str | int, left: int
) -> None:
    one, other = pair
    await one.topic(partitions=2)
    group = await one.group(ordering="none")
    await one.publish(*[str(n) for n in range(10)])
    await one.ack(await one.pull(4))
    await seek(other.db, other.wakeups, group, position)  # type: ignore[arg-type]
    assert await one.lag() == 2 * left
    again = await one.pull()
    assert len(again) == 2 * left
    assert {each.attempt for each in again} <= {1}
    await one.ack(again)
    await one.publish("new", "new")
    assert texts(await other.pull()) == ["new", "new"], "a clamped seek never skips what is published later"


async def test_seek_latest_cancels_everything_in_flight_and_deferred(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    group = await one.group()
    await one.publish("k:1", "k:2", "j:3", "j:4")
    got = await one.pull(3)
    await one.settle("nack", got[:1], delay_ms=0)
    await seek(other.db, other.wakeups, group, "latest")
    assert await one.lag() == 0
    assert await one.pull_or_why() == ([], "no_messages")
    assert await one.settle("ack", got) == [False, False, False]
    await one.publish("k:5")
    assert texts(await other.pull()) == ["k:5"]


async def test_a_seek_to_a_time_starts_with_the_first_message_at_or_after_it(replica: Replica) -> None:
    await replica.topic()
    group = await replica.group(start_from="latest")
    (a,), (b,), (c,) = [await replica.publish(text) for text in ("a", "b", "c")]
    microsecond = timedelta(microseconds=1)
    for at, expected in (
        (a.published_at - microsecond, ["a", "b", "c"]), (b.published_at, ["b", "c"]),
        (b.published_at + microsecond, ["c"]), (c.published_at + microsecond, []),
    ):  # fmt: skip
        await seek(replica.db, replica.wakeups, group, at)
        assert texts(await replica.pull()) == expected


async def test_a_seek_to_a_message_moves_its_partition_only(pair: Pair) -> None:
    one, other = pair
    await one.topic(partitions=4)
    group = await one.group(ordering="none")
    published = await one.publish(*[f"k{n}:{n}" for n in range(40)])
    await one.ack(await one.pull())
    target = published[17]
    behind = [each for each in published if each.partition == target.partition and each.offset >= target.offset]
    await seek_message(other.db, other.wakeups, group, target.id)
    again = await other.pull()
    assert [(each.partition, each.offset) for each in again] == [(each.partition, each.offset) for each in behind]


@pytest.mark.parametrize("kind", ["nonsense", "never there", "purged", "of another topic", "with another stamp"])
async def test_a_seek_to_an_unknown_message_changes_nothing(replica: Replica, kind: str) -> None:
    await replica.topic()
    await replica.topic(name="other")
    group = await replica.group()
    (known, _), (foreign,) = await replica.publish("a", "b"), await replica.publish("a", topic="other")
    got = await replica.pull(1)
    head, place, stamp, offset = known.id.split("_")
    wanted = {
        "nonsense": "msg_x", "never there": f"{head}_{place}_{stamp}_63", "purged": known.id,
        "of another topic": foreign.id, "with another stamp": f"{head}_{place}_{int(stamp, 16) ^ 1:08x}_{offset}",
    }[kind]  # fmt: skip
    if kind == "purged":
        await replica.db.execute("update partitions set first_offset = 2")
    with pytest.raises(MessageNotFound):
        await seek_message(replica.db, replica.wakeups, group, wanted)
    assert await replica.ack(got) == [True], "the lease is untouched"


async def test_pause_seek_resume_replays_exactly_the_range(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    group = await one.group()
    await one.publish(*map(str, range(1, 6)))
    await one.ack(await one.pull())
    await pause_group(one.db, group)
    await seek(one.db, one.wakeups, group, 3)
    assert await other.pull_or_why() == ([], "paused")
    await resume_group(other.db, other.wakeups, group)
    assert texts(await other.pull()) == ["3", "4", "5"]


async def test_a_seek_on_a_trimmed_topic_starts_at_the_first_retained_message(replica: Replica) -> None:
    await replica.topic()
    group = await replica.group()
    await replica.publish(*map(str, range(1, 6)))
    await replica.ack(await replica.pull())
    await replica.db.execute("update partitions set first_offset = 4")
    await seek(replica.db, replica.wakeups, group, "earliest")
    assert await replica.lag() == 2
    got = await replica.pull()
    assert texts(got) == ["4", "5"]
    await replica.ack(got)
    assert await replica.lag() == 0


async def test_a_seek_moves_partitions_that_this_replica_has_not_heard_of(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    stale = await other.known()
    declaration = TopicDeclaration(lambda _present: TopicConfig(), (), 4)
    await declare_topic(one.db, one.catalog, one.namespace, TOPIC, declaration)
    await one.publish(*map(str, range(8)))
    moved = await seek(other.db, other.wakeups, stale, "latest")
    assert sorted(moved) == [0, 1, 2, 3]
    assert await one.lag() == 0


async def test_raising_partitions_keeps_old_messages_and_delivers_new_ones_from_their_start(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group(start_from="latest")
    await one.publish("before")
    await one.topic(partitions=8)
    await one.publish(*[f"{n}" for n in range(8)])
    got = await other.pull()
    assert sorted(texts(got)) == sorted(["before", *[str(n) for n in range(8)]])
    assert {each.partition for each in got} == set(range(8))
