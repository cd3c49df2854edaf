"""Methods: HEAD is answered like GET, without the body; and a 405 names every method that its path takes.

https://www.rfc-editor.org/rfc/rfc9110#section-9.3.2 and #section-15.5.6. FastAPI asks one route after the other, and
knows only the methods of the one that it looks at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.streams import StreamRoute

ORDER = ("GET", "HEAD", "POST", "PUT", "DELETE")


class Methods:
    """In front of what answers ``routes``. A stream has no HEAD: it would be opened for nobody."""

    def __init__(self, app: ASGIApp, *, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes: list[tuple[re.Pattern[str], set[str]]] = []
        for route in routes:
            if isinstance(route, APIRoute):
                methods = set(route.methods or ())
                if "GET" in methods and not isinstance(route, StreamRoute):
                    methods.add("HEAD")
                self._routes.append((route.path_regex, methods))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, is_head = scope["path"], scope["method"] == "HEAD"

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                headers = [item for item in message["headers"] if item[0] != b"allow"]
                message = {**message, "headers": [*headers, (b"allow", ", ".join(self.of(path)).encode())]}
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        if is_head and "HEAD" in self.of(path):
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send_on)

    def of(self, path: str) -> list[str]:
        """The methods that a path takes."""
        taken = {method for pattern, methods in self._routes if pattern.match(path) for method in methods}
        return [method for method in ORDER if method in taken]
