"""Pause: nothing new is leased after the answer, whoever pulls and whatever goes on beside it."""

from __future__ import annotations

import asyncio

import pytest

from app.broker.pause import pause_group, pause_topic, resume_group, resume_topic
from app.storage.database import Database
from tests.broker.world import Replica, texts
from tests.servers import wait_until

Pair = tuple[Replica, Replica]


async def leased(replica: Replica) -> int:
    n: int = (await replica.stats()).total("leased")
    return n


PAUSED = "select bool_and(paused) as every, bool_or(paused) as any from cursors"


async def test_after_a_pause_nothing_is_leased_and_what_is_in_flight_settles(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    group = await one.group()
    await one.publish("a", "b", "c")
    got = await one.pull(2)
    await pause_group(one.db, group, "moving")
    assert await other.pull_or_why() == ([], "paused")
    assert await other.ack(got[:1]) == [True]
    assert await other.settle("nack", got[1:], delay_ms=0) == [True]
    await one.publish("d")
    assert await one.pull_or_why(wait_ms=50) == ([], "paused")
    await resume_group(other.db, other.wakeups, group)
    assert texts(await one.pull()) == ["b", "c", "d"]


async def test_no_claim_that_was_under_way_ends_after_the_pause(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    group = await one.group(ordering="none", max_in_flight=1_000_000)
    await one.publish(*["x"] * 3000)
    leased_at_pause = 0
    stop = asyncio.Event()

    async def consume(replica: Replica) -> None:
        while not stop.is_set():
            await replica.pull(7)

    async with asyncio.TaskGroup() as tasks:
        for replica in (one, other, one):
            tasks.create_task(consume(replica))
        await wait_until(lambda: leased(one))
        await pause_group(one.db, group)
        leased_at_pause = await leased(one)
        for _ in range(20):
            await other.pull(7)
        stop.set()
    assert await leased(one) == leased_at_pause


async def test_a_paused_topic_covers_groups_declared_later_and_publishing_goes_on(pair: Pair) -> None:
    one, other = pair
    topic = await one.topic()
    await one.group()
    await pause_topic(one.db, topic)
    await other.group(name="later")
    await one.publish("a")
    assert await one.pull_or_why() == ([], "paused")
    assert await other.pull_or_why(group="later") == ([], "paused")
    await resume_topic(other.db, other.wakeups, topic)
    assert texts(await one.pull(wait_ms=2000)) == ["a"]
    assert texts(await other.pull(group="later")) == ["a"]


async def test_a_group_paused_itself_stays_paused_when_its_topic_is_resumed_and_the_other_way_round(pair: Pair) -> None:
    one, _ = pair
    topic = await one.topic()
    group = await one.group()
    await one.publish("a")
    await pause_group(one.db, group)
    await pause_topic(one.db, topic)
    await resume_topic(one.db, one.wakeups, topic)
    assert await one.pull_or_why() == ([], "paused")
    await pause_topic(one.db, topic)
    await resume_group(one.db, one.wakeups, group)
    assert await one.pull_or_why() == ([], "paused")
    await resume_topic(one.db, one.wakeups, topic)
    assert texts(await one.pull()) == ["a"]


@pytest.mark.parametrize("order", ["pause first", "resume first"])
@pytest.mark.parametrize("paused", ["topic", "group"])
async def test_a_pause_beside_a_resume_of_the_other_wins(pair: Pair, order: str, paused: str) -> None:
    """One transaction is held up in the middle by a cursor's lock, the other runs meanwhile."""
    one, other = pair
    topic = await one.topic()
    group = await one.group()
    if paused == "topic":
        await pause_group(one.db, group)

        async def pausing(db: Database) -> None:
            await pause_topic(db, topic)

        async def resuming(replica: Replica) -> None:
            await resume_group(replica.db, replica.wakeups, group)
    else:
        await pause_topic(one.db, topic)

        async def pausing(db: Database) -> None:
            await pause_group(db, group)

        async def resuming(replica: Replica) -> None:
            await resume_topic(replica.db, replica.wakeups, topic)

    async with one.db.transaction() as tx:
        await tx.execute("select from cursors for no key update")
        first = pausing(one.db) if order == "pause first" else resuming(one)
        second = resuming(other) if order == "pause first" else pausing(other.db)
        tasks = [asyncio.create_task(first)]
        await blocked(one.db, 1)
        tasks.append(asyncio.create_task(second))
        await blocked(one.db, 2)
    await asyncio.gather(*tasks)
    assert [*(await one.db.fetchrow(PAUSED) or ())] == [True, True]


async def blocked(db: Database, count: int) -> None:
    """Waits until so many transactions wait for a lock here."""
    waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"

    async def enough() -> bool:
        n: int = await db.fetchval(waiting)
        return n >= count

    await wait_until(enough)
