"""Sift: judges messages by a group's filter before they are claimed.

The claim is one function in the database and a filter is CEL, so the next messages of a partition are read and judged
first. The claim then passes those only, and only from where they were read: if another was quicker, it says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from app.broker.catalog import Catalog
from app.domain.expression import Context, Expression, Verdict, compile_expression, seen
from app.domain.group import Group
from app.domain.message import Message, iso
from app.domain.partition import number_of
from app.storage.claims import Judged
from app.storage.cursors import peek
from app.storage.database import Database

# How many messages, and bytes of them, are read for one judgement, and judged before others get their turn.
MESSAGES = 1000
BYTES = 4 * 1024 * 1024
AT_ONCE = 50
# What is judged and not claimed is judged again by the next claim. So at first no more are read than a filter that
# lets one of so many through needs, and no more of them judged than so many times what is wanted have been found.
FEW = 100
ONE_OF = 20
ENOUGH = 2


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """The stored document beside a payload, as far as an expression sees it."""

    headers: dict[str, str] = {}
    correlation_id: str | None = None
    content_type: str | None = None


NO_META = Meta()
_decode_meta = msgspec.json.Decoder(Meta).decode


async def judge(db: Database, catalog: Catalog, group: Group, partition_id: int, *, wanted: int) -> Judged | None:
    """What the group's filter says of the next messages there, until it lets ``wanted`` of them through; None for a
    group without one.

    A filter that cannot be evaluated for a message does not match it, and is counted as an error.
    """
    if group.config.filter is None:
        return None
    expression = catalog.of_group(group, compiled_filter)
    few = min(max(FEW, ONE_OF * wanted), MESSAGES)
    start, found = await peek(db, partition_id, group.id, limit=few, byte_limit=BYTES)
    judged = await _judged(expression, group.topic, start, found, ENOUGH * wanted)
    if few <= len(found) < MESSAGES and len(found) - len(judged.refused) < wanted:
        start, found = await peek(db, partition_id, group.id, limit=MESSAGES, byte_limit=BYTES)
        judged = await _judged(expression, group.topic, start, found, ENOUGH * wanted)
    return judged


async def _judged(expression: Expression, topic: str, start: int, found: Sequence[Message], enough: int) -> Judged:
    refused = []
    failed = []
    end = start
    for at, message in enumerate(found, 1):
        end = message.offset + 1
        verdict = expression.judge(context_of(message, topic))
        if verdict is not Verdict.MATCH:
            refused.append(message.offset)
            if verdict is Verdict.ERROR:
                failed.append(message.offset)
        elif at - len(refused) >= enough:
            break
        if at % AT_ONCE == 0:
            await asyncio.sleep(0)
    return Judged(start, end, refused, failed)


def compiled_filter(group: Group) -> Expression:
    assert group.config.filter is not None, "only groups with a filter are judged"
    return compile_expression(group.config.filter, "filter", "filter")


def context_of(message: Message, topic: str) -> Context:
    """A stored message as an expression sees it."""
    meta = _decode_meta(message.meta) if message.meta else NO_META
    return Context(
        seen(message.payload, meta.content_type),
        message.key,
        meta.headers,
        {
            "topic": topic,
            "correlationId": meta.correlation_id,
            "contentType": meta.content_type,
            "partition": number_of(message.partition_id),
            "offset": message.offset,
            "publishedAt": iso(message.published_at),
        },
    )
