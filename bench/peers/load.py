"""The generators: ``python -m bench.peers.load NAME '{"peer": …}'``, a process of its own, prints what it found.

``busy`` is the part of its one core that the generator used while it measured: near 1 it is what was measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvloop

from bench.arrivals import delays_of
from bench.client import Client, payload
from bench.peers.peer import DRIVERS, Session
from bench.report import Result, percentiles

# What ends a generator that its peer does not answer.
LIMIT_S = 120.0


class Stopwatch:
    """Of wall time and of this process's processor time."""

    def __init__(self) -> None:
        self.began, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds, and ``busy``."""
        elapsed = time.perf_counter() - self.began
        return elapsed, (time.process_time() - self._cpu) / elapsed


async def sessions(peer: str, place: str, topic: str, groups: int, count: int) -> list[Session]:
    return [await DRIVERS[peer].connect(place, topic, groups) for _ in range(count)]


async def publish(
    peer: str, place: str, topic: str, groups: int, size: int, connections: int, batch: int, seconds: float
) -> Result:
    """The same over and over, each connection after its answer. ``batch`` 0 is a message by itself."""
    opened = await sessions(peer, place, topic, groups, connections)
    body = payload(size)
    latencies: list[float] = []

    async def work(session: Session) -> None:
        send = session.batch([body] * batch) if batch else session.one(body)
        while (began := time.perf_counter()) < until:
            await send()
            latencies.append(time.perf_counter() - began)

    watch = Stopwatch()
    until = watch.began + seconds
    await asyncio.gather(*(work(session) for session in opened))
    elapsed, busy = watch.read()
    messages = len(latencies) * (batch or 1)
    for session in opened:
        await session.close()
    return {"rate": messages / elapsed, "messages": messages, "busy": busy, **percentiles(latencies)}


async def consume(
    peer: str, place: str, topic: str, groups: int, group: str, consumers: int, wanted: int, seconds: float, *,
    each: bool
) -> Result:  # fmt: skip
    """Takes and acks until the time is over or nothing is left; the rate is until the last that came."""
    opened = await sessions(peer, place, topic, groups, consumers)
    messages, last = 0, 0.0
    watch = Stopwatch()
    until = watch.began + seconds

    async def work(session: Session) -> None:
        nonlocal messages, last
        while time.perf_counter() < until and (taken := await session.take(group, wanted, each=each)).messages:
            messages += taken.messages
            last = time.perf_counter()

    await asyncio.gather(*(work(session) for session in opened))
    _, busy = watch.read()
    for session in opened:
        await session.close()
    return {"rate": messages / (last - watch.began) if messages else 0.0, "messages": messages, "busy": busy}


async def delay(peer: str, place: str, topic: str, groups: int, size: int, rate: float, seconds: float) -> Result:
    """From before the publish of a message until a consumer that waits has taken and acked it."""
    publisher, consumer = await sessions(peer, place, topic, groups, 2)
    delays: list[float] = []
    is_over = False
    each = "consume-batch" in DRIVERS[peer].peer(peer).lacks

    async def receive() -> None:
        while not is_over:
            taken = await consumer.take("g0", 100, each=each)
            delays.extend(delays_of(taken.raw, time.time()))

    receiving = asyncio.ensure_future(receive())
    await asyncio.sleep(0.5)
    watch = Stopwatch()
    for n in range(int(rate * seconds)):
        await asyncio.sleep(max(watch.began + n / rate - time.perf_counter(), 0))
        body = b'{"at":%.6f,"note":"%b"}' % (time.time(), b"x" * (size - 40))
        await publisher.one(body)()
    _, busy = watch.read()
    await asyncio.sleep(1)
    is_over = True
    await receiving
    for session in (publisher, consumer):
        await session.close()
    return {"rate": len(delays) / seconds, "messages": len(delays), "busy": busy, **percentiles(delays)}


async def http(url: str, size: int, connections: int, seconds: float) -> Result:
    """The HTTP client alone: requests a second of whatever answers at ``url``."""
    opened = [await Client.open(url) for _ in range(connections)]
    body, count = payload(size), 0
    watch = Stopwatch()
    until = watch.began + seconds

    async def work(client: Client) -> None:
        nonlocal count
        while time.perf_counter() < until:
            await client.post("/", body)
            count += 1

    await asyncio.gather(*(work(client) for client in opened))
    elapsed, busy = watch.read()
    for client in opened:
        client.close()
    return {"rate": count / elapsed, "busy": busy}


GENERATORS: Mapping[str, Callable[..., Awaitable[Result]]] = {
    "publish": publish, "consume": consume, "delay": delay, "http": http,
}  # fmt: skip


async def run(name: str, **options: Any) -> Result:
    """Runs one in a process of its own and returns what it found."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.peers.load", name, json.dumps(options),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await asyncio.wait_for(process.communicate(), LIMIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError((errors.decode().strip().splitlines() or ["it said nothing"])[-1])
    result: Result = json.loads(output)
    return result


def main(name: str, options: str) -> None:
    print(json.dumps(uvloop.run(GENERATORS[name](**json.loads(options)))))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
