"""What a run does: the topic, its groups, how much, and the state its tasks share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

TOPIC = "orders"
PARTITIONS = 8
RATE = 1400.0  # messages a second, over all publishers, as far as the faults let them
KEYS = 96
LEASE_MS = 3000
# Of streams and pushes; their servers renew it.
LOCK_TTL_MS = 2500

GROUPS: dict[str, dict[str, Any]] = {
    "by-partition": {"ordering": "partition", "retries": {"max": 3, "strategy": "fixed", "baseDelay": 200}},
    "by-key": {"ordering": "key", "retries": {"max": 3, "strategy": "exponential", "baseDelay": 100, "maxDelay": 800}},
    "any": {"ordering": "none", "retries": {"max": 2, "strategy": "fixed", "baseDelay": 100}},
    "sought": {"ordering": "key", "retries": {"max": 9, "strategy": "fixed", "baseDelay": 100}},
    "pushed": {"ordering": "key", "retries": {"max": 4, "strategy": "fixed", "baseDelay": 100}, "concurrency": 32},
}
# What is pushed: a part, because a request for each message costs more than everything else. Of many keys, because
# those of one key are pushed one after the other.
PUSHED = "pushed"
PUSHED_KEYS = tuple(f"push-{number}" for number in range(24))
PUSHED_SHARE = 0.025
SOUGHT = "sought"
REDRIVEN = ("by-partition", "by-key", "any")


def group_body(name: str, receiver_url: str) -> dict[str, Any]:
    body = {"delivery": {"mode": "pull"}, "startFrom": "earliest", "ackTimeoutMs": LEASE_MS} | GROUPS[name]
    if name == PUSHED:
        body["delivery"] = {"mode": "push", "url": receiver_url}
        body["filter"] = f"key in {list(PUSHED_KEYS)}"
    return body


def group_data(name: str) -> dict[str, Any]:
    """The same as the checker wants it."""
    retries = GROUPS[name]["retries"]
    data = {
        "ordering": GROUPS[name]["ordering"],
        "maxAttempts": retries["max"] + 1,
        "ackTimeoutMs": LEASE_MS,
        "strategy": retries["strategy"],
        "baseDelay": retries["baseDelay"],
        "maxDelay": retries.get("maxDelay", 60_000),
        "deadLetter": True,
    }
    if name == PUSHED:
        data |= {"maxInFlight": GROUPS[name]["concurrency"], "keys": PUSHED_KEYS}
    return data


@dataclass
class Phase:
    """Where the run is. Tasks look at it between two calls."""

    publishing: bool = True
    draining: bool = False
    over: bool = False
    hung: str | None = None
    rate: float = RATE
    seconds: float = 120.0
    lasts: dict[int, int] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def mischief(self) -> float:
        """How often consumers fail, of what they do in a slow run. A failure costs as much as a hundred successes: that
        there are so many a second is enough."""
        return 1.0 if self.rate <= 300 else 150 / self.rate

    def is_poison(self, offset: int) -> bool:
        """Whether a message is refused every time."""
        return offset % (389 if self.mischief == 1.0 else 1999) == 7

    async def sleep(self, seconds: float) -> None:
        """Less if the run is over before."""
        try:
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        except TimeoutError:
            pass

    def end(self) -> None:
        self.over = True
        self.ended.set()
