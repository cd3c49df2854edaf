"""Seek and replay: moving a group to another place in the log."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from fastapi import APIRouter
from pydantic import Field, model_validator

from app.api.dependencies import GroupName, TheCaller, TheParts, TopicName
from app.api.documents import Answer, Form
from app.api.groups import Place
from app.api.problems import problems
from app.api.route import Route, needs
from app.broker import seek as verbs
from app.broker.retain import trim_for
from app.domain.group import Group
from app.domain.position import Position, parse_place, parse_time

router = APIRouter(prefix="/v1/topics/{topic}/groups/{group}", tags=["groups"], route_class=Route)


class SeekForm(Form):
    """Exactly one of them."""

    position: Literal["earliest", "latest"] | None = Field(None, examples=["earliest"])
    offset: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = Field(None, examples=[None])
    """Inclusive, in every partition; clamped to what there is."""
    timestamp: str | None = Field(None, examples=[None])
    """ISO 8601: the first message at or after it, in every partition."""
    message_id: str | None = Field(None, examples=[None])
    """Inclusive, in its own partition only."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(getattr(self, name) is not None for name in type(self).model_fields) != 1:
            raise ValueError("give exactly one of position, offset, timestamp and messageId")
        return self

    def place(self) -> Position:
        if self.timestamp is not None:
            return parse_time(self.timestamp, "timestamp")
        return self.position if self.position is not None else self.offset or 0


class ReplayForm(Form):
    from_: Place = Field(alias="from", examples=["2026-01-31T12:00:00Z"])
    """An ISO 8601 time or an offset."""


class MovedPartition(Answer):
    partition: int
    next_offset: int
    """Of the message that is delivered next; one past the end if there is none yet."""


class Moved(Answer):
    partitions: list[MovedPartition]

    @classmethod
    def of(cls, moved: dict[int, int]) -> Self:
        return cls(
            partitions=[MovedPartition(partition=number, next_offset=offset) for number, offset in moved.items()]
        )


@router.post(
    "/seek", operation_id="seek", summary="Move a group", responses=problems(400, 404, 415, 422, 503)
)  # fmt: skip
@needs("manage")
async def seek(topic: TopicName, group: GroupName, parts: TheParts, caller: TheCaller, form: SeekForm) -> Moved:
    """Below the new position everything counts as settled, from it on everything is delivered afresh, as attempt 1.
    What is in flight or deferred is dropped and its ackIds are stale; dead letters stay."""

    async def move(known: Group) -> dict[int, int]:
        await trim_for(parts.db, known)
        if form.message_id is not None:
            return await verbs.seek_message(parts.db, parts.wakeups, known, form.message_id)
        return await verbs.seek(parts.db, parts.wakeups, known, form.place())

    return Moved.of(await parts.catalog.with_group(caller.namespace.id, topic, group, move))


@router.post(
    "/replay", operation_id="replay", summary="Deliver again", responses=problems(400, 404, 415, 422, 503)
)  # fmt: skip
@needs("manage")
async def replay(topic: TopicName, group: GroupName, parts: TheParts, caller: TheCaller, form: ReplayForm) -> Moved:
    """A seek to a time or an offset."""
    position = parse_place(form.from_, "from")

    async def move(known: Group) -> dict[int, int]:
        await trim_for(parts.db, known)
        return await verbs.seek(parts.db, parts.wakeups, known, position)

    return Moved.of(await parts.catalog.with_group(caller.namespace.id, topic, group, move))
