"""Messages: what a publisher hands in, what the log gives back, and the ids that lead to one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

import msgspec

JSON = "application/json"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - named once, used in arithmetic
MICROSECOND = timedelta(microseconds=1)

# Three hexadecimal numbers: the partition's id, the low 32 bits of publishedAt in microseconds, the offset. The
# middle one tells apart messages of the same place in logs that went different ways: after a failover that lost the
# end of the log, after a restore, in another installation.
_MESSAGE_ID = re.compile(r"msg_([0-9a-f]{1,16})_([0-9a-f]{8})_([0-9a-f]{1,16})")
MAX_BIGINT = 2**63 - 1


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    """A message on its way into the log. ``payload``: the exact bytes; JSON unless ``content_type`` says otherwise.

    ``event_key`` is what names the CloudEvent it came as: an idempotency key where the topic says so.
    """

    payload: bytes
    key: str | None = None
    headers: dict[str, str] = {}
    correlation_id: str | None = None
    content_type: str | None = None
    idempotency_key: str | None = None
    delay_ms: int | None = None
    ttl_ms: int | None = None
    event_key: str | None = None


class Landing(msgspec.Struct, frozen=True, gc=False):
    """What the messages of a record batch have in common: ``id_prefix`` and the offset in hexadecimal are an id."""

    id_prefix: str
    partition: int
    published_at: datetime


class Landed(msgspec.Struct, frozen=True, gc=False):
    """Where messages of one publish are that stand one after the other in a record batch.

    ``positions``: which ones of the publish they are, in ascending order; None where they are all of it.
    """

    landing: Landing
    first_offset: int
    count: int
    positions: Sequence[int] | None = None
    duplicate: bool = False


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message read from the log. ``meta`` is the stored document of headers, correlationId and contentType."""

    partition_id: int
    offset: int
    published_at: datetime
    key: str | None
    meta: str | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class MessageId:
    """A message id taken apart; ``stamp`` has to equal the stored message's, or it is another message."""

    partition_id: int
    stamp: int
    offset: int


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970, exactly: ``datetime.timestamp`` is a float and is not."""
    return (moment - EPOCH) // MICROSECOND


@lru_cache(maxsize=1024)  # the messages of a commit share theirs
def iso(moment: datetime) -> str:
    """How a time is written everywhere: ``2026-11-25T14:00:00.123456Z``. ``moment`` is in UTC."""
    return moment.replace(tzinfo=None).isoformat() + "Z"


def holds_json(content_type: str | None) -> bool:
    """Whether a payload of this content type was checked to be JSON: none, ``application/json`` and ``…+json``."""
    if content_type is None:
        return True
    essence = content_type.partition(";")[0].strip().lower()
    return essence == JSON or essence.endswith(("+json", "/json"))


def kept_content_type(content_type: str | None) -> str | None:
    """What is stored of a content type: nothing for plain JSON, whose parameters mean nothing (RFC 8259 §11)."""
    if content_type is None or content_type == JSON or content_type.partition(";")[0].strip().lower() == JSON:
        return None
    return content_type


def stamp_of(published_at: datetime) -> int:
    return microseconds(published_at) & 0xFFFFFFFF


def id_prefix(partition_id: int, published_at: datetime) -> str:
    """What the ids of a record batch have in common; the offset in hexadecimal makes each one whole."""
    return f"msg_{partition_id:x}_{stamp_of(published_at):08x}_"


def message_id(partition_id: int, published_at: datetime, offset: int) -> str:
    return f"{id_prefix(partition_id, published_at)}{offset:x}"


def parse_message_id(text: str) -> MessageId | None:
    """None if this was never one of our ids."""
    match = _MESSAGE_ID.fullmatch(text)
    if match is None:
        return None
    partition, stamp, offset = (int(part, 16) for part in match.groups())
    if partition > MAX_BIGINT or not 1 <= offset <= MAX_BIGINT:
        return None
    return MessageId(partition, stamp, offset)


def meta_of(message: NewMessage) -> str | None:
    """The stored JSON document beside a payload; None for the many messages that need none.

    ``headers`` and ``correlationId`` are both there or both absent, so that a reader can pass them on as they are.
    """
    described = bool(message.headers) or message.correlation_id is not None or message.content_type is not None
    if not described and message.delay_ms is None and message.ttl_ms is None:
        return None
    meta: dict[str, Any] = {}
    if described:
        meta = {"headers": dict(message.headers), "correlationId": message.correlation_id}
    if message.content_type is not None:
        meta["contentType"] = message.content_type
    if message.delay_ms:
        meta["delayMs"] = message.delay_ms
    if message.ttl_ms is not None:
        meta["ttlMs"] = message.ttl_ms
    return msgspec.json.encode(meta).decode() if meta else None
