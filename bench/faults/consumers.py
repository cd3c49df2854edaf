"""Pull consumers that fail at random: they nack, discard, extend, oversleep, forget, and settle what is not theirs."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import msgspec

from app.domain.lease import parse_ack_id
from bench.faults.client import Answer, Client, Message, Pulled, Settled, clocks, on_our_clock
from bench.faults.history import Event, now
from bench.faults.plan import LEASE_MS, TOPIC, Phase

# How many at once. Who has caught up lets a few gather: many small claims are no better a test than few large ones.
SIZES = (1, 50, 500, 500)
GATHER_S = 0.4


class Consumer:
    def __init__(self, group: str, number: int, client: Client, phase: Phase) -> None:
        self.group = group
        self.name = f"{group}-{number}"
        self.client = client
        self.phase = phase
        self.random = client.random
        self.path = f"/v1/topics/{TOPIC}/groups/{group}"
        self.pulls = 0
        self.renamed = 0
        self.late: list[Message] = []  # what it left to expire, and may still try to settle

    @property
    def label(self) -> str:
        return f"{self.name}.{self.renamed}"

    async def run(self) -> None:
        while not self.phase.over:
            if self.phase.hung == self.group and not self.phase.draining:
                await self.phase.sleep(0.05)
                continue
            messages = await self._pull()
            if messages is None:
                await self.phase.sleep(self.random.uniform(0.02, 0.3))
            elif messages:
                await self._work(messages)
                if len(messages) < max(SIZES):
                    await self.phase.sleep(self.random.uniform(0, GATHER_S))

    async def _pull(self) -> list[Message] | None:
        """None when the answer was lost or none was to be had."""
        self.pulls += 1
        wait_ms = self.random.choice((0, 200, 1000))
        size = self.random.choice(SIZES)
        event = Event(f="pull", topic=TOPIC, group=self.group, cons=self.label, t0=now())
        self.client.recorder.invoke([event])
        body = {"max": size, "waitMs": wait_ms, "consumer": self.label}
        answer = await self.client.call(
            "POST", f"{self.path}/pull", body, timeout_s=wait_ms / 1000 + 2, wait_s=wait_ms / 1000
        )
        messages: list[Message] | None = None
        if answer.type == "ok":
            try:
                messages = msgspec.json.decode(answer.body, type=Pulled).messages
            except msgspec.DecodeError:
                answer = Answer(0, b"")
        self.client.recorder.complete([event], answer.type, status=answer.status)
        if messages is None:
            # Under its old label it could take more of a partition, behind what it does not know it holds.
            self.renamed += 1
            return None
        seen = clocks()
        for message in messages:
            self._record(message, event.cons, event.t0, seen)
        if messages:
            self.client.pulse.beat("delivered", event.t0, len(messages))
        elif wait_ms == 0:
            await self.phase.sleep(0.05)
        return messages

    def _record(self, message: Message, label: str, begun: int, seen: tuple[int, float], ms: int | None = None) -> None:
        """``begun``: before it was claimed; ``ms``: how long a server that renews leases it for."""
        parsed = parse_ack_id(message.ack_id)
        deliver = Event(
            f="deliver", topic=TOPIC, group=self.group, cons=label, t0=begun, t1=seen[0], tok=message.ack_id, ms=ms,
            att=message.attempt, epoch=parsed.epoch if parsed else 0, exp=on_our_clock(message.lease_expires_at, *seen),
        )  # fmt: skip
        self.client.recorder.note(message.observed(deliver))

    async def _work(self, messages: list[Message]) -> None:
        if self.phase.draining:
            await self._settle("ack", messages)
            return
        if self.random.random() < 0.02:
            await self.phase.sleep(self.random.uniform(0, LEASE_MS * 1.6 / 1000))  # slow, perhaps too slow
        intents: dict[str, list[Message]] = defaultdict(list)
        for message in messages:
            intents[self._intent(message)].append(message)
        forgotten = intents.pop("forget", [])
        self.late += forgotten
        for intent in sorted(intents, key=lambda _: self.random.random()):
            await self._settle(intent, intents[intent])
        if intents.get("extend"):
            await self.phase.sleep(self.random.uniform(0, 0.5))
            await self._settle("ack", intents["extend"])
        if self.late and self.random.random() < 0.1:
            late, self.late = self.late, []
            await self._settle(self.random.choice(("ack", "nack", "extend")), late)

    def _intent(self, message: Message) -> str:
        if self.phase.is_poison(message.offset) and self.group != "sought":
            return "nack"  # poison
        chance = self.random.random() / self.phase.mischief
        for intent, share in (("nack", 0.02), ("discard", 0.003), ("extend", 0.005), ("forget", 0.0015)):
            if chance < share:
                return intent
            chance -= share
        return "ack"

    async def _settle(self, intent: str, messages: list[Message]) -> None:
        ms: int | None = None
        body: dict[str, Any] = {"ackIds": [message.ack_id for message in messages]}
        if intent == "nack":
            ms = self.random.choice((None, 0, 100, 500))
            body |= {"reason": "fault suite"} | ({"delayMs": ms} if ms is not None else {})
        elif intent == "discard":
            body["reason"] = "fault suite"
        elif intent == "extend":
            ms = body["ackTimeoutMs"] = self.random.choice((500, LEASE_MS, 2 * LEASE_MS))
        events = [
            Event(
                f=intent, topic=TOPIC, group=self.group, part=message.partition, cons=self.label, tok=message.ack_id,
                ms=ms, t0=now(),
            )
            for message in messages
        ]  # fmt: skip
        again = intent == "ack" and self.random.random() < 0.03
        while True:
            answer = await self._send(intent, body, events)
            if not again and (answer.type != "info" or self.random.random() < 0.5):
                return
            again = False
            await asyncio.sleep(self.random.uniform(0, 0.2))
            events = [msgspec.structs.replace(event, op=0, t0=now(), t1=0, status=0) for event in events]

    async def _send(self, intent: str, body: dict[str, Any], events: list[Event]) -> Answer:
        begun = now()
        self.client.recorder.invoke(events)
        answer = await self.client.call("POST", f"{self.path}/{intent}", body, timeout_s=LEASE_MS / 2000)
        statuses: dict[str, str] = {}
        if answer.type == "ok" or answer.status == 409:
            try:
                results = msgspec.json.decode(answer.body, type=Settled).results
                statuses = {result.ack_id: result.status for result in results}
            except msgspec.DecodeError:
                answer = Answer(0, b"")
        types = {"ok": "ok", "stale": "fail"}
        for event in events:
            found = types.get(statuses.get(event.tok or "", ""), "fail" if answer.type == "fail" else "info")
            self.client.recorder.complete([event], found, status=answer.status)
        if answer.type == "ok":
            self.client.pulse.beat("settled", begun, sum(status == "ok" for status in statuses.values()))
        return answer
