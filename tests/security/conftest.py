"""A server with keys on, and keys of two namespaces: ``ours`` and ``theirs``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.app_client import serving

ROOT_KEY = "root-key-of-the-tests-0123456789abcdef"
OURS, THEIRS = "ours", "theirs"
ALL = ("publish", "consume", "manage")


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


class Keyed:
    """A server that wants keys. ``root`` presents the root key, ``nobody`` none."""

    def __init__(self, nobody: httpx.AsyncClient) -> None:
        self.nobody = nobody
        self.root = self.presenting(ROOT_KEY)

    def presenting(self, key: str, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=self.nobody._transport, base_url=self.nobody.base_url, headers=bearer(key) | headers, timeout=60
        )

    async def create(self, **form: Any) -> dict[str, Any]:
        wanted = {"name": "test", "project": OURS, "environment": "live", "scopes": list(ALL)} | form
        answer = await self.root.post("/v1/keys", json=wanted)
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def client(
        self, scopes: Sequence[str] = ALL, *, project: str = OURS, topics: Sequence[str] = ("*",), **form: Any
    ) -> httpx.AsyncClient:
        """A client with a new key."""
        key = await self.create(scopes=list(scopes), project=project, topics=list(topics), **form)
        return self.presenting(key["key"])


Serve = Callable[..., Any]


@asynccontextmanager
async def keyed_on(dsn: str, **settings: Any) -> AsyncIterator[Keyed]:
    async with serving(dsn, root_key=ROOT_KEY, **settings) as nobody:
        yield Keyed(nobody)


@pytest.fixture
async def keyed(dsn: str) -> AsyncIterator[Keyed]:
    async with keyed_on(dsn) as keyed:
        yield keyed


@pytest.fixture
async def two_replicas(dsn: str) -> AsyncIterator[tuple[Keyed, Keyed]]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(keyed_on(dsn))
        second = await stack.enter_async_context(keyed_on(dsn))
        yield first, second
