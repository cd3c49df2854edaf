"""Request bodies of the fast lane: JSON into msgspec Structs, and what is wrong with them in the caller's words."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from app.domain.errors import Fault, InvalidField, InvalidJson

T = TypeVar("T")

_PATH = re.compile(r"(?P<reason>.*?) - at `(?P<path>.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`", re.DOTALL)


def decoded(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Raises InvalidJson, or InvalidField naming the field as the caller would write it (``nack[2].delayMs``)."""
    try:
        return decoder.decode(body.decode() if body else "{}")
    except msgspec.ValidationError as error:
        raise _fault(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson(f"The body is not valid JSON: {error}.", [Fault("is not valid JSON", "body")]) from None


def _fault(text: str) -> InvalidField:
    match = _PATH.fullmatch(text)
    reason, path = (match["reason"], match["path"].removeprefix("$").lstrip(".")) if match else (text, "")
    for pattern, said in ((_UNKNOWN, "there is no such field"), (_MISSING, "is required")):
        if found := pattern.fullmatch(reason):
            return InvalidField.of(f"{path}.{found['field']}" if path else found["field"], said)
    return InvalidField.of(path or "body", reason[:1].lower() + reason[1:])
