"""CloudEvents over HTTP: every mode, and what is wrong with those that are not taken."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.api.wire import BATCH, ONE, TOPIC, faults, stored

EVENT = {"specversion": "1.0", "id": "1", "source": "/checkout", "type": "order.paid"}
CE_HEADERS = {f"ce-{name}": value for name, value in EVENT.items()}


@pytest.fixture(autouse=True)
async def topic(client: httpx.AsyncClient) -> None:
    await client.put(TOPIC, json={"distribution": {"partitions": 4}})


async def test_cloud_events_come_in_every_mode(client: httpx.AsyncClient) -> None:
    binary = await client.post(
        ONE, json={"n": 1}, headers=CE_HEADERS | {"ce-subject": "caf%C3%A9", "ce-partitionkey": "ord_123"}
    )
    structured = await client.post(
        ONE, content=json.dumps(EVENT | {"subject": "café", "partitionkey": "ord_123", "data": {"n": 1}}),
        headers={"Content-Type": "application/cloudevents+json; charset=UTF-8"},
    )  # fmt: skip
    assert (binary.status_code, structured.status_code) == (201, 201)
    batched = [
        await client.post(
            path, content=json.dumps([EVENT | {"data": {"n": 1}}] * 2),
            headers={"Content-Type": "Application/CloudEvents-Batch+JSON"},
        )
        for path in (ONE, BATCH)
    ]  # fmt: skip
    assert [len(answer.json()["results"]) for answer in batched] == [2, 2]
    found = await stored(client)
    assert [message["message"] for message in found] == [{"n": 1}] * 6
    assert (
        found[0]["headers"] == found[1]["headers"] == CE_HEADERS | {"ce-subject": "café", "ce-partitionkey": "ord_123"}
    )
    assert [message["key"] for message in found[:2]] == ["ord_123", "ord_123"]
    assert binary.json()["partition"] == 2


async def test_an_empty_batch_of_events_is_legal(client: httpx.AsyncClient) -> None:
    answer = await client.post(ONE, content=b"[]", headers={"Content-Type": "application/cloudevents-batch+json"})
    assert (answer.status_code, answer.json()) == (200, {"results": []})


async def test_options_go_before_what_an_event_says(client: httpx.AsyncClient) -> None:
    headers = CE_HEADERS | {
        "ce-partitionkey": "acct_1",
        "Partition-Key": "ord_123",
        "Correlation-Id": "c",
        "Message-Header-x": "1",
    }
    await client.post(ONE, json=1, headers=headers)
    (found,) = await stored(client)
    assert (found["key"], found["correlationId"], found["headers"]["x"]) == ("ord_123", "c", "1")


async def test_events_are_taken_once_only_where_the_topic_says_so(client: httpx.AsyncClient) -> None:
    async def publish(**attributes: str) -> int:
        headers = {f"ce-{name}": value for name, value in (EVENT | attributes).items()}
        return (await client.post(ONE, json=1, headers=headers)).status_code

    assert [await publish(), await publish()] == [201, 201]
    await client.put(TOPIC, json={"distribution": {"partitions": 4}, "idempotency": {"cloudEventsId": True}})
    assert [await publish(), await publish(), await publish(source="/other"), await publish(id="2")] == [
        201,
        200,
        201,
        201,
    ]


@pytest.mark.parametrize(("content_type", "body", "field"), [
    ("application/cloudevents+json", b'{"id":"1"}', "source"), ("application/cloudevents+json", b"[]", "body"),
    ("application/cloudevents-batch+json", b'[{"id":"1"}]', "[0].source"), ("application/cloudevents-batch+json",
    b"{}", "body"),
])  # fmt: skip
async def test_a_bad_event_says_what_is_wrong(
    client: httpx.AsyncClient, content_type: str, body: bytes, field: str
) -> None:
    answer = await client.post(ONE, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 422
    assert faults(answer)[0][0] == field


async def test_other_formats_of_events_are_415(client: httpx.AsyncClient) -> None:
    answer = await client.post(ONE, content=b"x", headers={"Content-Type": "application/cloudevents+avro"})
    assert answer.status_code == 415
