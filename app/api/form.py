"""The form of a message in an answer, spliced from what is stored: payloads and headers are never made into objects."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from itertools import chain

import msgspec

from app.broker.demand import Pulled, Taken
from app.domain.lease import ack_id_prefix
from app.domain.message import Message, holds_json, id_prefix, iso, message_id
from app.domain.partition import number_of
from app.storage.claims import Piece


class Meta(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The stored document beside a payload; what it says of headers goes out as it is."""

    headers: msgspec.Raw = msgspec.Raw(b"{}")
    correlation_id: msgspec.Raw = msgspec.Raw(b"null")
    content_type: str | None = None


NO_META = b'"headers":{},"correlationId":null'
_decode_meta = msgspec.json.Decoder(Meta).decode
encode = msgspec.json.encode


def described(meta: str | None, payload: bytes) -> tuple[bytes, bytes]:
    """The members ``headers`` and ``correlationId``, and the members that hold the payload."""
    if meta is None:
        return NO_META, b'"message":' + payload
    stored = _decode_meta(meta)
    head = b'"headers":%b,"correlationId":%b' % (stored.headers, stored.correlation_id)
    if stored.content_type is None:
        return head, b'"message":' + payload
    kind = b'"contentType":' + encode(stored.content_type)
    if holds_json(stored.content_type):
        return head, b'%b,"message":%b' % (kind, payload)
    return head, b'%b,"dataBase64":"%b"' % (kind, b64encode(payload))


def browsed(topic: str, message: Message) -> bytes:
    """A message of the log, read without a group."""
    head, body = described(message.meta, message.payload)
    return b'{"id":"%b","topic":%b,"partition":%d,"offset":%d,"key":%b,%b,"publishedAt":"%b",%b}' % (
        message_id(message.partition_id, message.published_at, message.offset).encode(), encode(topic),
        number_of(message.partition_id), message.offset, encode(message.key), head, iso(message.published_at).encode(),
        body,
    )  # fmt: skip


def delivered(pulled: Pulled) -> list[bytes]:
    """The messages of a pull, each as a JSON object, partition by partition in the order of their offsets."""
    return [*chain.from_iterable(_of_lease(pulled, taken) for taken in pulled.taken)]


def _of_lease(pulled: Pulled, taken: Taken) -> Iterator[bytes]:
    group, claim = pulled.group, taken.claim
    assert claim.deadline is not None, "a claim with messages has a lease"
    place = b'","topic":%b,"partition":%d,"offset":' % (encode(group.topic), number_of(taken.partition_id))
    tail = b',"maxAttempts":%d,"leaseExpiresAt":"%b","ackId":"%b' % (
        group.config.max_attempts,
        iso(claim.deadline).encode(),
        ack_id_prefix(taken.partition_id, group.id, claim.epoch, claim.lease_id).encode(),
    )
    return chain.from_iterable(_of_piece(taken.partition_id, piece, place, tail) for piece in claim.pieces)


def _of_piece(partition_id: int, piece: Piece, place: bytes, tail: bytes) -> list[bytes]:
    """The hottest loop of a pull. To join parts costs half of what filling in a pattern does."""
    start = b'{"id":"' + id_prefix(partition_id, piece.published_at).encode()
    published = b',"publishedAt":"' + iso(piece.published_at).encode() + b'","attempt":'
    keys = piece.keys or [None] * len(piece.payloads)
    if piece.metas is None and piece.attempts is None and piece.offsets is None:
        middle = b",%b%b1%b1_" % (NO_META, published, tail)
        return [
            b"".join((
                start, (id_ := b"%x" % offset), place, b"%d" % offset, b',"key":',
                b"null" if key is None else encode(key), middle, id_, b'","message":', payload, b"}",
            ))
            for offset, (key, payload) in enumerate(zip(keys, piece.payloads, strict=True), piece.first_offset)
        ]  # fmt: skip
    found = []
    metas = piece.metas or [None] * len(keys)
    for (offset, attempt), key, meta, payload in zip(piece.places(), keys, metas, piece.payloads, strict=True):
        head, body = described(meta, payload)
        found.append(b'%b%x%b%d,"key":%b,%b%b%d%b%x_%x",%b}' % (
            start, offset, place, offset, b"null" if key is None else encode(key), head, published, attempt, tail,
            attempt, offset, body,
        ))  # fmt: skip
    return found
