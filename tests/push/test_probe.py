"""The test event: signed, tells what came of it, and touches nothing."""

from __future__ import annotations

from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.misbehaviour import answer
from tests.push.world import GROUP, SECRET, World


async def declared(world: World, **delivery: Any) -> None:
    await world.topic()
    await world.group(delivery={"secret": SECRET, **delivery})


@pytest.mark.parametrize("form", ["raw", "cloudevents-binary", "cloudevents-structured"])
async def test_a_signed_event_arrives_in_the_groups_format(world: World, form: str) -> None:
    await declared(world, format=form, headers={"Authorization": "Bearer x"})
    told = await world.post(f"{GROUP}/test")
    (request,) = world.receiver.requests
    headers = {name.lower(): value for name, value in request.headers}
    body = Webhook(SECRET).verify(request.body.decode(), headers)
    event = body["data"] if form == "cloudevents-structured" else body
    assert (event["type"], event["topic"], event["group"]) == ("logpost.test", "orders", "hooks")
    assert (headers["logpost-test"], headers["authorization"]) == ("true", "Bearer x")
    assert "logpost-ack-id" not in headers
    assert told["webhookId"] == headers["webhook-id"]
    assert (told["outcome"], told["status"], told["errorClass"], told["error"]) == ("ack", 200, None, None)
    assert told["latencyMs"] >= 0


async def test_what_the_endpoint_answered_is_told_and_not_held_against_it(world: World) -> None:
    await declared(world)
    world.receiver.behave(answer(500, body=b"no such table"))
    before = await world.stats()
    told = [await world.post(f"{GROUP}/test") for _ in range(6)][-1]
    assert (told["outcome"], told["status"], told["errorClass"]) == ("nack", 500, "status")
    assert told["excerpt"] == "no such table"
    assert await world.stats() == before
    assert before["endpoint"]["state"] == "healthy"


async def test_an_endpoint_that_is_not_there_is_told_with_its_class(world: World) -> None:
    await declared(world)
    await world.receiver.stop()
    told = await world.post(f"{GROUP}/test")
    assert (told["outcome"], told["status"], told["errorClass"]) == ("nack", None, "connect")


async def test_a_410_to_a_test_pauses_nothing(world: World) -> None:
    await declared(world)
    world.receiver.behave(answer(410))
    assert (await world.post(f"{GROUP}/test"))["outcome"] == "pause"
    assert (await world.stats())["paused"] is False


async def test_a_pulled_group_has_no_endpoint_to_try(world: World) -> None:
    await world.topic()
    await world.client.put(GROUP)
    answered = await world.client.post(f"{GROUP}/test")
    assert (answered.status_code, answered.json()["code"]) == (409, "group_not_pushed")
