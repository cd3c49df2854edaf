"""What a receiver may do, and what the sender makes of it: in time, in bounded memory, and never by raising."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from app.domain.outcome import Ack, Discard, Nack, Pause, Throttle, judge
from app.webhook.address import Policy
from app.webhook.request import Request
from app.webhook.send import Sender
from tests import misbehaviour as m
from tests.receiver import Behaviour, Conversation, Receiver

ANY_PORT = (range(1, 65536),)
LOOPBACK = Policy(ANY_PORT, (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")))
INTERNET_ONLY = Policy(ANY_PORT)

DEADLINE_MS = 3000
# What a busy machine may add to a deadline.
SLACK_MS = 20_000
MEMORY_BYTES = 32 * 1024 * 1024


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    async with Sender(LOOPBACK) as sender:
        yield sender


def post(url: str, body: bytes = b"{}", timeout_ms: int = DEADLINE_MS) -> Request:
    return Request(url, (("Content-Type", "application/json"),), body, timeout_ms)


ACCEPTED = [
    ("a 200", m.answer(200)),
    ("a 204", m.answer(204)),
    ("a 299", m.answer(299)),
    ("interim answers before it", m.interim_flood(count=20)),
    ("early hints before it", m.interim_flood(103, count=2)),
    ("a huge body", m.huge_body(64 * 1024 * 1024)),
    ("chunks without end", m.huge_chunked_body()),
    ("a gzip bomb", m.gzip_bomb(64 * 1024 * 1024)),
    ("less body than it claims", m.wrong_length(claimed=100, body=b"short")),
    ("more body than it claims", m.wrong_length(claimed=2, body=b"longer")),
    ("a reset within the body", m.reset(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeg")),
    ("a body that trickles", m.trickle_body()),
    ("broken chunks", m.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")),
    ("an unknown compression", m.answer(200, {"Content-Encoding": "x-nonsense"}, b"\x00\x01")),
    ("a body until the end of the connection", m.raw(b"HTTP/1.1 200 OK\r\n\r\nhello")),
    ("a charset that is none", m.answer(200, {"Content-Type": "text/plain; charset=nonsense"}, b"\xff")),
]


@pytest.mark.parametrize("behaviour", [b for _, b in ACCEPTED], ids=[name for name, _ in ACCEPTED])
async def test_a_2xx_acks_whatever_the_body_does(receiver: Receiver, sender: Sender, behaviour: Behaviour) -> None:
    receiver.behave(behaviour)
    before = psutil.Process().memory_info().rss
    answer = await sender.send(post(receiver.url))
    assert answer.accepted, answer
    assert answer.error is None
    assert judge(answer) == Ack()
    assert answer.latency_ms < DEADLINE_MS
    assert psutil.Process().memory_info().rss - before < MEMORY_BYTES


FAILED = [
    ("a 500", m.answer(500), "status"),
    ("a 404", m.answer(404), "status"),
    ("a 503 without Retry-After", m.answer(503), "status"),
    ("a redirect", m.redirect("http://127.0.0.1:1/", 302), "status"),
    ("a 304", m.answer(304), "status"),
    ("a switch of protocols", m.raw(b"HTTP/1.1 101 Sure\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "status"),
    ("a 500 with a body that trickles", m.trickle_body(500), "status"),
    ("no answer at all", m.hang(), "timeout"),
    ("a late answer", m.slow(DEADLINE_MS / 1000 + 0.2), "timeout"),
    ("a head that trickles", m.trickle_head(), "timeout"),
    ("FIN", m.hang_up(), "disconnected"),
    ("RST", m.reset(), "disconnected"),
    ("RST within the head", m.reset(b"HTTP/1.1 200 OK\r\nX-Beg"), "disconnected"),
    ("FIN within the head", m.raw(b"HTTP/1.1 200 OK\r\nX-Beg"), "disconnected"),
    ("interim answers without end", m.interim_flood(), "too_large"),
    ("early hints without end", m.interim_flood(103), "too_large"),
    ("a header without end", m.header_bomb(), "too_large"),
    ("headers without end", m.many_headers(), "too_large"),
    ("too many headers", m.many_headers(500), "too_large"),
    ("something else than HTTP", m.raw(b"220 smtp.example.com ESMTP\r\n"), "protocol"),
    ("a status that is none", m.raw(b"HTTP/1.1 abc OK\r\n\r\n"), "protocol"),
    ("a status line without end", m.raw(b"HTTP/1.1 200 " + b"x" * 100_000), "too_large"),
    ("two lengths", m.raw(b"HTTP/1.1 500 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), "protocol"),
]


@pytest.mark.parametrize(("behaviour", "error_class"), [f[1:] for f in FAILED], ids=[f[0] for f in FAILED])
async def test_s43_anything_else_is_a_failure_of_a_known_class(
    receiver: Receiver, sender: Sender, behaviour: Behaviour, error_class: str
) -> None:
    receiver.behave(behaviour)
    before = psutil.Process().memory_info().rss
    started = time.monotonic()
    answer = await sender.send(post(receiver.url))
    took_ms = (time.monotonic() - started) * 1000
    assert answer.error_class == error_class, answer
    assert answer.error
    assert isinstance(judge(answer), Nack)
    assert took_ms < DEADLINE_MS + SLACK_MS
    assert psutil.Process().memory_info().rss - before < MEMORY_BYTES


async def test_the_replys_headers_decide_what_becomes_of_the_delivery(receiver: Receiver, sender: Sender) -> None:
    cases = [
        (m.acting("discard", 200, b"no such order"), Discard("no such order")),
        (m.acting("ack", 500), Ack()),
        (m.acting("pause", 500), Pause("the endpoint asked for a pause")),
        (m.acting("nack"), Nack("the endpoint asked for a nack")),
        (m.answer(410), Pause("the endpoint answered 410 Gone")),
        (m.retry_after(429, 7), Throttle(7000)),
        (m.retry_after(503, 7, as_date=True), Throttle(7000)),
        (m.retry_after(503, 10**9), Throttle(24 * 3600 * 1000)),
        (m.retry_after(500, 7), Nack("the endpoint answered 500", 7000)),
        (m.answer(429), Throttle(1000)),
    ]
    for behaviour, _ in reversed(cases):
        receiver.behave(behaviour, times=1)
    assert [judge(await sender.send(post(receiver.url))) for _ in cases] == [outcome for _, outcome in cases]


async def test_s29_a_redirect_is_never_followed(receiver: Receiver, sender: Sender) -> None:
    async with Receiver() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            receiver.behave(m.redirect(elsewhere.url, status))
            assert isinstance(judge(await sender.send(post(receiver.url))), Nack)
        assert elsewhere.requests == []


async def test_the_bytes_arrive_as_they_were_built(receiver: Receiver, sender: Sender) -> None:
    body = b'{"b":1,"a": 1e400 }\xff\x00'
    headers = (("X-Case", "Kept"), ("Message-Header-city", "Zürich"), ("x-list", "a"), ("x-list", "b"))
    await sender.send(Request(f"{receiver.url}/%2e%2E/a%2Fb?q=%C3%A9&r=a%20b", headers, body, DEADLINE_MS))
    (got,) = receiver.requests
    assert got.method == "POST"
    assert got.path == "/hook/%2e%2E/a%2Fb?q=%C3%A9&r=a%20b"
    assert got.body == body
    assert [header for header in got.headers if header in headers] == list(headers)
    assert {name.lower() for name, _ in got.headers} == {
        "host", "content-length", "accept-encoding", "x-case", "message-header-city", "x-list",
    }  # fmt: skip
    assert got.header("Accept-Encoding") == "identity"


async def test_s22_the_excerpt_is_short_and_safe_to_store(receiver: Receiver, sender: Sender) -> None:
    receiver.behave(
        m.answer(500, {"Content-Type": "text/html; charset=utf-16"}, b"no\x00\x1b[31m\xff\r\n" + b"x" * 200_000)
    )
    answer = await sender.send(post(receiver.url))
    assert answer.excerpt is not None
    assert answer.excerpt.startswith("no\\x00\\x1b[31m\\xff\\x0d\nxxx")
    assert len(answer.excerpt.encode()) == 4096


async def test_s20_a_compressed_body_is_never_inflated(receiver: Receiver, sender: Sender) -> None:
    receiver.behave(m.answer(500, {"Content-Encoding": "gzip"}, gzip.compress(b"hello")))
    answer = await sender.send(post(receiver.url))
    assert (answer.excerpt or "").startswith(r"\x1f\x8b")


async def test_a_connection_serves_many_requests(receiver: Receiver, sender: Sender) -> None:
    for _ in range(5):
        await sender.send(post(receiver.url))
    assert receiver.connections == 1


async def test_a_body_that_was_not_read_to_its_end_costs_the_connection(receiver: Receiver, sender: Sender) -> None:
    receiver.behave(m.huge_chunked_body(), times=1)
    assert (await sender.send(post(receiver.url))).accepted
    assert (await sender.send(post(receiver.url))).accepted
    assert receiver.connections == 2


@pytest.mark.parametrize("behaviour", [m.two_answers(500, 200), m.late_second_answer(500, 200)])
async def test_an_answer_to_nothing_never_acks_the_next_request(
    receiver: Receiver, sender: Sender, behaviour: Behaviour
) -> None:
    is_sent = asyncio.Event()

    async def both(talk: Conversation) -> None:
        await behaviour(talk)
        is_sent.set()

    receiver.behave(m.answer(404))
    receiver.behave(both, times=1)
    assert (await sender.send(post(receiver.url))).status == 500
    await is_sent.wait()
    await asyncio.sleep(0.15)  # long enough for the second answer to be there
    assert (await sender.send(post(receiver.url))).status == 404
    assert receiver.connections == 2


async def test_s33_a_busy_connection_is_replaced_in_time(
    receiver: Receiver, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.webhook.dial.MAX_AGE_S", 0)
    for _ in range(3):
        await sender.send(post(receiver.url))
    assert receiver.connections == 3


async def test_cookies_are_not_kept(receiver: Receiver, sender: Sender) -> None:
    receiver.behave(m.answer(200, {"Set-Cookie": "a=b; Path=/"}))
    await sender.send(post(receiver.url.replace("127.0.0.1", "localhost")))
    await sender.send(post(receiver.url.replace("127.0.0.1", "localhost")))
    assert [request.header("Cookie") for request in receiver.requests] == [None, None]


async def test_s30_proxies_and_passwords_of_the_environment_are_ignored(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with Receiver() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login tom password secret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        async with Sender(LOOPBACK) as sender:
            assert (await sender.send(post(receiver.url))).accepted
        assert proxy.requests == []
        assert receiver.requests[0].header("Authorization") is None


@pytest.mark.parametrize("headers", [(("X-Bad", "a\r\nX-Evil: 1"),), (("X-Bad: 1\r\nX", "1"),)])
async def test_s36_a_header_that_cannot_be_sent_is_an_answer_not_a_crash(
    receiver: Receiver, sender: Sender, headers: tuple[tuple[str, str], ...]
) -> None:
    answer = await sender.send(Request(receiver.url, headers, b"{}", DEADLINE_MS))
    assert answer.error_class == "unsendable"
    assert receiver.requests == []
    assert (await sender.send(post(receiver.url))).accepted


async def test_a_closed_port_is_a_failed_connection(receiver: Receiver, sender: Sender) -> None:
    url = receiver.url
    await receiver.stop()
    answer = await sender.send(post(url))
    assert (answer.error_class, answer.error) == ("connect", "no connection: Connection refused")
    await receiver.start()


async def test_s42_an_endpoint_that_hangs_keeps_only_its_share(receiver: Receiver) -> None:
    receiver.behave(m.hang())
    async with Receiver() as other, Sender(LOOPBACK, max_requests=3, max_requests_per_origin=2) as sender:
        hanging = [asyncio.ensure_future(sender.send(post(receiver.url, timeout_ms=60_000))) for _ in range(6)]
        await receiver.received(2)
        assert (await sender.send(post(other.url))).accepted
        assert len(receiver.requests) == 2
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_waiting_for_a_place_is_not_held_against_the_message(receiver: Receiver) -> None:
    receiver.behave(m.slow(DEADLINE_MS / 1000 * 0.7))
    async with Sender(LOOPBACK, max_requests_per_origin=1) as sender:
        answers = await asyncio.gather(*(sender.send(post(receiver.url)) for _ in range(3)))
    assert [answer.accepted for answer in answers] == [True] * 3


async def test_a_cancelled_send_leaves_no_connection_behind(receiver: Receiver, sender: Sender) -> None:
    receiver.behave(m.hang())
    task = asyncio.ensure_future(sender.send(post(receiver.url, timeout_ms=60_000)))
    await receiver.received(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    receiver.behave(m.answer(200))
    assert (await sender.send(post(receiver.url))).accepted
    assert receiver.connections == 2
