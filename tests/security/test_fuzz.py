"""Requests nobody would write, made from the OpenAPI document: none of them is a 5xx, none tells of our insides."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case
from schemathesis.generation import GenerationMode

from app.api.application import application
from app.api.openapi import document_of
from tests.security.background import Background
from tests.security.conftest import ROOT_KEY, bearer
from tests.security.routes import CALLS, Call

# Over all calls; half of them as the document says, half not. More of them: LOGPOST_TEST_FUZZ=5000.
CASES = int(os.environ.get("LOGPOST_TEST_FUZZ", "500"))
LEAKS = re.compile(r"Traceback|asyncpg|sqlalchemy|pydantic|site-packages|\.py\b|SQLSTATE|\binsert into\b")
# Where nobody's stream may keep a test: a stream answers at once and is then left.
PATIENCE_S = 90.0
SENT_ITSELF = frozenset({"host", "content-length", "transfer-encoding", "connection", "authorization", "user-agent"})


def operations(call: Call) -> Any:
    schema = schemathesis.openapi.from_dict(document_of(application()))
    return schema[call.template][call.method.upper()]


async def sent(client: httpx.AsyncClient, case: Case[Any]) -> httpx.Response | None:
    """The answer, or its beginning where it does not end. None: the request cannot be written down as HTTP."""
    request = case.as_transport_kwargs(base_url="http://localhost")
    headers = {name: value for name, value in request["headers"].items() if name.lower() not in SENT_ITSELF}
    raw = {name.encode("utf-8", "replace"): value.encode("utf-8", "replace") for name, value in headers.items()}
    body = {"json": request["json"]} if "json" in request else {"content": request.get("data") or b""}
    try:
        wanted = client.build_request(
            request["method"], request["url"], params=request["params"], headers=raw | AUTHORIZED, **body
        )
    except (httpx.InvalidURL, UnicodeEncodeError, TypeError, ValueError):
        return None
    async with asyncio.timeout(PATIENCE_S):
        return await client.send(wanted)


AUTHORIZED = {name.encode(): value.encode() for name, value in bearer(ROOT_KEY).items()}


def check(answer: httpx.Response, case: Case[Any]) -> None:
    told = f"{case.method} {case.formatted_path} {case.query} {case.body!r:.300} -> {answer.status_code} {answer.text}"
    assert answer.status_code < 500, told
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", told
        assert answer.json()["status"] == answer.status_code
        assert LEAKS.search(answer.json()["detail"]) is None, told


# The server in the other thread draws its jitter while Hypothesis draws.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.timeout(900)
def test_s59_no_request_is_a_5xx_or_tells_of_our_insides(dsn: str) -> None:
    house = Background(dsn)
    try:
        calls = [call for call in CALLS if not call.is_stream]
        for path in ("/v1/topics/orders", "/v1/topics/orders/groups/billing"):
            assert house.do(house.keyed.root.put(path)).status_code == 201
        for call in calls:
            for mode in GenerationMode:
                try_out(house, call, mode, max(CASES // (2 * len(calls)), 1))
    finally:
        house.close()


def try_out(house: Background, call: Call, mode: GenerationMode, cases: int) -> None:
    @settings(
        max_examples=cases, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(operations(call).as_strategy(generation_mode=mode))
    def one(case: Case[Any]) -> None:
        answer = house.do(sent(house.keyed.nobody, case))
        if answer is not None:
            check(answer, case)

    with contextlib.suppress(Unsatisfiable):  # of a call without parameters nothing can be wrong
        one()
