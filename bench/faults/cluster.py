"""What is tested: two real replicas, each reaching a durable Postgres of our own through a proxy of its own.

clients ── replica 1 ── proxy 1 ─┬─ Postgres
        └─ replica 2 ── proxy 2 ─┘
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import asyncpg
import psutil

from app.storage.cluster import EmbeddedPostgresFailed
from app.storage.embedded import EmbeddedPostgres
from bench.faults.plan import LOCK_TTL_MS
from bench.faults.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(__file__).parent / "testbuild"
POINTS = "failpoints"
READY_TIMEOUT_S = 180.0
# What a call of Postgres may end with while it is being broken.
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
SETTINGS = {
    "LOGPOST_SHUTDOWN_TIMEOUT_MS": "5000",
    "LOGPOST_LOCK_TTL_MS": str(LOCK_TTL_MS),
    "LOGPOST_LOG_LEVEL": "warning",
    "LOGPOST_RETENTION_INTERVAL_MS": "1000",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Replica:
    """One ``logpost serve``. Its port stays the same over restarts."""

    def __init__(self, number: int, dsn: str, directory: Path) -> None:
        self.name = f"replica-{number}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._dsn = dsn
        self._directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("LOGPOST_")}
        kept |= {"PYTHONPATH": f"{BUILD}{os.pathsep}{ROOT}", "FAULTS_POINTS": str(self._directory / POINTS)}
        ours = {
            "LOGPOST_PORT": str(self.port),
            "LOGPOST_DATABASE_URL": self._dsn,
            "LOGPOST_DATA_DIR": str(self._directory / self.name),
        }
        with (self._directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve"], cwd=ROOT, env=kept | SETTINGS | ours,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def tree(self) -> list[psutil.Process]:
        """The supervisor first."""
        if self.process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(self.process.pid)
            return [supervisor, *supervisor.children(recursive=True)]
        return []

    def workers(self) -> list[psutil.Process]:
        return self.tree()[1:]

    def signal(self, number: signal.Signals, processes: list[psutil.Process] | None = None) -> None:
        for process in self.tree() if processes is None else processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    async def kill(self) -> None:
        """kill -9 of the whole tree."""
        self.signal(signal.SIGKILL)
        await self.gone()

    async def gone(self) -> int | None:
        return await asyncio.to_thread(self.process.wait) if self.process is not None else None

    async def stop(self) -> int | None:
        """SIGTERM to the supervisor; returns its exit code."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                return await asyncio.to_thread(self.process.wait, 40)
            except subprocess.TimeoutExpired:
                await self.kill()
                return None
        return await self.gone()

    async def ready(self) -> None:
        """Raises TimeoutError with the end of its log."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline:
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with asyncio.timeout(2), session.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)
        log = (self._directory / f"{self.name}.log").read_text(errors="replace")
        raise TimeoutError(f"{self.name} did not become ready: {log[-2000:]}")


class Cluster:
    def __init__(self, directory: Path, *, replicas: int = 2) -> None:
        self.directory = directory
        self.postgres = EmbeddedPostgres(directory / "data")
        self.proxies: list[Proxy] = []
        self.replicas: list[Replica] = []
        self._count = replicas
        self._keeper: asyncio.Task[None] | None = None

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]

    @property
    def points(self) -> Path:
        """Where a file of its name arms a failpoint of the replicas."""
        return self.directory / POINTS

    async def start(self) -> None:
        self.points.mkdir(exist_ok=True)
        if self.postgres.pid is None:
            await self.postgres.start()
        self._keep()
        for number in range(1, self._count + 1):
            proxy = await Proxy(socket_of(self.postgres)).start()
            self.proxies.append(proxy)
            self.replicas.append(Replica(number, dsn_through(proxy, self.postgres), self.directory))
        # The first one migrates; the second one would wait for it all the same.
        for replica in self.replicas:
            replica.start()
        for replica in self.replicas:
            await replica.ready()

    async def execute(self, statement: str, *arguments: Any, timeout_s: float = 20.0) -> list[Any]:
        """Past the replicas and their proxies."""
        connection = await asyncpg.connect(self.postgres.dsn, timeout=timeout_s)
        try:
            return await connection.fetch(statement, *arguments, timeout=timeout_s)
        finally:
            connection.terminate()

    async def restart_everything(self) -> None:
        """Nothing that was only in a process's memory survives this."""
        for replica in self.replicas:
            await replica.kill()
        await self.stop_postgres()
        await self.postgres.start()
        self._keep()
        for replica in self.replicas:
            replica.start()
        for replica in self.replicas:
            await replica.ready()

    async def revive(self) -> None:
        """Starts replicas that have ended."""
        for replica in self.replicas:
            if replica.process is not None and replica.process.poll() is not None:
                replica.start()
                await replica.ready()

    async def stop_postgres(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self.postgres.pid is not None:
            self.postgres.abort()
            await self.postgres.wait()

    async def stop(self) -> None:
        for replica in self.replicas:
            await replica.stop()
        await self.stop_postgres()
        await self.postgres.stop()
        for proxy in self.proxies:
            await proxy.stop()

    def backends(self) -> list[psutil.Process]:
        """Postgres's processes that serve clients."""
        return [process for process in self.postgres_tree() if "[local]" in " ".join(_command(process))]

    def postgres_tree(self) -> list[psutil.Process]:
        if self.postgres.pid is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            postmaster = psutil.Process(self.postgres.pid)
            return [postmaster, *postmaster.children(recursive=True)]
        return []

    def held(self) -> dict[str, dict[str, int]]:
        """What each process holds: memory and open files. A process is named with its pid: a successor is another."""
        found: dict[str, dict[str, int]] = {}
        for replica in self.replicas:
            for process in replica.tree():
                with contextlib.suppress(psutil.Error):
                    values = {"rss": process.memory_info().rss, "fds": process.num_fds()}
                    found[f"{replica.name}/{process.pid}"] = values
        return found

    def _keep(self) -> None:
        self._keeper = asyncio.create_task(self._keep_postgres())

    async def _keep_postgres(self) -> None:
        """Starts it again whenever it has died, as a supervisor does."""
        while True:
            await self.postgres.wait()
            with contextlib.suppress(EmbeddedPostgresFailed):  # killed again while it was starting
                await self.postgres.start()


def socket_of(postgres: EmbeddedPostgres) -> str:
    """The path of its socket."""
    return f"{parse_qs(urlsplit(postgres.dsn).query)['host'][0]}/.s.PGSQL.5432"


def dsn_through(proxy: Proxy, postgres: EmbeddedPostgres) -> str:
    parts = urlsplit(postgres.dsn)
    return f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{proxy.port}{parts.path}?sslmode=disable"


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []
