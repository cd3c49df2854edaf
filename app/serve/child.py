"""A worker as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from app.settings import PREFIX, Settings


class WorkerProcess:
    """A running ``app.worker``, and the channel it says "ready" on and dies with."""

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self._process = process
        self._channel = channel

    @classmethod
    async def start(
        cls, settings: Settings, listeners: list[socket.socket], variables: dict[str, str]
    ) -> WorkerProcess:
        """``variables``: of its environment, beside the settings."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            descriptors = [theirs.fileno(), *(listener.fileno() for listener in listeners)]
            process = await asyncio.create_subprocess_exec(
                # -P: not from the working directory, which may hold an "app" of its own.
                sys.executable, "-P", "-m", "app.worker", *map(str, descriptors),
                env=worker_environment(settings) | variables, pass_fds=descriptors, stdin=subprocess.DEVNULL,
                stdout=sys.stderr,  # ours has the ready line and nothing else
                start_new_session=True,  # Ctrl-C in a terminal is for us, who stop them in order
            )  # fmt: skip
        return cls(process, ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def ready(self) -> bool:
        """True when it says so, False when it ends without."""
        with contextlib.suppress(ConnectionError):
            return bool(await asyncio.get_running_loop().sock_recv(self._channel, 64))
        return False

    async def wait(self) -> int:
        """The exit code; negative is the number of a signal."""
        code = await self._process.wait()
        self._channel.close()
        return code

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def worker_environment(settings: Settings) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [ours.get("PYTHONPATH")])])
    return ours | {"PYTHONPATH": path} | settings.to_environment()
