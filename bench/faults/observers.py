"""Those who look without taking: cursors once a second, readers of the log, audits; and those who move and redrive."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from bench.faults.client import Client, Page, clocks, on_our_clock
from bench.faults.history import Event, now
from bench.faults.plan import GROUPS, PARTITIONS, REDRIVEN, SOUGHT, TOPIC, Phase

BASE = f"/v1/topics/{TOPIC}"
PAGE = 500
# In the middle of a run the whole log is read so often; every time costs as much as all there is.
AUDITS = 3


class Moved(msgspec.Struct, rename="camel"):
    partition: int
    next_offset: int


class Seek(msgspec.Struct):
    partitions: list[Moved]


class Observer:
    def __init__(self, client: Client, phase: Phase) -> None:
        self.client = client
        self.phase = phase
        self.random = client.random
        self.recorder = client.recorder
        self._seeking = asyncio.Lock()

    async def watch_cursors(self) -> None:
        while not self.phase.over:
            for group in GROUPS:
                await self.snapshot(group, "poll")
            await self.phase.sleep(1.0)

    async def snapshot(self, group: str, session: str) -> int | None:
        """Records a group's cursors; returns its lag."""
        begin = now()
        call = "stats" if session == "final" else "lag"
        answer = await self.client.call("GET", f"{BASE}/groups/{group}/{call}")
        if answer.type != "ok":
            return None
        end, found = now(), msgspec.json.decode(answer.body)
        for partition in found["partitions"]:
            data = {name: value for name, value in partition.items() if name not in ("partition", "committedOffset")}
            self.recorder.note(
                Event(
                    f="snapshot", topic=TOPIC, group=group, part=partition["partition"], t0=begin, t1=end,
                    off=partition["committedOffset"], cons=session, data=data,
                )
            )  # fmt: skip
        lag: int = found["lag"]
        return lag

    async def tail(self, part: int) -> None:
        """Reads on from where it is, in steps of random size."""
        offset = 1
        while not self.phase.over:
            limit = self.random.choice((1, 200, PAGE, PAGE))
            page = await self._browse(part, offset, limit, f"tail:{part}")
            if page:
                offset = page[-1] + 1
            if page is None or len(page) < limit or limit == 1:
                await self.phase.sleep(self.random.uniform(0.2, 1.0))

    async def audit(self, session: str, *, final: bool = False) -> bool:
        """Reads every partition from start to end; False if it had to be given up."""
        for part in range(PARTITIONS):
            begin, offset, first = now(), 1, None
            failures = 0
            while True:
                page = await self._browse(part, offset, PAGE, session)
                if page is None:
                    failures += 1
                    if failures > 100 or (self.phase.over and not final):
                        return False
                    await self.phase.sleep(0.1)
                    continue
                if not page:
                    break
                first = first or page[0]
                offset = page[-1] + 1
            data = {"first": first or 1, "final": final}
            self.recorder.note(
                Event(f="audit", topic=TOPIC, part=part, off=offset - 1, cons=session, t0=begin, t1=now(), data=data)
            )
        return True

    async def audit_sometimes(self) -> None:
        for number in range(1, AUDITS + 1):
            await self.phase.sleep(self.random.uniform(0.1, 0.3) * self.phase.seconds)
            if self.phase.over:
                return
            await self.audit(f"audit:{number}")

    async def _browse(self, part: int, offset: int, limit: int, session: str) -> list[int] | None:
        """Records a page of the log; returns its offsets."""
        begin = now()
        path = f"{BASE}/messages?partition={part}&from={offset}&limit={limit}"
        answer = await self.client.call("GET", path)
        if answer.type != "ok":
            return None
        try:
            messages = msgspec.json.decode(answer.body, type=Page).items
        except msgspec.DecodeError:
            return None
        end = now()
        for message in messages:
            event = Event(f="read", topic=TOPIC, cons=session, t0=begin, t1=end)
            self.recorder.note(message.observed(event))
        return [message.offset for message in messages]

    async def seek_sometimes(self) -> None:
        while self.phase.publishing:
            await self.phase.sleep(self.random.uniform(8, 20))
            await self.seek()

    async def seek(self) -> None:
        """One seek after the other, whoever asks for them."""
        async with self._seeking:
            if self.phase.publishing:
                await self._seek()

    async def _seek(self) -> None:
        last = min(self.phase.lasts.values(), default=1)
        place = self.random.choice(("latest", "back", "back", "ahead"))
        offset = max(1, last - self.random.randint(1, 300)) if place == "back" else last + 10_000
        body: dict[str, Any] = {"position": "latest"} if place == "latest" else {"offset": offset}
        event = Event(f="seek", topic=TOPIC, group=SOUGHT, t0=now(), data=body)
        # Until it is answered nobody knows where it leads.
        self.recorder.invoke([event])
        answer = await self.client.call("POST", f"{BASE}/groups/{SOUGHT}/seek", body)
        if answer.type != "ok":
            self.recorder.complete([event], answer.type, status=answer.status)
            return
        event.t1 = now()
        moved = msgspec.json.decode(answer.body, type=Seek).partitions
        places = [
            msgspec.structs.replace(event, part=move.partition, off=move.next_offset, op=event.op if at == 0 else 0)
            for at, move in enumerate(moved)
        ]
        self.recorder.complete(places, "ok", status=answer.status)

    async def redrive_sometimes(self) -> None:
        while self.phase.publishing:
            await self.phase.sleep(self.random.uniform(2, 6))
            await self.redrive()

    async def redrive(self) -> None:
        group = self.random.choice(REDRIVEN)
        letters = await self.list_dead(group, "redriver", pages=1)
        if not letters or not self.phase.publishing:
            return
        for part, offset, message_id in self.random.sample(letters, min(5, len(letters))):
            event = Event(f="redrive", topic=TOPIC, group=group, part=part, off=offset, t0=now())
            self.recorder.invoke([event])
            answer = await self.client.call("POST", f"{BASE}/groups/{group}/dead-letters/{message_id}/retry")
            self.recorder.complete([event], answer.type, status=answer.status)

    async def list_dead(self, group: str, session: str, *, pages: int = 1_000_000) -> list[tuple[int, int, str]] | None:
        """Records dead letters, newest first; returns partition, offset and message id of each."""
        found: list[tuple[int, int, str]] = []
        cursor = ""
        for _ in range(pages):
            begin = now()
            answer = await self.client.call("GET", f"{BASE}/groups/{group}/dead-letters?limit=100{cursor}")
            if answer.type != "ok":
                return None
            page = msgspec.json.decode(answer.body, type=Page)
            end, wall = clocks()
            for letter in page.items:
                event = Event(
                    f="dlq", topic=TOPIC, group=group, t0=begin, t1=end, att=letter.attempts, cons=session,
                    exp=on_our_clock(letter.dead_at, end, wall),
                )  # fmt: skip
                self.recorder.note(letter.observed(event))
                found.append((letter.partition, letter.offset, letter.message_id))
            if page.next_cursor is None:
                break
            cursor = f"&cursor={page.next_cursor}"
        return found
