"""A group's stream is a pull that goes on: the same leases, order and attempts, with at most ``max`` unsettled."""

from __future__ import annotations

import asyncio
from collections import Counter
from statistics import median
from typing import Any

import pytest

from tests.servers import wait_until
from tests.stream.replicas import BILLING, ORDERS, Replica, nothing_comes, replica, take, texts

STREAM = f"{BILLING}/stream"
QUICK = {"max": 3, "strategy": "fixed", "baseDelay": 1, "maxDelay": 1}


async def stats(of: Replica) -> dict[str, Any]:
    found: dict[str, Any] = await of.send("GET", f"{BILLING}/stats")
    return found


async def test_a_delivery_is_that_of_a_pull_and_its_attempts_count(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare(group={"retries": QUICK})
        await one.publish("a:1")
        async with one.events(STREAM) as events:
            (first,) = await take(events, 1)
            assert set(first) == {
                "id", "topic", "partition", "offset", "key", "headers", "correlationId", "publishedAt", "attempt",
                "maxAttempts", "ackId", "leaseExpiresAt", "message",
            }  # fmt: skip
            assert (first["attempt"], first["maxAttempts"]) == (1, 4)
            await one.send("POST", f"{BILLING}/nack", {"ackIds": [first["ackId"]]})
            (second,) = await take(events, 1)
            assert (second["id"], second["attempt"]) == (first["id"], 2)
            await one.send("POST", f"{BILLING}/ack", {"ackIds": [first["ackId"]]}, status=409)
            await one.ack(second)
            assert (await one.ack(second))["results"][0]["status"] == "ok"
        assert (await stats(one))["lag"] == 0


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
async def test_an_ack_on_another_replica_frees_the_window_promptly(dsn: str, ordering: str) -> None:
    async with replica(dsn) as one, replica(dsn) as two:
        await one.declare(group={"ordering": ordering})
        await one.publish(*(f"k{n}:{n}" for n in range(30)))
        clock = asyncio.get_running_loop().time
        async with one.events(STREAM, max=2) as events:
            unsettled, took = await take(events, 2), []
            for _ in range(28):
                started = clock()
                await two.ack(unsettled.pop(0))
                unsettled += await take(events, 1)
                took.append(clock() - started)
            assert median(took) < 0.5
            await two.ack(*unsettled)
        assert (await stats(one))["lag"] == 0


async def test_no_more_than_max_are_unsettled(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare(group={})
        await one.publish(*(str(n) for n in range(10)))
        async with one.events(STREAM, max=3) as events:
            assert len(await take(events, 3)) == 3
            await nothing_comes(events)
        await one.send("GET", f"{STREAM}?max=0", status=422)


async def test_a_closed_stream_gives_its_messages_back_at_once_without_using_an_attempt(dsn: str) -> None:
    async with replica(dsn) as one, replica(dsn) as two:
        await one.declare(group={})
        await one.publish("a:1", "a:2")
        async with one.events(STREAM) as events:
            await take(events, 2)
        pulled = await two.send("POST", f"{BILLING}/pull", {"waitMs": 60_000})
        assert [(message["message"], message["attempt"]) for message in pulled["messages"]] == [("a:1", 1), ("a:2", 1)]


async def test_a_stream_that_comes_back_with_an_id_has_acked_nothing(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare(group={})
        await one.publish("a:1", "a:2")
        async with one.events(STREAM) as events:
            last = [await anext(events), await anext(events)][-1].id
        async with one.events(STREAM, last=last) as events:
            assert texts(await take(events, 2)) == ["a:1", "a:2"]


async def test_a_message_that_makes_every_consumer_close_still_dies(dsn: str) -> None:
    """Closing is no failure, unless it goes on and on with the same message."""
    async with replica(dsn) as one:
        await one.declare(group={"retries": {**QUICK, "max": 1}})
        await one.publish("poison:1", "fine:1")
        seen: list[str] = []
        while "fine:1" not in seen and len(seen) < 8:
            async with one.events(STREAM, max=1) as events:
                seen += texts(await take(events, 1))
            await wait_until(lambda: not one.parts.streams.open)
        assert seen == ["poison:1"] * 4 + ["fine:1"]
        letters = await one.send("GET", f"{BILLING}/dead-letters")
        assert [letter["message"] for letter in letters["items"]] == ["poison:1"]


async def test_what_is_not_settled_in_time_is_a_failed_attempt_though_the_stream_renews(dsn: str) -> None:
    """Leases of lockTtlMs are renewed, and one delivery lasts ackTimeoutMs, no more and no less."""
    async with replica(dsn, lock_ttl_ms=3000) as one:
        await one.declare(group={"ackTimeoutMs": 7000, "retries": QUICK})
        await one.publish("a:1")
        clock = asyncio.get_running_loop().time
        started = clock()
        async with one.events(STREAM) as events:
            (first,) = await take(events, 1)
            (second,) = await take(events, 1)
            assert 6.8 < clock() - started < 25
            assert (first["attempt"], second["attempt"]) == (1, 2)
            await one.ack(second)


async def test_a_stream_whose_window_is_full_is_sent_what_it_did_not_settle_again_in_time(dsn: str) -> None:
    """It waits although it may have nothing more, and may be the only one who does."""
    async with replica(dsn, reconciliation_interval_ms=0) as one:
        await one.declare(group={"ackTimeoutMs": 3000, "ordering": "key", "retries": QUICK})
        await one.publish("a:1", "b:1")
        clock = asyncio.get_running_loop().time
        async with one.events(STREAM, max=2) as events:
            first = await take(events, 2)
            started = clock()
            second = await take(events, 2)
            assert clock() - started < 20  # a stream that does not look waits for its next renewal, or for ever
            assert {(message["message"], message["attempt"]) for message in first} == {("a:1", 1), ("b:1", 1)}
            assert {(message["message"], message["attempt"]) for message in second} == {("a:1", 2), ("b:1", 2)}
            await one.ack(*second)


async def test_an_extended_delivery_is_left_to_its_client(dsn: str) -> None:
    async with replica(dsn, lock_ttl_ms=3000) as one:
        await one.declare(group={"ackTimeoutMs": 4000})
        await one.publish("a:1")
        async with one.events(STREAM) as events:
            (first,) = await take(events, 1)
            await one.send("POST", f"{BILLING}/extend", {"ackIds": [first["ackId"]], "ackTimeoutMs": 60_000})
            taking = asyncio.create_task(take(events, 1))
            done, _ = await asyncio.wait([taking], timeout=6)
            assert not done
            await one.ack(first)
            await one.publish("next")
            assert texts(await taking) == ["next"]


async def test_a_delivery_whose_client_shortens_its_lease_comes_back_when_that_ends(dsn: str) -> None:
    """Of its lease the rest is renewed as before. Any replica may have been asked, and need not be the stream's."""
    async with replica(dsn, lock_ttl_ms=3000) as one, replica(dsn) as two:
        await one.declare(group={"ackTimeoutMs": 60_000, "ordering": "key", "retries": QUICK})
        await one.publish("a:1", "b:1")
        clock = asyncio.get_running_loop().time
        async with one.events(STREAM, max=2) as events:
            first, other = await take(events, 2)

            async def is_renewed() -> bool:
                deliveries = await one.send("GET", f"{BILLING}/deliveries")
                return bool(deliveries["items"][0]["leaseExpiresAt"] > first["leaseExpiresAt"])

            await wait_until(is_renewed)
            started = clock()
            await two.send("POST", f"{BILLING}/extend", {"ackIds": [first["ackId"]], "ackTimeoutMs": 500})
            (again,) = await take(events, 1)
            assert 0.4 < clock() - started < 20
            assert (again["message"], again["attempt"]) == ("a:1", 2)
            await one.ack(again, other)


async def test_a_key_is_with_one_stream_at_a_time_and_in_order_over_failures(dsn: str) -> None:
    """Three streams on two replicas, nacks now and then: a message is acked only after all before it of its key.

    Those count from when their ack is sent: the next may be acked elsewhere before the answer to it is read here.
    """
    async with replica(dsn) as one, replica(dsn) as two:
        await one.declare(partitions=2, group={"ordering": "key", "retries": {**QUICK, "max": 100}})
        await one.publish(*(f"k{n % 5}:{n}" for n in range(100)))
        sent: Counter[int] = Counter()  # acks that were taken, or may have been
        acked: set[int] = set()

        async def consume(of: Replica, seed: int) -> None:
            async with of.events(STREAM, max=3) as events:
                async for event in events:
                    message = event.json()
                    number = int(message["message"].partition(":")[2])
                    if (number + seed + message["attempt"]) % 4 == 0:
                        await of.http.post(f"{BILLING}/nack", json={"ackIds": [message["ackId"]]})
                        continue
                    sent[number] += 1
                    answer = await of.http.post(f"{BILLING}/ack", json={"ackIds": [message["ackId"]]})
                    if answer.status_code == 200:
                        assert all(sent[before] for before in range(number % 5, number, 5)), number
                        acked.add(number)
                    else:
                        sent[number] -= 1

        async with asyncio.TaskGroup() as tasks:
            consumers = [tasks.create_task(consume(*each)) for each in ((one, 0), (two, 1), (one, 2))]
            await wait_until(lambda: len(acked) == 100)
            for each in consumers:
                each.cancel()


async def test_a_failed_key_holds_back_only_itself(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare(group={"retries": {**QUICK, "baseDelay": 60_000, "maxDelay": 60_000}})
        await one.publish("a:1", "b:1", "a:2", "b:2")
        async with one.events(STREAM, max=2) as events:
            first, other = await take(events, 2)
            await one.send("POST", f"{BILLING}/nack", {"ackIds": [first["ackId"]]})
            await one.ack(other)
            assert texts(await take(events, 1)) == ["b:2"]
            await nothing_comes(events)


async def test_pause_stops_a_stream_until_resume(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare(group={})
        async with one.events(STREAM) as events:
            await one.send("POST", f"{BILLING}/pause", {})
            await one.publish("a:1", "a:2")
            taking = asyncio.create_task(take(events, 2))
            done, _ = await asyncio.wait([taking], timeout=0.5)
            assert not done
            await one.send("POST", f"{BILLING}/resume")
            assert texts(await taking) == ["a:1", "a:2"]


async def test_a_partition_stays_with_its_stream(dsn: str) -> None:
    async with replica(dsn) as one, replica(dsn) as two:
        await one.declare(group={})
        await one.publish("1", "2", "3")
        async with one.events(STREAM, max=2) as mine:
            first, _ = await take(mine, 2)
            pulled = await two.send("POST", f"{BILLING}/pull", {})
            assert (pulled["messages"], pulled["empty"]) == ([], "leased")
            await two.ack(first)
            assert texts(await take(mine, 1)) == ["3"]


async def test_a_draining_replica_lets_what_is_out_be_settled_and_hands_back_the_rest(dsn: str) -> None:
    async with replica(dsn) as one, replica(dsn) as two:
        await one.declare(group={})
        await one.publish("1", "2", "3")
        async with one.events(STREAM, max=2) as events:
            first, second = await take(events, 2)
            one.app.drain()
            await two.ack(first, second)
            assert [event async for event in events] == []
        pulled = await two.send("POST", f"{BILLING}/pull", {"waitMs": 60_000})
        assert [(message["message"], message["attempt"]) for message in pulled["messages"]] == [("3", 1)]


async def test_namespaces_never_meet(dsn: str) -> None:
    async with replica(dsn) as one, replica(dsn, environment="other") as two:
        await one.declare(group={})
        await two.declare(group={})
        async with two.events(STREAM) as events:
            await one.publish("1")
            await two.publish("2")
            assert texts(await take(events, 1)) == ["2"]


async def test_a_deleted_group_ends_its_stream_with_a_problem(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare(group={})
        async with one.events(STREAM) as events:
            taking = asyncio.create_task(take(events, 1, kind="problem"))
            await wait_until(one.parts.puller.owners)
            await one.send("DELETE", BILLING)
            (problem,) = await taking
            assert problem["code"] == "group_not_found"


async def test_a_stream_ends_with_its_group_also_where_another_is_declared_by_that_name(dsn: str) -> None:
    async with replica(dsn) as one:
        for _ in range(3):
            await one.declare(group={})
            async with one.events(STREAM, max=2) as events:
                await one.publish("a")
                (message,) = await take(events, 1)
                await one.ack(message)
                await one.send("DELETE", BILLING)
                await one.declare(group={"startFrom": "latest"})
                await one.publish("b", "c", "d")
                (problem,) = await take(events, 1, kind="problem")
                assert problem["code"] == "group_not_found"
            assert (await stats(one))["ahead"] == 3
            async with one.events(STREAM, max=2) as events:
                assert texts(await take(events, 2)) == ["b", "c"]
            await one.send("DELETE", ORDERS)
