"""The way to Postgres: a pool, its time limits, and what its errors mean to a caller.

Errors are told apart by SQLSTATE only. Every statement runs in autocommit unless it is inside ``transaction()``.
A function elsewhere in ``storage`` takes ``db: Database`` when it is one statement of its own, and ``tx`` when it is a
part of a caller's transaction; the latter never commits.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import asyncpg
import asyncpg.pool

from app.domain.errors import DatabaseUnavailable
from app.storage.connector import Connector
from app.storage.lineage import Lineage
from app.storage.vault import NO_KEYS, Vault

Record = asyncpg.Record
if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
    PoolConnection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:  # the driver's classes are generic to the type checker only
    Connection = asyncpg.Connection
    PoolConnection = asyncpg.pool.PoolConnectionProxy
Tx = Connection | PoolConnection
T = TypeVar("T")

ACQUIRE_TIMEOUT_S = 5.0
# So many connections stay at hand between calls: to take one from the pool and to return it is two tasks, which cost
# three times what a short statement does.
MAX_HOT = 4
CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 30.0
READY_TIMEOUT_S = 2.0
# The server gives up a little before we do, so that it answers and the connection stays usable.
SERVER_SETTINGS = {
    "application_name": "logpost",
    "timezone": "UTC",
    "lock_timeout": "5s",
    "statement_timeout": "25s",
    "idle_in_transaction_session_timeout": "25s",
    "jit": "off",  # every statement here is short; compiling one costs more than running it
    # A commit whose wait for a synchronous replica was cancelled succeeds with a warning. It has to reach us.
    "client_min_messages": "warning",
}

# Raised by our own functions.
GONE = "LP404"  # the partition or the cursor is not there any more
CHANGED = "LP412"  # the topic or the group has another version than the caller knows

# Worth another try at once: another transaction was in the way, and nothing of ours was done.
COLLISIONS = frozenset({"40001", "40P01", "23505"})
MAX_TRIES = 8
LOCK_NOT_AVAILABLE = "55P03"
# Worth another try later: 08 connection, 53 resources, 57 operator intervention, 55P03 lock timeout, 25006 standby.
AWAY_CLASSES = ("08", "53", "57")
AWAY_STATES = frozenset({LOCK_NOT_AVAILABLE, "25006", "58030"})


class Outdated(Exception):
    """The caller's picture of a topic or group is old: read it again and repeat."""


