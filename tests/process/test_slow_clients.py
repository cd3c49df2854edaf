"""What a slow, silent or greedy client gets, and that it does not last."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace

from tests.process.conftest import LARGE_BYTES, SHORT, Listener, listening, problem_of
from tests.servers import wait_until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
DEADLINE_S = SHORT.head_s


async def test_s14_headers_that_do_not_end_get_a_408(short: Listener) -> None:
    began = time.monotonic()
    assert problem_of(await short.reply(b"GET / HTTP/1.1\r\nHost: a\r\n"))["code"] == "request_timeout"
    assert time.monotonic() - began >= DEADLINE_S
    assert short.app.seen == []


async def test_a_trickle_of_headers_does_not_move_the_deadline(short: Listener) -> None:
    async with short.peer(b"GET / HTTP/1.1\r\nHost: a\r\n") as peer:

        async def trickle() -> None:
            while True:
                peer.send(b"X")
                await asyncio.sleep(0.1)

        trickling = asyncio.create_task(trickle())
        answer = await peer.everything()
        trickling.cancel()
    assert problem_of(answer)["status"] == 408


async def test_s14_a_body_that_does_not_end_gets_a_408_and_the_application_hears_of_it(short: Listener) -> None:
    assert problem_of(await short.reply(POST + b"12345"))["code"] == "request_timeout"
    await wait_until(short.app.disconnected.is_set)


async def test_a_trickle_of_body_does_not_move_the_deadline(short: Listener) -> None:
    async with short.peer(POST) as peer:

        async def trickle() -> None:
            for _ in range(9):
                peer.send(b"X")
                await asyncio.sleep(0.3)

        trickling = asyncio.create_task(trickle())
        answer = await peer.everything()
        trickling.cancel()
    assert problem_of(answer)["status"] == 408


async def test_chunks_without_an_end_get_a_408(short: Listener) -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    assert problem_of(await short.reply(chunked))["status"] == 408


async def test_a_connection_that_says_nothing_is_closed(short: Listener) -> None:
    began = time.monotonic()
    assert await short.reply() == b""
    assert time.monotonic() - began >= DEADLINE_S


async def test_empty_lines_are_silence(short: Listener) -> None:
    async with short.peer() as peer:

        async def trickle() -> None:
            while True:
                peer.send(b"\r\n")
                await asyncio.sleep(0.1)

        trickling = asyncio.create_task(trickle())
        assert await peer.everything() == b""
        trickling.cancel()


async def test_an_idle_connection_is_closed_after_its_answer(short: Listener) -> None:
    async with short.peer(GET) as peer:
        assert (await peer.response())[0] == 200
        assert await peer.everything() == b""


async def test_an_early_answer_does_not_leave_the_connection_open_for_ever(short: Listener) -> None:
    async with short.peer(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123") as peer:
        assert (await peer.response())[0] == 413
        assert await peer.everything() == b""


async def test_after_an_early_answer_and_the_rest_of_the_body_the_connection_goes_on(patient: Listener) -> None:
    async with patient.peer(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123") as peer:
        assert (await peer.response())[0] == 413
        peer.send(b"4567890" + GET)
        assert (await peer.response())[0] == 200


async def test_an_application_may_take_longer_than_any_client(short: Listener) -> None:
    async with short.peer(b"GET /slower HTTP/1.1\r\nHost: a\r\n\r\n") as peer:
        assert (await peer.response())[0] == 200


async def test_s56_a_reader_that_does_not_read_is_cut_off(short: Listener) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", short.port))
        await loop.sock_sendall(client, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        await wait_until(lambda: short.app.seen)
        assert short.server is not None
        connections = short.server.server_state.connections
        await wait_until(lambda: not connections)
        received = 0
        try:
            while data := await loop.sock_recv(client, 1 << 20):
                received += len(data)
        except ConnectionResetError:
            pass
    assert received < LARGE_BYTES


async def test_a_slow_reader_that_reads_gets_everything(short: Listener) -> None:
    async with short.peer(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n") as peer:
        received = 0
        while received < LARGE_BYTES:
            data = await peer.reader.read(1 << 20)
            assert data, f"cut off after {received} bytes"
            received += len(data)
            await asyncio.sleep(0.05)


async def test_a_head_past_its_bound_is_refused(patient: Listener) -> None:
    large = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 5000
    assert problem_of(await patient.reply(large + b"\r\n\r\n"))["code"] == "headers_too_large"
    async with patient.peer(b"GET / HTTP/1.1\r\n") as peer:  # one that never ends
        for _ in range(8):
            peer.send(b"X: " + b"x" * 1000)
            await asyncio.sleep(0.05)
        assert problem_of(await peer.everything())["status"] == 431
    assert patient.app.seen == []


async def test_trailers_past_the_bound_of_a_head_are_refused(patient: Listener) -> None:
    async with patient.peer(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ") as peer:
        for _ in range(6):
            await asyncio.sleep(0.05)
            peer.send(b"x" * 1000)
        assert problem_of(await peer.everything())["status"] == 431


async def test_s14_connections_past_the_bound_get_a_503_and_leave_room_again() -> None:
    with listening(replace(SHORT, connections=2, idle_s=30)) as listener:
        async with listener.peer(GET) as first, listener.peer(GET) as second:
            await first.response()
            await second.response()
            document = problem_of(await listener.reply())
            assert document["code"] == "too_many_connections"
        assert listener.server is not None
        connections = listener.server.server_state.connections
        await wait_until(lambda: not connections)
        async with listener.peer(GET) as third:
            assert (await third.response())[0] == 200


async def test_requests_sent_ahead_are_bounded(patient: Listener) -> None:
    reply = await patient.reply(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" + GET * 20)
    assert reply.count(b"HTTP/1.1 200") == 6  # the one that runs, and those that may wait behind it
