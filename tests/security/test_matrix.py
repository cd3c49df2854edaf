"""Every call of the API by every kind of key: nothing is left out, because the calls come from the OpenAPI document."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.domain.key import generate_key
from tests.security.conftest import ALL, OURS, THEIRS, Keyed, bearer, keyed_on
from tests.security.routes import CALLS, CONSUME, GUARDED, OPEN, PUBLISH, ROOT_ONLY, Call

# What only a manager may do: everything that changes something and is not publishing or consuming.
MANAGE = frozenset({
    "declareTopic", "deleteTopic", "declareGroup", "deleteGroup", "pauseTopic", "resumeTopic", "purgeTopic",
    "pauseGroup", "resumeGroup", "testGroup", "seek", "replay", "retryDeadLetters", "retryDeadLetter",
    "deleteDeadLetter",
})  # fmt: skip
READ = frozenset(call.operation for call in GUARDED) - MANAGE - CONSUME - PUBLISH - ROOT_ONLY
NAMED = [call for call in GUARDED if call.names_a_topic]


@dataclass
class House:
    """A topic ``orders`` with a group ``billing`` and a message in ``ours``, nothing in ``theirs``."""

    keyed: Keyed
    own: httpx.AsyncClient
    foreign: httpx.AsyncClient
    revoked: str
    message_id: str

    def names(self) -> dict[str, str]:
        return {"messageId": self.message_id}


@pytest.fixture
async def house(dsn: str) -> AsyncIterator[House]:
    async with keyed_on(dsn) as keyed:
        own = await keyed.client()
        assert (await own.put("/v1/topics/orders")).status_code == 201
        assert (await own.put("/v1/topics/orders/groups/billing", json={"startFrom": "earliest"})).status_code == 201
        published = await own.post("/v1/topics/orders/messages", json={"marker": "ours"})
        revoked = await keyed.create()
        await keyed.root.delete(f"/v1/keys/{revoked['id']}")
        yield House(keyed, own, await keyed.client(project=THEIRS), revoked["key"], published.json()["id"])


async def ask(
    client: httpx.AsyncClient,
    call: Call,
    path: str,
    *,
    content: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    if content is not None:
        return await client.request(
            call.method, path, content=content, headers={"content-type": "application/json"} | (headers or {})
        )
    body = {} if call.body is None else {"json": call.body}
    return await client.request(call.method, path, headers=headers, **body)


def test_every_call_is_in_the_table() -> None:
    assert {"getTopic", "listTopics", "listGroups", "getLag", "metrics"} <= READ
    assert READ.isdisjoint({call.operation for call in GUARDED if call.method != "get"})
    assert {call.operation for call in CALLS} == READ | MANAGE | CONSUME | PUBLISH | ROOT_ONLY | OPEN


async def test_s05_without_a_good_key_every_call_is_a_401(house: House) -> None:
    """Before the body is looked at, and whether or not what it names is there."""
    for call in GUARDED:
        presented: list[dict[str, str]] = [
            {},
            bearer("garbage"),
            bearer(generate_key().text),
            bearer(house.revoked),
            {"authorization": "Basic b3VyczpvdXJz"},
        ]
        for headers in presented:
            for path in (call.path(**house.names()), call.path("no-such-topic")):
                refused = await ask(house.keyed.nobody, call, path, headers=headers)
                assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), (call, headers)
                if call.takes_a_body:
                    garbage = await ask(house.keyed.nobody, call, path, content=b"{nonsense", headers=headers)
                    assert garbage.status_code == 401


async def test_s01_what_is_anothers_is_as_if_it_was_not_there(house: House) -> None:
    for call in NAMED:
        if call.operation == "declareTopic":
            made = await ask(house.foreign, call, call.path())
            assert made.status_code == 201, "a name that another uses is free"
            assert (await house.foreign.delete(call.path())).status_code == 204
            continue
        theirs = await ask(house.foreign, call, call.path(**house.names()))
        unknown = await ask(house.foreign, call, call.path("orderz", **house.names()))
        assert (theirs.status_code, theirs.json()["code"]) == (404, "topic_not_found"), call
        assert theirs.text == unknown.text.replace("orderz", "orders")
        assert "ours" not in theirs.text
        if call.takes_a_body and call.body != {}:
            garbage = await ask(house.foreign, call, call.path(), content=b"{nonsense")
            assert garbage.status_code == 404, "before the body is looked at"


@pytest.mark.parametrize("call", [call for call in NAMED if not call.is_stream], ids=str)
async def test_the_owner_is_let_in(house: House, call: Call) -> None:
    answer = await ask(house.own, call, call.path(**house.names()))
    assert answer.status_code not in (401, 403), answer.text
    assert answer.status_code < 500
    if call.operation not in ("getDeadLetter", "deleteDeadLetter", "retryDeadLetter"):
        assert answer.status_code != 404, answer.text


@pytest.mark.parametrize("scope", ALL)
async def test_s06_every_scope_opens_its_own_calls_and_no_others(house: House, scope: str) -> None:
    opens = {"publish": PUBLISH, "consume": CONSUME, "manage": MANAGE}[scope] | READ
    client = await house.keyed.client([scope])
    for call in GUARDED:
        for topic in ("orders", "no-such-topic"):
            if call.operation in opens:
                if call.is_stream and topic == "orders":
                    continue  # would not end
                answer = await ask(client, call, call.path(topic, group="no-such-group", **house.names()))
                assert answer.status_code not in (401, 403), (call.operation, answer.text)
                continue
            for content in (None, b"{nonsense"):
                answer = await ask(client, call, call.path(topic, **house.names()), content=content)
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), call.operation
        if call.operation == "deleteTopic" and scope == "manage":
            await house.own.put("/v1/topics/orders")


async def test_s06_outside_the_patterns_a_topic_is_a_403_existing_or_not(house: House) -> None:
    client = await house.keyed.client(topics=["invoices-*", "*.log"])
    for call in NAMED:
        refusals = [
            await ask(client, call, call.path(topic, **house.names())) for topic in ("orders", "no-such-topic", "a b")
        ]
        assert [refused.status_code for refused in refusals] == [403] * 3, call
        assert len({refused.text for refused in refusals}) == 1


async def test_lists_show_what_is_allowed(house: House) -> None:
    for name in ("invoices-eu", "invoices_eu", "invoicesXeu"):
        await house.own.put(f"/v1/topics/{name}")
    client = await house.keyed.client(["consume"], topics=["invoices_*"])

    async def names(of: httpx.AsyncClient, **query: Any) -> list[str]:
        return [topic["name"] for topic in (await of.get("/v1/topics", params=query)).json()["items"]]

    assert await names(client) == ["invoices_eu"]
    assert await names(await house.keyed.client(topics=["orders", "*-eu"])) == ["invoices-eu", "orders"]
    assert len(await names(house.own)) == 4
    assert await names(house.foreign) == []
    page = (await house.own.get("/v1/topics", params={"limit": 1})).json()
    assert await names(house.foreign, cursor=page["nextCursor"]) == [], "another's cursor is of no use"


async def test_s03_anothers_ack_ids_message_ids_and_cursors_do_nothing(house: House) -> None:
    """The other tenant has a topic and a group of the same names, so that only the ids are foreign."""
    await house.foreign.put("/v1/topics/orders")
    await house.foreign.put("/v1/topics/orders/groups/billing", json={"startFrom": "earliest"})
    await house.own.put("/v1/topics/orders/groups/other", json={"startFrom": "earliest"})
    group = "/v1/topics/orders/groups/billing"
    (message,) = (await house.own.post(f"{group}/pull", json={})).json()["messages"]
    for client, place in ((house.foreign, group), (house.own, "/v1/topics/orders/groups/other")):
        for verb in ("ack", "nack", "discard", "extend"):
            form = {"ackIds": [message["ackId"]]} | ({"ackTimeoutMs": 1000} if verb == "extend" else {})
            refused = await client.post(f"{place}/{verb}", json=form)
            assert refused.status_code in (409, 422), refused.text
    assert (await house.foreign.get(f"/v1/topics/orders/messages/{message['id']}")).status_code == 404
    assert (await house.foreign.get(f"/v1/topics/orders/messages/{message['id']}/deliveries")).status_code == 404
    assert (await house.foreign.post(f"{group}/seek", json={"messageId": message["id"]})).status_code == 404
    settled = await house.own.post(f"{group}/ack", json={"ackIds": [message["ackId"]]})
    assert settled.json()["results"][0]["status"] == "ok", "nothing of the above had an effect"


async def test_s53_a_ticket_is_for_what_its_key_may_watch(house: House) -> None:
    publisher = await house.keyed.client(["publish"])
    refused = await publisher.post("/v1/stream-tickets", json={"topic": "orders"})
    assert refused.status_code == 403
    narrow = await house.keyed.client(["consume"], topics=["invoices"])
    for topic in ("orders", "no-such-topic"):
        assert (await narrow.post("/v1/stream-tickets", json={"topic": topic})).status_code == 403
    assert (await house.foreign.post("/v1/stream-tickets", json={"topic": "orders"})).status_code == 404
    ticket = (await house.own.post("/v1/stream-tickets", json={"topic": "orders"})).json()["ticket"]
    await house.own.put("/v1/topics/invoices")
    for path in ("/v1/topics/invoices/stream", "/v1/topics/orders/groups/billing/stream"):
        assert (await house.keyed.nobody.get(path, params={"ticket": ticket})).status_code == 401
    for used in (ticket, "tk_invented"):
        refused = await house.keyed.nobody.get("/v1/topics/orders/stream", params={"ticket": used})
        assert refused.status_code == 401


async def test_s58_documents_are_open_and_counters_are_not(house: House) -> None:
    for path in ("/docs", "/openapi.json", "/livez", "/readyz"):
        assert (await house.keyed.nobody.get(path)).status_code == 200, path
    assert (await house.keyed.nobody.get("/metrics")).status_code == 401
    shown = await (await house.keyed.client(["publish"], topics=["none"])).get("/metrics")
    assert (shown.status_code, shown.headers["content-type"].split(";")[0]) == (200, "text/plain")
    assert "logpost_messages_total" in shown.text
    assert OURS not in shown.text


def test_s58_the_authorize_button_has_a_scheme() -> None:
    from app.api.application import application  # noqa: PLC0415
    from app.api.openapi import document_of  # noqa: PLC0415

    document = document_of(application())
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, item in document["paths"].items():
        for operation in item.values():
            assert ("security" in operation) == (operation["operationId"] not in OPEN), path
