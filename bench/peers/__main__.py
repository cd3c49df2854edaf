"""``python -m bench.peers [--full] [PEER …]``: every peer that is here, side by side; writes bench/results/."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.peers import generate, table
from bench.peers.peer import DRIVERS, Peer

SIZE = 300


@dataclass(frozen=True, slots=True)
class Scenario:
    """``lacks``: what a peer that cannot do it says of itself (``Peer.lacks``)."""

    title: str
    kind: str = "publish"
    clients: int = 8
    batch: int = 0
    groups: int = 1
    wanted: int = 500
    each: bool = False
    lacks: str = ""


SCENARIOS = [
    *(Scenario(f"publish one, {clients} clients", clients=clients) for clients in (1, 16, 64)),
    *(Scenario(f"publish batches of {batch}, 8 clients", batch=batch) for batch in (10, 100, 1000)),
    *(Scenario(f"… of 100, for {groups} groups", batch=100, groups=groups) for groups in (5, 20)),
    Scenario("consume, acked by the batch, 4 consumers", "consume", 4, lacks="consume-batch"),
    Scenario("consume, acked one by one, 4 consumers", "consume", 4, wanted=100, each=True, lacks="consume-each"),
]
# What there is to consume: more than anybody gets through.
BACKLOG = {False: 120_000, True: 20_000}


@dataclass(slots=True)
class Found:
    """Messages a second by round; how busy the generator's core was at most."""

    rates: list[float] = field(default_factory=list)
    busy: float = 0.0

    @property
    def rate(self) -> float:
        return median(self.rates)


async def measure(peers: dict[str, Peer], *, seconds: float, rounds: int) -> table.Table:
    found: dict[tuple[str, str], Found] = {}
    for at, scenario in enumerate(SCENARIOS):
        for turn in range(rounds):
            for name, peer in peers.items():
                if scenario.lacks in peer.lacks:
                    continue
                topic = f"t{at}-{turn}"
                await peer.fan_out(topic, scenario.groups)
                if scenario.kind == "consume":
                    await fill(name, peer, topic, BACKLOG[scenario.each])
                result = await asyncio.to_thread(
                    generate.run, name, place=peer.place, topic=topic, groups=scenario.groups, kind=scenario.kind,
                    clients=scenario.clients, batch=scenario.batch, size=SIZE, seconds=seconds,
                    wanted=scenario.wanted, each=scenario.each,
                )  # fmt: skip
                one = found.setdefault((scenario.title, name), Found())
                one.rates.append(result["rate"])
                one.busy = max(one.busy, result["busy"])
                print(f"{scenario.title}, {peer.title}: {result['rate']:,.0f}/s", flush=True)
    return table.Table([scenario.title for scenario in SCENARIOS], peers, found)


async def fill(name: str, peer: Peer, topic: str, count: int) -> None:
    session = await DRIVERS[name].connect(peer.place, topic, 1)
    publish = session.batch([b'{"note":"%s"}' % (b"x" * (SIZE - 11))] * 500)
    for _ in range(count // 500):
        await publish()
    await session.close()


async def run(names: list[str], *, full: bool) -> None:
    async with AsyncExitStack() as stack:
        peers: dict[str, Peer] = {}
        skipped: dict[str, str] = {}
        for name in names:
            peer = DRIVERS[name].peer(name)
            if why := peer.missing():
                skipped[peer.title] = why
                continue
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True))
            await peer.start(Path(directory))
            stack.push_async_callback(peer.stop)
            peers[name] = peer
        seconds, rounds = (5.0, 5) if full else (1.5, 3)
        measured = await measure(peers, seconds=seconds, rounds=rounds)
        sizes = {name: await stored_size(name, peer) for name, peer in peers.items()}
        table.write(measured, sizes, skipped, "python -m bench.peers" + (" --full" if full else ""))


async def stored_size(name: str, peer: Peer) -> float:
    """Bytes on the disk for a message of SIZE bytes, of 50,000 more in batches of 500."""
    await peer.fan_out("sized", 1)
    before = await peer.size_on_disk()
    await fill(name, peer, "sized", 50_000)
    return (await peer.size_on_disk() - before) / 50_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("peers", nargs="*", choices=[*DRIVERS, []], help="which ones; all by default")
    parser.add_argument("--full", action="store_true", help="longer rounds, and more of them")
    options = parser.parse_args()
    asyncio.run(run(options.peers or list(DRIVERS), full=options.full))


if __name__ == "__main__":
    main()
