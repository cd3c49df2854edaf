"""Load generators. Each runs in a process of its own: ``python -m bench.load NAME '{"url": …}'`` prints its result.

``busy`` in a result is the part of its one core that the generator used: near 1 it may be what was measured.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvloop

from bench.arrivals import post_over_and_over, receive, watch
from bench.client import Client, ack_body, ack_ids, payload
from bench.report import Result, percentiles


def run(name: str, **options: Any) -> Result:
    """Runs one generator in a process of its own and returns what it found."""
    return finish(start(name, **options))


def start(name: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.load", name, json.dumps(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> Result:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("a load generator failed")
    result: Result = json.loads(output)
    return result


async def publish(
    url: str, path: str, body: str, connections: int, seconds: float, per_request: int = 1, key: str = ""
) -> Result:
    """POSTs the same body over and over on keep-alive connections."""
    data = body.encode()
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def worker() -> None:
        client = await Client.open(url, key)
        while (began := time.perf_counter()) < until:
            await client.post(path, data)
            latencies.append(time.perf_counter() - began)
        client.close()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(connections)))
    elapsed = time.perf_counter() - began
    return {"requests_s": len(latencies) / elapsed, "messages_s": len(latencies) * per_request / elapsed,
            **percentiles(latencies)}  # fmt: skip


async def paced(url: str, path: str, rate: float, seconds: float, size: int = 300, keys: int = 50) -> Result:
    """Publishes ``rate`` messages a second; each says in ``at`` when."""
    client = await Client.open(url)
    began = time.perf_counter()
    note = "x" * (size - 40)
    for n in range(int(rate * seconds)):
        await asyncio.sleep(max(began + n / rate - time.perf_counter(), 0))
        message = {"message": {"at": time.time(), "note": note}, "options": {"partitionKey": f"key-{n % keys}"}}
        await client.post(f"{path}/messages/batch", json.dumps({"messages": [message]}).encode())
    client.close()
    return {"messages": int(rate * seconds)}


async def consume(url: str, group: str, wanted: int, consumers: int, seconds: float, work_ms: float = 0) -> Result:
    """Pulls and acks until the time is over or nothing is left; with ``work_ms``, message by message."""
    count = 0
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal count
        client = await Client.open(url)
        pull = b'{"max":%d,"waitMs":1000}' % wanted
        while (began := time.perf_counter()) < until:
            ids = ack_ids(await client.post(f"{group}/pull", pull))
            if not ids:
                break
            if work_ms:
                for each in ids:
                    await asyncio.sleep(work_ms / 1000)
                    await client.post(f"{group}/ack", ack_body([each]))
                    count += time.perf_counter() < until
            else:
                await client.post(f"{group}/ack", ack_body(ids))
                count += len(ids)
            latencies.append(time.perf_counter() - began)
        client.close()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(consumers)))
    elapsed = time.perf_counter() - began
    return {"messages_s": count / elapsed, "messages": count, **percentiles(latencies)}


async def delay(
    publish_url: str,
    pull_url: str,
    topic: str,
    group: str,
    rate: float,
    seconds: float,
    poison: str = "",
    keys: int = 50,
) -> Result:
    """From the publish of a message to its arrival at a waiting pull: what came is settled beside the next pull, over a
    connection of its own. ``poison``: a key that is nacked for ever."""
    latencies: list[float] = []
    publisher, puller, settler = [await Client.open(url) for url in (publish_url, pull_url, pull_url)]
    done = asyncio.Event()
    came: asyncio.Queue[tuple[str, list[bytes]] | None] = asyncio.Queue()

    async def settle() -> None:
        while (ended := await came.get()) is not None:
            verb, ids = ended
            status, answer = await settler.request("POST", f"{group}/{verb}", ack_body(ids))
            # What was pulled of a key before it was nacked, the nack has taken back.
            if status != 200 and (status, verb) != (409, "nack"):
                raise RuntimeError(f"{verb}: {status} {answer[:500]!r}")

    async def receive() -> None:
        while not done.is_set():
            answer = json.loads(await puller.post(f"{group}/pull", b'{"max":100,"waitMs":1000,"consumer":"c"}'))
            now = time.time()
            good: list[bytes] = []
            bad: list[bytes] = []
            for message in answer["messages"]:
                (bad if message["key"] == poison else good).append(message["ackId"].encode())
                if message["key"] != poison:
                    latencies.append(now - message["message"]["at"])
            for verb, ids in (("ack", good), ("nack", bad)):
                if ids:
                    came.put_nowait((verb, ids))
        came.put_nowait(None)

    working = asyncio.gather(receive(), settle())
    await asyncio.sleep(0.5)
    began = time.perf_counter()
    for n in range(int(rate * seconds)):
        await asyncio.sleep(max(began + n / rate - time.perf_counter(), 0))
        key = poison if poison and n % keys == 0 else f"key-{n % keys}"
        message = {"message": {"at": time.time(), "n": n}, "options": {"partitionKey": key}}
        await publisher.post(f"{topic}/messages/batch", json.dumps({"messages": [message]}).encode())
    await asyncio.sleep(1)
    done.set()
    await working
    return {"messages": len(latencies), **percentiles(latencies)}


def batch_body(size: int, count: int, keys: int) -> bytes:
    each = payload(size)
    parts = (b'{"message":%b,"options":{"partitionKey":"key-%d"}}' % (each, n % keys) for n in range(count))
    return b'{"messages":[' + b",".join(parts) + b"]}"


GENERATORS: Mapping[str, Callable[..., Awaitable[Result]]] = {
    "publish": publish, "paced": paced, "consume": consume, "delay": delay,
    "watch": watch, "receive": receive, "post": post_over_and_over,
}  # fmt: skip


def main(name: str, options: str) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    result = uvloop.run(GENERATORS[name](**json.loads(options)))  # type: ignore[arg-type]
    busy = (time.process_time() - cpu) / (time.perf_counter() - began)
    print(json.dumps(result | {"busy": busy}))


if __name__ == "__main__":
    main(*sys.argv[1:])
