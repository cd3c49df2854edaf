"""What every ordinary route does before its function runs: know the caller, then read the body strictly.

``router = APIRouter(route_class=Route)``, and ``@needs("manage")`` right above the function of a route that needs it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from app.api.auth import Caller, Scope
from app.api.problems import problem_response
from app.domain.errors import Fault, InvalidField, LogpostError, TooLarge, UnsupportedMedia
from app.domain.names import is_name
from app.domain.payload import check_json, decode
from app.telemetry import log

# Of an ordinary body: a configuration with its schema, a list of ackIds.
MAX_BODY_BYTES = 1024 * 1024

Function = TypeVar("Function", bound=Callable[..., Any])


def needs(scope: Scope) -> Callable[[Function], Function]:
    """Marks the function of a route: callers without ``scope`` for the topic in its path are refused."""

    def mark(function: Function) -> Function:
        function.__needs__ = scope  # type: ignore[attr-defined]
        return function

    return mark


def root_only(function: Function) -> Function:
    """Marks the function of a route: only the root key is let in."""
    function.__root_only__ = True  # type: ignore[attr-defined]
    return function


class Route(APIRoute):
    """Refuses a caller before the body is looked at; the caller is then in ``request.state.caller``.

    Every call that changes how things are, done or refused, is one line in the log: ``audit``.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()
        scope: Scope | None = getattr(self.endpoint, "__needs__", None)
        # What a route makes need not be there; whatever else its path names is looked for before the body.
        makes = self.methods == {"PUT"} and self.path_format.endswith("/topics/{topic}")
        root_only: bool = getattr(self.endpoint, "__root_only__", False)

        async def admitted(request: Request, caller: Caller) -> Response:
            if root_only:
                caller.require_root()
            caller.require(scope, request.path_params.get("topic"))
            request.state.caller = caller
            if self.body_field is not None and not makes:
                await _require_named(request, caller)
            receive = request.app.state.parts.gate.metered(caller, request.receive)
            return await answer(StrictRequest(request.scope, receive))

        async def audited(request: Request, caller: Caller) -> Response:
            outcome = 500
            try:
                response = await admitted(request, caller)
                outcome = response.status_code
            except (LogpostError, HTTPException, RequestValidationError) as error:
                outcome = problem_response(error).status
                raise
            finally:
                place = caller.namespace
                log.info(
                    "audit", by=caller.id, call=self.operation_id, path=request.scope["path"], outcome=outcome,
                    project=place.project, environment=place.environment,
                )  # fmt: skip
            return response

        serve = audited if scope == "manage" or (root_only and self.methods != {"GET"}) else admitted

        async def guarded(request: Request) -> Response:
            gate = request.app.state.parts.gate
            return await serve(
                request, await gate.authenticate(request.scope["headers"], request.scope["query_string"])
            )

        return guarded


async def _require_named(request: Request, caller: Caller) -> None:
    """Raises TopicNotFound, GroupNotFound, for names that could be there."""
    names = request.path_params
    topic, group = names.get("topic"), names.get("group")
    if topic is None or not is_name(topic) or (group is not None and not is_name(group)):
        return
    if request.method == "PUT":
        group = None
    await request.app.state.parts.catalog.require(caller.namespace.id, topic, group)


class StrictRequest(Request):
    """A request whose body is JSON as we take it, of bounded size."""

    async def stream(self) -> AsyncGenerator[bytes, None]:
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                reason = f"is larger than {MAX_BODY_BYTES} bytes"
                raise TooLarge(f"The body {reason}.", [Fault(reason, "body")])
            yield chunk

    async def body(self) -> bytes:
        body = await super().body()
        if body and not is_json(self.headers.get("content-type", "")):
            # Not only tidiness: any page may make a browser send text/plain to us, and nobody else JSON.
            raise UnsupportedMedia(
                "The body has to come as Content-Type: application/json.",
                [Fault("must be application/json", "Content-Type")],
            )
        return body

    async def json(self) -> Any:
        body = await self.body()
        check_json(body, "body")
        value = decode(body)
        if (reason := _unstorable(value)) is not None:
            raise InvalidField.of("body", reason)
        return value


def is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def _unstorable(value: Any) -> str | None:
    """Why a JSON value cannot be kept in Postgres as it is, if it cannot."""
    if isinstance(value, str):
        return "must not contain NUL" if "\0" in value else None
    if isinstance(value, float):
        return None if math.isfinite(value) else "must not contain numbers beyond the range of doubles"
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(_unstorable, parts)), None)
