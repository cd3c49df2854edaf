"""What a stream and a pull that waits may outlive, and what they may not: their key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import httpx
import pytest
from httpx_sse import ServerSentEvent

from app.broker import keys
from app.main import ENDED_KEYS_INTERVAL_MS
from app.storage import claims
from tests.security.conftest import ALL, OURS, ROOT_KEY, bearer
from tests.servers import PATIENCE_S, wait_until
from tests.stream.replicas import BILLING, ORDERS, Replica, replica, take, texts

EARLIEST = {"from": "earliest"}
TARGETS = pytest.mark.parametrize(("target", "start"), [(f"{ORDERS}/stream", EARLIEST), (f"{BILLING}/stream", {})])
HERE = {"logpost-project": OURS, "logpost-environment": "live"}


@pytest.fixture
async def pair(dsn: str) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas that want keys; their own clients present the root key."""
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(replica(dsn, root_key=ROOT_KEY)) for _ in range(2)]
        for each in (one, two):
            each.http.headers.update(bearer(ROOT_KEY) | HERE)
        await one.declare(group={})
        yield one, two


async def key_of(of: Replica) -> dict[str, Any]:
    key: dict[str, Any] = await of.send("POST", "/v1/keys", {"name": "reader", "scopes": list(ALL)})
    return key


async def end_of(events: AsyncIterator[ServerSentEvent]) -> Any:
    """The problem a stream ends with; it may say where it is before."""
    async with asyncio.timeout(PATIENCE_S):
        rest = [event async for event in events if event.event != "position"]
    assert [event.event for event in rest] == ["problem"]
    return rest[0].json()


def test_s56_what_waits_is_looked_at_often_enough_for_five_seconds() -> None:
    """How long a busy machine takes is not what is promised."""
    assert keys.STALE_S + ENDED_KEYS_INTERVAL_MS / 1000 < 5


@TARGETS
async def test_s56_a_stream_ends_within_five_seconds_of_the_end_of_its_key(
    pair: tuple[Replica, Replica], target: str, start: dict[str, str]
) -> None:
    one, two = pair
    await one.publish("1")
    key = await key_of(one)
    two.http.headers.update(bearer(key["key"]))
    async with two.events(target, **start) as events:
        assert texts(await take(events, 1)) == ["1"]
        await one.send("DELETE", f"/v1/keys/{key['id']}")
        problem = await end_of(events)
    assert (problem["code"], problem["status"]) == ("unauthorized", 401)
    await two.send("GET", target, status=401)


async def test_s56_what_the_ended_stream_held_is_delivered_to_others_at_once(pair: tuple[Replica, Replica]) -> None:
    one, two = pair
    await one.publish("k:1", "k:2")
    key = await key_of(one)
    two.http.headers.update(bearer(key["key"]))
    async with two.events(f"{BILLING}/stream") as events:
        await take(events, 2)
        await one.send("DELETE", f"/v1/keys/{key['id']}")
        await end_of(events)
    pulled = await one.send("POST", f"{BILLING}/pull", {"waitMs": 60_000})
    assert [(each["message"], each["attempt"]) for each in pulled["messages"]] == [("k:1", 1), ("k:2", 1)]


@TARGETS
async def test_s56_an_expired_key_ends_its_streams_and_nobody_elses(
    pair: tuple[Replica, Replica], dsn: str, target: str, start: dict[str, str]
) -> None:
    one, two = pair
    await one.publish("1")
    key = await key_of(one)
    async with one.events(f"{ORDERS}/stream", **EARLIEST) as others:
        assert texts(await take(others, 1)) == ["1"]
        two.http.headers.update(bearer(key["key"]))
        async with two.events(target, **start) as events:
            await take(events, 1)
            database = await asyncpg.connect(dsn)
            await database.execute("update keys set expires_at = now()")
            await database.close()
            assert (await end_of(events))["code"] == "unauthorized"
        await one.publish("2")
        assert texts(await take(others, 1)) == ["2"]


async def test_s56_a_stream_opened_by_a_ticket_ends_with_the_key_that_asked_for_it(
    pair: tuple[Replica, Replica],
) -> None:
    one, two = pair
    await one.publish("1")
    key = await key_of(one)
    two.http.headers.update(bearer(key["key"]))
    used, unused = [
        (await two.send("POST", "/v1/stream-tickets", {"topic": "orders"}))["ticket"] for _ in range(2)
    ]  # fmt: skip
    del two.http.headers["authorization"]
    async with two.events(f"{ORDERS}/stream", ticket=used, **EARLIEST) as events:
        assert texts(await take(events, 1)) == ["1"]
        await one.send("DELETE", f"/v1/keys/{key['id']}")
        assert (await end_of(events))["code"] == "unauthorized"
    await two.send("GET", f"{ORDERS}/stream?ticket={unused}", status=401)


async def waiting_pull(of: Replica, key: dict[str, Any]) -> asyncio.Task[httpx.Response]:
    """A pull that has begun to wait."""
    pull = asyncio.create_task(of.http.post(f"{BILLING}/pull", json={"waitMs": 60_000}, headers=bearer(key["key"])))
    await wait_until(lambda: key["id"].removeprefix("key_") in of.parts.polls.keys)
    return pull


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_s05_a_pull_that_waits_ends_within_five_seconds_of_the_end_of_its_key(
    pair: tuple[Replica, Replica], dsn: str, how: str
) -> None:
    one, two = pair
    key = await key_of(one)
    pull = await waiting_pull(two, key)
    if how == "revoked":
        await one.send("DELETE", f"/v1/keys/{key['id']}")
    else:
        database = await asyncpg.connect(dsn)
        await database.execute("update keys set expires_at = now()")
        await database.close()
    answer = await pull  # before its time: then it would have been a 200
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_s05_nobody_elses_pull_ends_with_a_key(pair: tuple[Replica, Replica]) -> None:
    one, two = pair
    key, other = await key_of(one), await key_of(one)
    ending, staying = await waiting_pull(two, key), await waiting_pull(two, other)
    await one.send("DELETE", f"/v1/keys/{key['id']}")
    assert (await ending).status_code == 401
    await one.publish("1")
    answer = await staying
    assert texts(answer.json()["messages"]) == ["1"]


async def test_s05_what_arrives_for_a_key_that_has_ended_goes_to_others_as_a_first_attempt(
    pair: tuple[Replica, Replica],
) -> None:
    one, two = pair
    key = await key_of(one)
    pull = await waiting_pull(two, key)
    claiming, may_claim = asyncio.Event(), asyncio.Event()
    claim = claims.claim

    async def slow_claim(*arguments: Any, **options: Any) -> Any:
        claiming.set()
        await may_claim.wait()
        return await claim(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "claim", slow_claim)
        await one.publish("1")
        await claiming.wait()
        await one.send("DELETE", f"/v1/keys/{key['id']}")
        await wait_until(lambda: all(poll.is_cut for poll in two.parts.polls._open))
        may_claim.set()
        assert (await pull).status_code == 401
    pulled = await one.send("POST", f"{BILLING}/pull", {"waitMs": 60_000})
    assert [(each["message"], each["attempt"]) for each in pulled["messages"]] == [("1", 1)]
