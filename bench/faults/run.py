"""One run: start everything, load it, break it, let it rest, restart it, look at what is there, judge.

Without --out, everything goes to a directory that is removed when the run passed. With a seed the faults, the keys,
the sizes and what consumers do come in the same order; when exactly they meet is the machine's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.faults import inside
from bench.faults.broken import Broken
from bench.faults.checker import Wanted, check_directory
from bench.faults.client import Client, Pulse
from bench.faults.cluster import Cluster
from bench.faults.consumers import Consumer
from bench.faults.history import Event, Recorder, now
from bench.faults.nemesis import Nemesis
from bench.faults.observers import Observer
from bench.faults.plan import GROUPS, PARTITIONS, PUSHED, TOPIC, Phase, group_body, group_data
from bench.faults.points import Points, Provoke
from bench.faults.publishers import Publisher
from bench.faults.receiver import Receiver
from bench.faults.scrap import Scrap
from bench.faults.streams import StreamConsumer
from bench.faults.verdict import Verdict

PUBLISHERS = 10
# Of each group that is not pushed: three that pull, and one that reads its stream.
CONSUMERS = (Consumer, Consumer, Consumer, StreamConsumer)
PROGRESS_S = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    seed: int
    minutes: float
    rate: float
    directory: Path
    wanted: Wanted
    broken: Broken | None = None
    drain_s: float = 120.0


class Run:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.cluster = self.make_cluster()
        self.history = options.directory / "history"
        self.recorder = Recorder(self.history, "run")
        self.pulse = Pulse()
        self.phase = Phase(rate=options.rate, seconds=options.minutes * 60)
        self.begin = time.monotonic()
        self.lag: dict[str, int | None] = {}

    def make_cluster(self) -> Cluster:
        return Cluster(self.options.directory)

    async def make_nemesis(self, observer: Observer) -> Nemesis:
        """Of what is broken already, no function is changed again."""
        options, parts = self.options, (self.cluster, self.recorder, self.pulse, self.phase)
        if options.broken is not None:
            return Nemesis(*parts, options.seed, options.broken.faults)
        await inside.install(self.cluster)
        scrap = Scrap(observer.client, self.phase)
        await scrap.declare()
        provoked: dict[str, Provoke] = {
            "seek": observer.seek, "redrive": observer.redrive, "purge": scrap.purge, "trim": scrap.overfill,
            "sweep": scrap.overfill,
        }  # fmt: skip
        return Nemesis(*parts, options.seed, points=Points(self.cluster, options.seed, provoked))

    async def run(self) -> Verdict:
        await self.cluster.start()
        client = Client(self.cluster.urls, self.recorder, self.pulse, self.options.seed)
        broken = self.options.broken
        observer = Observer(client, self.phase)
        receiver = await Receiver(client, self.phase).start()
        try:
            if broken is not None:
                await broken.spoil(self.cluster)
            await self._declare(client, receiver.url)
            nemesis = await self.make_nemesis(observer)
            self.begin = time.monotonic()
            await self._load(client, observer, nemesis)
            self.say("restarting everything")
            await self.cluster.restart_everything()
            await self._look(observer)
        finally:
            self.phase.end()
            await client.close()
            await receiver.stop()
            await self.cluster.stop()
            self.recorder.close()
        self.say("checking")
        return await asyncio.to_thread(
            check_directory, self.history, seed=self.options.seed, wanted=self.options.wanted
        )

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.begin:7.1f} s  {text}", flush=True)

    async def _declare(self, client: Client, receiver_url: str) -> None:
        await client.sure("PUT", f"/v1/topics/{TOPIC}", {"distribution": {"partitions": PARTITIONS}})
        self.recorder.note(Event(f="topic", topic=TOPIC, data={"partitions": PARTITIONS}))
        for name in GROUPS:
            await client.sure("PUT", f"/v1/topics/{TOPIC}/groups/{name}", group_body(name, receiver_url))
            self.recorder.note(Event(f="group", topic=TOPIC, group=name, data=group_data(name)))

    async def _load(self, client: Client, observer: Observer, nemesis: Nemesis) -> None:
        end = time.monotonic() + self.options.minutes * 60
        publishers = [Publisher(number, client, self.phase) for number in range(1, PUBLISHERS + 1)]
        async with asyncio.TaskGroup() as tasks:

            def start(*coroutines: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
                return [tasks.create_task(coroutine) for coroutine in coroutines]

            publishing = start(*(publisher.run(1 / PUBLISHERS) for publisher in publishers))
            start(
                *(
                    kind(group, number, client, self.phase).run()
                    for group in GROUPS
                    for number, kind in enumerate(CONSUMERS, 1)
                    if group != PUSHED
                )
            )
            start(observer.watch_cursors(), observer.audit_sometimes(), self._sample())
            start(*(observer.tail(part) for part in range(PARTITIONS)))
            moving = start(observer.seek_sometimes(), observer.redrive_sometimes())
            start(self._progress(nemesis))
            await self.phase.sleep(2.0)
            await nemesis.run(lambda: time.monotonic() > end)
            self.phase.publishing = False
            self.say("no more faults; waiting for the publishers")
            await asyncio.gather(*publishing, *moving)
            self.phase.draining = True
            self.say("draining")
            await self._drain(observer)
            self.phase.end()

    async def _drain(self, observer: Observer) -> None:
        event = Event(f="quiesce", topic=TOPIC, t0=now())
        deadline = time.monotonic() + self.options.drain_s
        while time.monotonic() < deadline:
            self.lag = {group: await observer.snapshot(group, "poll") for group in GROUPS}
            if all(lag == 0 for lag in self.lag.values()):
                self.recorder.complete([event], "ok")
                return
            await asyncio.sleep(0.2)
        self.say(f"it did not drain: {self.lag}")
        self.recorder.complete([event], "fail")

    async def _look(self, observer: Observer) -> None:
        """After the restart: what is in the log, where the cursors are, who is dead."""
        self.say("reading everything")
        if not await observer.audit("audit:final", final=True):
            self.say("the final audit could not be finished")
        for group in GROUPS:
            for _ in range(20):
                if await observer.snapshot(group, "final") is not None:
                    break
            for _ in range(20):
                if await observer.list_dead(group, "final") is not None:
                    break
        self.recorder.note(Event(f="sample", t0=now(), data=dict(self.cluster.held())))

    async def _sample(self) -> None:
        while not self.phase.over:
            self.recorder.note(Event(f="sample", t0=now(), data=dict(self.cluster.held())))
            self.recorder.flush()
            await self.phase.sleep(5.0)

    async def _progress(self, nemesis: Nemesis) -> None:
        while not self.phase.over:
            await self.phase.sleep(PROGRESS_S)
            counts = self.pulse.counts
            troubles = ", ".join(f"{name} {count}" for name, count in self.pulse.statuses.most_common(4))
            self.say(
                f"{counts['published']} published, {counts['delivered']} delivered, {counts['settled']} settled, "
                f"{counts['pushed']} pushed; "
                f"{nemesis.fired} faults, now {nemesis.current}; {troubles}"
            )
