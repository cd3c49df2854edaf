"""What is counted agrees with what happened, also where messages leave the straight line and come back."""

from __future__ import annotations

import pytest

from app.broker.seek import seek
from tests.broker.world import Replica


@pytest.mark.parametrize("way", ["leased", "extended", "retrying", "held"])
async def test_what_a_seek_drops_was_never_acked(replica: Replica, way: str) -> None:
    await replica.topic()
    group = await replica.group()
    await replica.publish("k:1", "k:2", "k:3")
    got = await replica.pull()
    await replica.ack(got[:1])
    if way == "extended":
        await replica.settle("extend", got[1:2], timeout_ms=60_000)
    elif way != "leased":
        await replica.settle("nack", got[1:2] if way == "held" else got[1:], delay_ms=60_000)
    await seek(replica.db, replica.wakeups, group, "earliest")
    stats = await replica.stats()
    assert (stats.total("acked"), stats.total("lag"), stats.total("ahead")) == (1, 3, 3)
    await replica.ack(await replica.pull())
    stats = await replica.stats()
    assert (stats.total("acked"), stats.total("lag")) == (4, 0)
