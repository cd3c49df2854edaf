"""The endpoint as a whole: it asks for time, is down, is limited, or is gone. None of that uses up an attempt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.domain import breaker
from tests.misbehaviour import acting, answer, retry_after
from tests.push.world import GROUP, World, saying, texts
from tests.servers import wait_until

WIDE = {"concurrency": 10, "ordering": "key"}


async def state(world: World) -> Any:
    return (await world.stats())["endpoint"]["state"]


async def becomes(world: World, wanted: str) -> None:
    async def seen() -> bool:
        return bool(await state(world) == wanted)

    await wait_until(seen)


async def test_an_endpoint_that_asks_for_time_gets_it_from_every_replica(world: World) -> None:
    await world.topic(partitions=4)
    await world.group(retries={"max": 0})
    world.receiver.behave(retry_after(503, 5), times=1)
    await world.publish("k:1")
    (first,) = await world.receiver.received(1)
    await becomes(world, "throttled")
    told = (await world.stats())["endpoint"]
    assert told["reason"] == "the endpoint answered 503 with Retry-After"
    assert told["retryAt"] > told["since"]
    await world.publish("k:2", "l:1", "m:1")
    requests = await world.receiver.received(5)
    assert min(request.at for request in requests[1:]) - first.at >= 4.9
    await world.settled()
    assert (await world.stats())["dead"] == 0
    assert {request.header("Logpost-Attempt") for request in requests} == {"1"}
    assert [text for text in texts(requests) if text.startswith("k")] == ["k:1", "k:1", "k:2"]


async def test_a_429_that_does_not_say_for_how_long_uses_no_attempt_either(world: World) -> None:
    await world.topic()
    await world.group(retries={"max": 0})
    world.receiver.behave(answer(429))
    await world.publish("a")

    async def told() -> bool:
        endpoint = (await world.get(GROUP))["endpoint"]
        return (endpoint["state"], endpoint["reason"]) == ("throttled", "the endpoint answered 429")

    await wait_until(told)
    requests = await world.receiver.received(2)
    assert requests[1].at - requests[0].at >= 0.9
    world.receiver.behave(answer(200))
    await world.settled()
    assert (await world.stats())["acked"] == 1


async def test_a_410_pauses_the_group_and_says_why(world: World) -> None:
    await world.topic()
    await world.group(**WIDE, retries={"max": 0})
    world.receiver.behave(answer(410), when=saying("k:1"), times=1)
    await world.publish("k:1", "k:2")

    async def paused() -> bool:
        return bool((await world.stats())["paused"])

    await wait_until(paused)
    assert (await world.stats())["pause"]["reason"] == "the endpoint answered 410 Gone"
    await asyncio.sleep(0.5)
    assert texts(world.receiver.requests) == ["k:1"]
    await world.post(f"{GROUP}/resume")
    await world.settled()
    assert texts(world.receiver.requests) == ["k:1", "k:1", "k:2"]
    assert {request.header("Logpost-Attempt") for request in world.receiver.requests} == {"1"}


async def test_a_receiver_can_ask_for_a_pause_with_any_status(world: World) -> None:
    await world.topic()
    await world.group()
    world.receiver.behave(acting("pause", 200), times=1)
    await world.publish("a")

    async def paused() -> bool:
        return bool((await world.stats())["paused"])

    await wait_until(paused)
    assert (await world.stats())["lag"] == 1
    assert (await world.stats())["pause"]["reason"] == "the endpoint asked for a pause"


async def nothing_on_the_way(world: World) -> None:
    """A replica's picture of an endpoint may be of 50 ms ago, and a request that it allowed be sent a little later."""

    async def none_in_flight() -> bool:
        return bool((await world.stats())["inFlight"] == 0)

    await asyncio.sleep(0.5)
    await wait_until(none_in_flight)


