"""Browsing a topic and reading a message by its id, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

TOPIC = "/v1/topics/orders"
MESSAGES = f"{TOPIC}/messages"


async def declare(client: httpx.AsyncClient, partitions: int = 1, **more: Any) -> None:
    answer = await client.put(TOPIC, json={"distribution": {"partitions": partitions}, **more})
    assert answer.status_code in (200, 201), answer.text


async def publish(client: httpx.AsyncClient, *values: Any) -> list[dict[str, Any]]:
    answer = await client.post(f"{MESSAGES}/batch", json={"messages": [{"message": value} for value in values]})
    assert answer.status_code == 201, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


async def pages(client: httpx.AsyncClient, **params: Any) -> list[list[dict[str, Any]]]:
    """Every page from there on."""
    found = []
    while True:
        answer = await client.get(MESSAGES, params=params)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["items"])
        if (cursor := answer.json()["nextCursor"]) is None:
            return found
        params = {"cursor": cursor, "limit": params["limit"]} if "limit" in params else {"cursor": cursor}


async def browse(client: httpx.AsyncClient, **params: Any) -> list[Any]:
    return [message["message"] for page in await pages(client, **params) for message in page]


async def test_browsing_begins_where_it_is_told(client: httpx.AsyncClient) -> None:
    await declare(client)
    await publish(client, 1, 2)
    (third, _) = await publish(client, 3, 4)
    assert await browse(client) == [1, 2, 3, 4]
    assert await browse(client, **{"from": "earliest"}) == [1, 2, 3, 4]
    assert await browse(client, **{"from": "2"}) == [2, 3, 4]
    assert await browse(client, **{"from": "0"}) == [1, 2, 3, 4]
    assert await browse(client, **{"from": "99"}) == []
    assert await browse(client, **{"from": "latest"}) == []
    assert await browse(client, **{"from": third["publishedAt"]}) == [3, 4]
    assert await browse(client, **{"from": "2020-01-01T00:00:00+02:00"}) == [1, 2, 3, 4]
    assert await browse(client, **{"from": "2999-01-01"}) == []


async def test_pages_leave_nothing_out_and_repeat_nothing(client: httpx.AsyncClient) -> None:
    await declare(client, 5)
    for at in range(0, 60, 6):
        await publish(client, *range(at, at + 6))
    for limit in (1, 7, 59, 60, 61):
        found = await pages(client, limit=limit)
        assert sorted(message["message"] for page in found for message in page) == list(range(60))
        assert all(len(page) <= limit for page in found)
        assert found[-1]


async def test_partitions_are_merged_by_time(client: httpx.AsyncClient) -> None:
    await declare(client, 4)
    for at in range(0, 40, 4):
        await publish(client, *range(at, at + 4))
    found = [message for page in await pages(client, limit=7) for message in page]
    places = [(message["publishedAt"], message["partition"], message["offset"]) for message in found]
    assert places == sorted(places)
    assert len(places) == 40


async def test_one_partition_is_read_in_order_of_its_offsets(client: httpx.AsyncClient) -> None:
    await declare(client, 4)
    await publish(client, *range(40))
    found = [message for page in await pages(client, partition=2, limit=3) for message in page]
    assert [message["offset"] for message in found] == list(range(1, 11))
    assert {message["partition"] for message in found} == {2}


async def test_what_is_published_while_paging_is_found(client: httpx.AsyncClient) -> None:
    await declare(client, 3)
    await publish(client, *range(9))
    first = (await client.get(MESSAGES, params={"limit": 4})).json()
    await publish(client, *range(9, 18))
    rest = await browse(client, cursor=first["nextCursor"], limit=5)
    assert sorted([message["message"] for message in first["items"]] + rest) == list(range(18))


async def test_partitions_that_are_added_while_paging_are_found_too(client: httpx.AsyncClient) -> None:
    await declare(client, 2)
    await publish(client, *range(6))
    first = (await client.get(MESSAGES, params={"limit": 2})).json()
    of_one = (await client.get(MESSAGES, params={"limit": 1, "partition": 0})).json()
    await declare(client, 5)
    await publish(client, *range(6, 16))
    rest = await browse(client, cursor=first["nextCursor"], limit=3)
    assert sorted([message["message"] for message in first["items"]] + rest) == list(range(16))
    (rest_of_one,) = await pages(client, cursor=of_one["nextCursor"])
    assert {message["partition"] for message in rest_of_one} == {0}


async def test_a_page_is_bounded_in_bytes(client: httpx.AsyncClient) -> None:
    await declare(client)
    large = "x" * 900_000
    for _ in range(3):
        await asyncio.gather(*[client.post(MESSAGES, json=large) for _ in range(4)])
    answer = await client.get(MESSAGES, params={"limit": 1000})
    assert len(answer.content) < 13_000_000
    assert answer.json()["nextCursor"] is not None
    assert sum([len(page) for page in await pages(client, limit=1000)]) == 12


async def test_browsing_moves_no_group_and_needs_none(client: httpx.AsyncClient) -> None:
    await declare(client)
    await client.put(f"{TOPIC}/groups/billing", json={"startFrom": "earliest"})
    await publish(client, 1, 2)
    await browse(client)
    assert (await client.get(f"{TOPIC}/groups/billing/lag")).json()["lag"] == 2


async def test_what_is_not_retained_is_not_shown(client: httpx.AsyncClient) -> None:
    await declare(client, retention={"maxCount": 3})
    results = await publish(client, *range(10))
    assert await browse(client) == [7, 8, 9]
    assert await browse(client, **{"from": "1"}) == [7, 8, 9]
    assert (await client.get(f"{MESSAGES}/{results[6]['id']}")).status_code == 404
    assert (await client.get(f"{MESSAGES}/{results[7]['id']}")).status_code == 200
    await client.post(f"{TOPIC}/purge")
    assert await browse(client) == []
    assert (await client.get(f"{MESSAGES}/{results[9]['id']}")).status_code == 404


async def test_an_id_leads_to_its_message(client: httpx.AsyncClient) -> None:
    await declare(client, 4)
    for result in await publish(client, *range(8)):
        found = (await client.get(f"{MESSAGES}/{result['id']}")).json()
        assert {name: found[name] for name in ("id", "partition", "offset", "publishedAt")} == {
            name: result[name] for name in ("id", "partition", "offset", "publishedAt")
        }
        assert found["topic"] == "orders"


async def test_an_id_that_is_not_of_this_topic_is_404(client: httpx.AsyncClient) -> None:
    await declare(client)
    (mine,) = await publish(client, 1)
    await client.put("/v1/topics/other")
    other = (await client.post("/v1/topics/other/messages", json=1)).json()["id"]
    prefix, place, stamp, offset = mine["id"].split("_")
    forged = [f"{prefix}_{place}_{int(stamp, 16) ^ 1:08x}_{offset}", f"{prefix}_{place}_{stamp}_2", "msg_x", "x", other]
    for message_id in forged:
        answer = await client.get(f"{MESSAGES}/{message_id}")
        assert (answer.status_code, answer.json()["code"]) == (404, "message_not_found"), message_id
    assert (await client.get(f"/v1/topics/nowhere/messages/{mine['id']}")).json()["code"] == "topic_not_found"


async def test_parameters_out_of_range_are_named(client: httpx.AsyncClient) -> None:
    await declare(client, 2)
    cases = [
        ({"partition": "2"}, "partition"), ({"partition": "-1"}, "partition"), ({"partition": "x"}, "partition"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"), ({"from": "soon"}, "from"), ({"from": "-1"}, "from"), ({"from": "1.5"}, "from"),
        ({"from": "٣"}, "from"),
        ({"from": str(2**63)}, "from"), ({"cursor": "x"}, "cursor"), ({"cursor": "W10"}, "cursor"),
        ({"cursor": "WzAsW11d"}, "cursor"),
        ({"cursor": "WzEsWzEsMV1d"}, "cursor"), ({"nonsense": "1"}, "nonsense"),
    ]  # fmt: skip
    for params, field in cases:
        answer = await client.get(MESSAGES, params=params)
        assert answer.status_code == 422, (params, answer.text)
        assert answer.json()["errors"][0]["field"] == field
