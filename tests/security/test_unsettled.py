"""The limit of a namespace's unsettled messages as its consumers meet it: a pull is told, streams and pushes wait."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.receiver import Receiver
from tests.stream.replicas import BILLING, ORDERS, Replica, replica, take, texts

STREAM, PULL = f"{ORDERS}/groups/mail/stream", f"{BILLING}/pull"


@pytest.fixture
async def one(dsn: str) -> AsyncIterator[Replica]:
    """A replica that leases two messages of a namespace, and a group that has three to read."""
    async with replica(dsn, max_unsettled=2) as one:
        await one.declare(group={})
        await one.publish("1", "2", "3")
        yield one


async def test_s12_a_pull_past_the_limit_of_its_namespace_is_told_which_setting_raises_it(one: Replica) -> None:
    pulled = await one.send("POST", PULL, {"max": 10})
    assert texts(pulled["messages"]) == ["1", "2"]
    assert "limit" not in pulled
    refused = await one.send("POST", PULL, {"waitMs": 50})
    assert (refused["messages"], refused["empty"]) == ([], "max_in_flight")
    assert "LOGPOST_MAX_UNSETTLED" in refused["limit"]


async def test_s12_a_stream_goes_on_when_another_group_of_its_namespace_has_settled(one: Replica) -> None:
    pulled = await one.send("POST", PULL, {"max": 10})
    await one.send("PUT", f"{ORDERS}/groups/mail", {"startFrom": "earliest"})
    async with one.events(STREAM, max=10) as events:
        await one.ack(pulled["messages"][0])
        assert texts(await take(events, 1)) == ["1"]
        await one.ack(pulled["messages"][1])
        assert texts(await take(events, 1)) == ["2"]


async def test_s12_a_push_goes_on_when_another_group_of_its_namespace_has_settled(one: Replica) -> None:
    pulled = await one.send("POST", PULL, {"max": 10})
    async with Receiver() as receiver:
        delivery = {"mode": "push", "url": receiver.url}
        await one.send("PUT", f"{ORDERS}/groups/pushed", {"startFrom": "earliest", "delivery": delivery})
        refused = await one.send("POST", PULL, {"waitMs": 1500})
        assert refused["empty"] == "max_in_flight"
        assert not receiver.requests
        await one.ack(*pulled["messages"])
        assert len(await receiver.received(3)) == 3