async def test_the_breaker_opens_and_what_waits_keeps_its_attempts_until_the_endpoint_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FIRST_OPEN_MS", 4000)  # time to look at it
    await world.topic()
    await world.group(ordering="none", retries={"max": 3, "strategy": "fixed", "baseDelay": 300})
    world.receiver.behave(answer(500))
    await world.publish(*(str(number) for number in range(20)))
    await becomes(world, "open")
    told = (await world.stats())["endpoint"]
    assert told["reason"] == "the endpoint answered 500"
    assert told["since"] is not None
    await nothing_on_the_way(world)
    sent = len(world.receiver.requests)
    assert sent <= 6  # five in a row, and perhaps one that was on the way
    world.receiver.behave(answer(200))
    await world.settled()
    await becomes(world, "healthy")
    stats = await world.stats()
    assert (stats["acked"], stats["dead"]) == (20, 0)
    # One probe a time: the first was alone until it was answered.
    assert world.receiver.requests[sent].at - world.receiver.requests[sent - 1].at >= 3.9
    assert (await world.get(GROUP))["endpoint"]["state"] == "healthy"


async def test_while_the_breaker_is_open_one_probe_goes_out_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FIRST_OPEN_MS", 4000)
    await world.topic()
    await world.group(concurrency=10, ordering="none", retries={"max": 500, "strategy": "fixed", "baseDelay": 10})
    world.receiver.behave(answer(500))
    await world.publish(*(str(number) for number in range(30)))
    await becomes(world, "open")
    await nothing_on_the_way(world)
    sent = len(world.receiver.requests)
    await world.receiver.received(sent + 1)
    await asyncio.sleep(1)  # it stays open for eight seconds now
    assert len(world.receiver.requests) == sent + 1


async def test_a_poison_message_opens_no_breaker(world: World) -> None:
    await world.topic()
    await world.group(ordering="key", retries={"max": 20, "strategy": "fixed", "baseDelay": 5, "maxDelay": 5})
    world.receiver.behave(answer(500), when=saying("k:1"))
    await world.publish("k:1")
    await world.receiver.received(12)
    assert await state(world) == "failing"
    await world.publish("l:1")
    await world.settled()
    assert await state(world) in ("healthy", "failing")
    assert "l:1" in texts(world.receiver.requests)


async def test_a_rate_limit_holds_over_all_replicas(world: World) -> None:
    await world.topic(partitions=4)
    await world.group(concurrency=20, ordering="key", rateLimit={"perSecond": 20})
    await world.publish(*(str(number) for number in range(50)))
    requests = await world.receiver.received(50)
    times = [request.at for request in requests]
    for start in range(50):
        within = [at for at in times if times[start] <= at < times[start] + 1]
        # A tenth of a second may have been saved up, and what was on the way while everything stood still comes at
        # once. Two replicas that did not share the rate would send 40.
        assert len(within) <= 20 + 10
    assert times[-1] - times[0] >= (50 - 10) / 20
    await world.settled()


async def test_a_new_url_starts_without_the_past_of_the_old_one(world: World) -> None:
    await world.topic()
    await world.group()
    world.receiver.behave(retry_after(503, 3600), when=lambda request: request.path == "/hook")
    await world.publish("a")
    await becomes(world, "throttled")
    await world.group(delivery={"url": world.receiver.url.replace("/hook", "/new")})
    await world.receiver.until(lambda requests: any(request.path == "/new" for request in requests))
    await world.settled()


async def test_an_endpoint_that_cannot_be_reached_for_long_costs_its_probes_no_attempt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "MAX_OPEN_MS", 4000)  # or the last of many probes would be waited for for long
    await world.topic()
    await world.group(ordering="none", retries={"max": 4, "strategy": "fixed", "baseDelay": 300})
    await world.receiver.stop()
    published = await world.publish("a", "b", "c", "d")
    await becomes(world, "open")

    async def attempts() -> int:
        return sum([len(await world.attempts(one["id"])) for one in published])

    used = await attempts()
    probed: set[str] = set()

    async def probed_again() -> bool:
        if retry_at := (await world.stats())["endpoint"]["retryAt"]:
            probed.add(retry_at)
        return len(probed) >= 4  # a probe that goes out puts it off too

    await wait_until(probed_again)
    assert await attempts() == used
    await world.receiver.start()
    await world.settled()
    assert (await world.stats())["acked"] == 4
