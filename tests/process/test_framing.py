"""Where one request ends and the next begins: never two opinions, and never a guess."""

from __future__ import annotations

import json

import pytest

from tests.process.conftest import Listener, problem_of

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

REFUSED = {
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "the same length twice": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length with a sign": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\nhello",
    "a hexadecimal length": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "a fractional length": HEAD + b"Content-Length: 5.0\r\n\r\nhello",
    "an endless length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "no length in Content-Length": HEAD + b"Content-Length: \r\n\r\n",
    "a vertical tab after the length": HEAD + b"Content-Length: 5\x0b\r\n\r\nhello",
    "bare LF everywhere": b"GET / HTTP/1.1\nHost: a\n\n",
    "a bare LF after a header": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n",
    "a bare LF at the end of the head": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "a bare CR in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "a folded first header": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "a folded Transfer-Encoding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": HEAD + b"Content-Length : 5\r\n\r\nhello",
    "a header without a name": b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "a NUL in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n",
    "a NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
    "a control character in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
    "Transfer-Encoding identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n",
    "Transfer-Encoding gzip": HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "Transfer-Encoding gzip, chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding chunked, chunked": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding chunked, identity": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding xchunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding quoted": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "Transfer-Encoding in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size that is no number": CHUNKED + b"\r\nzz\r\nabc\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"\r\n-3\r\nabc\r\n0\r\n\r\n",
    "a chunk size past 64 bits": CHUNKED + b"\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
    "a space after the chunk size": CHUNKED + b"\r\n3 \r\nabc\r\n0\r\n\r\n",
    "chunks with bare LF": CHUNKED + b"\r\n3\nabc\n0\n\n",
    "a chunk longer than its size": CHUNKED + b"\r\n3\r\nabcX\r\n0\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "a Host with a slash": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a Host with a space": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a Host with an @": b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    "no HTTP version": b"GET /\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    "a method that is none": b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a byte past ASCII in the path": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED.keys())
async def test_s38_a_request_that_can_be_read_in_two_ways_is_refused(patient: Listener, request_bytes: bytes) -> None:
    document = problem_of(await patient.reply(request_bytes + SMUGGLED))
    assert document["status"] in (400, 501, 505)
    assert "/smuggled" not in patient.app.seen


async def test_s38_a_trailer_is_not_a_header(patient: Listener) -> None:
    chunked = CHUNKED + b"\r\n3\r\nabc\r\n0\r\nIdempotency-Key: evil\r\nHost: b\r\n\r\n"
    async with patient.peer(chunked) as peer:
        status, _, body = await peer.response()
        assert status == 200
        told = json.loads(body)
        assert told["body"] == "abc"
        assert told["headers"] == {"host": "a", "transfer-encoding": "chunked"}
        peer.send(SMUGGLED)  # and the connection is fit for another request
        assert json.loads((await peer.response())[2])["headers"] == {"host": "a"}


async def test_requests_sent_ahead_are_answered_in_order(patient: Listener) -> None:
    ahead = [b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n%d" % (n, n) for n in range(4)]
    async with patient.peer(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", *ahead) as peer:
        told = [json.loads((await peer.response())[2]) for _ in range(5)]
    assert [(one["path"], one["body"]) for one in told] == [
        ("/slow", ""), ("/0", "0"), ("/1", "1"), ("/2", "2"), ("/3", "3"),
    ]  # fmt: skip


async def test_a_broken_request_does_not_take_the_answer_of_the_one_before(patient: Listener) -> None:
    reply = await patient.reply(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED + b"nonsense\r\n\r\n")
    assert (reply.count(b"HTTP/1.1"), reply.count(b"HTTP/1.1 200 OK")) == (2, 2)


async def test_a_broken_body_behind_a_running_request_costs_its_own_answer_only(patient: Listener) -> None:
    reply = await patient.reply(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" + CHUNKED + b"\r\nzz\r\n")
    assert reply.count(b"HTTP/1.1") == 1
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["path"] == "/slow"
    assert patient.app.seen == ["/slow"]


async def test_an_offer_to_upgrade_is_ignored_and_the_body_is_not_lost(patient: Listener) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    async with patient.peer(HEAD + offer + b"Content-Length: 6\r\n\r\nabc") as peer:
        peer.send(b"def" + SMUGGLED.replace(b"/smuggled", b"/next"))
        first, second = json.loads((await peer.response())[2]), json.loads((await peer.response())[2])
    assert (first["body"], second["path"]) == ("abcdef", "/next")
    assert patient.app.seen == ["/", "/next"]


async def test_a_websocket_is_an_ordinary_request(patient: Listener) -> None:
    offer = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
    async with patient.peer(b"GET /ws HTTP/1.1\r\nHost: a\r\n" + offer) as peer:
        assert (await peer.response())[0] == 200


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on(patient: Listener) -> None:
    async with patient.peer(HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n") as peer:
        assert (await peer.response())[0] == 100
        peer.send(b"abc")
        assert json.loads((await peer.response())[2])["body"] == "abc"


async def test_an_absolute_target_leads_to_its_path(patient: Listener) -> None:
    async with patient.peer(b"GET http://a/x%20y HTTP/1.1\r\nHost: a\r\n\r\n") as peer:
        assert json.loads((await peer.response())[2])["path"] == "/x y"


async def test_http_1_0_needs_no_host_and_is_closed(patient: Listener) -> None:
    assert (await patient.reply(b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_a_failing_application_is_a_problem_without_its_secrets(patient: Listener) -> None:
    document = problem_of(await patient.reply(b"GET /fails HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert (document["status"], document["code"]) == (500, "internal")
    assert "on purpose" not in json.dumps(document)
