"""Deliveries over HTTP: what is in flight or deferred, and a message's story in every group."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.wire import GROUP, TOPIC, declared, field_of, problem_of, published, pulled

DELIVERIES = f"{GROUP}/deliveries"
SLOW = {"max": 3, "strategy": "fixed", "baseDelay": 60_000, "maxDelay": 60_000}
FIELDS = {
    "messageId", "group", "partition", "offset", "key", "state", "attempt", "dueAt", "leaseExpiresAt", "consumer",
    "error",
}  # fmt: skip


async def in_every_state(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    await declared(client, retries=SLOW)
    results = await published(client, 1, 2, partitionKey="k")
    results += await published(client, 3, delayMs=60_000)
    results += await published(client, 4)
    (first,) = await pulled(client, max=1)
    await client.post(f"{GROUP}/nack", json={"ackIds": [first["ackId"]], "reason": "busy"})
    await pulled(client, consumer="me")
    return results


async def test_deliveries_are_listed_with_their_state_by_offset(client: httpx.AsyncClient) -> None:
    results = await in_every_state(client)
    page = (await client.get(DELIVERIES)).json()
    assert page["nextCursor"] is None
    items = page["items"]
    assert all(set(each) == FIELDS for each in items)
    assert [each["messageId"] for each in items] == [each["id"] for each in results]
    assert [(each["state"], each["attempt"], each["key"]) for each in items] == [
        ("retrying", 1, "k"), ("held", 1, "k"), ("delayed", 1, None), ("leased", 1, None)
    ]  # fmt: skip
    retrying, held, delayed, leased = items
    assert (retrying["error"], retrying["dueAt"] > results[0]["publishedAt"]) == ("busy", True)
    assert (held["dueAt"], held["leaseExpiresAt"]) == (None, None)
    assert delayed["dueAt"] > results[2]["publishedAt"]
    assert (leased["consumer"], leased["leaseExpiresAt"] > results[3]["publishedAt"]) == ("me", True)


@pytest.mark.parametrize(("state", "offset"), [("retrying", 1), ("held", 2), ("delayed", 3), ("leased", 4)])
async def test_only_those_in_a_state(client: httpx.AsyncClient, state: str, offset: int) -> None:
    await in_every_state(client)
    items = (await client.get(DELIVERIES, params={"state": state})).json()["items"]
    assert [(each["state"], each["offset"]) for each in items] == [(state, offset)]


async def test_pages_miss_and_repeat_none(client: httpx.AsyncClient) -> None:
    await declared(client, partitions=3, retries=SLOW)
    await published(client, *range(20))
    await pulled(client)
    seen: list[tuple[int, int]] = []
    cursor: str | None = None
    while True:
        page = (await client.get(DELIVERIES, params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [(each["partition"], each["offset"]) for each in page["items"]]
        if (cursor := page["nextCursor"]) is None:
            break
    assert len(seen) == 20
    assert seen == sorted(set(seen))


async def test_a_message_tells_its_story_in_every_group(client: httpx.AsyncClient) -> None:
    await declared(client, retries=SLOW)
    await client.put(f"{TOPIC}/groups/other", json={"startFrom": "earliest"})
    (result,) = await published(client, 1)
    (mine,) = await pulled(client)
    (theirs,) = await pulled(client, f"{TOPIC}/groups/other")
    await client.post(f"{GROUP}/nack", json={"ackIds": [mine["ackId"]], "reason": "busy"})
    await client.post(f"{TOPIC}/groups/other/discard", json={"ackIds": [theirs["ackId"]], "reason": "no use"})
    story = (await client.get(f"{TOPIC}/messages/{result['id']}/deliveries")).json()
    assert set(story) == {"deliveries", "attempts"}
    assert [(each["group"], each["state"]) for each in story["deliveries"]] == [("billing", "retrying")]
    assert all(
        set(each) == {"group", "attempt", "at", "latencyMs", "status", "errorClass", "error", "excerpt", "outcome"}
        for each in story["attempts"]
    )
    assert [(each["group"], each["attempt"], each["outcome"], each["error"]) for each in story["attempts"]] == [
        ("billing", 1, "nacked", "busy"), ("other", 1, "discarded", "no use")
    ]  # fmt: skip


async def test_bad_input_and_unknown_names(client: httpx.AsyncClient) -> None:
    await declared(client)
    assert field_of(await client.get(f"{DELIVERIES}?state=dead")) == "state"
    assert field_of(await client.get(f"{DELIVERIES}?cursor=x")) == "cursor"
    problem_of(await client.get("/v1/topics/none/groups/billing/deliveries"), 404, "topic_not_found")
    problem_of(await client.get(f"{TOPIC}/groups/none/deliveries"), 404, "group_not_found")
    problem_of(await client.get(f"{TOPIC}/messages/msg_1_00000000_1/deliveries"), 404, "message_not_found")
    problem_of(await client.get(f"{TOPIC}/messages/x/deliveries"), 404, "message_not_found")
    problem_of(await client.get("/v1/topics/none/messages/x/deliveries"), 404, "topic_not_found")
