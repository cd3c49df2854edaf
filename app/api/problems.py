"""Every error as an RFC 9457 problem document. The only place that knows status codes of errors.

``type`` is ``urn:logpost:problem:<code>`` and ``title`` the same in words; ``code`` is what programs should look at.
``errors`` lists each field, batch index or path at fault. What an error carries as ``extra`` stands beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app.domain import errors
from app.domain.errors import Fault, InvalidField, InvalidJson, LogpostError

CONTENT_TYPE = "application/problem+json"

# The first class that fits an error gives its status.
STATUSES: Sequence[tuple[type[LogpostError], int]] = (
    (errors.InvalidJson, 400),
    (errors.TooLarge, 413),
    (errors.UnsupportedMedia, 415),
    (errors.Refused, 422),
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.TooMany, 429),
    (errors.Conflict, 409),
    (errors.Unavailable, 503),
)
# Worth trying again, and after how long.
LATER = (errors.Unavailable, errors.TooMany)
# What the framework itself answers, in our words.
FRAMEWORK_CODES = {400: "invalid_json", 404: "no_such_path", 405: "method_not_allowed", 413: "too_large"}
FRAMEWORK_DETAILS = {
    404: "There is nothing at this path; /docs lists what there is.",
    405: "This path does not take that method.",
}
# pydantic's sentences are good where they say what is expected; these say what is wrong.
REASONS = {
    "extra_forbidden": "there is no such field",
    "missing": "is required",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
}
MAX_FAULTS = 100


class ProblemFault(BaseModel):
    """One thing wrong: a field in the request's own words, an index in a batch, a path into the message."""

    reason: str
    field: str | None = Field(None, examples=["retries.baseDelay"])
    index: int | None = None
    path: str | None = None


class Problem(BaseModel):
    """An error, after RFC 9457."""

    type: str = Field(examples=["urn:logpost:problem:topic_not_found"])
    title: str = Field(examples=["Topic not found"])
    status: int = Field(examples=[404])
    detail: str
    code: str = Field(examples=["topic_not_found"])
    errors: list[ProblemFault] = []


class ProblemResponse(NamedTuple):
    """What goes out: ``headers`` as ASGI wants them, names in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def problem_response(error: BaseException) -> ProblemResponse:
    """The answer to any error, inside or outside FastAPI. Nothing of an unforeseen one is told; log it yourself."""
    error = _underlying(error)
    if isinstance(error, LogpostError):
        status = status_of(error)
        headers = {"retry-after": str(error.retry_after)} if isinstance(error, LATER) else {}
        if isinstance(error, errors.Unauthorized):
            headers["www-authenticate"] = "Bearer"
        return _response(status, error.code, error.detail, faults=error.faults, extra=error.extra, headers=headers)
    if isinstance(error, HTTPException):
        status = error.status_code
        code = FRAMEWORK_CODES.get(status) or HTTPStatus(status).name.lower()
        return _response(status, code, FRAMEWORK_DETAILS.get(status, error.detail), headers=error.headers or {})
    return _response(500, LogpostError.code, "Something went wrong here. The log has it under this X-Request-Id.")


def status_of(error: LogpostError) -> int:
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def install_problems(app: FastAPI) -> None:
    """Makes every error of ``app`` a problem document."""

    async def answer(_request: Request, error: Exception) -> Response:
        status, headers, body = problem_response(error)
        response = Response(body, status)
        response.raw_headers = [*headers, (b"content-length", str(len(body)).encode())]
        return response

    for kind in (LogpostError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that answers with these problems, for the OpenAPI document."""
    content = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def _response(
    status: int,
    code: str,
    detail: str,
    *,
    faults: Sequence[Fault] = (),
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    document: dict[str, Any] = {
        "type": f"urn:logpost:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [_fault(fault) for fault in faults[:MAX_FAULTS]],
        **(extra or {}),
    }
    raw = {"content-type": CONTENT_TYPE, **(headers or {})}
    return ProblemResponse(
        status, [(name.lower().encode(), value.encode("latin-1")) for name, value in raw.items()], _dump(document)
    )


def _fault(fault: Fault) -> dict[str, Any]:
    parts = {"field": fault.field, "index": fault.index, "path": fault.path, "reason": fault.reason}
    return {name: value for name, value in parts.items() if value is not None}


def _dump(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # a lone surrogate that came in with the request is no reason to fail at telling so
        return orjson.dumps({name: _printable(value) for name, value in document.items()})


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {_printable(name): _printable(item) for name, item in value.items()}
    return value


def _underlying(error: BaseException) -> BaseException:
    """FastAPI's own errors in our terms; ours out of FastAPI's, which wraps whatever goes wrong with a body."""
    if isinstance(error, RequestValidationError):
        return _from_validation(error.errors())
    if isinstance(error, HTTPException) and isinstance(error.__cause__, LogpostError):
        return error.__cause__
    return error


def _from_validation(found: Iterable[Mapping[str, Any]]) -> LogpostError:
    found = list(found)
    for fault in found:
        if fault["type"] == "json_invalid":
            return InvalidJson(f"The body is not JSON: {fault['ctx']['error']} at position {fault['loc'][-1]}.")
    faults = [Fault(_reason(fault), field_path(fault["loc"][1:]) or str(fault["loc"][0])) for fault in found]
    return InvalidField("; ".join(f"{fault.field}: {fault.reason}" for fault in faults[:MAX_FAULTS]), faults)


def _reason(fault: Mapping[str, Any]) -> str:
    if fault["type"] in REASONS:
        return REASONS[fault["type"]]
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    message: str = fault["msg"]
    return message[0].lower() + message[1:]


def field_path(location: Iterable[str | int]) -> str:
    """``("messages", 3, "options", "ttlMs")`` → ``messages[3].options.ttlMs``."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path
