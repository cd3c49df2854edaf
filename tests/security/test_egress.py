"""What leaves the server for an address somebody else chose: pushes, hooks, test events, and nothing besides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.domain.group import Delivery, Group, GroupConfig
from app.domain.message import Message
from app.domain.partition import partition_id
from app.webhook.request import Letterhead, delivery_request
from tests.misbehaviour import answer
from tests.push.world import GROUP, SECRET, TOPIC, replicated
from tests.receiver import Receiver
from tests.servers import wait_until

INTERNAL = "http://169.254.169.254/latest/meta-data/"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


def declarations(url: str) -> list[tuple[str, dict[str, Any]]]:
    """Every field of the API that holds an address to call."""
    return [
        (GROUP, {"startFrom": "earliest", "delivery": {"mode": "push", "url": url}}),
        (f"{TOPIC}/groups/dead", {"startFrom": "earliest", "deadLetter": {"onDead": url}}),
        *((TOPIC, {"hooks": {event: url}}) for event in ("onPublish", "onAck", "onDead")),
    ]


async def test_s31_whatever_field_an_address_is_in_it_meets_the_same_guard(client: httpx.AsyncClient) -> None:
    await client.put(TOPIC)
    for url in (INTERNAL, "http://user:pass@example.com/", "http://2130706433/", "file:///etc/passwd"):
        reasons = set()
        for path, body in declarations(url):
            refused = await client.put(path, json=body)
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid_field"), (path, url)
            reasons.add(refused.json()["errors"][0]["reason"])
        assert len(reasons) == 1


async def test_s31_what_was_allowed_when_it_was_declared_is_judged_again_at_every_call(
    dsn: str, receiver: Receiver
) -> None:
    async with replicated(dsn, receiver, 1) as world:
        for path, body in declarations(receiver.url)[:2]:
            await world.client.put(TOPIC)
            assert (await world.client.put(path, json=body)).is_success
        assert (await world.client.put(TOPIC, json={"hooks": {"onPublish": receiver.url}})).is_success
    async with replicated(dsn, receiver, 1, push_allow="") as world:
        await world.publish("a")
        told = await world.post(f"{GROUP}/test")
        assert (told["status"], told["errorClass"], told["excerpt"]) == (None, "blocked_address", None)
        assert "127.0.0.1" not in str(told)

        async def is_failing() -> bool:
            return bool((await world.stats())["endpoint"]["reason"])

        await wait_until(is_failing)
    assert receiver.connections == 0


async def test_s31_a_schema_is_never_fetched(client: httpx.AsyncClient, receiver: Receiver) -> None:
    for reference in (receiver.url, INTERNAL, "file:///etc/passwd", "//localhost/x"):
        refused = await client.put(TOPIC, json={"validate": {"schema": {"$ref": reference}}})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_schema")
        refused = await client.put(TOPIC, json={"validate": {"schema": {"$id": reference, "$ref": "other.json"}}})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_schema")
    assert receiver.connections == 0


async def test_s21_a_huge_answer_is_cut_short_and_the_attempt_is_stored(dsn: str, receiver: Receiver) -> None:
    body = b"begin\x00\xff\x1b[31m" + b"x" * 200_000
    async with replicated(dsn, receiver, 1) as world:
        await world.topic()
        await world.group(retries={"max": 0})
        receiver.behave(answer(500, body=body))
        (published,) = await world.publish("a")
        await world.settled()
        (attempt,) = await world.attempts(published["id"])
    assert (attempt["status"], attempt["outcome"]) == (500, "nacked")
    assert attempt["excerpt"].startswith(r"begin\x00\xff\x1b[31mxxx")
    assert len(attempt["excerpt"]) <= 4096
    assert len(receiver.requests) == 1


def test_s40_an_old_delivery_does_not_verify_again_and_a_retry_keeps_its_id() -> None:
    delivery = Delivery(mode="push", url="https://example.com/", secret=SECRET)
    now = datetime.now(UTC)
    group = Group(1, 1, "orders", "hooks", GroupConfig(delivery=delivery), 1, 1, None, None, None, None, now, now)
    message = Message(partition_id(1, 0), 1, now, None, None, b'{"a":1}')

    def sent(at: datetime) -> dict[str, str]:
        request = delivery_request(Letterhead(group), message, message_id="msg_1", attempt=1, ack_id="a", now=at)
        return {name.lower(): value for name, value in request.headers}

    old, fresh = sent(now - timedelta(minutes=6)), sent(now)
    assert old["webhook-id"] == fresh["webhook-id"]
    assert old["webhook-signature"] != fresh["webhook-signature"]
    Webhook(SECRET).verify('{"a":1}', fresh)
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(SECRET).verify('{"a":1}', old)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify('{"a":1}', old | {"webhook-timestamp": fresh["webhook-timestamp"]})


async def test_s49_no_name_of_a_user_becomes_a_label(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, 1) as world:
        headers = {"logpost-project": "canary", "logpost-environment": "canary"}
        for at in range(5):
            topic = f"/v1/topics/canary-{at}"
            await world.client.put(topic, headers=headers)
            await world.client.put(f"{topic}/groups/canary-{at}", headers=headers)
            await world.client.post(f"{topic}/messages", json=1, headers=headers | {"partition-key": "canary"})
            await world.client.post(f"{topic}/groups/canary-{at}/pull", headers=headers)
        assert "canary" not in (await world.client.get("/metrics")).text
