"""``app.worker`` around the Echo application: ``python -m tests.process.echo_worker CHANNEL LISTENER DRAIN_S``."""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn

from app import telemetry
from app.connection import Limits, connections
from app.worker import Worker, end_with_supervisor
from tests.process.conftest import Echo, Receive, Send, answer


class Application:
    """Is not ready before it was asked twice, and tells of its lifespan and drain on stderr."""

    def __init__(self) -> None:
        self._echo = Echo()
        self._asked = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            sys.stderr.write("closed\n")
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["path"] == "/readyz":
            self._asked += 1
            await answer(send, 200 if self._asked > 1 else 503, b"")
        else:
            await self._echo(scope, receive, send)

    def drain(self) -> None:
        sys.stderr.write("draining\n")


if __name__ == "__main__":
    telemetry.configure("info")
    channel, listener = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    end_with_supervisor(channel)
    config = uvicorn.Config(
        Application(), loop="uvloop", http=connections(Limits()), ws="none", lifespan="on", interface="asgi3",
        log_config=None, access_log=False, server_header=False, date_header=False, proxy_headers=False,
    )  # fmt: skip
    Worker(config, channel, drain_s=float(sys.argv[3])).run(sockets=[listener])
