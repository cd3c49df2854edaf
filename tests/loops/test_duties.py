"""The whole background starts and stops at any moment, with and without a database."""

from __future__ import annotations

import asyncio

import pytest

from app import metrics
from app.broker.wakeups import Wakeups
from app.loops.duties import Pace, start_duties
from app.loops.elect import this_replica
from app.loops.supervisor import Supervisor
from app.storage.database import Database
from tests.loops.conftest import Log
from tests.servers import wait_until

PACE = Pace(
    retention_interval_ms=20, attempt_retention_ms=1000, reconciliation_interval_ms=20, reconciliation_batch_size=10
)
NAMES = {"listen", "notify", "elect", "trim", "retention", "expiry", "rescue", "deletion", "reseal"}


@pytest.mark.parametrize("delay_ms", [0, 1, 3, 10, 30, 100, 300])
async def test_the_background_stops_by_itself_at_any_moment(db: Database, delay_ms: int) -> None:
    wakeups = Wakeups()
    supervisor = Supervisor()
    start_duties(supervisor, db, wakeups, this_replica(), PACE)
    assert set(supervisor.names) == NAMES
    owned = list(supervisor._owned.values())
    for _ in range(delay_ms):
        wakeups.published([1])
        await asyncio.sleep(0.001)
    await supervisor.stop(100)
    assert all(one.done and not one.task.cancelled() and one.task.exception() is None for one in owned)
    assert await db.fetchval("select count(*) from replicas") == 0
    assert await db.fetchval("select count(*) from leadership") == 0
    assert not wakeups.listening


async def test_the_background_outlives_a_database_that_is_away(dsn: str, db: Database) -> None:
    wakeups = Wakeups()
    log = await Log.create(db, retention={"maxCount": 1})
    async with Supervisor(drain_s=100) as supervisor:
        start_duties(supervisor, db, wakeups, this_replica(), PACE)
        await wait_until(lambda: wakeups.listening)
        tasks = {name: one.task for name, one in supervisor._owned.items()}
        for _ in range(3):  # whatever it was about to do
            await db.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.05)
        trimmed = metrics.trimmed._value.get()
        await log.append(3)
        await wait_until(lambda: metrics.trimmed._value.get() > trimmed)
        assert await log.first() == 3
        await wait_until(lambda: wakeups.listening)
        assert {name: one.task for name, one in supervisor._owned.items()} == tasks  # nothing crashed or was replaced


async def test_without_a_database_the_background_waits_and_can_be_stopped() -> None:
    nowhere = await Database.open("postgresql://nobody@127.0.0.1:1/none", pool_size=2)
    supervisor = Supervisor()
    start_duties(supervisor, nowhere, Wakeups(), this_replica(), PACE)
    owned = list(supervisor._owned.values())
    await asyncio.sleep(0.3)
    assert not any(one.done for one in owned)
    await supervisor.stop(100)
    assert all(one.done and not one.task.cancelled() for one in owned)
    await nowhere.close()
