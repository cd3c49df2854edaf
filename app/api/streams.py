"""Streams of server-sent events: a topic for whoever watches it, and a group for one of its consumers.

What is wrong with a request is told by a status code: repeating it would not help, and a browser's EventSource stops
for good. What will pass (the database is away, the replica stops, there are too many) is told inside the stream to
whoever asks for one, so that it comes back by itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from functools import lru_cache, partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import GroupName, TheParts, TopicName, parts_of
from app.api.events import CONTENT_TYPE, EventStream, Opener, Trouble
from app.api.frames import delivered_frames
from app.api.paging import DIGITS, Whole
from app.api.problems import problems
from app.api.pull import owner_of
from app.broker.browse import partition_ids
from app.broker.follow import open_follower
from app.broker.round import Selection
from app.broker.stream import GroupStream
from app.broker.tickets import redeem_ticket
from app.domain.bookmark import MAX_LENGTH, Bookmark, parse_bookmark
from app.domain.errors import Fault, InvalidField, ShuttingDown, TooMany, Unauthorized, Unavailable
from app.domain.expression import Expression, compile_expression
from app.domain.position import Position, read_position
from app.storage.groups import read_group

# Every event carries an offset of each partition.
MAX_PARTITIONS = 1024
# Where people put keys in a URL. It is logged, kept in histories and sent on as a Referer.
KEYS_IN_URLS = ("access_token", "api_key", "apikey", "auth", "authorization", "key", "token")


Answerer = Callable[[Request], Coroutine[Any, Any, Response]]


class StreamRoute(APIRoute):
    """Lets in who has a key, or a ticket. ``request.state.opener`` is then who it was."""

    def get_route_handler(self) -> Answerer:
        answer = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                request.state.opener = opener = await _admitted(request)
                return await _seated(request, opener.namespace_id, answer)
            except (TooMany, Unavailable) as error:
                if CONTENT_TYPE not in request.headers.get("accept", ""):
                    raise
                return EventStream(Trouble(error), parts_of(request).streams, Opener(0))

        return guarded


async def _seated(request: Request, namespace_id: int, answer: Answerer) -> Response:
    """A stream that counts as one of its namespace as long as it is open. Raises TooMany."""
    seats = parts_of(request).seats
    await seats.take(namespace_id)
    leave = partial(seats.leave, namespace_id)
    try:
        response = await answer(request)
    except BaseException:
        leave()
        raise
    assert isinstance(response, EventStream)
    response.on_end = leave
    return response


async def _admitted(request: Request) -> Opener:
    for name in request.query_params:
        if name.lower() in KEYS_IN_URLS:
            raise Unauthorized(
                "A key is not taken in a URL; POST /v1/stream-tickets gives a ticket that is.",
                [Fault("keys are not taken in a URL", name)],
            )
    parts = parts_of(request)
    topic, group = request.path_params["topic"], request.path_params.get("group")
    if (ticket := request.query_params.get("ticket")) is not None:
        # Of the key's requests the one that asked for the ticket was counted.
        redeemed = await redeem_ticket(parts.db, ticket, topic, group)
        return Opener(redeemed.namespace_id, redeemed.key)
    caller = await parts.gate.admit(request.scope["headers"], "consume", topic)
    return Opener(caller.namespace.id, caller.prefix)


router = APIRouter(prefix="/v1/topics/{topic}", route_class=StreamRoute)

Ticket = Annotated[str | None, Query(description="A ticket of `POST /v1/stream-tickets`, instead of a key.")]
LastEventId = Annotated[
    str | None, Query(description="For clients that cannot send `Last-Event-ID`; the header wins.")
]  # fmt: skip


class TopicStreamQuery(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    start: Annotated[str, Query(description="earliest, latest, an offset, or an ISO 8601 time.")] = Field(
        "latest", alias="from", max_length=64, examples=["latest"]
    )
    partition: Annotated[Whole | None, Query(description="Only this partition.")] = None
    filter: Annotated[str | None, Query(description="Only messages for which this CEL expression is true.")] = None
    last_event_id: LastEventId = Field(None, alias="lastEventId", max_length=MAX_LENGTH)
    ticket: Ticket = Field(None, max_length=200)


class GroupStreamQuery(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    max: Annotated[
        Annotated[int, Field(ge=1, le=1000), DIGITS] | None,
        Query(description="How many may be unsettled; the group's batchSize if left out."),
    ] = None
    consumer: Annotated[str, Query(description="Pulls and streams with one label are one consumer.")] = Field(
        "", max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$"
    )
    last_event_id: LastEventId = Field(None, alias="lastEventId", max_length=MAX_LENGTH)
    ticket: Ticket = Field(None, max_length=200)


@router.get(
    "/stream", operation_id="streamTopic", summary="Watch a topic", tags=["messages"], response_class=EventStream,
    status_code=200, responses=problems(401, 404),
)  # fmt: skip
async def stream_topic(
    topic: TopicName, request: Request, parts: TheParts, query: Annotated[TopicStreamQuery, Query()]
) -> Response:
    """Every message to everybody who watches, without a group. Events: `message` with a message as in browsing;
    `gap` with the offsets that are not retained any more; `problem`, and then the end. The id of an event is a
    position in all partitions: a client that comes back with it as `Last-Event-ID` gets what follows, and nothing
    twice."""
    known = await parts.catalog.topic(request.state.opener.namespace_id, topic)
    if known.partitions > MAX_PARTITIONS:
        raise InvalidField.of("topic", f"has more than {MAX_PARTITIONS} partitions; it can be browsed, not streamed")
    partition_ids(known, query.partition)
    selection = Selection(query.partition, None if query.filter is None else _filter(query.filter))
    follower = await open_follower(parts.db, parts.feeds, known, _start(request, query), selection)
    return EventStream(follower, parts.streams, request.state.opener)


@router.get(
    "/groups/{group}/stream", operation_id="streamGroup", summary="Consume a group as a stream", tags=["deliveries"],
    response_class=EventStream, status_code=200, responses=problems(401, 404),
)  # fmt: skip
async def stream_group(
    topic: TopicName, group: GroupName, request: Request, parts: TheParts, query: Annotated[GroupStreamQuery, Query()]
) -> Response:
    """A pull that goes on. Events: `message` with a delivery as a pull gives it; `problem`, and then the end. Settle by
    POST, on any replica; `max` says how many may be unsettled. When the client goes, what it did not settle is handed
    back. `Last-Event-ID` acks nothing."""
    if parts.feeds.is_stopped:
        raise ShuttingDown("This replica is stopping; another one answers.")
    key = (request.state.opener.namespace_id, topic, group)
    known = await read_group(parts.db, *key)  # as it is now: the stream ends with this very group
    size = query.max or known.config.batch_size
    owner = owner_of(query.consumer) if query.consumer else f"stream:{secrets.token_hex(8)}"
    source = GroupStream(
        parts.puller, parts.windows, key=key, group=known, owner=owner, size=size, encode=delivered_frames
    )
    return EventStream(source, parts.streams, request.state.opener)


def _start(request: Request, query: TopicStreamQuery) -> Position | Bookmark:
    """Where the client was; if it was nowhere, where it wants to begin."""
    last = request.headers.get("last-event-id") or query.last_event_id
    if last:
        bookmark = parse_bookmark(last)
        if bookmark is None:
            raise InvalidField.of("Last-Event-ID", "is not the id of an event of a topic's stream")
        return bookmark
    return read_position(query.start, "from")


@lru_cache(maxsize=256)
def _filter(text: str) -> Expression:
    return compile_expression(text, "filter", "filter")
