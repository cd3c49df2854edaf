"""The plainest publishes, answered without ASGI: JSON, one message or a batch, to a topic that takes everything.

It does what lane, edge and ``PublishCalls`` do, for requests that need nothing else of them. Whatever is unusual
(another header, an unknown topic, a key that has to be looked up, a body that is no JSON) is left to them, so that no
refusal is worded here. Both ways give the same answers to the byte: tests/process/test_shortcut.py.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus

from app.api.auth import Caller, Gate
from app.api.batch import batch_of
from app.api.edge import DEFAULT_ITEMS, LOOPBACK_HOST, new_request_id
from app.api.problems import problem_response
from app.api.publish import result, results
from app.broker.catalog import Catalog
from app.broker.publish import Publisher
from app.domain.errors import LogpostError, Refused
from app.domain.message import Landed, NewMessage
from app.domain.names import check_name
from app.domain.options import idempotency_key_fault, key_fault
from app.domain.payload import check_json
from app.domain.topic import Topic
from app.storage.database import Outdated
from app.telemetry import log

# What goes out, head and all; None if ASGI has to answer after all (connection/shortcut.py).
Respond = Callable[[bytes | None], None]

HEAD, ONE, BATCH = b"/v1/topics/", b"/messages", b"/messages/batch"
# Nothing of these changes what becomes of the message.
INDIFFERENT = frozenset({b"accept", b"accept-encoding", b"accept-language", b"connection", b"user-agent"})
UNDERSTOOD = frozenset(
    {b"host", b"content-length", b"content-type", b"authorization", b"partition-key", b"idempotency-key"}
)
JSON = b"application/json"
MAX_REMEMBERED = 4096
# No text that a header can hold is this one.
UNFIT = "\r\n"
DEFAULT_LINES = b"".join(b"%b: %b\r\n" % item for item in DEFAULT_ITEMS)
STATUS_LINES = {200: b"HTTP/1.1 200 OK", 201: b"HTTP/1.1 201 Created"}


class PlainPublish:
    """A ``connection.Shortcut``."""

    def __init__(
        self,
        gate: Gate,
        catalog: Catalog,
        publisher: Publisher,
        *,
        max_message_bytes: int,
        max_batch_bytes: int,
        loopback_only: bool,
    ) -> None:
        self._gate = gate
        self._catalog = catalog
        self._publisher = publisher
        self._max_message_bytes = max_message_bytes
        self._max_bytes = {ONE: max_message_bytes, BATCH: max_batch_bytes}
        self._loopback_only = loopback_only
        self._targets: dict[bytes, tuple[str, bytes]] = {}
        self._hosts: set[bytes] = set()

    def __call__(self, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Plain | None:
        target = self._targets.get(url) or self._target_of(url)
        if target is None:
            return None
        name, tail = target
        found: dict[bytes, bytes] = {}
        for header, value in headers:
            if header in INDIFFERENT:
                continue
            if header not in UNDERSTOOD or header in found:
                return None
            found[header] = value
        if not self._is_plain(found, self._max_bytes[tail]):
            return None
        caller = self._gate.known(found.get(b"authorization"))
        if caller is None or not caller.may("publish", name):
            return None
        topic = self._catalog.fresh_topic(caller.namespace.id, name)
        if topic is None or not self._publisher.takes_everything(topic):
            return None
        texts = (
            _text(found.get(b"partition-key"), key_fault),
            _text(found.get(b"idempotency-key"), idempotency_key_fault),
        )
        if UNFIT in texts or (tail is BATCH and texts != (None, None)):
            return None
        return Plain(self, caller, topic, tail is BATCH, *texts)

    def append(self, plain: Plain, body: bytes, respond: Respond) -> bool:
        try:
            messages: Sequence[NewMessage]
            if plain.is_batch:
                messages = batch_of(body, self._max_message_bytes)
            else:
                check_json(body, "body")
                messages = (NewMessage(body, plain.key, idempotency_key=plain.idempotency_key),)
            if not self._gate.spend(plain.caller, len(body)):
                return False
            answer = self._publisher.begin(plain.topic, messages)
        except LogpostError:
            return False
        answer.add_done_callback(partial(self._done, plain, respond))
        return True

    def _done(self, plain: Plain, respond: Respond, answer: Future[list[Landed]]) -> None:
        error = answer.exception()
        if error is None:
            landed = answer.result()
            respond(_published(*results(landed)) if plain.is_batch else _published(*result(landed)))
        elif isinstance(error, (Outdated, Refused)):
            self._catalog.forget_topic(plain.caller.namespace.id, plain.topic.name)
            respond(None)
        else:
            if not isinstance(error, LogpostError):
                path = f"/v1/topics/{plain.topic.name}/messages{'/batch' if plain.is_batch else ''}"
                log.error("request_failed", path=path, exc_info=error)
            respond(_problem(error))

    def _target_of(self, url: bytes) -> tuple[str, bytes] | None:
        """The name of the topic, and which of the two calls it is."""
        tail = next((tail for tail in (ONE, BATCH) if url.endswith(tail)), None)
        if tail is None or not url.startswith(HEAD):
            return None
        try:
            name = check_name("topic", url[len(HEAD) : -len(tail)].decode("ascii"))
        except (LogpostError, UnicodeDecodeError):
            return None
        if len(self._targets) >= MAX_REMEMBERED:
            self._targets.clear()
        self._targets[url] = name, tail
        return name, tail

    def _is_plain(self, found: Mapping[bytes, bytes], max_bytes: int) -> bool:
        """Whether its length is known and allowed, it is JSON, and it is us whom it is for."""
        length, host = found.get(b"content-length", b""), found.get(b"host")
        if not length.isdigit() or int(length) > max_bytes or host is None:
            return False
        return found.get(b"content-type", JSON) == JSON and (not self._loopback_only or self._is_ours(host))

    def _is_ours(self, host: bytes) -> bool:
        if host in self._hosts:
            return True
        if not LOOPBACK_HOST.fullmatch(host):
            return False
        if len(self._hosts) < MAX_REMEMBERED:
            self._hosts.add(host)
        return True


class Plain:
    """A ``connection.Taken``: what its topic will take as it is, if it is JSON. A batch has no key of its own."""

    __slots__ = ("_way", "caller", "idempotency_key", "is_batch", "key", "topic")

    def __init__(
        self,
        way: PlainPublish,
        caller: Caller,
        topic: Topic,
        is_batch: bool,
        key: str | None,
        idempotency_key: str | None,
    ) -> None:
        self._way = way
        self.caller = caller
        self.topic = topic
        self.is_batch = is_batch
        self.key = key
        self.idempotency_key = idempotency_key

    def answer(self, body: bytes, respond: Respond) -> bool:
        return self._way.append(self, body, respond)


def _text(value: bytes | None, fault_of: Callable[[str], str | None]) -> str | None:
    """UNFIT for what has to be refused."""
    if value is None:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return UNFIT
    return text if fault_of(text) is None else UNFIT


def _published(status: int, body: bytes) -> bytes:
    return b"%b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b" % (
        STATUS_LINES[status],
        len(body),
        new_request_id(),
        DEFAULT_LINES,
        body,
    )


def _problem(error: BaseException) -> bytes:
    status, headers, body = problem_response(error)
    lines = [*headers, (b"content-length", b"%d" % len(body)), (b"x-request-id", new_request_id()), *DEFAULT_ITEMS]
    head = b"".join(b"%b: %b\r\n" % line for line in lines)
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, HTTPStatus(status).phrase.encode(), head, body)
