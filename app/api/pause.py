"""Pause and resume of topics and groups, and the purge of a topic."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from app.api.dependencies import GroupName, TheCaller, TheParts, TopicName
from app.api.documents import Answer, Form, Text
from app.api.groups import GroupAnswer
from app.api.problems import problems
from app.api.route import Route, needs
from app.api.topics import TopicAnswer
from app.broker import pause
from app.broker.purge import purge
from app.storage.groups import read_group
from app.storage.topics import read_topic

router = APIRouter(prefix="/v1/topics/{topic}", route_class=Route)


class PauseForm(Form):
    reason: Text | None = Field(None, examples=["the receiver is being moved"])


NO_REASON = PauseForm()


class Purged(Answer):
    removed: int
    """How many messages there were."""


@router.post(
    "/pause", operation_id="pauseTopic", summary="Pause a topic", tags=["topics"],
    responses=problems(400, 404, 415, 422, 503),
)  # fmt: skip
@needs("manage")
async def pause_topic(topic: TopicName, parts: TheParts, caller: TheCaller, form: PauseForm = NO_REASON) -> TopicAnswer:
    """Nothing of it is delivered to any group, present or later, until it is resumed. Publishing goes on."""
    await pause.pause_topic(parts.db, await read_topic(parts.db, caller.namespace.id, topic), form.reason)
    parts.catalog.forget_topic(caller.namespace.id, topic)
    return TopicAnswer.of(await read_topic(parts.db, caller.namespace.id, topic))


@router.post(
    "/resume", operation_id="resumeTopic", summary="Resume a topic", tags=["topics"], responses=problems(404, 503)
)
@needs("manage")
async def resume_topic(topic: TopicName, parts: TheParts, caller: TheCaller) -> TopicAnswer:
    """Groups that were paused themselves stay paused."""
    known = await read_topic(parts.db, caller.namespace.id, topic)
    await pause.resume_topic(parts.db, parts.wakeups, known)
    parts.catalog.forget_topic(caller.namespace.id, topic)
    return TopicAnswer.of(await read_topic(parts.db, caller.namespace.id, topic))


@router.post(
    "/purge", operation_id="purgeTopic", summary="Empty a topic", tags=["topics"], responses=problems(404, 503)
)
@needs("manage")
async def purge_topic(topic: TopicName, parts: TheParts, caller: TheCaller) -> Purged:
    """Removes its messages, leases, deferred messages, dead letters and idempotency keys at once. Offsets go on."""
    known = await read_topic(parts.db, caller.namespace.id, topic)
    return Purged(removed=await purge(parts.db, known))


@router.post(
    "/groups/{group}/pause", operation_id="pauseGroup", summary="Pause a group", tags=["groups"],
    response_model_exclude_unset=True, responses=problems(400, 404, 415, 422, 503),
)  # fmt: skip
@needs("manage")
async def pause_group(
    topic: TopicName, group: GroupName, parts: TheParts, caller: TheCaller, form: PauseForm = NO_REASON
) -> GroupAnswer:
    """After the answer nothing new is handed out; what is in flight may still be settled."""
    known = await read_group(parts.db, caller.namespace.id, topic, group)
    await pause.pause_group(parts.db, known, form.reason)
    parts.catalog.forget_group(caller.namespace.id, topic, group)
    return GroupAnswer.of(await read_group(parts.db, caller.namespace.id, topic, group))


@router.post(
    "/groups/{group}/resume", operation_id="resumeGroup", summary="Resume a group", tags=["groups"],
    response_model_exclude_unset=True, responses=problems(404, 503),
)  # fmt: skip
@needs("manage")
async def resume_group(topic: TopicName, group: GroupName, parts: TheParts, caller: TheCaller) -> GroupAnswer:
    """What was published meanwhile is delivered now, in order. A group of a paused topic waits for that as well."""
    known = await read_group(parts.db, caller.namespace.id, topic, group)
    await pause.resume_group(parts.db, parts.wakeups, known)
    parts.catalog.forget_group(caller.namespace.id, topic, group)
    return GroupAnswer.of(await read_group(parts.db, caller.namespace.id, topic, group))
