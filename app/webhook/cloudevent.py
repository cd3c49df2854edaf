"""Messages as CloudEvents 1.0 on their way out: the attributes, and the binary and structured forms.

HTTP protocol binding: cloudevents/bindings/http-protocol-binding.md; JSON: cloudevents/formats/json-format.md. A
message that came as a CloudEvent keeps its attributes, which are its ``ce-*`` headers; any other gets sensible ones.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

import msgspec

from app.domain.message import JSON, Message, holds_json, iso

STRUCTURED = "application/cloudevents+json; charset=UTF-8"
PREFIX = "ce-"
REQUIRED = ("id", "source", "type", "specversion")
# The type of a message that is no event of its publisher's.
TYPE = "logpost.message"

# Names that may be attributes; what the JSON form uses for the payload may not.
_NAME = re.compile(r"(?!data$|data_base64$|datacontenttype$)[a-z0-9]{1,64}")
# Binding §3.1.3.2: a blank, the double quote, the percent sign, and all outside of printable ASCII.
_ENCODED = re.compile(r"[^\x21-\x7e]|[\"%]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def attributes_of(
    message: Message, headers: Mapping[str, str], *, topic: str, message_id: str
) -> tuple[dict[str, str], dict[str, str]]:
    """The attributes of the event, and the message's headers that are none of them."""
    attributes: dict[str, str] = {}
    rest: dict[str, str] = {}
    for name, value in headers.items():
        attribute = name.lower().removeprefix(PREFIX)
        if name.lower().startswith(PREFIX) and _NAME.fullmatch(attribute) and value:
            attributes[attribute] = value
        elif name.lower() != f"{PREFIX}datacontenttype":
            # The content type speaks for itself, and must not be said twice.
            rest[name] = value
    if not all(name in attributes for name in REQUIRED):
        attributes = {
            "specversion": "1.0",
            "id": message_id,
            "source": f"/topics/{topic}",
            "type": TYPE,
            "time": iso(message.published_at),
        } | attributes
    if message.key:
        attributes.setdefault("partitionkey", message.key)
    return attributes, rest


def header_value(text: str) -> str:
    """An attribute's value in the binary form: percent-encoded UTF-8, upper-case hexadecimal."""
    return _ENCODED.sub(_percent_encoded, text)


def structured(attributes: Mapping[str, str], payload: bytes, content_type: str | None) -> bytes:
    """The whole event as one JSON document. JSON payloads are spliced in as they are, others as base64."""
    members = {name: _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", value) for name, value in attributes.items()}
    members["datacontenttype"] = _SURROGATES.sub("", content_type or JSON)
    head = msgspec.json.encode(members)[:-1]
    if holds_json(content_type):
        return b'%b,"data":%b}' % (head, payload)
    return b'%b,"data_base64":"%b"}' % (head, base64.b64encode(payload))


def _percent_encoded(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
