"""The fast lane: paths, limits, and clients that go away, as everywhere else in the API."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from app.main import create_app
from app.settings import Settings
from tests.api.wire import BATCH, ONE, TOPIC, faults, stored
from tests.app_client import lifespan, serving

# The smallest limits that may be set.
SMALL: dict[str, Any] = {"max_message_bytes": 1024, "max_batch_bytes": 4096}


@pytest.fixture(autouse=True)
async def topic(client: httpx.AsyncClient) -> None:
    await client.put(TOPIC, json={"distribution": {"partitions": 4}})


ELSEWHERE = [
    ("PUT", ONE, 405), ("DELETE", ONE, 405), ("POST", ONE + "/", 404), ("POST", BATCH + "/x/y/z", 404), ("POST",
    "/v2/topics/orders/messages", 404),
    ("POST", "//v1/topics/orders/messages", 404), ("POST", "/v1/topics/orders/message", 404), ("PATCH", BATCH, 405),
]  # fmt: skip


async def test_other_paths_and_methods_are_answered_as_everywhere(client: httpx.AsyncClient) -> None:
    for method, path, status in ELSEWHERE:
        answer = await client.request(method, path, content=b"1")
        assert answer.status_code == status, (method, path)
        assert answer.headers["content-type"] == "application/problem+json"
    assert await stored(client) == []


async def test_s19_a_compressed_body_is_415(client: httpx.AsyncClient) -> None:
    for path in (ONE, BATCH):
        answer = await client.post(path, content=b"1", headers={"Content-Encoding": "gzip"})
        assert (answer.status_code, faults(answer)) == (415, [("Content-Encoding", None)])


class Wire:
    """A request sent piece by piece, straight to the application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.status: int | None = None
        self.body = b""
        self.received = 0

    async def post(self, path: str, pieces: Iterable[bytes | None], **headers: str) -> int | None:
        """None in place of a piece: the client is gone."""
        waiting = iter(pieces)

        async def receive() -> MutableMapping[str, Any]:
            piece = next(waiting, b"")
            self.received += 1
            if piece is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": piece, "more_body": piece != b""}

        async def send(message: MutableMapping[str, Any]) -> None:
            self.status = message.get("status", self.status)
            self.body += message.get("body", b"")

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": path,
            "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
            "headers": [(b"host", b"localhost"), *[(name.encode(), value.encode()) for name, value in headers.items()]],
        }  # fmt: skip
        await self.app(scope, receive, send)
        return self.status


async def test_s13_limits_hold_whatever_the_length_says(dsn: str, client: httpx.AsyncClient) -> None:
    app = create_app(Settings(**SMALL), dsn)
    async with lifespan(app):
        endless = [b'"' + b"x" * 500] * 1000
        for headers in ({}, {"content-length": "10"}):
            wire = Wire(app)
            assert await wire.post(ONE, endless, **headers) == 413
            assert wire.received < 10
            wire = Wire(app)
            assert await wire.post(BATCH, endless, **headers) == 413
            assert wire.received < 20
        announced = Wire(app)
        assert await announced.post(ONE, endless, **{"content-length": "1025"}) == 413
        assert announced.received == 0
        assert await Wire(app).post(ONE, [b'"' + b"x" * 1022 + b'"']) == 201
    assert len(await stored(client)) == 1


async def test_a_message_of_a_batch_has_the_limit_of_a_message(dsn: str) -> None:
    async with serving(dsn, **SMALL) as small:
        body: Any = {"messages": [{"message": 1}, {"message": "x" * 1023}]}
        answer = await small.post(BATCH, json=body)
        assert (answer.status_code, faults(answer)) == (413, [("messages[1].message", 1)])
        body["messages"][1]["message"] = "x" * 1022
        assert (await small.post(BATCH, json=body)).status_code == 201


async def test_a_client_that_goes_away_in_its_body_has_published_nothing(dsn: str, client: httpx.AsyncClient) -> None:
    app = create_app(Settings(), dsn)
    async with lifespan(app):
        for pieces in ([None], [b"[1", None], [b"1", b"2", None]):
            wire = Wire(app)
            assert await wire.post(ONE, pieces) is None
        whole = Wire(app)
        assert await whole.post(ONE, [b"[1,", b"2", b"]"]) == 201
    assert [found["message"] for found in await stored(client)] == [[1, 2]]


async def test_what_nobody_foresaw_is_a_500_that_tells_nothing(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr("app.broker.publish.Publisher.publish", fail)
    async with serving(dsn) as broken:
        answer = await broken.post(ONE, content=b"1")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "hunter2" not in answer.text
