"""What has outlived its use goes: idempotency keys with their topic's window, attempts after their time."""

from __future__ import annotations

import asyncio

from app.loops.expiry import expire_once
from app.storage.database import Database
from tests.loops.conftest import Log, column

WEEK_MS = 7 * 24 * 3600 * 1000


async def keys(db: Database) -> list[str]:
    return list(await column(db, "select key from idempotency_keys order by key"))


async def test_idempotency_keys_go_with_the_window_of_their_own_topic(db: Database) -> None:
    short = await Log.create(db, "short", window_ms=60_000)
    long = await Log.create(db, "long", window_ms=3_600_000)
    for log, name in ((short, "short"), (long, "long")):
        await log.append(1, once=f"{name} old")
        await log.age(100)
        await log.append(1, once=f"{name} new")
    await expire_once(db, attempt_retention_ms=WEEK_MS)
    assert await keys(db) == ["long new", "long old", "short new"]


async def test_a_purge_removes_the_keys_from_before_it(db: Database, log: Log) -> None:
    await log.append(1, once="before")
    await db.fetchval("select purge($1)", log.partitions[0])
    await log.append(1, once="after")
    await expire_once(db, attempt_retention_ms=WEEK_MS)
    assert await keys(db) == ["after"]


async def test_a_key_published_while_the_purge_was_under_way_stays(db: Database) -> None:
    log = await Log.create(db, partitions=2)
    await log.append(1, number=0, once="before")
    await log.append(1, number=1, once="between")
    await db.fetchval("select purge($1)", log.partitions[0])  # one partition has been purged, the other not yet
    await expire_once(db, attempt_retention_ms=WEEK_MS)
    assert await keys(db) == ["between"]


async def test_attempts_are_kept_for_their_time(db: Database) -> None:
    await db.execute(
        'insert into attempts (partition_id, "offset", group_id, attempt, at, outcome) '
        "select 1, o, 1, 1, clock_timestamp() - make_interval(secs => o), 'nacked' from unnest(array[5, 15, 125]) o"
    )
    await expire_once(db, attempt_retention_ms=120_000)
    assert await column(db, 'select "offset" from attempts order by 1') == [5, 15]


async def test_expiry_goes_in_bounded_batches(db: Database, log: Log) -> None:
    for i in range(7):
        await log.append(1, once=f"key {i}")
    await log.age(100)
    assert await expire_once(db, attempt_retention_ms=WEEK_MS, batch_size=5)
    assert await keys(db) == ["key 5", "key 6"]  # the oldest went first
    assert not await expire_once(db, attempt_retention_ms=WEEK_MS, batch_size=5)
    assert await keys(db) == []


async def test_what_is_remembered_of_a_lease_goes_when_neither_its_id_nor_its_row_says_that_it_would_live(
    db: Database,
) -> None:
    past, future = "clock_timestamp() - interval '1 minute'", "clock_timestamp() + interval '1 minute'"
    for partition, (begun_for, until) in enumerate([(past, past), (past, future), (future, past)]):
        await db.execute(
            "insert into past_leases (partition_id, group_id, id, until) "
            f"select {partition}, 1, (extract(epoch from {begun_for}) * 1000)::bigint << 20, {until}"
        )
    await expire_once(db, attempt_retention_ms=WEEK_MS)
    assert await column(db, "select partition_id from past_leases order by 1") == [1, 2]


async def test_expiry_waits_for_nobody(db: Database) -> None:
    log = await Log.create(db, window_ms=60_000)
    for name in ("locked", "free"):
        await log.append(1, once=name)
    await log.age(100)
    await db.execute(
        'insert into attempts (partition_id, "offset", group_id, attempt, at, outcome) '
        "select 1, o, 1, 1, clock_timestamp() - interval '1 hour', 'nacked' from generate_series(1, 2) o"
    )
    await db.execute(
        "insert into past_leases (partition_id, group_id, id, until) "
        "select n, 1, 1, clock_timestamp() - interval '1 minute' from generate_series(1, 2) n"
    )
    async with db.transaction() as somebody:
        await somebody.execute("select from idempotency_keys where key = 'locked' for update")
        await somebody.execute('select from attempts where "offset" = 1 for update')
        await somebody.execute("select from past_leases where partition_id = 1 for update")
        async with asyncio.timeout(4):  # a lock is given up on after five seconds
            await expire_once(db, attempt_retention_ms=60_000)
        assert await keys(db) == ["locked"]
        assert await column(db, 'select "offset" from attempts') == [1]
        assert await column(db, "select partition_id from past_leases") == [1]
    await expire_once(db, attempt_retention_ms=60_000)
    assert await keys(db) == []
    assert await column(db, 'select "offset" from attempts') == []
    assert await column(db, "select partition_id from past_leases") == []
