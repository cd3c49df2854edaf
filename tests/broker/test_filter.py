"""Filters: what does not match is passed over, counted, and costs nobody an attempt."""

from __future__ import annotations

import asyncio
from statistics import median

import pytest

from app.broker.sift import context_of
from app.domain.expression import Context
from app.domain.message import Message
from tests.broker.world import Replica, texts

Pair = tuple[Replica, Replica]


async def test_messages_that_do_not_match_are_counted_and_leave_the_lag(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group(filter='message.startsWith("yes")')
    await one.publish("yes 1", "no 2", "no 3", "yes 4", "no 5")
    got = await other.pull()
    assert texts(got) == ["yes 1", "yes 4"]
    assert {each.attempt for each in got} == {1}
    await one.ack(got)
    stats = await one.stats()
    assert [stats.total(name) for name in ("filtered", "filter_errors", "acked", "lag")] == [3, 0, 2, 0]
    assert stats.standings[0].committed_offset == 5


@pytest.mark.parametrize("at_once", [1, 3, 100])
async def test_a_filter_that_fails_does_not_match_and_each_failure_is_counted_once(
    replica: Replica, at_once: int
) -> None:
    await replica.topic()
    await replica.group(filter='headers["x"] == "1"')
    for _ in range(5):
        await replica.publish("yes", headers={"x": "1"})
        await replica.publish("fails")
        await replica.publish("no", headers={"x": "2"})
    got = []
    while some := await replica.pull(at_once):
        got += some
        await replica.ack(some)
    assert texts(got) == ["yes"] * 5
    stats = await replica.stats()
    assert [stats.total(name) for name in ("filtered", "filter_errors", "lag")] == [10, 5, 0]


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
async def test_what_is_filtered_out_holds_back_nobody(replica: Replica, ordering: str) -> None:
    await replica.topic()
    await replica.group(filter='message != "k:1"', ordering=ordering)
    await replica.publish("k:1", "k:2")
    got = await replica.pull()
    assert texts(got) == ["k:2"]
    await replica.settle("nack", got, delay_ms=0)
    assert [(each.text, each.attempt) for each in await replica.pull()] == [("k:2", 2)]


async def test_a_pull_is_back_in_time_however_much_does_not_match(replica: Replica) -> None:
    await replica.topic()
    await replica.group(filter='message == "never"')
    for _ in range(60):
        await replica.publish(*["x"] * 1000)
    loop = asyncio.get_running_loop()
    took = []
    for _ in range(4):
        began = loop.time()
        assert await replica.pull() == []
        took.append(loop.time() - began)
    assert median(took) < 1.5, took
    before = (await replica.stats()).total("filtered")
    assert before > 0
    while await replica.lag():
        await replica.pull()
    assert (await replica.stats()).total("filtered") == 60_000


@pytest.mark.parametrize(("one_of", "most"), [(1, 10), (200, 1100)])
async def test_of_a_backlog_no_more_is_judged_than_a_claim_of_a_few_needs(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, one_of: int, most: int
) -> None:
    judged = 0

    def counted(message: Message, topic: str) -> Context:
        nonlocal judged
        judged += 1
        return context_of(message, topic)

    monkeypatch.setattr("app.broker.sift.context_of", counted)
    await replica.topic()
    await replica.group(filter='message == "yes"')
    await replica.publish(*["yes" if at % one_of == 0 else "no" for at in range(1000)])
    assert texts(await replica.pull(4)) == ["yes"] * 4
    assert judged <= most
