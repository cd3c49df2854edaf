"""The programs that are measured: a real ``logpost serve``, and an empty ASGI application under the same uvicorn."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
READY = "Logpost is ready at "

# Under the very uvicorn that serves Logpost: its event loop, its parser, its deadlines for slow clients.
EMPTY = """
import sys
import uvicorn
from app.connection import Limits, connections

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})

uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http=connections(Limits()), log_config=None, access_log=False,
            server_header=False, date_header=False, proxy_headers=False, ws="none")
"""


@contextlib.contextmanager
def logpost(*, dsn: str | None = None, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server on an embedded Postgres of its own, or on ``dsn``."""
    with tempfile.TemporaryDirectory(prefix="logpost-bench-", ignore_cleanup_errors=True) as directory:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGPOST_")}
        environment |= {"LOGPOST_PORT": "0", "LOGPOST_DATA_DIR": directory, "LOGPOST_LOG_LEVEL": "warning"}
        environment |= {"LOGPOST_DATABASE_URL": dsn} if dsn else {}
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"], cwd=ROOT, env=environment | dict(settings or {}),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith(READY):
            raise RuntimeError(f"the server did not start: {line!r}")
        try:
            yield Server(process, line.removeprefix(READY).strip(), Path(directory))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            process.stdout.close()


class Server:
    def __init__(self, process: subprocess.Popen[str], url: str, directory: Path) -> None:
        self.process = process
        self.url = url
        self.directory = directory

    @property
    def dsn(self) -> str:
        """Of its embedded Postgres."""
        password = (self.directory / "postgres" / "logpost.password").read_text()
        sockets = (self.directory / "postgres" / "postmaster.pid").read_text().splitlines()[4]
        return f"postgresql://logpost:{password}@/logpost?host={sockets}"

    def worker_memory(self) -> int:
        """Bytes resident in the processes that serve requests."""
        return sum(worker.memory_info().rss for worker in self._workers())

    def worker_cpu(self) -> float:
        """Seconds of a core that they have used so far."""
        return sum(sum(worker.cpu_times()[:2]) for worker in self._workers())

    def clients(self) -> int:
        """Connections they serve."""
        port = int(self.url.rpartition(":")[2])
        found = [each for worker in self._workers() for each in worker.net_connections("tcp")]
        return sum(each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED for each in found)

    def _workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "postgres" not in child.name()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def empty_app() -> Iterator[str]:
    """An ASGI callable that reads the body and answers two bytes: what the HTTP server alone can do."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", EMPTY, str(port)], cwd=ROOT)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
