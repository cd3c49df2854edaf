"""What the API's document says of pulling and settling. The calls themselves are the fast lane's (api/pull.py,
api/settle.py)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from app.api.dependencies import GroupName, TopicName
from app.api.documents import Answer, Form
from app.api.lane import answered_by_the_lane
from app.api.problems import problems
from app.api.pull import MAX_WAIT_MS
from app.api.settle import MAX_ACK_IDS, MAX_DELAY_MS
from app.broker.demand import DEFAULT_BYTES

router = APIRouter(prefix="/v1/topics/{topic}/groups/{group}", tags=["deliveries"])

ACK_ID = "ack_10000_1_1_1a2133e5dd85f6ec_1_"
MIXED: JsonDict = {"ack": [f"{ACK_ID}1"], "nack": [{"ackId": f"{ACK_ID}2", "reason": "no such account"}]}

AckId = Annotated[str, Field(examples=[f"{ACK_ID}1"])]
Reason = Annotated[str | None, Field(max_length=4096, examples=["no such account"])]
DelayMs = Annotated[int | None, Field(ge=0, le=MAX_DELAY_MS)]
TimeoutMs = Annotated[int | None, Field(ge=100, le=86_400_000)]


class PullForm(Form):
    max: int | None = Field(None, ge=1, le=1000, examples=[10])
    """Most messages; the group's batchSize if left out."""
    max_bytes: int = Field(DEFAULT_BYTES, ge=1, le=1 << 30)
    """Most bytes of payload; at least one message is always given."""
    wait_ms: int = Field(0, ge=0, le=MAX_WAIT_MS)
    """How long to wait for the first message."""
    consumer: str = Field("", max_length=128, examples=["worker-1"])
    """Pulls with the same label are one consumer."""


class DeliveredMessage(Answer):
    """A message under a lease. A payload that is not JSON comes as `contentType` and `dataBase64`."""

    id: str
    topic: str
    partition: int
    offset: int
    key: str | None
    headers: dict[str, str]
    correlation_id: str | None
    published_at: datetime
    attempt: int
    """From 1."""
    max_attempts: int
    ack_id: AckId
    """Settles this delivery, on any replica."""
    lease_expires_at: datetime
    message: Any = None
    content_type: str | None = None
    data_base64: str | None = None


class PullAnswer(Answer):
    messages: list[DeliveredMessage]
    empty: Literal["no_messages", "paused", "held", "max_in_flight", "leased"] | None
    """Why there are none."""
    limit: str | None = None
    """With `max_in_flight`, where it is the limit of the namespace and not of the group: the setting that raises it."""


class SettleForm(Form):
    """`delayMs` goes with nack, `ackTimeoutMs` with extend."""

    ack_ids: list[AckId] = Field(min_length=1, max_length=MAX_ACK_IDS)
    reason: Reason = None
    delay_ms: DelayMs = None
    """Until the retry, in place of the backoff; 0 is at once."""
    ack_timeout_ms: TimeoutMs = None
    """From now; the group's ackTimeoutMs if left out."""


class NackForm(Form):
    ack_id: AckId
    reason: Reason = None
    delay_ms: DelayMs = None


class DiscardForm(Form):
    ack_id: AckId
    reason: Reason = None


class ExtendForm(Form):
    ack_id: AckId
    ack_timeout_ms: TimeoutMs = None


class MixedForm(Form):
    model_config = ConfigDict(json_schema_extra={"examples": [MIXED]})

    ack: list[AckId] = Field([], max_length=MAX_ACK_IDS)
    nack: list[NackForm] = Field([], max_length=MAX_ACK_IDS)
    discard: list[DiscardForm] = Field([], max_length=MAX_ACK_IDS)
    extend: list[ExtendForm] = Field([], max_length=MAX_ACK_IDS)


class SettleResult(Answer):
    ack_id: AckId
    status: Literal["ok", "stale"]
    """stale: it is not in flight under this ackId any more, and nothing has changed."""


class SettleAnswer(Answer):
    results: list[SettleResult]
    """In the order given; of mixed verbs ack, nack, discard, extend."""


# A 409 says that none of them could be settled; its problem document has the results as well.
SETTLED = problems(404, 409, 503)


@router.post(
    "/pull", operation_id="pull", summary="Pull messages", response_model=PullAnswer, responses=problems(404, 503)
)
async def pull(topic: TopicName, group: GroupName, form: PullForm | None = None) -> None:
    """Hands out up to `max` messages under a lease, as soon as there is one. What is not settled before the lease
    ends has failed, and is redelivered after the group's backoff."""
    del topic, group, form
    await answered_by_the_lane()


@router.post("/ack", operation_id="ack", summary="Ack deliveries", response_model=SettleAnswer, responses=SETTLED)
async def ack(topic: TopicName, group: GroupName, form: SettleForm) -> None:
    """They are done. The answer is durable; repeating it while the lease lives is ok again."""
    del topic, group, form
    await answered_by_the_lane()


@router.post("/nack", operation_id="nack", summary="Nack deliveries", response_model=SettleAnswer, responses=SETTLED)
async def nack(topic: TopicName, group: GroupName, form: SettleForm) -> None:
    """They failed: retried after the backoff or `delayMs`, a dead letter when no attempt is left. Later messages of
    their keys wait."""
    del topic, group, form
    await answered_by_the_lane()


@router.post(
    "/discard", operation_id="discard", summary="Discard deliveries", response_model=SettleAnswer, responses=SETTLED
)
async def discard(topic: TopicName, group: GroupName, form: SettleForm) -> None:
    """They end without retry and without dead letter; the reason is kept."""
    del topic, group, form
    await answered_by_the_lane()


@router.post("/extend", operation_id="extend", summary="Extend leases", response_model=SettleAnswer, responses=SETTLED)
async def extend(topic: TopicName, group: GroupName, form: SettleForm) -> None:
    """Moves their deadline to `ackTimeoutMs` from now."""
    del topic, group, form
    await answered_by_the_lane()


@router.post(
    "/settle", operation_id="settle", summary="Settle deliveries, each its own way", response_model=SettleAnswer,
    responses=SETTLED,
)  # fmt: skip
async def settle(topic: TopicName, group: GroupName, form: MixedForm) -> None:
    """The four verbs in one call."""
    del topic, group, form
    await answered_by_the_lane()
