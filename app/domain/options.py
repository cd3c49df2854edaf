"""The options of a message: what may be in its key, headers and the rest, so that it can be sent on as it came.

A header travels to webhooks as an HTTP header: its name is a token of RFC 9110 §5.6.2, its value has no control
characters and no blanks around it. A key is kept in Postgres, whose text has no NUL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from app.domain.errors import InvalidField

MAX_KEY_BYTES = 1024
MAX_IDEMPOTENCY_KEY_BYTES = 255
MAX_CORRELATION_ID_BYTES = 255
MAX_CONTENT_TYPE_BYTES = 255
MAX_HEADERS = 32
MAX_HEADER_BYTES = 8 * 1024
MAX_HEADER_NAME = 128
YEAR_MS = 365 * 24 * 60 * 60 * 1000

_TOKEN = re.compile(rf"[!#$%&'*+\-.^_`|~0-9A-Za-z]{{1,{MAX_HEADER_NAME}}}")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CONTENT_TYPE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+/[!#$%&'*+\-.^_`|~0-9A-Za-z]+[ \t]*(;[\x20-\x7e\t]*)?")
# Another version than 00 may go on after the flags; nothing is known about it, so it is not carried.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
# What a vendor adds of its own; https://www.w3.org/TR/trace-context/ §3.3.1.5 asks for 512 characters at least.
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
_DIGITS = re.compile(r"[0-9]{1,15}")


def key_fault(key: str) -> str | None:
    """What is wrong with a partition key."""
    if "\0" in key:
        return "must not contain NUL"
    return None if len(key) * 4 <= MAX_KEY_BYTES else _length_fault(key, MAX_KEY_BYTES)


def idempotency_key_fault(key: str) -> str | None:
    if not key:
        return "must not be empty"
    if "\0" in key:
        return "must not contain NUL"
    return _length_fault(key, MAX_IDEMPOTENCY_KEY_BYTES)


def correlation_id_fault(value: str) -> str | None:
    return value_fault(value) or _length_fault(value, MAX_CORRELATION_ID_BYTES)


def value_fault(value: str) -> str | None:
    """What is wrong with the value of a header."""
    if _CONTROLS.search(value):
        return "must not contain control characters"
    if value != value.strip(" \t"):
        return "must not begin or end with a blank"
    return None if value.isascii() else _length_fault(value, MAX_HEADER_BYTES)


def delay_fault(milliseconds: int) -> str | None:
    return None if 0 <= milliseconds <= YEAR_MS else f"must be between 0 and {YEAR_MS}"


def ttl_fault(milliseconds: int) -> str | None:
    return None if 1 <= milliseconds <= YEAR_MS else f"must be between 1 and {YEAR_MS}"


def is_traceparent(value: str) -> bool:
    """Whether it says which trace a message belongs to, as https://www.w3.org/TR/trace-context/ §3.2 has it."""
    return _TRACEPARENT.fullmatch(value) is not None


def trace_of(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers that say so, without what is malformed: nothing at all without a traceparent."""
    parent, state = headers.get(TRACEPARENT, ""), headers.get(TRACESTATE, "")
    if not is_traceparent(parent):
        return []
    return [(TRACEPARENT, parent), *([(TRACESTATE, state)] if _TRACESTATE.fullmatch(state) else [])]


def is_content_type(text: str) -> bool:
    return len(text) <= MAX_CONTENT_TYPE_BYTES and _CONTENT_TYPE.fullmatch(text) is not None


def whole_number(text: str) -> int | None:
    """A header's number: decimal digits and nothing else."""
    return int(text) if _DIGITS.fullmatch(text) else None


def check_headers(headers: Mapping[str, str], field: str, *, index: int | None = None) -> None:
    """Raises InvalidField, which names the header under ``field``."""
    if len(headers) > MAX_HEADERS:
        raise InvalidField.of(field, f"has {len(headers)} headers, {MAX_HEADERS} are allowed", index=index)
    names: set[str] = set()
    size = 0
    for name, value in headers.items():
        if _TOKEN.fullmatch(name) is None:
            reason = f"a name must be 1 to {MAX_HEADER_NAME} of A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~"
            raise InvalidField.of(f"{field}.{name[:MAX_HEADER_NAME]}", reason, index=index)
        if name.lower() in names:
            raise InvalidField.of(f"{field}.{name}", "is given twice, names have no upper and lower case", index=index)
        names.add(name.lower())
        if (fault := value_fault(value)) is not None:
            raise InvalidField.of(f"{field}.{name}", fault, index=index)
        size += len(name) + len(value.encode())
    if size > MAX_HEADER_BYTES:
        raise InvalidField.of(field, f"takes {size} bytes, {MAX_HEADER_BYTES} are allowed", index=index)


def _length_fault(text: str, most: int) -> str | None:
    if len(text) * 4 <= most:
        return None
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode text"
    return None if size <= most else f"takes {size} bytes, {most} are allowed"
