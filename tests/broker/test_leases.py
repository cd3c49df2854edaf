"""Leases: their time, their fence, and what repeating a settle says."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.broker.purge import purge
from app.broker.seek import seek
from app.broker.settle import Settlement
from tests.broker.calendar import end_leases, make_due
from tests.broker.world import Got, Replica, texts
from tests.servers import wait_until

Pair = tuple[Replica, Replica]


PLACES = ("ahead", "leased", "retrying", "held", "delayed", "acked", "discarded")


async def places(replica: Replica) -> dict[str, int]:
    stats = await replica.stats()
    return {name: stats.total(name) for name in PLACES}


def nowhere_but(**counts: int) -> dict[str, int]:
    return dict.fromkeys(PLACES, 0) | counts


async def test_an_ack_settles_once_and_says_ok_again_while_the_lease_would_live(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    await one.publish("a", "b")
    got = await one.pull()
    assert await one.ack(got[:1]) == [True]
    assert await other.ack(got[:1]) == [True]
    assert await other.ack(got) == [True, True]
    assert await one.ack(got) == [True, True]
    assert await places(one) == nowhere_but(acked=2)


async def test_repeating_an_ack_is_stale_once_its_lease_would_have_ended(replica: Replica) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a")
    (got,) = await replica.pull(lease_ms=60_000)
    assert await replica.ack([got]) == [True]
    ended = replace(got, ack_id=got.ack_id._replace(lease_id=got.ack_id.lease_id - (120_000 << 20)))
    assert await replica.ack([ended]) == [False]


async def test_a_discard_repeated_is_ok_and_an_ack_of_something_discarded_is_not(replica: Replica) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a")
    got = await replica.pull()
    assert await replica.settle("discard", got) == [True]
    assert await replica.settle("discard", got) == [True]
    assert await replica.ack(got) == [False]
    assert (await places(replica))["discarded"] == 1


@pytest.mark.parametrize("verb", ["ack", "nack", "discard", "extend"])
async def test_an_expired_lease_settles_nothing_and_changes_nothing(pair: Pair, verb: str) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    await one.publish("a", "b")
    got = await one.pull()
    await end_leases(one.db)
    before = await places(one)
    assert await other.settle(verb, got, timeout_ms=60_000) == [False, False]
    assert await places(one) == before


@pytest.mark.parametrize("verb", ["ack", "nack", "discard", "extend"])
async def test_the_ack_id_of_an_earlier_attempt_is_stale(pair: Pair, verb: str) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    await one.publish("a")
    old = await one.pull()
    await one.settle("nack", old)
    await make_due(one.db)
    new = await other.pull()
    assert [each.attempt for each in new] == [2]
    assert await one.settle(verb, old, timeout_ms=60_000) == [False]
    assert await one.ack(new) == [True]
    assert await one.settle("ack", old) == [False], "the earlier attempt failed, whatever became of the message"


@pytest.mark.parametrize("verb", ["ack", "nack", "discard", "extend"])
@pytest.mark.parametrize("move", ["seek", "purge"])
async def test_ack_ids_from_before_a_seek_or_a_purge_are_stale(pair: Pair, verb: str, move: str) -> None:
    one, other = pair
    topic = await one.topic()
    group = await one.group()
    await one.publish("a", "b", "c")
    got = await one.pull(2)
    if move == "seek":
        await seek(other.db, other.wakeups, group, "earliest")
    else:
        await purge(other.db, topic)
    before = await places(one)
    assert await one.settle(verb, got, timeout_ms=60_000) == [False, False]
    assert await places(one) == before
    assert texts(await other.pull()) == (["a", "b", "c"] if move == "seek" else [])


async def test_an_ack_repeated_after_a_seek_is_stale_though_its_time_is_not_over(replica: Replica) -> None:
    await replica.topic()
    group = await replica.group()
    await replica.publish("a")
    got = await replica.pull()
    assert await replica.ack(got) == [True]
    await seek(replica.db, replica.wakeups, group, "earliest")
    assert await replica.ack(got) == [False]
    assert await replica.lag() == 1


async def test_a_lease_that_ends_uses_up_an_attempt_and_says_why(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    await one.publish("a")
    await one.pull()
    await end_leases(one.db)
    assert await other.pull_or_why() == ([], "held"), "a retry waits for its backoff"
    await make_due(one.db)
    (again,) = await other.pull()
    assert again.attempt == 2
    errors = await one.db.fetch("select outcome, error, attempt from attempts")
    assert [(row["outcome"], row["attempt"]) for row in errors] == [("timeout", 1)]
    assert errors[0]["error"].startswith("timeout")


async def test_extending_moves_the_deadline_and_nobody_else_gets_it_meanwhile(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group(ordering="none")
    await one.publish("a", "b", "c")
    got = await one.pull()
    assert await other.settle("extend", got[1:], timeout_ms=600_000) == [True, True]
    await end_leases(one.db, 1)
    assert await other.pull() == []
    assert await one.ack(got) == [False, True, True]
    await make_due(one.db)
    assert texts(await other.pull()) == ["a"]


async def test_parts_of_a_lease_may_have_many_deadlines_and_settle_together(replica: Replica) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a", "b", "c", "d")
    got = await replica.pull(lease_ms=30_000)
    assert await replica.settle("extend", got[:1], timeout_ms=60_000) == [True]
    assert await replica.settle("extend", got[1:2], timeout_ms=70_000) == [True]
    assert await replica.settle("extend", got[2:3], timeout_ms=80_000) == [True]
    # The lease's first deadline has passed long ago, as far as its id says.
    lease = got[0].ack_id.lease_id
    early = lease - (60_000 << 20)
    await replica.db.execute("update leases set id = $2 where id = $1", lease, early)
    moved = [replace(each, ack_id=each.ack_id._replace(lease_id=early)) for each in got]
    assert await replica.ack(moved[:3]) == [True, True, True]
    assert await replica.lag() == 1


async def test_an_ack_settles_all_of_one_part_of_a_lease_and_some_of_another(replica: Replica) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a", "b", "c", "d")
    got = await replica.pull()
    assert await replica.settle("extend", got[:2], timeout_ms=600_000) == [True, True]
    assert await replica.ack(got[:3]) == [True, True, True]
    assert await places(replica) == nowhere_but(acked=3, leased=1)
    assert await replica.ack(got[3:]) == [True]
    assert await places(replica) == nowhere_but(acked=4)


IN_THE_WAY = "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


@pytest.mark.parametrize(
    "meanwhile",
    ["ack($1, $2, array[$3::bigint], array['{[2,3)}'])", "extend($1, $2, array[$3::bigint], '{2}', '{600000}')"],
)
async def test_an_ack_settles_all_it_can_of_a_lease_that_changes_while_it_waits(
    replica: Replica, meanwhile: str
) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a", "b", "c")
    got = await replica.pull()
    lease = got[0].ack_id
    async with replica.db.transaction() as somebody:
        await somebody.fetch(f"select count(*) from {meanwhile}", lease.partition_id, lease.group_id, lease.lease_id)
        acking = asyncio.create_task(replica.ack(got))
        await wait_until(lambda: replica.db.fetchval(IN_THE_WAY))
    assert await acking == [True, True, True]
    assert await places(replica) == nowhere_but(acked=3)
    # Also that they are repeated is known for as long as the lease was to live in the end.
    assert await replica.ack(got) == [True, True, True]


@pytest.mark.parametrize("verb", ["ack", "nack", "discard", "extend"])
async def test_the_same_ack_id_twice_in_a_call_counts_once(replica: Replica, verb: str) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a", "b")
    got = await replica.pull()
    assert await replica.settle(verb, [got[0], got[0], got[1]], timeout_ms=60_000) == [True, True, True]
    counts = await places(replica)
    assert sum(counts.values()) == 2, counts
    attempts = await replica.db.fetchval("select count(*) from attempts")
    assert attempts == (2 if verb in ("nack", "discard") else 0)


async def test_one_call_extending_a_message_to_two_times_leaves_it_in_one_place(replica: Replica) -> None:
    await replica.topic()
    group = await replica.group()
    await replica.publish("a")
    (got,) = await replica.pull()
    twice = [Settlement("extend", got.ack_id, timeout_ms=timeout) for timeout in (60_000, 90_000)]
    assert await replica.settler.settle(group, twice) == [True, True]
    assert (await places(replica))["leased"] == 1
    assert await replica.ack([got]) == [True]
    assert await replica.lag() == 0


async def test_verbs_mixed_in_one_call_each_do_their_own(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    group = await one.group()
    await one.publish("a", "b", "c", "d")
    a, b, c, d = [each.ack_id for each in await one.pull()]
    settlements = [
        Settlement("extend", d, timeout_ms=60_000), Settlement("nack", b, "later"),
        Settlement("ack", a), Settlement("discard", c, "no use"), Settlement("nack", a),
    ]  # fmt: skip
    assert await other.settler.settle(group, settlements) == [True, True, True, True, False]
    assert await places(one) == nowhere_but(leased=1, retrying=1, acked=1, discarded=1)


@pytest.mark.parametrize("verb", ["ack", "nack", "discard", "extend"])
async def test_an_ack_id_of_another_group_is_stale(replica: Replica, verb: str) -> None:
    await replica.topic()
    await replica.group()
    await replica.group(name="other")
    await replica.publish("a")
    mine, theirs = await replica.pull(), await replica.pull(group="other")
    assert await replica.settle(verb, theirs + mine, timeout_ms=60_000) == [False, True]
    assert (await replica.stats("other")).total("leased") == 1


async def test_two_groups_each_get_everything_and_never_move_each_other(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    await one.group(name="other")
    await one.publish("a", "b")
    got: list[Got] = await one.pull()
    await one.ack(got)
    assert await one.lag() == 0
    assert await one.lag("other") == 2
    assert texts(await other.pull(group="other")) == ["a", "b"]


async def test_a_stale_ack_id_stays_stale_when_the_next_consumer_has_acked_the_message(pair: Pair) -> None:
    """Handed back and held behind its key, a message comes again as the same attempt: only the lease is another."""
    one, other = pair
    await one.topic()
    await one.group(ordering="key")
    await one.publish("k:1", "k:2", "l:1")
    k1, _, l1 = old = await one.pull()
    await one.settler.hand_back((await one.known()).id, [l1.ack_id])
    assert await one.settle("nack", [k1]) == [True]
    await make_due(one.db)
    new = await other.pull()
    assert sorted(texts(new)) == ["k:1", "k:2", "l:1"]
    assert await other.ack(new) == [True] * 3
    assert await one.ack(old) == [False, False, False]
    assert await one.settle("discard", old) == [False, False, False]
    assert await other.ack(new) == [True] * 3, "its own repeat is ok all the same"
    assert (await places(one))["acked"] == 3


async def test_an_ack_of_a_lease_cut_short_is_stale_though_its_first_deadline_has_not_come(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    await one.group()
    await one.publish("a", "b")
    old = await one.pull(lease_ms=60_000)
    assert await one.settle("extend", old[:1], timeout_ms=100) == [True]
    await end_leases(one.db, 1)
    await other.pull()
    await make_due(one.db)
    assert await one.ack(old[1:]) == [True]
    assert await other.ack(await other.pull()) == [True]
    assert await one.ack(old) == [False, True]


async def test_repeating_an_ack_is_ok_as_long_as_the_lease_was_extended(replica: Replica) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a", "b")
    got = await replica.pull(lease_ms=30_000)
    assert await replica.settle("extend", got, timeout_ms=60_000) == [True, True]
    # The time its id says has passed long ago.
    lease = got[0].ack_id.lease_id
    early = lease - (60_000 << 20)
    await replica.db.execute("update leases set id = $2 where id = $1", lease, early)
    moved = [replace(each, ack_id=each.ack_id._replace(lease_id=early)) for each in got]
    assert await replica.ack(moved) == [True, True]
    assert await replica.ack(moved) == [True, True]
    await replica.db.execute("update past_leases set until = clock_timestamp()")
    assert await replica.ack(moved) == [False, False]


async def test_a_repeated_ack_after_a_replay_is_ok_whatever_failed_before_it(replica: Replica) -> None:
    await replica.topic()
    group = await replica.group()
    await replica.publish("a")
    for _ in range(2):
        await replica.settle("nack", await replica.pull())
        await make_due(replica.db)
    await seek(replica.db, replica.wakeups, group, "earliest")
    (got,) = await replica.pull()
    assert got.attempt == 1
    assert await replica.ack([got]) == [True]
    assert await replica.ack([got]) == [True]


async def test_a_discard_does_not_repeat_an_ack(replica: Replica) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a")
    got = await replica.pull()
    assert await replica.ack(got) == [True]
    assert await replica.settle("discard", got) == [False]
    assert (await places(replica))["acked"] == 1
