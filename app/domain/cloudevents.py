"""CloudEvents 1.0 on their way in: binary, structured and batched mode of the HTTP binding.

cloudevents/bindings/http-protocol-binding.md and cloudevents/formats/json-format.md. The data is the message, every
other attribute becomes a header ``ce-<name>``; ``datacontenttype`` is the content type and ``partitionkey`` the key.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from app.domain.errors import Fault, InvalidField
from app.domain.message import NewMessage, holds_json, kept_content_type
from app.domain.options import MAX_IDEMPOTENCY_KEY_BYTES, is_content_type, key_fault
from app.domain.payload import check_depth, check_json, invalid_json

BATCH_TYPE = "application/cloudevents-batch"
STRUCTURED_TYPE = "application/cloudevents"
PREFIX = "ce-"
REQUIRED = ("id", "source", "specversion", "type")
STRINGS = frozenset((*REQUIRED, "datacontenttype", "dataschema", "subject", "time"))
UNKNOWN_TYPE = "application/octet-stream"

_NAME = re.compile(r"[a-z0-9]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LEAP = re.compile(r":60(?=[.Z+-])")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_decode_event = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_events = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_NULL = b"null"
_MAX_INTEGER = 2**31 - 1


def from_binary(headers: Mapping[str, str], data: bytes, content_type: str | None) -> NewMessage:
    """``headers``: the request's ``ce-*`` headers as they came, still percent-encoded, names in lower case."""
    attributes = {name.removeprefix(PREFIX): _header_value(name, value) for name, value in headers.items()}
    if "datacontenttype" in attributes:
        raise InvalidField.of("ce-datacontenttype", "the data's type is what Content-Type says in binary mode")
    if not data and content_type is None:
        data = _NULL
    if holds_json(content_type):
        check_json(data, "body")
    return _message(attributes, data, content_type, PREFIX, None)


def from_structured(body: bytes) -> NewMessage:
    """One event in the JSON format."""
    return _from_members(_decoded(body, _decode_event), "", None)


def from_batch(body: bytes, most: int) -> list[NewMessage]:
    """An array of events in the JSON format, at most so many."""
    events = _decoded(body, _decode_events)
    if len(events) > most:
        raise InvalidField.of("body", f"has {len(events)} events, {most} are allowed")
    return [_from_members(members, f"[{index}].", index) for index, members in enumerate(events)]


def _decoded(body: bytes, decode: Any) -> Any:
    try:
        if not body.isascii():
            body.decode()
        return decode(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise invalid_json(error, "body", empty=not body.strip()) from None


def _from_members(members: dict[str, msgspec.Raw], where: str, index: int | None) -> NewMessage:
    """``where`` goes before a name to say which event it is of."""
    data = members.pop("data", None)
    data_base64 = members.pop("data_base64", None)
    attributes: dict[str, str] = {}
    for name, raw in members.items():
        value = _attribute(bytes(raw), f"{where}{name}", index)
        if value is not None and name in STRINGS and not bytes(raw).startswith(b'"'):
            raise InvalidField.of(f"{where}{name}", "must be a string", index=index)
        if value is not None:
            attributes[name] = value
    content_type = attributes.pop("datacontenttype", None)
    if content_type is not None and not is_content_type(content_type):
        raise InvalidField.of(f"{where}datacontenttype", "is no media type", index=index)
    if data is not None and data_base64 is not None:
        raise InvalidField.of(f"{where}data_base64", "may not be given together with data", index=index)
    if data_base64 is not None:
        payload = _from_base64(data_base64, f"{where}data_base64", index)
        content_type = content_type or UNKNOWN_TYPE
        if holds_json(content_type):
            check_json(payload, f"{where}data_base64")
    else:
        payload = _from_data(data, content_type, f"{where}data", index)
    return _message(attributes, payload, content_type, where, index)


def _from_base64(raw: msgspec.Raw, field: str, index: int | None) -> bytes:
    text = _string(bytes(raw))
    try:
        if text is not None:
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidField.of(field, "must be a string of base64", index=index)


def _from_data(data: msgspec.Raw | None, content_type: str | None, field: str, index: int | None) -> bytes:
    """JSON format §3.1: a JSON type has its value in ``data``; another one has its text there, as a string."""
    payload = _NULL if data is None else bytes(data)
    if holds_json(content_type):
        check_depth(payload, field)
        return payload
    if data is None:
        return b""
    text = _string(payload)
    if text is None:
        raise InvalidField.of(field, "must be a string where datacontenttype is not JSON", index=index)
    return text.encode()


def _message(
    attributes: dict[str, str], payload: bytes, content_type: str | None, where: str, index: int | None
) -> NewMessage:
    for name in attributes:
        if _NAME.fullmatch(name) is None:
            raise InvalidField.of(f"{where}{name}", "names of attributes are of a-z and 0-9", index=index)
    for name in REQUIRED:
        if not attributes.get(name):
            raise InvalidField.of(f"{where}{name}", "is required", index=index)
    if attributes["specversion"] != "1.0":
        raise InvalidField.of(f"{where}specversion", "must be 1.0", index=index)
    if (time := attributes.get("time")) is not None and not _is_time(time):
        raise InvalidField.of(f"{where}time", "must be a date and time as RFC 3339 has them", index=index)
    key = attributes.get("partitionkey")
    if key is not None and (fault := key_fault(key)) is not None:
        raise InvalidField.of(f"{where}partitionkey", fault, index=index)
    return NewMessage(
        payload,
        key=key,
        headers={f"{PREFIX}{name}": value for name, value in attributes.items()},
        content_type=kept_content_type(content_type),
        event_key=_event_key(attributes["source"], attributes["id"]),
    )


def _is_time(text: str) -> bool:
    """Whether this is a timestamp of RFC 3339 §5.6; the 60th second of a minute (§5.7) counts as its 59th."""
    if _TIME.fullmatch(text) is None:
        return False
    try:
        datetime.fromisoformat(_LEAP.sub(":59", text.upper()))
    except ValueError:
        return False
    return True


def _event_key(source: str, event_id: str) -> str:
    """``source`` and ``id`` together name an event."""
    key = f"{source} {event_id}"
    return key if len(key) * 4 <= MAX_IDEMPOTENCY_KEY_BYTES else sha256(key.encode()).hexdigest()


def _attribute(raw: bytes, field: str, index: int | None) -> str | None:
    """The canonical string of an attribute: a string, boolean or 32-bit integer. null is as if it were not there."""
    value = msgspec.json.decode(raw)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and -_MAX_INTEGER - 1 <= value <= _MAX_INTEGER:
        return str(value)
    raise InvalidField.of(field, "must be a string, a boolean or a 32-bit integer", index=index)


def _string(raw: bytes) -> str | None:
    value = msgspec.json.decode(raw)
    return value if isinstance(value, str) else None


def _header_value(name: str, value: str) -> str:
    """Binding §3.1.3.2: unquote what is in double quotes, then undo the percent-encoding, once."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = _ESCAPE.sub(r"\1", value[1:-1])
    if "%" not in value:
        return value
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        reason = "is not UTF-8 after percent-decoding"
        raise InvalidField(f"{name}: {reason}.", [Fault(reason, name)]) from None
