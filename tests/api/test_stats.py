"""Lag and stats over HTTP: exact field names, exact numbers."""

from __future__ import annotations

import asyncio

import httpx

from tests.api.wire import GROUP, TOPIC, declared, problem_of, published, pulled

COUNTS = (
    "lag", "ahead", "inFlight", "retrying", "held", "delayed", "dead", "acked", "discarded", "filtered", "filterErrors",
    "expired", "lost",
)  # fmt: skip


async def test_lag_has_these_fields(client: httpx.AsyncClient) -> None:
    await declared(client, partitions=2)
    assert (await client.get(f"{GROUP}/lag")).json() == {
        "lag": 0,
        "partitions": [
            {"partition": number, "lag": 0, "committedOffset": 0, "firstOffset": 1, "lastOffset": 0}
            for number in range(2)
        ],
    }


async def test_group_stats_count_every_message_once(client: httpx.AsyncClient) -> None:
    await declared(client, retries={"max": 1, "baseDelay": 60_000, "maxDelay": 60_000})
    await published(client, 1, 2, 3, 4, partitionKey="k")
    await published(client, 5, delayMs=60_000)
    await published(client, 6, 7)
    got = [each["ackId"] for each in await pulled(client, max=4)]
    await client.post(f"{GROUP}/ack", json={"ackIds": got[:1]})
    await client.post(f"{GROUP}/discard", json={"ackIds": got[3:]})
    await client.post(f"{GROUP}/nack", json={"ackIds": got[1:2]})
    await pulled(client, max=1, consumer="me")
    stats = (await client.get(f"{GROUP}/stats")).json()
    assert set(stats) == {
        *COUNTS, "group", "endpoint", "consumers", "paused", "pause", "oldestUnsettledAgeMs", "partitions"
    }  # fmt: skip
    assert {name: stats[name] for name in COUNTS if stats[name]} == {
        "lag": 5, "ahead": 1, "inFlight": 1, "retrying": 1, "held": 1, "delayed": 1, "acked": 1, "discarded": 1
    }  # fmt: skip
    assert (stats["group"], stats["paused"], stats["pause"], stats["consumers"]) == ("billing", False, None, 1)
    assert stats["oldestUnsettledAgeMs"] >= 0
    (partition,) = stats["partitions"]
    assert partition["committedOffset"] == 1


async def test_topic_stats_tell_of_messages_partitions_and_groups(client: httpx.AsyncClient) -> None:
    await declared(client, partitions=2)
    empty = (await client.get(f"{TOPIC}/stats")).json()
    assert (empty["messages"], empty["oldestAt"], empty["newestAt"]) == (0, None, None)
    results = await published(client, 1, 2, 3)
    stats = (await client.get(f"{TOPIC}/stats")).json()
    assert set(stats) == {"topic", "messages", "oldestAt", "newestAt", "partitions", "groups"}
    assert stats["messages"] == 3
    times = sorted(each["publishedAt"] for each in results)
    assert (stats["oldestAt"], stats["newestAt"]) == (times[0], times[-1])
    assert sum(each["lastOffset"] - each["firstOffset"] + 1 for each in stats["partitions"]) == 3
    assert [each["group"] for each in stats["groups"]] == ["billing"]
    assert stats["groups"][0]["lag"] == 3


async def test_unknown_names_are_404_with_their_codes(client: httpx.AsyncClient) -> None:
    await declared(client)
    problem_of(await client.get("/v1/topics/none/stats"), 404, "topic_not_found")
    for what in ("lag", "stats"):
        problem_of(await client.get(f"/v1/topics/none/groups/billing/{what}"), 404, "topic_not_found")
        problem_of(await client.get(f"{TOPIC}/groups/none/{what}"), 404, "group_not_found")


async def test_a_consumer_that_waits_counts_at_once(client: httpx.AsyncClient) -> None:
    """Those of other replicas are heard of within seconds."""
    await declared(client)

    async def counted() -> int:
        count: int = (await client.get(f"{GROUP}/stats")).json()["consumers"]
        return count

    await asyncio.sleep(0.1)  # the report of who waits has just been made
    waiting = [asyncio.create_task(pulled(client, waitMs=20_000, consumer=name)) for name in ("a", "b", "b")]
    for _ in range(50):
        if await counted() == 2:
            break
        await asyncio.sleep(0.02)
    assert await counted() == 2
    assert (await client.get(f"{TOPIC}/stats")).json()["groups"][0]["consumers"] == 2
    await published(client, 1)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
