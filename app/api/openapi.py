"""The OpenAPI document. ``python -m app.api.openapi`` writes openapi/openapi.json.

Operation ids are given by the routes, so that a generated client's names do not change with a path. ``--check`` fails
when the written document is not that of the code.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.problems import Problem, problems

VERSION = "1"
DOCUMENT = Path(__file__).resolve().parents[2] / "openapi" / "openapi.json"
DESCRIPTION = """\
Durable publish/subscribe over plain HTTP, on Postgres. A *topic* is a partitioned log of messages; consumer *groups*
read it, each at its own pace, pushed to a webhook or pulled. Delivery is at least once, ordered per key.

Errors are problem documents (RFC 9457) with a stable `code`. Lists take `limit` and `cursor`."""
TAGS = [
    {"name": "topics", "description": "Named logs and their configuration."},
    {"name": "messages", "description": "Publishing, and reading without a group."},
    {"name": "groups", "description": "Consumer groups: configuration, and where they are."},
    {"name": "deliveries", "description": "Pull, settle, and what becomes of a message."},
    {"name": "dead letters", "description": "Deliveries that used up their attempts."},
    {"name": "keys", "description": "Who may call, and what they may do. For the root key."},
    {"name": "operations", "description": "Health and metrics."},
]


OPEN_PATHS = ("/livez", "/readyz")
SECURITY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, `lp_…`, or the root key. Needed where the server has a root key.",
}


def document_of(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="Logpost", version=VERSION, summary="Durable publish/subscribe over plain HTTP.",
        description=DESCRIPTION, routes=app.routes, tags=TAGS,
    )  # fmt: skip
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs") | {"Problem": problem}
    for path, item in document["paths"].items():
        for operation in item.values():
            if path not in OPEN_PATHS:
                _document_key(operation)
            _document_problems(operation, below_v1=path.startswith("/v1/"))
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"]["securitySchemes"] = {"key": SECURITY_SCHEME}
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _document_key(operation: dict[str, Any]) -> None:
    """A key where there are keys: what the page's Authorize button asks for."""
    operation["security"] = [{"key": []}]
    operation["responses"] |= _written(problems(401, 403, 429))


def _document_problems(operation: dict[str, Any], *, below_v1: bool) -> None:
    """What any call may be refused with, said once here instead of at every route."""
    responses = operation["responses"]
    if "422" in responses:
        # FastAPI promises its own form of it for every route with parameters.
        responses.pop("422")
        responses |= _written(problems(422))
    if below_v1:
        responses |= _written(problems(503))
        if "requestBody" in operation:
            responses |= _written(problems(400, 413, 415, 422))
    operation["responses"] = dict(sorted(responses.items()))


def _written(responses: dict[int | str, dict[str, Any]]) -> dict[str, Any]:
    return {str(status): response for status, response in responses.items()}


def written(app: FastAPI) -> bytes:
    """The document as it is in the repository."""
    return orjson.dumps(document_of(app), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def main(arguments: list[str]) -> int:
    # Here, because the application shows this document.
    from app.api.application import application  # noqa: PLC0415

    text = written(application())
    if "--check" not in arguments:
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_bytes(text)
        return 0
    if DOCUMENT.exists() and DOCUMENT.read_bytes() == text:
        return 0
    sys.stderr.write("openapi/openapi.json is not that of the code: run make openapi\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
