"""Limits and fairness under parallel pulls; and a claim of consumers that fail at random."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from app.domain.group import Retries
from app.domain.partition import partition_id
from app.storage.claims import CLAIM
from tests.broker.calendar import end_leases, make_due
from tests.broker.world import Got, Replica, texts
from tests.servers import wait_until

Pair = tuple[Replica, Replica]
LEASED = """
    select coalesce(sum(upper(r.r) - lower(r.r)), 0)::int from leases l cross join lateral unnest(l.pending) r (r)
"""


@pytest.mark.parametrize("ordering", ["key", "none"])
@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_parallel_pulls_never_pass_the_limit_in_flight(pair: Pair, ordering: str, limit: int) -> None:
    one, _ = pair
    await one.topic(partitions=4)
    await one.group(ordering=ordering, max_in_flight=limit)
    await one.publish(*[str(n) for n in range(400)])
    pulls = [replica.pull_or_why(50) for replica in pair * 10]
    answers = await asyncio.gather(*pulls)
    leased = await one.db.fetchval(LEASED)
    assert leased == sum(len(got) for got, _ in answers) == limit
    assert await one.pull_or_why() == ([], "max_in_flight")
    await one.ack(next(got for got, _ in answers if got))
    assert await one.pull(1000)
    assert await one.db.fetchval(LEASED) == limit


async def test_one_pull_gives_no_more_than_was_asked_for_over_all_partitions(replica: Replica) -> None:
    await replica.topic(partitions=4)
    await replica.group(batch_size=5)
    await replica.publish(*[str(n) for n in range(40)])
    assert len(await replica.pull(7)) == 7


async def test_a_busy_partition_does_not_starve_the_others(pair: Pair) -> None:
    one, other = pair
    await one.topic(partitions=4)
    await one.group()
    await one.publish(*["busy:x"] * 900)
    quiet = await one.publish(*[f"q{n}:x" for n in range(12)])
    busy = (await one.publish("busy:x"))[0].partition
    others = {each.partition for each in quiet} - {busy}
    seen: set[int] = set()
    for turn in range(1, 9):
        got = await (one, other)[turn % 2].pull(10)
        seen |= {each.partition for each in got}
        await one.ack(got)
        await one.publish(*["busy:x"] * 10)
    assert others <= seen


async def test_a_hot_key_that_fails_for_ever_does_not_stop_the_rest(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group(ordering="key", retries=Retries(100, "fixed", 60_000, 60_000))
    await one.publish(*["hot:x"] * 900)
    await one.settle("nack", (await one.pull(1)))
    for number in range(5):
        await one.publish(*["hot:x"] * 900, f"cool{number}:y")
    got = await other.pull(10, wait_ms=60_000)
    while len(got) < 5 and (more := await one.pull(10, wait_ms=60_000)):
        got += more
    assert texts(got) == [f"cool{number}:y" for number in range(5)]


@dataclass
class Consumers:
    """Those that fail at random: they ack one by one, in order, all or a part, or nack, or forget what they took."""

    chance: random.Random
    total: int
    settled: set[tuple[int, int]] = field(default_factory=set)
    acked: dict[str | None, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def are_done(self) -> bool:
        return len(self.settled) >= self.total

    async def consume(self, replica: Replica) -> None:
        while not self.are_done:
            # Each pull is like no other, so that what was forgotten was forgotten by a consumer that is gone.
            got = await replica.pull(self.chance.randint(1, 12), wait_ms=20)
            assert not {(each.partition, each.offset) for each in got} & self.settled, "what was acked came again"
            choice = self.chance.random()
            if got and choice < 0.15:
                await replica.settle("nack", self.chance.sample(got, self.chance.randint(1, len(got))))
            elif got and choice > 0.3:
                await self.ack(replica, got[: self.chance.randint(1, len(got))])

    async def ack(self, replica: Replica, got: list[Got]) -> None:
        stale: set[str | None] = set()
        for each in got:
            place = each.partition, each.offset
            if each.key in stale:
                continue
            if await replica.ack([each]) == [False]:
                stale.add(each.key)
            elif place not in self.settled:
                self.settled.add(place)
                self.acked[each.key].append(place)


@pytest.mark.parametrize("ordering", ["partition", "key"])
@pytest.mark.parametrize("seed", range(2))
async def test_with_consumers_that_fail_at_random_keys_are_acked_in_order_and_nothing_is_lost(
    pair: Pair, ordering: str, seed: int
) -> None:
    """Six consumers on two replicas; time is moved on beside them, so that leases end and retries are due."""
    one, other = pair
    chance, total = random.Random(seed), 240
    await one.topic(partitions=2)
    await one.group(ordering=ordering, retries=Retries(10_000, "fixed", 1, 1))
    for start in range(0, total, 20):
        await one.publish(*[f"k{n % 7}:{n}" for n in range(start, start + 20)])
    consumers = Consumers(chance, total)

    async def move_time() -> bool:
        await end_leases(one.db, chance.choice([None, chance.randint(1, total)]))
        await make_due(one.db)
        return consumers.are_done

    async with asyncio.TaskGroup() as tasks:
        for number in range(6):
            tasks.create_task(consumers.consume((one, other)[number % 2]))
        tasks.create_task(wait_until(move_time, timeout_s=250))
    assert all(places == sorted(places) for places in consumers.acked.values())
    assert len(consumers.settled) == total
    assert await one.lag() == 0
    assert (await one.stats()).total("acked") == total


async def test_a_claim_that_stalls_is_waited_for_before_the_limit_is_passed(pair: Pair) -> None:
    """It has counted what was in flight and taken its share; the others must not fill the rest a second time."""
    one, other = pair
    topic = await one.topic(partitions=2)
    group = await one.group(ordering="none", max_in_flight=2500)
    for _ in range(8):
        await one.publish(*map(str, range(1000)))
    stalled = await one.db.connect()
    transaction = stalled.transaction()
    await transaction.start()
    arguments = (partition_id(topic.id, 0), group.id, group.version, "stalled", 1000, 1 << 20, 30_000, "none", 2500, 2)
    pieces = await stalled.fetch(CLAIM, *arguments, None, None, None, None, True)
    assert sum(len(piece["payloads"]) for piece in pieces) == 1000

    async def drink() -> int:
        return sum([len(await other.pull(500)) for _ in range(8)])

    drinking = asyncio.ensure_future(drink())
    blocked = """
        select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()
    """
    await wait_until(lambda: one.db.fetchval(blocked))
    await transaction.commit()
    assert await drinking + 1000 == 2500
    assert (await one.stats()).total("leased") == 2500
    await stalled.close()
