"""Replicas on real sockets in this process: streams need a server that sends while it answers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import uvicorn
from httpx_sse import EventSource, ServerSentEvent

from app.connection import Limits, connections
from app.main import Served, create_app
from app.settings import Settings
from app.storage.database import Database
from tests.servers import PATIENCE_S, wait_until

ORDERS = "/v1/topics/orders"
BILLING = f"{ORDERS}/groups/billing"


class Replica:
    """One of them: its application, where it is, and a client of it."""

    def __init__(self, app: Served, url: str, http: httpx.AsyncClient) -> None:
        self.app = app
        self.url = url
        self.http = http

    @property
    def parts(self) -> Any:
        return self.app._parts

    async def declare(self, *, partitions: int = 1, group: Mapping[str, Any] | None = None, **topic: Any) -> None:
        await self.send("PUT", ORDERS, {"distribution": {"partitions": partitions}, **topic})
        if group is not None:
            await self.send("PUT", BILLING, {"startFrom": "earliest", **group})

    async def publish(self, *texts: str) -> list[dict[str, Any]]:
        """``k:1`` has the key ``k``."""
        messages = [
            {"message": text, "options": {"partitionKey": text.partition(":")[0]} if ":" in text else {}}
            for text in texts
        ]
        answer = await self.send("POST", f"{ORDERS}/messages/batch", {"messages": messages})
        results: list[dict[str, Any]] = answer["results"]
        return results

    async def send(self, method: str, target: str, body: Any = None, *, status: int | None = None) -> Any:
        answer = await self.http.request(method, target, json=body)
        if status is None:
            assert answer.is_success, answer.text
        else:
            assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def ack(self, *messages: Mapping[str, Any]) -> Any:
        return await self.send("POST", f"{BILLING}/ack", {"ackIds": [message["ackId"] for message in messages]})

    @asynccontextmanager
    async def events(
        self, target: str, *, last: str | None = None, **params: Any
    ) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
        """The events of a stream, as a parser not written here reads them."""
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last} if last else {})
        async with self.http.stream("GET", target, params=params, headers=headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield EventSource(answer).aiter_sse()


async def take(events: AsyncIterator[ServerSentEvent], count: int, *, kind: str = "message") -> list[Any]:
    """The data of the next ``count`` events of a kind; only positions may come between."""
    found: list[Any] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            event = await anext(events)
            if event.event != "position":
                assert event.event == kind, event
                found.append(event.json())
    return found


def texts(messages: list[Any]) -> list[str]:
    return [message["message"] for message in messages]


async def nothing_comes(events: AsyncIterator[ServerSentEvent], seconds: float = 0.5) -> None:
    """Nothing for so long. The stream cannot be read any more afterwards."""
    try:
        async with asyncio.timeout(seconds):
            event = await anext(events)
    except TimeoutError:
        return
    raise AssertionError(event)


@asynccontextmanager
async def replica(dsn: str, *, port: int = 0, **settings: Any) -> AsyncIterator[Replica]:
    """Serving with these settings; drained and stopped at the end of the block."""
    app = create_app(Settings(**settings), dsn)
    config = uvicorn.Config(
        app, http=connections(Limits()), ws="none", lifespan="on", interface="asgi3", log_config=None,
        access_log=False, server_header=False, date_header=False, proxy_headers=False,
    )  # fmt: skip
    server = Unsignalled(config)
    with socket.create_server(("127.0.0.1", port)) as listener:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        await wait_until(lambda: server.started or running.done())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as http:
                try:
                    yield Replica(app, url, http)
                finally:
                    app.drain()
        finally:
            server.should_exit = True
            await running


class Unsignalled(uvicorn.Server):
    """Leaves the signals of the test's process alone."""

    @contextmanager
    def capture_signals(self) -> Any:
        yield


async def statements(dsn: str) -> int:
    """How many transactions this database has seen."""
    db = await Database.open(dsn, pool_size=2)
    try:
        count: int = await db.fetchval(
            "select xact_commit from pg_stat_database where datname = current_database()"
        )  # fmt: skip
        return count
    finally:
        await db.close()


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()
