"""One request and its answer."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.connection.outgoing import Outgoing
from app.connection.refusal import INTERNAL, SHUTTING_DOWN, Refusal
from app.telemetry import log


class Exchange(RequestResponseCycle):
    """uvicorn's, which ends a failed or cancelled request with a plain text, logs past our logs, and writes each piece
    of an answer by itself."""

    def __init__(self, transport: asyncio.Transport, **options: Any) -> None:
        self._outgoing = Outgoing(transport)
        super().__init__(transport=cast("asyncio.Transport", self._outgoing), **options)

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            # An answer without a length is a stream, whose client waits for the head.
            self._outgoing.holds = any(name == b"content-length" for name, _ in message.get("headers", ()))
        await super().send(message)
        if self.response_complete:
            self._outgoing.flush()

    async def run_asgi(self, app: ASGI3Application) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:  # the time for draining is over: nobody else cancels us
            await self._end_with(SHUTTING_DOWN)
        except Exception:
            log.exception("request_failed", method=self.scope["method"], path=self.scope["path"])
            await self._end_with(INTERNAL)
        else:
            if not self.response_complete and not self.disconnected:
                log.error("request_unanswered", method=self.scope["method"], path=self.scope["path"])
                await self._end_with(INTERNAL)
        finally:
            self.on_response = _nothing  # breaks the cycle with the connection

    def lose(self) -> None:
        """The client is gone, or what it sends cannot be understood any more."""
        if not self.response_complete:
            self.disconnected = True
        self.message_event.set()

    async def _end_with(self, refusal: Refusal) -> None:
        if self.response_started:
            self.transport.close()  # without the end of the body, so that the client knows
            return
        self.chunked_encoding = None
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": refusal.headers()})
        await self.send({"type": "http.response.body", "body": refusal.body(), "more_body": False})


def _nothing() -> None:
    pass
