"""Errors: always the same form, never more than the caller may know."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app import telemetry
from app.api.problems import STATUSES, problem_response
from app.domain import errors
from app.domain.errors import Fault, LogpostError
from tests.app_client import serving

JSON = {"content-type": "application/json"}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    telemetry.configure(stream=stream)
    yield stream
    telemetry.configure()


def subclasses(kind: type[LogpostError]) -> Iterator[type[LogpostError]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def test_every_error_of_the_domain_has_a_status_and_a_code_of_its_own() -> None:
    kinds = list(subclasses(LogpostError))
    for kind in kinds:
        assert any(issubclass(kind, known) for known, _ in STATUSES), kind
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.InvalidJson, 400),
        (errors.InvalidField, 422),
        (errors.InvalidExpression, 422),
        (errors.MessageRejected, 422),
        (errors.IdempotencyKeyReused, 422),
        (errors.TooLarge, 413),
        (errors.UnsupportedMedia, 415),
        (errors.TopicNotFound, 404),
        (errors.NothingSettled, 409),
        (errors.FewerPartitions, 409),
        (errors.CommitUnknown, 503),
        (errors.Unauthorized, 401),
        (errors.Forbidden, 403),
    ],
)
def test_an_error_becomes_its_problem(kind: type[LogpostError], status: int) -> None:
    error = kind("It is so.", [Fault("why", "messages[3].key", 3, "/a")], {"results": []})
    answered, headers, body = problem_response(error)
    assert answered == status
    assert dict(headers)[b"content-type"] == b"application/problem+json"
    assert (b"retry-after" in dict(headers)) == (status == 503)
    assert json.loads(body) == {
        "type": f"urn:logpost:problem:{kind.code}",
        "title": kind.code.replace("_", " ").capitalize(),
        "status": status,
        "detail": "It is so.",
        "code": kind.code,
        "errors": [{"field": "messages[3].key", "index": 3, "path": "/a", "reason": "why"}],
        "results": [],
    }


def test_what_cannot_be_written_as_unicode_can_still_be_told() -> None:
    _, _, body = problem_response(errors.InvalidField.of("\ud800", "is \udfff"))
    assert "ud800" in json.loads(body)["errors"][0]["field"]


def test_no_more_than_a_hundred_faults_are_told() -> None:
    _, _, body = problem_response(errors.MessageRejected("All of them.", [Fault("no", index=at) for at in range(1000)]))
    assert len(json.loads(body)["errors"]) == 100


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, f"urn:logpost:problem:{code}")
    return problem


async def test_paths_and_methods_that_are_not_there_are_problems(client: httpx.AsyncClient) -> None:
    for path in ("/", "/v1", "/v1/topic", "/v1/topics/", "/v1/topics/a/b/c/d"):
        assert_problem(await client.get(path), 404, "no_such_path")
    answer = await client.patch("/v1/topics/orders")
    assert_problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].replace(" ", "").split(",")) >= {"PUT"}


@pytest.mark.parametrize(
    "body",
    [b"{", b"nul", b"\xff", b'{"tags": ["\xed\xa0\x80"]}', b'{"tags": ["\\ud800"]}', b'{"tags": NaN}', b"[" * 100_000],
    ids=["truncated", "word", "bytes", "surrogate bytes", "half a surrogate", "NaN", "deep"],
)
async def test_bodies_that_are_not_json_are_400(client: httpx.AsyncClient, body: bytes) -> None:
    assert_problem(await client.put("/v1/topics/orders", content=body, headers=JSON), 400, "invalid_json")


async def test_nesting_is_taken_to_its_limit_and_no_further(client: httpx.AsyncClient) -> None:
    def nested(depth: int) -> bytes:
        schema = '{"const": ' + "[" * (depth - 3) + "]" * (depth - 3) + "}"
        return f'{{"validate": {{"schema": {schema}}}}}'.encode()

    taken = await client.put("/v1/topics/orders", content=nested(64), headers=JSON)
    assert taken.status_code == 201, taken.text
    assert_problem(await client.put("/v1/topics/orders", content=nested(65), headers=JSON), 400, "invalid_json")


async def test_bodies_of_another_type_or_size_are_refused(client: httpx.AsyncClient) -> None:
    for headers in ({"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}, {}):
        answer = await client.put("/v1/topics/orders", content=b"{}", headers=headers)
        assert_problem(answer, 415, "unsupported_media_type")
    large = b'{"tags": ["' + b"x" * 2_000_000 + b'"]}'
    problem = assert_problem(await client.put("/v1/topics/orders", content=large, headers=JSON), 413, "too_large")
    assert [error["field"] for error in problem["errors"]] == ["body"]
    packed = await client.put("/v1/topics/orders", content=b"{}", headers=JSON | {"content-encoding": "gzip"})
    assert_problem(packed, 415, "unsupported_media_type")


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"5", b"null", b"true"])
async def test_a_body_that_is_no_object_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.put("/v1/topics/orders", content=body, headers=JSON)
    assert assert_problem(answer, 422, "invalid_field")["errors"][0]["field"] == "body"


async def test_a_database_that_is_away_is_503_everywhere_and_readiness_says_so() -> None:
    async with serving("postgresql://localhost:1/none") as client:
        assert (await client.get("/livez")).status_code == 200
        for path in ("/readyz", "/v1/topics", "/v1/topics/orders", "/v1/topics/orders/groups"):
            answer = await client.get(path)
            assert_problem(answer, 503, "database_unavailable")
            assert int(answer.headers["retry-after"]) > 0


async def test_what_nobody_foresaw_is_logged_once_and_not_told(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr("app.api.topics.read_topic", fail)
    answer = await client.get("/v1/topics/orders", headers={"x-request-id": "abc.1"})
    problem = assert_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert problem["errors"] == []
    assert answer.headers["x-request-id"] == "abc.1"
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    failures = [line for line in lines if line["event"] == "request_failed"]
    assert len(failures) == 1
    assert failures[0]["request_id"] == "abc.1"
    assert "the secret of the house" in failures[0]["exception"]
