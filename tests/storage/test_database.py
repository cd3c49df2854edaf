"""Connections stay at hand between calls, and nobody is worse off for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from app.domain.errors import DatabaseUnavailable
from app.storage.connector import PAUSE_S
from app.storage.database import Database
from tests.servers import wait_until

PID = "select pg_backend_pid()"


@pytest.fixture
async def two(dsn: str) -> AsyncIterator[Database]:
    """A database of two connections."""
    db = await Database.open(dsn, pool_size=2)
    yield db
    await db.close()


async def test_one_call_after_the_other_goes_through_the_same_session(two: Database) -> None:
    assert len({await two.fetchval(PID) for _ in range(5)}) == 1


async def test_a_session_that_ended_meanwhile_is_replaced(two: Database, dsn: str) -> None:
    pid = await two.fetchval(PID)
    other = await asyncpg.connect(dsn)
    await other.execute("select pg_terminate_backend($1)", pid)
    await wait_until(lambda: not two._hot or _has_ended(two))
    assert await two.fetchval(PID) != pid
    await other.close()


def _has_ended(db: Database) -> bool:
    try:
        return db._hot[0].is_closed()
    except asyncpg.InterfaceError:
        return True


async def test_who_waits_gets_the_next_connection_that_is_returned(two: Database) -> None:
    async with two.connection():
        async with two.connection() as second:
            pid = await second.fetchval(PID)
            waiting = asyncio.ensure_future(two.fetchval(PID))
            await wait_until(lambda: two._waiting == 1)
        assert await waiting == pid


async def test_a_call_that_was_given_up_leaves_no_session_in_doubt(two: Database) -> None:
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), two.connection() as connection:
                await connection.execute("select pg_sleep(10)")
        assert await two.fetchval("select 1") == 1


async def test_what_failed_is_not_carried_into_the_next_call(two: Database) -> None:
    with pytest.raises(asyncpg.PostgresError):
        async with two.transaction() as tx:
            await tx.execute("select 1 / 0")
    async with two.connection() as connection:
        assert not connection.is_in_transaction()
        assert await connection.fetchval("select 1") == 1


async def test_a_database_that_is_away_is_not_kept_busy_by_those_who_ask_for_it() -> None:
    attempts = 0

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        db = await Database.open(f"postgresql://nobody@127.0.0.1:{port}/nothing?sslmode=disable", pool_size=10)
        began = asyncio.get_running_loop().time()
        for _ in range(20):
            told = await asyncio.gather(*[db.fetchval(PID) for _ in range(50)], return_exceptions=True)
            assert {type(each) for each in told} == {DatabaseUnavailable}
        pauses = (asyncio.get_running_loop().time() - began) / PAUSE_S
        assert attempts <= 10 + pauses
        await db.close()


async def test_a_database_that_was_away_is_used_again_when_it_is_back(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_away = True
    connect = asyncpg.connect

    async def connect_if_there(*args: Any, **options: Any) -> Any:
        if is_away:
            raise asyncpg.CannotConnectNowError("the database system is in recovery mode")
        return await connect(*args, **options)

    monkeypatch.setattr(asyncpg, "connect", connect_if_there)
    db = await Database.open(dsn, pool_size=5)
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await db.fetchval(PID)
    is_away = False

    async def is_back() -> bool:
        with suppress(DatabaseUnavailable):
            return bool(await db.fetchval(PID))
        return False

    await wait_until(is_back)
    assert await asyncio.gather(*[db.fetchval("select 1") for _ in range(10)]) == [1] * 10
    await db.close()


async def test_nothing_stays_open_after_the_end(dsn: str) -> None:
    db = await Database.open(dsn, pool_size=2)
    pid = await db.fetchval(PID)
    await db.close()
    other = await asyncpg.connect(dsn)

    async def is_gone() -> bool:
        return bool(await other.fetchval("select count(*) = 0 from pg_stat_activity where pid = $1", pid))

    await wait_until(is_gone)
    await other.close()


async def test_a_session_of_a_history_that_has_ended_is_not_kept(two: Database) -> None:
    async with two.connection() as old:
        pid = await old.fetchval(PID)
        two._drop_sessions()
        assert await two.fetchval(PID) != pid  # from here on the others are new ones
    assert pid not in [await two.fetchval(PID) for _ in range(3)]
    async with two.connection() as one, two.connection() as other:
        assert pid not in (await one.fetchval(PID), await other.fetchval(PID))
