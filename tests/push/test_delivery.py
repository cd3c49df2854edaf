"""The answer decides: what a receiver says, and what becomes of the message."""

from __future__ import annotations

import itertools

import pytest
from standardwebhooks import Webhook

from tests.misbehaviour import acting, answer, hang, huge_body, redirect, reset, retry_after
from tests.push.world import GROUP, SECRET, TOPIC, World, saying, text_of, texts
from tests.receiver import Behaviour, Receiver
from tests.servers import wait_until

GROW = {"max": 3, "strategy": "exponential", "baseDelay": 100, "maxDelay": 150}


async def test_a_2xx_is_the_ack(world: World) -> None:
    await world.topic()
    await world.group()
    published = await world.publish("a", "b")
    await world.receiver.received(2)
    await world.settled()
    assert texts(world.receiver.requests) == ["a", "b"]
    first = world.receiver.requests[0]
    assert first.header("webhook-id") == published[0]["id"]
    assert (first.header("Logpost-Attempt"), first.header("Logpost-Max-Attempts")) == ("1", "4")
    stats = await world.stats()
    assert (stats["acked"], stats["dead"], stats["inFlight"]) == (2, 0, 0)


async def test_s41_an_independent_library_verifies_the_signature_also_while_a_secret_is_replaced(world: World) -> None:
    newer = "whsec_" + "A" * 32
    await world.topic()
    await world.group(delivery={"secret": SECRET})
    await world.publish("a")
    await world.receiver.received(1)
    await world.group(delivery={"secret": newer})
    await world.publish("b")
    requests = await world.receiver.received(2)
    for secret, request in [(SECRET, requests[0]), (SECRET, requests[1]), (newer, requests[1])]:
        Webhook(secret).verify(request.body, dict(request.headers))


@pytest.mark.parametrize(
    "behaviour",
    [answer(500), answer(404), redirect("http://127.0.0.1:1/"), reset(), acting("nack")],
    ids=["500", "404", "redirect", "reset", "asked"],
)
async def test_anything_but_a_2xx_is_a_nack_and_the_message_comes_again(world: World, behaviour: Behaviour) -> None:
    await world.topic()
    await world.group()
    world.receiver.behave(behaviour, times=1)
    await world.publish("a")
    requests = await world.receiver.received(2)
    await world.settled()
    assert [request.header("Logpost-Attempt") for request in requests] == ["1", "2"]
    assert requests[0].header("webhook-id") == requests[1].header("webhook-id")


async def test_a_receiver_that_does_not_answer_within_the_ack_timeout_has_failed(world: World) -> None:
    await world.topic()
    await world.group(ackTimeoutMs=200)
    world.receiver.behave(hang(), times=1)
    (published,) = await world.publish("a")
    await world.receiver.received(2)
    await world.settled()
    first = (await world.attempts(published["id"]))[0]
    assert (first["outcome"], first["errorClass"], first["status"]) == ("nacked", "timeout", None)
    assert first["latencyMs"] >= 190


async def test_a_2xx_counts_whatever_the_body_does(world: World) -> None:
    await world.topic()
    await world.group()
    world.receiver.behave(huge_body(65536 * 100))
    await world.publish("a")
    await world.receiver.received(1)
    await world.settled()
    assert (await world.stats())["acked"] == 1
    assert len(world.receiver.requests) == 1


async def test_attempts_are_spent_on_failures_and_then_the_message_is_dead(world: World) -> None:
    await world.topic()
    await world.group(retries={**GROW, "max": 2})
    world.receiver.behave(answer(500, body=b"no \x1b[31mthanks"))
    (published,) = await world.publish("k:1")
    requests = await world.receiver.received(3)
    await world.settled()
    gaps = [after.at - before.at for before, after in itertools.pairwise(requests)]
    assert gaps[0] >= 0.08
    assert gaps[1] >= 0.15
    (letter,) = (await world.get(f"{GROUP}/dead-letters"))["items"]
    assert (letter["attempts"], letter["error"], letter["message"]) == (3, "the endpoint answered 500", "k:1")
    assert [
        (attempt["attempt"], attempt["status"], attempt["errorClass"], attempt["excerpt"])
        for attempt in await world.attempts(published["id"])
    ] == [(number, 500, "status", "no \\x1b[31mthanks") for number in (1, 2, 3)]


async def test_no_dead_letter_is_kept_where_none_are_wanted(world: World) -> None:
    await world.topic()
    await world.group(deadLetter={"enabled": False}, retries={**GROW, "max": 0})
    world.receiver.behave(answer(500), times=1)
    await world.publish("a", "b")
    await world.receiver.received(2)
    await world.settled()
    assert texts(world.receiver.requests) == ["a", "b"]
    assert (await world.stats())["dead"] == 1
    assert (await world.get(f"{GROUP}/dead-letters"))["items"] == []


async def test_a_base_delay_of_nothing_is_refused_when_declared(world: World) -> None:
    await world.topic()
    delivery = {"mode": "push", "url": world.receiver.url}
    for delay in (0, -1):
        refused = await world.client.put(GROUP, json={"delivery": delivery, "retries": {"baseDelay": delay}})
        assert refused.status_code == 422


async def test_a_receiver_can_discard_and_its_reason_is_kept(world: World) -> None:
    await world.topic()
    await world.group()
    world.receiver.behave(acting("discard", body=b"not for me"), when=saying("k:1"))
    (first, _) = await world.publish("k:1", "k:2")
    await world.receiver.received(2)
    await world.settled()
    assert texts(world.receiver.requests) == ["k:1", "k:2"]
    stats = await world.stats()
    assert (stats["discarded"], stats["acked"], stats["dead"]) == (1, 1, 0)
    (attempt,) = await world.attempts(first["id"])
    assert (attempt["outcome"], attempt["error"]) == ("discarded", "not for me")


