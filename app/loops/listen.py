"""Hints between replicas: what we hear wakes our readers, what we did is told to the others.

Both sides may fail at any time and nothing is lost but time: readers poll as well, and after a gap in the listening
everybody looks at everything once.
"""

from __future__ import annotations

import asyncio

from app.broker.wakeups import Wakeups
from app.domain.errors import Unavailable
from app.loops.loop import backoff_s, jittered, wait_for
from app.storage import notifications
from app.storage.database import Connection, Database
from app.storage.notifications import Subscription
from app.telemetry import log

CHECK_INTERVAL_S = 15.0
# While hints keep coming, they are sent together: a reader hardly notices 5 ms, the server notices each NOTIFY.
COALESCE_S = 0.005


class Listener:
    """Keeps one connection listening and ``wakeups.listening`` true to it. ``sender``: hints tagged so are our own."""

    def __init__(self, db: Database, wakeups: Wakeups, sender: str) -> None:
        self._db = db
        self._wakeups = wakeups
        self._sender = sender
        self._stopped = asyncio.Event()
        self._subscription: Subscription | None = None
        self._failures = 0

    def stop(self) -> None:
        self._stopped.set()
        if self._subscription is not None:
            self._subscription.lost.set()

    async def run(self) -> None:
        while not self._stopped.is_set():
            try:
                await self._listen()
            except Unavailable as error:
                self._failures += 1
                if self._failures == 1:
                    log.warning("listen_interrupted", error=str(error.__cause__ or error))
            finally:
                self._wakeups.listening = False
            await wait_for(self._stopped, backoff_s(max(self._failures, 1)))

    async def _listen(self) -> None:
        async with notifications.subscribed(self._db, self._hear) as subscription:
            log.info("listening", failed_attempts=self._failures)
            self._failures = 0
            self._wakeups.listening = True
            self._wakeups.wake_all()  # after LISTEN took effect, so that nothing falls in between
            self._subscription = subscription
            try:
                while not self._stopped.is_set() and not await wait_for(subscription.lost, jittered(CHECK_INTERVAL_S)):
                    await subscription.check()
            finally:
                self._subscription = None

    def _hear(self, text: str) -> None:
        sender, _, payload = text.partition(" ")
        if sender != self._sender:
            self._wakeups.heard(payload)


class Notifier:
    """Sends what ``wakeups`` has for other replicas: at once when idle, together while busy."""

    def __init__(self, db: Database, wakeups: Wakeups, sender: str) -> None:
        self._db = db
        self._wakeups = wakeups
        self._sender = sender
        self._stopped = asyncio.Event()
        self._connection: Connection | None = None
        self._failures = 0

    def stop(self) -> None:
        """``run`` sends what is left and returns."""
        self._stopped.set()
        self._wakeups.outgoing.set()

    async def run(self) -> None:
        try:
            while not self._stopped.is_set():
                await self._wakeups.outgoing.wait()
                await self._send()
                await wait_for(self._stopped, backoff_s(self._failures) if self._failures else COALESCE_S)
            await self._send()
        finally:
            await self._disconnect()

    async def _send(self) -> None:
        """Hints that cannot be sent are dropped: others find what they speak of by polling."""
        payloads = [f"{self._sender} {payload}" for payload in self._wakeups.take_outgoing()]
        if not payloads:
            return
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await notifications.open_sender(self._db)
            await notifications.send(self._connection, payloads)
        except Unavailable as error:
            self._failures += 1
            if self._failures == 1:
                log.warning("notify_interrupted", error=str(error.__cause__ or error))
            await self._disconnect()
        else:
            self._failures = 0

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await notifications.close(connection)
