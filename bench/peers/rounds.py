"""Starts the peers, measures them round by round, and keeps everything that was found in one document."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from bench.peers import floors
from bench.peers.peer import DRIVERS, Peer
from bench.peers.scenarios import SIZE, Scenario
from bench.report import Result, machine


@dataclass
class Found:
    """What one run found. Written as it is to a JSON file."""

    command: str
    seconds: float
    rounds: int
    scenarios: list[str]
    size: int = SIZE
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    machine: str = field(default_factory=machine)
    load_average: list[float] = field(default_factory=lambda: [psutil.getloadavg()[0]])  # before and after
    floors: dict[str, float] = field(default_factory=dict)
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    results: dict[str, dict[str, list[Result]]] = field(default_factory=dict)  # by scenario and peer
    failures: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return asdict(self)


def say(text: str) -> None:
    print(text, flush=True)


async def run(
    names: Sequence[str], scenarios: Sequence[Scenario], *, seconds: float, rounds: int, limit: float, command: str
) -> Found:
    """At most ``rounds``; no further one where it would be over ``limit`` seconds."""
    began = time.perf_counter()
    found = Found(command, seconds, 0, [scenario.name for scenario in scenarios])
    say(
        f"peers: {len(scenarios)} scenarios, up to {rounds} rounds of {seconds:g} s; "
        f"load average {found.load_average[0]:.1f}"
    )
    found.floors = await floors.measure(seconds)
    for what, rate in found.floors.items():
        say(f"  {rate:10,.0f}/s  {what}")
    with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as directory:
        running: dict[str, Peer] = {}
        try:
            await asyncio.gather(*(start(name, made(Path(directory) / name), running, found) for name in names))
            found.peers = {name: found.peers[name] for name in names if name in found.peers}
            cells = await declare(running, scenarios, found)
            while found.rounds < rounds:
                round_began = time.perf_counter()
                await measure(running, cells, found)
                found.rounds += 1
                if 2 * time.perf_counter() - round_began - began > limit:
                    break
        finally:
            await asyncio.gather(*(peer.stop() for peer in running.values()))
    found.load_average.append(psutil.getloadavg()[0])
    return found


def made(directory: Path) -> Path:
    directory.mkdir()
    directory.chmod(0o755)  # a server may run under another account
    return directory


async def start(name: str, directory: Path, running: dict[str, Peer], found: Found) -> None:
    peer = DRIVERS[name].peer(name)
    if not (why := peer.missing()):
        began = time.perf_counter()
        try:
            await peer.start(directory)
        except Exception as error:  # noqa: BLE001 - one that does not start is skipped like one that is not here
            why = f"it did not start: {str(error)[-300:]}"
        else:
            running[name] = peer
            found.peers[name] = {
                "title": peer.title, "version": peer.version, "durable": peer.durable, "copies": peer.copies,
                "durability": peer.durability, "lacks": sorted(peer.lacks),
            }  # fmt: skip
            say(f"  {peer.title}: {peer.version}, up after {time.perf_counter() - began:.1f} s")
            return
    found.missing[name] = f"{peer.title}: {why}"
    say(f"  skipped {found.missing[name]}")


async def declare(
    running: Mapping[str, Peer], scenarios: Sequence[Scenario], found: Found
) -> list[tuple[Scenario, str]]:
    """What a round measures: each scenario with each peer that has a way to do it, in this order."""
    cells = [
        (scenario, name) for scenario in scenarios for name in found.peers if scenario.name not in running[name].lacks
    ]
    for scenario, name in cells:
        await running[name].fan_out(scenario.name, scenario.groups)
    return cells


async def measure(running: Mapping[str, Peer], cells: Sequence[tuple[Scenario, str]], found: Found) -> None:
    """A, B, C, and in the next round again A, B, C: what the machine does meanwhile is done to all of them."""
    for n, (scenario, name) in enumerate(cells, start=1):
        peer = running[name]
        head = f"[{n}/{len(cells)} of round {found.rounds + 1}] {scenario.title}, {peer.title}"
        try:
            result = await scenario.measure(name, peer, scenario.name, found.seconds)
        except Exception as error:  # noqa: BLE001 - what fails is said, and the others are measured
            found.failures.append(f"{scenario.title}, {peer.title}: {str(error)[-300:]}")
            say(f"{head}: failed: {found.failures[-1]}")
            continue
        found.results.setdefault(scenario.name, {}).setdefault(name, []).append(result)
        say(f"{head}: {scenario.said(result)}")
