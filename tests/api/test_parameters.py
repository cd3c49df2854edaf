"""Numbers in a query string: digits, and nothing that would have to be guessed at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.api.application import application
from app.api.openapi import document_of
from tests.api.wire import faults

NAMES = {"{topic}": "orders", "{group}": "billing", "{messageId}": "msg_1_1_1", "{keyId}": "key_000000000000"}


def numbers() -> Iterator[tuple[str, str]]:
    """Path and name of every parameter that is a whole number, of the API's document."""
    for template, calls in document_of(application())["paths"].items():
        path = template
        for name, value in NAMES.items():
            path = path.replace(name, value)
        for parameter in calls.get("get", {}).get("parameters", ()):
            if parameter["in"] == "query" and is_whole(parameter["schema"]):
                yield path, parameter["name"]


def is_whole(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "integer" or any(is_whole(each) for each in schema.get("anyOf", ()))


async def test_a_number_that_is_not_written_in_digits_is_refused_by_name(client: httpx.AsyncClient) -> None:
    await client.put("/v1/topics/orders")
    await client.put("/v1/topics/orders/groups/billing", json={})
    found = list(numbers())
    assert {name for _, name in found} == {"limit", "partition", "max"}
    for path, name in found:
        for value in ("1.0", "1.", "+1", " 1", "1_0", "1e0", "\u0661", ""):
            answer = await client.get(path, params={name: value})
            assert answer.status_code == 422, (path, name, value)
            assert faults(answer) == [(name, None)], (path, value)


@pytest.mark.parametrize(("value", "status"), [("1", 200), ("001", 200), ("1000", 200), ("1001", 422), ("-1", 422)])
async def test_a_number_in_digits_is_taken_as_that(client: httpx.AsyncClient, value: str, status: int) -> None:
    assert (await client.get("/v1/topics", params={"limit": value})).status_code == status
