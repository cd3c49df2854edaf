"""A background loop: one duty, done over and over until it is told to stop.

A duty is a function that does one bounded pass and says whether there is more to do at once. Whatever a pass raises,
the loop goes on: a fault in it is logged and counted, a database that is away is logged once and waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

from app import metrics
from app.domain.errors import Unavailable
from app.telemetry import log

# Loops of replicas that were started together must not stay together.
JITTER = (0.75, 1.25)
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 5.0
# After a fault of our own: it will most likely happen again, and every time is a line in the log.
FAULT_PAUSE_S = 1.0


def jittered(seconds: float) -> float:
    return seconds * random.uniform(*JITTER)


def backoff_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling, bounded, jittered."""
    return jittered(min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 16)))


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """True if ``event`` was set within so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def always() -> bool:
    return True


class Loop:
    """Calls ``once`` every ``interval_ms``, at once when woken, and again at once while it answers True.

    ``interval_ms=0`` is off: ``run`` returns immediately. ``may_run`` is asked before each pass; an election sets it.
    """

    def __init__(self, name: str, once: Callable[[], Awaitable[bool]], *, interval_ms: int) -> None:
        self.name = name
        self.may_run: Callable[[], bool] = always
        self._once = once
        self._interval_s = interval_ms / 1000
        self._woken = asyncio.Event()
        self._stopped = asyncio.Event()
        self._outages = 0  # passes in a row that found no database

    def wake(self) -> None:
        """Runs a pass soon, and one more if a pass is under way."""
        self._woken.set()

    def stop(self) -> None:
        """For good: ``run`` returns after the pass that is under way."""
        self._stopped.set()
        self._woken.set()

    async def run(self) -> None:
        if self._interval_s == 0:
            return
        while not self._stopped.is_set():
            self._woken.clear()  # before the pass, so that a wake-up during it is kept
            if await self._pass():
                await wait_for(self._woken, jittered(self._interval_s))
            else:
                await asyncio.sleep(0)

    async def _pass(self) -> bool:
        """One pass, whatever comes of it. True to rest before the next; False if there is more, or if it has rested."""
        if not self.may_run():
            return True
        try:
            more = await self._once()
        except Unavailable as unavailable:
            await self._sit_out(unavailable)
            return False
        except Exception:
            log.exception("loop_failed", loop=self.name)
            metrics.loop_failed(self.name)
            await wait_for(self._stopped, min(self._interval_s, FAULT_PAUSE_S))
            return True
        if self._outages:
            log.info("loop_recovered", loop=self.name, failed_passes=self._outages)
            self._outages = 0
        return not more

    async def _sit_out(self, unavailable: Unavailable) -> None:
        """Waits a while for the database; wake-ups do not shorten it, or every hint would become a connection."""
        self._outages += 1
        if self._outages == 1:
            log.warning("loop_interrupted", loop=self.name, error=str(unavailable.__cause__ or unavailable))
        await wait_for(self._stopped, backoff_s(self._outages))
