"""Ack, nack, discard, extend and settle over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.wire import GROUP, TOPIC, declared, field_of, problem_of, published, pulled

VERBS = pytest.mark.parametrize("verb", ["ack", "nack", "discard", "extend"])


async def in_flight(client: httpx.AsyncClient, *messages: Any) -> list[str]:
    await declared(client)
    await published(client, *messages)
    return [each["ackId"] for each in await pulled(client)]


async def stats(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"{GROUP}/stats")).json()
    return found


@VERBS
async def test_each_delivery_has_its_outcome_in_the_order_asked(client: httpx.AsyncClient, verb: str) -> None:
    a, b, c = await in_flight(client, 1, 2, 3)
    await client.post(f"{GROUP}/nack", json={"ackIds": [b]})
    answer = await client.post(f"{GROUP}/{verb}", json={"ackIds": [c, b, a]})
    assert answer.status_code == 200
    assert answer.json() == {
        "results": [{"ackId": c, "status": "ok"}, {"ackId": b, "status": "stale"}, {"ackId": a, "status": "ok"}]
    }


@VERBS
async def test_nothing_settled_is_a_409_with_the_results(client: httpx.AsyncClient, verb: str) -> None:
    a, b = await in_flight(client, 1, 2)
    await client.post(f"{GROUP}/nack", json={"ackIds": [a, b]})
    before = await stats(client)
    problem = problem_of(await client.post(f"{GROUP}/{verb}", json={"ackIds": [a, b]}), 409, "nothing_settled")
    assert problem["results"] == [{"ackId": a, "status": "stale"}, {"ackId": b, "status": "stale"}]
    after = await stats(client)
    assert [before[name] for name in ("retrying", "inFlight", "acked")] == [
        after[name] for name in ("retrying", "inFlight", "acked")
    ]


@VERBS
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "ackIds"), ({"ackIds": []}, "ackIds"), ({"ackIds": "x"}, "ackIds"), ({"ackIds": [5]}, "ackIds[0]"),
        ({"ids": []}, "ids"),
    ],
)  # fmt: skip
async def test_bad_input_is_refused_with_its_field(client: httpx.AsyncClient, verb: str, body: Any, field: str) -> None:
    await declared(client)
    found = field_of(await client.post(f"{GROUP}/{verb}", json=body))
    assert found is not None
    assert found.replace("[...]", "[0]") == field


@VERBS
async def test_what_is_no_ack_id_of_the_group_is_stale_and_spoils_nothing(client: httpx.AsyncClient, verb: str) -> None:
    (mine,) = await in_flight(client, 1)
    await client.put(f"{TOPIC}/groups/other", json={"startFrom": "earliest"})
    (theirs,) = [each["ackId"] for each in await pulled(client, f"{TOPIC}/groups/other")]
    strangers = [theirs, "x", "", 'a"\\\n\x7fé', f"{mine}\n", f"{mine}_1", "ack_ffff0000_1_1_1_1_1"]
    results = [{"ackId": ack_id, "status": "stale"} for ack_id in strangers]
    for ack_id, result in zip(strangers, results, strict=True):
        alone = await client.post(f"{GROUP}/{verb}", json={"ackIds": [ack_id]})
        problem = problem_of(alone, 409, "nothing_settled")
        assert problem["results"] == [result]
        assert [(fault["field"], fault["reason"]) for fault in problem["errors"]] == [
            ("ackIds[0]", "is no ackId of this group")
        ]
    answer = await client.post(f"{GROUP}/{verb}", json={"ackIds": [*strangers, mine]})
    assert answer.status_code == 200
    assert answer.json()["results"] == [*results, {"ackId": mine, "status": "ok"}]
    assert (await client.get(f"{TOPIC}/groups/other/stats")).json()["inFlight"] == 1


@VERBS
async def test_what_a_deleted_group_gave_out_is_stale_in_the_next_of_its_name(
    client: httpx.AsyncClient, verb: str
) -> None:
    ack_ids = await in_flight(client, 1)
    assert (await client.delete(GROUP)).status_code == 204
    await client.put(GROUP, json={"startFrom": "earliest"})
    await pulled(client)
    problem_of(await client.post(f"{GROUP}/{verb}", json={"ackIds": ack_ids}), 409, "nothing_settled")
    assert (await stats(client))["inFlight"] == 1


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("nack", {"delayMs": -1}, "delayMs"), ("nack", {"delayMs": "1"}, "delayMs"), ("nack", {"reason": 5}, "reason"),
        ("nack", {"reason": "a\0"}, "reason"), ("extend", {"ackTimeoutMs": 99}, "ackTimeoutMs"),
        ("extend", {"ackTimeoutMs": 86_400_001}, "ackTimeoutMs"), ("extend", {"ackTimeoutMs": 0}, "ackTimeoutMs"),
    ],
)  # fmt: skip
async def test_numbers_out_of_their_range_are_refused_without_effect(
    client: httpx.AsyncClient, verb: str, body: dict[str, Any], field: str
) -> None:
    ack_ids = await in_flight(client, 1)
    assert field_of(await client.post(f"{GROUP}/{verb}", json={"ackIds": ack_ids, **body})) == field
    assert (await client.post(f"{GROUP}/ack", json={"ackIds": ack_ids})).status_code == 200


@pytest.mark.parametrize("timeout", [100, 86_400_000])
async def test_a_lease_may_be_extended_to_the_limits(client: httpx.AsyncClient, timeout: int) -> None:
    ack_ids = await in_flight(client, 1)
    answer = await client.post(f"{GROUP}/extend", json={"ackIds": ack_ids, "ackTimeoutMs": timeout})
    assert answer.json()["results"][0]["status"] == "ok"


@pytest.mark.parametrize("verb", ["ack", "nack", "discard", "extend", "settle"])
async def test_unknown_topics_and_groups_are_404_with_their_codes(client: httpx.AsyncClient, verb: str) -> None:
    await declared(client)
    body = {"ack": ["x"]} if verb == "settle" else {"ackIds": ["x"]}
    problem_of(await client.post(f"/v1/topics/none/groups/billing/{verb}", json=body), 404, "topic_not_found")
    problem_of(await client.post(f"{TOPIC}/groups/none/{verb}", json=body), 404, "group_not_found")


async def test_the_four_verbs_in_one_call(client: httpx.AsyncClient) -> None:
    a, b, c, d = await in_flight(client, 1, 2, 3, 4)
    body = {
        "extend": [{"ackId": d, "ackTimeoutMs": 60_000}], "discard": [{"ackId": c, "reason": "no use"}],
        "nack": [{"ackId": b, "reason": "later", "delayMs": 60_000}], "ack": [a],
    }  # fmt: skip
    answer = await client.post(f"{GROUP}/settle", json=body)
    assert answer.status_code == 200
    assert {each["ackId"]: each["status"] for each in answer.json()["results"]} == dict.fromkeys((a, b, c, d), "ok")
    found = await stats(client)
    assert [found[name] for name in ("acked", "retrying", "discarded", "inFlight")] == [1, 1, 1, 1]
    again = problem_of(await client.post(f"{GROUP}/settle", json={"nack": [{"ackId": b}]}), 409, "nothing_settled")
    assert again["results"] == [{"ackId": b, "status": "stale"}]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"), ({"ack": []}, "body"),
        ({"nack": ["x"]}, "nack[0]"), ({"nack": [{}]}, "nack[0].ackId"), ({"acks": []}, "acks"),
        ({"nack": [{"ackId": "x", "delayMs": -1}]}, "nack[0].delayMs"),
        ({"extend": [{"ackId": "x", "ackTimeoutMs": 1}]}, "extend[0].ackTimeoutMs"),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_a_mixed_call_is_named(client: httpx.AsyncClient, body: Any, field: str) -> None:
    await declared(client)
    found = field_of(await client.post(f"{GROUP}/settle", json=body))
    assert found is not None
    assert found.replace("[...]", "[0]") == field


async def test_a_mixed_call_settles_beside_what_is_no_ack_id(client: httpx.AsyncClient) -> None:
    a, b = await in_flight(client, 1, 2)
    body = {
        "ack": ["x", a], "nack": [{"ackId": "y"}, {"ackId": b}], "discard": [{"ackId": "z"}],
        "extend": [{"ackId": "ack_ffff0000_1_1_1_1_1"}],
    }  # fmt: skip
    answer = await client.post(f"{GROUP}/settle", json=body)
    assert answer.status_code == 200
    assert [each["ackId"] for each in answer.json()["results"]] == ["x", a, "y", b, "z", "ack_ffff0000_1_1_1_1_1"]
    assert {each["ackId"] for each in answer.json()["results"] if each["status"] == "ok"} == {a, b}


async def test_an_ack_of_another_namespace_is_refused(client: httpx.AsyncClient) -> None:
    ack_ids = await in_flight(client, 1)
    await client.put("/v1/topics/other")
    await client.put("/v1/topics/other/groups/billing")
    answer = await client.post("/v1/topics/other/groups/billing/ack", json={"ackIds": ack_ids})
    problem_of(answer, 409, "nothing_settled")


@VERBS
@pytest.mark.parametrize("number", [2**63 - 2, 2**63 - 1, 2**63, 2**64])
async def test_invented_numbers_in_an_ack_id_fail_nobody(client: httpx.AsyncClient, verb: str, number: int) -> None:
    (ack_id,) = await in_flight(client, 1)
    parts = ack_id.split("_")
    for at in (4, 6):  # the lease's, and the offset
        invented = "_".join([*parts[:at], f"{number:x}", *parts[at + 1 :]])
        answer = await client.post(f"{GROUP}/{verb}", json={"ackIds": [invented]})
        assert answer.status_code in (409, 422), answer.text
    assert (await client.post(f"{GROUP}/ack", json={"ackIds": [ack_id]})).status_code == 200
