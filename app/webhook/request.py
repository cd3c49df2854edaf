"""The request of one push: which bytes and headers a receiver gets. Nothing here sends, so nothing here can fail late.

Whatever a message holds, a request can be built from it: what HTTP has no way to say is percent-encoded. What people
configure is checked when they declare it (``check_headers``), where they can still be told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from urllib.parse import quote

import msgspec

from app.domain import message as messages
from app.domain.errors import InvalidField
from app.domain.group import Delivery, Group, GroupConfig
from app.domain.message import JSON, Message
from app.domain.options import TRACEPARENT, trace_of
from app.domain.partition import number_of
from app.domain.secret import values_to_mask
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


@dataclass(frozen=True, slots=True)
class Request:
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


class Meta(msgspec.Struct, rename="camel"):
    """The stored document beside a payload (``domain/message.py``, meta_of)."""

    headers: dict[str, str] = {}
    correlation_id: str | None = None
    content_type: str | None = None


_decode_meta = msgspec.json.Decoder(Meta).decode


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


def delivery_request(group: Group, message: Message, *, attempt: int, ack_id: str, now: datetime) -> Request:
    """The request of one attempt at delivering ``message`` to a push group. ``now`` dates and signs it."""
    config = group.config
    assert config.delivery.url is not None
    message_id = messages.message_id(message.partition_id, message.published_at, message.offset)
    if config.delivery.format == "hook":
        return _hook_request(config, message, message_id, now)
    meta = Meta() if message.meta is None else _decode_meta(message.meta)
    own = [
        ("Logpost-Topic", group.topic),
        ("Logpost-Group", group.name),
        ("Logpost-Partition", str(number_of(message.partition_id))),
        ("Logpost-Offset", str(message.offset)),
        ("Logpost-Attempt", str(attempt)),
        ("Logpost-Max-Attempts", str(config.max_attempts)),
        ("Logpost-Ack-Id", ack_id),
    ]
    if message.key is not None:
        own.append(("Logpost-Key", quote(message.key.encode("utf-8", "surrogatepass"), safe="")))
    if meta.correlation_id is not None:
        own.append(("Correlation-Id", header_value(meta.correlation_id)))
    is_traced = TRACEPARENT not in {name.lower() for name in config.delivery.headers}
    if is_traced:
        own += trace_of(meta.headers)
    body, describing = shaped(config.delivery.format, group, message, message_id, meta)
    request = signed_request(
        config.delivery.url,
        body,
        webhook_id=message_id,
        now=now,
        secrets=secrets_of(config.delivery, now),
        headers=(*own, *describing, *config.delivery.headers.items()),
        timeout_ms=config.ack_timeout_ms,
        hidden=values_to_mask(config.delivery.headers),
    )
    return replace(request, is_traced=is_traced)


def _hook_request(config: GroupConfig, event: Message, event_id: str, now: datetime) -> Request:
    """Tells a hook of an event (domain/hook.py), and of nothing else: its log is nobody's affair."""
    assert config.delivery.url is not None
    return signed_request(
        config.delivery.url,
        event.payload,
        webhook_id=event_id,
        now=now,
        secrets=secrets_of(config.delivery, now),
        headers=(("Content-Type", JSON),),
        timeout_ms=config.ack_timeout_ms,
    )


def signed_request(
    url: str,
    body: bytes,
    *,
    webhook_id: str,
    now: datetime,
    secrets: Iterable[str],
    headers: Iterable[tuple[str, str]],
    timeout_ms: int,
    hidden: tuple[str, ...] = (),
) -> Request:
    """A request with the headers of Standard Webhooks; without secrets it is not signed."""
    timestamp = int(now.timestamp())
    keys = [parse_secret(secret) for secret in secrets]
    signing = [("webhook-id", webhook_id), ("webhook-timestamp", str(timestamp))]
    if keys:
        signing.append(("webhook-signature", sign(webhook_id, timestamp, body, keys)))
    sent = [*signing, *headers]
    if not any(name.lower() == "user-agent" for name, _ in sent):
        sent.append(("User-Agent", USER_AGENT))
    return Request(url, tuple(sent), body, timeout_ms, hidden)


def secrets_of(delivery: Delivery, now: datetime) -> tuple[str, ...]:
    """The secrets that sign now: the present one first, then the one it replaced while their overlap lasts.

    Raises SecretUnreadable if anything of the delivery cannot be read: nothing is sent that is half signed.
    """
    delivery.require_readable(now)
    return tuple(secret for secret in (delivery.secret, delivery.overlapping(now)) if secret is not None)


def header_value(text: str) -> str:
    """``text`` where a header can carry it, as UTF-8; control characters and lone surrogates percent-encoded."""
    return _UNWRITABLE.sub(_percent_encoded, text)


def shaped(
    wanted: str, group: Group, message: Message, message_id: str, meta: Meta
) -> tuple[bytes, list[tuple[str, str]]]:
    """The body in the group's format, and the headers that describe it."""
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
