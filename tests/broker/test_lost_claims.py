"""A claim whose answer was lost may have been made: whoever made it gets nothing that would overtake what it took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from app.broker.demand import Demand
from app.broker.line import Patience
from app.domain.errors import DatabaseUnavailable
from app.storage.claims import CLAIM, CLAIM_SEVERAL
from tests.broker.world import GROUP, TOPIC, Replica, texts

Pair = tuple[Replica, Replica]
LEASE_MS = 3000


@contextmanager
def answer_lost(replica: Replica, monkeypatch: pytest.MonkeyPatch, *, of: int = 1) -> Iterator[None]:
    """The ``of``-th claim is carried out, and its answer never comes."""
    real, claims = replica.db.fetch, 0

    async def fetch(statement: str, *arguments: Any) -> Sequence[Any]:
        nonlocal claims
        rows = await real(statement, *arguments)
        is_claim = statement in (CLAIM, CLAIM_SEVERAL)
        claims += is_claim
        if is_claim and claims == of:
            raise DatabaseUnavailable("The answer was lost.")
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(replica.db, "fetch", fetch)
        yield


@pytest.mark.parametrize("ordering", ["partition", "key"])
async def test_nothing_overtakes_what_a_lost_claim_took(
    replica: Replica, ordering: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replica.topic()
    await replica.group(ordering=ordering)
    await replica.publish("k:1", "k:2")
    with answer_lost(replica, monkeypatch), pytest.raises(DatabaseUnavailable):
        await replica.pull(1, who="me", lease_ms=LEASE_MS)

    assert await replica.pull(who="me") == []
    again = await replica.pull(who="me", wait_ms=60_000)

    assert (again[0].text, again[0].attempt) == ("k:1", 2)
    assert all(await replica.ack(again))


async def test_what_a_consumer_already_has_it_can_still_settle(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replica.topic()
    await replica.group(ordering="key")
    await replica.publish("a:1", "b:1", "c:1")
    first = await replica.pull(1, who="me")
    with answer_lost(replica, monkeypatch), pytest.raises(DatabaseUnavailable):
        await replica.pull(1, who="me", lease_ms=LEASE_MS)

    assert texts(await replica.pull(who="me")) == ["c:1"]
    assert all(await replica.ack(first))
    assert (await replica.stats()).consumers == 1


async def test_a_label_hears_of_a_lost_claim_even_where_another_partition_gave_something(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    await one.topic(partitions=2)
    await one.group(ordering="key")
    await one.publish(*(f"key-{number}:1" for number in range(20)))
    demand = Demand("consumer:me", lease_ms=LEASE_MS, is_shared=True)
    with answer_lost(one, monkeypatch, of=2), pytest.raises(DatabaseUnavailable):
        await one.puller.pull((one.namespace.id, TOPIC, GROUP), demand, Patience(0))

    back = await other.pull(who="you")

    assert {got.attempt for got in back} == {1}, "no attempt was used up"
    assert len({got.partition for got in back}) == 1, "the other one is in the lost claim's lease"
