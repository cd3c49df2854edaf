"""Messages without a group: browsing a topic, and reading one by its id."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import TheCaller, TheParts, TopicName
from app.api.documents import Answer
from app.api.form import browsed
from app.api.paging import DEFAULT_LIMIT, MAX_LIMIT, Page, Whole, make_cursor, read_cursor
from app.api.problems import problems
from app.api.route import Route, needs
from app.broker.browse import Positions, browse, clamp, partition_ids, positions_at, read_message
from app.broker.feed import log_has_changed
from app.broker.retain import trim_topic
from app.domain.errors import InvalidField
from app.domain.message import MAX_BIGINT
from app.domain.partition import number_of
from app.domain.position import read_position
from app.domain.topic import Topic
from app.storage.database import Database
from app.storage.topics import read_topic

# A cursor holds an offset for each partition.
MAX_CURSOR = 16 * 1024

router = APIRouter(prefix="/v1/topics/{topic}/messages", tags=["messages"], route_class=Route)


class BrowseQuery(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    partition: Annotated[Whole | None, Query(description="One partition; all merged by publishedAt if left out.")] = (
        None
    )
    start: Annotated[str, Query(description="earliest, latest (the end), an offset, or an ISO 8601 time.")] = Field(
        "earliest", alias="from", max_length=64, examples=["earliest"]
    )
    limit: Annotated[Whole, Query(description="Most items to return.")] = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    cursor: Annotated[str | None, Query(description="nextCursor of the page before; it knows its partitions.")] = Field(
        None, max_length=MAX_CURSOR
    )


class MessageAnswer(Answer):
    """A message as it was published. A payload that is not JSON comes as `contentType` and `dataBase64`."""

    id: str
    topic: str
    partition: int
    offset: int
    key: str | None
    headers: dict[str, str]
    correlation_id: str | None
    published_at: datetime
    message: Any = None
    content_type: str | None = None
    data_base64: str | None = None


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where the next page begins: an offset for the partition of number ``first`` and each that follows it."""

    first: Annotated[int, msgspec.Meta(ge=0)]
    offsets: Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=MAX_BIGINT)]], msgspec.Meta(min_length=1)]
    timeline: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of the database, where it was made; 0 from before cursors knew theirs."""
    is_all: bool = False
    """Of all partitions, also of those that are added later: they are read from their beginning."""


@router.get(
    "", operation_id="browse", summary="Browse messages", response_model=Page[MessageAnswer],
    responses=problems(404, 409, 503),
)  # fmt: skip
@needs("consume")
async def browse_messages(
    topic: TopicName, query: Annotated[BrowseQuery, Query()], parts: TheParts, caller: TheCaller
) -> Response:
    """Without a group, and without changing anything. In order of the offsets of a partition, or of `publishedAt`
    where all are merged. `nextCursor` is null where the log ended at that moment. After a failover of the database that
    may have cost the log its end, a `cursor` is answered with 409 `log_epoch_changed` and the `cursor` to go on
    with."""
    known = await read_topic(parts.db, caller.namespace.id, topic)
    await trim_topic(parts.db, known)
    if query.cursor is None:
        ids = partition_ids(known, query.partition)
        position = read_position(query.start, "from")
        positions, is_all = await positions_at(parts.db, ids, position), query.partition is None
    else:
        positions, is_all = await _positions(parts.db, known, query.cursor)
    found = await browse(parts.db, positions, query.limit)
    items = b",".join([browsed(topic, message) for message in found.messages])
    cursor = None if found.next_positions is None else _cursor(parts.db, found.next_positions, is_all)
    body = b'{"items":[%b],"nextCursor":%b}' % (items, msgspec.json.encode(cursor))
    return Response(body, media_type="application/json")


@router.get(
    "/{messageId}", operation_id="getMessage", summary="Read a message", response_model=MessageAnswer,
    responses=problems(404, 503),
)  # fmt: skip
@needs("consume")
async def get_message(topic: TopicName, messageId: str, parts: TheParts, caller: TheCaller) -> Response:  # noqa: N803 - its name in the path
    """As long as it is retained."""
    known = await read_topic(parts.db, caller.namespace.id, topic)
    await trim_topic(parts.db, known)
    message = await read_message(parts.db, known, messageId)
    return Response(browsed(topic, message), media_type="application/json")


def _cursor(db: Database, positions: Positions, is_all: bool) -> str:
    """Of partitions that follow each other."""
    ids = sorted(positions)
    return make_cursor(Cursor(number_of(ids[0]), [positions[of] for of in ids], db.lineage.timeline, is_all))


async def _positions(db: Database, topic: Topic, cursor: str) -> tuple[Positions, bool]:
    """With whether these are all there are. Raises InvalidField, and LogEpochChanged with a cursor to go on with."""
    place = read_cursor(cursor, Cursor)
    ids = partition_ids(topic, None)[place.first : place.first + len(place.offsets)]
    if len(ids) != len(place.offsets) or (place.is_all and place.first):
        raise InvalidField.of("cursor", "is not one that this topic returned")
    positions = dict(zip(ids, place.offsets, strict=True))
    if place.is_all:
        positions |= dict.fromkeys(partition_ids(topic, None)[len(ids) :], 0)
    clamped = await clamp(db, positions)
    if clamped != positions or place.timeline not in (0, db.lineage.timeline):
        raise log_has_changed(cursor=_cursor(db, clamped, place.is_all))
    return positions, place.is_all
