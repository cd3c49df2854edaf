"""Hooks: told of what happened, signed, at least once, and never in the way of it."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from standardwebhooks import Webhook

from app import metrics
from tests.misbehaviour import answer, hang
from tests.push.world import GROUP, QUICK, SECRET, TOPIC, World, replicated
from tests.receiver import Receiver, Request
from tests.servers import wait_until

PULL = {"startFrom": "earliest", "retries": QUICK}


def at(receiver: Receiver, path: str) -> str:
    return receiver.url.replace("/hook", path)


async def hooked(world: World, *names: str, **more: Any) -> None:
    """A topic with these hooks, each at a path of its own, and a group that is pulled."""
    hooks = {name: at(world.receiver, f"/{name}") for name in names}
    await world.topic(hooks={**hooks, "secret": SECRET}, **more)
    assert (await world.client.put(GROUP, json=PULL)).is_success


def told(requests: list[Request], path: str) -> list[Any]:
    return [request.json for request in requests if request.path == path]


async def until_told(world: World, path: str, count: int) -> list[Any]:
    requests = await world.receiver.until(lambda requests: len(told(requests, path)) >= count)
    return told(requests, path)


async def pull(world: World, most: int = 100, wait_ms: int = 60_000) -> list[Any]:
    messages: list[Any] = (await world.post(f"{GROUP}/pull", {"max": most, "waitMs": wait_ms}))["messages"]
    return messages


async def left(dsn: str) -> tuple[int, int]:
    """Announcements that wait, and hooks."""
    connection = await asyncpg.connect(dsn)
    try:
        return (
            await connection.fetchval("select count(*) from announcements"),
            await connection.fetchval("select count(*) from topics where namespace_id = "
                                      "(select id from namespaces where project = '')"),
        )  # fmt: skip
    finally:
        await connection.close()


async def test_every_published_message_is_told_of_once_without_its_payload(world: World) -> None:
    await hooked(world, "onPublish", partitions=4)
    published = await world.publish("k:1", "k:2", "l:1", correlationId="c-1", headers={"a": "b"})
    events = await until_told(world, "/onPublish", 3)
    assert {event["message"]["id"] for event in events} == {one["id"] for one in published}
    first = next(event for event in events if event["message"]["id"] == published[0]["id"])
    assert first == {
        "type": "message.published", "topic": "orders", "group": None, "error": None, "at": published[0]["publishedAt"],
        "message": {
            "id": published[0]["id"], "partition": published[0]["partition"], "offset": published[0]["offset"],
            "key": "k", "headers": {"a": "b"}, "correlationId": "c-1", "publishedAt": published[0]["publishedAt"],
        },
    }  # fmt: skip
    await asyncio.sleep(1.5)  # another look of each replica
    assert len(world.receiver.requests) == 3


async def test_calls_are_signed_with_the_secret_of_the_hooks(world: World) -> None:
    await hooked(world, "onPublish")
    await world.publish("a")
    (request,) = await world.receiver.received(1)
    headers = {name.lower(): value for name, value in request.headers}
    assert Webhook(SECRET).verify(request.body.decode(), headers)["type"] == "message.published"
    assert not [name for name in headers if name.startswith("logpost-")]


async def test_every_ack_is_told_of_with_its_group(world: World) -> None:
    await hooked(world, "onAck")
    await world.publish("a", "b", "c")
    messages = await pull(world)
    await world.post(f"{GROUP}/ack", {"ackIds": [message["ackId"] for message in messages[:2]]})
    await world.post(f"{GROUP}/ack", {"ackIds": [message["ackId"] for message in messages[:2]]})  # says it again
    await world.post(f"{GROUP}/discard", {"ackIds": [messages[2]["ackId"]]})
    events = await until_told(world, "/onAck", 2)
    assert [(event["type"], event["group"], event["message"]["offset"]) for event in sorted(events, key=str)] == [
        ("message.acked", "hooks", 1), ("message.acked", "hooks", 2),
    ]  # fmt: skip
    assert {event["message"]["id"] for event in events} == {message["id"] for message in messages[:2]}
    await asyncio.sleep(1.5)
    assert len(world.receiver.requests) == 2


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_death_is_told_to_the_hooks_of_topic_and_group_whether_or_not_it_leaves_a_dead_letter(
    world: World, enabled: bool
) -> None:
    await hooked(world, "onDead")
    for name, url in (("hooks", at(world.receiver, "/group")), ("other", at(world.receiver, "/other"))):
        body = {**PULL, "retries": {"max": 0}, "deadLetter": {"enabled": enabled, "onDead": url}}
        assert (await world.client.put(f"{TOPIC}/groups/{name}", json=body)).is_success
    published = await world.publish("k:1")
    (message,) = await pull(world)
    await world.post(f"{GROUP}/nack", {"ackIds": [message["ackId"]], "reason": "no such account"})
    (event,) = await until_told(world, "/onDead", 1)
    assert (event["type"], event["group"], event["error"]) == ("message.dead", "hooks", "no such account")
    assert (event["message"]["id"], event["message"]["key"]) == (published[0]["id"], "k")
    assert await until_told(world, "/group", 1) == [event]
    assert not told(world.receiver.requests, "/other")


async def test_a_group_may_have_the_only_hook(world: World) -> None:
    await hooked(world)
    body = {**PULL, "retries": {"max": 0}, "deadLetter": {"onDead": at(world.receiver, "/group")}}
    assert (await world.client.put(GROUP, json=body)).is_success
    await world.publish("a")
    (message,) = await pull(world)
    await world.post(f"{GROUP}/nack", {"ackIds": [message["ackId"]]})
    assert len(await until_told(world, "/group", 1)) == 1


async def test_a_death_by_timeout_that_nobody_hears_of_is_told_all_the_same(world: World) -> None:
    await hooked(world, "onDead")
    await world.client.put(GROUP, json={**PULL, "retries": {"max": 0}, "ackTimeoutMs": 100})
    await world.publish("a")
    assert await pull(world)
    assert not await pull(world, 1, 3000)  # sees that it is over
    (event,) = await until_told(world, "/onDead", 1)
    assert event["error"].startswith("timeout")


async def test_a_failing_hook_is_retried_and_delays_nothing_it_tells_of(world: World) -> None:
    await hooked(world, "onPublish", "onAck", "onDead")
    world.receiver.behave(hang(), times=40)
    await world.publish(*"abcdefghij")
    async with asyncio.timeout(9):  # a call that hangs does so for 10
        messages = await pull(world)
        await world.post(f"{GROUP}/ack", {"ackIds": [message["ackId"] for message in messages]})
        await world.settled()
    assert len(messages) == 10


async def test_an_event_comes_again_until_its_hook_takes_it(world: World) -> None:
    await hooked(world, "onPublish")
    world.receiver.behave(answer(500), times=1)
    await world.publish("a")
    first, second = (await world.receiver.received(2))[:2]
    assert first.body == second.body
    assert first.header("webhook-id") == second.header("webhook-id")


async def test_a_hook_that_never_takes_an_event_is_given_up_and_counted(world: World) -> None:
    await hooked(world, "onPublish")
    # Asked for by the endpoint, so that no breaker opens and no backoff is waited for.
    before = metrics.hook_given_up._value.get()
    world.receiver.behave(answer(200, {"Logpost-Action": "nack", "Retry-After": "0"}))
    await world.publish("a")

    async def given_up() -> bool:
        return bool(metrics.hook_given_up._value.get() == before + 1)

    await wait_until(given_up)
    assert len(world.receiver.requests) == 16


async def test_a_hook_that_is_gone_is_not_called_off(world: World) -> None:
    await hooked(world, "onPublish")
    world.receiver.behave(answer(410), times=1)
    await world.publish("a")
    await world.receiver.received(2)


async def test_events_wait_in_the_database_while_no_server_runs(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, 1) as world:
        await hooked(world, "onPublish", "onAck")
        await receiver.stop()
        await world.publish("a")
        (message,) = await pull(world)
        await world.post(f"{GROUP}/ack", {"ackIds": [message["ackId"]]})
    await receiver.start()
    async with replicated(dsn, receiver, 1) as world:
        assert len(await until_told(world, "/onPublish", 1)) == 1
        assert len(await until_told(world, "/onAck", 1)) == 1


async def test_what_was_published_before_a_hook_or_after_it_is_not_told(world: World, dsn: str) -> None:
    await hooked(world)
    await world.publish("before")
    await hooked(world, "onPublish")
    await world.publish("meanwhile")
    (event,) = await until_told(world, "/onPublish", 1)
    assert event["message"]["offset"] == 2
    await hooked(world)
    await world.publish("after")
    assert await left(dsn) == (0, 0)
    await hooked(world, "onPublish")
    await world.publish("again")
    assert [event["message"]["offset"] for event in await until_told(world, "/onPublish", 2)] == [2, 4]


async def test_partitions_that_are_added_are_told_of_from_their_start(world: World) -> None:
    await hooked(world, "onPublish")
    await hooked(world, "onPublish", partitions=8)
    published = await world.publish(*(f"{key}:1" for key in "abcdefghij"))
    events = await until_told(world, "/onPublish", 10)
    assert {event["message"]["id"] for event in events} == {one["id"] for one in published}


async def test_a_new_secret_and_a_new_url_hold_for_what_was_not_told_yet(world: World) -> None:
    await hooked(world, "onPublish")
    await world.receiver.stop()
    await world.publish("a")
    await world.receiver.start()
    fresh = "whsec_" + "QUJD" * 8
    hooks = {"onPublish": at(world.receiver, "/new"), "secret": fresh}
    await world.topic(hooks=hooks)
    requests = await world.receiver.until(lambda requests: told(requests, "/new"))
    request = next(request for request in requests if request.path == "/new")
    for secret in (fresh, SECRET):  # the old one signs on for a while
        Webhook(secret).verify(request.body.decode(), {name.lower(): value for name, value in request.headers})


async def test_the_logs_of_hooks_are_nobodys_topics(world: World, dsn: str) -> None:
    await hooked(world, "onPublish", "onAck", "onDead")
    assert [topic["name"] for topic in (await world.get("/v1/topics"))["items"]] == ["orders"]
    for headers in ({"Logpost-Project": ""}, {"Logpost-Environment": ""}):
        answered = await world.client.get("/v1/topics", headers=headers)
        assert answered.status_code == 422 or [one["name"] for one in answered.json()["items"]] == ["orders"]
    assert await left(dsn) == (0, 3)


async def test_hooks_go_with_their_topic_and_their_group(world: World, dsn: str) -> None:
    await hooked(world, "onPublish", "onAck", "onDead")
    body = {**PULL, "deadLetter": {"onDead": at(world.receiver, "/group")}}
    assert (await world.client.put(GROUP, json=body)).is_success
    assert await left(dsn) == (0, 4)
    assert (await world.client.delete(GROUP)).is_success
    assert await left(dsn) == (0, 3)
    assert (await world.client.delete(TOPIC)).is_success
    assert await left(dsn) == (0, 0)


@pytest.mark.parametrize("end", ["ack", "nack"])
async def test_a_redriven_message_is_told_of_whole_though_the_log_lost_it(dsn: str, world: World, end: str) -> None:
    await hooked(world, "onAck", "onDead")
    await world.client.put(GROUP, json={**PULL, "retries": {"max": 0}})
    published = await world.publish("k:1", headers={"a": "b"})
    (message,) = await pull(world)
    await world.post(f"{GROUP}/nack", {"ackIds": [message["ackId"]], "reason": "first"})
    first = await until_told(world, "/onDead", 1)
    await world.post(f"{GROUP}/dead-letters/retry")
    await lose_the_log(dsn)
    (message,) = await pull(world)
    await world.post(f"{GROUP}/{end}", {"ackIds": [message["ackId"]]})
    path, count = ("/onAck", 1) if end == "ack" else ("/onDead", 2)
    event = (await until_told(world, path, count))[-1]
    assert event["message"] == first[0]["message"]
    assert event["message"]["id"] == published[0]["id"]


async def test_what_was_trimmed_before_it_was_told_of_is_told_of_by_its_place(dsn: str, receiver: Receiver) -> None:
    async with replicated(dsn, receiver, 1) as world:
        await hooked(world, "onAck")
        await world.publish("k:1")
        (message,) = await pull(world)
        await lose_the_log(dsn)
        await world.post(f"{GROUP}/ack", {"ackIds": [message["ackId"]]})
        (event,) = await until_told(world, "/onAck", 1)
    assert (event["message"]["id"], event["message"]["partition"], event["message"]["offset"]) == (None, 0, 1)


async def lose_the_log(dsn: str) -> None:
    """The log of the topic has nothing any more."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "delete from batches b using topics t where b.partition_id = t.id << 16 and t.name = 'orders'"
    )
    await connection.close()
