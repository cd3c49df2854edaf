"""What is answered without ASGI cannot be told from what is answered through it."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from app.connection import Limits
from tests.process.conftest import Listener, Peer, listening
from tests.servers import Server, Servers, wait_until

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nshort"
PLAIN = b"POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
OTHER = b"POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"


class Stub:
    """Takes what is sent to /plain. ``later`` are those that wait for their answer."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.later: list[Any] = []
        self.takes = True
        self.is_slow = False
        self.answers: bytes | None = ANSWER

    def __call__(self, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Stub | None:
        return self if url == b"/plain" else None

    def answer(self, body: bytes, respond: Any) -> bool:
        if not self.takes:
            return False
        self.bodies.append(body)
        if self.is_slow:
            self.later.append(respond)
        else:
            asyncio.get_running_loop().call_soon(respond, self.answers)
        return True


@asynccontextmanager
async def shortened(stub: Stub) -> AsyncIterator[tuple[Listener, uvicorn.Server]]:
    with listening(Limits(pipelined=5), stub) as listener:
        assert listener.server is not None
        yield listener, listener.server


async def bodies(peer: Peer, count: int) -> list[bytes]:
    return [body if (body := (await peer.response())[2]) == b"short" else b"asgi" for _ in range(count)]


async def test_a_whole_request_is_answered_without_the_application() -> None:
    stub = Stub()
    async with shortened(stub) as (listener, _), listener.peer() as peer:
        for sent, answered in ((PLAIN, b"short"), (PLAIN, b"short"), (OTHER, b"asgi")):
            peer.send(sent)
            assert await bodies(peer, 1) == [answered]
        assert (stub.bodies, listener.app.seen) == ([b"{}", b"{}"], ["/other"])


@pytest.mark.parametrize("cut", [len(PLAIN) - 2, len(PLAIN) - 1])
async def test_a_request_that_comes_in_parts_is_the_applications(cut: int) -> None:
    stub = Stub()
    async with shortened(stub) as (listener, _), listener.peer(PLAIN[:cut]) as peer:
        await wait_until(lambda: listener.app.seen == ["/plain"])
        peer.send(PLAIN[cut:])
        told = json.loads((await peer.response())[2])
        assert (told["method"], told["body"], stub.bodies) == ("POST", "{}", [])
        peer.send(PLAIN)
        assert await bodies(peer, 1) == [b"short"]


@pytest.mark.parametrize(
    "request_", [PLAIN.replace(b"1.1", b"1.0"), PLAIN.replace(b"Host", b"Connection: close\r\nHost"),
                 PLAIN.replace(b"POST", b"PUT")],
)  # fmt: skip
async def test_what_the_connection_does_not_outlive_is_the_applications(request_: bytes) -> None:
    stub = Stub()
    async with shortened(stub) as (listener, _), listener.peer(request_) as peer:
        assert await bodies(peer, 1) == [b"asgi"]
        assert stub.bodies == []


async def test_what_is_not_taken_after_all_is_the_applications() -> None:
    stub = Stub()
    stub.takes = False
    async with shortened(stub) as (listener, _), listener.peer(PLAIN) as peer:
        told = json.loads((await peer.response())[2])
        assert (told["path"], told["method"], told["body"]) == ("/plain", "POST", "{}")
        stub.takes, stub.answers = True, None
        peer.send(PLAIN)
        told = json.loads((await peer.response())[2])
        assert (told["path"], told["method"], told["body"], stub.bodies) == ("/plain", "POST", "{}", [b"{}"])


async def test_answers_come_in_the_order_of_the_requests() -> None:
    stub = Stub()
    stub.is_slow = True
    async with shortened(stub) as (listener, server), listener.peer(PLAIN + OTHER + PLAIN) as peer:
        await wait_until(lambda: stub.later)
        await asyncio.sleep(0.1)
        assert listener.app.seen == []  # it waits its turn
        loop = next(iter(server.server_state.connections)).loop
        loop.call_soon_threadsafe(stub.later[0], ANSWER)
        assert await bodies(peer, 3) == [b"short", b"asgi", b"asgi"]


async def test_a_stopping_server_answers_what_it_has_taken_and_closes() -> None:
    stub = Stub()
    stub.is_slow = True
    async with shortened(stub) as (listener, server), listener.peer(PLAIN) as peer:
        await wait_until(lambda: stub.later)
        connection: Any = next(iter(server.server_state.connections))
        server.should_exit = True
        await wait_until(lambda: connection.running.keep_alive is False)
        connection.loop.call_soon_threadsafe(stub.later[0], ANSWER)
        assert await peer.everything() == ANSWER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


async def test_a_client_that_does_not_wait_hurts_nobody() -> None:
    stub = Stub()
    stub.is_slow = True
    async with shortened(stub) as (listener, server):
        async with listener.peer(PLAIN):
            await wait_until(lambda: stub.later)
            loop = next(iter(server.server_state.connections)).loop
        await wait_until(lambda: not server.server_state.connections)
        loop.call_soon_threadsafe(stub.later[0], ANSWER)
        stub.is_slow = False
        async with listener.peer(PLAIN) as peer:
            assert await bodies(peer, 1) == [b"short"]


# The real one

ROOT_KEY = "r" * 40
# Of every message another; and of a problem, what names the request.
CHANGING = re.compile(rb'(?<=x-request-id: )\S+|(?<="id":")msg_\w+|(?<="offset":)\d+|(?<="publishedAt":")[^"]+')
# Messages without a key go to one partition after the other.
PLACE = re.compile(rb'"partition":\d+')
BODIES = [b"{}", b'{"a": [1, 2.50]}', b"1e400", b'"\\u0000"', b"", b"{", b"\xff", b'"\\ud800"', b"[" * 65 + b"]" * 65,
          b'"' + b"x" * 2000 + b'"']  # fmt: skip
HEADERS = [
    b"", b"Content-Type: application/json\r\n", b"Content-Type: application/octet-stream\r\n",
    b"Partition-Key: ord_123\r\n", b"Partition-Key: \xc3\xa9\r\n", b"Partition-Key: \xff\r\n",
    b"Partition-Key: a\r\nPartition-Key: b\r\n", b"Partition-Key: " + b"k" * 2000 + b"\r\n", b"Delay-Ms: x\r\n",
    b"Host: b.example\r\n",
]  # fmt: skip


# What batches are taken apart by: keys only, other options, faults of every kind, and more than one of them.
BATCHES = [
    [{"message": 1}], [{"message": {"n": 2.50}, "options": {"partitionKey": "ord_123"}}, {"message": None}],
    [{"message": n, "options": {"partitionKey": f"k{n % 5}"}} for n in range(50)],
    [{"message": n, "options": {}} for n in range(3)],
    [{"message": 1, "options": {"headers": {"a": "b"}, "correlationId": "c", "delayMs": 5, "ttlMs": 50_000}}],
    [{"message": 1, "options": {"partitionKey": "k" * 2000}}, {"message": 2, "options": {"partitionKey": "a\0"}}],
    [{"message": "x" * 2000}], [{"message": 1, "options": {"delayMs": -1}}], [{"message": 1, "option": {}}], [],
    [{"options": {}}], [{"message": 1, "options": {"partitionKey": 5}}], [{"message": 1}] * 1001,
]  # fmt: skip
BATCH_BODIES = [
    *(json.dumps({"messages": messages}).encode() for messages in BATCHES),
    b"", b"[]", b'{"messages":[{"message":' + b"[" * 65 + b"]" * 65 + b"}]}", b'{"messages":[{"message":"\xff"}]}',
    b'{"messages":[{"message":1,"message":2}]}', b'{"messages":[{"message":NaN}]}', b'{"messages":[{"message":1}]',
]  # fmt: skip


def publish(
    body: bytes, headers: bytes = b"", *, topic: str = "orders", unusual: bool = False, tail: bytes = b""
) -> bytes:
    host = b"" if headers.startswith(b"Host") else b"Host: localhost\r\n"
    other = b"X-Other: 1\r\n" if unusual else b""
    head = b"POST /v1/topics/%b/messages%b HTTP/1.1\r\n%b%b%b" % (topic.encode(), tail, host, headers, other)
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


async def replies(server: Server, *requests: bytes) -> list[bytes]:
    """The answers to the bytes of each, without what has to differ."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    found = []
    for request in requests:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        head = re.sub(rb"content-length: \d+", b"content-length: *", head)
        found.append(CHANGING.sub(b"*", head + body))
    writer.close()
    return found


async def test_both_ways_answer_the_same_to_the_byte(servers: Servers) -> None:
    server = await servers.start(env={"LOGPOST_MAX_MESSAGE_BYTES": "1024"})
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        await client.put("/v1/topics/orders", json={})
        await client.put("/v1/topics/ruled", json={"validate": {"rules": [{"rule": "message.a == 1"}]}})
    cases = [(topic, body, headers) for topic in ("orders", "ruled", "none") for body in BODIES for headers in HEADERS]
    for topic, body, headers in cases:
        plain = publish(body, headers, topic=topic)
        unusual = publish(body, headers, topic=topic, unusual=True)
        assert await replies(server, plain) == await replies(server, unusual), (topic, body[:40], headers[:40])


async def test_both_ways_answer_a_batch_the_same_to_the_byte(servers: Servers) -> None:
    server = await servers.start(env={"LOGPOST_MAX_MESSAGE_BYTES": "1024"})
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        await client.put("/v1/topics/orders", json={"distribution": {"partitions": 4}})
        await client.put("/v1/topics/ruled", json={"validate": {"rules": [{"rule": "message == 1"}]}})
        for topic, body, headers in itertools.product(("orders", "ruled", "none"), BATCH_BODIES, HEADERS):
            answers = [
                await replies(server, publish(body, headers, topic=topic, unusual=unusual, tail=b"/batch"))
                for unusual in (False, True)
            ]
            assert PLACE.sub(b"", answers[0][0]) == PLACE.sub(b"", answers[1][0]), (topic, body[:60], headers[:40])
        stored = (await client.get("/v1/topics/orders/messages?limit=1000")).json()["items"]
        assert sorted({message["key"] for message in stored if message["key"] is not None}) == [
            *(f"k{n}" for n in range(5)), "ord_123"
        ]  # fmt: skip


async def test_a_key_is_asked_for_on_both_ways(servers: Servers) -> None:
    server = await servers.start(env={"LOGPOST_ROOT_KEY": ROOT_KEY})
    bearer = {"Authorization": f"Bearer {ROOT_KEY}"}
    async with httpx.AsyncClient(base_url=server.url, headers=bearer, timeout=60) as client:
        await client.put("/v1/topics/orders", json={})
        keys = {
            scope: (await client.post("/v1/keys", json={"name": scope, "scopes": [scope], "topics": ["ord*"]})).json()
            for scope in ("publish", "consume")
        }
    allowed = b"Authorization: Bearer %b\r\n" % keys["publish"]["key"].encode()
    refused = b"Authorization: Bearer %b\r\n" % keys["consume"]["key"].encode()
    for headers, status in ((allowed, 201), (refused, 403), (b"", 401), (b"Authorization: Bearer lp_x\r\n", 401)):
        for _ in range(2):  # the second time it is known
            answers = [
                (await replies(server, publish(b"{}", headers, unusual=unusual)))[0] for unusual in (False, True)
            ]
            assert answers[0] == answers[1]
            assert answers[0].startswith(b"HTTP/1.1 %d " % status)
    async with httpx.AsyncClient(base_url=server.url, headers=bearer, timeout=60) as client:
        await client.delete(f"/v1/keys/{keys['publish']['id']}")
    assert (await replies(server, publish(b"{}", allowed)))[0].startswith(b"HTTP/1.1 401 ")


async def test_a_topic_that_changes_meanwhile_is_found_changed(servers: Servers) -> None:
    server = await servers.start()
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        await client.put("/v1/topics/orders", json={})
        for number in range(1, 6):
            (reply,) = await replies(server, publish(b"{}"))
            assert reply.startswith(b"HTTP/1.1 201 ")
            await client.put("/v1/topics/orders", json={"distribution": {"partitions": number + 1}})
            (reply,) = await replies(server, publish(b"{}", b"Partition-Key: ord_123\r\n"))
            assert reply.startswith(b"HTTP/1.1 201 ")
        stats = (await client.get("/v1/topics/orders/stats")).json()
        assert stats["messages"] == 10
        await client.delete("/v1/topics/orders")
        (reply,) = await replies(server, publish(b"{}"))
        assert reply.startswith(b"HTTP/1.1 404 ")


async def test_an_idempotency_key_is_the_same_on_both_ways(servers: Servers) -> None:
    server = await servers.start()
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        await client.put("/v1/topics/orders", json={"distribution": {"partitions": 4}})
        for way, other in ((False, True), (True, False)):
            once = b"Idempotency-Key: once-%d\r\nPartition-Key: a\r\n" % way
            first, again, reused = await replies(
                server, publish(b"1", once, unusual=way), publish(b"1", once, unusual=other),
                publish(b"2", once, unusual=other),
            )  # fmt: skip
            assert first.startswith(b"HTTP/1.1 201 Created\r\n")
            assert again.startswith(b"HTTP/1.1 200 OK\r\n")
            assert again.endswith(b'"duplicate":true}')
            assert reused.startswith(b"HTTP/1.1 422 ")
            assert b"idempotency_key_reused" in reused
        assert (await client.get("/v1/topics/orders/stats")).json()["messages"] == 2


async def test_a_keys_rates_hold_for_what_goes_past_asgi(servers: Servers) -> None:
    server = await servers.start(env={"LOGPOST_ROOT_KEY": ROOT_KEY})
    bearer = {"Authorization": f"Bearer {ROOT_KEY}"}

    async def is_let_in(key: str) -> bool:
        """All that a key may publish in three seconds, or all that was tried. Where everything stands still it is less,
        and rightly: what is not used lapses. It is never more."""
        headers = b"Authorization: Bearer %b\r\n" % key.encode()
        began, tried, taken = time.monotonic(), 0, 0
        while (elapsed := time.monotonic() - began) < 3:
            (reply,) = await replies(server, publish(b"1234567890", headers))
            tried += 1
            taken += reply.startswith(b"HTTP/1.1 201 ")
            assert taken <= 20 * (elapsed + 1) + 20, "a second's worth ahead, and what came meanwhile"
        return taken >= min(tried, 20 * (elapsed - 1))

    async with httpx.AsyncClient(base_url=server.url, headers=bearer, timeout=60) as client:
        await client.put("/v1/topics/orders", json={})
        for rates in ({"requestsPerSecond": 20}, {"bytesPerSecond": 200}):
            form = {"name": "slow", "scopes": ["publish"], **rates}
            for _ in range(5):
                if await is_let_in((await client.post("/v1/keys", json=form)).json()["key"]):
                    break
            else:
                pytest.fail(f"not all of {rates} was let in")
