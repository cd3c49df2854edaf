"""Delay and time to live: by the database's clock, and nobody else waits for it."""

from __future__ import annotations

from typing import Any

import pytest

from app.broker.demand import Demand
from app.broker.line import Patience
from tests.broker.calendar import make_due, pass_time
from tests.broker.world import Replica, texts

Pair = tuple[Replica, Replica]
ALL = pytest.mark.parametrize("ordering", ["partition", "key", "none"])


@ALL
async def test_a_delay_holds_back_the_first_delivery_and_nobody_else(pair: Pair, ordering: str) -> None:
    one, other = pair
    await one.topic()
    await one.group(ordering=ordering)
    await one.publish("k:1", delay_ms=60_000)
    await one.publish("k:2", "j:3")
    got = await other.pull()
    assert texts(got) == ["k:2", "j:3"], "not even later ones of its key"
    assert (await one.stats()).total("delayed") == 1
    await one.ack(got)
    assert await one.pull_or_why() == ([], "held")
    await make_due(one.db)
    assert [(each.text, each.attempt) for each in await one.pull()] == [("k:1", 1)]


@ALL
@pytest.mark.parametrize("way", ["ahead", "held", "retrying", "delayed", "taken back", "handed back"])
async def test_a_message_past_its_time_is_never_delivered_wherever_it_waits(
    pair: Pair, ordering: str, way: str
) -> None:
    one, other = pair
    if ordering == "none" and way in ("held", "taken back"):
        return
    await one.topic()
    group = await one.group(ordering=ordering)
    options: dict[str, Any] = {"ttl_ms": 30_000} | ({"delay_ms": 60_000} if way == "delayed" else {})
    if way in ("held", "taken back"):
        await one.publish("k:1")
        if way == "held":
            await one.settle("nack", await one.pull(), delay_ms=120_000)
    await one.publish("k:2", **options)
    if way == "delayed":
        assert await one.pull() == []
    elif way == "held":
        assert await other.pull() == []
    elif way == "retrying":
        await one.settle("nack", await one.pull(), delay_ms=60_000)
    elif way == "taken back":
        got = await one.pull()
        await one.settle("nack", got[:1], delay_ms=120_000)
    elif way == "handed back":
        (got_back,) = await one.pull()
        await one.settler.hand_back(group.id, [got_back.ack_id])
    await pass_time(one.db, 31_000)
    assert await other.pull() == []
    await make_due(one.db)
    assert texts(await other.pull()) == (["k:1"] if way in ("held", "taken back") else [])
    stats = await one.stats()
    assert stats.total("expired") == 1
    assert stats.total("lag") == (1 if way in ("held", "taken back") else 0)


async def test_the_bytes_of_a_pull_are_bounded_over_deferred_and_new_messages_alike(replica: Replica) -> None:
    await replica.topic()
    await replica.group(ordering="none")
    await replica.publish(*["x" * 98] * 10)
    await replica.settle("nack", await replica.pull(4), delay_ms=0)

    key = (replica.namespace.id, "orders", "billing")
    pulled = await replica.puller.pull(key, Demand("me", 100, byte_limit=500), Patience(0))
    assert sum(taken.claim.size for taken in pulled.taken) == 500
    pulled = await replica.puller.pull(key, Demand("me", 100, byte_limit=1), Patience(0))
    assert sum(taken.claim.count for taken in pulled.taken) == 1, "at least one is always given"
