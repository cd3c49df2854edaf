"""Real ``logpost serve`` process trees for tests: start, look inside, stop, kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
SERVE = (sys.executable, "-m", "app", "serve")
READY = "Logpost is ready at "
PATIENCE_S = 100.0


async def wait_until(condition: Callable[[], object], *, timeout_s: float = PATIENCE_S) -> None:
    """Returns when ``condition()``, awaited if need be, is true. The one place in the tests that polls.

    The deadline only matters where a test fails: it is long enough for a machine that has much else to do.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if await answer if isinstance(answer, Awaitable) else answer:
            return
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment without its LOGPOST_ settings, plus ``extra``."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("LOGPOST_")}
    return {**kept, **extra}


class Server:
    """One supervisor and its children. ``url`` is known after ``ready``."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self.process = process
        self.errors = errors
        self.url = ""

    async def ready(self, *, timeout_s: float = PATIENCE_S) -> Server:
        """Waits for the line that says so. Fails with the log if the process ends or says something else."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            line = await asyncio.to_thread(self.process.stdout.readline)
        assert line.startswith(READY), f"{line!r}\n{self.log()}"
        self.url = line.removeprefix(READY).strip()
        return self

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def log(self) -> str:
        return self.errors.read_text(errors="replace")

    def workers(self) -> list[int]:
        """Process ids of the processes that serve requests."""
        return [child.pid for child in self._children() if "postgres" not in child.name()]

    def postmaster(self) -> int:
        """Process id of the embedded Postgres."""
        (pid,) = (child.pid for child in self._children() if child.name() == "postgres")
        return pid

    def tree(self) -> list[int]:
        """Every process of this server, the supervisor first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]
        return []

    def kill_tree(self) -> None:
        """kill -9 of everything at once, the supervisor first: nobody gets to say goodbye."""
        pids = self.tree()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends the signal if it still runs; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return await self.exit_code()

    async def exit_code(self, *, timeout_s: float = PATIENCE_S) -> int:
        return await asyncio.to_thread(self.process.wait, timeout_s)

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()


class Servers:
    """Starts servers, and ends those a test leaves behind."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[Server] = []

    async def start(
        self,
        *,
        dsn: str | None = None,
        data_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        command: Sequence[str] = SERVE,
    ) -> Server:
        """A server that is ready: on ``dsn``, or else on an embedded Postgres in ``data_dir``."""
        server = self.spawn(dsn=dsn, data_dir=data_dir, env=env, args=args, command=command)
        return await server.ready()

    def spawn(
        self,
        *,
        dsn: str | None = None,
        data_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        command: Sequence[str] = SERVE,
    ) -> Server:
        """The same without waiting. Port 0: the ready line tells which one it is."""
        settings = {"LOGPOST_PORT": "0", "LOGPOST_DATA_DIR": str(data_dir or self.directory / "data")}
        if dsn is not None:
            settings["LOGPOST_DATABASE_URL"] = dsn
        errors = self.directory / f"server-{len(self.started)}.log"
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                [*command, *args], cwd=ROOT, env=clean_environment(settings | dict(env or {})),
                stdout=subprocess.PIPE, stderr=stderr, text=True,
            )  # fmt: skip
        self.started.append(server := Server(process, errors))
        return server

    async def stop_all(self) -> None:
        for server in self.started:
            try:
                await server.stop()
            except (subprocess.TimeoutExpired, TimeoutError):
                server.kill_tree()
            if server.process.stdout is not None:
                server.process.stdout.close()
