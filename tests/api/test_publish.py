"""Publishing over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from app.api.application import application
from app.api.openapi import document_of
from tests.api.wire import BATCH, ONE, TOPIC, faults, stored


@pytest.fixture(autouse=True)
async def topic(client: httpx.AsyncClient) -> None:
    await client.put(TOPIC, json={"distribution": {"partitions": 4}})


async def test_the_answer_says_where_the_message_is(client: httpx.AsyncClient) -> None:
    answer = await client.post(ONE, content=b'{"a": 1}', headers={"Partition-Key": "ord_123"})
    assert answer.status_code == 201
    published = answer.json()
    assert published == {
        "id": published["id"], "partition": 2, "offset": 1, "publishedAt": published["publishedAt"], "duplicate": False,
    }  # fmt: skip
    (found,) = await stored(client)
    assert found == {
        "id": published["id"], "topic": "orders", "partition": 2, "offset": 1, "key": "ord_123", "headers": {},
        "correlationId": None, "publishedAt": published["publishedAt"], "message": {"a": 1},
    }  # fmt: skip


async def test_a_repetition_answers_200_and_the_first_result(client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await client.post(ONE, content=b"1", headers=headers)
    again = await client.post(ONE, content=b"1", headers=headers)
    other = await client.post(ONE, content=b"2", headers=headers)
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 422)
    assert again.json() == first.json() | {"duplicate": True}
    assert other.json()["code"] == "idempotency_key_reused"
    assert faults(other) == [("Idempotency-Key", None)]


async def test_headers_and_correlation_id_arrive_unchanged(client: httpx.AsyncClient) -> None:
    await client.post(ONE, content=b"1", headers=[
        (b"Message-Header-trace", "Euro € 😀".encode()), (b"Message-Header-b", b"x; y=1"), (b"Correlation-Id",
        "é-1".encode()),
    ])  # fmt: skip
    options = {"headers": {"Trace": "Euro € 😀"}, "correlationId": "é-1"}
    await client.post(BATCH, json={"messages": [{"message": 1, "options": options}]})
    one, many = sorted(await stored(client), key=lambda found: str(found["publishedAt"]))
    assert (one["headers"], one["correlationId"]) == ({"trace": "Euro € 😀", "b": "x; y=1"}, "é-1")
    assert (many["headers"], many["correlationId"]) == ({"Trace": "Euro € 😀"}, "é-1")


ODD = [
    b"1e999", b"123456789012345678901234567890", b' {"a" : "\\u0000", "a" : 2 } ', b"null", b'""', '"é😀"'.encode(),
    b"-0.10",
]  # fmt: skip


async def test_a_payload_is_kept_byte_for_byte(client: httpx.AsyncClient) -> None:
    for payload in ODD:
        one = await client.post(ONE, content=payload)
        many = await client.post(BATCH, content=b'{"messages":[{"message":%b}]}' % payload)
        assert (one.status_code, many.status_code) == (201, 201), payload
        for found, kept in ((one.json()["id"], payload), (many.json()["results"][0]["id"], payload.strip())):
            assert (await client.get(f"{ONE}/{found}")).content.endswith(b'"message":%b}' % kept)


NOT_JSON = [
    b"", b"{", b"NaN", b'"\xff"', b'"\\ud800"', b"[" * 65 + b"]" * 65, b"[" * 100_000, b'{"a":1}}', b"'a'", b"a=1&b=2",
]  # fmt: skip


async def test_what_is_not_json_is_400_and_names_the_body(client: httpx.AsyncClient) -> None:
    for payload in NOT_JSON:
        answer = await client.post(ONE, content=payload)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json"), payload[:20]
        assert faults(answer) == [("body", None)]
    assert await stored(client) == []


async def test_depth_64_is_taken(client: httpx.AsyncClient) -> None:
    assert (await client.post(ONE, content=b"[" * 64 + b"]" * 64)).status_code == 201
    deep = b'{"messages":[{"message":1},{"message":%b}]}'
    assert (await client.post(BATCH, content=deep % (b"[" * 64 + b"]" * 64))).status_code == 201
    refused = await client.post(BATCH, content=deep % (b"[" * 65 + b"]" * 65))
    assert (refused.status_code, faults(refused)) == (400, [("messages[1].message", None)])


async def test_other_content_types_are_kept_as_bytes(client: httpx.AsyncClient) -> None:
    assert (await client.post(ONE, content=b"\xff\x00", headers={"Content-Type": "image/png"})).status_code == 201
    (found,) = await stored(client)
    assert (found["contentType"], found["dataBase64"]) == ("image/png", "/wA=")
    assert "message" not in found
    refused = await client.post(ONE, content=b"1", headers={"Content-Type": "no type"})
    assert (refused.status_code, faults(refused)) == (415, [("Content-Type", None)])


async def test_curl_without_a_content_type_publishes_json(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await client.post(ONE, content=b'{"a":1}', headers=headers)).status_code == 201
    assert [found["message"] for found in await stored(client)] == [{"a": 1}]


OPTIONS = ("Partition-Key", "Idempotency-Key", "Delay-Ms", "Ttl-Ms", "Correlation-Id", "Message-Header-a")
BAD_HEADERS: list[tuple[str, bytes]] = [
    ("Delay-Ms", b"1.5"), ("Delay-Ms", b"-1"), ("Delay-Ms", b"soon"), ("Delay-Ms", b""), ("Delay-Ms", b"99999999999"),
    ("Ttl-Ms", b"0"), ("Ttl-Ms", b"1e3"), ("Idempotency-Key", b""), ("Idempotency-Key", b"x" * 256), ("Partition-Key",
    b"x" * 1025),
    ("Partition-Key", b"\xff"), ("Correlation-Id", b"\xff"), ("Correlation-Id", b"a\x01"), ("Message-Header-a",
    b"\xff"),
    ("Message-Header-a", b"a\x02b"), ("Message-Header-a", b"x" * 9000),
]  # fmt: skip


async def test_an_option_out_of_its_range_is_named(client: httpx.AsyncClient) -> None:
    for name, value in BAD_HEADERS:
        answer = await client.post(ONE, content=b"1", headers=[(name.encode(), value)])
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), (name, value)
        assert str(faults(answer)[0][0]).startswith("Message-Header" if name == "Message-Header-a" else name)
    assert await stored(client) == []


async def test_an_option_given_twice_is_refused(client: httpx.AsyncClient) -> None:
    for name in OPTIONS:
        answer = await client.post(ONE, content=b"1", headers=[(name, "1"), (name, "1")])
        assert (answer.status_code, faults(answer)) == (422, [(name, None)])


BAD_BATCHES: list[tuple[Any, str, int | None]] = [
    ([], "body", None), ({}, "body", None), ({"messages": []}, "messages", None), ({"messages": [{}]},
    "messages[0]", 0),
    ({"messages": [1]}, "messages[0]", 0), ({"messages": [{"message": 1, "key": 1}]}, "messages[0]", 0),
    ({"messages": [{"message": 1}], "x": 1}, "body", None), ({"messages": [{"message": 1}] * 1001}, "messages", None),
    *[
        ({"messages": [{"message": 1}, {"message": 1, "options": {name: value}}]}, f"messages[1].options.{name}", 1)
        for name, value in [
            ("partitionKey", "a\0"), ("partitionKey", 1), ("idempotencyKey", ""), ("correlationId", "a\nb"),
            ("delayMs", -1),
            ("delayMs", "5"), ("delayMs", 1.5), ("delayMs", True), ("ttlMs", 0), ("ttlMs", 10**30), ("headers",
            {"a": "\n"}),
        ]
    ],
]  # fmt: skip


async def test_a_bad_batch_says_where_and_stores_nothing(client: httpx.AsyncClient) -> None:
    for body, field, index in BAD_BATCHES:
        answer = await client.post(BATCH, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), body
        ((where, at),) = faults(answer)
        assert str(where).startswith(field)
        assert at == index
    assert await stored(client) == []


async def test_a_batch_is_answered_in_order(client: httpx.AsyncClient) -> None:
    messages = [{"message": at, "options": {"partitionKey": f"k{at % 5}"}} for at in range(100)]
    answer = await client.post(BATCH, json={"messages": messages})
    assert answer.status_code == 201
    by_id = {found["id"]: found["message"] for found in await stored(client)}
    assert [by_id[result["id"]] for result in answer.json()["results"]] == list(range(100))


async def test_a_batch_of_repetitions_is_200(client: httpx.AsyncClient) -> None:
    body = {"messages": [{"message": 1, "options": {"idempotencyKey": "once"}}]}
    assert [(await client.post(BATCH, json=body)).status_code for _ in range(2)] == [201, 200]


async def test_options_of_a_batch_are_not_taken_from_headers(client: httpx.AsyncClient) -> None:
    for name in OPTIONS:
        answer = await client.post(BATCH, json={"messages": [{"message": 1}]}, headers={name: "1"})
        assert (answer.status_code, faults(answer)) == (422, [(name, None)])


async def test_a_rejected_message_is_422_with_reason_and_path(client: httpx.AsyncClient) -> None:
    await client.put(TOPIC, json={"validate": {"schema": {"properties": {"n": {"type": "integer"}}}}})
    one = await client.post(ONE, json={"n": "x"})
    assert (one.status_code, one.json()["code"]) == (422, "message_rejected")
    assert [(fault["field"], fault["path"]) for fault in one.json()["errors"]] == [("message", "/n")]
    many = await client.post(BATCH, json={"messages": [{"message": {"n": n}} for n in (1, "x", 2, None)]})
    assert [(fault["index"], fault["path"]) for fault in many.json()["errors"]] == [(1, "/n"), (3, "/n")]
    assert await stored(client) == []


async def test_names_are_checked_and_looked_up(client: httpx.AsyncClient) -> None:
    codes = {}
    for name in ("nowhere", "-x", "x" * 129, "a%20b", "a%00b", "%C3%A9"):
        answer = await client.post(f"/v1/topics/{name}/messages", content=b"1")
        codes[name] = (answer.status_code, answer.json()["code"])
    assert codes.pop("nowhere") == (404, "topic_not_found")
    assert set(codes.values()) == {(422, "invalid_field")}
    assert (await client.post("/v1/topics/order%73/messages", content=b"1")).status_code == 201


async def test_many_at_once_are_all_stored_once(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*[client.post(ONE, content=b"%d" % at) for at in range(200)])
    assert {answer.status_code for answer in answers} == {201}
    found = (await client.get(ONE, params={"limit": 1000})).json()["items"]
    assert sorted(message["message"] for message in found) == list(range(200))


async def test_the_documented_examples_work(client: httpx.AsyncClient) -> None:
    paths = document_of(application())["paths"]
    for content_type, media in paths["/v1/topics/{topic}/messages"]["post"]["requestBody"]["content"].items():
        example = media["example"]
        body = example if isinstance(example, str) else json.dumps(example)
        answer = await client.post(ONE, content=body, headers={"Content-Type": content_type})
        assert answer.status_code == 201, (content_type, answer.text)
    assert "/v1/topics/{topic}/messages/batch" in paths


async def test_every_option_at_fault_in_a_batch_is_named(client: httpx.AsyncClient) -> None:
    options = [{}, {"delayMs": -1}, {"ttlMs": 0}]
    answer = await client.post(BATCH, json={"messages": [{"message": 1, "options": each} for each in options]})
    assert answer.status_code == 422
    assert faults(answer) == [("messages[1].options.delayMs", 1), ("messages[2].options.ttlMs", 2)]
    assert await stored(client) == []
