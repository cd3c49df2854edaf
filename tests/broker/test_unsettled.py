"""How much of a namespace may be leased at a time, over all its groups and topics, and what it costs to know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.broker import unsettled
from app.domain.group import Delivery
from app.storage import claims
from app.storage import unsettled as stored
from tests.broker.calendar import end_leases
from tests.broker.test_cost import touched
from tests.broker.world import Got, Replica, replicas, texts

LEASED = """
    select coalesce(sum(upper(r.r) - lower(r.r)), 0)::int from leases l cross join lateral unnest(l.pending) r (r)
"""
MANY_GROUPS = """
    insert into groups (topic_id, name, config, version)
    select $1, 'g' || n, '{}', 1 from generate_series(1, 20000) n
"""
GROUPS = ("billing", "mail", "stock")
FULL: tuple[list[Got], str] = ([], "max_in_flight")


@pytest.fixture
async def pair(dsn: str) -> AsyncIterator[list[Replica]]:
    """Two replicas that lease ten messages of a namespace; three groups that have a hundred to read."""
    async with replicas(dsn, 2, max_unsettled=10) as pair:
        await pair[0].topic(partitions=4)
        for name in GROUPS:
            await pair[0].group(name=name, ordering="none")
        await pair[0].publish(*[str(n) for n in range(100)])
        yield pair


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A namespace for every time that one is counted."""
    counted: list[int] = []
    count = stored.count

    async def noted(db: Any, namespace_id: int) -> int:
        counted.append(namespace_id)
        return await count(db, namespace_id)

    monkeypatch.setattr(stored, "count", noted)
    return counted


async def test_s12_all_groups_of_a_namespace_together_lease_no_more_than_is_allowed(pair: list[Replica]) -> None:
    one, _ = pair
    answers = await asyncio.gather(*(one.pull_or_why(4, group=GROUPS[n % 3]) for n in range(12)))
    leased = await one.db.fetchval(LEASED)
    assert leased == sum(len(got) for got, _ in answers) == 10
    for name in GROUPS:
        assert await one.pull_or_why(group=name) == FULL


async def test_s12_pulls_that_ask_for_more_than_there_is_do_not_take_each_others_room(
    pair: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = pair
    claiming, may_claim = asyncio.Event(), asyncio.Event()
    claim = claims.claim

    async def slow(*arguments: Any, **options: Any) -> Any:
        claiming.set()
        await may_claim.wait()
        return await claim(*arguments, **options)

    monkeypatch.setattr(claims, "claim", slow)
    greedy = asyncio.create_task(one.pull_or_why(1000))
    await claiming.wait()
    beside = asyncio.create_task(one.pull_or_why(1, group="mail", wait_ms=20_000))
    assert await one.pull_or_why(1, group="stock") == FULL, "a pull that does not wait is not kept waiting"
    assert not beside.done()  # all the room is reserved, but not yet used
    await one.db.execute("update cursors set paused = true where group_id = (select id from groups where name = $1)",
                         "billing")  # fmt: skip
    may_claim.set()
    assert await greedy == ([], "paused")
    assert len((await beside)[0]) == 1


async def test_s12_what_other_replicas_leased_is_known_from_the_next_count_on(
    pair: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    assert len(await two.pull(1)) == 1
    assert len(await one.pull(10)) == 9
    monkeypatch.setattr(unsettled, "FAR_S", 0.0)
    await two.unsettled.count_once()
    assert await two.pull_or_why(1) == FULL


async def test_s12_what_is_settled_makes_room_at_once(pair: list[Replica]) -> None:
    one, two = pair
    got = await one.pull(10)
    assert await two.pull_or_why(10) == FULL
    await two.ack(got[:3])
    assert len(await two.pull(10, group="mail")) == 3
    assert await one.pull_or_why(10) == FULL


async def test_s12_nothing_of_a_replica_that_died_counts_once_its_leases_have_ended(pair: list[Replica]) -> None:
    one, two = pair
    assert len(await one.pull(10)) == 10
    assert await two.pull_or_why(10, group="mail") == FULL
    await end_leases(two.db)
    assert len(await two.pull(10, group="mail")) == 10


async def test_s12_a_claim_that_fails_gives_its_room_back(pair: list[Replica], monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_arguments: Any, **_options: Any) -> Any:
        raise RuntimeError("lost")

    with monkeypatch.context() as patch:
        patch.setattr(claims, "claim", fail)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await pair[0].pull(10)
    assert len(await pair[0].pull(10)) == 10


async def test_s12_a_pull_that_waits_for_room_gets_what_comes_free(pair: list[Replica]) -> None:
    one, two = pair
    got = await one.pull(10)
    waiting = asyncio.create_task(two.pull(5, group="mail", wait_ms=20_000))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.5)
    await one.ack(got)
    while not waiting.done():  # as the poll loop does
        await two.puller.poll_once()
        await asyncio.sleep(0.05)
    assert len(texts(waiting.result())) == 5


async def test_s12_other_namespaces_have_their_own_limit(pair: list[Replica], dsn: str) -> None:
    assert len(await pair[0].pull(10)) == 10
    async with replicas(dsn, project="other", max_unsettled=10) as (other,):
        await other.topic()
        await other.group()
        await other.publish("1")
        assert texts(await other.pull()) == ["1"]


async def test_s12_hooks_tell_of_what_happens_also_where_nothing_more_may_be_leased(pair: list[Replica]) -> None:
    one, _ = pair
    assert len(await one.pull(10)) == 10
    hook = await one.group(name="hook", delivery=Delivery(mode="push", url="http://127.0.0.1:1/", format="hook"))
    assert hook.is_hook
    assert len(await one.pull(1, group="hook")) == 1


async def test_s12_far_from_the_limit_a_pull_never_counts(
    replica: Replica, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsettled, "STALE_S", 3600.0)  # what counts beside pulls does not run here
    await replica.topic()
    await replica.group()
    for n in range(20):
        await replica.publish(str(n))
        await replica.ack(await replica.pull(10))
    assert len(counts) == 1, "the first one had to"


async def test_s12_it_is_counted_beside_pulls_and_only_while_there_are_any(
    replica: Replica, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsettled, "FAR_S", 0.0)
    await replica.topic()
    await replica.group()
    await replica.pull(10)
    before = len(counts)
    for _ in range(3):
        await replica.unsettled.count_once()
    assert len(counts) == before + 1


async def test_counting_costs_what_is_leased_and_not_what_there_is(replica: Replica) -> None:
    topic = await replica.topic(partitions=2)
    await replica.group()
    await replica.publish(*[str(n) for n in range(20)])
    assert await replica.pull(10)
    await replica.db.execute(MANY_GROUPS, topic.id)
    await replica.db.execute("analyze groups, topics, leases")
    explain = "explain (analyze, buffers, costs off) " + stored.COUNT.replace("$1", str(replica.namespace.id))
    plan = "\n".join(row[0] for row in await replica.db.fetch(explain))
    assert touched(plan) < 50, plan
