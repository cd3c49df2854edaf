"""Pull over HTTP: the form of a delivered message, the reasons for none, and what is refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.api.wire import GROUP, TOPIC, declared, field_of, problem_of, published, pulled, stored


async def test_a_delivered_message_has_these_fields_and_no_others(client: httpx.AsyncClient) -> None:
    await declared(client, retries={"max": 2})
    (result,) = await published(
        client, {"total": 1}, partitionKey="k", headers={"x": "é"}, correlationId="c", idempotencyKey="i"
    )
    (message,) = await pulled(client)
    assert message.pop("ackId").startswith("ack_")
    ends = datetime.fromisoformat(message.pop("leaseExpiresAt"))
    assert 0 < (ends - datetime.now(UTC)).total_seconds() < 31
    assert message == {
        "id": result["id"], "topic": "orders", "partition": 0, "offset": 1, "key": "k", "headers": {"x": "é"},
        "correlationId": "c", "publishedAt": result["publishedAt"], "attempt": 1, "maxAttempts": 3,
        "message": {"total": 1},
    }  # fmt: skip


async def test_a_payload_that_is_not_json_comes_as_base64(client: httpx.AsyncClient) -> None:
    await declared(client)
    await client.post(f"{TOPIC}/messages", content=b"\x00\xff", headers={"content-type": "image/png"})
    (message,) = await pulled(client)
    assert (message["contentType"], message["dataBase64"]) == ("image/png", "AP8=")
    assert "message" not in message


async def test_what_is_not_there_is_null_and_not_left_out(client: httpx.AsyncClient) -> None:
    await declared(client)
    await published(client, None)
    (message,) = await pulled(client)
    assert [message[name] for name in ("key", "headers", "correlationId", "message")] == [None, {}, None, None]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"max": 0}, "max"), ({"max": 1001}, "max"), ({"max": -1}, "max"), ({"max": "5"}, "max"), ({"max": 1.5}, "max"),
        ({"max": True}, "max"), ({"maxBytes": 0}, "maxBytes"),
        ({"waitMs": -1}, "waitMs"), ({"waitMs": 60_001}, "waitMs"),
        ({"waitMs": "0"}, "waitMs"), ({"consumer": 5}, "consumer"), ({"consumer": "x" * 129}, "consumer"),
        ({"consumer": "a\0b"}, "consumer"), ({"wait": 1}, "wait"), ([], "body"), ("x", "body"),
    ],
)  # fmt: skip
async def test_bad_input_is_refused_with_its_field_and_takes_nothing(
    client: httpx.AsyncClient, body: Any, field: str
) -> None:
    await declared(client)
    await published(client, 1)
    assert field_of(await client.post(f"{GROUP}/pull", json=body)) == field
    assert len(await pulled(client)) == 1


async def test_a_body_that_is_not_json_is_400_and_none_at_all_means_the_defaults(client: httpx.AsyncClient) -> None:
    await declared(client, batchSize=2)
    await published(client, 1, 2, 3)
    problem_of(await client.post(f"{GROUP}/pull", content=b"{"), 400, "invalid_json")
    problem_of(await client.post(f"{GROUP}/pull", content=b"\xff"), 400, "invalid_json")
    answer = await client.post(f"{GROUP}/pull")
    assert [each["message"] for each in answer.json()["messages"]] == [1, 2]


async def test_unknown_topics_and_groups_are_404_with_their_codes(client: httpx.AsyncClient) -> None:
    await declared(client)
    problem_of(await client.post("/v1/topics/none/groups/billing/pull", json={}), 404, "topic_not_found")
    problem_of(await client.post(f"{TOPIC}/groups/none/pull", json={}), 404, "group_not_found")


async def reason(client: httpx.AsyncClient, **body: Any) -> str | None:
    answer = (await client.post(f"{GROUP}/pull", json=body)).json()
    assert set(answer) == {"messages", "empty"}
    assert answer["messages"] == []
    found: str | None = answer["empty"]
    return found


async def test_an_empty_answer_says_why(client: httpx.AsyncClient) -> None:
    await declared(client, maxInFlight=2, retries={"max": 3, "baseDelay": 60_000, "maxDelay": 60_000})
    assert await reason(client) == "no_messages"
    await published(client, 1, 2, 3)
    got = await pulled(client, max=1, consumer="a")
    assert await reason(client, consumer="b") == "leased"
    got += await pulled(client, max=1, consumer="a")
    assert await reason(client, consumer="a") == "max_in_flight"
    await client.post(f"{GROUP}/pause")
    assert await reason(client) == "paused"
    await client.post(f"{GROUP}/resume")
    await client.post(f"{GROUP}/nack", json={"ackIds": [each["ackId"] for each in got]})
    (last,) = await pulled(client)
    await client.post(f"{GROUP}/ack", json={"ackIds": [last["ackId"]]})
    assert await reason(client) == "held"
    await client.post(f"{GROUP}/seek", json={"position": "latest"})
    assert await reason(client) == "no_messages"


async def test_a_waiting_pull_is_answered_when_something_comes_and_no_later_than_its_time(
    client: httpx.AsyncClient,
) -> None:
    await declared(client)
    loop = asyncio.get_running_loop()
    took = []
    for _ in range(5):
        began = loop.time()
        assert await reason(client, waitMs=200) == "no_messages"
        took.append(loop.time() - began)
    assert 0.19 < min(took) < 0.7
    waiting = asyncio.create_task(pulled(client, waitMs=60_000))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    began = loop.time()
    await published(client, "now")
    assert [each["message"] for each in await waiting] == ["now"]
    assert loop.time() - began < 30


async def test_at_least_one_message_is_given_however_few_bytes_are_wanted(client: httpx.AsyncClient) -> None:
    await declared(client)
    await published(client, "x" * 500, "y" * 500)
    assert len(await pulled(client, maxBytes=1, consumer="a")) == 1
    assert len(await pulled(client, maxBytes=502, consumer="a")) == 1


async def test_max_bytes_is_exceeded_by_a_first_message_only(client: httpx.AsyncClient) -> None:
    await declared(client, partitions=4, maxInFlight=1000)
    for key in ("a", "b", "c", "d", "e", "f"):
        await published(client, "small", partitionKey=key)
        await published(client, "x" * 5000, partitionKey=key)
    sizes = []
    while True:
        messages = await pulled(client, maxBytes=1000, consumer="one")
        if not messages:
            break
        sizes.append([len(message["message"]) for message in messages])
        await client.post(f"{GROUP}/ack", json={"ackIds": [message["ackId"] for message in messages]})
    assert sorted(size for each in sizes for size in each) == [5] * 6 + [5000] * 6
    assert all(sum(each) <= 1000 or len(each) == 1 for each in sizes), sizes


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_group_sees_exactly_what_is_retained(client: httpx.AsyncClient, partitions: int) -> None:
    """However short ago the rest ceased to be: nobody waits for a background loop."""
    await client.put(TOPIC, json={"distribution": {"partitions": partitions}, "retention": {"maxCount": 3}})
    await client.put(GROUP, json={"startFrom": "earliest"})
    await published(client, *range(10))
    await published(client, *range(10, 14))
    assert (await client.get(f"{GROUP}/lag")).json()["lag"] == 3
    await published(client, *range(14, 21))
    messages = await pulled(client)
    assert len(messages) == 3
    assert {message["id"] for message in messages} == {message["id"] for message in await stored(client)}
    stats = (await client.get(f"{GROUP}/stats")).json()
    assert (stats["lost"], stats["inFlight"], stats["lag"]) == (18, 3, 3)


async def test_a_group_that_seeks_finds_what_is_retained(client: httpx.AsyncClient) -> None:
    await client.put(TOPIC, json={"retention": {"maxCount": 3}})
    await client.put(GROUP, json={})
    first, *_ = await published(client, *range(10))
    assert (await client.post(f"{GROUP}/seek", json={"messageId": first["id"]})).status_code == 404
    moved = await client.post(f"{GROUP}/seek", json={"position": "earliest"})
    assert moved.json() == {"partitions": [{"partition": 0, "nextOffset": 8}]}
