"""Consumer groups over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.test_topics import SECRET, without_times
from tests.app_client import serving

GROUP = "/v1/topics/orders/groups/billing"
DEFAULTS = {
    "name": "billing",
    "topic": "orders",
    "delivery": {"mode": "pull"},
    "ordering": "partition",
    "concurrency": 1,
    "batchSize": 50,
    "maxInFlight": 10_000,
    "filter": None,
    "startFrom": "latest",
    "ackMode": "auto",
    "ackTimeoutMs": 30_000,
    "retries": {"max": 3, "strategy": "exponential", "baseDelay": 1000, "maxDelay": 60_000},
    "deadLetter": {"enabled": True, "onDead": None},
    "rateLimit": None,
    "paused": False,
    "pause": None,
}
PUSH = {"mode": "push", "url": "https://example.com/orders", "secret": SECRET}
WHOLE = {
    "delivery": PUSH
    | {"headers": {"Authorization": "Bearer hush", "X-Team": "billing"}, "format": "cloudevents-binary"}
    | {"secretOverlapMs": 1000},
    "ordering": "key",
    "concurrency": 8,
    "batchSize": 10,
    "maxInFlight": 20,
    "filter": "message.total > 100",
    "startFrom": 5,
    "ackMode": "manual",
    "ackTimeoutMs": 100,
    "retries": {"max": 0, "strategy": "fixed", "baseDelay": 5, "maxDelay": 5},
    "deadLetter": {"enabled": False, "onDead": "https://example.com/dead"},
    "rateLimit": {"perSecond": 2.5},
}


@pytest.fixture
async def orders(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client of a server that has the topic orders."""
    await client.put("/v1/topics/orders", json={"distribution": {"partitions": 3}})
    return client


async def test_a_group_declared_without_a_word_has_every_default(orders: httpx.AsyncClient) -> None:
    declared = await orders.put(GROUP)
    assert declared.status_code == 201
    assert without_times(declared.json()) == DEFAULTS
    assert (await orders.get(GROUP)).json() == declared.json()


async def test_declaring_says_201_when_new_and_200_ever_after(orders: httpx.AsyncClient) -> None:
    first = await orders.put(GROUP, json=WHOLE)
    same = await orders.put(GROUP, json=WHOLE)
    changed = await orders.put(GROUP, json={})
    assert [first.status_code, same.status_code, changed.status_code] == [201, 200, 200]
    assert same.json() == first.json()
    assert without_times(changed.json()) == DEFAULTS


async def test_the_answer_is_what_was_declared_and_masks_secrets(orders: httpx.AsyncClient) -> None:
    declared = await orders.put(GROUP, json=WHOLE)
    assert declared.status_code == 201, declared.text
    masked: dict[str, Any] = dict(WHOLE["delivery"]) | {  # type: ignore[call-overload]
        "secret": "********",
        "headers": {"Authorization": "********", "X-Team": "billing"},
        "previousSecretUntil": None,
    }
    expected = DEFAULTS | WHOLE | {"delivery": masked}
    assert without_times(declared.json()) == expected
    assert SECRET not in declared.text
    assert "hush" not in declared.text


async def test_what_is_shown_of_a_delivery_can_be_sent_back_and_masks_mean_what_there_is(
    orders: httpx.AsyncClient,
) -> None:
    shown = (await orders.put(GROUP, json=WHOLE)).json()["delivery"]
    same = await orders.put(GROUP, json=WHOLE | {"delivery": shown})
    assert same.status_code == 200, same.text
    assert same.json()["updatedAt"] == (await orders.put(GROUP, json=WHOLE)).json()["updatedAt"]
    for field, delivery in {
        "delivery.secret": PUSH | {"secret": "********"},
        "delivery.headers.X-Key": PUSH | {"headers": {"X-Key": "********"}},
    }.items():
        refused = await orders.put("/v1/topics/orders/groups/other", json={"delivery": delivery})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)


async def test_a_new_secret_leaves_the_old_one_signing_for_its_overlap(orders: httpx.AsyncClient) -> None:
    await orders.put(GROUP, json={"delivery": PUSH})
    changed = await orders.put(GROUP, json={"delivery": PUSH | {"secret": SECRET[:-4] + "AAAA"}})
    assert changed.json()["delivery"]["previousSecretUntil"] > changed.json()["updatedAt"]


