"""Opens the sessions of a pool, and leaves a database alone that is away.

Postgres starts a process for each attempt, also where it is only to say that it is recovering from a crash. With one
for every request that wants something, hundreds a second, it has half the processor left to recover with.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

# How long nobody tries after an attempt that failed. Also by how much later it is noticed that the database is back.
PAUSE_S = 0.1


class Connector:
    """Called in place of ``asyncpg.connect``. From a failed attempt to the next that succeeds one caller at a time
    tries, with a pause between; the others are told at once, by ConnectionError."""

    def __init__(self) -> None:
        self._failed_at: float | None = None
        self._is_trying = False

    async def __call__(self, *args: Any, **options: Any) -> Any:
        """Raises what ``asyncpg.connect`` does, and ConnectionError."""
        clock = asyncio.get_running_loop().time
        if self._failed_at is None:
            return await self._connect(*args, **options)
        if self._is_trying or clock() < self._failed_at + PAUSE_S:
            raise ConnectionError("the database was away a moment ago")
        self._is_trying = True
        try:
            return await self._connect(*args, **options)
        finally:
            self._is_trying = False

    async def _connect(self, *args: Any, **options: Any) -> Any:
        try:
            connection = await asyncpg.connect(*args, **options)
        except Exception:
            self._failed_at = asyncio.get_running_loop().time()
            raise
        self._failed_at = None
        return connection
