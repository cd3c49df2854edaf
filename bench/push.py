"""Push: deliveries a second beside the bare client, how soon they come, and a receiver that hangs."""

from __future__ import annotations

import subprocess
import time

import uvloop

from bench import load
from bench.client import payload
from bench.groups import declare, fill
from bench.report import Line, per_second
from bench.server import Server, free_port, logpost

CONCURRENCY = 64
# What a push sends beside its body, in the same number of bytes.
HEADERS = {
    "User-Agent": "Logpost/1", "Content-Type": "application/json", "webhook-id": "msg_10000_b13be46a_12345",
    "webhook-timestamp": "1764000000", "webhook-signature": "v1," + "x" * 44, "Logpost-Topic": "pushed",
    "Logpost-Group": "fast", "Logpost-Partition": "0", "Logpost-Offset": "12345", "Logpost-Attempt": "1",
    "Logpost-Max-Attempts": "4", "Logpost-Ack-Id": "x" * 40, "Logpost-Key": "key-123",
}  # fmt: skip


def run(*, full: bool) -> list[Line]:
    with logpost() as server:
        return [*deliveries(server, 40_000 if full else 15_000, 5 if full else 3), *delays(server, 20 if full else 8)]


def receiver(port: int, wanted: int, seconds: float = 120, **options: bool) -> subprocess.Popen[str]:
    started = load.start("receive", port=port, wanted=wanted, seconds=seconds, **options)
    time.sleep(1)  # it listens by then; what comes before is retried
    return started


def deliveries(server: Server, count: int, rounds: int) -> list[Line]:
    """Turn by turn: a group that is declared beside a backlog, and the bare client against the same receiver."""
    uvloop.run(declare(server.url, "pushed", 16))
    uvloop.run(fill(server.dsn, "pushed", count))
    ours, bare = [], []
    for n in range(rounds):
        port = free_port()
        receiving = receiver(port, count)
        delivery = {"mode": "push", "url": f"http://127.0.0.1:{port}/"}
        group = {"delivery": delivery, "concurrency": CONCURRENCY, "ordering": "key"}
        uvloop.run(declare(server.url, "pushed", 16, **{f"round-{n}": group}))
        ours.append(load.finish(receiving)["requests_s"])
        receiving = receiver(port := free_port(), count)
        load.run("post", url=f"http://127.0.0.1:{port}/", count=count, concurrency=CONCURRENCY,
                 body=payload(300).decode(), headers=HEADERS)  # fmt: skip
        bare.append(load.finish(receiving)["requests_s"])
    mine, beside = sorted(ours)[rounds // 2], sorted(bare)[rounds // 2]
    return [Line(f"deliveries, concurrency {CONCURRENCY}, of the same client posting the same bytes in an empty loop",
                 f"{per_second(mine)} of {per_second(beside)}", mine / beside, 0.6)]  # fmt: skip


def delays(server: Server, seconds: float) -> list[Line]:
    """Publish to received at 200/s: by itself, and beside a group whose receiver never answers."""
    found = []
    for topic, beside in (("alone", False), ("beside", True)):
        port, hanging = free_port(), free_port()
        groups = {"healthy": {"delivery": {"mode": "push", "url": f"http://127.0.0.1:{port}/"}, "concurrency": 16}}
        if beside:
            url = f"http://127.0.0.1:{hanging}/"
            groups["hanging"] = {"delivery": {"mode": "push", "url": url}, "concurrency": 16}
        wanted = int(200 * seconds)
        started = [receiver(port, wanted, seconds + 15)]
        if beside:
            started.append(receiver(hanging, 1, seconds + 5, hangs=True))
        uvloop.run(declare(server.url, topic, 4, **groups))
        time.sleep(3)  # the dispatchers have found their groups by then: what is measured is every day, not the first
        load.run("paced", url=server.url, path=f"/v1/topics/{topic}", rate=200, seconds=seconds)
        healthy, *_ = [load.finish(each) for each in started]
        found.append(healthy)
    alone, hung = found
    return [
        Line("publish to received, 200/s: p50, of 10 ms", f"p50 {alone['p50_ms']:.1f}, p99 {alone['p99_ms']:.1f} ms",
             alone["p50_ms"] / 10, 1, at_most=True),
        Line("… p99, of 50 ms", f"{alone['p99_ms']:.1f} ms", alone["p99_ms"] / 50, 1, at_most=True),
        Line("… p99 beside a group whose endpoint hangs, of without it",
             f"{hung['p99_ms']:.1f} of {alone['p99_ms']:.1f} ms", hung["p99_ms"] / alone["p99_ms"], 1.5,
             at_most=True),
    ]  # fmt: skip
