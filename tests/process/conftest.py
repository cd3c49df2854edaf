"""A real server of the connection under test, on uvloop in a thread, with deadlines that a test can wait for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import uvicorn

from app.connection import Limits, Shortcut, connections
from app.serve.address import bound_sockets
from tests.servers import PATIENCE_S

LARGE_BYTES = 8 * 1024 * 1024
SLOWER_S = 3.0
# Long enough for a client that is only slow to be woken, short enough to be waited for.
SHORT = Limits(head_s=1.5, body_s=1.5, idle_s=1.5, stall_s=4.0, head_bytes=4096, pipelined=5, connections=50)
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Echo:
    """Answers with what it was asked; some paths misbehave. ``seen`` has every request that reached it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.disconnected = threading.Event()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.seen.append(scope["path"])
        if scope["path"] == "/fails":
            raise RuntimeError("on purpose")
        if scope["path"] == "/early":
            await answer(send, 413, b"too large")
            return
        body = b""
        more = True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                self.disconnected.set()
                return
            body += event["body"]
            more = event["more_body"]
        if scope["path"] == "/slow":
            await asyncio.sleep(0.2)
        if scope["path"] == "/slower":
            await asyncio.sleep(SLOWER_S)
        if scope["path"] == "/large":
            await answer(send, 200, b"x" * LARGE_BYTES)
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        told = {"method": scope["method"], "path": scope["path"], "headers": headers, "body": body.decode("latin-1")}
        await answer(send, 200, json.dumps(told).encode())


async def answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Peer:
    """A raw client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def everything(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.split("\r\n")[1:-2]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head.split(" ")[1]), headers, body


class Listener:
    """One running server: ``app`` is its application, ``server`` uvicorn's, where it runs in this process."""

    def __init__(self, port: int, app: Echo, server: uvicorn.Server | None = None) -> None:
        self.port = port
        self.app = app
        self.server = server

    @asynccontextmanager
    async def peer(self, *sent: bytes) -> AsyncIterator[Peer]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for data in sent:
            writer.write(data)
        try:
            yield Peer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def reply(self, *sent: bytes) -> bytes:
        async with self.peer(*sent) as peer:
            return await peer.everything()


def problem_of(reply: bytes) -> dict[str, Any]:
    """The one problem document in what came, which must be all that came."""
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head, reply
    assert b"connection: close" in head
    document = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % document["status"])
    assert isinstance(document, dict)
    return document


@contextlib.contextmanager
def listening(limits: Limits, shortcut: Shortcut | None = None) -> Iterator[Listener]:
    app = Echo()
    config = uvicorn.Config(
        app, loop="uvloop", http=connections(limits, shortcut), ws="none", lifespan="off", interface="asgi3",
        log_config=None, access_log=False, server_header=False, date_header=False, proxy_headers=False,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    with bound_sockets("127.0.0.1", 0)[0] as listener:
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Listener(listener.getsockname()[1], app, server)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def short() -> Iterator[Listener]:
    """With deadlines of 1.5 s."""
    with listening(SHORT) as listener:
        yield listener


@pytest.fixture(scope="module")
def patient_server() -> Iterator[Listener]:
    with listening(replace(Limits(), head_bytes=4096, pipelined=5)) as listener:
        yield listener


@pytest.fixture
def patient(patient_server: Listener) -> Listener:
    """With the deadlines of production, so that none is met."""
    patient_server.app.seen.clear()
    return patient_server
