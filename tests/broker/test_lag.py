"""What a group has still to settle, and where it has settled everything up to: exact whatever happens."""

from __future__ import annotations

from typing import Any

import pytest

from app.broker.purge import purge
from app.broker.redrive import redrive_all
from app.broker.seek import seek
from app.domain.group import Retries
from app.storage.cursors import Standing
from tests.broker.calendar import end_leases
from tests.broker.world import Replica, texts

Pair = tuple[Replica, Replica]
ONCE = Retries(0, "fixed", 1, 1)
TRIM = "update partitions set first_offset = $1"


async def standing(replica: Replica) -> Standing:
    (found,) = (await replica.stats()).standings
    return found


async def test_the_committed_offset_does_not_pass_what_is_unfinished(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group(ordering="none")
    await one.publish(*map(str, range(1, 7)))
    got = await one.pull()
    committed = []
    for at in (1, 2, 0, 5, 4, 3):
        await other.ack([got[at]])
        committed.append((await standing(one)).committed_offset)
    assert committed == [0, 0, 3, 3, 3, 6]


@pytest.mark.parametrize("end", ["nack", "timeout", "discard"])
async def test_the_committed_offset_waits_for_deferred_messages_and_never_goes_back(replica: Replica, end: str) -> None:
    await replica.topic()
    await replica.group(retries=Retries(3, "fixed", 60_000, 60_000))
    await replica.publish("k:1", "k:2", "j:3")
    got = await replica.pull()
    await replica.ack(got[2:])
    if end == "timeout":
        await end_leases(replica.db)
        await replica.pull()
    else:
        await replica.settle(end, got[:1])
    found = await standing(replica)
    assert found.committed_offset == (1 if end == "discard" else 0)
    assert found.lag == (1 if end == "discard" else 2)


async def test_a_redriven_dead_letter_counts_in_the_lag_and_not_in_the_committed_offset(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    group = await one.group(retries=ONCE)
    await one.publish("a", "b")
    got = await one.pull()
    await one.settle("nack", got[:1])
    await one.ack(got[1:])
    assert (await standing(one)).committed_offset == 2
    assert await redrive_all(other.db, other.wakeups, group) == 1
    assert ((await standing(one)).committed_offset, await one.lag()) == (2, 1)
    got = await other.pull()
    assert ((await standing(one)).committed_offset, await one.lag()) == (2, 1), "also while it is in flight"
    await one.ack(got)
    assert ((await standing(one)).committed_offset, await one.lag()) == (2, 0)


async def test_what_retention_took_before_it_was_read_is_lost_and_seen_to_be_at_once(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    await one.publish(*map(str, range(1, 11)))
    await one.ack(await one.pull(2))
    await one.db.execute(TRIM, 6)
    found = await standing(one)
    assert (found.lost, found.lag, found.committed_offset) == (3, 5, 5), "nobody has read yet"
    assert texts(await other.pull()) == ["6", "7", "8", "9", "10"]
    found = await standing(one)
    assert (found.lost, found.lag, found.acked) == (3, 5, 2)


async def test_a_lag_is_nothing_when_everything_was_trimmed(replica: Replica) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a", "b")
    await replica.db.execute(TRIM, 3)
    found = await standing(replica)
    assert (found.lag, found.lost, found.committed_offset) == (0, 2, 2)
    assert await replica.pull_or_why() == ([], "no_messages")


@pytest.mark.parametrize("way", ["seek", "purge"])
async def test_what_was_lost_stays_lost_when_the_group_is_moved(replica: Replica, way: str) -> None:
    topic = await replica.topic()
    group = await replica.group()
    await replica.publish("a", "b", "c")
    await replica.db.execute(TRIM, 3)
    if way == "seek":
        await seek(replica.db, replica.wakeups, group, "latest")
    else:
        await purge(replica.db, topic)
    found = await standing(replica)
    assert (found.lost, found.lag, found.acked) == (2, 0, 0)


async def test_a_leased_message_that_is_trimmed_can_be_settled_and_is_no_loss(replica: Replica) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a", "b")
    got = await replica.pull()
    await replica.db.execute(TRIM, 3)
    assert await replica.ack(got) == [True, True]
    found = await standing(replica)
    assert (found.lost, found.acked, found.lag) == (0, 2, 0)


async def test_every_message_is_counted_in_exactly_one_place(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group(retries=Retries(0, "fixed", 1, 1), ordering="none")
    await one.publish(*map(str, range(1, 11)))
    got = await one.pull(6)
    await other.ack(got[:2])
    await other.settle("discard", got[2:3])
    await other.settle("nack", got[3:4])
    stats = await one.stats()
    places: dict[str, Any] = {
        name: stats.total(name) for name in ("acked", "discarded", "dead", "leased", "ahead", "lag")
    }
    assert places == {"acked": 2, "discarded": 1, "dead": 1, "leased": 2, "ahead": 4, "lag": 6}
