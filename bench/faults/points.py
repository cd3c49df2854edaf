"""Failpoints as a fault: the next one is armed, what leads to it is done, and whoever comes by dies or stands still."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from app import failpoints
from bench.faults import inside
from bench.faults.cluster import Cluster
from bench.faults.history import now
from bench.faults.plan import LOCK_TTL_MS

PATIENCE_S = 6.0
# The others stand still, beyond the leases they renew or for a moment: a start costs seconds of a small machine.
DIES = 0.4
STANDS_STILL_S = (0.3, LOCK_TTL_MS / 1000 * 1.5)

Provoke = Callable[[], Awaitable[None]]


class Points:
    """``provoked``: by the first word of a failpoint's name, what leads there where the load does not."""

    def __init__(self, cluster: Cluster, seed: int, provoked: Mapping[str, Provoke]) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)
        self._provoked = provoked
        self._doing: set[asyncio.Task[None]] = set()
        self._order: list[str] = []
        self._missed: set[str] = set()
        self._armed: set[str] = set()

    def next(self) -> str:
        """Each comes once before any comes again, and once more where nobody came by the last time."""
        if not self._order:
            self._order = [*inside.INSIDE, *failpoints.ALL, *sorted(self._missed)]
            self._missed.clear()
            self._random.shuffle(self._order)
        free = [at for at, name in enumerate(self._order) if name not in self._armed]
        return self._order.pop(free[-1] if free else -1)

    async def hit(self, name: str, *, may_kill: bool) -> tuple[int, bool]:
        """When it was hit, in nanoseconds, and whether a replica died of it. Raises TimeoutError if nobody came by."""
        dies = name in inside.INSIDE or (may_kill and self._random.random() < DIES)
        seconds = 0.0 if dies else self._random.choice(STANDS_STILL_S)
        folder = inside.folder_of(self._cluster) if name in inside.INSIDE else self._cluster.points
        armed, found = folder / name, folder / f"{name}.hit"
        found.unlink(missing_ok=True)
        self._armed.add(name)
        waiting = folder / f"{name}.arming"
        waiting.write_text(str(seconds))
        waiting.rename(armed)
        try:
            return await self._until_hit(name, found), dies and name not in inside.INSIDE
        finally:
            self._armed.discard(name)
            armed.unlink(missing_ok=True)
            found.unlink(missing_ok=True)

    async def _until_hit(self, name: str, found: Path) -> int:
        until = time.monotonic() + PATIENCE_S
        if (provoke := self._provoked.get(name.partition(".")[0])) is not None:
            # It goes on after the hit: to see what that has left.
            doing = asyncio.create_task(_again_and_again(provoke, until, found))
            self._doing.add(doing)
            doing.add_done_callback(self._doing.discard)
        while time.monotonic() < until:
            if (moment := _moment(found)) is not None:
                return moment
            await asyncio.sleep(0.02)
        self._missed.add(name)
        raise TimeoutError(name)

    async def finished(self) -> None:
        await asyncio.gather(*self._doing)


def _moment(found: Path) -> int | None:
    """What the file says, or now if it says nothing of a time; None without a file."""
    try:
        text = found.read_text().strip()
    except FileNotFoundError:
        return None
    return int(text) if len(text) > 1 else now()


async def _again_and_again(provoke: Provoke, until: float, found: Path) -> None:
    while time.monotonic() < until and _moment(found) is None:
        await provoke()
