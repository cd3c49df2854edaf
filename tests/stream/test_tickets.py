"""Who may open a stream: a ticket is used once, for what it was given for, and no key is taken in a URL."""

from __future__ import annotations

import asyncio

import pytest

from tests.stream.replicas import BILLING, ORDERS, Replica, replica, take, texts


async def ticket(of: Replica, group: str | None = None) -> str:
    issued = await of.send("POST", "/v1/stream-tickets", {"topic": "orders", "group": group})
    assert set(issued) == {"ticket", "expiresAt"}
    return str(issued["ticket"])


async def refused(of: Replica, target: str, given: str) -> None:
    assert (await of.send("GET", f"{target}?ticket={given}", status=401))["code"] == "unauthorized"


async def test_a_ticket_opens_one_stream_on_any_replica(dsn: str) -> None:
    async with replica(dsn) as one, replica(dsn) as two:
        await one.declare(group={})
        await one.publish("1")
        for target, group, start in (
            (f"{ORDERS}/stream", None, {"from": "earliest"}),
            (f"{BILLING}/stream", "billing", {}),
        ):
            given = await ticket(one, group)
            async with two.events(target, ticket=given, **start) as events:
                assert texts(await take(events, 1)) == ["1"]
            await refused(one, target, given)


async def test_of_many_who_present_a_ticket_at_once_one_gets_in(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare()
        given = await ticket(one)

        async def status() -> int:
            async with one.http.stream("GET", f"{ORDERS}/stream", params={"ticket": given}) as answer:
                return answer.status_code

        statuses = await asyncio.gather(*(status() for _ in range(8)))
        assert sorted(statuses) == [200] + [401] * 7


async def test_invented_expired_and_misplaced_tickets_are_refused_though_there_are_no_keys(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replica(dsn) as one:
        await one.declare(group={})
        await refused(one, f"{ORDERS}/stream", "tkt_invented")
        await refused(one, f"{ORDERS}/stream", "")
        await refused(one, f"{BILLING}/stream", await ticket(one))
        await refused(one, f"{ORDERS}/stream", await ticket(one, "billing"))
        monkeypatch.setattr("app.broker.tickets.LIFETIME_S", 0.0)
        await refused(one, f"{ORDERS}/stream", await ticket(one))
        await one.send("POST", "/v1/stream-tickets", {"topic": "nowhere"}, status=404)


@pytest.mark.parametrize("name", ["key", "access_token", "authorization", "Authorization", "api_key", "token"])
async def test_a_key_is_not_taken_in_a_url(dsn: str, name: str) -> None:
    async with replica(dsn) as one:
        await one.declare()
        problem = await one.send("GET", f"{ORDERS}/stream?{name}=secret", status=401)
        assert "secret" not in str(problem)
