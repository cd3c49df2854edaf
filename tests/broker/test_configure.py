"""What declaring promises to publishers and groups that are at work meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import msgspec
import pytest

from app.broker.catalog import Catalog
from app.broker.configure import (
    Declared,
    TopicDeclaration,
    declare_group,
    declare_topic,
    delete_group,
    delete_topic,
    remove_deleted_once,
)
from app.broker.wakeups import Wakeups
from app.domain.errors import FewerPartitions, GroupNotFound, TopicNotFound
from app.domain.group import Delivery, Group, GroupConfig
from app.domain.names import Namespace
from app.domain.partition import partition_id
from app.domain.topic import Retention, Topic, TopicConfig
from app.storage import groups, topics
from app.storage.database import Database, Outdated
from app.storage.namespaces import namespace_of

APPEND = "select * from append($1, $2, null, null, $3, false, null, null, null, null, null)"
HEAD = "select max(base_offset + count) from batches"


class Broker:
    """The verbs of declaring on a database, and the least of publishing."""

    def __init__(self, db: Database, namespace: Namespace) -> None:
        self.db = db
        self.namespace = namespace
        self.catalog = Catalog(db)
        self.wakeups = Wakeups()

    async def topic(
        self,
        name: str = "orders",
        config: TopicConfig | None = None,
        *,
        tags: Sequence[str] = (),
        partitions: int | None = None,
    ) -> Declared[Topic]:
        declaration = TopicDeclaration(lambda _present: config or TopicConfig(), tags, partitions)
        return await declare_topic(self.db, self.catalog, self.namespace, name, declaration)

    async def group(
        self, name: str = "billing", config: GroupConfig | None = None, *, topic: str = "orders"
    ) -> Declared[Group]:
        return await declare_group(
            self.db, self.catalog, self.wakeups, self.namespace, topic, name, lambda _present: config or GroupConfig()
        )  # fmt: skip

    async def publish(self, topic: Topic, count: int = 1, *, number: int = 0) -> None:
        await self.db.fetch(APPEND, partition_id(topic.id, number), topic.version, [b"{}"] * count)

    async def cursors(self, group: Group) -> list[int]:
        rows = await self.db.fetch(
            "select next_offset from cursors where group_id = $1 order by partition_id", group.id
        )
        return [row["next_offset"] for row in rows]

    async def rows(self, table: str) -> int:
        count: int = await self.db.fetchval(f"select count(*) from {table}")
        return count


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    database = await Database.open(dsn, pool_size=10)
    yield database
    await database.close()


@pytest.fixture
async def broker(db: Database) -> Broker:
    return Broker(db, await namespace_of(db, "default", "default"))


async def test_a_topic_is_created_once_and_changed_ever_after(broker: Broker) -> None:
    first = await broker.topic(partitions=3)
    again = await broker.topic()
    changed = await broker.topic(config=TopicConfig(retention=Retention(max_count=5)), tags=["eu"])
    assert (first.created, again.created, changed.created) == (True, False, False)
    assert again.value == first.value
    assert changed.value.version == first.value.version + 1
    assert (changed.value.partitions, changed.value.tags) == (3, ("eu",))
    assert changed.value.config.retention.max_count == 5


async def test_concurrent_declarations_of_one_name_make_one_topic(broker: Broker) -> None:
    declared = await asyncio.gather(*(broker.topic(partitions=4) for _ in range(8)))
    assert sum(each.created for each in declared) == 1
    assert len({each.value.id for each in declared}) == 1
    assert await broker.rows("partitions") == 4


async def test_a_change_is_noticed_by_appends_that_know_the_old_version(broker: Broker) -> None:
    topic = (await broker.topic()).value
    await broker.topic(config=TopicConfig(partition_key="message.id"))
    with pytest.raises(Outdated):
        await broker.publish(topic)


async def test_fewer_partitions_are_refused_and_change_nothing(broker: Broker) -> None:
    topic = (await broker.topic(partitions=3)).value
    with pytest.raises(FewerPartitions):
        await broker.topic(partitions=2, tags=["new"])
    assert (await broker.topic()).value == topic


async def test_new_partitions_give_every_group_a_cursor_at_their_start(broker: Broker) -> None:
    topic = (await broker.topic(partitions=2)).value
    await broker.publish(topic, 3)
    group = (await broker.group(config=GroupConfig(start_from="latest"))).value
    raised = (await broker.topic(partitions=4)).value
    for number in (2, 3):
        await broker.publish(raised, number=number)
    assert await broker.cursors(group) == [4, 1, 1, 1]
    seen = await broker.catalog.group(broker.namespace.id, "orders", "billing")
    assert seen.partitions == 4
    assert seen.version > group.version
    versions = await broker.db.fetch("select distinct version from cursors")
    assert [row["version"] for row in versions] == [seen.version]


async def test_start_from_places_a_new_group_and_no_old_one(broker: Broker) -> None:
    topic = (await broker.topic()).value
    for count in (2, 3, 4):
        await broker.publish(topic, count)
    times = [
        row["published_at"] for row in await broker.db.fetch("select published_at from batches order by base_offset")
    ]
    starts: dict[str | int, int] = {
        "earliest": 1,
        "latest": 10,
        0: 1,
        4: 4,
        99: 10,
        times[0].isoformat(): 1,
        times[1].isoformat(): 3,
        (times[1] + timedelta(microseconds=1)).isoformat(): 6,
        "1999-01-01T00:00:00Z": 1,
        "2999-01-01": 10,
    }
    for number, (start, expected) in enumerate(starts.items()):
        group = (await broker.group(f"g{number}", GroupConfig(start_from=start))).value
        assert await broker.cursors(group) == [expected], start
    again = await broker.group("g0", GroupConfig(start_from="latest"))
    assert await broker.cursors(again.value) == [1]


async def test_start_from_is_clamped_to_what_is_retained(broker: Broker) -> None:
    topic = (await broker.topic()).value
    await broker.publish(topic, 5)
    await broker.db.execute("update partitions set first_offset = 4")
    for name, start in (("a", "earliest"), ("b", 2), ("c", "1999-01-01")):
        group = (await broker.group(name, GroupConfig(start_from=start))).value
        assert await broker.cursors(group) == [4], start


async def test_what_is_published_after_a_group_was_declared_lies_ahead_of_it(broker: Broker) -> None:
    """Publishes run all the while: whatever returned before the declaration began is behind, what began after it
    returned is ahead, and the cursor stands between messages, never past the end of what there is."""
    topic = (await broker.topic()).value
    await broker.publish(topic)
    stop = asyncio.Event()

    async def publish_on() -> None:
        while not stop.is_set():
            await broker.publish(topic, 3)

    publishing = asyncio.gather(publish_on(), publish_on())
    for number in range(10):
        before = await broker.db.fetchval(HEAD)
        group = (await broker.group(f"g{number}")).value
        after = await broker.db.fetchval(HEAD)
        (cursor,) = await broker.cursors(group)
        assert before <= cursor <= after
        assert cursor in await broker.db.fetchval("select array_agg(base_offset + count) from batches")
    stop.set()
    await publishing


async def test_concurrent_declarations_of_one_group_make_one_with_one_cursor_each(broker: Broker) -> None:
    await broker.topic(partitions=3)
    declared = await asyncio.gather(*(broker.group() for _ in range(8)))
    assert sum(each.created for each in declared) == 1
    assert await broker.rows("cursors") == 3


async def test_partitions_added_while_a_group_is_declared_have_its_cursor(broker: Broker) -> None:
    await broker.topic(partitions=1)
    await asyncio.gather(
        *(broker.topic(partitions=number) for number in (2, 3, 4, 5)),
        *(broker.group(f"g{number}") for number in range(4)),
        return_exceptions=True,
    )
    topic = (await broker.topic(partitions=6)).value
    assert await broker.rows("cursors") == 4 * topic.partitions


async def test_a_group_declared_while_partitions_are_added_waits_and_has_a_cursor_in_each(broker: Broker) -> None:
    topic = (await broker.topic(partitions=1)).value
    async with broker.db.transaction() as tx:
        await topics.lock_topic(tx, broker.namespace.id, "orders")
        await topics.insert_partitions(tx, topic.id, range(1, 3), topic.version)
        await groups.insert_cursors_of_new(tx, topic.id, range(1, 3))
        declaring = asyncio.ensure_future(broker.group())
        await asyncio.wait([declaring], timeout=0.3)
        assert not declaring.done()
    assert await broker.cursors((await declaring).value) == [1, 1, 1]


async def test_a_group_declared_under_a_paused_topic_is_paused(broker: Broker) -> None:
    topic = (await broker.topic()).value
    await broker.db.execute("update topics set paused_since = now() where id = $1", topic.id)
    group = (await broker.group()).value
    assert group.paused
    assert await broker.db.fetchval("select paused from cursors")
    await broker.topic(partitions=2)
    assert await broker.db.fetchval("select bool_and(paused) from cursors")


async def test_a_changed_group_is_told_to_its_cursors(broker: Broker) -> None:
    await broker.topic(partitions=2)
    first = (await broker.group()).value
    changed = (await broker.group(config=GroupConfig(batch_size=7))).value
    assert changed.version == first.version + 1
    assert (await broker.group(config=GroupConfig(batch_size=7))).value == changed
    rows = await broker.db.fetch("select distinct version from cursors")
    assert [row["version"] for row in rows] == [changed.version]


async def test_a_replaced_secret_signs_on_for_the_overlap(broker: Broker) -> None:
    def pushed(secret: str, overlap_ms: int = 86_400_000) -> GroupConfig:
        delivery = Delivery(mode="push", url="https://example.com/", secret=secret, secret_overlap_ms=overlap_ms)
        return GroupConfig(delivery=delivery)

    await broker.topic()
    await broker.group(config=pushed("old"))
    changed = (await broker.group(config=pushed("new"))).value.config.delivery
    assert changed.previous_secret == "old"
    assert changed.previous_secret_until is not None
    now = await broker.db.fetchval("select now()")
    assert timedelta(hours=23) < changed.previous_secret_until - now <= timedelta(hours=24)
    same = (await broker.group(config=pushed("new"))).value.config.delivery
    assert same == changed
    gone = (await broker.group(config=pushed("newer", 0))).value.config.delivery
    assert gone.previous_secret is None


async def test_a_deleted_topic_leaves_nothing_and_its_name_starts_afresh(broker: Broker) -> None:
    topic = (await broker.topic(partitions=2)).value
    await broker.group()
    await broker.publish(topic, 5)
    await broker.db.execute(
        "insert into leases (partition_id, group_id, id, deadline, owner, pending) "
        "select partition_id, group_id, 1, now(), 'x', '{[1,2)}' from cursors"
    )
    await broker.db.execute(
        'insert into dead_letters (partition_id, group_id, "offset", payload, published_at, attempts, dead_at) '
        "select partition_id, group_id, 1, 'x', now(), 1, now() from cursors"
    )
    await delete_topic(broker.db, broker.catalog, broker.namespace, "orders")
    for table in ("topics", "partitions", "batches", "groups", "cursors", "leases", "dead_letters", "deletions"):
        assert await broker.rows(table) == 0, table
    with pytest.raises(Outdated):
        await broker.publish(topic)
    with pytest.raises(TopicNotFound):
        await broker.catalog.topic(broker.namespace.id, "orders")
    assert (await broker.topic()).value.id != topic.id


async def test_a_topic_deleted_under_its_publishers_keeps_no_message(broker: Broker) -> None:
    topic = (await broker.topic()).value

    async def publish_on() -> None:
        while True:
            await broker.publish(topic)

    publishing = [asyncio.ensure_future(publish_on()) for _ in range(4)]
    while await broker.rows("batches") < 20:
        await broker.publish(topic)
    await delete_topic(broker.db, broker.catalog, broker.namespace, "orders")
    assert [type(end) for end in await asyncio.gather(*publishing, return_exceptions=True)] == [Outdated] * 4
    await remove_deleted_once(broker.db, pieces=100)
    assert await broker.rows("batches") == 0


async def test_what_a_large_topic_leaves_is_removed_piece_by_piece(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.deletions.PIECE", 2)
    monkeypatch.setattr("app.broker.configure.PIECES_AT_ONCE", 1)
    topic = (await broker.topic()).value
    for _ in range(7):
        await broker.publish(topic)
    await delete_topic(broker.db, broker.catalog, broker.namespace, "orders")
    assert await broker.rows("batches") == 5
    assert await remove_deleted_once(broker.db, pieces=2) == 2
    assert await remove_deleted_once(broker.db, pieces=100) > 0
    assert await broker.rows("batches") == await broker.rows("deletions") == 0
    assert await remove_deleted_once(broker.db, pieces=100) == 0


async def test_a_deleted_group_takes_only_its_own(broker: Broker) -> None:
    topic = (await broker.topic()).value
    await broker.publish(topic)
    await broker.group("billing")
    kept = (await broker.group("mail")).value
    await delete_group(broker.db, broker.catalog, broker.namespace, "orders", "billing")
    with pytest.raises(GroupNotFound):
        await broker.catalog.group(broker.namespace.id, "orders", "billing")
    assert await broker.catalog.group(broker.namespace.id, "orders", "mail") == kept
    assert await broker.rows("cursors") == await broker.rows("batches") == 1
    with pytest.raises(GroupNotFound):
        await delete_group(broker.db, broker.catalog, broker.namespace, "orders", "billing")


async def test_two_namespaces_never_meet(broker: Broker) -> None:
    other = Broker(broker.db, await namespace_of(broker.db, "default", "staging"))
    mine, theirs = (await broker.topic()).value, (await other.topic()).value
    assert mine.id != theirs.id
    await broker.group()
    with pytest.raises(GroupNotFound):
        await other.catalog.group(other.namespace.id, "orders", "billing")
    await delete_topic(other.db, other.catalog, other.namespace, "orders")
    assert await broker.catalog.topic(broker.namespace.id, "orders") == mine


async def test_the_catalog_repeats_a_call_that_found_its_topic_outdated(broker: Broker) -> None:
    await broker.topic()
    elsewhere = Broker(broker.db, broker.namespace)
    await elsewhere.catalog.topic(broker.namespace.id, "orders")
    changed = (await broker.topic(tags=["new"])).value
    versions: list[int] = []

    async def publish(topic: Topic) -> None:
        versions.append(topic.version)
        await elsewhere.publish(topic)

    await elsewhere.catalog.with_topic(broker.namespace.id, "orders", publish)
    assert versions == [changed.version - 1, changed.version]


async def test_what_is_derived_from_a_topic_is_made_once_for_each_version(broker: Broker) -> None:
    made: list[int] = []

    def make(topic: Topic) -> int:
        made.append(topic.version)
        return topic.version

    topic = (await broker.topic()).value
    for _ in range(2):
        seen = await broker.catalog.topic(broker.namespace.id, "orders")
        assert broker.catalog.of_topic(seen, make) == topic.version
        broker.catalog.forget_topic(broker.namespace.id, "orders")
    await broker.topic(tags=["new"])
    seen = await broker.catalog.topic(broker.namespace.id, "orders")
    assert broker.catalog.of_topic(seen, make) == topic.version + 1
    assert made == [topic.version, topic.version + 1]


def test_a_stored_configuration_is_the_document_of_the_api() -> None:
    document = msgspec.to_builtins(GroupConfig())
    assert document["ackTimeoutMs"] == 30_000
    assert document["retries"]["baseDelay"] == 1000
