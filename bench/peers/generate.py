"""One load generator, in a process of its own: ``python -m bench.peers.generate '{…}'`` prints what it found."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from bench.client import payload
from bench.peers.peer import DRIVERS
from bench.report import Result, percentiles


def run(peer: str, **options: Any) -> Result:
    """``kind``: publish (``clients``, ``batch`` messages in each call, 0 is one by itself) or consume (``wanted`` at a
    time, acked together or with ``each`` one by one); ``place``, ``topic``, ``groups``, ``size`` and ``seconds``."""
    command = [sys.executable, "-m", "bench.peers.generate", json.dumps({"peer": peer, **options})]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=options["seconds"] + 60)
    result: Result = json.loads(found.stdout)
    return result


async def publish(options: dict[str, Any]) -> Result:
    driver, body = DRIVERS[options["peer"]], payload(options["size"])
    latencies: list[float] = []
    sessions = [
        await driver.connect(options["place"], options["topic"], options["groups"]) for _ in range(options["clients"])
    ]
    calls = [
        session.batch([body] * options["batch"]) if options["batch"] else session.one(body) for session in sessions
    ]

    async def work(call: Callable[[], Awaitable[None]]) -> None:
        while (began := time.perf_counter()) < until:
            await call()
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    until = began + options["seconds"]
    await asyncio.gather(*(work(call) for call in calls))
    elapsed = time.perf_counter() - began
    for session in sessions:
        await session.close()
    return {"rate": len(latencies) * (options["batch"] or 1) / elapsed, **percentiles(latencies)}


async def consume(options: dict[str, Any]) -> Result:
    driver = DRIVERS[options["peer"]]
    sessions = [
        await driver.connect(options["place"], options["topic"], options["groups"]) for _ in range(options["clients"])
    ]
    count, last = 0, 0.0
    began = time.perf_counter()
    until = began + options["seconds"]

    async def work(session: Any) -> None:
        nonlocal count, last
        while time.perf_counter() < until:
            taken = await session.take("g0", options["wanted"], each=options["each"])
            if not taken.messages:
                break
            count, last = count + taken.messages, time.perf_counter()

    await asyncio.gather(*(work(session) for session in sessions))
    for session in sessions:
        await session.close()
    return {"rate": count / max(last - began, 0.001), "messages": count}


def main() -> None:
    options = json.loads(sys.argv[1])
    began, cpu = time.perf_counter(), time.process_time()
    result = uvloop.run(publish(options) if options["kind"] == "publish" else consume(options))
    result["busy"] = (time.process_time() - cpu) / (time.perf_counter() - began)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
