"""Retries: how many, how late, and that what was said of a failure is kept."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.group import DeadLetters, Retries
from app.domain.partition import partition_id
from app.storage.rescue import expire
from tests.broker.calendar import end_leases, make_due
from tests.broker.world import Replica, texts

Pair = tuple[Replica, Replica]
DELAYS = """
    select "offset", extract(epoch from due_at - (select max(at) from attempts a
        where a."offset" = d."offset" and a.group_id = d.group_id)) * 1000 as ms from deferred d
"""
EXPONENTIAL = Retries(max=20, strategy="exponential", base_delay=1000, max_delay=5000)
FIXED = Retries(max=20, strategy="fixed", base_delay=50_000, max_delay=60_000)


async def delays(replica: Replica) -> dict[int, float]:
    return {row["offset"]: float(row["ms"]) for row in await replica.db.fetch(DELAYS)}


@pytest.mark.parametrize("fails", [0, 1, 3])
@pytest.mark.parametrize("how", ["nack", "timeout"])
async def test_a_delivery_has_one_attempt_more_than_retries_and_then_is_dead(pair: Pair, fails: int, how: str) -> None:
    one, other = pair
    await one.topic()
    group = await one.group(retries=Retries(fails, "fixed", 1, 1))
    await one.publish("k:1", "k:2")
    for attempt in range(1, fails + 2):
        got = await one.pull(1)
        assert [(each.text, each.attempt) for each in got] == [("k:1", attempt)]
        if how == "nack":
            await other.settle("nack", got)
        else:
            await end_leases(one.db)
            await expire(one.db, partition_id(group.topic_id, 0), group.id)
        await make_due(one.db)
    stats = await one.stats()
    assert (stats.total("dead"), stats.total("lag")) == (1, 1)


@pytest.mark.parametrize("attempt", [1, 2, 3, 4, 9])
async def test_exponential_backoff_doubles_with_jitter_and_stays_below_its_ceiling(
    replica: Replica, attempt: int
) -> None:
    await replica.topic()
    await replica.group(retries=EXPONENTIAL)
    await replica.publish(*map(str, range(200)))
    got = await replica.pull(200)
    if attempt > 1:
        await replica.settle("nack", got)
        await replica.db.execute("update deferred set attempt = $1, due_at = clock_timestamp()", attempt - 1)
        await replica.db.execute("delete from attempts")
        got = await replica.pull(200)
    assert {each.attempt for each in got} == {attempt}
    await replica.settle("nack", got)
    waits = (await delays(replica)).values()
    low, high = min(5000, 800 * 2 ** (attempt - 1)), min(5000, 1200 * 2 ** (attempt - 1))
    assert len(waits) == 200
    assert low - 1 <= min(waits)
    assert max(waits) <= high
    if low < high:
        assert max(waits) - min(waits) > (high - low) * 0.7, "there is hardly any jitter"


async def test_fixed_backoff_is_the_same_for_every_attempt(replica: Replica) -> None:
    await replica.topic()
    await replica.group(retries=FIXED)
    await replica.publish("a")
    for _ in range(3):
        await replica.settle("nack", await replica.pull())
        assert await delays(replica) == {1: pytest.approx(50_000, abs=1)}
        await make_due(replica.db)


@pytest.mark.parametrize("way", ["held", "handed back", "delayed"])
async def test_a_first_failure_backs_off_also_where_the_message_had_waited_before(replica: Replica, way: str) -> None:
    await replica.topic()
    group = await replica.group(retries=FIXED)
    if way == "held":
        await replica.publish("k:1", "k:2")
        got = await replica.pull()
        await replica.settle("nack", got[:1])  # k:2 is held, and comes back with it
        await make_due(replica.db)
        got = await replica.pull()
        await replica.ack(got[:1])
    else:
        await replica.publish("k:2", delay_ms=60_000 if way == "delayed" else None)
        got = await replica.pull()
        if way == "handed back":
            await replica.settler.hand_back(group.id, [got[0].ack_id])
        else:
            await make_due(replica.db)
        got = await replica.pull()
    assert [(each.text, each.attempt) for each in got[-1:]] == [("k:2", 1)]
    assert await replica.settle("nack", got[-1:]) == [True]
    assert [*(await delays(replica)).values()] == [pytest.approx(50_000, abs=1)]
    assert await replica.pull_or_why() == ([], "held")


@pytest.mark.parametrize("delay", [0, 1, 3_000])
async def test_the_callers_delay_replaces_the_backoff(replica: Replica, delay: int) -> None:
    await replica.topic()
    await replica.group(retries=EXPONENTIAL)
    await replica.publish("a")
    for _ in range(2):
        await replica.settle("nack", await replica.pull(), delay_ms=delay, reason="busy")
        assert [*(await delays(replica)).values()] == [pytest.approx(delay, abs=1)]
        if delay:
            await make_due(replica.db)
    assert [each.attempt for each in await replica.pull()] == [3]


async def test_a_nack_without_delay_is_redelivered_at_once(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group(retries=EXPONENTIAL)
    await one.publish("k:1", "k:2")
    await one.settle("nack", await one.pull(1), delay_ms=0)
    assert [(each.text, each.attempt) for each in await other.pull()] == [("k:1", 2), ("k:2", 1)]


@pytest.mark.parametrize(("verb", "outcome"), [("nack", "nacked"), ("discard", "discarded")])
async def test_the_reason_is_kept_with_the_attempt(replica: Replica, verb: str, outcome: str) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a")
    await replica.settle(verb, await replica.pull(), reason="no such account")
    rows = await replica.db.fetch("select attempt, outcome, error from attempts")
    assert [tuple(row) for row in rows] == [(1, outcome, "no such account")]


async def test_a_discard_is_the_end_without_retry_and_without_dead_letter(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    await one.publish("a", "b")
    got = await one.pull()
    assert await other.settle("discard", got[:1]) == [True]
    await make_due(one.db)
    assert await other.pull_or_why() == ([], "leased")
    await one.ack(got[1:])
    stats = await one.stats()
    assert {name: stats.total(name) for name in ("discarded", "acked", "dead", "lag")} == {
        "discarded": 1, "acked": 1, "dead": 0, "lag": 0,
    }  # fmt: skip
    assert stats.standings[0].committed_offset == 2


async def test_without_dead_letters_an_exhausted_delivery_is_dropped_and_counted(replica: Replica) -> None:
    await replica.topic()
    await replica.group(retries=Retries(0, "fixed", 1, 1), dead_letter=DeadLetters(enabled=False))
    await replica.publish("k:1", "k:2")
    await replica.settle("nack", await replica.pull(1))
    stats = await replica.stats()
    assert (stats.total("dead"), stats.letters, stats.total("lag")) == (1, 0, 1)
    assert stats.standings[0].committed_offset == 1
    assert texts(await replica.pull()) == ["k:2"]


async def test_the_budget_is_the_one_configured_when_the_attempt_fails(replica: Replica) -> None:
    await replica.topic()
    await replica.group(retries=Retries(5, "fixed", 1, 1))
    await replica.publish("a")
    await replica.settle("nack", await replica.pull())
    options: dict[str, Any] = {"retries": Retries(1, "fixed", 1, 1)}
    await replica.group(**options)
    await make_due(replica.db)
    await replica.settle("nack", await replica.pull())
    assert (await replica.stats()).total("dead") == 1
