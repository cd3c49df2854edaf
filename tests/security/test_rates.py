"""How often and how much a key may ask: refused past it, by all replicas together, and let in when it was told."""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import httpx
import pytest

from app import telemetry
from app.domain.quota import BURST_S
from app.storage import quotas
from tests.security.conftest import ROOT_KEY, Keyed, bearer, keyed_on
from tests.stream.replicas import ORDERS, replica

MESSAGES = f"{ORDERS}/messages"
T = TypeVar("T")


@asynccontextmanager
async def replicas(dsn: str, count: int = 1, **settings: Any) -> AsyncIterator[list[Keyed]]:
    async with AsyncExitStack() as stack:
        keyed = [await stack.enter_async_context(keyed_on(dsn, **settings)) for _ in range(count)]
        await keyed[0].root.put(ORDERS, headers={"logpost-project": "ours", "logpost-environment": "live"})
        yield keyed


def assert_limited(answer: httpx.Response) -> int:
    """How long to wait."""
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited"), answer.text
    seconds = int(answer.headers["retry-after"])
    assert seconds >= 1
    return seconds


async def set_behind(dsn: str, seconds: float) -> float:
    """As if every key had used so many seconds' worth of requests just now; when that was, at the latest."""
    database = await asyncpg.connect(dsn)
    began = time.monotonic()
    await database.execute(
        """insert into key_quotas
           select prefix, 'requests', clock_timestamp() + make_interval(secs => $1) from keys
           on conflict (prefix, quota) do update set used_until = excluded.used_until""",
        seconds,
    )
    await database.close()
    return began


async def found_within(
    seconds: float, keyed: Keyed, calls: Callable[[httpx.AsyncClient], Awaitable[T]], **form: Any
) -> tuple[httpx.AsyncClient, T]:
    """What the calls of a new key gave, and its client, where they took less than ``seconds``. Where everything stood
    still, more was let in, and rightly: then the same is asked of another new key."""
    while True:
        client = await keyed.client(**form)
        began = time.monotonic()
        found = await calls(client)
        if time.monotonic() - began < seconds:
            return client, found


async def two_listings(client: httpx.AsyncClient) -> list[int]:
    return [(await client.get("/v1/topics")).status_code for _ in range(2)]


async def test_s11_a_key_over_its_rate_is_told_when_to_come_back(dsn: str) -> None:
    async with replicas(dsn, key_requests_per_s=1) as (keyed,):
        client = await keyed.client()
        began = await set_behind(dsn, 3)
        refused = await client.post(MESSAGES, content=b"2")
        seconds = assert_limited(refused)
        assert 3 - (time.monotonic() - began) <= seconds <= 3
        await asyncio.sleep(seconds)
        assert (await client.post(MESSAGES, content=b"3")).status_code == 201
        stored = await keyed.root.get(MESSAGES, headers={"logpost-project": "ours", "logpost-environment": "live"})
        assert [item["message"] for item in stored.json()["items"]] == [3]


async def test_s11_how_long_to_wait_counts_what_is_owed(dsn: str) -> None:
    async with replicas(dsn, 2, key_requests_per_s=2) as (here, there):
        key = (await here.create())["key"]
        began = await set_behind(dsn, 6.8)
        # One costs half a second, and a second's worth may be ahead: 6.8 + 0.5 - 1.
        for each in (here, there):
            seconds = assert_limited(await each.presenting(key).get("/v1/topics"))
            assert 6.3 - (time.monotonic() - began) <= seconds <= 7


