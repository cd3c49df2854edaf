"""A peer's server program: found, started in a directory of its own, and ended with everything it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import psutil

from app.storage.cluster import end_with_parent

START_S = 60.0
STOP_S = 20.0
# Where packages and ``go install`` put programs, beside the PATH.
PLACES = ("/usr/sbin", "/usr/local/bin", "/usr/local/go/bin", str(Path.home() / "go" / "bin"))


def find(name: str, variable: str) -> str:
    """The path of a program: what the environment variable says, or wherever it is. Empty if it is not here."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *PLACES])
    return os.environ.get(variable, "") or shutil.which(name, path=path) or ""


def version_of(program: str, *arguments: str) -> str:
    found = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20, check=False)
    return (found.stdout or found.stderr).strip()


class Program:
    """A running server. It ends with us, however we end."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    def start(cls, command: Sequence[str], directory: Path, extra: Mapping[str, str] | None = None) -> Program:
        log = directory / f"{Path(command[0]).name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=directory, env={**os.environ, **(extra or {})}, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
                preexec_fn=partial(end_with_parent, signal.SIGTERM),  # noqa: PLW1509 - before any thread of ours
            )  # fmt: skip
        return cls(process, log)

    async def listens(self, port: int) -> None:
        """Until it takes connections. Raises RuntimeError with its last words if it ends, or takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                while self._process.poll() is None:
                    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                        return
                    await asyncio.sleep(0.05)
        raise RuntimeError(f"{self._log.stem} did not start: {self._log.read_text(errors='replace')[-2000:]}")

    async def stop(self) -> None:
        family: list[subprocess.Popen[bytes] | psutil.Process] = []
        if self.runs:
            family = [self._process, *psutil.Process(self._process.pid).children(recursive=True)]
            self._process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self._ended, family)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def _ended(self, family: Sequence[subprocess.Popen[bytes] | psutil.Process]) -> None:
        for each in family:
            with contextlib.suppress(psutil.Error):
                try:
                    each.wait(STOP_S)
                except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
                    each.kill()
        self._process.wait()


def size_of(directory: Path) -> int:
    """Bytes that its files take up on the disk."""
    total = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(OSError):
                total += Path(folder, name).stat().st_blocks * 512
    return total
