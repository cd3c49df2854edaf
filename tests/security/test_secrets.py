"""Secrets at rest: who has the database and not LOGPOST_SECRET_KEYS has nothing to sign or to log in with."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from standardwebhooks import Webhook

from app import telemetry
from tests.app_client import serving
from tests.misbehaviour import acting, answer
from tests.push.world import GROUP, TOPIC, World, replicated
from tests.receiver import Conversation, Receiver
from tests.security.conftest import ROOT_KEY, bearer
from tests.servers import wait_until

OLD_KEY, NEW_KEY = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
PHRASE = "a passphrase is as good if it is long enough"
SECRET, NEWER, HOOKS = (f"whsec_{base64.b64encode(text).decode()}" for text in (
    b"canary-of-the-old-secret-1234567", b"canary-of-the-new-secret-1234567", b"canary-of-the-hook-secret-123456",
))  # fmt: skip
CREDENTIAL = "canary-of-the-credential"
HEADERS = {"Authorization": f"Bearer {CREDENTIAL}", "X-Custom": CREDENTIAL}
OTHER = "/v1/topics/orders/groups/other"
STORED = re.compile(r"enc:v1:[0-9a-f]{8}:[A-Za-z0-9+/]+=*")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def sql(dsn: str, statement: str, *arguments: Any) -> list[asyncpg.Record]:
    database = await asyncpg.connect(dsn)
    try:
        return await database.fetch(statement, *arguments)
    finally:
        await database.close()


async def dump(dsn: str) -> str:
    """Every column of every row of every table, as text."""
    tables = await sql(dsn, "select table_name from information_schema.tables where table_schema = 'public'")
    rows = [await sql(dsn, f'select t::text from "{table[0]}" t') for table in tables]
    return "\n".join(row[0] for found in rows for row in found)


def tellings(secret: str) -> Iterator[str]:
    """The ways in which a secret could stand in a dump."""
    encoded = secret.removeprefix("whsec_")
    yield encoded
    for raw in (secret.encode(), base64.b64decode(encoded) if secret != encoded else secret.encode()):
        yield raw.decode()
        yield raw.hex()
        yield base64.b64encode(raw).decode().rstrip("=")


async def config_of(dsn: str, name: str = "hooks") -> Any:
    (row,) = await sql(
        dsn, "select g.config from groups g join topics t on t.id = g.topic_id where g.name = $1 and t.name = 'orders'",
        name,
    )  # fmt: skip
    return json.loads(row["config"])


async def declared(world: World, **delivery: Any) -> None:
    """A group that signs and logs in, and another one."""
    await world.topic()
    await world.group(delivery={"secret": SECRET, "headers": HEADERS} | delivery)
    other = {"mode": "push", "url": world.receiver.url.replace("/hook", "/other"), "secret": NEWER}
    assert (await world.client.put(OTHER, json={"startFrom": "earliest", "delivery": other})).is_success


def to(path: str) -> Any:
    return lambda requests: [request for request in requests if request.path == path]


async def everything_declared(world: World) -> list[str]:
    """Secrets of all kinds, old and new, used at a receiver that repeats what it is sent. Returns them."""

    async def echo(talk: Conversation) -> None:
        said = "; ".join(f"{name}: {value}" for name, value in talk.request.headers)
        await answer(500 if talk.request.path == "/hook" else 200, body=said.encode())(talk)

    world.receiver.behave(echo)
    for client in world.clients:
        client.headers.update(bearer(ROOT_KEY))
    at = world.receiver.url.replace("/hook", "/hooks")
    await world.topic(hooks={"onPublish": at, "onDead": at, "secret": HOOKS})
    await world.group(delivery={"secret": SECRET, "headers": HEADERS})
    await world.group(
        delivery={"secret": NEWER, "headers": HEADERS}, deadLetter={"onDead": at},
        retries={"max": 0, "strategy": "fixed", "baseDelay": 1, "maxDelay": 1},
    )  # fmt: skip
    key = await world.post("/v1/keys", {"name": "one", "scopes": ["publish"]})
    ticket = await world.post("/v1/stream-tickets", {"topic": "orders"})
    await world.publish("a")
    await world.settled()
    await world.receiver.until(lambda requests: len(to("/hooks")(requests)) >= 3)
    return [SECRET, NEWER, HOOKS, CREDENTIAL, key["key"], key["key"].split("_")[2], ticket["ticket"], ROOT_KEY]


async def test_s08_a_dump_of_the_database_has_no_usable_key_or_secret(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, 1, secret_keys=f"{NEW_KEY},{OLD_KEY}", root_key=ROOT_KEY) as world:
        secrets = await everything_declared(world)
        dumped = await dump(dsn)
        assert "orders" in dumped
        assert len(set(STORED.findall(dumped))) >= 7
        told = [way for secret in secrets for way in tellings(secret) if way in dumped]
        assert told == []


async def test_without_keys_secrets_are_stored_as_they_are_and_a_dump_tells(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, 1, root_key=ROOT_KEY) as world:
        secrets = await everything_declared(world)
        dumped = await dump(dsn)
        assert [secret in dumped for secret in secrets] == [True] * 4 + [False] * 4
        assert "enc:" not in dumped


async def test_s10_an_endpoint_that_repeats_a_credential_tells_nobody(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, 1) as world:
        await declared(world)
        body = f"bad credential {CREDENTIAL}, sent as Bearer {CREDENTIAL}".encode()
        receiver.behave(acting("discard", 400, body), when=lambda request: request.path == "/hook")
        told = await world.post(f"{GROUP}/test")
        assert told["excerpt"] == "bad credential ********, sent as ********"
        (published,) = await world.publish("a")
        await world.settled()
        seen = str(await world.get(f"{TOPIC}/messages/{published['id']}/deliveries"))
        assert "bad credential ********" in seen
        assert CREDENTIAL not in seen + str(await sql(dsn, "select a::text from attempts a"))


async def test_pushes_are_signed_and_let_in_as_ever(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, secret_keys=PHRASE) as world:
        await declared(world)
        await declared(world, secret=NEWER)  # from now on both sign
        await world.publish("a")
        ((request,),) = [to("/hook")(await receiver.until(to("/hook")))]
        for secret in (SECRET, NEWER):
            Webhook(secret).verify(request.body.decode(), {name.lower(): value for name, value in request.headers})
        assert (request.header("Authorization"), request.header("X-Custom")) == tuple(HEADERS.values())
        assert SECRET.removeprefix("whsec_") not in await dump(dsn)


async def test_saying_the_same_again_changes_nothing_though_a_ciphertext_never_repeats(
    dsn: str, receiver: Receiver
) -> None:
    async with replicated(dsn, receiver, 1, secret_keys=NEW_KEY) as world:
        hooks = {"onPublish": receiver.url, "secret": HOOKS}
        await world.topic(hooks=hooks)
        await world.group(delivery={"secret": SECRET, "headers": HEADERS})
        before = await sql(dsn, "select id, version, config, updated_at from groups order by id")
        topic = (await world.get(TOPIC))["updatedAt"]
        await world.topic(hooks=hooks)
        await world.topic(hooks=hooks | {"secret": "********"})
        for headers in (HEADERS, dict.fromkeys(HEADERS, "********")):
            await world.group(delivery={"secret": "********", "headers": headers})
        assert await sql(dsn, "select id, version, config, updated_at from groups order by id") == before
        assert (await world.get(TOPIC))["updatedAt"] == topic


async def test_what_is_stored_says_how_it_is_read(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, 1, secret_keys=NEW_KEY) as world:
        await declared(world)
        stored = (await config_of(dsn))["delivery"]["secret"]
    (topic_id,) = (await sql(dsn, "select id from topics where name = 'orders'"))[0]
    sealed = base64.b64decode(stored.rpartition(":")[2])
    place = json.dumps(["logpost", "group", topic_id, "hooks", "secret"]).encode()
    assert STORED.fullmatch(stored)
    assert AESGCM(base64.b64decode(NEW_KEY)).decrypt(sealed[:12], sealed[12:], place).decode() == SECRET


async def prefixes(dsn: str) -> set[str]:
    return {found[:16] for found in STORED.findall(await dump(dsn))}


@pytest.mark.parametrize("before", [None, OLD_KEY, PHRASE], ids=["none", "key", "phrase"])
async def test_a_new_key_takes_over_everything_and_then_the_old_one_may_go(
    dsn: str, receiver: Receiver, before: str | None
) -> None:
    async with replicated(dsn, receiver, 1, secret_keys=before) as world:
        await world.topic(hooks={"onPublish": receiver.url.replace("/hook", "/told"), "secret": HOOKS})
        await world.group(delivery={"secret": SECRET, "headers": HEADERS})
        await world.group(delivery={"secret": NEWER, "headers": HEADERS})
        version = (await sql(dsn, "select max(version) from groups"))[0][0]
    earlier = await prefixes(dsn)
    assert len(earlier) == (0 if before is None else 1)
    async with replicated(dsn, receiver, 1, secret_keys=",".join(filter(None, [NEW_KEY, before]))):

        async def is_all_new() -> bool:
            now, dumped = await prefixes(dsn), await dump(dsn)
            return len(now) == 1 and now != earlier and not any(s in dumped for s in (SECRET, NEWER, HOOKS, CREDENTIAL))

        await wait_until(is_all_new)
    async with replicated(dsn, receiver, 1, secret_keys=NEW_KEY) as world:
        await world.publish("a")
        requests = await receiver.until(lambda requests: to("/hook")(requests) and to("/told")(requests))
        for path, secret in (("/hook", SECRET), ("/hook", NEWER), ("/told", HOOKS)):
            request = to(path)(requests)[0]
            Webhook(secret).verify(request.body.decode(), {name.lower(): value for name, value in request.headers})
        assert (await sql(dsn, "select max(version) from groups"))[0][0] == version


async def test_a_secret_that_signs_no_more_is_not_carried_along(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, 1) as world:
        await declared(world, secretOverlapMs=1)
        await declared(world, secretOverlapMs=1, secret=NEWER)
    assert SECRET in await dump(dsn)
    async with replicated(dsn, receiver, 1, secret_keys=NEW_KEY) as world:

        async def is_gone() -> bool:
            return (await config_of(dsn))["delivery"]["previousSecret"] is None

        await wait_until(is_gone)
        await world.publish("a")
        (request,) = to("/hook")(await receiver.until(to("/hook")))
        Webhook(NEWER).verify(request.body.decode(), {name.lower(): value for name, value in request.headers})


async def locked_out(world: World, log: io.StringIO) -> None:
    """The group ``hooks`` is not pushed, and says so everywhere; everything else goes on."""
    (published,) = await world.publish("a")
    await world.receiver.until(to("/other"))
    await wait_until(lambda: "push_without_secret" in log.getvalue())
    refused = await world.client.post(f"{GROUP}/test")
    assert (refused.status_code, refused.json()["code"]) == (503, "secret_unreadable")
    stats, group = await world.stats(), await world.get(GROUP)
    for told in (refused.json()["detail"], stats["endpoint"]["reason"], group["endpoint"]["reason"], log.getvalue()):
        assert "A secret of group 'hooks' cannot be read" in told
    assert (stats["lag"], stats["inFlight"], stats["endpoint"]["state"]) == (1, 0, "open")
    assert {attempt["group"] for attempt in await world.attempts(published["id"])} <= {"other"}
    assert not to("/hook")(world.receiver.requests)
    assert len((await world.get(f"{TOPIC}/groups"))["items"]) == 2
    assert "enc:v1" not in str([stats, group, refused.json(), log.getvalue()])


async def heals(world: World) -> None:
    """Whoever knows the secret says it again."""
    await world.group(delivery={"secret": SECRET, "headers": HEADERS})
    requests = to("/hook")(await world.receiver.until(to("/hook")))
    Webhook(SECRET).verify(
        requests[0].body.decode(), {name.lower(): value for name, value in requests[0].headers}
    )  # fmt: skip
    await world.settled()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    out = io.StringIO()
    telemetry.configure("info", out)
    yield out
    telemetry.configure("warning")


async def test_a_key_that_is_missing_is_named_and_stops_nobody_else(
    dsn: str, receiver: Receiver, log: io.StringIO
) -> None:
    async with replicated(dsn, receiver, 1, secret_keys=OLD_KEY) as world:
        await declared(world)
        other = {"mode": "push", "url": receiver.url.replace("/hook", "/other"), "secret": NEWER}
    async with replicated(dsn, receiver, 1, secret_keys=NEW_KEY) as world:
        assert (await world.client.put(OTHER, json={"startFrom": "earliest", "delivery": other})).is_success
        await locked_out(world, log)
        assert "LOGPOST_SECRET_KEYS" in (await world.client.post(f"{GROUP}/test")).json()["detail"]
        kept = (await config_of(dsn))["delivery"]
        await world.group(delivery={"secret": "********", "headers": dict.fromkeys(HEADERS, "********")}, batchSize=7)
        changed = await config_of(dsn)
        assert (changed["batchSize"], changed["delivery"]) == (7, kept)
    async with replicated(dsn, receiver, 1, secret_keys=f"{NEW_KEY},{OLD_KEY}") as world:
        await world.settled()
        assert len(to("/hook")(receiver.requests)) == 1


async def test_a_hook_whose_secret_cannot_be_read_waits_and_its_topic_goes_on(dsn: str, receiver: Receiver) -> None:
    hooks = {"onPublish": receiver.url, "secret": HOOKS}
    async with replicated(dsn, receiver, 1, secret_keys=OLD_KEY) as world:
        await world.topic(hooks=hooks)
    async with replicated(dsn, receiver, 1, secret_keys=NEW_KEY) as world:
        await world.publish("a")
        assert (await world.get(TOPIC))["hooks"]["secret"] == "********"
        moved = await world.client.put(TOPIC, json={"hooks": {"onDead": receiver.url, "secret": "********"}})
        assert (moved.status_code, moved.json()["code"]) == (503, "secret_unreadable")
        assert "LOGPOST_SECRET_KEYS" in moved.json()["detail"]
        assert receiver.requests == []
        await world.topic(hooks=hooks)  # said again
        await receiver.received(1)


@pytest.mark.parametrize("field", ["{delivery,secret}", "{delivery,headers,Authorization}"])
async def test_a_ciphertext_that_was_moved_there_from_elsewhere_is_refused(
    dsn: str, receiver: Receiver, log: io.StringIO, field: str
) -> None:
    async with replicated(dsn, receiver, 1, secret_keys=NEW_KEY) as world:
        await declared(world)
        await sql(
            dsn, "update groups set config = jsonb_set(config, $1::text[], (select o.config #> '{delivery,secret}' "
            "from groups o where o.name = 'other')), version = version + 1 where name = 'hooks'",
            field.strip("{}").split(","),
        )  # fmt: skip
        await sql(dsn, "update cursors c set version = g.version from groups g where g.id = c.group_id")
        await wait_until(lambda: "push_without_secret" in log.getvalue())
        await locked_out(world, log)
        await heals(world)


@pytest.mark.parametrize("at", [30, -1])
async def test_a_ciphertext_that_was_changed_is_refused(
    dsn: str, receiver: Receiver, log: io.StringIO, at: int
) -> None:
    async with replicated(dsn, receiver, 1, secret_keys=NEW_KEY) as world:
        await declared(world)
        config = await config_of(dsn)
        stored = config["delivery"]["secret"]
        at %= len(stored)
        changed = "A" if stored[at] != "A" else "B"
        config["delivery"]["secret"] = stored[:at] + changed + stored[at + 1 :]
        await sql(dsn, "update groups set config = $1, version = 2 where name = 'hooks'", json.dumps(config))
        await sql(dsn, "update cursors c set version = g.version from groups g where g.id = c.group_id")
        await wait_until(lambda: "push_without_secret" in log.getvalue())
        await locked_out(world, log)
        await heals(world)


@pytest.mark.parametrize("secret_keys", [None, NEW_KEY], ids=["plain", "encrypted"])
async def test_a_header_that_looks_encrypted_is_a_header_like_any_other(
    dsn: str, receiver: Receiver, secret_keys: str | None
) -> None:
    async with replicated(dsn, receiver, 1, secret_keys=secret_keys) as world:
        forged = {"X-Token": "enc:v1:00000000:AAAA", "X-Other": "enc:v0:b", "X-Third": "enc:"}
        await declared(world, headers=forged)
        await world.publish("a")
        ((request, *_),) = [to("/hook")(await receiver.until(to("/hook")))]
        assert {name: request.header(name) for name in forged} == forged


async def test_s10_secrets_show_in_no_answer_log_line_or_problem_where_they_are_encrypted(
    dsn: str, log: io.StringIO
) -> None:
    telemetry.configure("debug", log)
    push = {"mode": "push", "url": "https://example.com/hook", "secret": SECRET, "headers": HEADERS}
    seen = ""
    async with serving(dsn, secret_keys=NEW_KEY) as client:
        await client.put(TOPIC, json={"hooks": {"onDead": "https://example.com/dead", "secret": HOOKS}})
        for method, path, body in (
            ("PUT", GROUP, {"delivery": push}), ("PUT", GROUP, {"delivery": push | {"secret": SECRET + "!"}}),
            ("PUT", GROUP, {"delivery": push | {"headers": {"Host": CREDENTIAL}}}), ("GET", GROUP, None),
            ("PUT", GROUP, {"delivery": push | {"secret": NEWER}}), ("GET", f"{TOPIC}/groups", None),
            ("GET", TOPIC, None), ("GET", "/v1/topics", None), ("GET", f"{GROUP}/stats", None),
        ):  # fmt: skip
            answered = await client.request(method, path, json=body)
            seen += answered.text.replace(f'"X-Custom":"{CREDENTIAL}"', "")  # by its name it is no secret
        await dump(dsn)
    seen += log.getvalue()
    assert "enc:v1" not in seen
    assert [way for secret in (SECRET, NEWER, HOOKS, CREDENTIAL) for way in tellings(secret) if way in seen] == []
