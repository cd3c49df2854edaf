"""Two Postgres servers, one the standby of the other, and two replicas that are led to whichever is the primary.

clients ── replica 1 ── proxy 1 ─┬─ primary ── proxy ── standby
        └─ replica 2 ── proxy 2 ─┘
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil

from app.storage import cluster as clusters
from app.storage.embedded import EmbeddedPostgres
from bench.faults.cluster import Cluster, socket_of
from bench.faults.proxy import Proxy

NAME = "standby"
STREAMING_TIMEOUT_S = 60.0
STREAMING = "select from pg_stat_replication where state = 'streaming'"


class Pair(Cluster):
    """``is_synchronous``: a commit waits for the standby's disk. ``replication``: the standby's way to the primary."""

    def __init__(self, directory: Path, *, is_synchronous: bool, replicas: int = 2) -> None:
        super().__init__(directory, replicas=replicas)
        self.is_synchronous = is_synchronous
        self.primary = self.postgres
        self.standby = EmbeddedPostgres(directory / NAME)
        self.replication: Proxy | None = None

    async def start(self) -> None:
        await self.primary.start()
        self.replication = await Proxy(socket_of(self.primary)).start()
        await _base_backup(self.primary, self.standby, self.replication)
        await self.standby.start()
        await self._until_streaming()
        if self.is_synchronous:  # after the copy was made, which must not wait for a standby of its own
            await self.execute(f"alter system set synchronous_standby_names = '{NAME}'")
            await self.execute("select pg_reload_conf()")
        await super().start()

    async def fail_over(self) -> None:
        """The primary is killed for good, the standby promoted, and the replicas led to it."""
        assert self.replication is not None
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for process in self.postgres_tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await self.primary.wait()
        self.replication.refuse()
        self.replication.reset()
        await asyncio.sleep(0.3)  # what is asked of the old one meanwhile fails
        self.postgres = self.standby
        await self.execute("select pg_promote(true, 60)", timeout_s=90)
        self._keep()
        self.lead_to(self.standby)

    def lead_to(self, postgres: EmbeddedPostgres) -> None:
        """Breaks the replicas' connections; new ones are to this server."""
        for proxy in self.proxies:
            proxy.server = socket_of(postgres)
            proxy.reset()

    async def stop(self) -> None:
        await super().stop()
        for postgres in (self.primary, self.standby):
            if postgres.pid is not None:
                postgres.abort()
            await postgres.stop()
        if self.replication is not None:
            await self.replication.stop()

    async def _until_streaming(self) -> None:
        async with asyncio.timeout(STREAMING_TIMEOUT_S):
            # Only Postgres knows when.
            while not await self.execute(STREAMING):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def _base_backup(primary: EmbeddedPostgres, standby: EmbeddedPostgres, way: Proxy) -> None:
    """A copy of the running primary, that will follow it through ``way``."""
    standby.claim()
    account = clusters.account_for(primary.cluster)
    standby.cluster.mkdir(mode=0o700)
    if account is not None:
        os.chown(standby.cluster, account.uid, account.gid)
    parts = urlsplit(primary.dsn)
    address = f"host=127.0.0.1 port={way.port} user={parts.username} password={parts.password} sslmode=disable"
    command = [
        f"{clusters.programs(account)}/pg_basebackup", "-D", clusters.name_for_postgres(standby.cluster, account),
        "-d", f"{address} application_name={NAME}", "--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf",
    ]  # fmt: skip
    identity = account.as_popen() if account else {}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=standby.cluster, env=clusters.ENVIRONMENT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=clusters.end_with_parent, **identity,
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise asyncpg.InterfaceError(f"pg_basebackup failed: {output.decode(errors='replace')[-2000:]}")
