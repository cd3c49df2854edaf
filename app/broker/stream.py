"""Stream: a consumer that goes on pulling in this process, for one client, as long as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from app.broker.catalog import GroupKey
from app.broker.demand import Demand, Pulled
from app.broker.line import Patience
from app.broker.pull import Puller
from app.broker.window import Windows
from app.domain.errors import ShuttingDown, Unavailable
from app.domain.group import Group
from app.telemetry import log

# Payload bytes taken at once.
PULL_BYTES = 1024 * 1024
# Longer than a stream lasts.
WAIT_MS = 3_600_000
# How long a stream that ends by our doing waits for its client to settle what it has.
DRAIN_S = 3.0


class GroupStream:
    """``size``: how much the client may have unsettled. ``encode``: what it is sent for a pull.

    ``chunks`` is to be read once, and then closed.
    """

    def __init__(
        self,
        puller: Puller,
        windows: Windows,
        *,
        key: GroupKey,
        group: Group,
        owner: str,
        size: int,
        encode: Callable[[Pulled], bytes],
    ) -> None:
        self._puller = puller
        self._windows = windows
        self._key = key
        self._group = group
        self._owner = owner
        self._encode = encode
        self._window = windows.open(group, size)
        self._patience: Patience | None = None
        self._is_draining = False
        self._has_ended = False
        self._client_closed = False
        self._timer: asyncio.TimerHandle | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises TopicNotFound, GroupNotFound, Unavailable."""
        while not self._has_ended:
            if self._is_draining and not self._window.leases:
                return
            if self._is_draining or self._window.room <= 0:
                await self._window.news()
                continue
            pulled = await self._pull()
            if pulled is not None and pulled.taken:
                yield self._encode(pulled)

    def drain(self) -> None:
        """``chunks`` ends once the client has settled what it was sent, or has not for DRAIN_S."""
        if not self._is_draining:
            self._is_draining = True
            self._timer = asyncio.get_running_loop().call_later(DRAIN_S, self._stop)
        self._interrupt()

    def end(self) -> None:
        """The client is gone."""
        self._client_closed = True
        self._stop()

    def heartbeat(self) -> bytes:
        return b""

    def bookmark(self) -> None:
        """A group knows itself where it is."""

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._windows.close(self._window, self._group, client_closed=self._client_closed)
        except Unavailable as error:
            log.info("stream_not_handed_back", group=self._group.name, error=str(error))

    async def _pull(self) -> Pulled | None:
        config = self._group.config
        lease_ms = min(self._windows.lock_ttl_ms, config.ack_timeout_ms)
        self._patience = Patience(WAIT_MS)
        wanted = min(self._window.room, 1000)
        demand = Demand(self._owner, wanted, PULL_BYTES, lease_ms, group_id=self._window.group_id)
        try:
            pulled = await self._puller.pull(self._key, demand, self._patience)
        except ShuttingDown:
            self.drain()
            return None
        finally:
            self._patience = None
        self._group = pulled.group
        self._window.add(pulled, lease_ms)
        return pulled

    def _stop(self) -> None:
        self._has_ended = True
        self._interrupt()

    def _interrupt(self) -> None:
        if self._patience is not None:
            self._patience.end()
        self._window.wake()
