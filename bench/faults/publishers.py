"""Publishers: each writes values of its own, dense and unique, and repeats what got no answer under the same key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from app.domain.partition import partition_for
from bench.faults.client import Answer, Client, digest
from bench.faults.history import Event, now
from bench.faults.plan import KEYS, PARTITIONS, PUSHED_KEYS, PUSHED_SHARE, TOPIC, Phase

PATH = f"/v1/topics/{TOPIC}/messages"
GIVE_UP_S = 90.0
# Messages in a call: single ones, whose answers come right after their commits, and batches, which make the numbers.
SIZES = (1, 1, 1, 5, 20, 100, 200)
# Who was held up by a fault makes up for so much of the time.
BEHIND_S = 6.0
# Who hears nothing asks another replica, with the same keys.
PATIENCE_S = 2.5


class Placed(msgspec.Struct):
    partition: int
    offset: int
    duplicate: bool


class Results(msgspec.Struct):
    results: list[Placed]


class Draft(msgspec.Struct):
    """One message to be published, and how the history knows it."""

    event: Event
    body: bytes
    options: dict[str, Any]


class Publisher:
    def __init__(self, number: int, client: Client, phase: Phase) -> None:
        self.name = f"w{number}"
        self.client = client
        self.phase = phase
        self.random = client.random
        self.counter = 0

    async def run(self, share: float) -> None:
        """Publishes at ``share`` of the run's rate until publishing ends, and until nothing is unknown any more."""
        due = time.monotonic()
        while self.phase.publishing:
            size = self.random.choice(SIZES)
            due = max(due, time.monotonic() - BEHIND_S) + size / (self.phase.rate * share)
            await self._publish([self._draft() for _ in range(size)])
            await self.phase.sleep(max(0.0, due - time.monotonic()))

    def _draft(self) -> Draft:
        self.counter += 1
        value = f"{self.name}-{self.counter}"
        key = self._key()
        body = msgspec.json.encode({"val": value, "pad": "x" * self.random.randint(20, 300)})
        options: dict[str, Any] = {"idempotencyKey": f"i-{value}"}
        if key is not None:
            options["partitionKey"] = key
        if self.random.random() < 0.2:
            options["headers"] = {"trace": value, "kind": "é"}
            options["correlationId"] = f"c-{value}"
        asked: dict[str, Any] = {}
        if self.random.random() < 0.01:
            asked["delayMs"] = options["delayMs"] = self.random.randint(200, 1500)
        event = Event(
            f="publish", topic=TOPIC, val=value, key=key, idem=options["idempotencyKey"], data=asked or None,
            part=partition_for(key, PARTITIONS) if key is not None else None,
            sha=digest(body, options.get("headers", {}), options.get("correlationId")),
        )  # fmt: skip
        return Draft(event, body, options)

    def _key(self) -> str | None:
        chance = self.random.random()
        if chance < 0.1:
            return None
        if chance < 0.1 + PUSHED_SHARE:
            return self.random.choice(PUSHED_KEYS)
        return "hot" if chance < 0.2 else f"key-{self.random.randrange(KEYS)}"

    async def _publish(self, drafts: Sequence[Draft]) -> None:
        deadline = time.monotonic() + GIVE_UP_S
        while True:
            type_ = await self._attempt(drafts)
            if type_ == "ok":
                break
            if type_ == "fail" or time.monotonic() > deadline:
                return
            await asyncio.sleep(self.random.uniform(0.02, 0.4))
        chance = self.random.random()
        if chance < 0.05:
            await self._attempt(drafts)  # as a client does that has forgotten that it was answered
        elif chance < 0.07:
            await self._reuse(drafts[0])

    async def _reuse(self, draft: Draft) -> None:
        """The same key for another payload has to be refused."""
        body = msgspec.json.encode({"val": f"{draft.event.val}!"})
        event = msgspec.structs.replace(
            draft.event, val=f"{draft.event.val}!", sha=digest(body, {}, None), off=None, dup=False, t0=0, t1=0
        )
        options = {name: value for name, value in draft.options.items() if name in ("idempotencyKey", "partitionKey")}
        await self._attempt([Draft(event, body, options)])

    async def _attempt(self, drafts: Sequence[Draft]) -> str:
        events = [msgspec.structs.replace(draft.event, t0=now()) for draft in drafts]
        self.client.recorder.invoke(events)
        answer = await self._send(drafts)
        type_ = answer.type
        if type_ == "ok":
            try:
                placed = _placed(answer.body, len(events))
            except (msgspec.DecodeError, ValueError):
                type_ = "info"
            else:
                for event, place in zip(events, placed, strict=True):
                    event.part, event.off, event.dup = place.partition, place.offset, place.duplicate
                    self.phase.lasts[place.partition] = max(self.phase.lasts.get(place.partition, 0), place.offset)
                self.client.pulse.beat("published", events[0].t0, len(events))
        self.client.recorder.complete(events, type_, status=answer.status)
        return type_

    async def _send(self, drafts: Sequence[Draft]) -> Answer:
        if len(drafts) == 1:
            options = drafts[0].options
            headers = {
                name: str(options[option])
                for name, option in (
                    ("Partition-Key", "partitionKey"), ("Idempotency-Key", "idempotencyKey"),
                    ("Correlation-Id", "correlationId"), ("Delay-Ms", "delayMs"),
                )
                if option in options
            }  # fmt: skip
            headers |= {f"Message-Header-{name}": value for name, value in options.get("headers", {}).items()}
            return await self.client.call("POST", PATH, drafts[0].body, headers=headers, timeout_s=PATIENCE_S)
        messages = [{"message": msgspec.Raw(draft.body), "options": draft.options} for draft in drafts]
        return await self.client.call("POST", f"{PATH}/batch", {"messages": messages}, timeout_s=PATIENCE_S)


def _placed(body: bytes, count: int) -> list[Placed]:
    """Raises DecodeError or ValueError if this is no whole answer."""
    if count == 1 and not body.startswith(b'{"results"'):
        return [msgspec.json.decode(body, type=Placed)]
    placed = msgspec.json.decode(body, type=Results).results
    if len(placed) != count:
        raise ValueError(body)
    return placed
