"""Trying a push group's endpoint: a test event, and what came of it."""

from __future__ import annotations

import asyncio
from typing import Literal, Self

from fastapi import APIRouter

from app.api.dependencies import GroupName, TheCaller, TheParts, TopicName
from app.api.documents import Answer
from app.api.problems import problems
from app.api.route import Route, needs
from app.domain import outcome as domain
from app.domain.errors import NotPushed
from app.domain.outcome import judge
from app.storage.database import clock
from app.storage.groups import read_group
from app.webhook.probe import MAX_TIMEOUT_MS, probe_request
from app.webhook.request import Request

# Beyond the request's own deadline: for a place among the requests on the way.
GRACE_S = 5.0
BUSY = domain.Answer(error_class="timeout", error="too many requests to this endpoint are on the way")

router = APIRouter(prefix="/v1/topics/{topic}/groups/{group}", tags=["groups"], route_class=Route)


class ProbeAnswer(Answer):
    """What the endpoint made of the test event. `status` is null where none came; `errorClass` says why."""

    webhook_id: str
    outcome: Literal["ack", "taken", "nack", "discard", "pause", "throttle"]
    """What the answer would mean for a message."""
    status: int | None
    latency_ms: int
    error_class: domain.ErrorClass | None
    error: str | None
    excerpt: str | None
    """The beginning of the answer's body."""

    @classmethod
    def of(cls, request: Request, answer: domain.Answer, *, manual: bool) -> Self:
        return cls.model_validate(
            {
                "webhook_id": dict(request.headers)["webhook-id"],
                "outcome": type(judge(answer, manual=manual)).__name__.lower(),
                "status": answer.status,
                "latency_ms": answer.latency_ms,
                "error_class": answer.error_class,
                "error": answer.error,
                "excerpt": answer.excerpt,
            }
        )


@router.post(
    "/test", operation_id="testGroup", summary="Try the endpoint of a push group", responses=problems(404, 409, 503)
)
@needs("manage")
async def test_group(topic: TopicName, group: GroupName, parts: TheParts, caller: TheCaller) -> ProbeAnswer:
    """Sends one signed test event to where the group is pushed, paused or not, and says what came of it. Nothing is
    published, moved or settled, and nothing is held against the endpoint. 409 if the group is pulled."""
    known = await read_group(parts.db, caller.namespace.id, topic, group)
    if known.config.delivery.mode != "push":
        raise NotPushed("The group is pulled: it has no endpoint to try.")
    async with parts.db.connection() as connection:
        now = await clock(connection)
    request = probe_request(known, now)
    try:
        async with asyncio.timeout(MAX_TIMEOUT_MS / 1000 + GRACE_S):
            answer = await parts.sender.send(request)
    except TimeoutError:
        answer = BUSY
    return ProbeAnswer.of(request, answer, manual=known.config.ack_mode == "manual")
