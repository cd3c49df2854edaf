"""Order per key: what fails holds back its own key only, in every way a delivery can fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from app.broker.pause import pause_group, resume_group
from app.broker.seek import seek
from app.domain.group import Retries
from tests.broker.calendar import end_leases, make_due
from tests.broker.world import Got, Replica, texts

Pair = tuple[Replica, Replica]
KEYED = pytest.mark.parametrize("ordering", ["partition", "key"])
ALL = pytest.mark.parametrize("ordering", ["partition", "key", "none"])
SLOW = Retries(max=3, strategy="fixed", base_delay=60_000, max_delay=60_000)


def chosen(got: list[Got], text: str) -> list[Got]:
    return [each for each in got if each.text == text]


async def nacked(replica: Replica, got: list[Got]) -> None:
    assert await replica.settle("nack", got) == [True] * len(got)


async def expired(replica: Replica, got: list[Got]) -> None:
    """Everything but ``got`` of its lease is extended, so that only that expires."""
    rest = [each for each in await replica_holds(replica, got) if each not in {one.offset for one in got}]
    lease = got[0].ack_id
    others = [each._replace(offset=offset) for each in (lease,) for offset in rest]
    await replica.settle("extend", [Got(0, each.offset, None, b"", 1, each) for each in others], timeout_ms=600_000)
    await end_leases(replica.db, got[0].offset)


async def replica_holds(replica: Replica, got: list[Got]) -> list[int]:
    rows = await replica.db.fetch(
        "select f.o from leases l, unnest(l.pending) r (r), generate_series(lower(r.r), upper(r.r) - 1) f (o) "
        "where l.id = $1",
        got[0].ack_id.lease_id,
    )
    return [row[0] for row in rows]


FAIL = pytest.mark.parametrize("fail", [nacked, expired])
Fail = Callable[[Replica, list[Got]], Awaitable[None]]


@ALL
async def test_one_pull_gives_the_messages_in_offset_order(pair: Pair, ordering: str) -> None:
    one, other = pair
    await one.topic()
    await one.group(ordering=ordering)
    for start in range(0, 30, 10):
        await one.publish(*[f"k{n % 3}:{n}" for n in range(start, start + 10)])
    got = await other.pull(25)
    assert [each.offset for each in got] == list(range(1, 26))
    assert all(each.attempt == 1 for each in got)


async def test_in_partition_order_a_partition_is_one_consumers_until_its_lease_is_empty(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    await one.publish("a:1", "b:2", "c:3")
    got = await one.pull(1)
    assert await other.pull_or_why() == ([], "leased")
    assert await one.pull_or_why() == ([], "leased"), "a pull without a label is like no other"
    await one.ack(got)
    assert texts(await other.pull()) == ["b:2", "c:3"]


async def test_a_consumer_with_a_label_may_take_more_of_its_own_partition_on_any_replica(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    await one.publish("a:1", "b:2", "c:3")
    assert texts(await one.pull(1, who="w")) == ["a:1"]
    assert await one.pull_or_why(1, who="v") == ([], "leased")
    assert texts(await other.pull(1, who="w")) == ["b:2"]


async def test_in_key_order_consumers_share_a_partition_but_never_a_key(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group(ordering="key")
    await one.publish("a:1", "a:2", "b:1", "a:3", "b:2", "c:1")
    first = await one.pull(2)
    assert texts(first) == ["a:1", "a:2"]
    second = await other.pull(1)
    assert texts(second) == ["b:1"]
    assert texts(await one.pull()) == ["c:1"], "a and b are in flight elsewhere"
    assert await other.pull_or_why() == ([], "held")
    await other.ack(first[:1])
    assert await one.pull_or_why() == ([], "held"), "a:2 is still in flight"
    await other.ack(first[1:])
    assert texts(await one.pull()) == ["a:3"]
    await one.ack(second)
    assert texts(await other.pull()) == ["b:2"]


async def test_without_order_everyone_shares_everything(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group(ordering="none")
    await one.publish("a:1", "a:2", "a:3")
    first = await one.pull(1)
    assert texts(await other.pull(1)) == ["a:2"]
    await nacked(one, first)
    assert texts(await other.pull(1)) in (["a:3"], ["a:1"])


@KEYED
@FAIL
async def test_a_failed_message_holds_back_its_own_key_and_nobody_else(pair: Pair, ordering: str, fail: Fail) -> None:
    one, other = pair
    await one.topic()
    await one.group(ordering=ordering, retries=SLOW)
    await one.publish("k:1", "j:1", "k:2", "j:2")
    got = await one.pull(2)
    await fail(one, chosen(got, "k:1"))
    await one.ack(chosen(got, "j:1"))
    rest = await other.pull()
    assert texts(rest) == ["j:2"], "k:2 waits for k:1"
    await other.ack(rest)
    await one.publish("k:3", "j:3")
    assert texts(await one.pull()) == ["j:3"]
    await end_leases(one.db)
    await make_due(one.db)
    back = await other.pull()
    assert [each.text for each in back if each.key == "k"] == ["k:1", "k:2", "k:3"]
    assert [each.attempt for each in back if each.key == "k"] == [2, 1, 1]


@KEYED
@FAIL
async def test_later_ones_of_the_key_in_the_same_lease_become_stale_and_lose_no_attempt(
    pair: Pair, ordering: str, fail: Fail
) -> None:
    one, other = pair
    await one.topic()
    await one.group(ordering=ordering, retries=SLOW)
    await one.publish("k:1", "j:1", "k:2", "k:3")
    got = await one.pull()
    await fail(other, chosen(got, "k:1"))
    await one.pull()  # whoever claims next sees what has expired
    assert await other.settle("ack", chosen(got, "k:2") + chosen(got, "j:1")) == [False, True]
    assert await other.settle("nack", chosen(got, "k:3")) == [False]
    await make_due(one.db)
    again = await one.pull()
    assert [(each.text, each.attempt) for each in again] == [("k:1", 2), ("k:2", 1), ("k:3", 1)]


@KEYED
async def test_earlier_ones_of_the_key_in_the_same_lease_are_not_disturbed(replica: Replica, ordering: str) -> None:
    await replica.topic()
    await replica.group(ordering=ordering, retries=SLOW)
    await replica.publish("k:1", "k:2", "k:3")
    got = await replica.pull()
    await nacked(replica, chosen(got, "k:2"))
    assert await replica.ack(got) == [True, False, False]


@KEYED
async def test_messages_without_a_key_hold_back_nobody(replica: Replica, ordering: str) -> None:
    await replica.topic()
    await replica.group(ordering=ordering, retries=SLOW)
    await replica.publish("one", "two", "three")
    got = await replica.pull(2)
    await nacked(replica, got[:1])
    assert await replica.ack(got[1:]) == [True]
    assert texts(await replica.pull()) == ["three"]


async def test_without_order_a_failed_message_holds_back_nobody(replica: Replica) -> None:
    await replica.topic()
    await replica.group(ordering="none", retries=SLOW)
    await replica.publish("k:1", "k:2", "k:3")
    got = await replica.pull(2)
    await nacked(replica, got[:1])
    assert await replica.ack(got[1:]) == [True]
    assert texts(await replica.pull()) == ["k:3"]


@KEYED
async def test_a_key_stays_held_across_pause_and_seek_gives_everything_afresh(pair: Pair, ordering: str) -> None:
    one, other = pair
    topic = await one.topic()
    group = await one.group(ordering=ordering, retries=SLOW)
    await one.publish("k:1", "k:2", "j:1")
    await nacked(one, chosen(await one.pull(1), "k:1"))
    await pause_group(one.db, group)
    assert await other.pull_or_why() == ([], "paused")
    await resume_group(one.db, one.wakeups, group)
    held = await other.pull()
    assert texts(held) == ["j:1"]
    await other.ack(held)
    await seek(other.db, other.wakeups, group, "earliest")
    again = await one.pull()
    assert [(each.text, each.attempt) for each in again] == [("k:1", 1), ("k:2", 1), ("j:1", 1)]
    assert topic.partitions == 1


@KEYED
@pytest.mark.parametrize("end", ["dead", "discarded"])
async def test_dead_lettering_and_discarding_release_the_key_at_once(pair: Pair, ordering: str, end: str) -> None:
    one, other = pair
    await one.topic()
    await one.group(ordering=ordering, retries=Retries(1, "fixed", 60_000, 60_000))
    await one.publish("k:1", "k:2", "k:3")
    await nacked(one, await one.pull(1))
    assert await other.pull_or_why() == ([], "held")
    await make_due(one.db)
    (again,) = await one.pull(1)
    assert again.attempt == 2
    if end == "dead":
        await nacked(other, [again])
    else:
        assert await other.settle("discard", [again], reason="no use") == [True]
    freed = await other.pull()
    assert texts(freed) == ["k:2", "k:3"]
    assert await one.lag() == 2


@KEYED
async def test_a_message_acked_before_an_earlier_one_of_its_key_failed_is_not_sent_again(
    replica: Replica, ordering: str
) -> None:
    await replica.topic()
    await replica.group(ordering=ordering)
    await replica.publish("k:1", "k:2", "k:3")
    got = await replica.pull()
    await replica.ack(chosen(got, "k:2"))
    await nacked(replica, chosen(got, "k:1"))
    await make_due(replica.db)
    assert texts(await replica.pull()) == ["k:1", "k:3"]


@KEYED
async def test_a_handed_back_message_keeps_its_attempt_and_its_place_before_its_key(pair: Pair, ordering: str) -> None:
    one, other = pair
    await one.topic()
    group = await one.group(ordering=ordering)
    await one.publish("k:1", "k:2", "j:1")
    got = await one.pull(2)
    await one.settler.hand_back(group.id, [got[0].ack_id])
    assert await one.ack(got) == [False, False], "k:2 may not be settled before k:1"
    again = await other.pull()
    assert [(each.text, each.attempt) for each in again] == [("k:1", 1), ("k:2", 1), ("j:1", 1)]


async def test_a_key_in_flight_is_known_after_the_order_was_changed_to_key(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    await one.publish("k:1", "k:2", "j:1")
    await one.pull(1)
    await one.group(ordering="key")
    assert texts(await other.pull()) == ["j:1"]


@KEYED
async def test_two_retrying_messages_of_a_key_come_back_in_order_whichever_is_due_first(
    replica: Replica, ordering: str
) -> None:
    await replica.topic()
    await replica.group(ordering=ordering)
    await replica.publish("k:1", "k:2")
    got = await replica.pull()
    assert await replica.settle("nack", got[:1], delay_ms=60_000) == [True]
    assert await replica.pull_or_why() == ([], "held")
    await make_due(replica.db)
    got = await replica.pull()
    assert await replica.settle("nack", got[1:], delay_ms=0) == [True]
    assert await replica.settle("nack", got[:1], delay_ms=60_000) == [True]
    assert await replica.pull_or_why() == ([], "held"), "k:2 is due, k:1 is not"
