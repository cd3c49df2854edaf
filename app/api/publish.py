"""Publish over HTTP: the two calls of the fast lane, and the CloudEvents they take.

The body of a single publish is the message, its options are headers. A batch is ``{"messages": [{"message",
"options"}]}``. Payloads are checked, never decoded, and answers are written as text: what happens once per message here
is what a server spends its time on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from app.api.auth import Caller
from app.api.batch import MAX_BATCH, batch_of, check_size
from app.api.lane import Answer, Headers, Receive, read_body
from app.broker.publish import Publisher
from app.domain import cloudevents, options
from app.domain.errors import Fault, InvalidField, UnsupportedMedia
from app.domain.message import JSON, Landed, NewMessage, holds_json, iso, kept_content_type
from app.domain.payload import check_json

FORM = "application/x-www-form-urlencoded"
HEADER_PREFIX = b"message-header-"
CE_PREFIX = b"ce-"
TRACING = (b"traceparent", b"tracestate")
OPTIONS = (b"partition-key", b"idempotency-key", b"correlation-id", b"delay-ms", b"ttl-ms")
# As a person writes them.
SPELLED = {name: "-".join(word.capitalize() for word in name.decode().split("-")) for name in OPTIONS}


class PublishCalls:
    """``one`` and ``batch`` are calls of the lane."""

    def __init__(self, publisher: Publisher, *, max_message_bytes: int, max_batch_bytes: int) -> None:
        self._publish = publisher.publish
        self._max_message_bytes = max_message_bytes
        self._max_batch_bytes = max_batch_bytes

    async def one(self, caller: Caller, names: Sequence[str], headers: Headers, receive: Receive) -> Answer:
        found = dict(headers)
        content_type = _content_type(found)
        if content_type is not None and content_type.lower().startswith(cloudevents.STRUCTURED_TYPE):
            return await self._events(caller, names[0], content_type.lower(), headers, receive)

        body = await read_body(found, receive, self._max_message_bytes)
        given = _traced(_given(headers), headers)
        if not given and content_type is None:
            check_json(body, "body")
            message = NewMessage(body)
        else:
            message = _single(body, content_type, given)
        return result(await self._publish(caller.namespace.id, names[0], (message,)))

    async def batch(self, caller: Caller, names: Sequence[str], headers: Headers, receive: Receive) -> Answer:
        found = dict(headers)
        content_type = _content_type(found)
        if content_type is not None:
            if content_type.lower().startswith(cloudevents.BATCH_TYPE):
                return await self._events(caller, names[0], content_type.lower(), headers, receive)
            if not holds_json(content_type):
                taken = f"{JSON} or {cloudevents.BATCH_TYPE}+json"
                raise UnsupportedMedia(f"A batch is {taken}.", [Fault(f"must be {taken}", "Content-Type")])
        _refuse_options(_given(headers), "is given for each message of a batch, in its options")
        body = await read_body(found, receive, self._max_batch_bytes)
        messages = batch_of(body, self._max_message_bytes)
        return results(await self._publish(caller.namespace.id, names[0], messages, batch=True))

    async def _events(
        self, caller: Caller, topic: str, content_type: str, headers: Headers, receive: Receive
    ) -> Answer:
        if "json" not in content_type:
            raise UnsupportedMedia(
                "CloudEvents are taken in their JSON format.", [Fault("must be the JSON format", "Content-Type")]
            )
        given = _given(headers)
        if content_type.startswith(cloudevents.BATCH_TYPE):
            _refuse_options(given, "cannot be given for a batch of events")
            body = await read_body(dict(headers), receive, self._max_batch_bytes)
            events = cloudevents.from_batch(body, MAX_BATCH)
            for index, event in enumerate(events):
                options.check_headers(event.headers, f"[{index}]", index=index)
                check_size(len(event.payload), self._max_message_bytes, f"[{index}].data", index)
            return results(await self._publish(caller.namespace.id, topic, events, batch=True) if events else [])

        body = await read_body(dict(headers), receive, self._max_message_bytes)
        message = _with_options(cloudevents.from_structured(body), _traced(given, headers))
        return result(await self._publish(caller.namespace.id, topic, (message,)))


def result(parts: Sequence[Landed]) -> Answer:
    """What is answered to a publish of one message."""
    (landed,) = parts
    return 200 if landed.duplicate else 201, _each(landed)[0].encode()


def _each(landed: Landed) -> list[str]:
    """Messages that stand side by side in a record batch have most of their answer in common."""
    landing = landed.landing
    form = (
        f'{{"id":"{landing.id_prefix}%x","partition":{landing.partition},"offset":%d,'
        f'"publishedAt":"{iso(landing.published_at)}","duplicate":{"true" if landed.duplicate else "false"}}}'
    )
    first = landed.first_offset
    return [form % (offset, offset) for offset in range(first, first + landed.count)]


def results(parts: Sequence[Landed]) -> Answer:
    """What is answered to a publish of several messages, in input order."""
    texts = [""] * sum(landed.count for landed in parts)
    for landed in parts:
        for position, text in zip(landed.positions or range(landed.count), _each(landed), strict=True):
            texts[position] = text
    created = any(not landed.duplicate for landed in parts)
    return 201 if created else 200, f'{{"results":[{",".join(texts)}]}}'.encode()


def _content_type(headers: Mapping[bytes, bytes]) -> str | None:
    """None for JSON, also where nothing is said: curl's default for ``-d`` says nothing about the body either."""
    given = headers.get(b"content-type")
    if given is None or given == b"application/json":
        return None
    text = given.decode("latin-1")
    if not options.is_content_type(text):
        raise UnsupportedMedia("Content-Type: is no media type.", [Fault("is no media type", "Content-Type")])
    if text.lower().startswith(FORM):
        return None
    return kept_content_type(text)


