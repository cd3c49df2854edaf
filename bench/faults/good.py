"""Good histories: seeded clients at the perfect model, as valid as a run can be and as eventful.

They have several partitions and groups of every ordering, keys, retries, leases that expire, lost answers, dead
letters and their redrive, seeks, idempotent repeats, refused reuses, delays, audits, tails, faults and a drain.
"""

from __future__ import annotations

import random
from hashlib import sha256
from typing import Any

from bench.faults.history import MS, SECOND, Event
from bench.faults.model import Cell, Item, Log, Stored

TOPIC = "orders"
PARTITIONS = 3
RETRY = {"maxAttempts": 3, "ackTimeoutMs": 2000, "strategy": "fixed", "baseDelay": 200, "maxDelay": 1000}
GROUPS: dict[str, dict[str, Any]] = {
    "by-partition": {"ordering": "partition", "deadLetter": True, **RETRY},
    "by-key": {"ordering": "key", "deadLetter": True, **RETRY, "strategy": "exponential"},
    "any": {"ordering": "none", "deadLetter": True, **RETRY, "maxAttempts": 2},
    "sought": {"ordering": "key", "deadLetter": True, **RETRY, "maxAttempts": 8},
}
FAULTS = ("kill replica", "stop replica", "kill backend", "kill postmaster", "cut proxy")
START = 5000 * SECOND


