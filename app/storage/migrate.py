"""Brings the database's schema up to this version: waits for the database, takes the lock, runs alembic."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.telemetry import log

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"

# Any number will do that nothing else in the same database locks: the first eight bytes of "logpost\0" in ASCII.
MIGRATION_LOCK = int.from_bytes(b"logpost\0")

# Errors after which asking again is pointless: the address, the name or the password is wrong.
REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
# Errors of a database that is starting, stopping, failing over or full.
NOT_YET = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,
)


# A database that breaks off a migration so often is ended by it.
MAX_CUT_OFFS = 10
CUT_OFF_PAUSE_S = 0.5


class DatabaseUnreachable(Exception):
    """The database refused us, or did not answer in time. The text is one line for a person, without the password."""


async def migrate(dsn: str, *, wait_s: float = 60.0) -> None:
    """Waits up to ``wait_s`` seconds for the database at ``dsn``, then migrates it to the newest revision; again where
    the database goes away meanwhile.

    Safe to call from any number of replicas at once: they take turns, and all but the first find nothing to do.
    Raises DatabaseUnreachable, or whatever a failing migration raises (its transaction is rolled back).
    """
    for _ in range(MAX_CUT_OFFS):
        try:
            return await _migrate(dsn, wait_s)
        except DatabaseUnreachable:
            raise
        except Exception as error:
            if not _is_cut_off(error):
                raise
            log.warning("migration_interrupted", error=str(error).partition("\n")[0])
            await asyncio.sleep(CUT_OFF_PAUSE_S * random.uniform(0.5, 1.0))
    raise DatabaseUnreachable(f"The database broke off its migration {MAX_CUT_OFFS} times.")


async def _migrate(dsn: str, wait_s: float) -> None:
    lock = await connect_when_up(dsn, wait_s=wait_s)
    try:
        # On a connection of its own, so that the lock lasts over every transaction of the migrations and goes
        # with us if we die. Waiting here has no limit: another replica's migration may rewrite a large table.
        await lock.execute("select pg_advisory_lock($1)", MIGRATION_LOCK, timeout=None)
        await _upgrade(dsn)
    finally:
        lock.terminate()


async def connect_when_up(dsn: str, *, wait_s: float) -> asyncpg.Connection[asyncpg.Record]:
    """A connection, as soon as the database gives one. Raises DatabaseUnreachable after ``wait_s`` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    pause_s = 0.05
    while True:
        try:
            return await asyncpg.connect(dsn, timeout=10)
        except REFUSED as error:
            raise DatabaseUnreachable(f"The database refused the connection: {error}") from error
        except NOT_YET as error:
            if loop.time() >= deadline:
                reason = str(error).strip() or type(error).__name__
                raise DatabaseUnreachable(f"No database within {wait_s:g} s: {reason}") from error
            log.info("database_awaited", error=str(error) or type(error).__name__)
        except ValueError as error:  # what asyncpg says of a DSN it cannot read
            raise DatabaseUnreachable(f"The database URL is malformed: {error}") from error
        # Jitter, because replicas started together would otherwise also knock together.
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(pause_s * 2, 2.0)


def _is_cut_off(error: BaseException) -> bool:
    """Whether the connection broke, as asyncpg says it or SQLAlchemy in its stead."""
    causes: list[BaseException | None] = [error]
    while (cause := causes[-1]) is not None:
        if isinstance(cause, (*NOT_YET, asyncpg.InterfaceError)):
            return True
        causes.append(getattr(cause, "orig", None) or cause.__cause__)
    return False


async def _upgrade(dsn: str) -> None:
    # asyncpg reads the DSN itself, so that every parameter it knows works here as it does in the pool.
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn), poolclass=NullPool
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run_alembic)
    finally:
        await engine.dispose()


def _run_alembic(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