async def test_the_last_successes_are_recorded_too(world: World) -> None:
    await world.topic()
    await world.group()
    world.receiver.behave(answer(202, body=b"thanks"))
    (published,) = await world.publish("a")

    async def recorded() -> bool:
        return bool(await world.attempts(published["id"]))

    await wait_until(recorded)
    (attempt,) = await world.attempts(published["id"])
    assert (attempt["outcome"], attempt["status"], attempt["excerpt"]) == ("acked", 202, "thanks")
    assert attempt["attempt"] == 1


async def test_only_so_many_successes_are_kept(world: World) -> None:
    await world.topic()
    await world.group(concurrency=20, ordering="none")
    first = await world.publish(*(str(number) for number in range(150)))
    await world.settled()
    last = await world.publish("last")
    await world.settled()

    async def recorded() -> bool:
        return bool(await world.attempts(last[0]["id"]))

    await wait_until(recorded)
    kept = [one for one in (*first, *last) if await world.attempts(one["id"])]
    assert 1 < len(kept) <= 200  # of each replica's 100


async def test_a_receiver_that_was_away_gets_everything_once_it_is_back(world: World) -> None:
    await world.topic()
    await world.group(retries={"max": 1000, "strategy": "fixed", "baseDelay": 50, "maxDelay": 50})
    await world.receiver.stop()
    published = await world.publish("k:1", "k:2", "l:1")

    async def tried() -> bool:
        return bool(await world.attempts(published[0]["id"]))

    await wait_until(tried)
    await world.receiver.start()
    await world.receiver.received(3)
    await world.settled()
    assert [text for text in texts(world.receiver.requests) if text.startswith("k")] == ["k:1", "k:2"]
    assert (await world.attempts(published[0]["id"]))[0]["errorClass"] == "connect"


async def test_a_date_in_retry_after_delays_a_nack_as_well(world: World) -> None:
    await world.topic()
    await world.group()
    world.receiver.behave(retry_after(500, 3), times=1)
    await world.publish("k:1", "l:1")
    requests = await world.receiver.received(3)
    assert texts(requests) == ["k:1", "l:1", "k:1"]
    assert requests[2].at - requests[0].at >= 2.95


async def test_a_group_can_change_between_push_and_pull_and_keeps_its_place(world: World) -> None:
    await world.topic()
    await world.group()
    await world.publish("a")
    await world.settled()
    await world.client.put(GROUP, json={"delivery": {"mode": "pull"}})
    await world.publish("b")
    pulled = await world.post(f"{GROUP}/pull", {"waitMs": 60_000})
    assert [message["message"] for message in pulled["messages"]] == ["b"]
    await world.post(f"{GROUP}/ack", {"ackIds": [pulled["messages"][0]["ackId"]]})
    await world.group()
    await world.publish("c")
    await world.receiver.until(lambda requests: "c" in texts(requests))
    await world.settled()
    assert texts(world.receiver.requests) == ["a", "c"]


async def test_a_group_whose_url_changes_is_pushed_there(world: World) -> None:
    await world.topic()
    await world.group()
    await world.publish("a")
    await world.settled()
    async with Receiver() as other:
        await world.group(delivery={"url": other.url})
        await world.publish("b")
        assert text_of((await other.received(1))[0]) == "b"
        await world.settled()
    assert texts(world.receiver.requests) == ["a"]


async def test_a_deleted_group_is_pushed_no_more(world: World) -> None:
    await world.topic()
    await world.group()
    await world.publish("a")
    await world.settled()
    assert (await world.client.delete(GROUP)).status_code == 204
    await world.publish("b")
    await world.group(startFrom="latest")
    await world.publish("c")
    await world.receiver.received(2)
    assert texts(world.receiver.requests) == ["a", "c"]


@pytest.mark.parametrize("gone", [TOPIC, GROUP])
async def test_a_group_declared_again_after_it_was_deleted_is_pushed_by_whoever_pushes_the_new_one(
    world: World, gone: str
) -> None:
    for count in (1, 2, 3, 4):
        await world.topic()
        await world.group(startFrom="latest")
        await world.publish(str(count))
        request = (await world.receiver.received(count))[-1]
        assert (text_of(request), request.header("Logpost-Attempt")) == (str(count), "1")
        await world.settled()
        answer = await world.client.delete(gone)
        assert answer.status_code == 204, answer.text


async def test_a_failing_receiver_stops_no_other_group(world: World) -> None:
    await world.topic()
    world.receiver.behave(hang(), when=lambda request: request.path == "/bad")
    await world.group()
    bad = world.receiver.url.replace("/hook", "/bad")
    delivery = {"mode": "push", "url": bad}
    await world.client.put(f"{TOPIC}/groups/bad", json={"delivery": delivery, "startFrom": "earliest"})
    await world.publish("a", "b", "c")
    await world.settled()
    good = [request for request in world.receiver.requests if request.path == "/hook"]
    assert texts(good) == ["a", "b", "c"]


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_the_trace_of_a_publish_goes_on_in_its_delivery(world: World) -> None:
    await world.topic()
    await world.group()
    for trace in (TRACE, "00-nonsense", TRACE.replace("00-", "ff-", 1)):
        answer = await world.client.post(f"{TOPIC}/messages", json="a", headers={"traceparent": trace})
        assert answer.status_code == 201
    requests = await world.receiver.received(3)
    assert [request.header("traceparent") for request in requests] == [TRACE, None, None]
    assert [request.header("Message-Header-traceparent") for request in requests] == [TRACE, None, None]