class Clients:
    """Everybody who calls the model, one call after the other; ``events`` is what they recorded."""

    def __init__(self, seed: int, messages: int) -> None:
        self.random = random.Random(seed)
        self.log = Log(PARTITIONS, GROUPS)
        self.events: list[Event] = []
        self.clock = START
        self.ops = 0
        self.counter = 0
        self.left = messages
        self.holding: list[tuple[Cell, Event, str]] = []  # cell, deliver, what the consumer means to do
        self.labels: dict[str, str] = {}
        self.hung: str | None = None
        self.tailed = [0] * PARTITIONS
        self.session = 0

    def record(self, f: str, **values: Any) -> Event:
        standing: dict[str, Any] = {"topic": TOPIC, "proc": "good", "t0": self.clock, "t1": self.clock}
        values = standing | values
        self.events.append(event := Event(f=f, **values))
        return event

    def operation(self, f: str, **values: Any) -> Event:
        self.ops += 1
        return self.record(f, op=self.ops, t0=self.clock - self.some(1, 4) * MS, t1=self.clock + MS, **values)

    def some(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def run(self) -> list[Event]:
        self.declare()
        step = 0
        while self.left > 0:
            step += 1
            self.step(step)
        self.hung = None
        for _ in range(4000):
            self.clock += 20 * MS
            self.consume(draining=True)
            if not any(cell.items for cells in self.log.cells.values() for cell in cells):
                break
        self.record("quiesce", t0=self.clock - SECOND)
        self.clock += SECOND
        self.observe("final")
        self.audit("audit:final", final=True)
        self.aged_topic()
        self.samples()
        return self.events

    def step(self, step: int) -> None:
        self.clock += self.some(5, 15) * MS
        if step % 3 == 0:
            self.publish()
        self.consume()
        if step % 50 == 0:
            self.observe("poll")
            self.tail()
        if step % 90 == 0 and self.hung is None:
            self.fault()
        if step % 200 == 0:
            self.seek()
            self.redrive()
        if step % 500 == 0:
            self.session += 1
            self.audit(f"audit:{self.session}")
        if step % 800 == 0:
            self.hang()

    def declare(self) -> None:
        self.record("topic", data={"partitions": PARTITIONS})
        for name, config in GROUPS.items():
            self.record("group", group=name, data=config)

    def publish(self) -> None:
        self.left -= 1
        self.counter += 1
        key = f"key-{self.some(1, 12)}" if self.random.random() < 0.9 else None
        part = hash_of(key) % PARTITIONS if key else self.some(0, PARTITIONS - 1)
        val, idem = f"w{self.some(1, 4)}-{self.counter}", f"idem-{self.counter}"
        data = {"delayMs": 400} if self.random.random() < 0.03 else None
        stored = Stored(val, key, sha256(val.encode()).hexdigest()[:16], data, self.clock)
        said = {"val": val, "key": key, "idem": idem, "sha": stored.sha, "data": data}
        chance = self.random.random()
        if chance < 0.05:  # the answer is lost, the message perhaps too
            if chance < 0.03:
                self.log.publish(part, idem, stored)
            self.operation("publish", type="info", part=part, **said)
            if chance < 0.01:
                return
            self.clock += 30 * MS
            stored.published = self.clock if idem not in self.log.known else stored.published
        place, off, dup = self.log.publish(part, idem, stored)
        self.operation("publish", part=place, off=off, dup=dup, **said)
        if chance > 0.9:
            self.clock += 10 * MS
            self.operation("publish", part=place, off=off, dup=True, **said)
        if chance > 0.97:
            other = said | {"val": f"{val}!", "sha": "another"}
            self.operation("publish", type="fail", status=422, part=place, **other)

    def consume(self, *, draining: bool = False) -> None:
        for name, cells in self.log.cells.items():
            if name == self.hung or (self.random.random() < 0.3 and not draining):
                continue
            cell = self.random.choice(cells)
            self.pull(cell, f"{name}-{self.some(1, 3)}", draining=draining)
        for held in list(self.holding):
            self.settle(*held)

    def pull(self, cell: Cell, owner: str, *, draining: bool) -> None:
        owner = self.labels.get(owner, owner)
        taken = cell.claim(owner, self.some(1, 6), self.clock)
        if taken and not draining and self.random.random() < 0.02:
            self.operation("pull", type="info", group=cell.name)
            # Under its old label it could take more of the partition, behind what it does not know it has.
            self.labels[owner.partition(".")[0]] = f"{owner.partition('.')[0]}.{self.ops}"
            return
        self.operation("pull", group=cell.name)
        for item in taken:
            event = self.deliver(cell, item, owner)
            self.holding.append((cell, event, "ack" if draining else self.intent()))

    def deliver(self, cell: Cell, item: Item, owner: str) -> Event:
        stored = item.stored
        return self.record(
            "deliver", t0=self.clock - MS, t1=self.clock + MS, group=cell.name, part=cell.part, off=item.off,
            key=stored.key, val=stored.val, sha=stored.sha, cons=owner, tok=item.tok, att=item.att + 1,
            exp=item.expires, epoch=cell.epoch,
        )  # fmt: skip

    def intent(self) -> str:
        kinds = ["ack", "later", "nack", "nack now", "discard", "extend", "forget"]
        return self.random.choices(kinds, [70, 8, 10, 3, 1, 4, 4])[0]

    def settle(self, cell: Cell, event: Event, intent: str) -> None:
        if intent == "forget":
            if self.clock < event.exp + 500 * MS:
                return  # until it is too late
            intent = "ack"
        elif intent == "later" and self.clock < event.exp - SECOND:
            return
        self._let_go(event)
        self.clock += 2 * MS
        item = cell.leased(event.tok or "", self.clock)
        kind = {"nack now": "nack", "later": "ack"}.get(intent, intent)
        ms = {"nack now": 0, "extend": 3000}.get(intent)
        said = {"group": cell.name, "part": cell.part, "tok": event.tok, "cons": event.cons, "ms": ms}
        self.operation(kind, type="ok" if item else "fail", status=200 if item else 409, **said)
        if item is None:
            return
        if kind == "extend":
            item.expires = self.clock + 3000 * MS
            self.holding.append((cell, event, "ack"))
        elif kind == "nack":
            cell.fail(item, self.clock, ms)
        else:
            cell.settle(item)

    def _let_go(self, event: Event) -> None:
        self.holding = [held for held in self.holding if held[1] is not event]

    def observe(self, session: str) -> None:
        for name, cells in self.log.cells.items():
            for cell in cells:
                last = len(self.log.partitions[cell.part])
                data = {"lag": len(cell.items), "firstOffset": 1, "lastOffset": last}
                self.record("snapshot", group=name, part=cell.part, off=cell.committed(last), cons=session, data=data)
                self.list_dead(cell, session)

    def list_dead(self, cell: Cell, session: str) -> None:
        for off, dead in cell.dead.items():
            self.record(
                "dlq", group=cell.name, part=cell.part, off=off, key=dead.stored.key, val=dead.stored.val,
                att=dead.attempts, exp=dead.at, cons=session,
            )  # fmt: skip

    def redrive(self) -> None:
        for name in ("by-partition", "by-key", "any"):
            cell = self.random.choice(self.log.cells[name])
            self.list_dead(cell, "redriver")
            for off in list(cell.dead)[:2]:
                self.operation("redrive", group=name, part=cell.part, off=off)
                self.clock += 5 * MS
                cell.redrive(off)

    def seek(self) -> None:
        first = self.some(1, min(len(log) for log in self.log.partitions) + 1)
        self.clock += 5 * MS
        self.operation("seek", group="sought", off=first)
        for cell, log in zip(self.log.cells["sought"], self.log.partitions, strict=True):
            cell.seek(log, first)
        self.clock += 5 * MS

    def fault(self) -> None:
        name = self.random.choice(FAULTS)
        self.record("fault", val=name, t1=self.clock + 300 * MS, data={"kill": name.startswith("kill")})
        self.record("recovery", val=name, t0=self.clock + 300 * MS, t1=self.clock + self.some(400, 900) * MS)

    def hang(self) -> None:
        """From now on one group's consumers do nothing, until the next call."""
        if self.hung is None:
            self.hung = "any"
            self.record("fault", val="hang any", t1=self.clock + 8 * SECOND, data={"hung": "any"})
        else:
            self.hung = None

    def tail(self) -> None:
        for part, log in enumerate(self.log.partitions):
            upto = self.some(self.tailed[part], len(log))
            for off in range(self.tailed[part] + 1, upto + 1):
                self.read(part, off, log[off - 1], "tail:1")
            self.tailed[part] = upto

    def read(self, part: int, off: int, stored: Stored, session: str, topic: str = TOPIC) -> None:
        said = {"key": stored.key, "val": stored.val, "sha": stored.sha}
        self.record("read", topic=topic, part=part, off=off, cons=session, **said)

    def audit(self, session: str, *, final: bool = False) -> None:
        for part, log in enumerate(self.log.partitions):
            begin = self.clock
            for off, stored in enumerate(log, 1):
                self.read(part, off, stored, session)
            self.clock += MS
            self.record("audit", t0=begin, part=part, off=len(log), cons=session, data={"first": 1, "final": final})

    def aged_topic(self) -> None:
        """Another topic, whose retention has taken what is older than two seconds."""
        self.record("topic", topic="aged", data={"partitions": 1, "maxAgeMs": 2000})
        log: list[Stored] = []
        for number in range(1, 41):
            self.clock += 100 * MS
            stored = Stored(f"a-{number}", None, f"sha-{number}", None, self.clock)
            log.append(stored)
            said = {"val": stored.val, "sha": stored.sha, "idem": f"aged-{number}"}
            self.operation("publish", topic="aged", part=0, off=number, **said)
        self.clock += 50 * MS
        kept = [off for off, stored in enumerate(log, 1) if stored.published + 2000 * MS >= self.clock]
        for off in kept:
            self.read(0, off, log[off - 1], "audit:final", topic="aged")
        data = {"first": kept[0], "final": True}
        self.record("audit", topic="aged", part=0, off=len(log), cons="audit:final", data=data)

    def samples(self) -> None:
        for number in range(80):
            self._sample(START - (100 - number) * 20 * SECOND, number % 7)
        for number in range(5):
            self._sample(self.clock + number * SECOND, 0)

    def _sample(self, moment: int, busy: int) -> None:
        values = {"rss": 90_000_000 + busy * 100_000, "fds": 30 + busy, "connections": 8}
        self.record("sample", topic="", t0=moment, t1=moment, data={"replica-1/1": values})


def hash_of(key: str) -> int:
    return int.from_bytes(sha256(key.encode()).digest()[:4])


def good_history(seed: int, messages: int = 900) -> list[Event]:
    """A valid history. The same seed gives the same one."""
    return Clients(seed, messages).run()
