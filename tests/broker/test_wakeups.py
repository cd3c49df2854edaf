"""Wake-ups: a pull that waits hears of what it waits for; a lost hint costs time and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.broker.pause import pause_group, resume_group
from app.broker.redrive import redrive_all
from app.broker.seek import seek
from app.domain.group import Retries
from app.loops.poll import LISTENING_INTERVAL_S
from tests.broker.world import Got, Replica, texts
from tests.servers import wait_until

Pair = tuple[Replica, Replica]
# Within a second there are two or three; some more may begin while a slow machine brings the answer.
MOST_LOOKS = 5


async def waiting(replica: Replica) -> asyncio.Task[list[Got]]:
    """A pull that waits, and is known to."""
    task = asyncio.create_task(replica.pull(wait_ms=50_000))
    await wait_until(lambda: any(line.waiters for line in replica.puller._lines.values()))
    return task


def pass_hints(source: Replica, target: Replica) -> None:
    for payload in source.wakeups.take_outgoing():
        target.wakeups.heard(payload)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("why", ["publish", "ack", "nack", "resume", "seek", "redrive", "hand back"])
async def test_a_waiting_pull_hears_at_once(pair: Pair, why: str, remote: bool) -> None:
    one, other = pair
    await one.topic()
    group = await one.group(retries=Retries(0 if why == "redrive" else 3, "fixed", 60_000, 60_000))
    await one.known()
    got: list[Got] = []
    if why != "publish":
        await one.publish("k:1", "k:2")
        got = await one.pull(2 if why in ("redrive", "seek") else 1)
    if why == "seek":
        await one.ack(got)
    elif why == "redrive":
        await one.settle("nack", got)
    elif why == "resume":
        await one.ack(got)
        await pause_group(one.db, group)
    puller = other if remote else one
    one.wakeups.take_outgoing()
    task = await waiting(puller)
    match why:
        case "publish":
            await one.publish("k:1")
        case "ack":
            await one.ack(got)
        case "nack":
            await one.settle("nack", got, delay_ms=0)
        case "resume":
            await resume_group(one.db, one.wakeups, group)
        case "seek":
            await seek(one.db, one.wakeups, group, "earliest")
        case "redrive":
            await redrive_all(one.db, one.wakeups, group)
        case _:
            await one.settler.hand_back(group.id, [got[0].ack_id])
    if remote:
        pass_hints(one, other)
    assert await task  # nobody looks by himself here: without a hint it would get nothing


async def test_a_lost_hint_only_costs_the_time_until_the_next_look(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    task = await waiting(other)
    await one.publish("a")
    assert not task.done()
    await other.puller.poll_once()
    assert texts(await task) == ["a"]


@asynccontextmanager
async def polled(replica: Replica) -> AsyncIterator[list[float]]:
    """Somebody looks every now and then, as in every server; yields when. That these are so many, and not how long it
    took, is what is asserted: everything may stand still for a while."""
    looks: list[float] = []

    async def look() -> None:
        while True:
            looks.append(asyncio.get_running_loop().time())
            await replica.puller.poll_once()
            await asyncio.sleep(LISTENING_INTERVAL_S)

    task = asyncio.create_task(look())
    try:
        yield looks
    finally:
        task.cancel()


async def test_a_retry_is_delivered_to_who_waits_when_it_is_due(replica: Replica) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a")
    loop = asyncio.get_running_loop()
    got, began = await replica.pull(), loop.time()
    await replica.settle("nack", got, delay_ms=150)
    async with polled(replica) as looks:
        assert texts(await replica.pull(wait_ms=50_000)) == ["a"]
    assert loop.time() - began > 0.14
    assert len(looks) <= MOST_LOOKS


async def test_a_lease_that_ends_is_noticed_by_who_waits_within_a_second(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group(retries=Retries(3, "fixed", 1, 1))
    await one.publish("a")
    await one.pull(lease_ms=200)
    async with polled(other) as looks:
        assert [each.attempt for each in await other.pull(wait_ms=50_000)] == [2]
    assert len(looks) <= MOST_LOOKS


@pytest.mark.parametrize("wait_ms", [0, 150])
async def test_the_wait_is_a_hard_bound(replica: Replica, wait_ms: int) -> None:
    await replica.topic()
    await replica.group()
    loop = asyncio.get_running_loop()
    took = []
    for _ in range(5):
        began = loop.time()
        assert await replica.pull_or_why(wait_ms=wait_ms) == ([], "no_messages")
        took.append(loop.time() - began)
    assert wait_ms / 1000 - 0.01 <= min(took) < wait_ms / 1000 + 0.5


async def test_one_message_wakes_one_of_many_who_wait_and_the_others_wait_on(replica: Replica) -> None:
    await replica.topic()
    await replica.group(ordering="none")
    tasks = [asyncio.create_task(replica.pull(1, wait_ms=60_000)) for _ in range(5)]
    await wait_until(lambda: sum(len(line.waiters) for line in replica.puller._lines.values()) == 5)
    await replica.publish("a")
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert [texts(task.result()) for task in done] == [["a"]]
    await replica.publish(*["b"] * 4)
    assert [texts(got) for got in await asyncio.gather(*others)] == [["b"]] * 4
