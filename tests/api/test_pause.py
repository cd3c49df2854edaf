"""Pause, resume and purge over HTTP."""

from __future__ import annotations

import httpx
import pytest

from tests.api.wire import GROUP, TOPIC, declared, field_of, problem_of, published, pulled


@pytest.mark.parametrize("what", [GROUP, TOPIC])
async def test_a_pause_says_since_when_and_why_until_it_is_resumed(client: httpx.AsyncClient, what: str) -> None:
    await declared(client)
    await published(client, 1)
    answer = await client.post(f"{what}/pause", json={"reason": "moving"})
    assert answer.status_code == 200
    assert answer.json()["paused"] is True
    assert answer.json()["pause"]["reason"] == "moving"
    assert answer.json()["pause"]["since"] is not None
    since = answer.json()["pause"]["since"]
    again = await client.post(f"{what}/pause", json={"reason": "still"})
    assert again.json()["pause"]["since"] == since
    stats = (await client.get(f"{GROUP}/stats")).json()
    assert stats["paused"] is True
    assert set(stats["pause"]) == {"reason", "since"}
    assert stats["pause"]["reason"] == ("the topic is paused: still" if what == TOPIC else "still")
    assert (await client.post(f"{GROUP}/pull", json={})).json() == {"messages": [], "empty": "paused"}
    await published(client, 2)
    answer = await client.post(f"{what}/resume")
    assert (answer.status_code, answer.json()["paused"], answer.json()["pause"]) == (200, False, None)
    assert [each["message"] for each in await pulled(client)] == [1, 2]


async def test_a_pause_survives_another_declaration(client: httpx.AsyncClient) -> None:
    await declared(client)
    await client.post(f"{GROUP}/pause")
    await declared(client, batchSize=7)
    assert (await client.get(GROUP)).json()["paused"] is True
    assert (await client.post(f"{GROUP}/pull", json={})).json()["empty"] == "paused"


async def test_bad_pauses_and_unknown_names_are_refused(client: httpx.AsyncClient) -> None:
    await declared(client)
    assert field_of(await client.post(f"{GROUP}/pause", json={"reason": 5})) == "reason"
    assert field_of(await client.post(f"{GROUP}/pause", json={"why": "x"})) == "why"
    for verb in ("pause", "resume"):
        problem_of(await client.post(f"{TOPIC}/groups/none/{verb}"), 404, "group_not_found")
        problem_of(await client.post(f"/v1/topics/none/groups/billing/{verb}"), 404, "topic_not_found")
        problem_of(await client.post(f"/v1/topics/none/{verb}"), 404, "topic_not_found")
    problem_of(await client.post("/v1/topics/none/purge"), 404, "topic_not_found")


async def test_a_purge_says_how_many_and_leaves_nothing(client: httpx.AsyncClient) -> None:
    await declared(client)
    await published(client, 1, 2, 3)
    old = [each["ackId"] for each in await pulled(client, max=1)]
    answer = await client.post(f"{TOPIC}/purge")
    assert (answer.status_code, answer.json()) == (200, {"removed": 3})
    problem_of(await client.post(f"{GROUP}/ack", json={"ackIds": old}), 409, "nothing_settled")
    assert (await client.get(f"{GROUP}/lag")).json() == {
        "lag": 0, "partitions": [{"partition": 0, "lag": 0, "committedOffset": 3, "firstOffset": 4, "lastOffset": 3}]
    }  # fmt: skip
    (result,) = await published(client, 4)
    assert result["offset"] == 4
    assert [each["message"] for each in await pulled(client)] == [4]


async def test_pause_and_resume_answer_with_the_group_as_it_is_read(client: httpx.AsyncClient) -> None:
    await declared(client)
    for verb in ("pause", "resume"):
        answer = await client.post(f"{GROUP}/{verb}")
        assert answer.json() == (await client.get(GROUP)).json()