async def test_s11_two_replicas_together_let_in_the_rate_and_a_second_of_it(dsn: str) -> None:
    rate, seconds = 20, 4.0
    async with replicas(dsn, 2, key_requests_per_s=rate) as both:

        async def hammer(client: httpx.AsyncClient, statuses: list[int], until: float) -> None:
            while time.monotonic() < until:
                statuses.append((await client.get("/v1/topics")).status_code)

        # Never more. Where everything stands still less is let in, and rightly: what is not used lapses.
        let_in: list[int] = []
        while len(let_in) < 5:
            key = (await both[0].create())["key"]
            statuses: list[int] = []
            began = time.monotonic()
            clients = [each.presenting(key) for each in both for _ in range(3)]
            await asyncio.gather(*(hammer(client, statuses, began + seconds) for client in clients))
            assert set(statuses) <= {200, 429}
            let_in.append(statuses.count(200))
            assert let_in[-1] <= rate * (time.monotonic() - began + BURST_S) + 1
            if let_in[-1] >= rate * seconds * 0.8 and 429 in statuses:
                return
        pytest.fail(f"{let_in} were let in of {rate * seconds:.0f}")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", MESSAGES), ("PUT", ORDERS), ("GET", f"{ORDERS}/stats"), ("GET", f"{ORDERS}/stream"), ("GET", "/metrics")],
)
async def test_s11_every_way_in_is_counted(dsn: str, method: str, path: str) -> None:
    async with replicas(dsn, key_requests_per_s=1) as (keyed,):
        client = await keyed.client()
        assert (await client.get("/v1/topics")).status_code == 200
        await set_behind(dsn, 60)
        assert_limited(await client.request(method, path, content=b"{}"))


async def test_s11_a_browser_is_told_inside_the_stream_and_comes_back_when_it_may(dsn: str) -> None:
    async with replica(dsn, root_key=ROOT_KEY, key_requests_per_s=1) as one:
        one.http.headers.update(bearer(ROOT_KEY))
        await one.declare()
        key = await one.send("POST", "/v1/keys", {"name": "reader", "scopes": ["consume"]})
        one.http.headers.update(bearer(key["key"]))
        began = await set_behind(dsn, 4.5)
        answer = await one.http.get(f"{ORDERS}/stream", headers={"accept": "text/event-stream"})
        assert answer.status_code == 200
        assert "event: problem" in answer.text
        assert '"code":"rate_limited"' in answer.text
        told = re.search(r"^retry: (\d+)000$", answer.text, re.MULTILINE)
        assert told is not None
        assert 4.5 - (time.monotonic() - began) <= int(told[1]) <= 5


async def test_s11_bytes_are_counted_as_they_come_whatever_was_said_of_them(dsn: str) -> None:
    async with replicas(dsn, key_bytes_per_s=1000) as (keyed,):

        async def pieces() -> AsyncIterator[bytes]:
            yield b'"' + b"x" * 350
            yield b"x" * 349 + b'"'

        async def three(client: httpx.AsyncClient) -> list[httpx.Response]:
            return [
                await client.post(MESSAGES, content=pieces()),
                await client.post(MESSAGES, content=pieces(), headers={"content-length": "3"}),
                await client.put(ORDERS, json={"tags": ["x" * 60] * 12}),
            ]

        # Of 800 bytes that may be ahead 700 are used, and 700 more wait for 600 of them to be made up for.
        _, (taken, *refused) = await found_within(0.6, keyed, three)
        assert taken.status_code == 201
        assert [assert_limited(answer) for answer in refused] == [1, 1]


async def test_s11_a_change_that_is_too_much_is_in_the_audit_log_as_that(dsn: str) -> None:
    out = io.StringIO()
    async with replicas(dsn, key_bytes_per_s=10) as (keyed,):
        client = await keyed.client()
        assert (await client.put(ORDERS, json={"tags": ["x" * 60]})).status_code == 200
        telemetry.configure("info", out)
        try:
            assert_limited(await client.put(ORDERS, json={"tags": ["x" * 60]}))
        finally:
            telemetry.configure("warning")
    (audit,) = [line for line in map(json.loads, out.getvalue().splitlines()) if line["event"] == "audit"]
    assert (audit["call"], audit["outcome"]) == ("declareTopic", 429)


async def test_s11_a_body_of_more_than_a_second_is_taken_and_paid_off(dsn: str) -> None:
    async with replicas(dsn, 2, key_bytes_per_s=1000) as (here, there):
        key = (await here.create())["key"]
        large = b'"' + b"x" * 19_998 + b'"'
        began = time.monotonic()
        assert (await here.presenting(key).post(MESSAGES, content=large)).status_code == 201
        for content in (b"1", large):  # of twenty seconds one may be ahead
            seconds = assert_limited(await there.presenting(key).post(MESSAGES, content=content))
            assert 19 - (time.monotonic() - began) <= seconds <= 20


