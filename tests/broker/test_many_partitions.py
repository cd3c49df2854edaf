"""A little in many partitions: a pull takes it together, and every rule holds as if it had come from one."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from app.storage import claims
from tests.broker.world import Got, Replica

PARTITIONS = 32


@pytest.fixture
async def wide(replica: Replica) -> Replica:
    await replica.topic(partitions=PARTITIONS)
    return replica


async def publish_round(replica: Replica, count: int = 1) -> int:
    """Messages without a key go round: ``count`` for each partition."""
    await replica.publish(*[str(n) for n in range(PARTITIONS * count)])
    return PARTITIONS * count


async def test_a_pull_of_many_partitions_is_two_round_trips(wide: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    await wide.group()
    calls: Counter[str] = Counter()

    def counted(name: str) -> None:
        plain = getattr(claims, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return await plain(*arguments, **options)

        monkeypatch.setattr(claims, name, call)

    counted("claim")
    counted("claim_several")
    published = await publish_round(wide)
    assert len(await wide.pull(1000)) == published
    assert calls == {"claim": 1, "claim_several": 1}


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
async def test_no_more_is_taken_than_was_wanted_and_the_rest_comes_next(wide: Replica, ordering: str) -> None:
    await wide.group(ordering=ordering)
    published = await publish_round(wide, 3)
    got: list[Got] = []
    while taken := await wide.pull(10):
        assert len(taken) <= 10
        got += taken
        assert all(await wide.ack(taken))
    assert len(got) == published
    for number in range(PARTITIONS):
        assert [each.offset for each in got if each.partition == number] == [1, 2, 3]
    assert await wide.lag() == 0


async def test_the_limit_on_leased_messages_holds_over_partitions(wide: Replica) -> None:
    await wide.group(max_in_flight=7)
    await publish_round(wide, 2)
    got, _ = await wide.pull_or_why(1000)
    assert len(got) == 7
    assert await wide.pull_or_why(1000) == ([], "max_in_flight")
    assert all(await wide.ack(got[:3]))
    assert len(await wide.pull(1000)) == 3


async def test_a_partition_that_somebody_else_is_changing_holds_up_none_of_the_others(wide: Replica) -> None:
    group = await wide.group()
    published = await publish_round(wide)
    async with wide.db.transaction() as tx:
        locked = await tx.fetchval(
            "select partition_id from cursors where group_id = $1 and partition_id & 65535 = 5 for update", group.id
        )
        got = await wide.pull(1000)
        assert len(got) == published - 1
        assert locked & 0xFFFF not in {each.partition for each in got}
    (last,) = await wide.pull(1000, wait_ms=60_000)
    assert last.partition == locked & 0xFFFF


async def test_what_arrives_meanwhile_does_not_keep_a_pull_from_answering(
    wide: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await wide.group()
    plain = claims.claim

    async def followed(*arguments: Any, **options: Any) -> Any:
        """Whenever something was claimed, more has come."""
        claim = await plain(*arguments, **options)
        await publish_round(wide)
        return claim

    monkeypatch.setattr(claims, "claim", followed)
    await publish_round(wide)
    assert len(await wide.pull(1000, wait_ms=20_000)) <= 3 * PARTITIONS


async def test_consumers_that_pull_together_get_everything_once(wide: Replica) -> None:
    await wide.group()
    got: list[Got] = []

    async def consume(who: str, until: int) -> None:
        while len(got) < until:
            taken = await wide.pull(50, who=who, wait_ms=200)
            got.extend(taken)
            await wide.ack(taken)

    published = 0
    async with asyncio.TaskGroup() as tasks:
        consumers = [tasks.create_task(consume(f"c{n}", 10 * PARTITIONS)) for n in range(4)]
        for _ in range(10):
            published += await publish_round(wide)
    assert all(consumer.done() for consumer in consumers)
    assert Counter((each.partition, each.offset) for each in got).most_common(1)[0][1] == 1
    assert len(got) == published
    for number in range(PARTITIONS):
        offsets = [each.offset for each in got if each.partition == number]
        assert offsets == sorted(offsets)
