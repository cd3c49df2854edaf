"""Starts the children, starts again those that die, stops them in order."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import sys
from typing import Any

from app import metrics
from app.serve.address import CannotServe, bound_sockets, refused, url
from app.serve.child import WorkerProcess
from app.settings import Settings
from app.storage.cluster import EmbeddedPostgresFailed
from app.storage.embedded import EmbeddedPostgres
from app.storage.migrate import migrate
from app.telemetry import log

BACKLOG = 2048
# Over and above shutdownTimeoutMs: what a worker needs to cut off the rest and to close its application.
CLOSE_GRACE_S = 10.0
# What is left to anybody after a second signal.
HASTE_S = 5.0
# A child that ran this long was well: its next death is its first.
STEADY_S = 60.0
MAX_PAUSE_S = 10.0
# A worker that has never been ready and dies this often will not do better.
MAX_FALSE_STARTS = 3


class Supervisor:
    """The first SIGTERM, SIGINT or SIGHUP stops it in order, the second hurries it, the third kills what is left."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._postgres = None if settings.database_url else EmbeddedPostgres(settings.data_dir)
        self._listeners: list[socket.socket] = []
        self._workers: set[WorkerProcess] = set()
        self._announced = False
        self._shared: dict[str, str] = {}
        self._told = [asyncio.Event() for _ in ("stop", "hurry", "kill")]

    async def serve(self) -> int:
        """Returns 0 after a clean stop. Raises CannotServe and what the database's start may raise."""
        if self._settings.workers == 1:  # its counters are its own, and stay in memory
            return await self._serve()
        with metrics.shared() as self._shared:
            return await self._serve()

    async def _serve(self) -> int:
        self._listen_to_signals()
        stop, _, _ = self._told
        try:
            if self._postgres is not None:
                self._postgres.claim()
            self._listeners = bound_sockets(self._settings.host, self._settings.port)
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(self._run())
                waiting = group.create_task(stop.wait())
                await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
                serving.cancel()
                waiting.cancel()
        except BaseExceptionGroup as group:
            raise first_error(group) from group
        finally:
            clean = await self._stop()
        return 0 if clean else 1

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
                loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        next((event for event in self._told if not event.is_set()), self._told[-1]).set()

    async def _run(self) -> None:
        dsn = self._settings.database_url
        if self._postgres is not None:
            await self._postgres.start()
            dsn = self._postgres.dsn
        assert dsn is not None
        await migrate(dsn)
        port = self._listen()
        settings = self._settings.model_copy(update={"database_url": dsn, "port": port})
        ready = [asyncio.Event() for _ in range(settings.workers)]
        async with asyncio.TaskGroup() as group:
            if self._postgres is not None:
                group.create_task(self._keep_postgres(self._postgres))
            for event in ready:
                group.create_task(self._keep_worker(settings, event))
            for event in ready:
                await event.wait()
            self._announced = True
            sys.stdout.write(f"Logpost is ready at {url(settings.host, port)}\n")
            sys.stdout.flush()

    def _listen(self) -> int:
        """From here on clients wait for the first worker; before, they are refused. Returns the port."""
        for listener in self._listeners:
            try:
                listener.listen(BACKLOG)
            except OSError as error:
                raise refused(self._settings.host, self._settings.port, error) from error
        port: int = self._listeners[0].getsockname()[1]
        return port

    async def _keep_postgres(self, postgres: EmbeddedPostgres) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            code = await postgres.wait()
            log.error("embedded_postgres_died", code=code)
            failures = 1 if loop.time() - began > STEADY_S else failures + 1
            if failures > 1:
                await asyncio.sleep(pause_s(failures))
            try:
                await postgres.start()
            except EmbeddedPostgresFailed as error:
                log.error("embedded_postgres_not_started", error=str(error))
            else:
                log.warning("embedded_postgres_restarted", pid=postgres.pid)

    async def _keep_worker(self, settings: Settings, ready: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            worker = await WorkerProcess.start(settings, self._listeners, self._shared)
            self._workers.add(worker)
            if await worker.ready():
                log.info("worker_ready", pid=worker.pid)
                ready.set()
            code = await worker.wait()
            self._workers.discard(worker)
            failures = 1 if loop.time() - began > STEADY_S else failures + 1
            if not self._announced and failures >= MAX_FALSE_STARTS:
                raise CannotServe(f"A worker ended with code {code} before it was ready; see the log above.")
            pause = pause_s(failures)
            log.error("worker_died", pid=worker.pid, code=code, restart_in_ms=round(pause * 1000))
            await asyncio.sleep(pause)

    async def _stop(self) -> bool:
        """Workers first, Postgres last. True if nobody had to be killed."""
        for listener in self._listeners:
            listener.close()
        clean = await self._stop_workers()
        if self._postgres is not None:
            await self._stop_postgres(self._postgres)
        return clean

    async def _stop_workers(self) -> bool:
        _, hurry, kill = self._told
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        await self._wait(self._workers, hurry, self._settings.shutdown_timeout_ms / 1000 + CLOSE_GRACE_S)
        if left := {worker for worker in self._workers if worker.running}:
            for worker in left:
                worker.signal(signal.SIGTERM)
            await self._wait(left, kill, HASTE_S)
        left = {worker for worker in left if worker.running}
        for worker in left:
            log.error("worker_killed", pid=worker.pid)
            worker.signal(signal.SIGKILL)
            await worker.wait()
        return not left

    async def _stop_postgres(self, postgres: EmbeddedPostgres) -> None:
        _, hurry, kill = self._told
        stopping = asyncio.ensure_future(postgres.stop())
        await first_of(stopping, hurry, None)
        await first_of(stopping, kill, HASTE_S)
        if not stopping.done():
            log.error("embedded_postgres_aborted")
            postgres.abort()
        await stopping

    async def _wait(self, workers: set[WorkerProcess], interrupt: asyncio.Event, timeout_s: float) -> None:
        if workers:
            ends: asyncio.Future[Any] = asyncio.gather(*(worker.wait() for worker in workers))
            await first_of(ends, interrupt, timeout_s)


def pause_s(failures: int) -> float:
    """0.1 s doubling to 10 s, with jitter: several workers often die of the same thing."""
    return min(0.1 * 2.0 ** min(failures - 1, 10), MAX_PAUSE_S) * random.uniform(0.5, 1.0)


async def first_of(work: asyncio.Future[Any], interrupt: asyncio.Event, timeout_s: float | None) -> None:
    """Returns when ``work`` is done, ``interrupt`` is set or the time is over, without ending ``work``."""
    interrupted = asyncio.ensure_future(interrupt.wait())
    await asyncio.wait({work, interrupted}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    interrupted.cancel()


def first_error(group: BaseException) -> BaseException:
    """What went wrong, out of the groups that task groups make of it."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
