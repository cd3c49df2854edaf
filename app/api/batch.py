"""The body of a batch: ``{"messages": [{"message", "options"}]}``, taken apart without decoding a message."""

from __future__ import annotations

from operator import attrgetter

import msgspec

from app.domain import options
from app.domain.errors import Fault, InvalidField, TooLarge
from app.domain.message import NewMessage
from app.domain.payload import check_depth, invalid_json, may_be_deep

MAX_BATCH = 1000


class BatchOptions(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    partition_key: str | None = None
    idempotency_key: str | None = None
    correlation_id: str | None = None
    headers: dict[str, str] | None = None
    delay_ms: int | None = None
    ttl_ms: int | None = None


class BatchMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    message: msgspec.Raw
    options: BatchOptions | None = None


class Batch(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: list[BatchMessage]


class KeyOnly(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    partition_key: str | None = None


class KeyedMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    message: msgspec.Raw
    options: KeyOnly | None = None


class KeyedBatch(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Most batches: nothing but keys. Their messages are handled all at once."""

    messages: list[KeyedMessage]


_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_keyed = msgspec.json.Decoder(KeyedBatch).decode
_message, _options, _partition_key = attrgetter("message"), attrgetter("options"), attrgetter("partition_key")


def batch_of(body: bytes, max_message_bytes: int) -> list[NewMessage]:
    """The messages of a body. Raises InvalidJson; InvalidField, TooLarge naming every message at fault."""
    try:
        if not body.isascii():
            body.decode()
        if (plain := _keyed(body, max_message_bytes)) is not None:
            return plain
        batch = _decode_batch(body).messages
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise invalid_json(error, "body", empty=not body.strip()) from None
    if not 1 <= len(batch) <= MAX_BATCH:
        raise InvalidField.of("messages", f"must be 1 to {MAX_BATCH}, and are {len(batch)}")

    messages = []
    faults: list[Fault] = []
    for index, given in enumerate(batch):
        payload = bytes(given.message)
        if len(payload) > max_message_bytes:
            check_size(len(payload), max_message_bytes, f"messages[{index}].message", index)
        if may_be_deep(payload):
            check_depth(payload, f"messages[{index}].message")
        if given.options is None:
            messages.append(NewMessage(payload))
        else:
            try:
                messages.append(_with_batch_options(payload, given.options, index))
            except InvalidField as error:
                faults += error.faults
    if faults:
        raise InvalidField(f"{faults[0].field} {faults[0].reason}.", faults)
    return messages


def _keyed(body: bytes, max_message_bytes: int) -> list[NewMessage] | None:
    """The messages of a batch of nothing but messages and keys, without a step for each of them. None for any other
    batch, and for one with a fault."""
    try:
        batch = _decode_keyed(body).messages
    except msgspec.DecodeError:
        return None
    if not 1 <= len(batch) <= MAX_BATCH:
        return None
    payloads = [*map(bytes, map(_message, batch))]
    # Those that are flat, most of them, need no call.
    nested = [payload for payload in payloads if payload.find(b"{", 1) > 0 or b"[" in payload]
    if max(map(len, payloads)) > max_message_bytes or any(map(may_be_deep, nested)):
        return None
    given = [*map(_options, batch)]
    keys = [*map(_partition_key, given)] if None not in given else [each and each.partition_key for each in given]
    if any(options.key_fault(key) for key in set(keys) if key is not None):
        return None
    return [*map(NewMessage, payloads, keys)]


def _with_batch_options(payload: bytes, given: BatchOptions, index: int) -> NewMessage:
    name, fault = "partitionKey", None
    if given.partition_key is not None:
        fault = options.key_fault(given.partition_key)
    if fault is None and given.idempotency_key is not None:
        name, fault = "idempotencyKey", options.idempotency_key_fault(given.idempotency_key)
    if fault is None and given.correlation_id is not None:
        name, fault = "correlationId", options.correlation_id_fault(given.correlation_id)
    if fault is None and given.delay_ms is not None:
        name, fault = "delayMs", options.delay_fault(given.delay_ms)
    if fault is None and given.ttl_ms is not None:
        name, fault = "ttlMs", options.ttl_fault(given.ttl_ms)
    if fault is not None:
        raise InvalidField.of(f"messages[{index}].options.{name}", fault, index=index)
    if given.headers:
        options.check_headers(given.headers, f"messages[{index}].options.headers", index=index)
    return NewMessage(
        payload, given.partition_key, given.headers or {}, given.correlation_id, None, given.idempotency_key,
        given.delay_ms, given.ttl_ms,
    )  # fmt: skip


def check_size(size: int, most: int, field: str, index: int) -> None:
    if size > most:
        reason = f"has {size} bytes, {most} are allowed"
        raise TooLarge(f"{field}: {reason}.", [Fault(reason, field, index)])
