"""Seek and replay over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.wire import GROUP, TOPIC, declared, field_of, problem_of, published, pulled


async def left(client: httpx.AsyncClient) -> list[Any]:
    return [each["message"] for each in await pulled(client, max=1000)]


async def test_a_group_is_moved_in_every_form(client: httpx.AsyncClient) -> None:
    await declared(client)
    first, second, _ = [(await published(client, n))[0] for n in (1, 2, 3)]
    for call, body, expected in (
        ("seek", {"position": "earliest"}, [1, 2, 3]), ("seek", {"position": "latest"}, []),
        ("seek", {"offset": 2}, [2, 3]), ("seek", {"offset": 0}, [1, 2, 3]), ("seek", {"offset": 2**63 - 1}, []),
        ("seek", {"timestamp": second["publishedAt"]}, [2, 3]), ("seek", {"messageId": first["id"]}, [1, 2, 3]),
        ("seek", {"messageId": second["id"]}, [2, 3]), ("replay", {"from": 3}, [3]),
        ("replay", {"from": second["publishedAt"]}, [2, 3]),
    ):  # fmt: skip
        answer = await client.post(f"{GROUP}/{call}", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"partitions": [{"partition": 0, "nextOffset": 4 - len(expected)}]}
        assert await left(client) == expected, body


@pytest.mark.parametrize(
    "body",
    [
        {}, {"position": "latest", "offset": 1}, {"position": "middle"}, {"offset": -1}, {"offset": "1"},
        {"offset": 1.5},
        {"offset": True}, {"offset": 2**63}, {"timestamp": "yesterday"}, {"timestamp": 5}, {"messageId": 5}, {"at": 1},
    ],
)  # fmt: skip
async def test_a_seek_that_says_not_exactly_one_place_is_refused_without_effect(
    client: httpx.AsyncClient, body: Any
) -> None:
    await declared(client)
    await published(client, 1)
    (got,) = await pulled(client)
    field_of(await client.post(f"{GROUP}/seek", json=body))
    assert (await client.post(f"{GROUP}/ack", json={"ackIds": [got["ackId"]]})).status_code == 200


@pytest.mark.parametrize("body", [{}, {"from": "earliest"}, {"from": "x"}, {"from": -1}, {"from": None}, {"to": 1}])
async def test_a_replay_takes_a_time_or_an_offset(client: httpx.AsyncClient, body: Any) -> None:
    await declared(client)
    field_of(await client.post(f"{GROUP}/replay", json=body))


async def test_a_refused_place_is_told_only_what_that_call_takes(client: httpx.AsyncClient) -> None:
    await declared(client)
    time = "a time like 2026-01-31T12:00:00Z"
    for call, body, allowed in (
        ("/seek", {"timestamp": "latest"}, time), ("/replay", {"from": "latest"}, f"an offset, or {time}"),
        ("s/new", {"startFrom": "last"}, f"earliest, latest, an offset, or {time}"),
    ):  # fmt: skip
        sent = (
            client.put(f"{TOPIC}/group{call}", json=body) if call == "s/new" else client.post(GROUP + call, json=body)
        )
        problem = problem_of(await sent, 422, "invalid_field")
        assert [error["reason"] for error in problem["errors"]] == [f"must be {allowed}"]


async def test_what_is_not_there_is_404_with_its_code(client: httpx.AsyncClient) -> None:
    await declared(client)
    for call, body in (("seek", {"position": "latest"}), ("replay", {"from": 1})):
        problem_of(await client.post(f"/v1/topics/none/groups/billing/{call}", json=body), 404, "topic_not_found")
        problem_of(await client.post(f"{TOPIC}/groups/none/{call}", json=body), 404, "group_not_found")
    for unknown in ("msg_1_00000000_1", "nonsense", "msg_ffffffffffffffff_00000000_1"):
        problem_of(await client.post(f"{GROUP}/seek", json={"messageId": unknown}), 404, "message_not_found")


async def test_deliveries_from_before_a_seek_cannot_be_settled(client: httpx.AsyncClient) -> None:
    await declared(client)
    await published(client, 1, 2)
    old = [each["ackId"] for each in await pulled(client)]
    await client.post(f"{GROUP}/replay", json={"from": 1})
    problem_of(await client.post(f"{GROUP}/ack", json={"ackIds": old}), 409, "nothing_settled")
    again = await pulled(client)
    assert [each["attempt"] for each in again] == [1, 1]
