"""Methods: what a path takes is what its 405 says, and HEAD is GET without the body."""

from __future__ import annotations

import re
from collections import defaultdict

import httpx
import pytest

from app.api.application import application
from app.api.openapi import document_of

NAMES = {"{topic}": "orders", "{group}": "billing", "{messageId}": "msg_1_1_1", "{keyId}": "key_000000000000"}
STREAMS = ("/v1/topics/orders/stream", "/v1/topics/orders/groups/billing/stream")


def documented() -> dict[str, set[str]]:
    """Path → methods, of the API's document: of a path that several of its templates describe, all of theirs."""
    calls = {
        path: {method.upper() for method in methods} for path, methods in document_of(application())["paths"].items()
    }
    found: dict[str, set[str]] = defaultdict(set)
    for template in calls:
        path = template
        for name, value in NAMES.items():
            path = path.replace(name, value)
        for other, methods in calls.items():
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", other), path):
                found[path] |= methods
    return found


PATHS = documented()
READABLE = sorted(path for path, methods in PATHS.items() if "GET" in methods and path not in STREAMS)


@pytest.fixture(autouse=True)
async def group(client: httpx.AsyncClient) -> None:
    await client.put("/v1/topics/orders")
    await client.post("/v1/topics/orders/messages", json=1)
    await client.put("/v1/topics/orders/groups/billing", json={"startFrom": "earliest"})


async def test_a_405_names_every_method_that_its_path_takes(client: httpx.AsyncClient) -> None:
    for path, methods in PATHS.items():
        answer = await client.patch(path, content=b"{}")
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed"), path
        wanted = methods | ({"HEAD"} if path in READABLE else set())
        assert answer.headers.get_list("allow") == [", ".join(sorted(wanted, key=order))], path


def order(method: str) -> int:
    return ["GET", "HEAD", "POST", "PUT", "DELETE"].index(method)


async def test_head_is_answered_like_get_without_the_body(client: httpx.AsyncClient) -> None:
    for path in [*READABLE, "/openapi.json", "/docs", "/live", "/v1/topics/unknown", "/v1/topics?limit=0"]:
        read, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.content) == (read.status_code, b""), path
        varying = ["x-request-id", "date"] + (["content-length"] if path.endswith(("metrics", "stats")) else [])
        headers = [
            {name: value for name, value in each.headers.items() if name not in varying} for each in (read, head)
        ]
        assert headers[0] == headers[1], path


async def test_head_opens_no_stream(client: httpx.AsyncClient) -> None:
    for path in STREAMS:
        head = await client.head(path)
        assert (head.status_code, head.headers["allow"], head.content) == (405, "GET", b"")


async def test_head_of_what_is_not_there_is_404_and_of_what_is_only_posted_to_405(client: httpx.AsyncClient) -> None:
    assert (await client.head("/v1/nothing")).status_code == 404
    posted = await client.head("/v1/topics/orders/purge")
    assert (posted.status_code, posted.headers["allow"]) == (405, "POST")
