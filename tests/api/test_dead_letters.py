"""Dead letters over HTTP: newest first, in pages, with a total."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.wire import GROUP, QUICK, TOPIC, buried, declared, field_of, problem_of, pulled

LETTERS = f"{GROUP}/dead-letters"


async def test_a_dead_letter_has_these_fields(client: httpx.AsyncClient) -> None:
    await declared(client, retries=QUICK)
    (result,) = await buried(client, {"total": 1}, partitionKey="k", headers={"a": "b"})
    page = (await client.get(LETTERS)).json()
    assert (page["total"], page["nextCursor"]) == (1, None)
    (letter,) = page["items"]
    assert (await client.get(f"{LETTERS}/{result['id']}")).json() == letter
    assert letter.pop("deadAt") >= result["publishedAt"]
    assert letter.pop("publishedAt") == result["publishedAt"]
    assert letter.pop("correlationId") is None
    assert letter == {
        "messageId": result["id"], "partition": 0, "offset": 1, "key": "k", "headers": {"a": "b"},
        "message": {"total": 1}, "error": "no", "attempts": 1,
    }  # fmt: skip


async def test_the_newest_come_first_and_pages_miss_and_repeat_none(client: httpx.AsyncClient) -> None:
    await declared(client, retries=QUICK, partitions=3)
    await buried(client, 1, 2, 3, 4)
    await buried(client, 5)
    await buried(client, 6, 7)
    everything = (await client.get(LETTERS)).json()["items"]
    times = [each["deadAt"] for each in everything]
    assert times == sorted(times, reverse=True)
    assert {each["message"] for each in everything[:2]} == {6, 7}
    assert everything[2]["message"] == 5
    seen: list[Any] = []
    cursor: str | None = None
    while True:
        page = (await client.get(LETTERS, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        assert page["total"] == 7
        assert len(page["items"]) <= 2
        seen += page["items"]
        if (cursor := page["nextCursor"]) is None:
            break
    assert seen == everything


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "cursor=x", "cursor=WzFd", "page=2"])
async def test_bad_pages_are_refused(client: httpx.AsyncClient, query: str) -> None:
    await declared(client)
    assert field_of(await client.get(f"{LETTERS}?{query}")) == query.partition("=")[0]


async def test_letters_are_retried_one_and_all_and_counted(client: httpx.AsyncClient) -> None:
    await declared(client, retries=QUICK)
    first, _, _ = await buried(client, 1, 2, 3)
    answer = await client.post(f"{LETTERS}/{first['id']}/retry")
    assert (answer.status_code, answer.json()) == (200, {"requeued": 1})
    problem_of(await client.post(f"{LETTERS}/{first['id']}/retry"), 404, "dead_letter_not_found")
    (again,) = await pulled(client)
    assert (again["message"], again["attempt"], again["maxAttempts"]) == (1, 1, 1)
    assert (await client.post(f"{LETTERS}/retry")).json() == {"requeued": 2}
    assert (await client.post(f"{LETTERS}/retry")).json() == {"requeued": 0}
    assert (await client.get(LETTERS)).json() == {"items": [], "nextCursor": None, "total": 0}


async def test_a_deleted_letter_is_gone(client: httpx.AsyncClient) -> None:
    await declared(client, retries=QUICK)
    (result,) = await buried(client, 1)
    assert (await client.delete(f"{LETTERS}/{result['id']}")).status_code == 204
    problem_of(await client.delete(f"{LETTERS}/{result['id']}"), 404, "dead_letter_not_found")
    problem_of(await client.get(f"{LETTERS}/{result['id']}"), 404, "dead_letter_not_found")
    assert (await client.get(f"{GROUP}/lag")).json()["lag"] == 0


async def test_unknown_names_are_404_with_their_codes(client: httpx.AsyncClient) -> None:
    await declared(client)
    problem_of(await client.get("/v1/topics/none/groups/billing/dead-letters"), 404, "topic_not_found")
    problem_of(await client.get(f"{TOPIC}/groups/none/dead-letters"), 404, "group_not_found")
    for unknown in ("nonsense", "msg_1_00000000_1"):
        problem_of(await client.get(f"{LETTERS}/{unknown}"), 404, "dead_letter_not_found")
        problem_of(await client.post(f"{LETTERS}/{unknown}/retry"), 404, "dead_letter_not_found")
    problem_of(await client.post(f"{TOPIC}/groups/none/dead-letters/retry"), 404, "group_not_found")


async def test_without_dead_letters_nothing_is_listed_and_the_group_moves_on(client: httpx.AsyncClient) -> None:
    await declared(client, retries=QUICK, deadLetter={"enabled": False})
    await buried(client, 1)
    assert (await client.get(LETTERS)).json()["total"] == 0
    stats = (await client.get(f"{GROUP}/stats")).json()
    assert (stats["dead"], stats["lag"]) == (1, 0)
