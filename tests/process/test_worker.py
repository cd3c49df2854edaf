"""A worker says when it is of use, drains in time, and dies with its supervisor."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.serve.address import bound_sockets
from tests.process.conftest import SLOWER_S, Echo, Listener, problem_of
from tests.servers import PATIENCE_S, ROOT, clean_environment, wait_until

# Before a drain of a minute, or the deadline of a body.
SOON_S = 20.0
STALLED = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123"


class WorkerUnderTest(Listener):
    def __init__(self, process: subprocess.Popen[str], channel: socket.socket, errors: Path, port: int) -> None:
        super().__init__(port, Echo())
        self.process = process
        self.channel = channel
        self.errors = errors

    def log(self) -> str:
        return self.errors.read_text()

    async def end(self) -> tuple[int, float]:
        """Its exit code, and how many seconds from now it takes to end."""
        began = time.monotonic()
        code = await asyncio.to_thread(self.process.wait, PATIENCE_S)
        return code, time.monotonic() - began


@contextmanager
def worker(directory: Path, *, drain_s: float) -> Iterator[WorkerUnderTest]:
    ours, theirs = socket.socketpair()
    listener = bound_sockets("127.0.0.1", 0)[0]
    port = listener.getsockname()[1]
    descriptors = [theirs.fileno(), listener.fileno()]
    errors = directory / "worker.log"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.echo_worker", *map(str, descriptors), str(drain_s)],
            cwd=ROOT, env=clean_environment({}), pass_fds=descriptors, stderr=stderr, text=True,
        )  # fmt: skip
    theirs.close()
    listener.close()
    try:
        ours.settimeout(PATIENCE_S)
        assert ours.recv(64) == b"ready\n", errors.read_text()
        yield WorkerUnderTest(process, ours, errors, port)
    finally:
        process.kill()
        process.wait()
        ours.close()


async def test_a_request_that_runs_is_answered_and_the_connection_closed(tmp_path: Path) -> None:
    with worker(tmp_path, drain_s=60) as running:
        async with running.peer(b"GET /slower HTTP/1.1\r\nHost: a\r\n\r\n") as peer, running.peer() as silent:
            await asyncio.sleep(SLOWER_S / 3)  # by then it runs
            running.process.send_signal(signal.SIGTERM)
            assert await silent.everything() == b""
            with pytest.raises(ConnectionRefusedError):
                await running.reply()
            status, headers, _ = await peer.response()
            assert (status, headers["connection"]) == (200, "close")
        code, seconds = await running.end()
        assert (code, seconds < SOON_S) == (0, True)
        assert running.log().splitlines() == ["draining", "closed"]


async def test_a_stalled_request_holds_the_end_up_for_the_drain_only(tmp_path: Path) -> None:
    with worker(tmp_path, drain_s=0.5) as running:
        async with running.peer(STALLED) as peer:
            await asyncio.sleep(1)  # by then it is there
            running.process.send_signal(signal.SIGTERM)
            assert problem_of(await peer.everything())["code"] == "shutting_down"
        code, seconds = await running.end()
        assert (code, seconds < SOON_S) == (0, True)
        draining, cut, closed = running.log().splitlines()
        assert (draining, "requests_cut_off" in cut, closed) == ("draining", True, "closed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_drain_and_still_closes_the_application(
    tmp_path: Path, number: signal.Signals
) -> None:
    with worker(tmp_path, drain_s=60) as running:
        async with running.peer(STALLED) as peer:
            await asyncio.sleep(1)  # by then it is there
            running.process.send_signal(number)
            await wait_until(lambda: "draining" in running.log())
            running.process.send_signal(number)
            assert problem_of(await peer.everything())["status"] == 503
        code, seconds = await running.end()
        assert (code, seconds < SOON_S) == (0, True)
        assert "closed" in running.log()


async def test_a_worker_dies_with_its_supervisor(tmp_path: Path) -> None:
    with worker(tmp_path, drain_s=60) as running:
        running.channel.close()
        assert (await running.end())[0] == -signal.SIGKILL
