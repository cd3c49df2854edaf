"""A perfect Logpost of a few hundred messages, in memory and in virtual time: what good histories come from.

Slow and obvious on purpose. It follows the semantics by the letter: per group and partition each message is ahead,
leased, retrying, dead or settled; a failure takes back what is in flight of its key; a seek begins everything anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from bench.faults.history import MS

State = Literal["ahead", "leased", "retrying"]


@dataclass
class Stored:
    val: str
    key: str | None
    sha: str
    data: dict[str, Any] | None
    published: int


@dataclass
class Item:
    """One unsettled message of a group."""

    off: int
    stored: Stored
    state: State = "ahead"
    att: int = 0
    due: int = 0
    tok: str = ""
    expires: int = 0
    owner: str = ""
    redriven: bool = False


@dataclass
class Dead:
    stored: Stored
    attempts: int
    at: int


@dataclass
class Cell:
    """A group in a partition."""

    part: int
    name: str
    config: dict[str, Any]
    items: dict[int, Item] = field(default_factory=dict)
    dead: dict[int, Dead] = field(default_factory=dict)
    epoch: int = 1
    leases: int = 0

    @property
    def ordered(self) -> bool:
        return bool(self.config["ordering"] != "none")

    def committed(self, last: int) -> int:
        return min((item.off for item in self.items.values() if not item.redriven), default=last + 1) - 1

    def claim(self, owner: str, most: int, now: int) -> list[Item]:
        self.expire(now)
        leased = [item for item in self.items.values() if item.state == "leased"]
        if self.config["ordering"] == "partition" and any(item.owner != owner for item in leased):
            return []
        blocked: set[str | None] = set()
        if self.config["ordering"] == "key":
            blocked = {item.stored.key for item in leased}
        blocked.discard(None)
        taken: list[Item] = []
        self.leases += 1
        for off in sorted(self.items):
            item = self.items[off]
            delay = (item.stored.data or {}).get("delayMs", 0) * MS if not item.redriven else 0
            if item.state == "leased" or len(taken) == most:
                continue
            if item.due > now or (self.ordered and item.stored.key in blocked):
                if item.stored.key is not None:
                    blocked.add(item.stored.key)
                continue
            if item.stored.published + delay > now:
                continue  # it asked for another place in time, and holds back nobody
            self._lease(item, owner, now)
            taken.append(item)
        return taken

    def _lease(self, item: Item, owner: str, now: int) -> None:
        item.state, item.owner = "leased", owner
        item.expires = now + self.config["ackTimeoutMs"] * MS
        item.tok = f"ack_{self.name}_{self.part}_{self.epoch}_{self.leases}_{item.att + 1}_{item.off}"

    def leased(self, tok: str, now: int) -> Item | None:
        """The item an ackId is good for."""
        self.expire(now)
        return next((i for i in self.items.values() if i.state == "leased" and i.tok == tok), None)

    def settle(self, item: Item) -> None:
        del self.items[item.off]

    def expire(self, now: int) -> None:
        for item in list(self.items.values()):
            if item.state == "leased" and item.expires <= now:
                self.fail(item, now)

    def fail(self, item: Item, now: int, delay_ms: int | None = None) -> None:
        item.att += 1
        if self.ordered and item.stored.key is not None:
            self._take_back(item)
        if item.att >= self.config["maxAttempts"]:
            self.dead[item.off] = Dead(item.stored, item.att, now)
            del self.items[item.off]
            return
        delay = self._backoff(item.att) if delay_ms is None else delay_ms
        item.state, item.due = "retrying", now + delay * MS

    def _take_back(self, failed: Item) -> None:
        if failed.att >= self.config["maxAttempts"]:
            return  # dead letters release their key
        for item in self.items.values():
            if item.state == "leased" and item.stored.key == failed.stored.key and item.off > failed.off:
                item.state, item.tok = "ahead", ""

    def _backoff(self, attempt: int) -> int:
        base: int = self.config["baseDelay"]
        if self.config["strategy"] == "fixed":
            return base
        return min(int(self.config["maxDelay"]), base << (attempt - 1))

    def seek(self, log: list[Stored], first: int) -> None:
        self.epoch += 1
        self.items = {off: Item(off, stored) for off, stored in enumerate(log, 1) if off >= first}

    def redrive(self, off: int) -> None:
        self.items[off] = Item(off, self.dead.pop(off).stored, redriven=True)


class Log:
    """A topic's partitions, its idempotency keys and its groups."""

    def __init__(self, partitions: int, groups: dict[str, dict[str, Any]]) -> None:
        self.partitions: list[list[Stored]] = [[] for _ in range(partitions)]
        self.cells = {name: [Cell(part, name, config) for part in range(partitions)] for name, config in groups.items()}
        self.known: dict[str, tuple[int, int]] = {}

    def publish(self, part: int, idem: str, stored: Stored) -> tuple[int, int, bool]:
        """Partition, offset, and whether it is a duplicate."""
        if idem in self.known:
            return *self.known[idem], True
        log = self.partitions[part]
        log.append(stored)
        self.known[idem] = part, len(log)
        for cells in self.cells.values():
            cells[part].items[len(log)] = Item(len(log), stored)
        return part, len(log), False
