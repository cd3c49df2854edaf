"""What the API's document says of publishing. The calls themselves are the fast lane's (api/publish.py)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from app.api.batch import MAX_BATCH
from app.api.dependencies import TopicName
from app.api.documents import Answer, Form
from app.api.lane import answered_by_the_lane
from app.api.problems import problems
from app.domain import options
from app.domain.message import message_id

router = APIRouter(prefix="/v1/topics/{topic}/messages", tags=["messages"])

_AT = datetime.fromisoformat("2026-11-25T14:00:00.123456+00:00")
_ID = message_id(1 << 16, _AT, 1)
EXAMPLE = {"orderId": "ord_123", "type": "order.paid", "amount": 1999}


class PublishedAnswer(Answer):
    """Where a message is. It is committed and survives a crash."""

    id: str = Field(examples=[_ID])
    partition: int
    offset: int
    published_at: datetime = Field(examples=["2026-11-25T14:00:00.123456Z"])
    duplicate: bool
    """Whether it was there already, under the same idempotency key."""


class PublishedBatch(Answer):
    results: list[PublishedAnswer]
    """In the order of the messages."""


class MessageOptions(Form):
    partition_key: str | None = Field(None, max_length=options.MAX_KEY_BYTES, examples=["ord_123"])
    """Messages of a key are in one partition and delivered in order."""
    idempotency_key: str | None = Field(None, min_length=1, max_length=options.MAX_IDEMPOTENCY_KEY_BYTES)
    correlation_id: str | None = Field(None, max_length=options.MAX_CORRELATION_ID_BYTES)
    headers: dict[str, str] | None = Field(None, max_length=options.MAX_HEADERS, examples=[{"source": "checkout"}])
    delay_ms: int | None = Field(None, ge=0, le=options.YEAR_MS)
    """Delivered no sooner."""
    ttl_ms: int | None = Field(None, ge=1, le=options.YEAR_MS)
    """Not delivered any more after that."""


class MessageWithOptions(Form):
    message: Any = Field(examples=[EXAMPLE])
    """Any JSON."""
    options: MessageOptions | None = None


class MessageBatch(Form):
    messages: list[MessageWithOptions] = Field(min_length=1, max_length=MAX_BATCH)


def _header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


HEADERS = [
    _header("Partition-Key", "Messages of a key are in one partition and delivered in order.", {
        "type": "string", "maxLength": options.MAX_KEY_BYTES}),
    _header("Idempotency-Key", "A repetition with the same key answers what the first one did.", {
        "type": "string", "minLength": 1, "maxLength": options.MAX_IDEMPOTENCY_KEY_BYTES}),
    _header("Correlation-Id", "Delivered with the message.", {
        "type": "string", "maxLength": options.MAX_CORRELATION_ID_BYTES}),
    _header("Delay-Ms", "Delivered no sooner.", {"type": "integer", "minimum": 0, "maximum": options.YEAR_MS}),
    _header("Ttl-Ms", "Not delivered any more after that.", {
        "type": "integer", "minimum": 1, "maximum": options.YEAR_MS}),
    _header("traceparent", "The trace the message belongs to (W3C Trace Context): kept as its header `traceparent`, "
            "and sent as this header with every push. A malformed one is ignored.", {"type": "string"}),
    _header("tracestate", "Goes with `traceparent`.", {"type": "string", "maxLength": 512}),
]  # fmt: skip
Responses = dict[int | str, dict[str, Any]]
ONE = {
    "parameters": HEADERS,
    "requestBody": {
        "required": True,
        "description": "The message itself: JSON, or any bytes with their Content-Type.",
        "content": {
            "application/json": {"schema": {}, "example": EXAMPLE},
            "application/cloudevents+json": {
                "schema": {"type": "object"},
                "example": {
                    "specversion": "1.0",
                    "id": "1",
                    "source": "/checkout",
                    "type": "order.paid",
                    "data": EXAMPLE,
                },
            },
            "text/plain": {"schema": {"type": "string"}, "example": "any bytes"},
        },
    },
}
AGAIN: Responses = {200: {"model": PublishedAnswer, "description": "It was there already, under the same key."}}
ALL_AGAIN: Responses = {200: {"model": PublishedBatch, "description": "All of them were there already."}}


@router.post(
    "", operation_id="publish", summary="Publish a message", status_code=201, response_model=PublishedAnswer,
    responses=AGAIN | problems(404, 503), openapi_extra=ONE,
)  # fmt: skip
async def publish(topic: TopicName) -> None:
    """The body is the message, its options are headers; `Message-Header-<name>` is a header of the message.

    201 means that it is committed. After a 503 publish again, with the same `Idempotency-Key` lest it be there twice.
    CloudEvents are taken in binary, structured and batched mode.
    """
    del topic
    await answered_by_the_lane()


@router.post(
    "/batch", operation_id="publishBatch", summary="Publish messages together", status_code=201,
    response_model=PublishedBatch, responses=ALL_AGAIN | problems(404, 503),
)  # fmt: skip
async def publish_batch(topic: TopicName, batch: MessageBatch) -> None:
    """All of them or none, at most 1000."""
    del topic, batch
    await answered_by_the_lane()
