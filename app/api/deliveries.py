"""Deliveries: what a group has in flight or deferred, and the story of one message in every group."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Query

from app.api.dependencies import GroupName, TheCaller, TheParts, TopicName
from app.api.documents import Answer
from app.api.paging import Page, PageQuery, page
from app.api.problems import problems
from app.api.route import Route, needs
from app.broker import observe
from app.broker.doubts import owner_of
from app.domain.message import message_id
from app.domain.partition import number_of
from app.storage.attempts import Attempt, Delivery
from app.storage.groups import read_group
from app.storage.topics import read_topic

router = APIRouter(prefix="/v1/topics/{topic}", tags=["deliveries"], route_class=Route)

State = Literal["leased", "retrying", "held", "delayed"]


class DeliveryAnswer(Answer):
    """A message that a group's cursor has passed and that is not settled."""

    message_id: str | None
    group: str
    partition: int
    offset: int
    key: str | None
    state: State
    attempt: int
    """The one under way; of a message that waits for its retry the one that failed last."""
    due_at: datetime | None
    lease_expires_at: datetime | None
    consumer: str | None
    error: str | None
    """What was said of the last failure."""

    @classmethod
    def of(cls, group: str, delivery: Delivery) -> Self:
        place, at = delivery.partition_id, delivery.published_at
        return cls(
            message_id=message_id(place, at, delivery.offset) if at else None, group=group, partition=number_of(place),
            offset=delivery.offset, key=delivery.key, state=delivery.state, attempt=delivery.attempt,
            due_at=delivery.due_at, lease_expires_at=delivery.lease_expires_at, consumer=_label(delivery.consumer),
            error=delivery.error,
        )  # fmt: skip


class AttemptAnswer(Answer):
    """A recorded attempt: every one that failed or was discarded, and of pushes the last that succeeded."""

    group: str
    attempt: int
    at: datetime
    latency_ms: int | None
    status: int | None
    error_class: str | None
    error: str | None
    excerpt: str | None
    outcome: str

    @classmethod
    def of(cls, attempt: Attempt) -> Self:
        return cls(**{name: getattr(attempt, name) for name in cls.model_fields})


class Story(Answer):
    """A message in every group of its topic."""

    deliveries: list[DeliveryAnswer]
    """Where it is in flight or deferred now."""
    attempts: list[AttemptAnswer]
    """In the order of time."""


class DeliveryQuery(PageQuery):
    state: Annotated[State | None, Query(description="Only deliveries in this state.")] = None


@router.get(
    "/groups/{group}/deliveries", operation_id="listDeliveries", summary="What a group has in flight or deferred",
    responses=problems(404, 422, 503),
)  # fmt: skip
@needs("consume")
async def list_deliveries(
    topic: TopicName, group: GroupName, parts: TheParts, caller: TheCaller, query: Annotated[DeliveryQuery, Query()]
) -> Page[DeliveryAnswer]:
    """By partition and offset."""
    known = await read_group(parts.db, caller.namespace.id, topic, group)
    states = (query.state,) if query.state else observe.STATES
    after = query.after(tuple[int, int], (0, 0))
    found = await observe.list_deliveries(parts.db, known, states=states, after=after, limit=query.limit + 1)
    return Page(
        **page(
            found, query.limit, lambda delivery: DeliveryAnswer.of(group, delivery),
            lambda delivery: (number_of(delivery.partition_id), delivery.offset),
        )
    )  # fmt: skip


@router.get(
    "/messages/{messageId}/deliveries", operation_id="getMessageDeliveries", summary="A message in every group",
    responses=problems(404, 503),
)  # fmt: skip
@needs("consume")
async def message_deliveries(topic: TopicName, messageId: str, parts: TheParts, caller: TheCaller) -> Story:  # noqa: N803
    """Where it is now, and what is recorded of every attempt."""
    known = await read_topic(parts.db, caller.namespace.id, topic)
    story = await observe.story_of(parts.db, known, messageId)
    return Story(
        deliveries=[DeliveryAnswer.of(group, delivery) for group, delivery in story.deliveries],
        attempts=[AttemptAnswer.of(attempt) for attempt in story.attempts],
    )


def _label(owner: str | None) -> str | None:
    """What a consumer calls itself; None for one that does not say."""
    owner = owner_of(owner or "")
    kind, _, label = owner.partition(":")
    return label if kind == "consumer" else owner if kind in ("push", "stream") else None
