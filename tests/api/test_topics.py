"""Topics over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.app_client import serving

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DEFAULTS = {
    "name": "orders",
    "tags": [],
    "distribution": {"partitions": 1, "partitionKey": None},
    "retention": {"maxAgeMs": None, "maxCount": None},
    "validate": {"schema": None, "rules": []},
    "idempotency": {"windowMs": 604_800_000, "cloudEventsId": False},
    "hooks": {"onPublish": None, "onAck": None, "onDead": None, "secret": None},
    "paused": False,
    "pause": None,
}
WHOLE = {
    "tags": ["eu", "payments"],
    "distribution": {"partitions": 4, "partitionKey": "message.orderId"},
    "retention": {"maxAgeMs": 86_400_000, "maxCount": 100_000},
    "validate": {
        "schema": {"type": "object", "required": ["orderId"]},
        "rules": [{"rule": "message.total >= 0", "message": "A total is never negative."}],
    },
    "idempotency": {"windowMs": 60_000, "cloudEventsId": True},
    "hooks": {"onPublish": "https://example.com/hook", "onAck": None, "onDead": None, "secret": SECRET},
}


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    assert document.keys() >= {"createdAt", "updatedAt"}
    return {name: value for name, value in document.items() if name not in ("createdAt", "updatedAt")}


async def test_a_topic_declared_without_a_word_has_every_default(client: httpx.AsyncClient) -> None:
    declared = await client.put("/v1/topics/orders")
    assert declared.status_code == 201
    assert without_times(declared.json()) == DEFAULTS
    read = await client.get("/v1/topics/orders")
    assert (read.status_code, read.json()) == (200, declared.json())


async def test_declaring_says_201_when_new_and_200_ever_after(client: httpx.AsyncClient) -> None:
    first = await client.put("/v1/topics/orders", json=WHOLE)
    same = await client.put("/v1/topics/orders", json=WHOLE)
    changed = await client.put("/v1/topics/orders", json=WHOLE | {"tags": ["us"]})
    assert [first.status_code, same.status_code, changed.status_code] == [201, 200, 200]
    assert same.json() == first.json()
    assert changed.json()["tags"] == ["us"]
    assert changed.json()["createdAt"] == first.json()["createdAt"]
    assert changed.json()["updatedAt"] > first.json()["updatedAt"]


async def test_the_answer_is_what_was_declared_and_masks_the_secret(client: httpx.AsyncClient) -> None:
    declared = await client.put("/v1/topics/orders", json=WHOLE)
    expected = {"name": "orders", "paused": False, "pause": None} | WHOLE
    assert without_times(declared.json()) == expected | {"hooks": WHOLE["hooks"] | {"secret": "********"}}  # type: ignore[operator]
    assert SECRET not in declared.text


async def test_a_masked_secret_means_the_one_there_is(client: httpx.AsyncClient) -> None:
    masked = WHOLE | {"hooks": {"secret": "********"}}
    refused = await client.put("/v1/topics/orders", json=masked)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "hooks.secret")
    await client.put("/v1/topics/orders", json=WHOLE)
    kept = await client.put("/v1/topics/orders", json=masked)
    assert kept.json()["hooks"]["secret"] == "********"


async def test_what_is_left_out_goes_back_to_its_default_but_partitions_stay(client: httpx.AsyncClient) -> None:
    await client.put("/v1/topics/orders", json=WHOLE)
    again = await client.put("/v1/topics/orders", json={"distribution": {"partitionKey": "key"}})
    assert without_times(again.json()) == DEFAULTS | {"distribution": {"partitions": 4, "partitionKey": "key"}}


async def test_defaults_are_the_servers_settings_and_null_retention_keeps_everything(dsn: str) -> None:
    settings = {"partitions": 3, "retention_max_age_ms": 5000, "retention_max_count": 7, "idempotency_window_ms": 9000}
    async with serving(dsn, **settings) as client:
        plain = (await client.put("/v1/topics/plain")).json()
        assert plain["distribution"]["partitions"] == 3
        assert plain["retention"] == {"maxAgeMs": 5000, "maxCount": 7}
        assert plain["idempotency"]["windowMs"] == 9000
        all_kept = (await client.put("/v1/topics/kept", json={"retention": {"maxAgeMs": None}})).json()
        assert all_kept["retention"] == {"maxAgeMs": None, "maxCount": 7}


async def test_partitions_can_be_raised_and_not_lowered(client: httpx.AsyncClient) -> None:
    await client.put("/v1/topics/orders", json={"distribution": {"partitions": 2}})
    raised = await client.put("/v1/topics/orders", json={"distribution": {"partitions": 5}})
    assert (raised.status_code, raised.json()["distribution"]["partitions"]) == (200, 5)
    lowered = await client.put("/v1/topics/orders", json={"distribution": {"partitions": 4}})
    assert (lowered.status_code, lowered.json()["code"]) == (409, "partitions_cannot_shrink")
    assert lowered.json()["errors"][0]["field"] == "distribution.partitions"
    assert (await client.get("/v1/topics/orders")).json()["distribution"]["partitions"] == 5


async def test_concurrent_declarations_all_succeed(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(client.put("/v1/topics/orders", json={"tags": [str(number)]}) for number in range(10))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]


async def test_topics_are_listed_by_name_page_by_page(client: httpx.AsyncClient) -> None:
    names = ["A", "Z", "a", "a-b", "a.b", "a_b", "b", "topic1", "topic10", "topic2"]
    for name in reversed(names):
        await client.put(f"/v1/topics/{name}")
    seen: list[str] = []
    cursor: str | None = ""
    pages = 0
    while cursor is not None:
        page = (await client.get("/v1/topics", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [item["name"] for item in page["items"]]
        cursor = page["nextCursor"]
        pages += 1
    assert seen == sorted(names)
    assert pages == 4
    exact = await client.get("/v1/topics", params={"limit": 10})
    assert exact.json()["nextCursor"] is None


async def test_the_tag_filter_shows_topics_that_have_all_of_them(client: httpx.AsyncClient) -> None:
    for name, tags in {"one": ["eu"], "two": ["eu", "hot"], "three": []}.items():
        await client.put(f"/v1/topics/{name}", json={"tags": tags})

    async def named(query: str) -> list[str]:
        return [item["name"] for item in (await client.get(f"/v1/topics?{query}")).json()["items"]]

    assert await named("tag=eu") == ["one", "two"]
    assert await named("tag=eu&tag=hot") == ["two"]
    assert await named("tag=cold") == []


async def test_a_deleted_topic_is_gone_and_its_name_free(client: httpx.AsyncClient) -> None:
    await client.put("/v1/topics/orders", json=WHOLE)
    await client.put("/v1/topics/orders/groups/billing")
    deleted = await client.delete("/v1/topics/orders")
    assert (deleted.status_code, deleted.content) == (204, b"")
    for answer in (
        await client.get("/v1/topics/orders"),
        await client.delete("/v1/topics/orders"),
        await client.get("/v1/topics/orders/groups"),
        await client.get("/v1/topics/orders/groups/billing"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "topic_not_found")
    again = await client.put("/v1/topics/orders")
    assert (again.status_code, again.json()["distribution"]["partitions"]) == (201, 1)
    assert (await client.get("/v1/topics/orders/groups")).json()["items"] == []


async def test_two_namespaces_on_one_database_never_see_each_other(dsn: str) -> None:
    async with serving(dsn, project="a") as mine, serving(dsn, project="b") as theirs:
        assert (await mine.put("/v1/topics/orders", json={"tags": ["mine"]})).status_code == 201
        assert (await theirs.get("/v1/topics/orders")).status_code == 404
        assert (await theirs.get("/v1/topics")).json()["items"] == []
        assert (await theirs.put("/v1/topics/orders")).status_code == 201
        assert (await theirs.delete("/v1/topics/orders")).status_code == 204
        assert (await mine.get("/v1/topics/orders")).json()["tags"] == ["mine"]
    async with serving(dsn, project="a", environment="staging") as staging:
        assert (await staging.get("/v1/topics")).json()["items"] == []


async def test_longest_and_strangest_names_work(client: httpx.AsyncClient) -> None:
    for name in ("a" * 128, "0", "a.b_c-D", "messages", "x..", "groups"):
        assert (await client.put(f"/v1/topics/{name}")).status_code == 201, name
        assert (await client.get(f"/v1/topics/{name}")).json()["name"] == name
        assert (await client.put(f"/v1/topics/{name}/groups/{name}")).status_code == 201, name


@pytest.mark.parametrize("name", ["a" * 129, ".a", "-a", "_a", "a b", "a%00", "ä", "a%2Fb", "a:b", "a%0A", "%20"])
async def test_other_names_are_refused(client: httpx.AsyncClient, name: str) -> None:
    for answer in (await client.put(f"/v1/topics/{name}"), await client.put(f"/v1/topics/ok/groups/{name}")):
        if "%2F" in name:  # a slash is one, however it is written
            assert answer.status_code in (404, 405)
            continue
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
        assert answer.json()["errors"][0]["field"] in ("topic", "group")


BAD = [
    ({"partitions": 4}, "partitions"),
    ({"distribution": {"partition": 4}}, "distribution.partition"),
    ({"distribution": {"partition_key": "key"}}, "distribution.partition_key"),
    ({"distribution": {"partitions": "4"}}, "distribution.partitions"),
    ({"distribution": {"partitions": 4.5}}, "distribution.partitions"),
    ({"distribution": {"partitions": True}}, "distribution.partitions"),
    ({"distribution": {"partitions": None}}, "distribution.partitions"),
    ({"distribution": {"partitions": 0}}, "distribution.partitions"),
    ({"distribution": {"partitions": -1}}, "distribution.partitions"),
    ({"distribution": {"partitions": 65_537}}, "distribution.partitions"),
    ({"distribution": {"partitions": 10**30}}, "distribution.partitions"),
    ({"distribution": []}, "distribution"),
    ({"distribution": None}, "distribution"),
    ({"distribution": {"partitionKey": 5}}, "distribution.partitionKey"),
    ({"distribution": {"partitionKey": "k" * 1001}}, "distribution.partitionKey"),
    ({"distribution": {"partitionKey": "1 + 1"}}, "distribution.partitionKey"),
    ({"retention": {"maxAgeMs": 0}}, "retention.maxAgeMs"),
    ({"retention": {"maxCount": 0}}, "retention.maxCount"),
    ({"retention": {"maxCount": "5"}}, "retention.maxCount"),
    ({"retention": {"maxCount": 10**400}}, "body"),
    ({"idempotency": {"windowMs": 0}}, "idempotency.windowMs"),
    ({"idempotency": {"cloudEventsId": 1}}, "idempotency.cloudEventsId"),
    ({"validate": {"schema": 5}}, "validate.schema"),
    ({"validate": {"schema": {"type": "strin"}}}, "validate.schema"),
    ({"validate": {"schema": {"$ref": "https://example.com/schema"}}}, "validate.schema"),
    ({"validate": {"rules": ["true"]}}, "validate.rules[0]"),
    ({"validate": {"rules": [{"rule": "true"}, {}]}}, "validate.rules[1].rule"),
    ({"validate": {"rules": [{"rule": "true"}, {"rule": "1 +"}]}}, "validate.rules[1].rule"),
    ({"validate": {"rules": [{"rule": "message.items.all(i, i > 0)"}]}}, "validate.rules[0].rule"),
    ({"validate": {"rules": [{"rule": "true"}] * 33}}, "validate.rules"),
    ({"tags": "eu"}, "tags"),
    ({"tags": [1]}, "tags[0]"),
    ({"tags": ["ok", ""]}, "tags[1]"),
    ({"tags": ["a\x00b"]}, "body"),
    ({"tags": ["x" * 129]}, "tags[0]"),
    ({"tags": [str(n) for n in range(33)]}, "tags"),
    ({"hooks": {"onPublish": "ftp://example.com"}}, "hooks.onPublish"),
    ({"hooks": {"onDead": "http://10.0.0.1/"}}, "hooks.onDead"),
    ({"hooks": {"onAck": "http://169.254.169.254/latest"}}, "hooks.onAck"),
    ({"hooks": {"secret": "hush"}}, "hooks.secret"),
]


@pytest.mark.parametrize(("body", "field"), BAD, ids=lambda value: str(value)[:60])
async def test_what_is_wrong_is_refused_and_named(client: httpx.AsyncClient, body: Any, field: str) -> None:
    answer = await client.put("/v1/topics/orders", json=body)
    assert answer.status_code == 422, answer.text
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert (await client.get("/v1/topics/orders")).status_code == 404


async def test_every_fault_of_a_body_is_named_at_once(client: httpx.AsyncClient) -> None:
    answer = await client.put("/v1/topics/orders", json={"tags": 1, "extra": 2, "retention": {"maxCount": -1}})
    assert {error["field"] for error in answer.json()["errors"]} == {"tags", "extra", "retention.maxCount"}


async def test_an_expression_that_does_not_compile_is_refused_with_its_place(client: httpx.AsyncClient) -> None:
    answer = await client.put("/v1/topics/orders", json={"distribution": {"partitionKey": "message.id +"}})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_expression")
    assert (problem["line"], problem["column"]) == (1, 13)


async def test_list_parameters_out_of_range_are_refused(client: httpx.AsyncClient) -> None:
    for query, field in {
        "limit=0": "limit",
        "limit=1001": "limit",
        "limit=x": "limit",
        "cursor=%00": "cursor",
        "cursor=bm8": "cursor",
        "cursor=NQ": "cursor",
        "tag=%00": "tag[0]",
        "tags=eu": "tags",
    }.items():
        answer = await client.get(f"/v1/topics?{query}")
        assert answer.status_code == 422, query
        assert answer.json()["errors"][0]["field"] == field
