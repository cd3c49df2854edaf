"""Connections to webhooks: aiohttp under the guard. Every request this program makes to somebody's URL goes this way.

Names are looked up once per connection; if any address of the answer is one webhooks may not be at, none is dialled.
What the socket finally connects to is judged again, so that a literal address, which no resolver sees, does not pass.
Redirects, proxies, cookies and netrc are for browsers and people: nothing here follows, reads or keeps them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientResponse
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import StreamReader
from yarl import URL

from app.webhook.address import Policy

# Looks a name up: its addresses as text. Raises OSError (socket.gaierror) if it has none.
Lookup = Callable[[str], Awaitable[Sequence[str]]]

CONNECT_TIMEOUT_S = 10
# Below what servers commonly close idle connections after (5 s), so that few requests meet a closing one.
IDLE_S = 4
# A busy connection is replaced after this, so that a name's new address is noticed.
MAX_AGE_S = 60
# Look-ups at a time. Each takes a thread for as long as the system's resolver likes.
LOOKUPS = 32

# The head of an answer: lines of it, bytes in one of them, and interim (1xx) answers before it.
MAX_HEAD_LINES = 100
MAX_HEAD_LINE = 8190
MAX_INTERIM_ANSWERS = 20

_HEAD_END = re.compile(rb"\n\r?\n")


class AddressRefused(OSError):
    """An address webhooks may not be at. The text does not say which: who may declare a webhook may not map us."""

    def __init__(self) -> None:
        super().__init__("the address is internal, or otherwise not one webhooks may be at")


class HeadTooLarge(HttpProcessingError):
    """An answer whose head is over the limits above."""


class GuardedResolver(AbstractResolver):
    """Gives aiohttp the addresses of a name, all of them judged; refuses all if one is bad."""

    def __init__(self, policy: Policy, lookup: Lookup) -> None:
        self._policy = policy
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in await self._lookup(host)]
        # Not "those that are allowed": a name with one internal address is not a webhook that is partly fine.
        if not all(self._policy.allows(address) for address in addresses):
            raise AddressRefused
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET6 if address.version == 6 else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


class SystemLookup:
    """getaddrinfo in threads of its own, one look-up at a time for each name.

    Threads of the loop's pool would do for the look-up, but a tenant whose name server hangs would take them all, and
    the process could not end before they have.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(LOOKUPS)
        self._running: dict[str, asyncio.Future[list[str]]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        running = self._running.get(host)
        if running is None:
            await self._free.acquire()
            if (running := self._running.get(host)) is None:
                running = self._start(host)
            else:
                self._free.release()
        return await asyncio.shield(running)

    def _start(self, host: str) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()
        self._running[host] = future

        def finish(addresses: list[str] | None, error: OSError | None) -> None:
            # Only now: a thread takes its place also when nobody waits for it any more.
            self._free.release()
            del self._running[host]
            if error is not None:
                future.set_exception(error)
                future.exception()  # nobody may be waiting any more, and that is no news
            else:
                future.set_result(addresses or [])

        def look_up() -> None:
            addresses, error = _addresses(host)
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(finish, addresses, error)

        threading.Thread(target=look_up, name="lookup", daemon=True).start()
        return future


class GuardedConnection(ResponseHandler):
    """aiohttp's client protocol with a bound on interim answers, an age, and no ear for what nobody asked for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._born = loop.time()
        self._asked = False
        self._awaits_head = False
        self._seen = b""  # the last bytes, where the end of a head may have begun
        self._interim_answers = 0

    def set_response_params(self, **params: Any) -> None:
        """aiohttp calls this at the start of each request."""
        self._asked = self._awaits_head = True
        self._seen = b""
        self._interim_answers = 0
        super().set_response_params(**params)
        if self._loop.time() - self._born > MAX_AGE_S:
            self.force_close()

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Each head of an answer that was parsed, with the stream its body will come through."""
        if not self._asked:
            self._refuse_more()
            return
        message, payload = data
        # 101 stays: it ends what HTTP can say on this connection, and counts as a failure further up.
        if 100 <= message.code <= 199 and message.code != 101:
            self._interim_answers += 1
            if self._interim_answers > MAX_INTERIM_ANSWERS:
                self.set_exception(HeadTooLarge(message="too many interim answers"))
                self._refuse_more()
            return
        self._awaits_head = False
        payload.on_eof(self._answered)
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Hands the parser each head on its own: it forgets a head that comes together with a broken body."""
        while self._awaits_head and (end := _HEAD_END.search(self._seen + data)):
            head, data = data[: end.end() - len(self._seen)], data[end.end() - len(self._seen) :]
            self._seen = b""
            super().data_received(head)
        if not data:
            return
        if self._awaits_head:
            self._seen = (self._seen + data)[-3:]
        if self._asked:
            super().data_received(data)
        else:
            # An answer to nothing would be taken for the answer to the next request.
            self._refuse_more()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Tells an answer over our limits from one that is not HTTP: aiohttp gives both the same type."""
        if any(isinstance(error, LineTooLong) for error in cause) or "Too many headers" in str(exc):
            exc = HeadTooLarge(message="a header line, or the number of them, is over the limit")
        self._awaits_head = False
        super().set_exception(exc, *cause)

    def _answered(self) -> None:
        self._asked = False

    def _refuse_more(self) -> None:
        self._asked = self._awaits_head = False
        self.force_close()
        if self.transport is not None:
            self.transport.abort()


def open_session(
    policy: Policy, *, lookup: Lookup | None = None, tls: ssl.SSLContext | None = None
) -> aiohttp.ClientSession:
    """The one client for what others told us to call; needs the running loop, and to be closed.

    ``lookup`` replaces the system's resolver, ``tls`` the system's trusted certificates.
    """
    connector = aiohttp.TCPConnector(
        resolver=GuardedResolver(policy, lookup or SystemLookup()),
        use_dns_cache=False,
        socket_factory=functools.partial(_guarded_socket, policy),
        ssl=tls or True,
        limit=0,  # send.py bounds what is on the way, outside of the deadline of a request
        keepalive_timeout=IDLE_S,
    )
    # No public way leads there. The tests of hostile receivers fail if this stops having an effect.
    connection = functools.partial(GuardedConnection, asyncio.get_running_loop())
    connector._factory = connection  # type: ignore[assignment] # noqa: SLF001
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, ceil_threshold=float("inf")),
        trust_env=False,
        auto_decompress=False,
        max_line_size=MAX_HEAD_LINE,
        max_field_size=MAX_HEAD_LINE,
        max_headers=MAX_HEAD_LINES,
    )


async def post(
    session: aiohttp.ClientSession, url: str, headers: Sequence[tuple[str, str]], body: bytes
) -> ClientResponse:
    """Sends and returns when the head of the answer is there. ``url`` is taken as it is, not encoded again."""
    return await session.post(
        URL(url, encoded=True),
        data=body,
        headers=[*headers, ("Accept-Encoding", "identity")],
        skip_auto_headers=("Accept", "User-Agent", "Content-Type"),
        allow_redirects=False,
    )


def _guarded_socket(policy: Policy, info: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, (address, port, *_rest) = info
    allowed = policy.allows(ipaddress.ip_address(str(address).partition("%")[0]))
    if not (allowed and isinstance(port, int) and policy.allows_port(port)):
        raise AddressRefused
    return socket.socket(family, kind, protocol)


def _addresses(host: str) -> tuple[list[str] | None, OSError | None]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return None, error
    except UnicodeError:
        return None, socket.gaierror(socket.EAI_NONAME, "not a name that can be looked up")
    return list(dict.fromkeys(str(info[4][0]) for info in found)), None
