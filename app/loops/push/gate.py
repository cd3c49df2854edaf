"""Gate: may anything be sent to the endpoint now? All replicas obey one state of it, kept in the database.

While all is well nobody writes, and who pushes reads it some times a second. What changes it is rare: a failure, a
recovery, an answer that asks for time, and, in groups with a rate limit, the tokens of the next few messages.
"""

from __future__ import annotations

import asyncio

from app.domain import endpoint as endpoints
from app.domain import rate
from app.domain.breaker import CLOSED
from app.domain.endpoint import Endpoint
from app.domain.errors import Unavailable
from app.storage import endpoints as store
from app.storage.database import Database
from app.storage.endpoints import Change, Seen
from app.telemetry import log

# How old a replica's picture may be when it sends.
FRESH_S = 0.05
# Tokens that were not used within this are void: elsewhere the bucket has filled up meanwhile.
TOKEN_S = 0.1
# How long a probe may take beyond its request's deadline before another one is sent.
PROBE_GRACE_MS = 5000


class Gate:
    """Of one group in one process."""

    def __init__(self, db: Database, group_id: int) -> None:
        self.per_second: float | None = None
        self.timeout_ms = 0
        self._db = db
        self._group_id = group_id
        self._clock = asyncio.get_running_loop().time
        self._seen = Seen(Endpoint(), 0)
        self._seen_at = float("-inf")
        self._is_clear = True  # as of what was seen: no wait begins by itself
        self._failures: list[tuple[str, str]] = []
        self._reporting = asyncio.Lock()
        self._turn = asyncio.Lock()
        self.waiting = 0
        self._tokens = 0
        self._tokens_at = float("-inf")

    @property
    def now(self) -> int:
        """The database's time."""
        return self._seen.now + round((self._clock() - self._seen_at) * 1000)

    @property
    def is_trying(self) -> bool:
        """Half open: one message may go, to see."""
        return self._seen.endpoint.breaker.openings > 0

    async def refresh(self, *, must: bool = False) -> None:
        """Looks again unless it has just done so. Raises DatabaseUnavailable."""
        if must or self._clock() - self._seen_at > FRESH_S:
            self._note(await store.read(self._db, self._group_id))

    def wait_ms(self) -> int:
        """How long nothing may be sent, as far as is known."""
        return self._seen.endpoint.wait_ms(self.now) if self._seen_at > 0 else 0

    def is_shut(self, message: str) -> bool:
        if self._is_clear:
            return False
        breaker = self._seen.endpoint.breaker
        return self.wait_ms() > 0 and breaker.probe != message

    async def admit(self, message: str) -> bool:
        """Waits for a token, and while half open for the right to be the probe. Raises DatabaseUnavailable."""
        if self.per_second is not None:
            await self._token(self.per_second)
        if not self.is_trying:
            return not self.is_shut(message)
        permitted = False

        def ask(endpoint: Endpoint, now: int) -> Endpoint:
            nonlocal permitted
            probe_ms = self.timeout_ms + PROBE_GRACE_MS
            endpoint, permitted = endpoints.permit(endpoint, message, now, probe_ms=probe_ms)
            return endpoint

        await self._change(ask)
        return permitted

    def is_probe(self, message: str) -> bool:
        return self._seen.endpoint.breaker.probe == message

    async def succeeded(self) -> None:
        if self._seen.endpoint.breaker != CLOSED:
            was_open = self.is_trying
            await self._told(endpoints.succeeded)
            if was_open:
                log.info("push_endpoint_recovered", group_id=self._group_id)

    async def failed(self, message: str, reason: str) -> None:
        """Failures that come together are written together."""
        if self.is_trying and not self.is_probe(message):
            return  # a straggler: it was sent before the breaker opened
        self._failures.append((message, reason))
        async with self._reporting:
            failures, self._failures = self._failures, []
            if failures:
                was_open = self.is_trying
                await self._told(lambda endpoint, now: endpoints.failed(endpoint, failures, now))
                if self.is_trying and not was_open:
                    log.warning("push_endpoint_down", group_id=self._group_id, reason=reason)

    async def throttled(self, delay_ms: int, reason: str) -> None:
        # Here at once, whatever becomes of the database.
        mine = endpoints.throttled(self._seen.endpoint, delay_ms, reason, self.now)
        self._seen, self._is_clear = Seen(mine, self._seen.now), False
        await self._told(lambda endpoint, now: endpoints.throttled(endpoint, delay_ms, reason, now))

    async def abandoned(self, message: str) -> None:
        """It ended without telling anything of the endpoint: another may probe."""
        if self.is_probe(message):
            await self._told(lambda endpoint, _now: endpoints.abandoned(endpoint, message))

    async def _token(self, per_second: float) -> None:
        self.waiting += 1
        try:
            async with self._turn:
                while self._tokens == 0 or self._clock() - self._tokens_at > TOKEN_S:
                    wait_ms = await self._take(per_second)
                    if self._tokens == 0:
                        await asyncio.sleep(wait_ms / 1000)
                self._tokens -= 1
        finally:
            self.waiting -= 1

    async def _take(self, per_second: float) -> int:
        want = min(self.waiting, int(rate.burst(per_second)))
        wait_ms = 0

        def take(endpoint: Endpoint, now: int) -> Endpoint:
            nonlocal wait_ms
            endpoint, self._tokens, wait_ms = endpoints.take(endpoint, per_second, want, now)
            return endpoint

        await self._change(take)
        self._tokens_at = self._clock()
        return max(wait_ms, 1)

    async def _told(self, change: Change) -> None:
        """A change that is only news of the endpoint: lost if the database is away."""
        try:
            await self._change(change)
        except Unavailable as error:
            log.warning("push_endpoint_unrecorded", group_id=self._group_id, error=str(error))

    async def _change(self, change: Change) -> None:
        self._note(await store.change(self._db, self._group_id, change))

    def _note(self, seen: Seen) -> None:
        self._seen, self._seen_at = seen, self._clock()
        self._is_clear = seen.endpoint.wait_ms(seen.now) == 0