def _given(headers: Headers) -> dict[bytes, bytes]:
    """Our own headers of the request. Raises InvalidField for one that is there twice."""
    given: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in SPELLED or name.startswith((HEADER_PREFIX, CE_PREFIX)):
            if name in given:
                raise InvalidField.of(_spelled(name), "is given twice")
            given[name] = value
    return given


def _traced(given: dict[bytes, bytes], headers: Headers) -> dict[bytes, bytes]:
    """With the caller's trace among the message's headers, so that delivery goes on in it. One that is malformed is
    ignored, as https://www.w3.org/TR/trace-context/ §4.3 asks; one that was given as a header of the message wins, and
    so do as many headers as a message may have."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name in TRACING:
            key, text = name.decode(), value.decode("latin-1")
            found[key] = f"{found[key]},{text}" if key in found else text
    if not found or HEADER_PREFIX + TRACING[0] in given:
        return given
    for key, text in options.trace_of(found):
        if sum(name.startswith(HEADER_PREFIX) for name in given) < options.MAX_HEADERS:
            given.setdefault(HEADER_PREFIX + key.encode(), text.encode())
    return given


def _refuse_options(given: Mapping[bytes, bytes], reason: str) -> None:
    for name in given:
        if not name.startswith(CE_PREFIX):
            raise InvalidField.of(_spelled(name), reason)


def _single(body: bytes, content_type: str | None, given: Mapping[bytes, bytes]) -> NewMessage:
    if b"ce-specversion" in given or b"ce-id" in given:
        attributes = {name.decode("latin-1"): _text(name, given[name]) for name in given if name.startswith(CE_PREFIX)}
        return _with_options(cloudevents.from_binary(attributes, body, content_type), given)
    if holds_json(content_type):
        check_json(body, "body")
    return _with_options(NewMessage(body, content_type=content_type), given)


def _with_options(message: NewMessage, given: Mapping[bytes, bytes]) -> NewMessage:
    """What the headers say goes before what an event says."""
    key = _checked(given, b"partition-key", options.key_fault)
    headers = message.headers
    for name, value in given.items():
        if name.startswith(HEADER_PREFIX):
            headers[name[len(HEADER_PREFIX) :].decode("latin-1")] = _text(name, value)
    if headers:
        options.check_headers(headers, "Message-Header")
    return NewMessage(
        message.payload,
        message.key if key is None else key,
        headers,
        _checked(given, b"correlation-id", options.correlation_id_fault),
        message.content_type,
        _checked(given, b"idempotency-key", options.idempotency_key_fault),
        _number(given, b"delay-ms", options.delay_fault),
        _number(given, b"ttl-ms", options.ttl_fault),
        message.event_key,
    )


def _checked(given: Mapping[bytes, bytes], name: bytes, fault_of: Callable[[str], str | None]) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    text = _text(name, value)
    if (fault := fault_of(text)) is not None:
        raise InvalidField.of(SPELLED[name], fault)
    return text


def _number(given: Mapping[bytes, bytes], name: bytes, fault_of: Callable[[int], str | None]) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    number = options.whole_number(value.decode("latin-1"))
    fault = "must be a whole number" if number is None else fault_of(number)
    if fault is not None:
        raise InvalidField.of(SPELLED[name], fault)
    return number


def _text(name: bytes, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidField.of(_spelled(name), "is not UTF-8") from None


def _spelled(name: bytes) -> str:
    if name.startswith(HEADER_PREFIX):
        return "Message-Header-" + name[len(HEADER_PREFIX) :].decode("latin-1")
    return SPELLED.get(name) or name.decode("latin-1")
