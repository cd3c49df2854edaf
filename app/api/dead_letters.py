"""Dead letters: list, read, retry, delete. Their messages are spliced as they are stored."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response

from app.api.dependencies import GroupName, TheCaller, TheParts, TopicName
from app.api.documents import Answer
from app.api.form import described, encode
from app.api.paging import PageQuery, make_cursor
from app.api.problems import problems
from app.api.route import Route, needs
from app.broker import redrive
from app.broker.observe import group_stats
from app.domain.message import iso, message_id
from app.domain.partition import number_of
from app.storage.dead_letters import DeadLetter, list_dead_letters
from app.storage.groups import read_group

router = APIRouter(prefix="/v1/topics/{topic}/groups/{group}/dead-letters", tags=["dead letters"], route_class=Route)

JSON = "application/json"


class DeadLetterAnswer(Answer):
    """A delivery that used up its attempts, with its own copy of the message."""

    message_id: str
    partition: int
    offset: int
    key: str | None
    headers: dict[str, str]
    correlation_id: str | None
    published_at: datetime
    message: Any = None
    """Or contentType and dataBase64, if it is not JSON."""
    error: str | None
    attempts: int
    dead_at: datetime


class DeadLetterPage(Answer):
    items: list[DeadLetterAnswer]
    next_cursor: str | None
    total: int


class Requeued(Answer):
    requeued: int


def form_of(letter: DeadLetter) -> bytes:
    head, body = described(letter.meta, letter.payload)
    return (
        b'{"messageId":"%b","partition":%d,"offset":%d,"key":%b,%b,"publishedAt":"%b","error":%b,"attempts":%d,'
        b'"deadAt":"%b",%b}'
        % (
            message_id(letter.partition_id, letter.published_at, letter.offset).encode(),
            number_of(letter.partition_id), letter.offset, encode(letter.key), head,
            iso(letter.published_at).encode(), encode(letter.error), letter.attempts,
            iso(letter.dead_at).encode(), body,
        )
    )  # fmt: skip


class After(msgspec.Struct, array_like=True):
    dead_at: datetime
    partition_id: int
    offset: int


@router.get(
    "", operation_id="listDeadLetters", summary="List dead letters", response_model=None,
    responses={200: {"model": DeadLetterPage, "description": "Newest first"}, **problems(404, 422, 503)},
)  # fmt: skip
@needs("consume")
async def list_all(
    topic: TopicName, group: GroupName, parts: TheParts, caller: TheCaller, query: Annotated[PageQuery, Query()]
) -> Response:
    """Newest first, with the total."""
    known = await read_group(parts.db, caller.namespace.id, topic, group)
    after = query.after(After, None) if query.cursor is not None else None
    place = (after.dead_at, after.partition_id, after.offset) if after else None
    found = await list_dead_letters(parts.db, known.id, after=place, limit=query.limit + 1)
    shown = found[: query.limit]
    last = shown[-1] if len(found) > query.limit else None
    cursor = make_cursor(After(last.dead_at, last.partition_id, last.offset)) if last else None
    total = (await group_stats(parts.db, known)).letters
    body = b'{"items":[%b],"nextCursor":%b,"total":%d}' % (b",".join(map(form_of, shown)), encode(cursor), total)
    return Response(body, media_type=JSON)


@router.post("/retry", operation_id="retryDeadLetters", summary="Retry all dead letters", responses=problems(404, 503))
@needs("manage")
async def retry_all(topic: TopicName, group: GroupName, parts: TheParts, caller: TheCaller) -> Requeued:
    """Each gets a full new budget of attempts, also where the log no longer has the message. Those past their ttlMs
    stay where they are, and are not counted."""
    known = await read_group(parts.db, caller.namespace.id, topic, group)
    return Requeued(requeued=await redrive.redrive_all(parts.db, parts.wakeups, known))


@router.get(
    "/{messageId}", operation_id="getDeadLetter", summary="Read a dead letter", response_model=None,
    responses={200: {"model": DeadLetterAnswer, "description": "With its message"}, **problems(404, 503)},
)  # fmt: skip
@needs("consume")
async def read(topic: TopicName, group: GroupName, messageId: str, parts: TheParts, caller: TheCaller) -> Response:  # noqa: N803
    """With its own copy of the message."""
    known = await read_group(parts.db, caller.namespace.id, topic, group)
    return Response(form_of(await redrive.find_dead_letter(parts.db, known, messageId)), media_type=JSON)


@router.delete(
    "/{messageId}", operation_id="deleteDeadLetter", summary="Delete a dead letter", status_code=204,
    responses=problems(404, 503),
)  # fmt: skip
@needs("manage")
async def delete(topic: TopicName, group: GroupName, messageId: str, parts: TheParts, caller: TheCaller) -> None:  # noqa: N803
    """For good: what it held is settled."""
    known = await read_group(parts.db, caller.namespace.id, topic, group)
    await redrive.delete_dead_letter(parts.db, known, messageId)


@router.post(
    "/{messageId}/retry", operation_id="retryDeadLetter", summary="Retry a dead letter", responses=problems(404, 503)
)
@needs("manage")
async def retry(topic: TopicName, group: GroupName, messageId: str, parts: TheParts, caller: TheCaller) -> Requeued:  # noqa: N803
    """It gets a full new budget of attempts, also where the log no longer has the message. Past its ttlMs it stays
    where it is, and ``requeued`` is 0."""
    known = await read_group(parts.db, caller.namespace.id, topic, group)
    return Requeued(requeued=await redrive.redrive(parts.db, parts.wakeups, known, messageId))
