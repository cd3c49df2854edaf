"""The request of one push: which bytes and headers a receiver gets. Nothing here sends, so nothing here can fail late.

Whatever a message holds, a request can be built from it: what HTTP has no way to say is percent-encoded. What people
configure is checked when they declare it (``check_headers``), where they can still be told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import quote

import msgspec

from app.domain.errors import InvalidField
from app.domain.group import Group
from app.domain.message import JSON, Message
from app.domain.options import TRACEPARENT, trace_of
from app.domain.partition import number_of
from app.domain.secret import require_readable, values_to_mask
from app.domain.signature import parse_secret, sign
from app.webhook import cloudevent

USER_AGENT: Final = "Logpost/1"
MAX_HEADERS = 32
MAX_HEADER_BYTES = 8192

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x20-\x7e\t]*")
# What no header value can carry: controls, and halves of surrogate pairs, which UTF-8 cannot write.
_UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")

# Headers that frame a request, belong to one connection, or are ours to say.
_FRAMING = (
    "host content-length transfer-encoding content-encoding content-type expect te trailer connection keep-alive "
    "upgrade http2-settings accept-encoding proxy-connection proxy-authorization proxy-authenticate"
)
_RESERVED = frozenset((*_FRAMING.split(), "correlation-id"))
_RESERVED_PREFIXES = ("webhook-", "logpost-", "message-header-", "ce-", "proxy-")


class Request(msgspec.Struct, frozen=True, gc=False):
    """A POST as it will be sent. ``timeout_ms`` bounds all of it, from the first look-up to the status.

    ``hidden``: what must not show of an answer that repeats it. ``is_traced``: its trace is the message's, and its
    receiver may be told of the span it is sent in.
    """

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    timeout_ms: int
    hidden: tuple[str, ...] = ()
    is_traced: bool = False


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """The stored document beside a payload (``domain/message.py``, meta_of)."""

    headers: dict[str, str] = {}
    correlation_id: str | None = None
    content_type: str | None = None


NO_META = Meta()
_decode_meta = msgspec.json.Decoder(Meta).decode
_JSON = (("Content-Type", JSON),)


def check_headers(headers: Mapping[str, str], field: str = "delivery.headers") -> None:
    """Raises InvalidField naming ``field.<name>`` for a header that could reframe a request or pass for one of ours."""
    if len(headers) > MAX_HEADERS:
        raise InvalidField.of(field, f"must be at most {MAX_HEADERS}")
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_HEADER_BYTES:
        raise InvalidField.of(field, f"must have at most {MAX_HEADER_BYTES} characters together")
    seen: set[str] = set()
    for name, value in headers.items():
        if _TOKEN.fullmatch(name) is None:
            # The name cannot be repeated as it is: it may hold anything.
            raise InvalidField.of(f"{field}.{ascii(name)[1:-1]}", "is not a valid header name")
        where, lower = f"{field}.{name}", name.lower()
        if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
            raise InvalidField.of(where, "is set by the server and cannot be configured")
        if lower in seen:
            raise InvalidField.of(where, "is there twice, spelled differently")
        seen.add(lower)
        if _VALUE.fullmatch(value) is None:
            raise InvalidField.of(where, "must be printable ASCII without line breaks")


class Letterhead:
    """What all requests to the endpoint of ``group`` have in common. Worked out once: it costs three times what signing
    a message does.

    Raises SecretUnreadable if anything of the delivery cannot be read: nothing is sent that is half signed.
    """

    def __init__(self, group: Group) -> None:
        delivery = group.config.delivery
        assert delivery.url is not None
        require_readable((delivery.secret, *delivery.headers.values()))
        configured = {name.lower() for name in delivery.headers}
        self.group = group
        self.is_hook = group.is_hook
        self._url = delivery.url
        self._delivery = delivery
        self._key = None if delivery.secret is None else parse_secret(delivery.secret)
        self._hidden = values_to_mask(delivery.headers)
        # Whose log a hook's event is in is nobody's affair.
        headers = [] if self.is_hook else [("Logpost-Topic", group.topic), ("Logpost-Group", group.name)]
        headers += delivery.headers.items()
        if "user-agent" not in configured:
            headers.append(("User-Agent", USER_AGENT))
        self._headers = tuple(headers)
        self.is_traced = not self.is_hook and TRACEPARENT not in configured

    def request(
        self,
        webhook_id: str,
        body: bytes,
        headers: Iterable[tuple[str, str]],
        *,
        now: datetime,
        timeout_ms: int,
        is_traced: bool = False,
    ) -> Request:
        """With the headers of Standard Webhooks beside these; without secrets it is not signed."""
        timestamp = int(now.timestamp())
        signing = [("webhook-id", webhook_id), ("webhook-timestamp", str(timestamp))]
        if keys := self._keys(now):
            signing.append(("webhook-signature", sign(webhook_id, timestamp, body, keys)))
        return Request(self._url, (*signing, *headers, *self._headers), body, timeout_ms, self._hidden, is_traced)

    def _keys(self, now: datetime) -> Sequence[bytes]:
        """The key that signs now, and the one it replaced while their overlap lasts."""
        replaced = self._delivery.overlapping(now)
        if self._key is None:
            return ()
        if replaced is None:
            return (self._key,)
        require_readable((replaced,))
        return self._key, parse_secret(replaced)


def delivery_request(
    letterhead: Letterhead, message: Message, *, message_id: str, attempt: int, ack_id: str, now: datetime
) -> Request:
    """The request of one attempt at delivering ``message`` to a push group. ``now`` dates and signs it."""
    group = letterhead.group
    timeout_ms = group.config.ack_timeout_ms
    if letterhead.is_hook:  # what is told is the event (domain/hook.py)
        return letterhead.request(message_id, message.payload, _JSON, now=now, timeout_ms=timeout_ms)
    meta = NO_META if message.meta is None else _decode_meta(message.meta)
    body, describing = shaped(group.config.delivery.format, group, message, message_id, meta)
    headers = [
        ("Logpost-Partition", str(number_of(message.partition_id))),
        ("Logpost-Offset", str(message.offset)),
        ("Logpost-Attempt", str(attempt)),
        ("Logpost-Max-Attempts", str(group.config.max_attempts)),
        ("Logpost-Ack-Id", ack_id),
        *describing,
    ]
    if message.key is not None:
        headers.append(("Logpost-Key", quote(message.key.encode("utf-8", "surrogatepass"), safe="")))
    if meta.correlation_id is not None:
        headers.append(("Correlation-Id", header_value(meta.correlation_id)))
    if letterhead.is_traced and meta.headers:
        headers += trace_of(meta.headers)
    return letterhead.request(
        message_id, body, headers, now=now, timeout_ms=timeout_ms, is_traced=letterhead.is_traced
    )  # fmt: skip


def header_value(text: str) -> str:
    """``text`` where a header can carry it, as UTF-8; control characters and lone surrogates percent-encoded."""
    return _UNWRITABLE.sub(_percent_encoded, text)


def shaped(
    wanted: str, group: Group, message: Message, message_id: str, meta: Meta
) -> tuple[bytes, Sequence[tuple[str, str]]]:
    """The body in the group's format, and the headers that describe it."""
    if meta is NO_META and wanted == "raw":
        return message.payload, _JSON
    if wanted == "raw":
        content_type = header_value(meta.content_type or JSON)
        return message.payload, [("Content-Type", content_type), *_message_headers(meta.headers)]
    attributes, rest = cloudevent.attributes_of(message, meta.headers, topic=group.topic, message_id=message_id)
    if wanted == "cloudevents-binary":
        content_type = header_value(meta.content_type or JSON)
        event = [(f"ce-{name}", cloudevent.header_value(value)) for name, value in attributes.items()]
        return message.payload, [("Content-Type", content_type), *event, *_message_headers(rest)]
    body = cloudevent.structured(attributes, message.payload, meta.content_type)
    return body, [("Content-Type", cloudevent.STRUCTURED), *_message_headers(rest)]


def _message_headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(f"Message-Header-{_header_name(name)}", header_value(value)) for name, value in headers.items()]


def _header_name(name: str) -> str:
    if _TOKEN.fullmatch(name):
        return name
    return quote(name.encode("utf-8", "surrogatepass"), safe="!#$&'*+.^_`|~-")


def _percent_encoded(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
