"""How much a namespace may have: refused past it, whoever else asks at the same time, and nobody else is hurt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from tests.app_client import serving

ELSEWHERE = {"logpost-project": "other"}


@pytest.fixture
async def pair(dsn: str) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Two replicas which allow little."""
    little = {"max_topics": 3, "max_partitions": 10, "max_topic_partitions": 4, "max_topic_groups": 2}
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(serving(dsn, **little)) for _ in range(2)]


def parted(partitions: int) -> dict[str, Any]:
    return {"distribution": {"partitions": partitions}}


def assert_refused(answer: httpx.Response, setting: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (403, "limit_reached"), answer.text
    assert setting in answer.json()["errors"][0]["reason"]


async def test_s12_two_replicas_together_make_no_more_topics_than_are_allowed(pair: list[httpx.AsyncClient]) -> None:
    answers = await asyncio.gather(*(pair[n % 2].put(f"/v1/topics/t{n}") for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [403] * 5
    for answer in answers:
        if answer.status_code == 403:
            assert_refused(answer, "LOGPOST_MAX_TOPICS")
    assert len((await pair[0].get("/v1/topics")).json()["items"]) == 3


async def test_s12_what_is_there_can_be_declared_again_and_changed_at_the_limit(pair: list[httpx.AsyncClient]) -> None:
    for n in range(3):
        assert (await pair[0].put(f"/v1/topics/t{n}")).status_code == 201
    assert (await pair[1].put("/v1/topics/t0")).status_code == 200
    assert (await pair[1].put("/v1/topics/t0", json={"tags": ["new"]})).status_code == 200
    assert_refused(await pair[1].put("/v1/topics/t3"), "LOGPOST_MAX_TOPICS")
    assert (await pair[0].put("/v1/topics/t3", headers=ELSEWHERE)).status_code == 201
    assert (await pair[0].delete("/v1/topics/t0")).status_code == 204
    assert (await pair[1].put("/v1/topics/t3")).status_code == 201


async def test_s12_partitions_of_a_topic_are_limited_when_made_and_when_raised(pair: list[httpx.AsyncClient]) -> None:
    refused = await pair[0].put("/v1/topics/orders", json=parted(5))
    assert_refused(refused, "LOGPOST_MAX_TOPIC_PARTITIONS")
    assert refused.json()["errors"][0]["field"] == "distribution.partitions"
    assert (await pair[0].put("/v1/topics/orders", json=parted(4))).status_code == 201
    assert_refused(await pair[1].put("/v1/topics/orders", json=parted(5)), "LOGPOST_MAX_TOPIC_PARTITIONS")
    assert (await pair[1].put("/v1/topics/orders", json=parted(4))).status_code == 200


async def test_s12_partitions_of_a_namespace_are_limited_when_raised_at_the_same_time(
    pair: list[httpx.AsyncClient],
) -> None:
    for n in range(3):
        assert (await pair[0].put(f"/v1/topics/t{n}", json=parted(2))).status_code == 201
    raised = await asyncio.gather(*(pair[n % 2].put(f"/v1/topics/t{n}", json=parted(4)) for n in range(3)))
    assert sorted(answer.status_code for answer in raised) == [200, 200, 403]
    for answer in raised:
        if answer.status_code == 403:
            assert_refused(answer, "LOGPOST_MAX_PARTITIONS")
    topics = (await pair[0].get("/v1/topics")).json()["items"]
    assert sum(topic["distribution"]["partitions"] for topic in topics) == 10


async def test_s12_groups_of_a_topic_are_limited_for_replicas_together(pair: list[httpx.AsyncClient]) -> None:
    for topic in ("orders", "bills"):
        await pair[0].put(f"/v1/topics/{topic}")
    answers = await asyncio.gather(*(pair[n % 2].put(f"/v1/topics/orders/groups/g{n}") for n in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [403] * 4
    there = [group["name"] for group in (await pair[0].get("/v1/topics/orders/groups")).json()["items"]]
    assert (await pair[1].put(f"/v1/topics/orders/groups/{there[0]}", json={"batchSize": 7})).status_code == 200
    assert_refused(await pair[1].put("/v1/topics/orders/groups/more"), "LOGPOST_MAX_TOPIC_GROUPS")
    assert (await pair[1].put("/v1/topics/bills/groups/more")).status_code == 201
