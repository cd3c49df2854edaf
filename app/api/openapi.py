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

from app.api.problems import Problem

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
    {"name": "operations", "description": "Health and metrics."},
]


def document_of(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="Logpost", version=VERSION, summary="Durable publish/subscribe over plain HTTP.",
        description=DESCRIPTION, routes=app.routes, tags=TAGS,
    )  # fmt: skip
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs") | {"Problem": problem}
    # FastAPI promises its own form of 422 for every route with parameters; ours is a Problem.
    for path in document["paths"].values():
        for operation in path.values():
            _replace_validation_error(operation)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _replace_validation_error(operation: dict[str, Any]) -> None:
    refused = operation["responses"].get("422")
    if refused is not None and "application/json" in refused["content"]:
        content = refused["content"]
        del content["application/json"]
        content["application/problem+json"] = {"schema": {"$ref": "#/components/schemas/Problem"}}


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
