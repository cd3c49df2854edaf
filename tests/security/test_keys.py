"""API keys: made once, shown once, told apart, ended everywhere."""

from __future__ import annotations

import asyncio
import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.broker import keys as keyring
from app.domain.key import ALPHABET, allows, generate_key, prefix_of
from app.storage import keys as stored
from tests.security.conftest import OURS, ROOT_KEY, Keyed, bearer, keyed_on
from tests.servers import wait_until

FIELDS = {
    "id", "name", "project", "environment", "scopes", "topics", "expiresAt", "createdAt", "lastUsedAt",
    "requestsPerSecond", "bytesPerSecond",
}  # fmt: skip


async def test_a_key_is_shown_once_and_works(keyed: Keyed) -> None:
    made = await keyed.create(name="checkout", scopes=["manage", "publish"], topics=["orders-*"])
    assert made.keys() == FIELDS | {"key"}
    assert re.fullmatch(r"lp_[0-9A-Za-z]{12}_[0-9A-Za-z]{32}_[0-9A-Za-z]{6}", made["key"])
    assert (made["name"], made["project"], made["environment"]) == ("checkout", OURS, "live")
    assert (made["scopes"], made["topics"], made["expiresAt"]) == (["publish", "manage"], ["orders-*"], None)
    listed = (await keyed.root.get("/v1/keys")).json()["items"]
    assert [key["id"] for key in listed] == [made["id"]]
    read = (await keyed.root.get(f"/v1/keys/{made['id']}")).json()
    assert read.keys() == FIELDS
    assert made["key"].split("_")[2] not in str(listed) + str(read)
    async with keyed.presenting(made["key"]) as client:
        assert (await client.put("/v1/topics/orders-eu")).status_code == 201
        assert (await client.post("/v1/topics/orders-eu/messages", json={})).status_code == 201


@pytest.mark.parametrize(
    "presented",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic Zm9vOmJhcg==",
        "lp_000000000000_00000000000000000000000000000000_000000",
        "Bearer garbage",
        f"Bearer {generate_key().text}",
        f"Bearer {ROOT_KEY[:-1]}",
        f"Bearer {ROOT_KEY}0",
        "Bearer é",
    ],
    ids=range(11),
)
async def test_s05_who_has_no_key_gets_nothing(keyed: Keyed, presented: str | None) -> None:
    headers = {} if presented is None else {b"authorization": presented.encode()}
    for method, path in (("GET", "/v1/topics"), ("POST", "/v1/topics/t/messages"), ("GET", "/metrics")):
        refused = await keyed.nobody.request(method, path, headers=headers, content=b"{}")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.json()["code"] == "unauthorized"


async def test_s05_a_key_in_the_url_is_refused_even_beside_a_good_one(keyed: Keyed) -> None:
    key = (await keyed.create())["key"]
    for name in ("key", "access_token", "q"):
        assert (await keyed.nobody.get("/v1/topics", params={name: key})).status_code == 401
        assert (await keyed.nobody.get("/v1/topics", params={name: key}, headers=bearer(key))).status_code == 401
        posted = await keyed.nobody.post("/v1/topics/t/messages", params={name: key}, headers=bearer(key), json=1)
        assert posted.status_code == 401


async def test_s05_a_revoked_key_is_refused_by_every_replica_within_five_seconds(
    two_replicas: tuple[Keyed, Keyed],
) -> None:
    here, there = two_replicas
    key = await here.create()
    clients = [here.presenting(key["key"]), there.presenting(key["key"])]
    for client in clients:
        assert (await client.get("/v1/topics")).status_code == 200
    assert (await here.root.delete(f"/v1/keys/{key['id']}")).status_code == 204

    async def refused(client: httpx.AsyncClient) -> bool:
        return (await client.get("/v1/topics")).status_code == 401

    assert await refused(clients[0])
    await wait_until(lambda: refused(clients[1]))
    assert (await here.root.delete(f"/v1/keys/{key['id']}")).status_code == 404
    assert (await here.root.get(f"/v1/keys/{key['id']}")).json()["code"] == "key_not_found"


async def test_s05_a_key_ends_when_it_expires(keyed: Keyed, dsn: str) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    key = await keyed.create(expiresAt=soon.isoformat())
    client = keyed.presenting(key["key"])
    assert (await client.get("/v1/topics")).status_code == 200
    database = await asyncpg.connect(dsn)
    await database.execute("update keys set expires_at = now()")
    await database.close()

    async def refused() -> bool:
        return (await client.get("/v1/topics")).status_code == 401

    await wait_until(refused)


async def test_an_end_in_the_past_is_refused(keyed: Keyed) -> None:
    form = {"name": "late", "scopes": ["publish"], "expiresAt": "2020-01-01T00:00:00Z"}
    refused = await keyed.root.post("/v1/keys", json=form)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "expiresAt")


