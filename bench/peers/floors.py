"""What the parts below can do alone, in the same minutes: the disk, a bare table, an empty application, the client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from app.storage.embedded import EmbeddedPostgres
from bench.client import payload
from bench.peers import load
from bench.peers.program import find
from bench.peers.redis_streams import Redis
from bench.peers.scenarios import SIZE
from bench.server import ROOT, empty_app, free_port

BATCH = 1000
UNNEST = "insert into bare (body) select unnest($1::bytea[])"

# Answers every request with the same bytes, without looking at it: what remains is the client.
ANSWERS = r"""
import asyncio, sys
import uvloop

class Answers(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}")

async def main():
    await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", int(sys.argv[1]))
    await asyncio.sleep(3600)

uvloop.run(main())
"""


async def measure(seconds: float) -> dict[str, float]:
    """Each a second, by what it is called in the table."""
    with tempfile.TemporaryDirectory(prefix="floors-", ignore_cleanup_errors=True) as directory:
        place = Path(directory)
        found = {"fsyncs of 8 kB appended to a file": fsyncs(place / "file", seconds)}
        found |= await bare_table(place, seconds)
    with empty_app() as url:
        one = await load.run("http", url=url, size=SIZE, connections=64, seconds=seconds)
    with answers() as url:
        client = await load.run("http", url=url, size=SIZE, connections=64, seconds=seconds)
    found["requests of an empty ASGI application, 64 clients"] = one["rate"]
    found["requests of the HTTP client against a server that only answers"] = client["rate"]
    return found | await redis_itself(seconds)


def fsyncs(path: Path, seconds: float) -> float:
    count, began = 0, time.perf_counter()
    with path.open("wb", buffering=0) as file:
        while time.perf_counter() - began < seconds:
            file.write(b"x" * 8192)
            os.fdatasync(file.fileno())
            count += 1
    return count / (time.perf_counter() - began)


async def bare_table(directory: Path, seconds: float) -> dict[str, float]:
    """One connection, a thousand rows a commit, no more than a key beside the body."""
    postgres = EmbeddedPostgres(directory / "postgres")
    await postgres.start()
    try:
        connection = await asyncpg.connect(postgres.dsn)
        await connection.execute("create table bare (id bigint generated always as identity primary key, body bytea)")
        bodies = [payload(SIZE)] * BATCH
        rows = [(body,) for body in bodies]

        async def rate(copies: bool) -> float:
            count, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds:
                if copies:
                    await connection.copy_records_to_table("bare", records=rows, columns=["body"])
                else:
                    await connection.execute(UNNEST, bodies)
                count += BATCH
            return count / (time.perf_counter() - began)

        found = {f"rows by COPY into a bare table, {BATCH} a commit": await rate(copies=True),
                 f"rows by unnest into a bare table, {BATCH} a commit": await rate(copies=False)}  # fmt: skip
        await connection.close()
        return found
    finally:
        await postgres.stop()


@contextlib.contextmanager
def answers() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", ANSWERS, str(port)], cwd=ROOT)
    try:
        time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


async def redis_itself(seconds: float) -> dict[str, float]:
    """Redis with the client in C that comes with it: what our client in Python may have cost it."""
    peer, program = Redis(), find("redis-benchmark", "LOGPOST_BENCH_REDIS_CLIENT")
    if peer.missing() or not program:
        return {}
    with tempfile.TemporaryDirectory(prefix="floors-", ignore_cleanup_errors=True) as directory:
        await peer.start(Path(directory))
        try:
            port = peer.place.rpartition(":")[2]
            command = ["-p", port, "--csv", "-c", "8", "-P", "100", "-n", str(int(50_000 * seconds)),
                       "XADD", "s", "*", "b", payload(SIZE).decode()]  # fmt: skip
            process = await asyncio.create_subprocess_exec(program, *command, stdout=asyncio.subprocess.PIPE)
            try:
                output, _ = await asyncio.wait_for(process.communicate(), 60)
            except TimeoutError:
                process.kill()
                return {}
        finally:
            await peer.stop()
    # The name of the test, which may hold commas and quotes, then figures: the first is requests a second.
    figures = output.decode().strip().splitlines()[-1].split('","')[-7:]
    return {"XADDs of redis-benchmark, 8 clients with pipelines of 100": float(figures[0])}
