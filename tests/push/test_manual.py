"""Manual mode: a 2xx says that the receiver has the message; it settles it later, by its ackId, on any replica."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.push.world import GROUP, World, replicated, text_of, texts
from tests.receiver import Receiver, Request
from tests.servers import wait_until

MANUAL = {"ackMode": "manual", "concurrency": 5, "maxInFlight": 10, "ordering": "key"}


async def settle(world: World, verb: str, request: Request, **more: Any) -> None:
    body = {"ackIds": [request.header("Logpost-Ack-Id")], **more}
    answer = await world.clients[1].post(f"{GROUP}/{verb}", json=body)
    assert answer.is_success, answer.text


async def test_a_2xx_settles_nothing_until_the_receiver_does(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, lock_ttl_ms=3000) as world:
        await world.topic()
        await world.group(**MANUAL, ackTimeoutMs=120_000)
        await world.publish("a")
        (request,) = await world.receiver.received(1)
        await asyncio.sleep(3.5)  # longer than a lease of a push
        stats = await world.stats()
        assert (stats["inFlight"], stats["lag"], stats["acked"]) == (1, 1, 0)
        await settle(world, "ack", request)
        stats = await world.stats()
        assert (stats["inFlight"], stats["lag"], stats["acked"]) == (0, 0, 1)
        assert len(world.receiver.requests) == 1


async def test_without_a_settle_the_message_comes_again_as_after_a_timeout(world: World) -> None:
    await world.topic()
    await world.group(**MANUAL, ackTimeoutMs=3000)
    (published,) = await world.publish("a")
    requests = await world.receiver.received(2)
    assert 2.9 <= requests[1].at - requests[0].at <= 20  # a lease that is not cut to it lasts for 30
    assert requests[1].header("Logpost-Attempt") == "2"
    assert (await world.attempts(published["id"]))[0]["outcome"] == "timeout"
    await settle(world, "ack", requests[1])
    await world.settled()


@pytest.mark.parametrize("ordering", ["partition", "key"])
async def test_the_next_of_a_key_goes_out_when_the_receiver_has_settled_the_one_before(
    world: World, ordering: str
) -> None:
    await world.topic()
    await world.group(**{**MANUAL, "ordering": ordering})
    await world.publish("k:1", "k:2", "l:1")
    requests = await world.receiver.received(2)
    assert {*texts(requests)} == {"k:1", "l:1"}
    await asyncio.sleep(0.5)
    assert len(world.receiver.requests) == 2
    await settle(world, "nack", next(r for r in requests if text_of(r) == "k:1"), reason="later", delayMs=100)
    again = (await world.receiver.received(3))[2]
    assert (text_of(again), again.header("Logpost-Attempt")) == ("k:1", "2")
    await settle(world, "ack", again)
    last = (await world.receiver.received(4))[3]
    assert (text_of(last), last.header("Logpost-Attempt")) == ("k:2", "1")
    for request in (last, next(r for r in requests if text_of(r) == "l:1")):
        await settle(world, "ack", request)
    await world.settled()


async def test_no_more_are_out_than_max_in_flight(world: World) -> None:
    await world.topic(partitions=2)
    await world.group(**{**MANUAL, "ordering": "none", "maxInFlight": 3})
    await world.publish(*(str(number) for number in range(6)))
    await world.receiver.received(3)
    await asyncio.sleep(1)
    assert len(world.receiver.requests) == 3
    settled = 0
    while settled < 6:
        requests = await world.receiver.received(settled + 1)
        for request in requests[settled:]:
            await settle(world, "ack", request)
        settled = len(requests)
    await world.settled()


async def test_a_receiver_may_extend_and_discard(world: World) -> None:
    await world.topic()
    await world.group(**MANUAL, ackTimeoutMs=5000)
    await world.publish("a")
    (request,) = await world.receiver.received(1)

    async def taken() -> bool:
        """The lease of the push, of half a minute, has become one of ackTimeoutMs."""
        (delivery,) = (await world.get(f"{GROUP}/deliveries"))["items"]
        ends = datetime.fromisoformat(delivery["leaseExpiresAt"])
        return ends < datetime.now(UTC) + timedelta(seconds=15)

    await wait_until(taken)
    await settle(world, "extend", request, ackTimeoutMs=120_000)
    await asyncio.sleep(5.5)
    assert len(world.receiver.requests) == 1
    await settle(world, "discard", request, reason="no")
    assert (await world.stats())["discarded"] == 1
