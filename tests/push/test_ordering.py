"""Order per key through push: over retries, deaths, two replicas, and with many requests on the way."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

import asyncpg
import pytest

from app.domain import breaker
from tests.misbehaviour import answer, hang, held
from tests.push.world import GROUP, World, replicated, saying, text_of, texts
from tests.receiver import Conversation, Receiver
from tests.servers import wait_until

WIDE = {"concurrency": 20, "ordering": "key"}
ORDERINGS = ["partition", "key"]


def of_key(world: World, key: str) -> list[str]:
    return [text for text in texts(world.receiver.requests) if text.startswith(f"{key}:")]


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_while_a_message_waits_for_its_retry_later_ones_of_its_key_wait_and_others_go_on(
    world: World, ordering: str
) -> None:
    await world.topic()
    await world.group(concurrency=20, ordering=ordering, retries={"strategy": "fixed", "baseDelay": 2000, "max": 3})
    world.receiver.behave(answer(500), when=saying("k:1"), times=2)
    await world.publish("k:1", "l:1", "k:2", "l:2", "k:3", "l:3", "free")
    await world.receiver.until(lambda requests: {"l:3", "free"} <= {*texts(requests)})
    assert of_key(world, "k") == ["k:1"]
    await world.settled()
    assert of_key(world, "k") == ["k:1", "k:1", "k:1", "k:2", "k:3"]
    assert of_key(world, "l") == ["l:1", "l:2", "l:3"]
    attempts = [r.header("Logpost-Attempt") for r in world.receiver.requests if text_of(r).startswith("k:")]
    assert attempts == ["1", "2", "3", "1", "1"]  # being held uses none up


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_a_dead_message_frees_its_key(world: World, ordering: str) -> None:
    await world.topic()
    await world.group(concurrency=20, ordering=ordering)
    world.receiver.behave(answer(500), when=saying("k:1"))
    await world.publish("k:1", "k:2", "k:3")
    await world.settled()
    assert of_key(world, "k") == ["k:1"] * 4 + ["k:2", "k:3"]
    assert (await world.stats())["dead"] == 1


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_one_message_of_a_key_is_on_the_way_at_a_time_over_all_replicas(
    world: World, ordering: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "MAX_OPEN_MS", 1000)
    on_the_way: dict[str, int] = defaultdict(int)
    most: dict[str, int] = defaultdict(int)

    async def count(talk: Conversation) -> None:
        key = text_of(talk.request).partition(":")[0]
        on_the_way[key] += 1
        most[key] = max(most[key], on_the_way[key])
        await asyncio.sleep(random.uniform(0, 0.02))
        on_the_way[key] -= 1
        await answer(500 if random.random() < 0.2 else 200)(talk)

    world.receiver.behave(count)
    await world.topic(partitions=4)
    await world.group(concurrency=30, ordering=ordering, retries={"max": 100, "strategy": "fixed", "baseDelay": 5})
    for start in range(1, 31, 10):
        await world.publish(*(f"{key}:{n}" for n in range(start, start + 10) for key in "abcdefgh"))
    await world.settled()
    assert set(most.values()) == {1}


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_first_successes_of_a_key_are_in_order_of_offsets_whatever_fails(
    world: World, ordering: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "MAX_OPEN_MS", 1000)
    accepted: dict[str, list[int]] = defaultdict(list)

    async def fail_often(talk: Conversation) -> None:
        key, _, number = text_of(talk.request).partition(":")
        await asyncio.sleep(random.uniform(0, 0.01))
        if random.random() < 0.3:
            await answer(500)(talk)
            return
        accepted[key].append(int(number))
        await answer(200)(talk)

    world.receiver.behave(fail_often)
    await world.topic(partitions=2)
    await world.group(concurrency=20, ordering=ordering, retries={"max": 100, "strategy": "fixed", "baseDelay": 5})
    for number in range(1, 31):
        await world.publish(*(f"{key}:{number}" for key in "abcdef"))
    await world.settled()
    assert dict(accepted) == {key: [*range(1, 31)] for key in "abcdef"}  # none twice either


async def test_a_message_that_is_nacked_at_once_is_not_overtaken_by_one_claimed_meanwhile(world: World) -> None:
    """No backoff to speak of: the retry is claimed while the first failure is still being written down."""
    await world.topic()
    await world.group(concurrency=50, ordering="key", retries={"max": 1000, "strategy": "fixed", "baseDelay": 1})
    accepted: list[int] = []

    async def fail_half(talk: Conversation) -> None:
        if random.random() < 0.5:
            await answer(500, {"Retry-After": "0"})(talk)
            return
        accepted.append(int(text_of(talk.request).partition(":")[2]))
        await answer(200)(talk)

    # The others do not fail: the breaker would open, the longer the longer publishing takes.
    world.receiver.behave(fail_half, when=lambda request: ":" in text_of(request))
    for number in range(1, 61):
        await world.publish(f"k:{number}", *(f"{number}.{x}" for x in range(5)))
    await world.settled()
    assert accepted == [*range(1, 61)]


async def test_messages_without_a_key_are_side_by_side_and_never_more_than_concurrency(world: World) -> None:
    now, most = 0, 0

    async def count(talk: Conversation) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await talk.wait(0.05)
        now -= 1
        await answer(200)(talk)

    world.receiver.behave(count)
    await world.topic(partitions=4)
    await world.group(concurrency=7, ordering="key")
    await world.publish(*(str(number) for number in range(80)))
    await world.settled()
    assert 1 < most <= 7


async def test_without_an_order_messages_of_a_key_are_side_by_side(world: World) -> None:
    await world.topic()
    await world.group(concurrency=10, ordering="none")
    world.receiver.behave(held(others_came := asyncio.Event()), when=saying("k:1"))
    await world.publish("k:1", "k:2", "k:3")
    await world.receiver.received(3)
    assert (await world.stats())["inFlight"] >= 1
    others_came.set()
    await world.settled()


async def test_what_is_published_while_paused_comes_after_resume_in_order(world: World) -> None:
    await world.topic()
    await world.group(**WIDE)
    await world.publish("k:1")
    await world.settled()
    await world.post(f"{GROUP}/pause")
    await world.publish("k:2", "k:3")
    await asyncio.sleep(1)
    assert of_key(world, "k") == ["k:1"]
    await world.post(f"{GROUP}/resume")
    await world.settled()
    assert of_key(world, "k") == ["k:1", "k:2", "k:3"]


async def test_after_seek_latest_nothing_older_is_sent(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, lock_ttl_ms=3000) as world:  # how soon a dispatcher sees that a lease is gone
        await world.topic()
        await world.group(**WIDE)
        world.receiver.behave(hang(), when=saying("k:1"))
        await world.publish("k:1", "k:2", "k:3")
        await world.receiver.received(1)
        await world.post(f"{GROUP}/seek", {"position": "latest"})
        await world.publish("k:4")
        await world.receiver.until(lambda requests: "k:4" in texts(requests))
        await world.settled()
        assert of_key(world, "k") == ["k:1", "k:4"]


async def test_a_replay_starts_at_attempt_one(world: World) -> None:
    await world.topic()
    await world.group(**WIDE)
    await world.publish("k:1", "k:2")
    await world.settled()
    await world.post(f"{GROUP}/replay", {"from": 1})
    await wait_until(lambda: len(world.receiver.requests) == 4)
    await world.settled()
    assert of_key(world, "k") == ["k:1", "k:2"] * 2
    assert {request.header("Logpost-Attempt") for request in world.receiver.requests} == {"1"}


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_what_waits_behind_a_message_whose_lease_is_lost_waits_for_its_next_attempt(
    dsn: str, receiver: Receiver, ordering: str
) -> None:
    """Seed 3 of the fault suite: the lease of k:1 ran out, k:2 was in one of its own, and nobody had looked since."""
    async with replicated(dsn, receiver, 1, lock_ttl_ms=6000) as world:  # how soon it sees that its lease is lost
        await world.topic()
        await world.group(concurrency=2, ordering=ordering)
        receiver.behave(hang(), when=saying("k:1"), times=1)
        await world.publish("k:1")
        await receiver.until(lambda requests: len(requests) == 1)
        await world.publish("k:2")
        database = await asyncpg.connect(dsn)
        try:

            async def both_are_leased() -> bool:
                return bool(await database.fetchval("select count(distinct id) = 2 from leases"))

            await wait_until(both_are_leased)
            await database.execute("update leases set deadline = clock_timestamp() where pending @> 1::bigint")
        finally:
            await database.close()
        await world.settled()
    assert texts(receiver.requests) == ["k:1", "k:1", "k:2"]
