"""Lines of JSON on their way to a topic: cut into batches, each one the body of a publish, without any I/O.

A line is checked to be one JSON value and then spliced in as it is: decoding it and encoding it again would change
numbers and spelling, and the payload is the publisher's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

MAX_MESSAGES = 1000
# With one more message of the largest size, still well below what a server takes unless told otherwise.
MAX_BYTES = 4 * 1024 * 1024


class LineError(Exception):
    """A line that cannot be published; says which one and why."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number}: {reason}")


@dataclass(slots=True)
class Batch:
    """``lines``: the number of each message's line in the input, from 1. ``size``: bytes of the input it covers."""

    parts: list[bytes] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    size: int = 0
    weight: int = 0

    def add(self, part: bytes, line: int) -> None:
        self.parts.append(part)
        self.lines.append(line)
        self.weight += len(part)

    @property
    def body(self) -> bytes:
        return b'{"messages":[' + b",".join(self.parts) + b"]}"


@dataclass(frozen=True, slots=True)
class Options:
    """What every message of the input gets, and where in a message its own key is.

    ``key_field`` and ``idempotency_field``: a JSON pointer (``/customer/id``) or the name of a field of the message.
    ``idempotency_prefix``: followed by the line's number, it is the idempotency key of a message without its own.
    """

    fixed: Mapping[str, Any] = field(default_factory=dict)
    key_field: str | None = None
    idempotency_field: str | None = None
    idempotency_prefix: str | None = None


def batches(lines: Iterable[bytes | None], options: Options, *, most: int = MAX_MESSAGES) -> Iterator[Batch]:
    """At most ``most`` messages and about ``MAX_BYTES`` each; blank lines are passed over.

    None among the lines is a pause of unknown length: what is there is sent now. Raises LineError.
    """
    batch = Batch()
    number = 0
    for line in lines:
        if line is None:
            if batch.lines:
                yield batch
                batch = Batch()
            continue
        number += 1
        batch.size += len(line)
        if text := line.strip():
            batch.add(_part(text, number, options), number)
        if len(batch.lines) == most or batch.weight >= MAX_BYTES:
            yield batch
            batch = Batch()
    if batch.lines:
        yield batch


def value_at(document: Any, pointer: str) -> Any:
    """What an RFC 6901 pointer, or the bare name of a field, leads to; None if it leads nowhere."""
    if not pointer.startswith("/"):
        return document.get(pointer) if isinstance(document, dict) else None
    for token in pointer[1:].split("/"):
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict):
            document = document.get(name)
        elif isinstance(document, list) and name.isdecimal() and int(name) < len(document):
            document = document[int(name)]
        else:
            return None
    return document


def _part(text: bytes, number: int, options: Options) -> bytes:
    own = dict(options.fixed)
    document = _checked(text, number, whole=bool(options.key_field or options.idempotency_field))
    if options.key_field and (key := _key_at(document, options.key_field, number)) is not None:
        own["partitionKey"] = key
    if options.idempotency_field:
        own["idempotencyKey"] = _key_at(document, options.idempotency_field, number)
        if own["idempotencyKey"] is None:
            raise LineError(number, f"there is nothing at {options.idempotency_field}")
    elif options.idempotency_prefix is not None:
        own["idempotencyKey"] = f"{options.idempotency_prefix}-{number}"
    tail = b',"options":' + json.dumps(own, ensure_ascii=False).encode() if own else b""
    return b'{"message":' + text + tail + b"}"


def _checked(text: bytes, number: int, *, whole: bool) -> Any:
    """Exactly one JSON value in UTF-8, or the splice would say something else. Decoded if ``whole``."""
    try:
        text.decode()  # msgspec passes over strings without looking whether they are UTF-8
        return msgspec.json.decode(text, type=Any if whole else msgspec.Raw)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise LineError(number, f"not JSON ({error})") from error


def _key_at(document: Any, pointer: str, number: int) -> str | None:
    value = value_at(document, pointer)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise LineError(number, f"{pointer} is neither a string nor an integer")
