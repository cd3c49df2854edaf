"""The plainest publish, answered without ASGI: one JSON message to a topic that takes everything.

It does what lane, edge and ``PublishCalls.one`` do, for requests that need nothing else of them. Whatever is unusual
(another header, an unknown topic, a key that has to be looked up, a body that is no JSON) is left to them, so that no
refusal is worded here. Both ways give the same answers to the byte: tests/process/test_shortcut.py.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus

from app.api.auth import Caller, Gate
from app.api.edge import DEFAULT_ITEMS, LOOPBACK_HOST, new_request_id
from app.api.problems import problem_response
from app.api.publish import result
from app.broker.catalog import Catalog
from app.broker.publish import Publisher
from app.domain.errors import LogpostError, Refused
from app.domain.message import NewMessage, Published
from app.domain.names import check_name
from app.domain.options import key_fault
from app.domain.payload import check_json
from app.domain.topic import Topic
from app.storage.database import Outdated
from app.telemetry import log

# What goes out, head and all; None if ASGI has to answer after all (connection/shortcut.py).
Respond = Callable[[bytes | None], None]

HEAD, TAIL = b"/v1/topics/", b"/messages"
# Nothing of these changes what becomes of the message.
INDIFFERENT = frozenset({b"accept", b"accept-encoding", b"accept-language", b"connection", b"user-agent"})
MAX_REMEMBERED = 4096
DEFAULT_LINES = b"".join(b"%b: %b\r\n" % item for item in DEFAULT_ITEMS)


class PlainPublish:
    """A ``connection.Shortcut``."""

    def __init__(
        self, gate: Gate, catalog: Catalog, publisher: Publisher, *, max_message_bytes: int, loopback_only: bool
    ) -> None:
        self._gate = gate
        self._catalog = catalog
        self._publisher = publisher
        self._max_message_bytes = max_message_bytes
        self._loopback_only = loopback_only
        self._topics: dict[bytes, str] = {}
        self._hosts: set[bytes] = set()

    def __call__(self, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Plain | None:
        name = self._topics.get(url) or self._name_in(url)
        if name is None:
            return None
        authorization = key = host = length = None
        for header, value in headers:
            if header in INDIFFERENT:
                continue
            if header == b"content-length" and length is None:
                length = value
            elif header == b"host" and host is None:
                host = value
            elif header == b"partition-key" and key is None:
                key = value
            elif header == b"authorization" and authorization is None:
                authorization = value
            elif header != b"content-type" or value != b"application/json":
                return None
        if length is None or not length.isdigit() or int(length) > self._max_message_bytes or not self._is_ours(host):
            return None
        caller = self._gate.known(authorization)
        if caller is None or not caller.may("publish", name):
            return None
        topic = self._catalog.fresh_topic(caller.namespace.id, name)
        if topic is None or not self._publisher.takes_everything(topic):
            return None
        text = _key(key)
        return None if text is None and key is not None else Plain(self, caller, topic, text)

    def append(self, plain: Plain, body: bytes, respond: Respond) -> bool:
        try:
            check_json(body, "body")
            answer = self._publisher.begin(plain.topic, NewMessage(body, plain.key))
        except LogpostError:
            return False
        answer.add_done_callback(partial(self._done, plain, respond))
        return True

    def _done(self, plain: Plain, respond: Respond, answer: Future[list[Published]]) -> None:
        error = answer.exception()
        if error is None:
            respond(_created(result(answer.result()[0]).encode()))
        elif isinstance(error, (Outdated, Refused)):
            self._catalog.forget_topic(plain.caller.namespace.id, plain.topic.name)
            respond(None)
        else:
            if not isinstance(error, LogpostError):
                log.error("request_failed", path=f"/v1/topics/{plain.topic.name}/messages", exc_info=error)
            respond(_problem(error))

    def _name_in(self, url: bytes) -> str | None:
        if not (url.startswith(HEAD) and url.endswith(TAIL)):
            return None
        try:
            name = check_name("topic", url[len(HEAD) : -len(TAIL)].decode("ascii"))
        except (LogpostError, UnicodeDecodeError):
            return None
        if len(self._topics) >= MAX_REMEMBERED:
            self._topics.clear()
        self._topics[url] = name
        return name

    def _is_ours(self, host: bytes | None) -> bool:
        if not self._loopback_only or host in self._hosts:
            return host is not None
        if host is None or not LOOPBACK_HOST.fullmatch(host):
            return False
        if len(self._hosts) < MAX_REMEMBERED:
            self._hosts.add(host)
        return True


class Plain:
    """A ``connection.Taken``: a message that its topic will take as it is, if it is JSON."""

    __slots__ = ("_way", "caller", "key", "topic")

    def __init__(self, way: PlainPublish, caller: Caller, topic: Topic, key: str | None) -> None:
        self._way = way
        self.caller = caller
        self.topic = topic
        self.key = key

    def answer(self, body: bytes, respond: Respond) -> bool:
        return self._way.append(self, body, respond)


def _key(value: bytes | None) -> str | None:
    """None for a key that has to be refused, too."""
    if value is None:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if key_fault(text) is None else None


def _created(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b"
        % (len(body), new_request_id(), DEFAULT_LINES, body)
    )


def _problem(error: BaseException) -> bytes:
    status, headers, body = problem_response(error)
    lines = [*headers, (b"content-length", b"%d" % len(body)), (b"x-request-id", new_request_id()), *DEFAULT_ITEMS]
    head = b"".join(b"%b: %b\r\n" % line for line in lines)
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, HTTPStatus(status).phrase.encode(), head, body)
