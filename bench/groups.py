"""Consumer groups: claims and settles, alone and against each other."""

from __future__ import annotations

import asyncio
import json
import time
from statistics import median
from typing import Any

import asyncpg
import uvloop

from bench import load
from bench.client import Client, ack_body, ack_ids
from bench.log import APPEND
from bench.report import Line, per_second
from bench.server import Server, logpost

# What a consumer that never stops for lack of permission is declared with.
OPEN = {"startFrom": "earliest", "maxInFlight": 1_000_000}


def run(*, full: bool) -> list[Line]:
    seconds = 6.0 if full else 4.0
    with logpost() as server:
        return [
            *parallel(server, seconds),
            *by_key(server, seconds),
            *poison(server, seconds * 2),
            *across_replicas(server, seconds * 2),
            *backlog(server, 10_000_000 if full else 1_000_000),
            *long_transaction(server, 60 if full else 15),
            *idle(server),
        ]


async def declare(url: str, topic: str, partitions: int, **groups: dict[str, Any]) -> None:
    client = await Client.open(url)
    await client.put(f"/v1/topics/{topic}", {"distribution": {"partitions": partitions}})
    for name, config in groups.items():
        await client.put(f"/v1/topics/{topic}/groups/{name}", OPEN | config)
    client.close()


async def fill(dsn: str, topic: str, count: int, *, keys: int = 1000, size: int = 300, per_row: int = 1000) -> None:
    """Appends ``count`` messages to the topic's partitions, evenly and turn by turn, ``per_row`` in a record batch."""
    connection = await asyncpg.connect(dsn)
    topic_id, version, partitions = await connection.fetchrow(
        "select id, version, partitions from topics where name = $1", topic
    )
    body = json.dumps({"note": "x" * (size - 12)}).encode()
    for start in range(0, count, per_row * partitions):
        each = min(per_row, (count - start) // partitions)
        rows = [((topic_id << 16) + number, version, [f"key-{n % keys}" for n in range(each)], [body] * each)
                for number in range(partitions)]  # fmt: skip
        await connection.fetchmany(APPEND, rows)
    await connection.close()


def parallel(server: Server, seconds: float) -> list[Line]:
    uvloop.run(declare(server.url, "wide", 16, one={}, four={}))
    uvloop.run(fill(server.dsn, "wide", 1_600_000))
    before = uvloop.run(row_writes(server.dsn))
    one = load.run(
        "consume", url=server.url, group="/v1/topics/wide/groups/one", wanted=500, consumers=1, seconds=seconds
    )
    writes = uvloop.run(row_writes(server.dsn)) - before
    four = load.run("consume", url=server.url, group="/v1/topics/wide/groups/four", wanted=500, consumers=4,
                    seconds=seconds)  # fmt: skip
    return [
        Line("pull 500 and ack by 4 consumers, 16 partitions, of one consumer's rate",
             f"{per_second(four['messages_s'])} of {per_second(one['messages_s'])}",
             four["messages_s"] / one["messages_s"], 0.5),
        Line("rows written for a batch of 500, claimed and settled", f"{writes / (one['messages'] / 500):.2f}",
             writes / (one["messages"] / 500), 4, at_most=True),
    ]  # fmt: skip


async def row_writes(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    await asyncio.sleep(1.2)  # statistics are reported with a delay
    writes: int = await connection.fetchval(
        """select sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint from pg_stat_user_tables
           where relname in ('cursors', 'leases', 'deferred', 'attempts', 'dead_letters')"""
    )
    await connection.close()
    return writes


def by_key(server: Server, seconds: float) -> list[Line]:
    uvloop.run(declare(server.url, "keyed", 1, one={"ordering": "key"}, eight={"ordering": "key"}))
    uvloop.run(fill(server.dsn, "keyed", 60_000))
    rates = [
        load.run("consume", url=server.url, group=f"/v1/topics/keyed/groups/{group}", wanted=20, consumers=consumers,
                 seconds=seconds, work_ms=5)["messages_s"]
        for group, consumers in (("one", 1), ("eight", 8))
    ]  # fmt: skip
    return [Line("key ordering, 1 partition, 1000 keys, 5 ms of work each: 8 consumers, of one's rate",
                 f"{per_second(rates[1])} of {per_second(rates[0])}", rates[1] / rates[0], 6)]  # fmt: skip


def poison(server: Server, seconds: float) -> list[Line]:
    endless = {"retries": {"max": 1000, "strategy": "fixed", "baseDelay": 50}, "ordering": "key"}
    results = []
    for topic, poison in (("quiet", ""), ("poisoned", "bad")):
        uvloop.run(declare(server.url, topic, 4, all=endless))
        results.append(
            load.run("delay", publish_url=server.url, pull_url=server.url, topic=f"/v1/topics/{topic}",
                     group=f"/v1/topics/{topic}/groups/all", rate=200, seconds=seconds, poison=poison)
        )  # fmt: skip
    return [Line("the other keys' p99 while one key fails for ever, of without it",
                 f"{results[1]['p99_ms']:.1f} of {results[0]['p99_ms']:.1f} ms",
                 results[1]["p99_ms"] / results[0]["p99_ms"], 1.5, at_most=True)]  # fmt: skip


def across_replicas(server: Server, seconds: float) -> list[Line]:
    lines = []
    with logpost(dsn=server.dsn) as other:
        for name, url, topic in (("the same replica", server.url, "near"), ("another replica", other.url, "far")):
            uvloop.run(declare(server.url, topic, 4, all={}))
            found = load.run("delay", publish_url=server.url, pull_url=url, topic=f"/v1/topics/{topic}",
                             group=f"/v1/topics/{topic}/groups/all", rate=200, seconds=seconds)  # fmt: skip
            lines.append(Line(f"publish to a waiting pull on {name}, 200/s: p50, of 5 ms",
                              f"p50 {found['p50_ms']:.1f}, p99 {found['p99_ms']:.1f} ms", found["p50_ms"] / 5, 1,
                              at_most=True))  # fmt: skip
            lines.append(Line("… p99, of 25 ms", f"{found['p99_ms']:.1f} ms", found["p99_ms"] / 25, 1, at_most=True))
    return lines


def backlog(server: Server, large: int) -> list[Line]:
    """A claim and its ack with little and with much behind them, turn by turn, and then with many groups elsewhere.

    Record batches are small, and those of a partition lie among those of others, as many publishers leave them.
    """
    for topic, count in (("shallow", 10_000), ("deep", large)):
        uvloop.run(declare(server.url, topic, 16, alone={}, crowded={}))
        uvloop.run(fill(server.dsn, topic, count, size=30, per_row=50))
    shallow, deep = uvloop.run(round_trips(server.url, "alone"))
    uvloop.run(crowd(server.url))
    _, crowded = uvloop.run(round_trips(server.url, "crowded"))
    return [
        Line(f"claim 50 and ack with {large:,} messages behind, of with 10,000",
             f"{deep:.2f} of {shallow:.2f} ms", deep / shallow, 1.5, at_most=True),
        Line("… and with 1000 groups of 16 partitions elsewhere", f"{crowded:.2f} of {deep:.2f} ms", crowded / deep,
             1.5, at_most=True),
    ]  # fmt: skip


async def round_trips(url: str, group: str, count: int = 150) -> tuple[float, float]:
    """Median milliseconds of a pull of 50 and its ack, of the topic with little behind and of the one with much."""
    client = await Client.open(url)
    times: dict[str, list[float]] = {"shallow": [], "deep": []}
    for _ in range(count):
        for topic, taken in times.items():
            began = time.perf_counter()
            ids = ack_ids(await client.post(f"/v1/topics/{topic}/groups/{group}/pull", b'{"max":50}'))
            await client.post(f"/v1/topics/{topic}/groups/{group}/ack", ack_body(ids))
            taken.append(time.perf_counter() - began)
    client.close()
    return median(times["shallow"]) * 1000, median(times["deep"]) * 1000


async def crowd(url: str, count: int = 1000) -> None:
    await declare(url, "crowd", 16, **{f"group-{n}": {} for n in range(count)})


def long_transaction(server: Server, seconds: int) -> list[Line]:
    """Claims while a transaction keeps the vacuum from removing anything."""
    uvloop.run(declare(server.url, "held", 1, before={}, during={}))
    uvloop.run(fill(server.dsn, "held", 400_000, size=30))
    before, during = uvloop.run(claims_beside(server, seconds))
    return [Line(f"claims' p99 with a transaction open for {seconds} s, of without", f"{during:.2f} of {before:.2f} ms",
                 during / before, 3, at_most=True)]  # fmt: skip


async def claims_beside(server: Server, seconds: int) -> tuple[float, float]:
    async def p99(group: str) -> float:
        found = await asyncio.to_thread(
            load.run, "consume", url=server.url, group=f"/v1/topics/held/groups/{group}", wanted=5, consumers=1,
            seconds=seconds,
        )  # fmt: skip
        return found["p99_ms"]

    before = await p99("before")
    connection = await asyncpg.connect(server.dsn)
    async with connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("select count(*) from cursors")
        during = await p99("during")
    await connection.close()
    return before, during


def idle(server: Server) -> list[Line]:
    rate = uvloop.run(statements(server.dsn, 10))
    return [Line("statements/s of an idle server with 1000 groups of 16 partitions", f"{rate:.1f}/s", rate, 20,
                 at_most=True)]  # fmt: skip


async def statements(dsn: str, seconds: int) -> float:
    """Of clients, without the autovacuum: every connection's latest statement, looked at often enough to see each."""
    connection = await asyncpg.connect(dsn)
    seen: set[tuple[int, object]] = set()
    started: set[tuple[int, object]] = set()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        rows = await connection.fetch(
            """select pid, query_start from pg_stat_activity
               where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()"""
        )
        seen |= {(row["pid"], row["query_start"]) for row in rows}
        started = started or set(seen)
        await asyncio.sleep(0.005)
    await connection.close()
    return len(seen - started) / seconds
