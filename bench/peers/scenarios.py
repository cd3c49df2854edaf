"""What is measured of every peer, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.peers import load
from bench.peers.peer import Peer
from bench.report import Result

SIZE = 300
FILL = {"connections": 8, "batch": 100}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A delay is better when it is lower, anything else when it is higher."""

    name: str
    title: str
    groups: int = 1
    publish: dict[str, int] | None = None
    consume: dict[str, Any] | None = None
    rate: float = 0  # of publishes whose way to a consumer is timed
    is_quick: bool = False  # also measured by ``make bench``

    @property
    def is_delay(self) -> bool:
        return bool(self.rate)

    @property
    def figure(self) -> str:
        """What of its result stands in the table."""
        return "p50_ms" if self.is_delay else "rate"

    def said(self, result: Result) -> str:
        """A result in a line."""
        figures = f"{result['rate']:,.0f}/s"
        if "p50_ms" in result:
            figures += f", p50 {result['p50_ms']:.2f} p99 {result['p99_ms']:.2f} ms"
        return f"{figures}; the client used {result['busy']:.0%} of its core"

    async def measure(self, name: str, peer: Peer, topic: str, seconds: float) -> Result:
        to = {"peer": name, "place": peer.place, "topic": topic, "groups": self.groups}
        if self.is_delay:
            return await load.run("delay", **to, size=SIZE, rate=self.rate, seconds=max(seconds, 2.0))
        if self.consume:
            await load.run("publish", **to, size=SIZE, seconds=seconds, **FILL)
            return await load.run("consume", **to, group="g0", seconds=seconds, **self.consume)
        before = await peer.size_on_disk()
        found = await load.run("publish", **to, size=SIZE, seconds=seconds, **(self.publish or {}))
        return found | {"bytes": (await peer.size_on_disk() - before) / found["messages"]}


def single(connections: int, *, is_quick: bool = False) -> Scenario:
    clients = "1 client" if connections == 1 else f"{connections} clients"
    return Scenario(f"single-{connections}", f"single publishes, {clients}",
                    publish={"connections": connections, "batch": 0}, is_quick=is_quick)  # fmt: skip


def batch(size: int, *, is_quick: bool = False) -> Scenario:
    return Scenario(f"batch-{size}", f"batches of {size}, 8 clients", publish={"connections": 8, "batch": size},
                    is_quick=is_quick)  # fmt: skip


def fan(groups: int, *, is_quick: bool = False) -> Scenario:
    to = "1 group" if groups == 1 else f"{groups} groups"
    return Scenario(f"fan-out-{groups}", f"batches of 100 for {to}", groups=groups, publish=FILL, is_quick=is_quick)


SCENARIOS = (
    single(1), single(16), single(64, is_quick=True),
    batch(10), batch(100, is_quick=True), batch(1000),
    Scenario("consume-batch", "consume 500 and ack them, 4 clients", is_quick=True,
             consume={"consumers": 4, "wanted": 500, "each": False}),
    Scenario("consume-each", "consume and ack one by one, 16 clients",
             consume={"consumers": 16, "wanted": 50, "each": True}),
    fan(1), fan(5), fan(20, is_quick=True),
    Scenario("delay-200", "publish to acked at 200/s", rate=200, is_quick=True),
)  # fmt: skip
