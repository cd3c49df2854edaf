"""The log: publishing and reading, against what the parts below can do alone."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from statistics import median

import asyncpg
import uvloop

from bench import load
from bench.client import Client, payload
from bench.report import Line, per_second, side_by_side
from bench.server import Server, empty_app, logpost

PARTITIONS = 16
SIZE = 300
APPEND = "select base_offset, published_at from append($1, $2, $3, null, $4, false, null, null, null, null, null)"


def run(*, full: bool) -> list[Line]:
    seconds, rounds = (5.0, 5) if full else (3.0, 3)
    with logpost() as server, empty_app() as empty:
        uvloop.run(declare(server.url))
        return [
            *singles(server, empty, seconds, rounds),
            *batches(server, seconds, rounds),
            *reading(server, seconds),
            *alone(server),
            *memory(server),
        ]


async def declare(url: str) -> None:
    client = await Client.open(url)
    await client.put("/v1/topics/log", {"distribution": {"partitions": PARTITIONS}})
    for group in ("one", "four"):
        await client.put(f"/v1/topics/log/groups/{group}", {"startFrom": "earliest", "maxInFlight": 1_000_000})
    await client.put("/v1/topics/plain", {})
    client.close()


def singles(server: Server, empty: str, seconds: float, rounds: int) -> list[Line]:
    body = payload(SIZE).decode()
    found: list[load.Result] = []

    def ours() -> float:
        found.append(load.run("publish", url=server.url, path="/v1/topics/plain/messages", body=body, connections=64,
                              seconds=seconds))  # fmt: skip
        return found[-1]["requests_s"]

    def theirs() -> float:
        return load.run("publish", url=empty, path="/", body=body, connections=64, seconds=seconds)["requests_s"]

    rate, ceiling = side_by_side(rounds, ours, theirs)
    p50, p99, busy = (median(each[name] for each in found) for name in ("p50_ms", "p99_ms", "busy"))
    return [
        Line("single publishes, 64 connections, of an empty ASGI callable",
             f"{per_second(rate)} of {per_second(ceiling)}", rate / ceiling, 0.7),
        Line("… their latency", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; the client used {busy:.0%} of its core"),
    ]  # fmt: skip


def batches(server: Server, seconds: float, rounds: int) -> list[Line]:
    body = load.batch_body(SIZE, 100, 1000).decode()

    def ours() -> float:
        return load.run("publish", url=server.url, path="/v1/topics/log/messages/batch", body=body, connections=8,
                        seconds=seconds, per_request=100)["messages_s"]  # fmt: skip

    def theirs() -> float:
        return uvloop.run(append_directly(server.dsn, seconds))

    rate, direct = side_by_side(rounds, ours, theirs)
    return [Line("batches of 100, 8 connections, 16 keyed partitions, of calling append directly",
                 f"{per_second(rate)} of {per_second(direct)}", rate / direct, 0.6)]  # fmt: skip


async def append_directly(dsn: str, seconds: float) -> float:
    """The same messages as arrays: eight requests' worth in one transaction, a row for each partition."""
    connection = await asyncpg.connect(dsn)
    topic, version = await connection.fetchrow("select id, version from topics where name = 'log'")
    each = payload(SIZE)
    count = 800 // PARTITIONS
    rows = [((topic << 16) + number, version, [f"key-{n}" for n in range(count)], [each] * count)
            for number in range(PARTITIONS)]  # fmt: skip
    written, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        await connection.fetchmany(APPEND, rows)
        written += count * PARTITIONS
    elapsed = time.perf_counter() - began
    await connection.close()
    return written / elapsed


def reading(server: Server, seconds: float) -> list[Line]:
    one, four = (
        load.run("consume", url=server.url, group=f"/v1/topics/log/groups/{group}", wanted=500, consumers=consumers,
                 seconds=seconds * 2)
        for group, consumers in (("one", 1), ("four", 4))
    )  # fmt: skip
    direct, arrays = uvloop.run(read_directly(server.dsn, int(one["messages"])))
    return [
        *(
            Line(f"pull 500 and ack, {who}, of reading the same rows from the view `messages`",
                 f"{per_second(found['messages_s'])} of {per_second(direct)}", found["messages_s"] / direct, 0.5)
            for who, found in (("one consumer", one), ("4 consumers", four))
        ),
        Line("… 4 consumers, of reading the same record batches as arrays",
             f"{per_second(four['messages_s'])} of {per_second(arrays)}", four["messages_s"] / arrays),
        Line("… the client", f"used {one['busy']:.0%} of its core with one, {four['busy']:.0%} with 4"),
    ]  # fmt: skip


async def read_directly(dsn: str, count: int) -> tuple[float, float]:
    connection = await asyncpg.connect(dsn)
    topic = await connection.fetchval("select id from topics where name = 'log'")
    rates = []
    for statement in (
        """select "offset", published_at, key, meta, payload from messages
           where partition_id = $1 and base_offset >= $2 order by base_offset, "offset" limit 500""",
        """select base_offset + count - 1, published_at, keys, meta, payloads from batches
           where partition_id = $1 and base_offset > $2 order by base_offset limit 10""",
    ):
        read, began = 0, time.perf_counter()
        for number in range(PARTITIONS):
            after = 0
            while rows := await connection.fetch(statement, (topic << 16) + number, after):
                read += (
                    len(rows)
                    if isinstance(rows[0]["payload" if "payload" in rows[0] else "payloads"], bytes)
                    else sum(len(row["payloads"]) for row in rows)
                )
                after = rows[-1][0] + ("payload" in rows[0])
                if read >= count:
                    break
        rates.append(read / (time.perf_counter() - began))
    await connection.close()
    return rates[0], rates[1]


def alone(server: Server) -> list[Line]:
    found = load.run("publish", url=server.url, path="/v1/topics/plain/messages", body=payload(SIZE).decode(),
                     connections=1, seconds=3.0)  # fmt: skip
    fsync = fsync_ms(server.directory)
    return [Line("a single publish with nobody else, of 2 fsyncs and 1 ms",
                 f"p50 {found['p50_ms']:.2f} ms (p99 {found['p99_ms']:.2f}), fsync p50 {fsync:.2f} ms",
                 found["p50_ms"] / (2 * fsync + 1), 1.0, at_most=True)]  # fmt: skip


def fsync_ms(directory: Path) -> float:
    """Of 8 kB appended to a file beside the database's."""
    times = []
    with (directory / "fsync").open("wb", buffering=0) as file:
        for _ in range(300):
            file.write(b"x" * 8192)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return median(times) * 1000


def memory(server: Server) -> list[Line]:
    """Resident size of the worker after some messages, and after a million more."""
    body = load.batch_body(SIZE, 100, 1000).decode()
    sizes = []
    for _ in range(2):
        written = 0.0
        while written < 500_000:
            result = load.run("publish", url=server.url, path="/v1/topics/log/messages/batch", body=body, connections=8,
                              seconds=3.0, per_request=100)  # fmt: skip
            written += result["messages_s"] * 3
        sizes.append(server.worker_memory() / 2**20)
    return [Line("memory of the worker after another half million messages, of before",
                 f"{sizes[1]:.0f} of {sizes[0]:.0f} MiB", sizes[1] / sizes[0], 1.1, at_most=True)]  # fmt: skip


if __name__ == "__main__":
    asyncio.run(declare("http://127.0.0.1:8080"))
