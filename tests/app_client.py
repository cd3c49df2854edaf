"""The whole application in this process, on a database of the test's own, and a client of it.

    async with serving(dsn) as client:
        await client.put("/v1/topics/orders")

The fixture ``client`` is that with default settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.types import ASGIApp, Message

from app.main import create_app
from app.settings import Settings

BASE_URL = "http://localhost"


@asynccontextmanager
async def serving(dsn: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with these settings; the application ends with the block."""
    app = create_app(Settings(**settings), dsn)
    async with lifespan(app), client_of(app) as client:
        yield client


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=BASE_URL, timeout=60)


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """The application's lifespan, as a server runs it: its start and its end in one task."""
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    running = asyncio.ensure_future(app(scope, to_app.get, from_app.put))

    async def say(word: str) -> None:
        await to_app.put({"type": f"lifespan.{word}"})
        answer = asyncio.ensure_future(from_app.get())
        await asyncio.wait([answer, running], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            await running  # raises what went wrong
        assert answer.result()["type"] == f"lifespan.{word}.complete", answer.result()

    await say("startup")
    try:
        yield
    finally:
        await say("shutdown")
        await running
