"""What publishing promises, whichever replica is asked: where messages go, once each, all or none, in order."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from app.broker.browse import browse, partition_ids, positions_at
from app.broker.configure import TopicDeclaration, declare_topic, delete_topic
from app.domain.errors import IdempotencyKeyReused, MessageRejected, TopicNotFound
from app.domain.message import Message, NewMessage, message_id
from app.domain.partition import partition_for, partition_id
from app.domain.topic import Idempotency, Rule, Topic, TopicConfig, Validation
from tests.broker.world import TOPIC, Replica, replicas
from tests.published import Published, each_published

VOID = "select append($1, 1, null, null, $2, false, null, null, null, null, 1000)"

Pair = tuple[Replica, Replica]


def message(payload: bytes = b"{}", **options: Any) -> NewMessage:
    return NewMessage(payload, **options)


async def publish(replica: Replica, *messages: NewMessage, topic: str = TOPIC) -> list[Published]:
    landed = await replica.publisher.publish(replica.namespace.id, topic, messages, batch=len(messages) > 1)
    return each_published(landed)


async def stored(replica: Replica, topic: Topic) -> list[Message]:
    """Everything in the topic, partition by partition."""
    found = []
    for of in partition_ids(topic, None):
        positions: Any = await positions_at(replica.db, [of], "earliest")
        while positions is not None:
            page = await browse(replica.db, positions, 1000)
            found += page.messages
            positions = page.next_positions
    return found


async def test_a_publish_says_where_its_message_is(replica: Replica) -> None:
    topic = await replica.topic(partitions=4)
    (published,) = await publish(replica, message(b'{"a": 1}', key="ord_123"))
    assert (published.partition, published.offset, published.duplicate) == (2, 1, False)
    (found,) = await stored(replica, topic)
    assert (found.payload, found.key, found.published_at) == (b'{"a": 1}', "ord_123", published.published_at)
    assert published.id == message_id(partition_id(topic.id, 2), published.published_at, 1)


async def test_an_unknown_topic_is_not_made_up(replica: Replica) -> None:
    with pytest.raises(TopicNotFound):
        await publish(replica, message())


@pytest.mark.parametrize(
    ("key", "partitions", "number"),
    [("acct_1", 16, 0), ("acct_2", 16, 2), ("ord_123", 4, 2), ("tenant-42", 32, 29), ("", 8, 6), ("é", 8, 1)],
)
async def test_a_key_chooses_the_partition(replica: Replica, key: str, partitions: int, number: int) -> None:
    await replica.topic(partitions=partitions)
    assert [(await publish(replica, message(key=key)))[0].partition for _ in range(2)] == [number, number]


async def test_an_explicit_key_beats_the_topics_expression(replica: Replica) -> None:
    await replica.topic(TopicConfig(partition_key="message.account"), partitions=16)
    derived, explicit = await publish(
        replica, message(b'{"account": "acct_2"}'), message(b'{"account": "acct_2"}', key="acct_1")
    )
    assert (derived.partition, explicit.partition) == (2, 0)


async def test_a_partition_key_that_gives_no_string_is_rejected(replica: Replica) -> None:
    topic = await replica.topic(TopicConfig(partition_key="message.account"), partitions=16)
    for payload in (b"{}", b'{"account": 7}', b'{"account": null}', b'"text"'):
        with pytest.raises(MessageRejected, match="partition key"):
            await publish(replica, message(payload))
    assert await stored(replica, topic) == []


async def test_messages_without_a_key_spread_evenly(replica: Replica) -> None:
    await replica.topic(partitions=8)
    singles = [(await publish(replica, message()))[0].partition for _ in range(16)]
    batch = [each.partition for each in await publish(replica, *[message() for _ in range(80)])]
    assert Counter(singles) == dict.fromkeys(range(8), 2)
    assert Counter(batch) == dict.fromkeys(range(8), 10)


async def test_offsets_start_at_one_without_gaps_and_time_never_goes_back(pair: Pair) -> None:
    topic = await pair[0].topic(partitions=2)
    await asyncio.gather(*[publish(random.choice(pair), message()) for _ in range(100)])
    found = await stored(pair[1], topic)
    for of in partition_ids(topic, None):
        own = [each for each in found if each.partition_id == of]
        assert [each.offset for each in own] == list(range(1, len(own) + 1))
        assert all(a.published_at <= b.published_at for a, b in pairwise(own))


async def test_readers_never_see_an_offset_before_all_below_it(pair: Pair) -> None:
    """Twelve writers, some of whose transactions are rolled back, and a reader that asks for what is next."""
    topic = await pair[0].topic()
    place = partition_id(topic.id, 0)
    done = asyncio.Event()
    skipped: list[tuple[int, int]] = []
    seen = 0

    async def read() -> None:
        nonlocal seen
        while True:
            is_last = done.is_set()
            page = await browse(pair[1].db, {place: seen + 1}, 1000)
            for each in page.messages:
                if each.offset != seen + 1:
                    skipped.append((seen, each.offset))
                seen = each.offset
            if is_last and page.next_positions is None:
                return
            await asyncio.sleep(0)

    async def write(number: int) -> int:
        count = 0
        for round_ in range(15):
            if number % 4 == 0:  # somebody else on the database, who changes his mind with the partition locked
                async with pair[0].db.connection() as connection:
                    transaction = connection.transaction()
                    await transaction.start()
                    await connection.execute(VOID, place, [b"void"] * 3)
                    await asyncio.sleep(random.uniform(0, 0.003))
                    await transaction.rollback()
            else:
                await publish(pair[number % 2], *[message() for _ in range(1 + round_ % 5)])
                count += 1 + round_ % 5
        return count

    reader = asyncio.create_task(read())
    written = sum(await asyncio.gather(*[write(number) for number in range(12)]))
    done.set()
    await reader
    assert skipped == []
    assert seen == written


async def test_many_publishes_with_one_key_make_one_message(pair: Pair) -> None:
    topic = await pair[0].topic(partitions=4)
    results = await asyncio.gather(
        *[publish(pair[at % 2], message(b'{"n": 1}', idempotency_key="once")) for at in range(40)]
    )
    published = [result[0] for result in results]
    assert len({each.id for each in published}) == 1
    assert sorted(each.duplicate for each in published) == [False] + [True] * 39
    assert len(await stored(pair[0], topic)) == 1


async def test_one_key_with_different_partition_keys_makes_one_message(pair: Pair) -> None:
    topic = await pair[0].topic(partitions=16)
    results = await asyncio.gather(
        *[publish(pair[at % 2], message(key=f"k{at}", idempotency_key="once")) for at in range(40)]
    )
    assert len({result[0].id for result in results}) == 1
    assert len(await stored(pair[0], topic)) == 1


async def test_a_key_without_a_partition_key_goes_to_its_home(replica: Replica) -> None:
    await replica.topic(partitions=8)
    first = await publish(replica, message(idempotency_key="once"))
    assert first[0].partition == partition_for("once", 8)
    await replica.topic(partitions=16)
    repeated = await publish(replica, message(idempotency_key="once"))
    assert (repeated[0].id, repeated[0].duplicate) == (first[0].id, True)


async def test_the_same_key_in_another_topic_or_namespace_is_another_message(dsn: str) -> None:
    async with replicas(dsn) as (one,), replicas(dsn, project="other") as (other,):
        await one.topic()
        await one.topic(name="invoices")
        await other.topic()
        results = [
            await publish(one, message(idempotency_key="once")),
            await publish(one, message(idempotency_key="once"), topic="invoices"),
            await publish(other, message(idempotency_key="once")),
        ]
    assert [result[0].duplicate for result in results] == [False, False, False]
    assert len({result[0].id for result in results}) == 3


async def test_a_key_with_another_payload_is_refused(replica: Replica) -> None:
    topic = await replica.topic()
    await publish(replica, message(b'{"n": 1}', idempotency_key="once", key="a", headers={"h": "1"}))
    (again,) = await publish(replica, message(b'{"n": 1}', idempotency_key="once", key="b", headers={"h": "2"}))
    assert again.duplicate
    with pytest.raises(IdempotencyKeyReused):
        await publish(replica, message(b'{"n": 2}', idempotency_key="once"))
    with pytest.raises(IdempotencyKeyReused):
        await publish(replica, message(b'{"n":1}', idempotency_key="once"))
    assert len(await stored(replica, topic)) == 1


async def test_of_two_payloads_at_once_under_one_key_one_is_refused(pair: Pair) -> None:
    topic = await pair[0].topic()
    results = await asyncio.gather(
        *[publish(pair[at % 2], message(b"%d" % (at % 2), idempotency_key="once")) for at in range(20)],
        return_exceptions=True,
    )
    assert sum(isinstance(result, IdempotencyKeyReused) for result in results) == 10
    assert len(await stored(pair[0], topic)) == 1


async def test_a_key_counts_for_its_window_and_no_longer(replica: Replica) -> None:
    topic = await replica.topic(TopicConfig(idempotency=Idempotency(window_ms=600_000)))
    (first,) = await publish(replica, message(b"1", idempotency_key="once"))
    await replica.db.execute("update idempotency_keys set published_at = published_at - interval '500 s'")
    assert (await publish(replica, message(b"1", idempotency_key="once")))[0].duplicate
    await replica.db.execute("update idempotency_keys set published_at = published_at - interval '100 s'")
    (fresh,) = await publish(replica, message(b"2", idempotency_key="once"))
    assert (fresh.duplicate, fresh.offset) == (False, first.offset + 1)
    (again,) = await publish(replica, message(b"2", idempotency_key="once"))
    assert (again.duplicate, again.id) == (True, fresh.id)
    assert len(await stored(replica, topic)) == 2


async def test_purge_forgets_the_keys(replica: Replica) -> None:
    topic = await replica.topic(partitions=4)
    await publish(replica, message(b"1", idempotency_key="once", key="somewhere"))
    for of in partition_ids(topic, None):
        await replica.db.execute("select purge($1)", of)
    (fresh,) = await publish(replica, message(b"2", idempotency_key="once", key="somewhere"))
    assert (fresh.duplicate, fresh.offset) == (False, 2)


async def test_a_batch_is_answered_in_input_order(replica: Replica) -> None:
    topic = await replica.topic(partitions=4)
    keys = [f"k{at % 7}" for at in range(300)]
    results = await publish(replica, *[message(b"%d" % at, key=key) for at, key in enumerate(keys)])
    assert [result.partition for result in results] == [partition_for(key, 4) for key in keys]
    found = await stored(replica, topic)
    payloads = {message_id(each.partition_id, each.published_at, each.offset): each.payload for each in found}
    assert [payloads[result.id] for result in results] == [b"%d" % at for at in range(300)]


async def test_repetitions_within_a_batch_follow_the_first(replica: Replica) -> None:
    topic = await replica.topic()
    await publish(replica, message(b"0", idempotency_key="old"))
    results = await publish(
        replica, message(b"1", idempotency_key="new"), message(b"0", idempotency_key="old"),
        message(b"1", idempotency_key="new"), message(b"2"),
    )  # fmt: skip
    assert [result.duplicate for result in results] == [False, True, True, False]
    assert [result.offset for result in results] == [2, 1, 2, 3]
    assert len(await stored(replica, topic)) == 3


async def test_a_batch_with_one_reused_key_stores_nothing(replica: Replica) -> None:
    topic = await replica.topic(partitions=4)
    await publish(replica, message(b"0", idempotency_key="old"))
    with pytest.raises(IdempotencyKeyReused) as refused:
        await publish(
            replica, message(b"1", idempotency_key="a"), message(b"1", idempotency_key="old"),
            message(b"2", idempotency_key="a"), message(b"3"),
        )  # fmt: skip
    assert [(fault.index, fault.field) for fault in refused.value.faults] == [
        (1, "messages[1].options.idempotencyKey"), (2, "messages[2].options.idempotencyKey"),
    ]  # fmt: skip
    assert len(await stored(replica, topic)) == 1
    assert not (await publish(replica, message(b"1", idempotency_key="a")))[0].duplicate


async def test_a_batch_larger_than_a_row_is_still_one(replica: Replica) -> None:
    topic = await replica.topic()
    large = b'"' + b"x" * 1_000_000 + b'"'
    results = await publish(replica, *[message(large) for _ in range(8)])
    assert [result.offset for result in results] == list(range(1, 9))
    assert [each.payload for each in await stored(replica, topic)] == [large] * 8
    rows = await replica.db.fetch("select xmin::text, count from batches order by base_offset")
    assert len(rows) > 1
    assert len({row[0] for row in rows}) == 1


CHECKED = Validation(
    schema={"type": "object", "properties": {"n": {"type": "integer"}}},
    rules=(Rule("message.n < 100", "n is below 100"), Rule("!('bad' in headers)")),
)


async def test_a_rejected_message_leaves_nothing_behind(replica: Replica) -> None:
    topic = await replica.topic(TopicConfig(validate=CHECKED))
    bad = message(b'{"n": 1}', headers={"bad": ""})
    for rejected in (message(b'{"n": "x"}'), message(b'{"n": 100}'), message(b"{}"), bad):
        with pytest.raises(MessageRejected):
            await publish(replica, rejected)
    assert await stored(replica, topic) == []
    assert (await publish(replica, message(b'{"n": 1}')))[0].offset == 1


async def test_every_reason_and_its_path_are_given(replica: Replica) -> None:
    await replica.topic(TopicConfig(validate=CHECKED))
    with pytest.raises(MessageRejected) as refused:
        await publish(replica, message(b'{"n": "x"}', headers={"bad": ""}))
    faults = refused.value.faults
    assert [(fault.path, fault.index, fault.field) for fault in faults] == [
        ("/n", None, "message"), ("", None, "message"), ("", None, "message"),
    ]  # fmt: skip
    assert "cannot be evaluated" in faults[1].reason
    assert faults[2].reason == "!('bad' in headers)"


async def test_every_failing_index_of_a_batch_is_named(replica: Replica) -> None:
    topic = await replica.topic(TopicConfig(validate=CHECKED))
    with pytest.raises(MessageRejected) as refused:
        await publish(replica, *[message(b'{"n": %b}' % n) for n in (b"1", b"100", b"2", b"[]")])
    assert {(fault.index, fault.field) for fault in refused.value.faults} == {
        (1, "messages[1].message"), (3, "messages[3].message"),
    }  # fmt: skip
    assert await stored(replica, topic) == []


async def test_a_repeat_is_answered_as_the_first_time_though_the_topic_takes_it_no_longer(replica: Replica) -> None:
    """Whoever lost the answer to a publish is not to be told that nothing was stored. What is no repeat is refused."""
    await replica.topic()
    once = [message(b'{"n": %d}' % n, idempotency_key=str(n)) for n in (500, 600)]
    first = await publish(replica, *once)
    await replica.topic(TopicConfig(validate=CHECKED, partition_key="headers.user"))
    assert [result.offset for result in await publish(replica, *once)] == [result.offset for result in first]
    (again,) = await publish(replica, once[1])
    assert (again.id, again.duplicate) == (first[1].id, True)
    for other in (message(b'{"n": 700}', idempotency_key="700"), message(b'{"n": 501}', idempotency_key="500")):
        with pytest.raises(MessageRejected) as refused:
            await publish(replica, once[0], other, once[1])
        assert {fault.index for fault in refused.value.faults} == {1}


async def test_a_change_made_at_another_replica_counts_at_once(pair: Pair) -> None:
    here, there = pair
    topic = await here.topic(partitions=1)
    await publish(there, message(b'{"n": 500}'))
    await here.topic(TopicConfig(validate=CHECKED), partitions=1)
    with pytest.raises(MessageRejected):
        await publish(there, message(b'{"n": 500}'))
    await here.topic(partitions=16)
    assert (await publish(there, message(key="acct_2")))[0].partition == 2
    assert topic.partitions == 1


async def test_a_topic_that_changes_does_not_disturb_others(pair: Pair) -> None:
    here, there = pair
    await here.topic()
    await here.topic(name="calm")
    await publish(there, message())
    await publish(there, message(), topic="calm")
    await here.topic(partitions=2)
    results = await asyncio.gather(
        *[publish(there, message(), topic=name) for name in [TOPIC, "calm"] * 10], return_exceptions=True
    )
    assert [result for result in results if isinstance(result, BaseException)] == []


async def test_a_deleted_topic_takes_nothing_more(pair: Pair) -> None:
    here, there = pair
    await here.topic()
    await publish(there, message())
    await delete_topic(here.db, here.catalog, here.namespace, TOPIC)
    with pytest.raises(TopicNotFound):
        await publish(there, message())


async def test_a_cloud_event_is_taken_once_where_the_topic_says_so(replica: Replica) -> None:
    await replica.topic()
    first = [await publish(replica, message(event_key="/s 1")) for _ in range(2)]
    assert [result[0].duplicate for result in first] == [False, False]
    await replica.topic(TopicConfig(idempotency=Idempotency(cloud_events_id=True)))
    second = [await publish(replica, message(event_key="/s 1")) for _ in range(2)]
    assert [result[0].duplicate for result in second] == [False, True]


async def test_partitions_raised_meanwhile_are_used_and_old_messages_stay(replica: Replica) -> None:
    topic = await replica.topic(partitions=1)
    await publish(replica, *[message(b"%d" % at) for at in range(10)])
    declaration = TopicDeclaration(lambda present: present or TopicConfig(), (), 4)
    raised = (await declare_topic(replica.db, replica.catalog, replica.namespace, TOPIC, declaration)).value
    results = await publish(replica, *[message() for _ in range(8)])
    assert Counter(result.partition for result in results) == {0: 2, 1: 2, 2: 2, 3: 2}
    assert len(await stored(replica, raised)) == 18
    assert topic.id == raised.id
