"""Pull on the fast lane: a body of a few numbers in, messages spliced as they are stored out."""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec
from msgspec import Meta

from app.api.body import decoded
from app.api.form import delivered
from app.broker.pull import DEFAULT_BYTES, Demand, Pulled, Puller

MAX_WAIT_MS = 60_000
# What a consumer may call itself. Labels are stored as text, which has no NUL.
Label = Annotated[str, Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


class PullRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``max`` messages (the group's batchSize if left out) and ``max_bytes`` of payload, waiting up to ``wait_ms``."""

    max: Annotated[int, Meta(ge=1, le=1000)] | None = None
    max_bytes: Annotated[int, Meta(ge=1, le=1 << 30)] = DEFAULT_BYTES
    wait_ms: Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)] = 0
    consumer: Label = ""


_decoder = msgspec.json.Decoder(PullRequest)


async def pull(puller: Puller, namespace_id: int, topic: str, group: str, body: bytes) -> bytes:
    """The answer's body. Raises InvalidJson, InvalidField, TopicNotFound, GroupNotFound, Unavailable."""
    request = decoded(body, _decoder)
    demand = Demand(owner_of(request.consumer), request.max, request.max_bytes)
    return answer(await puller.pull((namespace_id, topic, group), demand, wait_ms=request.wait_ms))


def owner_of(label: str) -> str:
    """The owner of a lease: all pulls with the same label are one consumer, one without is like no other."""
    return f"consumer:{label}" if label else f"pull:{secrets.token_hex(8)}"


def answer(pulled: Pulled) -> bytes:
    empty = b"null" if pulled.empty is None else b'"%b"' % pulled.empty.encode()
    return b'{"messages":[%b],"empty":%b}' % (b",".join(delivered(pulled)), empty)
