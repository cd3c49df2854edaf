"""The connection that appends: what its errors mean for what was to be committed.

An error that the server answered while it ran a statement undid the whole transaction: nothing was stored. Anything
that can come during COMMIT, and every broken connection, leaves it open. Told apart by SQLSTATE, never by wording.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum, auto
from typing import Any

import asyncpg

from app.storage.database import CHANGED, COLLISIONS, GONE, LOCK_NOT_AVAILABLE, Connection, Database, sqlstate
from app.storage.idempotency import OnceKey, Taken, find_taken
from app.storage.messages import Appended, Row, append, unlocked

# Shorter than everybody else's: while one partition is locked, those of all others wait with it, this once.
LOCK_TIMEOUT = "2s"
WARNING = "01000"
# Classes of errors that a statement raises and a commit does not: 0A feature, 21 and 22 data, 23 constraints,
# 25 transaction state (a standby), 42 names and rights, 54 limits, 55 object state, P0 plpgsql, 57014 cancelled.
STATEMENT_CLASSES = ("0A", "21", "22", "23", "25", "42", "54", "55", "P0")
STATEMENT_STATES = frozenset({"57014"})


class Fate(Enum):
    """What became of a transaction that failed."""

    UNKNOWN = auto()  # it may have been committed
    NOTHING = auto()  # nothing was stored, and it is no use to try again
    COLLISION = auto()  # nothing was stored; somebody was in the way
    LOCKED = auto()  # nothing was stored; a partition stayed locked
    OUTDATED = auto()  # nothing was stored; a topic has another version
    AWAY = auto()  # nothing was stored; the database is not there


class Failure(Exception):
    """``partition_id`` is where a topic was outdated."""

    def __init__(self, fate: Fate, reason: str, partition_id: int | None = None) -> None:
        super().__init__(reason)
        self.fate = fate
        self.reason = reason
        self.partition_id = partition_id


class AppendConnection:
    """Opened when needed, and anew after anything that leaves doubt about it."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connection: Connection | None = None
        self._warned = False

    async def open(self) -> None:
        """Does nothing if it is open. Raises what connecting raises."""
        if self._connection is not None and not self._connection.is_closed():
            return
        self._connection = None
        connection = await self._db.connect(lock_timeout=LOCK_TIMEOUT)
        try:
            connection.add_log_listener(self._on_notice)
            await _insist_on_durability(connection)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def find_taken(self, windows_ms: Mapping[OnceKey, int]) -> dict[OnceKey, Taken]:
        """Those of the keys that stand for a message. Raises Failure with AWAY or NOTHING."""
        connection = self._opened()
        try:
            return await find_taken(connection, list(windows_ms), list(windows_ms.values()))
        except Exception as error:
            raise self._before_commit(error) from error

    async def unlocked(self, partition_ids: Collection[int]) -> set[int]:
        """Those of the partitions that nobody else is changing. Raises Failure with AWAY or NOTHING."""
        connection = self._opened()
        try:
            return await unlocked(connection, partition_ids)
        except Exception as error:
            raise self._before_commit(error) from error

    async def append(self, rows: Sequence[Row]) -> list[Appended]:
        """Appends and commits. Raises Failure."""
        connection = self._opened()
        self._warned = False
        try:
            appended = await append(connection, rows)
        except asyncpg.PostgresError as error:
            raise self._after_statement(error) from error
        except Exception as error:
            if _is_unsendable(error):
                raise Failure(Fate.NOTHING, str(error)) from error
            self.close()
            raise Failure(Fate.UNKNOWN, str(error) or type(error).__name__) from error
        if self._warned:
            # It is committed here, and a failover may lose it.
            raise Failure(Fate.UNKNOWN, "the commit came with a warning")
        return appended

    def _opened(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            raise Failure(Fate.AWAY, "the connection is closed")
        return self._connection

    def _before_commit(self, error: Exception) -> Failure:
        if _is_unsendable(error):
            return Failure(Fate.NOTHING, str(error))
        self.close()
        return Failure(Fate.AWAY, str(error) or type(error).__name__)

    def _after_statement(self, error: asyncpg.PostgresError) -> Failure:
        state, reason = sqlstate(error), f"{sqlstate(error)} {error}"
        if state in (GONE, CHANGED):
            detail = getattr(error, "detail", None) or ""
            return Failure(Fate.OUTDATED, reason, int(detail) if detail.isdecimal() else None)
        if state in COLLISIONS:
            return Failure(Fate.COLLISION, reason)
        if state == LOCK_NOT_AVAILABLE:
            return Failure(Fate.LOCKED, reason)
        if state.startswith("25"):
            self.close()
            return Failure(Fate.AWAY, reason)
        if state.startswith(STATEMENT_CLASSES) or state in STATEMENT_STATES:
            return Failure(Fate.NOTHING, reason)
        self.close()
        return Failure(Fate.UNKNOWN, reason)

    def _on_notice(self, _connection: Any, message: Any) -> None:
        # The driver calls this before whoever awaits the commit gets to run.
        if sqlstate(message) == WARNING:
            self._warned = True


def _is_unsendable(error: Exception) -> bool:
    """The driver could not encode an argument; what it had sent before is rolled back."""
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)


async def _insist_on_durability(connection: Connection) -> None:
    """A role or database may have switched synchronous_commit off; stronger settings than ``on`` are left alone."""
    if await connection.fetchval("show synchronous_commit") == "off":
        await connection.execute("set synchronous_commit = on")
