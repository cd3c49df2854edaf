"""What a publish is told when something fails, and that the next one is none the worse for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from app.broker.appender import Appender
from app.domain.errors import CommitUnknown, DatabaseUnavailable, LogpostError, QueueFull, ShuttingDown
from app.domain.message import NewMessage
from app.domain.partition import partition_id
from app.domain.topic import Topic
from app.storage.appends import Failure, Fate
from app.storage.database import Connection, Database
from app.storage.embedded import EmbeddedPostgres
from app.storage.migrate import migrate
from tests.broker.world import TOPIC, Replica, replicas
from tests.published import Published, each_published

CUT_ALL = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and pid <> pg_backend_pid()"
HOLD = "select pg_advisory_lock(77)"
# In place of the real function: the same, with something in front of the row's return.
APPEND = (Path(__file__).parents[2] / "migrations" / "functions" / "append.sql").read_text()
RETURN = "return query select base, t;"


def message(payload: bytes = b"{}", **options: Any) -> NewMessage:
    return NewMessage(payload, **options)


async def publish(replica: Replica, *messages: NewMessage, topic: str = TOPIC) -> list[Published]:
    return each_published(await replica.publisher.publish(replica.namespace.id, topic, messages))


async def count(replica: Replica) -> int:
    found: int = await replica.db.fetchval("select coalesce(sum(count), 0)::int from batches")
    return found


@asynccontextmanager
async def appending(replica: Replica, statement: str) -> AsyncIterator[None]:
    """Every append runs ``statement`` before it returns."""
    await replica.db.execute(APPEND.replace(RETURN, f"{statement} {RETURN}"))
    try:
        yield
    finally:
        await replica.db.execute(APPEND)


async def waiting_backend(connection: Connection, kind: str) -> int:
    """The process of the backend that waits so. Asked again until there is one: nothing tells when."""
    while True:
        pid = await connection.fetchval("select pid from pg_stat_activity where wait_event = $1", kind)
        if pid is not None:
            return int(pid)
        await asyncio.sleep(0.01)


@pytest.fixture
async def admin(dsn: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def test_a_connection_cut_during_a_commit_leaves_the_outcome_unknown(replica: Replica, admin: Connection) -> None:
    await replica.topic()
    await admin.execute(HOLD)
    async with appending(replica, "perform pg_advisory_xact_lock(77);"):
        publishing = asyncio.create_task(publish(replica, message(idempotency_key="once")))
        await admin.execute("select pg_terminate_backend($1)", await waiting_backend(admin, "advisory"))
        with pytest.raises(CommitUnknown):
            await publishing
    await admin.execute("select pg_advisory_unlock_all()")
    (again,) = await publish(replica, message(idempotency_key="once"))
    assert (again.offset, await count(replica)) == (1, 1)


async def test_a_commit_that_answered_nothing_is_found_by_its_key(replica: Replica, admin: Connection) -> None:
    """Postgres commits, and the client never hears of it."""
    await replica.topic()
    original = replica.appender._connection.append

    async def append(rows: Any) -> Any:
        await original(rows)
        replica.appender._connection.close()
        raise Failure(Fate.UNKNOWN, "connection reset")

    replica.appender._connection.append = append  # type: ignore[method-assign]
    with pytest.raises(CommitUnknown):
        await publish(replica, message(b"1", idempotency_key="once"))
    replica.appender._connection.append = original  # type: ignore[method-assign]
    (again,) = await publish(replica, message(b"1", idempotency_key="once"))
    assert (again.duplicate, again.offset, await count(replica)) == (True, 1, 1)


async def test_a_warning_01000_is_no_success(replica: Replica) -> None:
    await replica.topic()
    async with appending(replica, "raise warning 'canceling wait' using errcode = '01000';"):
        with pytest.raises(CommitUnknown):
            await publish(replica, message())
    async with appending(replica, "raise warning 'something else' using errcode = '01004';"):
        await publish(replica, message())
    assert (await publish(replica, message()))[0].offset == 3


async def test_a_cancelled_wait_for_a_replica_is_no_success(tmp_path: Path) -> None:
    """The real thing: a synchronous replica that is not there, and somebody who cancels the wait for it."""
    postgres = EmbeddedPostgres(tmp_path, durable=False)
    await postgres.start()
    try:
        await migrate(postgres.dsn)
        async with replicas(postgres.dsn) as (replica,):
            await replica.topic()
            await publish(replica, message())
            admin = await asyncpg.connect(postgres.dsn)  # does not wait for replicas itself: the server is not durable
            await admin.execute("alter system set synchronous_standby_names = 'nobody'")
            await admin.execute("select pg_reload_conf()")
            n = 0
            while True:  # a backend hears of the setting between two commands, sooner or later
                publishing = asyncio.create_task(publish(replica, message(idempotency_key=f"once-{n}")))
                waiting = asyncio.create_task(waiting_backend(admin, "SyncRep"))
                await asyncio.wait((publishing, waiting), return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    break
                waiting.cancel()
                await asyncio.wait((waiting,))
                n += 1
            await admin.execute("select pg_cancel_backend($1)", await waiting)
            with pytest.raises(CommitUnknown):
                await publishing
            await admin.execute("alter system reset synchronous_standby_names")
            await admin.execute("select pg_reload_conf()")
            (again,) = await publish(replica, message(idempotency_key=f"once-{n}"))
            assert again.duplicate
            await admin.close()
    finally:
        await postgres.stop()


async def test_a_role_cannot_switch_durability_off(dsn: str, admin: Connection) -> None:
    name = await admin.fetchval("select current_database()")
    await admin.execute(f'alter database "{name}" set synchronous_commit = off')
    async with replicas(dsn) as (replica,):
        await replica.topic()
        await admin.execute("create table seen (value text)")
        async with appending(replica, "insert into seen values (current_setting('synchronous_commit'));"):
            await publish(replica, message())
        assert await admin.fetchval("select value from seen") == "on"


async def test_a_database_that_is_away_is_said_to_be(replica: Replica, dsn: str, postgres_dsn: str) -> None:
    await replica.topic()
    await publish(replica, message())
    name = urlsplit(dsn).path.strip("/")
    outside = await asyncpg.connect(postgres_dsn)
    try:
        await outside.execute(f'alter database "{name}" allow_connections false')
        await outside.execute(CUT_ALL, name)
        with pytest.raises((DatabaseUnavailable, CommitUnknown)):
            await publish(replica, message())
        with pytest.raises(DatabaseUnavailable):
            await publish(replica, message())
        await outside.execute(f'alter database "{name}" allow_connections true')
    finally:
        await outside.close()
    while True:  # it tries again by itself, after a pause
        try:
            assert (await publish(replica, message()))[0].offset == 2
            break
        except DatabaseUnavailable:
            await asyncio.sleep(0.05)


async def test_a_locked_partition_holds_up_nobody_else(
    replica: Replica, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(rows: Any) -> Any:
        raise AssertionError(rows)

    await replica.topic()
    calm = await replica.topic(name="calm")
    stuck = await replica.topic(name="stuck")
    async with admin.transaction():
        await admin.execute("select from partitions where id = $1 for update", partition_id(stuck.id, 0))
        results = await asyncio.gather(
            *[publish(replica, message(), topic=name) for name in ["stuck", "calm"] * 3], return_exceptions=True
        )
        assert [isinstance(result, DatabaseUnavailable) for result in results] == [True, False] * 3
        assert replica.appender._blocked == {partition_id(stuck.id, 0)}
        monkeypatch.setattr(replica.appender._connection, "append", never)  # it is known by now, and not tried
        with pytest.raises(DatabaseUnavailable):
            await publish(replica, message(), topic="stuck")
        monkeypatch.undo()
        await publish(replica, message(), topic="calm")
    assert (await publish(replica, message(), topic="stuck"))[0].offset == 1
    assert calm.partitions == 1


async def test_a_message_the_database_refuses_fails_alone(replica: Replica) -> None:
    """Nothing of the kind should come this far; if something does, those in the same transaction must not suffer."""
    await replica.topic()
    poison = message(b"poison")
    async with appending(replica, "if messages @> array['poison'::bytea] then raise data_exception; end if;"):
        results = await asyncio.gather(
            *[publish(replica, each) for each in [message(), poison, message(), message()]], return_exceptions=True
        )
    assert [type(result) for result in results] == [list, LogpostError, list, list]
    assert await count(replica) == 3


async def test_an_argument_that_cannot_be_encoded_fails_alone(replica: Replica) -> None:
    await replica.topic()
    large = message(b"x" * 100_000)
    results = await asyncio.gather(
        *[publish(replica, each) for each in [large, message(key="\ud800"), large]], return_exceptions=True
    )
    assert [isinstance(result, LogpostError | UnicodeEncodeError) for result in results] == [False, True, False]
    assert (await publish(replica, message()))[0].offset == await count(replica)


@asynccontextmanager
async def idle_appender(
    dsn: str, *, max_messages: int = 1000, max_bytes: int = 1 << 20
) -> AsyncIterator[tuple[Appender, Topic]]:
    """An appender whose work nobody has begun."""
    async with replicas(dsn) as (replica,):
        topic = await replica.topic()
        db = await Database.open(dsn, pool_size=2)
        try:
            yield Appender(db, max_messages=max_messages, max_bytes=max_bytes), topic
        finally:
            await db.close()


def size_of(appender: Appender, topic: Topic) -> Callable[[int, int], Any]:
    """Appends so many messages of so many bytes."""
    place = partition_id(topic.id, 0)
    return lambda messages, size: appender.append(topic, [message(b"x" * size)] * messages, [place] * messages)


async def test_a_full_queue_refuses_what_does_not_fit(dsn: str) -> None:
    async with idle_appender(dsn, max_messages=10, max_bytes=1000) as (appender, topic):
        publish = size_of(appender, topic)
        accepted = [publish(4, 1), publish(5, 1)]
        with pytest.raises(QueueFull):
            publish(2, 1)
        accepted.append(publish(1, 1))
        with pytest.raises(QueueFull):
            publish(1, 1)
        running = asyncio.create_task(appender.run())
        assert [len(each_published(await each)) for each in accepted] == [4, 5, 1]
        with pytest.raises(QueueFull):
            publish(2, 501)
        assert len(each_published(await publish(2, 500))) == 2
        await appender.stop()
        await running


async def test_stopping_answers_everything_that_was_accepted(dsn: str) -> None:
    async with idle_appender(dsn) as (appender, topic):
        publish = size_of(appender, topic)
        accepted = [publish(1, 1) for _ in range(100)]
        running = asyncio.create_task(appender.run())
        await asyncio.sleep(0)
        await appender.stop()
        assert [len(await each) for each in accepted] == [1] * 100
        with pytest.raises(ShuttingDown):
            publish(1, 1)
        await running


async def test_a_cancelled_appender_leaves_nobody_without_an_answer(replica: Replica, admin: Connection) -> None:
    topic = await replica.topic()
    appender = Appender(replica.db, max_messages=100, max_bytes=1 << 20)
    publish = size_of(appender, topic)
    running = asyncio.create_task(appender.run())
    await admin.execute(HOLD)
    async with appending(replica, "perform pg_advisory_xact_lock(77);"):
        flying = publish(1, 1)
        await waiting_backend(admin, "advisory")
        waiting = publish(1, 1)
        running.cancel()
        with pytest.raises(CommitUnknown):
            await flying
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(asyncio.CancelledError):
            await running
        await admin.execute("select pg_advisory_unlock_all()")


async def test_who_has_gone_away_while_waiting_is_not_published(dsn: str) -> None:
    async with idle_appender(dsn) as (appender, topic):
        publish = size_of(appender, topic)
        gone, there = publish(1, 1), publish(1, 1)
        gone.cancel()
        running = asyncio.create_task(appender.run())
        assert each_published(await there)[0].offset == 1
        await appender.stop()
        await running


async def test_wake_ups_name_the_partitions_that_were_written(replica: Replica) -> None:
    topic = await replica.topic(partitions=4)
    heard: list[int] = []
    stop = replica.wakeups.listen(topic.id, None, heard.extend)
    await publish(replica, message(key="a"), message(key="b"))
    stop()
    assert heard
    assert set(heard) <= {partition_id(topic.id, number) for number in range(4)}