async def test_a_push_group_has_as_many_in_flight_as_its_concurrency(orders: httpx.AsyncClient) -> None:
    assert (await orders.put(GROUP, json={"delivery": PUSH, "concurrency": 4})).json()["maxInFlight"] == 4
    given = await orders.put(GROUP, json={"delivery": PUSH, "concurrency": 4, "maxInFlight": 9})
    assert given.json()["maxInFlight"] == 9
    assert (await orders.put(GROUP, json={"concurrency": 4})).json()["maxInFlight"] == 10_000


async def test_defaults_are_the_servers_settings(dsn: str) -> None:
    settings = {
        "ordering": "key",
        "start_from": "earliest",
        "ack_mode": "manual",
        "concurrency": 2,
        "batch_size": 3,
        "max_in_flight": 4,
        "ack_timeout_ms": 5000,
        "retries_max": 6,
        "retries_strategy": "fixed",
        "retries_base_delay_ms": 7,
        "retries_max_delay_ms": 8,
        "dead_letter_enabled": False,
    }
    async with serving(dsn, **settings) as client:
        await client.put("/v1/topics/orders")
        group = (await client.put(GROUP, json={"retries": {"max": 1}, "deadLetter": {"onDead": None}})).json()
    assert (group["ordering"], group["startFrom"], group["ackMode"]) == ("key", "earliest", "manual")
    assert (group["concurrency"], group["batchSize"], group["maxInFlight"], group["ackTimeoutMs"]) == (2, 3, 4, 5000)
    assert group["retries"] == {"max": 1, "strategy": "fixed", "baseDelay": 7, "maxDelay": 8}
    assert group["deadLetter"] == {"enabled": False, "onDead": None}


async def test_one_delay_given_moves_the_others_default_out_of_its_way(orders: httpx.AsyncClient) -> None:
    late = await orders.put(GROUP, json={"retries": {"baseDelay": 120_000}})
    assert late.json()["retries"]["maxDelay"] == 120_000
    soon = await orders.put(GROUP, json={"retries": {"maxDelay": 50}})
    assert soon.json()["retries"]["baseDelay"] == 50


@pytest.mark.parametrize(
    "start", ["latest", "earliest", 0, 7, 2**63 - 1, "2026-01-31T12:00:00Z", "2026-01-31T12:00:00+02:00", "2026-01-31"]
)
async def test_every_form_of_start_from_is_taken(orders: httpx.AsyncClient, start: str | int) -> None:
    declared = await orders.put(GROUP, json={"startFrom": start})
    assert (declared.status_code, declared.json()["startFrom"]) == (201, start)


async def test_groups_of_a_topic_are_listed_by_name_page_by_page(orders: httpx.AsyncClient) -> None:
    await orders.put("/v1/topics/other")
    await orders.put("/v1/topics/other/groups/alien")
    for name in ("c", "a", "b"):
        await orders.put(f"/v1/topics/orders/groups/{name}")
    first = (await orders.get("/v1/topics/orders/groups?limit=2")).json()
    second = (await orders.get("/v1/topics/orders/groups", params={"cursor": first["nextCursor"]})).json()
    assert [item["name"] for item in first["items"] + second["items"]] == ["a", "b", "c"]
    assert second["nextCursor"] is None


async def test_a_deleted_group_is_gone_and_its_name_free(orders: httpx.AsyncClient) -> None:
    await orders.put(GROUP, json=WHOLE)
    assert (await orders.delete(GROUP)).status_code == 204
    for answer in (await orders.get(GROUP), await orders.delete(GROUP)):
        assert (answer.status_code, answer.json()["code"]) == (404, "group_not_found")
    assert (await orders.put(GROUP)).status_code == 201


async def test_a_group_needs_its_topic(client: httpx.AsyncClient) -> None:
    for method in ("PUT", "GET", "DELETE"):
        answer = await client.request(method, GROUP)
        assert (answer.status_code, answer.json()["code"]) == (404, "topic_not_found")


async def test_no_pair_of_topic_and_group_collides_with_another(client: httpx.AsyncClient) -> None:
    pairs = [("a", "b.c"), ("a.b", "c"), ("a", "b-c"), ("a-b", "c"), ("a_b", "c"), ("A", "b.c"), ("c", "a.b")]
    for topic, group in pairs:
        await client.put(f"/v1/topics/{topic}")
        declared = await client.put(f"/v1/topics/{topic}/groups/{group}", json={"filter": f"key == '{topic}/{group}'"})
        assert declared.status_code == 201
    for topic, group in pairs:
        read = (await client.get(f"/v1/topics/{topic}/groups/{group}")).json()
        assert (read["topic"], read["name"], read["filter"]) == (topic, group, f"key == '{topic}/{group}'")


