"""Every driver keeps the same promises, or its figures are not comparable. A peer that is not here is skipped."""

from __future__ import annotations

import asyncio
import itertools
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.peers.peer import DRIVERS, Driver, Peer

GROUPS = 2
BATCHES, BATCH, ONES = 4, 50, 5
WANTED = sorted(range(BATCHES * BATCH + ONES))


@pytest.fixture(scope="module", params=DRIVERS)
async def driven(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Driver, Peer]]:
    driver = DRIVERS[request.param]
    peer = driver.peer(request.param)
    if why := peer.missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as directory:
        await peer.start(Path(directory))
        try:
            yield driver, peer
        finally:
            await peer.stop()


def body(number: int) -> bytes:
    return b'{"number":%d,"note":"%s"}' % (number, b"x" * 200)


async def publish_all(driver: Driver, peer: Peer, topic: str) -> None:
    await peer.fan_out(topic, GROUPS)
    session = await driver.connect(peer.place, topic, GROUPS)
    for number in range(ONES):
        await session.one(body(number))()
    for n in range(BATCHES):
        await session.batch([body(ONES + n * BATCH + number) for number in range(BATCH)])()
    await session.close()


async def take_all(driver: Driver, peer: Peer, topic: str, group: str, *, each: bool) -> list[int]:
    """The numbers that two sessions of a group took, until both found nothing more."""

    async def work() -> list[int]:
        session = await driver.connect(peer.place, topic, GROUPS)
        numbers: list[int] = []
        while (taken := await session.take(group, 30, each=each)).messages:
            found = [int(number) for number in re.findall(rb'"number": ?(\d+)', taken.raw)]
            assert len(found) == taken.messages
            numbers += found
        await session.close()
        return numbers

    return sorted(itertools.chain(*await asyncio.gather(work(), work())))


async def test_what_was_published_is_taken_exactly_once_by_each_group(driven: tuple[Driver, Peer]) -> None:
    driver, peer = driven
    await publish_all(driver, peer, "orders")
    for group, each in (("g0", False), ("g1", True)):
        if ("consume-each" if each else "consume-batch") not in peer.lacks:
            assert await take_all(driver, peer, "orders", group, each=each) == WANTED
            assert await take_all(driver, peer, "orders", group, each=each) == []
    assert await peer.size_on_disk() > 0


async def test_a_publish_may_be_repeated_and_is_stored_each_time(driven: tuple[Driver, Peer]) -> None:
    driver, peer = driven
    await peer.fan_out("again", 1)
    session = await driver.connect(peer.place, "again", 1)
    publish = session.batch([body(number) for number in range(10)])
    await publish()
    await publish()
    taken = 0
    each = "consume-batch" in peer.lacks
    while count := (await session.take("g0", 30, each=each)).messages:
        taken += count
    assert taken == 20
    await session.close()