async def test_s11_what_is_refused_for_its_size_is_not_stored_and_costs_no_bytes(dsn: str) -> None:
    async with replicas(dsn, key_bytes_per_s=1000) as (keyed,):
        client = await keyed.client()
        assert (await client.post(MESSAGES, content=b'"' + b"x" * 39_998 + b'"')).status_code == 201  # for 40 s
        before = assert_limited(await client.post(MESSAGES, content=b'"' + b"x" * 298 + b'"'))
        for _ in range(20):
            assert_limited(await client.post(MESSAGES, content=b'"' + b"x" * 1998 + b'"'))
        assert (await client.get(MESSAGES)).status_code == 200
        assert len((await client.get(MESSAGES)).json()["items"]) == 1
        assert assert_limited(await client.post(MESSAGES, content=b'"' + b"x" * 298 + b'"')) <= before


async def test_s11_a_key_may_have_a_rate_of_its_own_or_none(dsn: str) -> None:
    async with replicas(dsn, key_requests_per_s=1, key_bytes_per_s=10) as (keyed,):
        quick = await keyed.create(requestsPerSecond=0, bytesPerSecond=0)
        slow = await keyed.create(requestsPerSecond=2)
        shown = (await keyed.root.get(f"/v1/keys/{slow['id']}")).json()
        assert (shown["requestsPerSecond"], shown["bytesPerSecond"]) == (2, None)
        unlimited = keyed.presenting(quick["key"])
        for _ in range(30):
            assert (await unlimited.post(MESSAGES, content=b'"more than ten bytes"')).status_code == 201

        async def three(client: httpx.AsyncClient) -> list[int]:
            return [(await client.get("/v1/topics")).status_code for _ in range(3)]

        _, answers = await found_within(0.45, keyed, three, requestsPerSecond=2)
        assert answers == [200, 200, 429]
        for wrong in (-1, 10**13, 1.5, "7"):
            form = {"name": "x", "scopes": ["publish"], "requestsPerSecond": wrong}
            assert (await keyed.root.post("/v1/keys", json=form)).status_code == 422


async def test_s11_one_keys_rate_is_not_anothers_and_the_root_key_has_none(dsn: str) -> None:
    async with replicas(dsn, key_requests_per_s=1) as (keyed,):
        two = await keyed.client()
        _, statuses = await found_within(0.9, keyed, two_listings)
        assert statuses == [200, 429]
        assert (await two.get("/v1/topics")).status_code == 200
        for _ in range(20):
            assert (await keyed.root.get("/v1/topics")).status_code == 200


async def test_s11_who_has_no_key_is_not_told_of_rates(dsn: str) -> None:
    async with replicas(dsn, key_requests_per_s=1) as (keyed,):
        key = await keyed.create()
        client = keyed.presenting(key["key"])
        assert (await client.get("/v1/topics")).status_code == 200
        await set_behind(dsn, 60)
        assert (await client.get("/v1/topics")).status_code == 429
        await keyed.root.delete(f"/v1/keys/{key['id']}")
        assert (await client.get("/v1/topics")).status_code == 401


async def test_s11_a_flood_that_is_refused_does_not_reach_the_database(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replicas(dsn, key_requests_per_s=1) as (keyed,):
        client = await keyed.client()
        await set_behind(dsn, 60)
        assert_limited(await client.get("/v1/topics"))
        monkeypatch.setattr(quotas, "lease", None)
        for _ in range(50):
            assert assert_limited(await client.get("/v1/topics")) >= 50


async def test_a_revoked_keys_quotas_are_removed(dsn: str) -> None:
    async with replicas(dsn, key_requests_per_s=5) as (keyed,):
        key = await keyed.create()
        assert (await keyed.presenting(key["key"]).get("/v1/topics")).status_code == 200
        database = await asyncpg.connect(dsn)
        assert await database.fetchval("select count(*) from key_quotas") == 1
        assert (await keyed.root.delete(f"/v1/keys/{key['id']}")).status_code == 204
        assert await database.fetchval("select count(*) from key_quotas") == 0
        await database.close()
