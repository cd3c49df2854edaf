"""Two replicas on one database, a topic, and groups that push to a receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.app_client import serving
from tests.receiver import Receiver, Request
from tests.servers import wait_until

TOPIC, GROUP = "/v1/topics/orders", "/v1/topics/orders/groups/hooks"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
QUICK = {"max": 3, "strategy": "fixed", "baseDelay": 1, "maxDelay": 1}


@dataclass
class World:
    """``clients``: one of each replica. Calls without a choice go to the first."""

    clients: Sequence[httpx.AsyncClient]
    receiver: Receiver

    @property
    def client(self) -> httpx.AsyncClient:
        return self.clients[0]

    async def topic(self, *, partitions: int = 1, **body: Any) -> None:
        answer = await self.client.put(TOPIC, json={"distribution": {"partitions": partitions}, **body})
        assert answer.is_success, answer.text

    async def group(self, **body: Any) -> None:
        """Pushes to the receiver, one message at a time, from the start, without much delay between attempts."""
        delivery = {"mode": "push", "url": self.receiver.url, **body.pop("delivery", {})}
        wanted = {"startFrom": "earliest", "retries": QUICK, "delivery": delivery, **body}
        answer = await self.client.put(GROUP, json=wanted)
        assert answer.is_success, answer.text

    async def publish(self, *texts: str, **options: Any) -> list[dict[str, Any]]:
        """A message for each text; ``k:1`` has the key ``k``."""
        messages = [
            {
                "message": text,
                "options": {**({"partitionKey": text.partition(":")[0]} if ":" in text else {}), **options},
            }
            for text in texts
        ]
        answer = await self.client.post(f"{TOPIC}/messages/batch", json={"messages": messages})
        assert answer.is_success, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.is_success, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None) -> Any:
        answer = await self.client.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def stats(self) -> Any:
        return await self.get(f"{GROUP}/stats")

    async def settled(self) -> None:
        """Waits until the group owes nothing."""

        async def done() -> bool:
            return bool((await self.stats())["lag"] == 0)

        await wait_until(done)

    async def attempts(self, message_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.get(f"{TOPIC}/messages/{message_id}/deliveries"))["attempts"]
        return found


@asynccontextmanager
async def replicated(dsn: str, receiver: Receiver, count: int = 2, **settings: Any) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        settings = {"shutdown_timeout_ms": 2000, **settings}
        clients = [await stack.enter_async_context(serving(dsn, **settings)) for _ in range(count)]
        yield World(clients, receiver)


def text_of(request: Request) -> str:
    return str(request.json)


def texts(requests: Sequence[Request]) -> list[str]:
    return [text_of(request) for request in requests]


def saying(*wanted: str) -> Any:
    """Picks the requests that carry one of these messages."""
    return lambda request: text_of(request) in wanted
