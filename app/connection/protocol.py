"""uvicorn's protocol, strict and with deadlines. See the package."""

from __future__ import annotations

import asyncio
import re
from typing import Any, NoReturn, cast
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.connection.deadlines import Deadline, Limits, Reading, Stall
from app.connection.exchange import Exchange
from app.connection.held import Held
from app.connection.refusal import (
    HEAD_TOO_LARGE,
    NO_HOST,
    NO_TUNNEL,
    REQUEST_TIMEOUT,
    TOO_MANY_CONNECTIONS,
    UNSUPPORTED_VERSION,
    Refusal,
    malformed,
)
from app.telemetry import log

HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
# How long we still read, and throw away, what a refused client sends: closing at once would make the kernel reset the
# connection, and the client would never see the answer.
LINGER_S = 2.0


class Connection(HttpToolsProtocol):
    """``cycle`` is the newest exchange, ``running`` the one being answered, ``pipeline`` those in between."""

    cycle: Exchange

    def __init__(self, *args: Any, limits: Limits | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.limits = limits or Limits()
        self.reading = Reading.NOTHING
        self.running: Exchange | Held | None = None
        self._reading_changed = False
        self._body_seen = False
        self._overhead_bytes = 0
        self._refusal: Refusal | None = None
        self._refused = False
        self._deadline = Deadline(self.loop, self._too_late)

    # The transport's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stall = Stall(self.loop, transport, self.limits.stall_s)
        if len(self.connections) > self.limits.connections:
            self._refused = True
            transport.write(TOO_MANY_CONNECTIONS.response())
            transport.close()
        else:
            self._deadline.set(self.limits.idle_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.clear()
        self._stall.clear()
        for exchange in self._unanswered():
            exchange.lose()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._body_seen = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(self._refusal or malformed(str(error)))
            return
        self._all_received()
        if self._reading_changed:
            self._reading_changed = False
            self._watch_reading()
        elif self.reading is not Reading.NOTHING and not self._body_seen:
            # Part of a head, or of trailers and chunk extensions: the parser keeps it until it is whole.
            self._overhead_bytes += len(data)
            if self._overhead_bytes > self.limits.head_bytes:
                self._refuse(HEAD_TOO_LARGE)

    def _all_received(self) -> None:
        """Everything that came together was parsed."""

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall.clear()

    def shutdown(self) -> None:
        """The worker stops: what runs is answered, what waits behind it is not begun."""
        self.pipeline.clear()
        if self.running is None:
            self.transport.close()
        else:
            self.running.keep_alive = False

    # The parser's side. An exception in here comes out of feed_data as HttpParserCallbackError.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._now_reading(Reading.HEAD)
        self._overhead_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.reading is Reading.HEAD:  # else it is a trailer: nothing of ours is ever in one
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._check_head()
        if self.parser.should_upgrade():
            return
        if len(self.pipeline) >= self.limits.pipelined:
            self._stop_parsing(malformed("too many requests without waiting for an answer"))
        self._now_reading(Reading.BODY)
        self._begin()

    def _begin(self) -> None:
        """The request whose head has just come."""
        version = self.parser.get_http_version()
        self.scope["method"], self.scope["http_version"] = self.parser.get_method().decode("ascii"), version
        keep_alive = version == "1.1" and self.parser.should_keep_alive()
        self.cycle = self._exchange(self.url, self.scope, keep_alive=keep_alive)
        self._run_in_turn(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._body_seen = True
        if self.cycle.response_complete:
            return
        self.cycle.body += body
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._now_reading(Reading.NOTHING)
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # The application's side

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self.running = None
        if self.transport.is_closing():
            self._stall.watch()
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._run(cast("Exchange", cycle), app)
        elif self.reading is Reading.NOTHING:
            self._deadline.set(self.limits.idle_s)

    def _exchange(self, url: bytes, scope: Any, *, keep_alive: bool) -> Exchange:
        parsed = httptools.parse_url(url)
        raw_path = parsed.path or b"/"
        path = raw_path.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = parsed.query or b""
        return Exchange(
            scope=scope, transport=self.transport, flow=self.flow, logger=self.logger,
            access_logger=self.access_logger, access_log=False, default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(), expect_100_continue=self.expect_100_continue, keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )  # fmt: skip

    def _run_in_turn(self, exchange: Exchange) -> None:
        if self.running is None:
            self._run(exchange, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def _run(self, exchange: Exchange, app: ASGI3Application) -> None:
        self.running = exchange
        self._start_asgi_task(exchange, app)

    def _unanswered(self) -> list[Exchange | Held]:
        queued: list[Exchange | Held] = [cast("Exchange", cycle) for cycle, _ in reversed(self.pipeline)]
        return queued if self.running is None else [self.running, *queued]

    # Strictness

    def _check_head(self) -> None:
        """Raises, with the reason in ``_refusal``, for a head that llhttp takes and we do not."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._stop_parsing(UNSUPPORTED_VERSION)
        size = len(self.url)
        hosts = 0
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name == b"host":
                hosts += 1
                if HOST.fullmatch(value) is None:
                    self._stop_parsing(NO_HOST)
            # Anything else would leave the length of the body to guesses (RFC 9112, 6.1 and 6.3).
            elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
                self._stop_parsing(malformed("Transfer-Encoding is not chunked, or not in HTTP/1.1"))
        if size > self.limits.head_bytes:
            self._stop_parsing(HEAD_TOO_LARGE)
        if hosts > 1 or (hosts == 0 and version == "1.1"):  # RFC 9112, 3.2
            self._stop_parsing(NO_HOST)
        if self.parser.get_method() == b"CONNECT":
            self._stop_parsing(NO_TUNNEL)

    def _stop_parsing(self, refusal: Refusal) -> NoReturn:
        self._refusal = refusal
        raise httptools.HttpParserError(refusal.code)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Reads the request again as if it had not offered another protocol, which RFC 9110, 7.8 lets us ignore.

        The parser gives up at an offer, so that a new one takes over, with the rest of the connection.
        """
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", self.parser.get_http_version().encode(), b"\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"".join([*head, b"\r\n", rest]))

    def _refuse(self, refusal: Refusal) -> None:
        """Reads no more, and closes once the requests before are answered: answers must stay in order."""
        self._refused = True
        self._deadline.clear()
        unanswered = self._unanswered()
        broken = self.cycle if self.reading is Reading.BODY else None
        if broken is not None:
            broken.lose()
            if unanswered and unanswered[-1] is broken:
                unanswered.pop()
        if unanswered:
            if broken is not None:
                self.pipeline.popleft()
            unanswered[-1].keep_alive = False
        elif broken is not None and broken.response_started:
            self.transport.close()
            self._stall.watch()
        else:
            log.debug("request_refused", code=refusal.code, client=self.client)
            self._say_goodbye(refusal)

    def _say_goodbye(self, refusal: Refusal) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(refusal.response())
        self.transport.write_eof()
        self.flow.resume_reading()
        self._deadline = Deadline(self.loop, self.transport.abort)
        self._deadline.set(LINGER_S)

    # Deadlines

    def _now_reading(self, reading: Reading) -> None:
        self.reading = reading
        self._reading_changed = True

    def _watch_reading(self) -> None:
        """The deadline of what the client owes us now, if it owes us anything."""
        if self.reading is Reading.HEAD:
            self._deadline.set(self.limits.head_s)
        elif self.reading is Reading.BODY:
            self._deadline.set(self.limits.body_s)
        elif self.running is None:
            self._deadline.set(self.limits.idle_s)
        else:
            self._deadline.clear()

    def _too_late(self) -> None:
        if self.flow.read_paused:
            self._watch_reading()  # it is we who do not read
        elif self.reading is not Reading.NOTHING:
            self._refuse(REQUEST_TIMEOUT)
        elif self.transport.get_write_buffer_size():
            self._stall.watch()  # not silent: still reading the last answer, or pretending to
            self._deadline.set(self.limits.idle_s)
        else:
            self.transport.close()
