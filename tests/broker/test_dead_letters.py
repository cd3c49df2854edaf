"""Dead letters: their own copy, a fresh budget, and nobody waits for them."""

from __future__ import annotations

import pytest

from app.broker.redrive import delete_dead_letter, redrive, redrive_all
from app.broker.seek import seek
from app.domain.errors import DeadLetterNotFound
from app.domain.group import Retries
from app.domain.message import id_prefix
from app.domain.topic import Retention, TopicConfig
from app.storage import retention
from app.storage.dead_letters import list_dead_letters
from tests.broker.calendar import make_due, pass_time
from tests.broker.world import Replica, texts

Pair = tuple[Replica, Replica]
TWICE = Retries(1, "fixed", 1, 1)


async def buried(replica: Replica, count: int) -> None:
    for _ in range(2):
        await replica.settle("nack", await replica.pull(count), reason="no")
        await make_due(replica.db)


async def test_a_dead_letter_keeps_what_the_message_was(replica: Replica) -> None:
    await replica.topic()
    group = await replica.group(retries=TWICE)
    (published,) = await replica.publish("k:1", headers={"a": "b"}, correlation_id="c")
    await buried(replica, 1)
    (letter,) = await list_dead_letters(replica.db, group.id, after=None, limit=10)
    assert (letter.offset, letter.key, letter.payload, letter.error, letter.attempts) == (1, "k", b'"k:1"', "no", 2)
    assert letter.published_at == published.published_at
    assert letter.meta is not None
    assert '"b"' in letter.meta
    assert '"c"' in letter.meta


async def test_a_redriven_letter_has_a_full_budget_also_where_the_log_no_longer_has_it(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    group = await one.group(retries=TWICE)
    published, _ = await one.publish("k:1", "k:2")
    await buried(one, 1)
    await one.ack(await one.pull())
    await one.db.execute("update partitions set first_offset = 3")
    (place,) = (each.partition_id for each in (await one.stats()).standings)
    while await retention.sweep(one.db, place, most=10):
        pass
    await redrive(other.db, other.wakeups, group, published.id)
    for attempt in (1, 2):
        got = await other.pull()
        assert [(each.text, each.key, each.attempt) for each in got] == [("k:1", "k", attempt)]
        await one.settle("nack", got)
        await make_due(one.db)
    assert (await one.stats()).letters == 1
    assert await one.lag() == 0


async def test_a_letter_past_its_ttl_is_not_delivered_again_and_stays(replica: Replica) -> None:
    await replica.topic()
    group = await replica.group(retries=TWICE)
    await replica.publish("k:1", ttl_ms=60_000)
    await replica.publish("k:2", ttl_ms=600_000)
    await buried(replica, 2)
    await pass_time(replica.db, 61_000)
    assert await redrive_all(replica.db, replica.wakeups, group) == 1
    (late,) = await list_dead_letters(replica.db, group.id, after=None, limit=10)
    message_id = f"{id_prefix(late.partition_id, late.published_at)}{late.offset:x}"
    assert await redrive(replica.db, replica.wakeups, group, message_id) == 0
    assert texts(await replica.pull()) == ["k:2"]
    assert (await replica.stats()).letters == 1


async def test_a_letter_that_is_redriven_still_expires(replica: Replica) -> None:
    await replica.topic()
    group = await replica.group(retries=TWICE)
    (published,) = await replica.publish("k:1", ttl_ms=60_000)
    await buried(replica, 1)
    assert await redrive(replica.db, replica.wakeups, group, published.id) == 1
    await pass_time(replica.db, 61_000)
    assert await replica.pull() == []
    stats = await replica.stats()
    assert (stats.total("expired"), stats.letters, await replica.lag()) == (1, 0, 0)


@pytest.mark.parametrize("everything", [False, True])
async def test_a_letter_is_redriven_where_retention_took_what_a_seek_had_put_before_the_group(
    replica: Replica, everything: bool
) -> None:
    await replica.topic(TopicConfig(retention=Retention(max_count=3)))
    group = await replica.group(retries=TWICE)
    published, *_ = await replica.publish("k:1", "k:2")
    await buried(replica, 1)
    await seek(replica.db, replica.wakeups, group, "earliest")
    await replica.publish("k:3", "k:4", "k:5")
    if everything:
        assert await redrive_all(replica.db, replica.wakeups, group) == 1
    else:
        await redrive(replica.db, replica.wakeups, group, published.id)
    assert await replica.lag() == 4
    got = await replica.pull()
    assert texts(got) == ["k:1", "k:3", "k:4", "k:5"]
    assert await replica.ack(got) == [True] * 4
    assert await replica.lag() == 0


async def test_a_redriven_letter_waits_for_what_is_in_flight_of_its_key(pair: Pair) -> None:
    one, other = pair
    await one.topic()
    group = await one.group(retries=TWICE, ordering="key")
    await one.publish("k:1", "k:2", "k:3")
    await buried(one, 1)
    flying = await one.pull(1)
    assert texts(flying) == ["k:2"]
    assert await redrive_all(other.db, other.wakeups, group) == 1
    assert await other.pull() == []
    await one.ack(flying)
    assert texts(await other.pull()) == ["k:1", "k:3"]


async def test_retrying_all_counts_what_was_really_requeued_and_misses_none(pair: Pair) -> None:
    one, other = pair
    await one.topic(partitions=2)
    group = await one.group(retries=TWICE, ordering="none")
    await one.publish(*map(str, range(700)))
    await buried(one, 700)
    assert (await one.stats()).letters == 700
    assert await redrive_all(other.db, other.wakeups, group) == 700
    assert await redrive_all(other.db, other.wakeups, group) == 0
    got = await one.pull(1000)
    assert len(got) == 700
    await other.ack(got)
    stats = await one.stats()
    assert [stats.total(name) for name in ("acked", "dead", "lag")] == [700, 0, 0]


async def test_an_unknown_letter_is_not_found_and_a_deleted_one_neither(replica: Replica) -> None:
    await replica.topic()
    group = await replica.group(retries=TWICE)
    (published,) = await replica.publish("a")
    for unknown in (published.id, "nonsense"):
        with pytest.raises(DeadLetterNotFound):
            await redrive(replica.db, replica.wakeups, group, unknown)
    await buried(replica, 1)
    await delete_dead_letter(replica.db, group, published.id)
    with pytest.raises(DeadLetterNotFound):
        await delete_dead_letter(replica.db, group, published.id)
    assert ((await replica.stats()).letters, await replica.lag()) == (0, 0)


async def test_letters_stay_when_the_group_is_moved_and_never_come_twice(replica: Replica) -> None:
    await replica.topic()
    group = await replica.group(retries=TWICE)
    await replica.publish("a", "b")
    await buried(replica, 1)
    await replica.ack(await replica.pull())
    await seek(replica.db, replica.wakeups, group, "earliest")
    assert (await replica.stats()).letters == 1
    assert await redrive_all(replica.db, replica.wakeups, group) == 1
    got = await replica.pull()
    assert texts(got) == ["a", "b"], "the seek brings it anyway"
    await replica.ack(got)
    stats = await replica.stats()
    assert [stats.total(name) for name in ("dead", "lag")] == [0, 0]
