"""Keys: what knowing the caller costs a publish, and counting how much it does."""

from __future__ import annotations

from collections.abc import Callable

import uvloop

from bench import load
from bench.client import Client, payload
from bench.report import Line, per_second, side_by_side
from bench.server import Server, logpost

ROOT_KEY = "root-key-of-the-benchmarks-0123456789"
TOPIC = "/v1/topics/plain"
# More than can be done, but counted.
RATES = {"requestsPerSecond": 10**6, "bytesPerSecond": 10**9}


def run(*, full: bool) -> list[Line]:
    seconds, rounds = (5.0, 5) if full else (3.0, 3)
    with logpost() as open_to_all, logpost(settings={"LOGPOST_ROOT_KEY": ROOT_KEY}) as keyed:
        uvloop.run(declare(open_to_all, ""))
        uvloop.run(declare(keyed, ROOT_KEY))
        without = publishing(open_to_all, "", seconds)
        lines = []
        for what, form in (("with keys on", {}), ("with keys on, and rates of the key counted", RATES)):
            key = uvloop.run(new_key(keyed, form))
            rate, plain = side_by_side(rounds, publishing(keyed, key, seconds), without)
            lines.append(Line(f"single publishes {what}, 64 connections, of the rate without",
                              f"{per_second(rate)} of {per_second(plain)}", rate / plain, 0.9))  # fmt: skip
        return lines


async def declare(server: Server, key: str) -> None:
    client = await Client.open(server.url, key)
    await client.put(TOPIC, {})
    client.close()


async def new_key(server: Server, form: dict[str, int]) -> str:
    client = await Client.open(server.url, ROOT_KEY)
    made: dict[str, str] = await client.create("/v1/keys", {"name": "bench", "scopes": ["publish"], **form})
    client.close()
    return made["key"]


def publishing(server: Server, key: str, seconds: float) -> Callable[[], float]:
    body = payload(300).decode()

    def rate() -> float:
        found = load.run(
            "publish", url=server.url, path=f"{TOPIC}/messages", body=body, connections=64, seconds=seconds, key=key
        )
        return found["requests_s"]

    return rate
