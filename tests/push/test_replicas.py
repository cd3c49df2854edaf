"""Replicas that stop, die or freeze in the middle of deliveries."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter, defaultdict
from typing import Any

import asyncpg
import httpx
import pytest

from app.domain.errors import DatabaseUnavailable
from app.loops.push.hand import SURE_S, Hand
from app.loops.push.leased import Leased
from app.storage import claims, leases
from tests.misbehaviour import answer, hang, held, slow
from tests.push.world import GROUP, World, replicated, saying, text_of, texts
from tests.receiver import Receiver
from tests.servers import Server, Servers, wait_until

# What died with a replica comes back within its leases; a shorter one could end while nobody died.
LEASES = {"LOGPOST_LOCK_TTL_MS": "6000", "LOGPOST_SHUTDOWN_TIMEOUT_MS": "1500"}


def world_of(client: httpx.AsyncClient, receiver: Receiver) -> World:
    return World([client], receiver)


async def test_killing_a_replica_loses_nothing_keeps_order_and_repeats_only_what_was_on_the_way(
    dsn: str, servers: Servers, receiver: Receiver
) -> None:
    first = await servers.start(dsn=dsn, env=LEASES)
    receiver.behave(hang(), when=saying("k:1", "free"), times=2)
    async with httpx.AsyncClient(base_url=first.url, timeout=60) as client:
        world = world_of(client, receiver)
        await world.topic(partitions=2)
        await world.group(concurrency=10, ordering="key")
        await world.publish("k:1", "k:2", "l:1", "l:2", "free", "m:1")
        # Everything else is settled; these two are on the way.
        await receiver.until(lambda requests: {"k:1", "l:1", "l:2", "free", "m:1"} <= {*texts(requests)})

        async def only_these() -> bool:
            return bool((await world.stats())["acked"] == 3)

        await wait_until(only_these)
    first.kill_tree()
    second = await servers.start(dsn=dsn, env=LEASES)
    ready_at = asyncio.get_running_loop().time()
    async with httpx.AsyncClient(base_url=second.url, timeout=60) as client:
        world = world_of(client, receiver)
        await world.settled()
        assert asyncio.get_running_loop().time() - ready_at < 25  # ackTimeoutMs is 30 s
        sent = Counter(texts(receiver.requests))
        assert sent == {"k:1": 2, "free": 2, "k:2": 1, "l:1": 1, "l:2": 1, "m:1": 1}
        assert [text for text in texts(receiver.requests) if text.startswith("k")] == ["k:1", "k:1", "k:2"]
        again = [request for request in receiver.requests if text_of(request) in ("k:1", "free")]
        # A consumer that dies uses up an attempt, or a message that kills it would go on for ever.
        assert [request.header("Logpost-Attempt") for request in again] == ["1", "1", "2", "2"]


async def test_a_lease_that_ended_before_its_claim_was_answered_is_not_sent_under(
    dsn: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault run, seed 1: a claim's answer took 2.6 s; five messages were taken by the receiver under a lease of 2.5 s,
    and came again."""
    claim, late = claims.claim, asyncio.Event()

    async def claim_slowly(*arguments: Any, **options: Any) -> Any:
        found = await claim(*arguments, **options)
        if found.pieces and not late.is_set():
            late.set()
            database = await asyncpg.connect(dsn)
            await database.execute("update leases set deadline = clock_timestamp()")
            await database.close()
            await asyncio.sleep(SURE_S + 0.3)
        return found

    monkeypatch.setattr(claims, "claim", claim_slowly)
    async with replicated(dsn, receiver) as world:
        await world.topic()
        await world.group()
        await world.publish("a")
        await world.settled()
        assert late.is_set()
        (request,) = receiver.requests
        assert request.header("Logpost-Attempt") == "2"


