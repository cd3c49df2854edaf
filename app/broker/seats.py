"""Seats: how many streams of a namespace are open, on all replicas, and whether there may be one more.

A process knows its own exactly and says so before it opens one, and every few seconds; what the others say is added. So
the limit holds for all of them, but for streams that are opened at the very same moment on several replicas. A seat
that comes free is known elsewhere with the next report: REPORT_INTERVAL_MS, or SEEN_FOR after a replica died.

Who comes while this process is asking waits for the next question, and shares it with all who came meanwhile: when
everybody comes back after a restart, a statement answers many.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from app.domain.errors import Fault, TooMany
from app.storage import open_streams
from app.storage.database import Database

REPORT_INTERVAL_MS = 3000
# When one that found no seat may come again; EventSource does so by itself.
RETRY_S = 5


@dataclass(eq=False, slots=True)
class Row:
    """Of a namespace. ``taken``: here, also by those who are still asking."""

    taken: int = 0
    elsewhere: int = 0
    heard_at: float = float("-inf")
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Seats:
    """One per process. ``most`` for each namespace."""

    def __init__(self, db: Database, replica_id: str, most: int) -> None:
        self._db = db
        self._replica_id = replica_id
        self._most = most
        self._rows: dict[int, Row] = {}

    def taken(self, namespace_id: int) -> int:
        """In this process."""
        row = self._rows.get(namespace_id)
        return 0 if row is None else row.taken

    async def take(self, namespace_id: int) -> None:
        """Raises TooMany, DatabaseUnavailable. What was taken is given back with ``leave``."""
        row = self._rows.setdefault(namespace_id, Row())
        row.taken += 1
        here = row.taken
        try:
            if here > self._most:
                raise self._too_many()
            await self._ask(namespace_id, row)
            if here + row.elsewhere > self._most:
                raise self._too_many()
        except BaseException:
            row.taken -= 1
            raise

    def leave(self, namespace_id: int) -> None:
        self._rows[namespace_id].taken -= 1

    async def report_once(self) -> bool:
        """Says what is taken here, and once more when nothing is. False: there is never more to do at once."""
        rows = dict(self._rows)
        if not rows:
            return False
        async with AsyncExitStack() as stack:
            for row in rows.values():  # or this would be written over a newer number
                await stack.enter_async_context(row.turn)
            counts = {namespace_id: row.taken for namespace_id, row in rows.items() if row.taken}
            await open_streams.report(self._db, self._replica_id, counts)
        for namespace_id, row in rows.items():
            if not row.taken and namespace_id not in counts:
                del self._rows[namespace_id]
        return False

    async def _ask(self, namespace_id: int, row: Row) -> None:
        clock = asyncio.get_running_loop().time
        came = clock()
        async with row.turn:
            if row.heard_at >= came:  # somebody asked after we came, and told of us
                return
            asked = clock()
            row.elsewhere = await open_streams.add(self._db, namespace_id, self._replica_id, row.taken)
            row.heard_at = asked

    def _too_many(self) -> TooMany:
        reason = f"at most {self._most} streams of a namespace may be open (LOGPOST_MAX_STREAMS)"
        return TooMany(f"There are as many streams as may be: {reason}.", [Fault(reason)], retry_after=RETRY_S)
