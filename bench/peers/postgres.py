"""The Postgres of the peers that are made of SQL: the same binaries and settings as Logpost's own, one for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg

from app.storage.embedded import EmbeddedPostgres


class OnPostgres:
    """The half of a driver that they share."""

    durability = "COMMIT of a Postgres like Logpost's, with the same settings: an fsync"
    durable = True
    copies = True

    async def start(self, directory: Path) -> None:
        self._postgres = EmbeddedPostgres(directory)
        await self._postgres.start()
        self.connection: asyncpg.Connection[Any] = await asyncpg.connect(self.place)
        await self.install()

    async def install(self) -> None:
        """Makes the tables and functions."""
        raise NotImplementedError

    @property
    def place(self) -> str:
        return self._postgres.dsn

    async def size_on_disk(self) -> int:
        size: int = await self.connection.fetchval("select pg_database_size(current_database())")
        return size

    async def stop(self) -> None:
        await self.connection.close()
        self._postgres.abort()  # what it holds is not needed any more
        await self._postgres.stop()