def sqlstate(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def is_away(error: BaseException) -> bool:
    """True for errors of a database that is stopping, starting, unreachable or full."""
    if isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return True
    state = sqlstate(error)
    return state.startswith(AWAY_CLASSES) or state in AWAY_STATES


def is_of_a_lock(error: BaseException) -> bool:
    """Whether it is DatabaseUnavailable because somebody holds what was to be changed, for longer than we wait."""
    return error.__cause__ is not None and sqlstate(error.__cause__) == LOCK_NOT_AVAILABLE


@contextmanager
def errors_named() -> Iterator[None]:
    """Raises DatabaseUnavailable and Outdated in place of the driver's errors that mean so."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        if sqlstate(error) in (GONE, CHANGED):
            raise Outdated from error
        if is_away(error):
            raise DatabaseUnavailable("The database cannot be reached at the moment.") from error
        raise


async def on_collision_again(attempt: Callable[[], Awaitable[T]]) -> T:
    """Runs ``attempt`` until it meets no other transaction in its way, a bounded number of times."""
    for tried in range(1, MAX_TRIES + 1):
        try:
            return await attempt()
        except asyncpg.PostgresError as error:
            if sqlstate(error) not in COLLISIONS:
                raise
            if tried == MAX_TRIES:
                raise DatabaseUnavailable("Too many others are changing the same thing; try again.") from error
            await asyncio.sleep(random.uniform(0, 0.005 * 2**tried))
    raise AssertionError("unreachable")


class Session(Connection):
    """A pooled connection, which knows how to read the secrets in what it reads."""

    vault = NO_KEYS


def vault_of(tx: Tx) -> Vault:
    """What opens and seals the secrets of this transaction's rows."""
    vault: Vault = getattr(tx, "vault", NO_KEYS)
    return vault


class Database:
    """The pool of one process. Made by ``Database.open``."""

    def __init__(self, dsn: str, pool: asyncpg.Pool[asyncpg.Record], vault: Vault, lineage: Lineage) -> None:
        self.dsn = dsn
        self.vault = vault
        self.lineage = lineage
        self._pool = pool
        self._hot: list[PoolConnection] = []
        self._waiting = 0
        self._kept: WeakSet[Connection] = WeakSet()
        self._is_pool_old = False
        self._histories = 0  # that have ended: a session of an earlier one is not kept
        lineage.on_change.append(self._drop_sessions)

    @classmethod
    async def open(cls, dsn: str, *, pool_size: int, vault: Vault = NO_KEYS) -> Database:
        """Connects lazily: the pool of a database that is away opens all the same, and its calls fail until it is
        back."""

        lineage = Lineage()

        async def equip(session: Any) -> None:
            session.vault = vault
            await lineage.admit(session)

        pool = asyncpg.create_pool(
            dsn, min_size=0, max_size=pool_size, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S,
            server_settings=SERVER_SETTINGS, max_inactive_connection_lifetime=60.0, reset=_keep_session,
            connection_class=Session, connect=Connector(), init=equip,
        )  # fmt: skip
        return cls(dsn, await pool, vault, lineage)

    @property
    def size(self) -> int:
        """How many connections there may be."""
        return self._pool.get_max_size()

    async def close(self) -> None:
        """Waits a moment for what is running, then cuts it off."""
        try:
            async with asyncio.timeout(5):
                await self._cool()
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def connect(self, **settings: str) -> Connection:
        """A connection outside the pool, for somebody who keeps it. ``settings`` are added to the session's."""
        with errors_named():
            connection = await asyncpg.connect(
                self.dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S,
                server_settings=SERVER_SETTINGS | settings,
            )  # fmt: skip
            try:
                await self.lineage.admit(connection)
            except BaseException:
                connection.terminate()
                raise
            self._kept.add(connection)
            return connection

    def _drop_sessions(self) -> None:
        """Those we have are with a history that has ended: whoever is still there to answer must not."""
        for connection in tuple(self._kept):
            connection.terminate()
        self._histories += 1
        self._is_pool_old = True  # each is replaced as it is used next

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Tx]:
        """A pooled connection in autocommit. Raises DatabaseUnavailable when none is free in time."""
        with errors_named():
            if self._is_pool_old:
                self._is_pool_old = False
                await self._pool.expire_connections()
                await self._cool()
            histories = self._histories
            connection = await self._acquire()
            is_fit = False
            try:
                yield connection
                is_fit = histories == self._histories
            finally:
                if is_fit and len(self._hot) < MAX_HOT and not self._waiting and _is_open(connection):
                    self._hot.append(connection)
                else:
                    await self._pool.release(connection)

    async def _acquire(self) -> PoolConnection:
        while self._hot:
            connection = self._hot.pop()
            if _is_open(connection):
                return connection
            await self._pool.release(connection)
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        finally:
            self._waiting -= 1

    async def _cool(self) -> None:
        """Gives back to the pool what was kept at hand."""
        hot, self._hot = self._hot, []
        for connection in hot:
            await self._pool.release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        """Commits at the end of the block; rolls back if it raises."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def fetch(self, statement: str, *arguments: Any) -> list[Record]:
        async with self.connection() as connection:
            return await connection.fetch(statement, *arguments)

    async def fetchrow(self, statement: str, *arguments: Any) -> Record | None:
        async with self.connection() as connection:
            return await connection.fetchrow(statement, *arguments)

    async def fetchval(self, statement: str, *arguments: Any) -> Any:
        async with self.connection() as connection:
            return await connection.fetchval(statement, *arguments)

    async def execute(self, statement: str, *arguments: Any) -> str:
        async with self.connection() as connection:
            return await connection.execute(statement, *arguments)


def _is_open(connection: PoolConnection) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # it was lost, and the pool has taken it back
        return False


async def _keep_session(_connection: Any) -> None:
    """Instead of the driver's reset, a round trip per call: nobody here changes a pooled session."""


CLOCK = "select clock_timestamp()"


async def clock(tx: Tx) -> datetime:
    """The database's clock, which is the only one that counts."""
    now: datetime = await tx.fetchval(CLOCK)
    return now


IS_UP = "select 1"


async def is_up(db: Database) -> None:
    """Raises DatabaseUnavailable unless the database answers within READY_TIMEOUT_S."""
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await db.execute(IS_UP)
    except TimeoutError as error:
        raise DatabaseUnavailable("The database does not answer.") from error