async def test_concurrent_declarations_of_topic_and_group_never_fail(client: httpx.AsyncClient) -> None:
    await client.put("/v1/topics/orders")
    answers = await asyncio.gather(
        *(client.put(GROUP, json={"batchSize": number}) for number in range(1, 8)),
        *(client.put("/v1/topics/orders", json={"tags": [str(number)]}) for number in range(5)),
    )
    assert {answer.status_code for answer in answers} == {200, 201}
    assert [answer.status_code for answer in answers[:7]].count(201) == 1


BAD = [
    ({"batchSise": 5}, "batchSise"),
    ({"batch_size": 5}, "batch_size"),
    ({"batchSize": "5"}, "batchSize"),
    ({"batchSize": 0}, "batchSize"),
    ({"batchSize": 1001}, "batchSize"),
    ({"batchSize": None}, "batchSize"),
    ({"concurrency": 0}, "concurrency"),
    ({"maxInFlight": 0}, "maxInFlight"),
    ({"ordering": "random"}, "ordering"),
    ({"filter": "message.total >"}, "filter"),
    ({"filter": "'text'"}, "filter"),
    ({"filter": 5}, "filter"),
    ({"startFrom": -1}, "startFrom"),
    ({"startFrom": 2**63}, "startFrom"),
    ({"startFrom": 1.5}, "startFrom"),
    ({"startFrom": True}, "startFrom"),
    ({"startFrom": None}, "startFrom"),
    ({"startFrom": "5"}, "startFrom"),
    ({"startFrom": "yesterday"}, "startFrom"),
    ({"ackMode": "none"}, "ackMode"),
    ({"ackTimeoutMs": 99}, "ackTimeoutMs"),
    ({"ackTimeoutMs": 86_400_001}, "ackTimeoutMs"),
    ({"retries": {"max": -1}}, "retries.max"),
    ({"retries": {"baseDelay": 0}}, "retries.baseDelay"),
    ({"retries": {"baseDelay": -5}}, "retries.baseDelay"),
    ({"retries": {"maxDelay": 0}}, "retries.maxDelay"),
    ({"retries": {"strategy": "linear"}}, "retries.strategy"),
    ({"retries": {"baseDelay": 10, "maxDelay": 5}}, "retries.baseDelay"),
    ({"deadLetter": {"enabled": "yes"}}, "deadLetter.enabled"),
    ({"deadLetter": {"onDead": "http://[::1]/"}} | {}, "deadLetter.onDead"),
    ({"rateLimit": {}}, "rateLimit.perSecond"),
    ({"rateLimit": {"perSecond": 0}}, "rateLimit.perSecond"),
    ({"rateLimit": {"perSecond": "1"}}, "rateLimit.perSecond"),
    ({"delivery": {"mode": "carrier"}}, "delivery.mode"),
    ({"delivery": {"mode": "push"}}, "delivery.url"),
    ({"delivery": {"url": "https://example.com/"}}, "delivery.url"),
    ({"delivery": {"mode": "push", "url": "example.com"}}, "delivery.url"),
    ({"delivery": {"mode": "push", "url": "http://192.168.0.1/"}}, "delivery.url"),
    ({"delivery": {"mode": "push", "url": "http://0x7f.1/"}}, "delivery.url"),
    ({"delivery": PUSH | {"headers": {"Host": "x"}}}, "delivery.headers.Host"),
    ({"delivery": PUSH | {"headers": {"X": "a\nb"}}}, "delivery.headers.X"),
    ({"delivery": PUSH | {"headers": {"X": 1}}}, "delivery.headers.X"),
    ({"delivery": PUSH | {"secret": "short"}}, "delivery.secret"),
    ({"delivery": PUSH | {"secretOverlapMs": -1}}, "delivery.secretOverlapMs"),
    ({"delivery": PUSH | {"format": "xml"}}, "delivery.format"),
]


@pytest.mark.parametrize(("body", "field"), BAD, ids=lambda value: str(value)[:60])
async def test_what_is_wrong_is_refused_and_named(dsn: str, body: Any, field: str) -> None:
    async with serving(dsn, push_allow="") as client:
        await client.put("/v1/topics/orders")
        answer = await client.put(GROUP, json=body)
        assert answer.status_code == 422, answer.text
        assert field in [error["field"] for error in answer.json()["errors"]]
        assert (await client.get(GROUP)).status_code == 404
