"""Hostile input where it would hurt: cursors, ids, names, headers, logs, secrets. See README.md for S1 to S62."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest

from app import telemetry
from app.api.paging import make_cursor
from tests.app_client import serving
from tests.security.conftest import Keyed

SECRET = "whsec_" + base64.b64encode(b"canary-of-the-signing-secret-1234").decode()
LISTS = (
    "/v1/topics", "/v1/topics/orders/groups", "/v1/topics/orders/messages",
    "/v1/topics/orders/groups/billing/deliveries", "/v1/topics/orders/groups/billing/dead-letters", "/v1/keys",
)  # fmt: skip
PLACES: tuple[Any, ...] = (
    "\0", "a\0b", "\ud7ff", "' or 1=1 --", "x" * 500, 0, -1, 2**31, 2**63, 2**64, 1.5, 1e300, None, True, [], {},
    [0, 0], [-1, -1], [2**62, 2**62], [2**70, 1], ["2020-01-01T00:00:00Z", 1, 1],
    ["2020-01-01T00:00:00Z", 2**62, 2**62],
    ["9999-12-31T23:59:59Z", 0, 0], ["0001-01-01T00:00:00+14:00", 0, 0], [0, [0]], [0, [2**63]], [70000, [1]],
    [0, [1] * 3000], [["a"]], [None, None],
)  # fmt: skip
TEXTS = (
    "\0",
    "%00",
    "'",
    '"; drop table topics; --',
    "../../etc/passwd",
    "é",
    "\u202e",
    "a" * 10_000,
    "-1",
    "1e5",
    "NaN",
)


@pytest.fixture
async def root(keyed: Keyed) -> httpx.AsyncClient:
    await keyed.root.put("/v1/topics/orders")
    await keyed.root.put("/v1/topics/orders/groups/billing", json={"startFrom": "earliest"})
    await keyed.root.post("/v1/topics/orders/messages", json={})
    return keyed.root


@pytest.mark.parametrize("path", LISTS)
async def test_s51_a_cursor_of_ones_own_making_is_refused_or_harmless(root: httpx.AsyncClient, path: str) -> None:
    written = [make_cursor(place) for place in PLACES if place != "\ud7ff" and not _is_past_64_bits(place)]
    written += [base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=") for place in PLACES]
    for cursor in [*written, "", "=", "%", "é", "AAAA", "_" * 900, "A" * 20_000]:
        answer = await root.get(path, params={"cursor": cursor})
        assert answer.status_code in (200, 422), (cursor, answer.text)


def _is_past_64_bits(place: Any) -> bool:
    try:
        msgspec.json.encode(place)
    except (OverflowError, msgspec.MsgspecError, UnicodeError):
        return True
    return False


@pytest.mark.parametrize("path", LISTS)
async def test_s51_limits_are_numbers_in_their_range(root: httpx.AsyncClient, path: str) -> None:
    for limit in ("0", "-1", "1001", str(2**63), "1.5", "", "NaN", "0x10"):
        answer = await root.get(path, params={"limit": limit})
        assert answer.status_code == 422, limit


@pytest.mark.parametrize("text", TEXTS)
async def test_s50_no_text_of_a_request_reaches_sql_or_breaks_it(root: httpx.AsyncClient, text: str) -> None:
    group = "/v1/topics/orders/groups/billing"
    encoded = quote(text, safe="")
    answers = [
        await root.get(f"/v1/topics/{encoded}"),
        await root.put(f"/v1/topics/{encoded}x"),
        await root.get(f"/v1/topics/orders/groups/{encoded}"),
        await root.get(f"/v1/topics/orders/messages/{encoded}"),
        await root.get(f"/v1/topics/orders/messages/{encoded}/deliveries"),
        await root.get(f"{group}/dead-letters/{encoded}"),
        await root.post(f"{group}/dead-letters/{encoded}/retry"),
        await root.get(f"/v1/keys/{encoded}"),
        await root.get("/v1/topics", params={"tag": text}),
        await root.get("/v1/keys", params={"project": text}),
        await root.get("/v1/topics/orders/messages", params={"from": text}),
        await root.get("/v1/topics/orders/messages", params={"partition": text}),
        await root.get(f"{group}/deliveries", params={"state": text}),
        await root.post(f"{group}/pull", json={"consumer": text}),
        await root.post(f"{group}/ack", json={"ackIds": [text]}),
        await root.post(f"{group}/seek", json={"messageId": text}),
        await root.post(f"{group}/seek", json={"timestamp": text}),
        await root.post(f"{group}/pause", json={"reason": text}),
        await root.put("/v1/topics/orders", json={"tags": [text]}),
        await root.post("/v1/keys", json={"name": text, "scopes": ["publish"], "topics": [text]}),
        await root.post("/v1/stream-tickets", json={"topic": text}),
        await root.get("/v1/topics/orders/stream", params={"ticket": text}),
        await root.post("/v1/topics/orders/messages", json=text, headers=_sendable("partition-key", text)),
        await root.post("/v1/topics/orders/messages", json=text, headers=_sendable("idempotency-key", text)),
    ]
    for at, answer in enumerate(answers):
        assert answer.status_code < 500, (at, answer.text)
    await root.post(f"{group}/resume")
    assert (await root.get("/v1/topics/orders")).status_code == 200


def _sendable(name: str, text: str) -> dict[bytes, bytes]:
    return {name.encode(): text.encode().replace(b"\0", b"")}


@pytest.mark.parametrize(
    "field", ["id", "namespace", "namespaceId", "offset", "createdAt", "version", "__proto__", "prefix", "digest"]
)
async def test_s09_nobody_sets_what_is_not_theirs(root: httpx.AsyncClient, field: str) -> None:
    group = "/v1/topics/orders/groups/billing"
    for method, path, body in (
        ("PUT", "/v1/topics/orders", {}),
        ("PUT", group, {}),
        ("POST", f"{group}/pull", {}),
        ("POST", f"{group}/seek", {"position": "earliest"}),
        ("POST", "/v1/topics/orders/messages/batch", {"messages": [{"message": 1}]}),
        ("POST", "/v1/keys", {"name": "one", "scopes": ["publish"]}),
    ):
        refused = await root.request(method, path, json=body | {field: 1})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_field"), path


async def test_s10_secrets_are_masked_wherever_they_could_show(root: httpx.AsyncClient) -> None:
    out = io.StringIO()
    telemetry.configure("debug", out)
    try:
        push = {
            "mode": "push", "url": "https://example.com/hook", "secret": SECRET,
            "headers": {"Authorization": "Bearer canary-of-the-header", "X-Api-Key": "canary-of-the-header"},
        }  # fmt: skip
        hooks = {"onDead": "https://example.com/dead", "secret": SECRET}
        answers = [
            await root.put("/v1/topics/orders", json={"hooks": hooks}),
            await root.put("/v1/topics/orders/groups/pushed", json={"delivery": push}),
            await root.get("/v1/topics/orders/groups/pushed"),
            await root.get("/v1/topics/orders/groups"),
            await root.get("/v1/topics/orders"),
            await root.get("/v1/topics"),
            await root.put("/v1/topics/orders/groups/pushed", json={"delivery": push | {"url": "https://10.0.0.1/"}}),
            await root.put("/v1/topics/orders/groups/pushed", json={"delivery": push | {"secret": SECRET + "é"}}),
            await root.put("/v1/topics/orders", json={"hooks": hooks | {"secret": [SECRET]}}),
            await root.put("/v1/topics/orders", json={"hooks": hooks | {SECRET: 1}}),
        ]
        seen = "".join(answer.text + str(answer.headers) for answer in answers[:-1]) + out.getvalue()
    finally:
        telemetry.configure("warning")
    assert [answer.status_code for answer in answers[:2]] == [200, 201]
    assert [answer.status_code for answer in answers[-4:]] == [422] * 4
    assert SECRET not in seen
    assert "canary" not in seen


async def test_s48_an_event_of_the_log_is_one_line_whatever_it_tells_of(root: httpx.AsyncClient) -> None:
    out = io.StringIO()
    telemetry.configure("info", out)
    try:
        reason = "first\nsecond\r\x1b[31mred\u2028\u0085{}"
        await root.post("/v1/topics/orders/pause", json={"reason": reason})
        await root.put("/v1/topics/a%0d%0ab%1b[31m")
        await root.delete("/v1/topics/x%0A%7B%22event%22%3A%22forged%22%7D", headers={"user-agent": "a\x1b[31mb"})
    finally:
        telemetry.configure("warning")
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["call"] for event in events if event["event"] == "audit"] == [
        "pauseTopic", "declareTopic", "deleteTopic",
    ]  # fmt: skip
    assert "\x1b" not in out.getvalue()
    assert not any(event["event"] == "forged" for event in events)


async def test_management_calls_leave_a_line_who_did_what_and_how_it_ended(keyed: Keyed) -> None:
    out = io.StringIO()
    manager = await keyed.create(scopes=["manage"])
    publisher = await keyed.create(scopes=["publish"])
    telemetry.configure("info", out)
    try:
        await keyed.presenting(manager["key"]).put("/v1/topics/orders", headers={"x-request-id": "req-1"})
        await keyed.presenting(publisher["key"]).delete("/v1/topics/orders")
        refused = await keyed.presenting(manager["key"]).put("/v1/topics/orders", content=b"{")
        await keyed.root.delete(f"/v1/keys/{publisher['id']}")
    finally:
        telemetry.configure("warning")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    audits = [line for line in lines if line["event"] == "audit"]
    assert [(line["by"], line["call"], line["outcome"]) for line in audits] == [
        (manager["id"], "declareTopic", 201),
        (publisher["id"], "deleteTopic", 403),
        (manager["id"], "declareTopic", refused.status_code),
        ("root", "revokeKey", 204),
    ]
    assert (audits[0]["project"], audits[0]["path"], audits[0]["request_id"]) == ("ours", "/v1/topics/orders", "req-1")
    assert manager["key"] not in out.getvalue()


async def test_s52_the_same_idempotency_key_means_nothing_to_another_tenant(keyed: Keyed) -> None:
    ours, theirs = await keyed.client(), await keyed.client(project="theirs")
    for client, body in ((ours, {"n": 1}), (theirs, {"n": 2})):
        await client.put("/v1/topics/orders")
        published = await client.post("/v1/topics/orders/messages", json=body, headers={"idempotency-key": "same"})
        assert (published.status_code, published.json()["duplicate"]) == (201, False)


async def test_s62_a_namespace_is_emptied_and_the_other_keeps_every_byte(keyed: Keyed) -> None:
    ours, theirs = await keyed.client(), await keyed.client(project="theirs")
    for client in (ours, theirs):
        await client.put("/v1/topics/orders")
        await client.put("/v1/topics/orders/groups/billing", json={"startFrom": "earliest"})
        await client.post("/v1/topics/orders/messages", json={"n": 1})

    async def everything() -> list[Any]:
        paths = ("/v1/topics", "/v1/topics/orders/messages", "/v1/topics/orders/groups", "/v1/topics/orders/stats")
        shown = [(await theirs.get(path)).json() for path in paths]
        shown[3].pop("groups")  # ages of what is unsettled go on
        return shown

    before = await everything()
    assert (await ours.delete("/v1/topics/orders")).status_code == 204
    assert await everything() == before
    assert (await ours.get("/v1/topics")).json()["items"] == []


async def test_s58_pages_can_be_switched_off_and_have_rules(dsn: str) -> None:
    async with serving(dsn) as client:
        page = await client.get("/docs")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"
        for path in ("/debug", "/admin", "/v1/debug", "/failpoints", "/.env"):
            assert (await client.get(path)).status_code == 404
    async with serving(dsn, docs=False) as client:
        assert (await client.get("/docs")).status_code == 404


async def test_s11_invented_keys_get_no_more_of_the_database_than_others(keyed: Keyed) -> None:
    from app.domain.key import generate_key  # noqa: PLC0415

    client = await keyed.client()
    invented = [keyed.presenting(generate_key().text).get("/v1/topics") for _ in range(200)]
    answers = await asyncio.gather(*invented, client.get("/v1/topics"))
    assert [answer.status_code for answer in answers] == [401] * 200 + [200]
