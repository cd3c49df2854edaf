"""The OpenAPI document: complete, stable, and its examples work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.api import openapi
from app.api.application import application
from tests.app_client import serving

METHODS = ("get", "put", "post", "delete")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document_of(application())


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method, path, item[method]


def test_the_written_document_is_that_of_the_code() -> None:
    assert openapi.DOCUMENT.read_bytes() == openapi.written(application()), "run make openapi"


def test_every_operation_has_an_id_a_summary_and_a_tag_that_is_described(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    described = {tag["name"] for tag in document["tags"]}
    for method, path, operation in operations(document):
        assert operation.get("summary"), (method, path)
        assert "_" not in operation["operationId"], operation["operationId"]
        assert set(operation["tags"]) <= described, (method, path)


def test_every_refusal_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        if path.startswith("/v1"):
            assert "503" in operation["responses"], (method, path)
        if operation.get("requestBody") and path.startswith("/v1"):
            assert {"400", "413", "415", "422"} <= operation["responses"].keys(), (method, path)
        for status, response in operation["responses"].items():
            if status >= "400":
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (method, path, status)
    assert "HTTPValidationError" not in str(document)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in references(document):
        assert reference.rpartition("/")[2] in document["components"]["schemas"], reference


def test_fields_are_camel_case(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        for field in schema.get("properties", {}):
            assert "_" not in field, (name, field)


def example_of(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """What the page at /docs shows to be sent: examples where there are any, defaults, else the least there is."""
    if "$ref" in schema:
        return example_of(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "examples" in schema:
        return schema["examples"][0]
    if schema.get("type") == "object" and "properties" in schema:
        return {name: example_of(document, part) for name, part in schema["properties"].items()}
    if "default" in schema:
        return schema["default"]
    if "anyOf" in schema:
        return example_of(document, schema["anyOf"][0])
    if schema.get("type") == "array":
        return [example_of(document, schema["items"])]
    least = int(schema.get("minimum", 1))
    return {"string": "string", "integer": least, "number": least, "boolean": True}[schema["type"]]


async def test_examples_of_declarations_work_when_pasted(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    for path in ("/v1/topics/{topic}", "/v1/topics/{topic}/groups/{group}"):
        operation = document["paths"][path]["put"]
        url = path
        for parameter in operation["parameters"]:
            example = parameter.get("example") or parameter["schema"]["examples"][0]
            url = url.replace(f"{{{parameter['name']}}}", example)
        body = example_of(document, operation["requestBody"]["content"]["application/json"]["schema"])
        answer = await client.put(url, json=body)
        assert answer.status_code == 201, answer.text


async def test_every_body_that_the_page_shows_is_taken_for_one(
    client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    """What it names need not be there, and keys may be switched off."""
    for path, calls in document["paths"].items():
        for method, operation in calls.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            if body is None or operation["operationId"] == "publish":
                continue
            answer = await client.request(method, path.format(topic="t", group="g"), json=example_of(document, body))
            assert answer.status_code in (200, 201, 403, 404, 409), (method, path, answer.text)
            await client.put("/v1/topics/t/groups/g", json={})


async def test_the_document_and_its_page_are_served_unless_switched_off(dsn: str) -> None:
    async with serving(dsn) as client:
        served = await client.get("/openapi.json")
        assert served.json() == openapi.document_of(application())
        page = await client.get("/docs")
        assert (page.status_code, "openapi.json" in page.text) == (200, True)
        assert "script-src" in page.headers["content-security-policy"]
    async with serving(dsn, docs=False) as client:
        assert (await client.get("/openapi.json")).status_code == 404
        assert (await client.get("/docs")).status_code == 404


def test_check_fails_when_the_document_is_another(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openapi, "DOCUMENT", tmp_path / "openapi" / "openapi.json")
    assert openapi.main(["--check"]) == 1
    assert openapi.main([]) == 0
    assert openapi.main(["--check"]) == 0
    openapi.DOCUMENT.write_bytes(openapi.DOCUMENT.read_bytes() + b" ")
    assert openapi.main(["--check"]) == 1
