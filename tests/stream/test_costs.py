"""What streams cost: nothing once they are gone, and next to nothing while nothing happens."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import httpx
import psutil

from tests.servers import wait_until
from tests.stream.replicas import BILLING, ORDERS, Replica, replica, statements, take, texts

ROOT_KEY = "root-key-of-the-tests-0123456789abcdef"


async def cycle(of: Replica, target: str) -> None:
    """Connects, reads and vanishes: the connection is cut, nothing is said."""
    async with of.http.stream("GET", target) as answer:
        assert answer.status_code == 200
        async for _ in answer.aiter_raw():
            break


async def test_five_hundred_clients_that_come_read_and_vanish_leave_nothing_behind(dsn: str) -> None:
    process = psutil.Process()
    async with replica(dsn) as one:
        await one.declare(group={})
        await one.publish("a:1", "b:2", "c:3")
        targets = (f"{ORDERS}/stream?from=earliest", f"{BILLING}/stream?max=2")

        async def cycles(count: int) -> tuple[int, int]:
            for n in range(count):
                await cycle(one, targets[n % 2])
            await wait_until(lambda: not one.parts.streams.open and not one.parts.feeds._feeds)
            return process.num_fds(), len(asyncio.all_tasks())

        descriptors, tasks = await cycles(20)
        await wait_until(lambda: not one.parts.puller.owners())
        await cycles(500)

        async def nothing_is_left() -> bool:
            # The pool of connections to Postgres may still grow to its size.
            more_descriptors, more_tasks = process.num_fds(), len(asyncio.all_tasks())
            in_flight = (await one.send("GET", f"{BILLING}/stats"))["inFlight"]
            return more_descriptors - descriptors <= 10 and more_tasks - tasks <= 2 and in_flight == 0

        await wait_until(nothing_is_left)


async def test_idle_streams_ask_the_database_no_more_than_one_does(dsn: str) -> None:
    async with replica(dsn) as one, AsyncExitStack() as stack:
        await one.declare(partitions=4)

        async def spent(seconds: float = 3.0) -> int:
            before = await statements(dsn)
            await asyncio.sleep(seconds)
            return await statements(dsn) - before

        first = await stack.enter_async_context(one.events(f"{ORDERS}/stream"))
        await anext(first)
        alone = await spent()
        others = [await stack.enter_async_context(one.events(f"{ORDERS}/stream")) for _ in range(60)]
        for events in others:
            await anext(events)

        async def ask_little() -> bool:
            return await spent() <= 3 * (alone + 10)  # each for itself would be sixty times as many

        await wait_until(ask_little)  # Postgres counts late what was asked while they came
        await one.publish("1")
        for events in (first, *others):
            assert texts(await take(events, 1)) == ["1"]


async def test_a_stream_wants_a_key_with_the_scope_or_a_ticket_of_one(dsn: str) -> None:
    async with replica(dsn, root_key=ROOT_KEY) as one:
        one.http.headers["authorization"] = f"Bearer {ROOT_KEY}"
        await one.declare(group={})
        await one.publish("1")
        keys = {
            scope: (await one.send("POST", "/v1/keys", {"name": scope, "scopes": [scope]}))["key"]
            for scope in ("consume", "publish")
        }
        for target, start in ((f"{ORDERS}/stream", {"from": "earliest"}), (f"{BILLING}/stream", {})):
            for headers, status in (({}, 401), ({"authorization": f"Bearer {keys['publish']}"}, 403)):
                async with httpx.AsyncClient(base_url=one.url, headers=headers, timeout=60) as stranger:
                    assert (await stranger.get(target)).status_code == status
            one.http.headers["authorization"] = f"Bearer {keys['consume']}"
            async with one.events(target, **start) as events:
                assert texts(await take(events, 1)) == ["1"]
        ticket = (await one.send("POST", "/v1/stream-tickets", {"topic": "orders"}))["ticket"]
        del one.http.headers["authorization"]
        async with one.events(f"{ORDERS}/stream", ticket=ticket, **{"from": "earliest"}) as events:
            assert texts(await take(events, 1)) == ["1"]
