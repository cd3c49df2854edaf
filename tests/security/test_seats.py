"""How many streams a namespace may have open: what is too many is told so that browsers come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import httpx
import pytest

from app.broker.seats import Seats
from app.domain.errors import TooMany
from app.storage import open_streams
from app.storage.database import Database
from tests.servers import wait_until
from tests.stream.replicas import BILLING, ORDERS, Replica, replica, take, texts

STREAM, GROUP_STREAM = f"{ORDERS}/stream", f"{BILLING}/stream"
ELSEWHERE = {"logpost-project": "other"}
EVENTS = {"accept": "text/event-stream"}


@pytest.fixture
async def pair(dsn: str) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas which allow two streams."""
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(replica(dsn, max_streams=2)) for _ in range(2)]
        await one.declare(group={})
        yield one, two


async def opened(stack: AsyncExitStack, of: Replica, target: str = STREAM, **headers: str) -> httpx.Response:
    return await stack.enter_async_context(of.http.stream("GET", target, headers=headers))


async def refused(of: Replica, target: str = STREAM, **headers: str) -> bool:
    """Whether another one is too many, as somebody hears it who is no browser."""
    async with of.http.stream("GET", target, headers=headers) as answer:
        if answer.status_code == 200:
            return False
        await answer.aread()
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many")
        assert answer.headers["retry-after"] == "5"
        assert "LOGPOST_MAX_STREAMS" in answer.json()["errors"][0]["reason"]
        return True


async def test_s12_replicas_together_open_no_more_streams_than_are_allowed(pair: tuple[Replica, Replica]) -> None:
    one, two = pair
    async with AsyncExitStack() as stack:
        assert (await opened(stack, one)).status_code == 200
        assert (await opened(stack, two, GROUP_STREAM)).status_code == 200
        for each in pair:
            for target in (STREAM, GROUP_STREAM):
                assert await refused(each, target)


async def test_s12_a_browser_is_told_inside_the_stream_and_comes_back(pair: tuple[Replica, Replica]) -> None:
    one, _ = pair
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await opened(stack, one)
        answer = await one.http.get(STREAM, headers=EVENTS)
    assert answer.status_code == 200
    assert "retry: 5000\nevent: problem\n" in answer.text
    assert '"code":"too_many"' in answer.text


async def test_s12_a_stream_that_ends_makes_room_everywhere(pair: tuple[Replica, Replica]) -> None:
    one, two = pair
    async with AsyncExitStack() as stack:
        await opened(stack, one)
        async with AsyncExitStack() as ending:
            await opened(ending, one)
            assert await refused(two)

        async def lets_in() -> bool:
            return not await refused(two)

        await wait_until(lets_in)
    await one.publish("1")
    async with two.events(STREAM, **{"from": "earliest"}) as events:
        assert texts(await take(events, 1)) == ["1"]


async def test_s12_streams_of_another_namespace_and_those_that_failed_to_open_do_not_count(
    pair: tuple[Replica, Replica],
) -> None:
    one, _ = pair
    await one.http.put(ORDERS, headers=ELSEWHERE)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            assert (await opened(stack, one, STREAM, **ELSEWHERE)).status_code == 200
        assert await refused(one, STREAM, **ELSEWHERE)
        for _ in range(3):
            await one.send("GET", "/v1/topics/nowhere/stream", status=404)
            await one.send("GET", f"{STREAM}?from=never", status=422)
        for _ in range(2):
            assert (await opened(stack, one)).status_code == 200


async def test_s12_a_replica_that_died_holds_no_seats_for_long(pair: tuple[Replica, Replica], dsn: str) -> None:
    one, two = pair
    database = await asyncpg.connect(dsn)
    namespace = await database.fetchval("select namespace_id from topics where name = 'orders'")
    await database.execute("insert into open_streams values ($1, 'dead', 2, clock_timestamp())", namespace)
    assert await refused(one)
    await database.execute(
        "update open_streams set seen_at = seen_at - interval '11 seconds' where replica_id = 'dead'"
    )
    await database.close()
    assert not await refused(two)


async def test_s12_a_replica_that_stops_leaves_its_seats_to_the_others(pair: tuple[Replica, Replica], dsn: str) -> None:
    one, _ = pair
    async with AsyncExitStack() as stack:
        three = await stack.enter_async_context(replica(dsn, max_streams=2))
        for _ in range(2):
            await opened(stack, three)
        assert await refused(one)
        three.app.drain()
    assert not await refused(one)


async def test_s12_those_who_come_back_all_at_once_are_counted_by_a_few_statements(
    pair: tuple[Replica, Replica], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    add = open_streams.add

    async def counted(*arguments: Any) -> int:
        nonlocal asked
        asked += 1
        return await add(*arguments)

    monkeypatch.setattr(open_streams, "add", counted)
    db = await Database.open(dsn, pool_size=2)
    try:
        seats, others = Seats(db, "here", 50), Seats(db, "there", 50)
        await asyncio.gather(*(others.take(1) for _ in range(10)))
        came = await asyncio.gather(*(seats.take(1) for _ in range(100)), return_exceptions=True)
    finally:
        await db.close()
    assert [isinstance(each, TooMany) for each in came] == [False] * 40 + [True] * 60
    assert seats.taken(1) == 40
    assert asked <= 4
