"""Calls that the tests of the wire contract make again and again."""

from __future__ import annotations

from typing import Any

import httpx

TOPIC = "/v1/topics/orders"
ONE = f"{TOPIC}/messages"
BATCH = f"{TOPIC}/messages/batch"
GROUP = f"{TOPIC}/groups/billing"
QUICK = {"max": 0, "strategy": "fixed", "baseDelay": 1, "maxDelay": 1}


async def declared(client: httpx.AsyncClient, *, partitions: int = 1, **group: Any) -> None:
    """A topic ``orders`` with a group ``billing`` that starts at its beginning."""
    answer = await client.put(TOPIC, json={"distribution": {"partitions": partitions}})
    assert answer.status_code in (200, 201), answer.text
    answer = await client.put(GROUP, json={"startFrom": "earliest", **group})
    assert answer.status_code in (200, 201), answer.text


async def published(client: httpx.AsyncClient, *messages: Any, **options: Any) -> list[dict[str, Any]]:
    body = {"messages": [{"message": message, "options": options} for message in messages]}
    answer = await client.post(f"{TOPIC}/messages/batch", json=body)
    assert answer.status_code == 201, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


async def stored(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    answer = await client.get(ONE)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def faults(answer: httpx.Response) -> list[tuple[str | None, int | None]]:
    """Field and index of everything that a problem document finds wrong."""
    assert answer.headers["content-type"] == "application/problem+json"
    return [(fault.get("field"), fault.get("index")) for fault in answer.json()["errors"]]


async def pulled(client: httpx.AsyncClient, group: str = GROUP, **body: Any) -> list[dict[str, Any]]:
    answer = await client.post(f"{group}/pull", json=body)
    assert answer.status_code == 200, answer.text
    messages: list[dict[str, Any]] = answer.json()["messages"]
    return messages


async def buried(client: httpx.AsyncClient, *messages: Any, **options: Any) -> list[dict[str, Any]]:
    """Publishes messages and uses up their attempts; the group has none but the first."""
    results = await published(client, *messages, **options)
    ack_ids = [each["ackId"] for each in await pulled(client, max=1000)]
    answer = await client.post(f"{GROUP}/nack", json={"ackIds": ack_ids, "reason": "no"})
    assert answer.status_code == 200, answer.text
    return results


def problem_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (problem["status"], problem["code"]) == (status, code), answer.text
    return problem


def field_of(answer: httpx.Response) -> str | None:
    """The field that an invalid_field problem names first."""
    found: str | None = problem_of(answer, 422, "invalid_field")["errors"][0]["field"]
    return found