async def test_only_the_root_key_manages_keys(keyed: Keyed) -> None:
    key = await keyed.create()
    client = keyed.presenting(key["key"])
    form = {"name": "more", "scopes": ["publish"]}
    for answer in (
        await client.post("/v1/keys", json=form),
        await client.post("/v1/keys", content=b"not json"),
        await client.get("/v1/keys"),
        await client.get(f"/v1/keys/{key['id']}"),
        await client.delete(f"/v1/keys/{key['id']}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_the_root_key_picks_its_namespace_by_headers(keyed: Keyed) -> None:
    one, two = ({"logpost-project": name, "logpost-environment": "live"} for name in ("one", "two"))
    assert (await keyed.root.put("/v1/topics/orders", headers=one)).status_code == 201
    assert (await keyed.root.get("/v1/topics/orders", headers=one)).status_code == 200
    assert (await keyed.root.get("/v1/topics/orders", headers=two)).status_code == 404
    assert (await keyed.root.get("/v1/topics/orders")).status_code == 404
    refused = await keyed.root.get("/v1/topics", headers={"logpost-project": "a/b"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "Logpost-Project")


async def test_a_key_finds_nothing_in_another_namespace_by_headers(keyed: Keyed) -> None:
    await keyed.root.put("/v1/topics/orders", headers={"logpost-project": "theirs", "logpost-environment": "live"})
    ours = await keyed.client()
    assert (await ours.put("/v1/topics/orders")).status_code == 201
    foreign = await ours.get("/v1/topics/orders", headers={"logpost-project": "theirs"})
    assert (foreign.status_code, foreign.json()["code"]) == (404, "topic_not_found")
    assert (await ours.get("/v1/topics/orders", headers={"logpost-project": OURS})).status_code == 200


async def test_without_a_root_key_no_keys_are_made(client: httpx.AsyncClient) -> None:
    refused = await client.post("/v1/keys", json={"name": "one", "scopes": ["publish"]})
    assert refused.status_code == 403
    assert "LOGPOST_ROOT_KEY" in refused.json()["detail"]


async def test_when_a_key_was_used_is_written_down(keyed: Keyed) -> None:
    key = await keyed.create()
    assert key["lastUsedAt"] is None
    assert (await keyed.presenting(key["key"]).get("/v1/topics")).status_code == 200

    async def is_known() -> bool:
        return (await keyed.root.get(f"/v1/keys/{key['id']}")).json()["lastUsedAt"] is not None

    await wait_until(is_known)


async def test_s12_a_namespace_has_so_many_keys_and_no_more(dsn: str) -> None:
    async with keyed_on(dsn, max_keys=2) as keyed:
        form = {"name": "one", "scopes": ["publish"]}
        answers = await asyncio.gather(*(keyed.root.post("/v1/keys", json=form) for _ in range(5)))
        assert sorted(answer.status_code for answer in answers) == [201, 201, 403, 403, 403]
        assert (await keyed.root.post("/v1/keys", json=form | {"project": "other"})).status_code == 201


async def test_s07_verified_keys_are_found_by_digest_without_the_database(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await keyed.client()
    assert (await client.get("/v1/topics")).status_code == 200
    monkeypatch.setattr(keyring, "FRESH_S", 1000.0)
    monkeypatch.setattr(stored, "read_valid", None)
    assert (await client.get("/v1/topics")).status_code == 200


def test_s07_a_key_has_more_chance_than_can_be_searched() -> None:
    made = {generate_key().text for _ in range(1000)}
    assert len(made) == 1000
    assert len(ALPHABET) ** 32 > 2**128


@given(st.integers(0, 58), st.sampled_from(ALPHABET))
def test_any_wrong_character_of_a_key_is_noticed(at: int, character: str) -> None:
    key = generate_key().text
    changed = key[:at] + character + key[at + 1 :]
    assert (prefix_of(changed) is not None) == (changed == key)


@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_patterns_match_as_they_read(pattern: str, topic: str) -> None:
    wanted = re.fullmatch(pattern.replace("*", ".*"), topic) is not None
    assert allows([pattern], topic) == wanted


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59-10:00", 4102444800, "4102444800", "tomorrow"])
async def test_an_end_that_is_no_time_is_refused_by_name(keyed: Keyed, end: object) -> None:
    answer = await keyed.root.post("/v1/keys", json={"name": "n", "scopes": ["publish"], "expiresAt": end})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "expiresAt")


async def test_a_presented_key_is_hashed_once(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    sha256 = hashlib.sha256

    def counted(data: bytes) -> Any:
        hashed.append(data)
        return sha256(data)

    async with keyed.presenting((await keyed.create())["key"]) as client:
        assert (await client.get("/v1/topics")).status_code == 200
        monkeypatch.setattr(hashlib, "sha256", counted)
        assert (await client.get("/v1/topics")).status_code == 200
    assert len(hashed) == 1
