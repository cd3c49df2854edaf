"""Trimming before pulls: exact for each, and shared by those who come together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.domain.topic import Retention, TopicConfig
from app.storage import retention
from tests.broker.world import Replica


async def test_pulls_that_come_together_share_a_trim_that_began_after_each(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replica.topic(TopicConfig(retention=Retention(max_count=3)))
    await replica.group(ordering="none")
    looks, look, looking = [], retention.limited_topics, asyncio.Event()

    async def counted(*args: Any) -> Any:
        looks.append(args)
        looking.set()
        return await look(*args)

    monkeypatch.setattr(retention, "limited_topics", counted)
    await replica.publish(*"abcdef")
    first = asyncio.create_task(replica.pull(1))
    await looking.wait()
    await replica.publish("g")  # what the trim under way may not know of
    rest = await asyncio.gather(*(replica.pull(1) for _ in range(20)))
    assert {got.text for pulled in rest for got in pulled} | {got.text for got in await first} <= set("defg")
    assert "d" not in {got.text for pulled in rest for got in pulled}
    assert len(looks) <= 4


async def test_a_topic_that_keeps_everything_is_not_looked_at(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "limited_topics", None)
    await replica.topic()
    await replica.group()
    await replica.publish("a")
    assert [got.text for got in await replica.pull()] == ["a"]


async def test_an_age_of_days_is_not_looked_at_for_every_pull(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replica.topic(TopicConfig(retention=Retention(max_age_ms=86_400_000)))
    await replica.group()
    await replica.publish("a", "b")
    assert len(await replica.pull(1)) == 1
    monkeypatch.setattr(retention, "limited_topics", None)
    assert len(await replica.pull(1)) == 0  # it was looked for, and is behind the other
