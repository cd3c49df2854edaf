"""LISTEN and NOTIFY: how replicas hint at each other that something may be worth a look.

Never part of another transaction: a commit that carries a notification takes a lock of the whole server, and publishes
would queue behind each other. Hints travel on a connection of their own, after the commit they speak of.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from app.storage.database import Connection, Database, errors_named

CHANNEL = "logpost"
PING_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0


class Subscription:
    """A connection that listens. ``lost`` is set once it is known to be gone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.lost = asyncio.Event()

    # Not `select 1`: behind a pooler the session may be another one by now, and that one answers as well.
    STILL_LISTENING = "select $1 in (select pg_listening_channels())"

    async def check(self) -> None:
        """Sets ``lost`` unless the server confirms that this session listens. Notices what TCP would not for hours."""
        try:
            with errors_named():
                if not await self._connection.fetchval(self.STILL_LISTENING, CHANNEL, timeout=PING_TIMEOUT_S):
                    self.lost.set()
        except Exception:
            self.lost.set()
            raise


@asynccontextmanager
async def subscribed(db: Database, heard: Callable[[str], None]) -> AsyncIterator[Subscription]:
    """Calls ``heard`` with every payload. Raises DatabaseUnavailable when there is no connection to be had."""
    connection = await db.connect(application_name="logpost listen", idle_session_timeout="0")
    subscription = Subscription(connection)

    def on_notification(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        heard(str(payload))

    try:
        connection.add_termination_listener(lambda _: subscription.lost.set())
        with errors_named():
            await connection.add_listener(CHANNEL, on_notification)
        yield subscription
    finally:
        await close(connection)


async def open_sender(db: Database) -> Connection:
    """A connection for ``send``. What it sends is worth nothing after a crash: its commits wait for no disk."""
    return await db.connect(application_name="logpost notify", synchronous_commit="off", idle_session_timeout="0")


SEND = "select pg_notify($1, p.payload) from unnest($2::text[]) p (payload)"


async def send(connection: Connection, payloads: Sequence[str]) -> None:
    """One transaction for all. Each payload is below 8000 bytes."""
    with errors_named():
        await connection.execute(SEND, CHANNEL, payloads)


async def close(connection: Connection) -> None:
    """Politely if the server answers, at once if it does not."""
    with contextlib.suppress(Exception):
        await connection.close(timeout=CLOSE_TIMEOUT_S)
    connection.terminate()
