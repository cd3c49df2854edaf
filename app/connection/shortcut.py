"""A way past ASGI for requests that come whole and are answered in one piece. It costs half of one through it.

head ──▶ shortcut? ──▶ held ──▶ whole body ──▶ taken.answer ──▶ respond
            │            └─ not whole ─┐             └─ not after all ─┐
            └─ no ─────────────────────┴───────────────────────────────┴──▶ Exchange, ASGI
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

from app.connection.deadlines import Limits, Reading
from app.connection.exchange import Exchange
from app.connection.held import Held, Shortcut, Taken
from app.connection.protocol import Connection


class ShortConnection(Connection):
    """A connection whose plain requests need no application."""

    def __init__(self, *args: Any, shortcut: Shortcut, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shortcut = shortcut
        self._held: Held | None = None  # its body is still to come

    def _begin(self) -> None:
        if (taken := self._taken()) is not None:
            self._held = Held(taken, self.url, self.scope)
        else:
            super()._begin()

    def on_body(self, body: bytes) -> None:
        if self._held is None:
            super().on_body(body)
        else:
            self._body_seen = True
            self._held.body += body

    def on_message_complete(self) -> None:
        if (held := self._held) is None:
            super().on_message_complete()
            return
        self._held, self.running = None, held
        if held.taken.answer(held.body, partial(self._respond, held)):
            self._now_reading(Reading.NOTHING)
        else:
            self._leave_shortcut(held)
            super().on_message_complete()

    def _all_received(self) -> None:
        if self._held is not None:  # it does not come whole
            self._leave_shortcut(self._held)

    def _taken(self) -> Taken | None:
        if self.running is not None or self.flow.write_paused or self.expect_100_continue:
            return None
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return None
        return self._shortcut(self.url, self.headers)

    def _leave_shortcut(self, held: Held) -> None:
        self._held = self.running = None
        self.cycle = self._to_application(held)
        self._run_in_turn(self.cycle)

    def _to_application(self, held: Held) -> Exchange:
        """As if it had got it from the start."""
        held.scope["method"] = "POST"
        exchange = self._exchange(held.url, held.scope, keep_alive=held.keep_alive)
        exchange.waiting_for_100_continue = False  # it had no such wish; the one being read now may
        exchange.body += held.body
        exchange.message_event.set()
        return exchange

    def _respond(self, held: Held, response: bytes | None) -> None:
        if held.is_lost:
            return
        if response is None:
            exchange = self._to_application(held)
            exchange.more_body = False
            self._run(exchange, self.app)
            return
        if held.keep_alive:
            self.transport.write(response)
        else:
            self.transport.write(response.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
            self.transport.close()
        self.on_response_complete()


def connections(limits: Limits, shortcut: Shortcut | None = None) -> type[asyncio.Protocol]:
    """What uvicorn's ``Config(http=...)`` takes: connections with these limits."""

    def connection(**options: Any) -> Connection:
        if shortcut is None:
            return Connection(limits=limits, **options)
        return ShortConnection(limits=limits, shortcut=shortcut, **options)

    return cast("type[asyncio.Protocol]", connection)
