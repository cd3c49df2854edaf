"""Streams: telling a thousand clients the same thing, and keeping them while nothing happens."""

from __future__ import annotations

import subprocess
import sys
import time

import uvloop

from bench import load
from bench.groups import declare, statements
from bench.report import Line, Result
from bench.server import ROOT, Server, free_port, logpost

CLIENTS = 1000
RATE = 20
PATH = "/v1/topics/watched"

# Writes frames of so many bytes to every connection, and says what that cost: seconds of a core.
PLAIN = """
import asyncio, sys, time
import uvloop
port, clients, rate, count, size = map(int, sys.argv[1:])

async def main():
    transports, full = [], asyncio.Event()
    class Told(asyncio.Protocol):
        def connection_made(self, transport):
            transports.append(transport)
            if len(transports) == clients:
                full.set()
    await asyncio.get_running_loop().create_server(Told, "127.0.0.1", port, backlog=1000)
    await full.wait()
    await asyncio.sleep(1)
    cpu = time.process_time()
    for n in range(count):
        frame = b'data: {"at":%f,' % time.time()
        frame = frame.ljust(size - 2, b"x") + bytes((10, 10))
        for transport in transports:
            if not transport.is_closing():
                transport.write(frame)
        await asyncio.sleep(1 / rate)
    print(time.process_time() - cpu)

uvloop.run(main())
"""


def run(*, full: bool) -> list[Line]:
    seconds = 20 if full else 8
    with logpost() as server:
        uvloop.run(declare(server.url, "watched", 4))
        return [*idle(server), *watched(server, seconds)]  # memory first: what was used once is kept


def watched(server: Server, seconds: int) -> list[Line]:
    count = RATE * seconds
    watching = load.start("watch", url=server.url, path=f"{PATH}/stream", clients=CLIENTS, wanted=count,
                          seconds=seconds + 30)  # fmt: skip
    connected(server, CLIENTS)
    cpu = server.worker_cpu()
    load.run("paced", url=server.url, path=PATH, rate=RATE, seconds=seconds)
    found = load.finish(watching)
    cpu = server.worker_cpu() - cpu
    bare = plain(count, round(found["bytes"]))
    events = CLIENTS * count
    return [
        Line(f"{CLIENTS} clients of a topic stream, {RATE}/s of 300 bytes: events that came, of those there were",
             f"{found['events']:,.0f} of {events:,}; p50 {found['p50_ms']:.1f}, p99 {found['p99_ms']:.1f} ms; "
             f"the clients used {found['busy']:.0%} of their core", found["events"] / events, 1),
        Line("… the server's processor time for an event, of writing the same bytes to plain sockets",
             f"{cpu / events * 1e6:.1f} of {bare / events * 1e6:.1f} µs", cpu / bare),
    ]  # fmt: skip


def plain(count: int, size: int) -> float:
    """Seconds of a core that writing costs alone."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", PLAIN, *map(str, (port, CLIENTS, RATE, count, size))], cwd=ROOT,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(1)
    load.run("watch", url=f"http://127.0.0.1:{port}", path="/", clients=CLIENTS, wanted=count, seconds=60)
    return float(server.communicate()[0])


def idle(server: Server) -> list[Line]:
    found = [hold(server, clients) for clients in (1, CLIENTS)]
    one, many = found
    each = (many["memory"] - one["memory"]) / (CLIENTS - 1)
    return [
        Line(f"memory of one of {CLIENTS} idle streams, of 60 kB", f"{each / 1000:.1f} kB", each / 60_000, 1,
             at_most=True),
        Line(f"statements/s with {CLIENTS} idle streams, beside one", f"{many['statements']:.1f} and "
             f"{one['statements']:.1f}/s", many["statements"] - one["statements"], 1, at_most=True),
    ]  # fmt: skip


def hold(server: Server, clients: int) -> Result:
    connected(server, 0)
    holding = load.start("watch", url=server.url, path=f"{PATH}/stream", clients=clients, wanted=0, seconds=14)
    connected(server, clients)
    rate = uvloop.run(statements(server.dsn, 6))
    memory = server.worker_memory()
    load.finish(holding)
    return {"memory": memory, "statements": rate}


def connected(server: Server, clients: int) -> None:
    """Waits until so many are served."""
    until = time.monotonic() + 30
    while server.clients() != clients and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1)  # for what each is told first