async def test_nothing_overtakes_a_message_whose_lease_could_not_be_renewed(
    dsn: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault run, seed 3: a message was given up as lost while the database was away; the next one of its key, claimed
    later, was sent when it was back, and the first one after it."""
    extend, lose = leases.extend, Hand._lose
    renewed, is_away, lost = asyncio.Event(), False, asyncio.Event()

    async def extend_unless_away(*arguments: Any, **options: Any) -> Any:
        if is_away:
            raise DatabaseUnavailable("It is away.")
        renewed.set()
        return await extend(*arguments, **options)

    def lose_and_come_back(hand: Hand, leased: Leased) -> None:
        nonlocal is_away
        is_away = False
        lose(hand, leased)
        lost.set()

    monkeypatch.setattr(leases, "extend", extend_unless_away)
    monkeypatch.setattr(Hand, "_lose", lose_and_come_back)
    receiver.behave(hang(), when=saying("k:1"), times=1)
    async with replicated(dsn, receiver, 1, lock_ttl_ms=6000) as world:
        await world.topic()
        await world.group(concurrency=10, ordering="key")
        await world.publish("k:1")
        await receiver.until(lambda requests: requests)
        await renewed.wait()
        await asyncio.sleep(0.5)  # so that its lease is older than the next one's
        is_away = True
        await world.publish("k:2", "free")
        await lost.wait()
        await world.publish("k:3")
        await world.settled()
        assert [text for text in texts(receiver.requests) if text != "free"] == ["k:1", "k:1", "k:2", "k:3"]


async def test_a_request_ends_with_its_lease_and_not_with_its_own_timeout(dsn: str, receiver: Receiver) -> None:
    receiver.behave(hang(), times=1)
    async with replicated(dsn, receiver, 1, lock_ttl_ms=6000) as world:
        await world.topic()
        await world.group(ackTimeoutMs=600_000, ordering="key")
        await world.publish("k:1")
        await receiver.until(lambda requests: requests)
        database = await asyncpg.connect(dsn)
        await database.execute("update leases set deadline = clock_timestamp()")
        await database.close()
        await world.settled()  # the second attempt waits for the end of the first
        assert [request.header("Logpost-Attempt") for request in receiver.requests] == ["1", "2"]


async def test_with_two_replicas_under_load_one_can_be_killed(dsn: str, servers: Servers, receiver: Receiver) -> None:
    accepted: dict[str, list[int]] = defaultdict(list)

    async def take(talk: Any) -> None:
        key, _, number = text_of(talk.request).partition(":")
        await talk.wait(0.003)
        accepted[key].append(int(number))
        await answer(200)(talk)

    receiver.behave(take)
    one, two = await servers.start(dsn=dsn, env=LEASES), await servers.start(dsn=dsn, env=LEASES)
    async with httpx.AsyncClient(base_url=two.url, timeout=60) as client:
        world = world_of(client, receiver)
        await world.topic(partitions=4)
        await world.group(concurrency=16, ordering="key")
        for start in range(1, 101, 10):
            await world.publish(*(f"{key}:{n}" for n in range(start, start + 10) for key in "abcdefgh"))
        await receiver.received(200)
        one.kill_tree()
        await world.settled()
    for key in "abcdefgh":
        firsts = [*dict.fromkeys(accepted[key])]
        assert firsts == [*range(1, 101)]
    # At most what it had on the way came twice.
    assert sum(len(numbers) for numbers in accepted.values()) <= 800 + 16 + 16


async def test_a_replica_that_froze_does_not_send_what_another_has_by_now(
    dsn: str, servers: Servers, receiver: Receiver
) -> None:
    receiver.behave(held(is_frozen := asyncio.Event()), when=saying("k:1"), times=1)
    first = await servers.start(dsn=dsn, env=LEASES)
    async with httpx.AsyncClient(base_url=first.url, timeout=60) as client:
        world = world_of(client, receiver)
        await world.topic()
        await world.group(concurrency=10, ordering="key")
        await world.publish("k:1", "k:2", "k:3")
        await receiver.received(1)
    worker = _worker(first)
    os.kill(worker, signal.SIGSTOP)
    is_frozen.set()
    try:
        second = await servers.start(dsn=dsn, env=LEASES)
        async with httpx.AsyncClient(base_url=second.url, timeout=60) as client:
            await world_of(client, receiver).settled()
    finally:
        os.kill(worker, signal.SIGCONT)
    await asyncio.sleep(1)
    assert texts(receiver.requests) == ["k:1", "k:1", "k:2", "k:3"]


async def test_a_stop_lets_what_is_on_the_way_end_and_hands_the_rest_back_unspent(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, 1, lock_ttl_ms=600_000, shutdown_timeout_ms=60_000) as world:
        await world.topic()
        await world.group(concurrency=10, ordering="key")
        receiver.behave(slow(0.5), when=saying("k:1"))
        await world.publish("k:1", "k:2", "k:3")
        await receiver.received(1)
    # Settled by the one that stopped, and nothing of what it held back has to wait for its lease.
    async with replicated(dsn, receiver, 1) as world:
        await world.settled()
        assert texts(receiver.requests) == ["k:1", "k:2", "k:3"]
        assert {request.header("Logpost-Attempt") for request in receiver.requests} == {"1"}


async def test_what_does_not_end_within_the_drain_is_handed_back_unspent(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, 1, lock_ttl_ms=600_000, shutdown_timeout_ms=300) as world:
        await world.topic()
        await world.group(concurrency=10, ordering="key")
        receiver.behave(hang(), times=1)
        await world.publish("k:1", "k:2")
        await receiver.received(1)
    async with replicated(dsn, receiver, 1) as world:
        await world.settled()
        assert texts(receiver.requests) == ["k:1", "k:1", "k:2"]
        assert {request.header("Logpost-Attempt") for request in receiver.requests} == {"1"}


async def test_a_slow_request_outlives_many_leases(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, lock_ttl_ms=3000) as world:
        await world.topic()
        await world.group(concurrency=2)
        receiver.behave(slow(8), when=saying("a"))
        await world.publish("a", "b")
        await world.settled()
        assert sorted(texts(receiver.requests)) == ["a", "b"]
        assert (await world.get(f"{GROUP}/stats"))["acked"] == 2


def _worker(server: Server) -> int:
    (worker,) = server.workers()
    return worker
