"""One process that serves requests: uvicorn on the supervisor's listening sockets. ``python -m app.worker FD …``

The first descriptor is the supervisor's channel: "ready" is written to it once the application says so, and its end
means that the supervisor is dead. Then we die too, at once: the port has to be free for the next one, and nothing
here is worth keeping. The others are listening sockets. Settings come from the environment.

The first SIGTERM or SIGINT begins the drain: no new connections, no new requests on the old ones, and ``drain()`` of
the application, so that long polls and streams end early. What runs has until shutdownTimeoutMs, or until the next
signal; then it is cut off with a 503. Then the application puts away what it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import threading
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from app import telemetry
from app.connection import Limits, connections
from app.main import create_app
from app.settings import Settings
from app.storage.cluster import end_with_parent
from app.telemetry import log

READY = b"ready\n"
BACKLOG = 2048
# Files and database connections a worker may have open beside its clients' connections.
OTHER_FILES = 256
POLL_S = 0.05
MAX_POLL_S = 1.0
# New objects before the young ones are looked at: a request that waits for its commit keeps a few dozen.
GARBAGE = 10_000
# After a cut: time for its 503s to be written, and for the application to put away what it holds.
CUT_GRACE_S = 1.0
CLOSE_GRACE_S = 8.0


class Worker(uvicorn.Server):
    """uvicorn's server without its ten wake-ups a second, and with a drain that ends."""

    def __init__(self, config: uvicorn.Config, channel: socket.socket, *, drain_s: float) -> None:
        super().__init__(config)
        self._channel = channel
        self._drain_s = drain_s
        self._stopping = asyncio.Event()
        self._hastened = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        yield

    def _signalled(self) -> None:
        if self._stopping.is_set():
            self._hastened.set()
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        async with asyncio.TaskGroup() as group:
            announcement = group.create_task(self._announce())
            await self._stopping.wait()
            announcement.cancel()

    async def _announce(self) -> None:
        """Tells the supervisor when the application is of use; the sockets are open before."""
        pause_s = POLL_S
        while not await answers_ready(self.config.loaded_app, self.lifespan.state):
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, MAX_POLL_S)
            if pause_s == MAX_POLL_S:
                log.warning("worker_not_ready")
        settle_memory()
        self._channel.sendall(READY)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._drain_s
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        self.config.loaded_app.drain()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self._busy():
            if clock() >= deadline or self._hastened.is_set():
                deadline = clock()
                await self._cut_off()
                break
            await asyncio.sleep(POLL_S)
        try:
            async with asyncio.timeout(max(deadline - clock(), 0) + CLOSE_GRACE_S):
                await self.lifespan.shutdown()
        except TimeoutError:
            log.error("application_not_closed")

    def _busy(self) -> bool:
        return bool(self.server_state.tasks or self.server_state.connections)

    async def _cut_off(self) -> None:
        log.warning("requests_cut_off", count=len(self.server_state.tasks))
        tasks = set(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CUT_GRACE_S)
        for connection in list(self.server_state.connections):
            connection.transport.close()


def settle_memory() -> None:
    """What there is now stays for good: a garbage collector that walks over it stops every request for 20 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, 10, 10)


async def answers_ready(app: Any, state: dict[str, Any]) -> bool:
    """True if ``GET /readyz`` is a 200. Asked in-process: on the shared socket another worker might answer."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/readyz", "raw_path": b"/readyz", "root_path": "", "query_string": b"",
        "headers": [(b"host", b"localhost")], "client": None, "server": None, "state": state.copy(),
    }  # fmt: skip
    try:
        await app(scope, receive, send)
    except Exception:
        log.exception("readiness_unknown")
        return False
    return statuses == [200]


def end_with_supervisor(channel: socket.socket) -> None:
    """Kills this process when the other end of ``channel`` is closed, which the kernel does for a dead one."""
    end_with_parent(signal.SIGKILL)  # on Linux even when no thread of ours gets to run any more

    def watch() -> None:
        while channel.recv(64):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()


def open_files(wanted: int) -> int:
    """Raises the limit of open files as far as we may and need; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        soft = target
    return wanted if soft == resource.RLIM_INFINITY else soft


def main(arguments: list[str]) -> int:
    channel, *listeners = [socket.socket(fileno=int(number)) for number in arguments]
    end_with_supervisor(channel)
    settings = Settings.load()
    telemetry.configure(settings.log_level)
    assert settings.database_url is not None, "the supervisor sets it, embedded or not"
    files = open_files(settings.max_connections + OTHER_FILES)
    limits = Limits(connections=max(min(settings.max_connections, files - OTHER_FILES), 1))
    app = create_app(settings, settings.database_url)
    config = uvicorn.Config(
        app, loop="uvloop", http=connections(limits, app.shortcut), ws="none", lifespan="on", interface="asgi3",
        backlog=BACKLOG, log_config=None, access_log=False, server_header=False, date_header=False, proxy_headers=False,
    )  # fmt: skip
    worker = Worker(config, channel, drain_s=settings.shutdown_timeout_ms / 1000)
    worker.run(sockets=listeners)
    return 0 if worker.started else STARTUP_FAILURE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
