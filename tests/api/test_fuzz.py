"""Whatever a client sends that the API's document can describe, or just not, the server answers and stays up."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any
from unittest import SkipTest

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation

from tests.servers import Server, Servers

# For each operation, of what the document allows and of what it does not.
EXAMPLES = int(os.environ.get("LOGPOST_TEST_FUZZ_EXAMPLES", "15"))
NAMES = {"topic": "orders", "group": "billing"}


@pytest.fixture
async def server(dsn: str, servers: Servers) -> Server:
    server = await servers.start(dsn=dsn)
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        for path, body in (("/v1/topics/orders", {"distribution": {"partitions": 2}}),
                           ("/v1/topics/orders/groups/billing", {"startFrom": "earliest"})):  # fmt: skip
            assert (await client.put(path, json=body)).status_code == 201
        for n in range(5):
            assert (await client.post("/v1/topics/orders/messages", json={"n": n})).status_code == 201
    return server


async def test_nothing_a_client_sends_is_a_server_error(server: Server) -> None:
    failures = await asyncio.to_thread(lambda: [*fuzz(server.url)])
    assert failures == []
    assert "request_failed" not in server.log()
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        assert (await client.get("/readyz")).status_code == 200


def fuzz(url: str) -> Iterator[str]:
    """Calls every operation; yields what was answered with a 5xx."""
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        assert isinstance(found, Ok), found
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                yield from failures_of(found.ok(), mode, url)
            except (Unsatisfiable, SkipTest):
                continue  # nothing can be wrong with a call that has no parameters


def failures_of(operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, url: str) -> list[str]:
    failures: list[str] = []

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def call(case: Case[Any], known: bool) -> None:
        if known and case.method != "DELETE":  # or the others would find nothing
            case.path_parameters = {**(case.path_parameters or {}), **_known(case)}
        if isinstance(case.body, dict) and isinstance(wait := case.body.get("waitMs"), int):
            case.body["waitMs"] = min(wait, 1)  # there is not the time to wait
        try:
            status = case.call(base_url=url).status_code
        except (requests.RequestException, ValueError, UnicodeError):
            return  # no client library sends that
        if status >= 500:
            failures.append(f"{case.method} {case.formatted_path} {case.body!r}: {status}")

    call()
    return failures


def _known(case: Case[Any]) -> dict[str, str]:
    """Names of things that are there, or most calls would end at a 404."""
    return {name: NAMES[name] for name in NAMES if name in (case.path_parameters or {})}
