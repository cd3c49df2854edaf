"""Consumer groups over HTTP: declare, read, list, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from app.api.dependencies import Defaults, GroupName, Parts, TheCaller, TheParts, TopicName
from app.api.documents import Answer, Form, Pause
from app.api.paging import Page, PageQuery, page
from app.api.problems import problems
from app.api.push import DeliveryAnswer, DeliveryForm, EndpointAnswer
from app.api.route import Route, needs
from app.broker import configure
from app.domain import group as domain
from app.domain.errors import InvalidField
from app.domain.expression import MAX_LENGTH, compile_expression
from app.domain.group import Group, GroupConfig, Ordering
from app.domain.position import parse_position
from app.storage import endpoints
from app.storage.groups import list_groups, read_group
from app.storage.topics import read_topic
from app.webhook.address import Policy, check_url

DAY_MS = 24 * 60 * 60 * 1000

router = APIRouter(prefix="/v1/topics/{topic}/groups", tags=["groups"], route_class=Route)


def _place(value: object) -> object:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError("must be a string or a whole number")
    return value


Place = Annotated[
    Any,
    BeforeValidator(_place),
    Field(json_schema_extra={"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]}),
]


class RetriesForm(Form):
    """When a delivery fails. The defaults are the server's."""

    max: int = Field(3, ge=0, le=1000)
    """Redeliveries after the first attempt."""
    strategy: Literal["exponential", "fixed"] = "exponential"
    base_delay: int = Field(1000, ge=1, le=DAY_MS)
    """Milliseconds before the first redelivery."""
    max_delay: int = Field(60_000, ge=1, le=7 * DAY_MS)
    """Milliseconds a delay never grows past."""

    def config(self, defaults: domain.Retries) -> domain.Retries:
        retries = msgspec.structs.replace(defaults, **self.given())
        if retries.base_delay <= retries.max_delay:
            return retries
        if {"base_delay", "max_delay"} <= self.model_fields_set:
            raise InvalidField.of("retries.baseDelay", "must not be above retries.maxDelay")
        # Only one was given: the other's default gives way.
        if "base_delay" in self.model_fields_set:
            return msgspec.structs.replace(retries, max_delay=retries.base_delay)
        return msgspec.structs.replace(retries, base_delay=retries.max_delay)


class DeadLetterForm(Form):
    enabled: bool = True
    """Keep messages that used up their attempts."""
    on_dead: str | None = Field(None, examples=[None])
    """A URL that is told of each."""


class RateLimitForm(Form):
    per_second: float = Field(gt=0, le=1_000_000, examples=[10])


EXAMPLE: JsonDict = {"startFrom": "earliest", "ordering": "key", "retries": {"max": 5, "baseDelay": 500}}


class GroupForm(Form):
    """What a group should be. Left out, a field is its default."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    delivery: DeliveryForm = DeliveryForm()
    ordering: Ordering = "partition"
    """What is handed out one after the other: a partition, the messages of a key, or nothing."""
    concurrency: int = Field(1, ge=1, le=10_000)
    """Parallel pushes."""
    batch_size: int = Field(50, ge=1, le=1000)
    """Messages of a pull that does not say."""
    max_in_flight: int = Field(10_000, ge=1, le=1_000_000)
    """Messages out for delivery at a time, over all consumers; of a push group by default its concurrency."""
    filter: str | None = Field(None, max_length=MAX_LENGTH, examples=["message.total > 100"])
    """CEL over message, key, headers and meta: only what it is true of is delivered. A change counts for what the
    group comes to from then on, and not for what it holds back or retries."""
    start_from: Place = Field("latest", examples=["earliest"])
    """Where a new group begins: earliest, latest, an ISO 8601 time or an offset. Later it means nothing."""
    ack_mode: Literal["auto", "manual"] = "auto"
    ack_timeout_ms: int = Field(30_000, ge=100, le=DAY_MS)
    """How long a consumer has to settle a message."""
    retries: RetriesForm = RetriesForm()
    dead_letter: DeadLetterForm = DeadLetterForm()
    rate_limit: RateLimitForm | None = None

    def config(self, present: GroupConfig | None, defaults: Defaults, policy: Policy) -> GroupConfig:
        """Raises InvalidField, InvalidExpression."""
        if self.filter is not None:
            compile_expression(self.filter, "filter", "filter")
        parse_position(self.start_from, "startFrom")
        on_dead = self.dead_letter.on_dead
        dead_letter = self.dead_letter.given("on_dead")
        config = msgspec.structs.replace(
            defaults.group,
            **self.given("delivery", "retries", "dead_letter", "rate_limit"),
            delivery=self.delivery.config(present.delivery if present else None, policy),
            retries=self.retries.config(defaults.group.retries),
            dead_letter=msgspec.structs.replace(
                defaults.group.dead_letter,
                **dead_letter,
                on_dead=None if on_dead is None else check_url(on_dead, policy, "deadLetter.onDead").url,
            ),
            rate_limit=None if self.rate_limit is None else domain.RateLimit(self.rate_limit.per_second),
        )
        if config.delivery.mode == "push" and "max_in_flight" not in self.model_fields_set:
            config = msgspec.structs.replace(config, max_in_flight=config.concurrency)
        return config


class RetriesAnswer(Answer):
    max: int
    strategy: Literal["exponential", "fixed"]
    base_delay: int
    max_delay: int


class DeadLetterAnswer(Answer):
    enabled: bool
    on_dead: str | None


class RateLimitAnswer(Answer):
    per_second: float


class GroupAnswer(Answer):
    """A group as it is, with every default written out. ``paused`` also while its topic is."""

    name: str = Field(examples=["billing"])
    topic: str = Field(examples=["orders"])
    delivery: DeliveryAnswer
    ordering: Ordering
    concurrency: int
    batch_size: int
    max_in_flight: int
    filter: str | None
    start_from: str | int
    ack_mode: Literal["auto", "manual"]
    ack_timeout_ms: int
    retries: RetriesAnswer
    dead_letter: DeadLetterAnswer
    rate_limit: RateLimitAnswer | None
    paused: bool
    pause: Pause | None
    endpoint: EndpointAnswer | None = None
    """Of a group that is pushed, where a single one is read."""
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, group: Group, **more: Any) -> GroupAnswer:
        shown: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(group.config, delivery=domain.Delivery()))
        return cls(
            **shown | {"delivery": DeliveryAnswer.of(group.config.delivery)},
            name=group.name,
            topic=group.topic,
            paused=group.paused,
            pause=Pause.of(*group.pause),
            created_at=group.created_at,
            updated_at=group.updated_at,
            **more,
        )


NOTHING_SAID = GroupForm()


@router.put(
    "/{group}",
    operation_id="declareGroup",
    summary="Declare a group",
    response_model_exclude_unset=True,
    responses={201: {"model": GroupAnswer, "description": "It is new"}, **problems(403, 404)},
)
@needs("manage")
async def declare_group(
    topic: TopicName,
    group: GroupName,
    parts: TheParts,
    caller: TheCaller,
    response: Response,
    form: GroupForm = NOTHING_SAID,
) -> GroupAnswer:
    """Creates the group (201), or changes it to what the body says (200). It keeps its place whatever changes."""
    declared = await configure.declare_group(
        parts.db, parts.catalog, parts.wakeups, caller.namespace, topic, group, _wanted(form, parts), parts.limits
    )  # fmt: skip
    response.status_code = 201 if declared.created else 200
    return GroupAnswer.of(declared.value)


def _wanted(form: GroupForm, parts: Parts) -> configure.WantedGroup:
    return lambda present: form.config(present, parts.defaults, parts.policy)


@router.get(
    "",
    operation_id="listGroups",
    summary="List the groups of a topic",
    response_model_exclude_unset=True,
    responses=problems(404, 422),
)
async def list_all(
    topic: TopicName, parts: TheParts, caller: TheCaller, query: Annotated[PageQuery, Query()]
) -> Page[GroupAnswer]:
    """By name."""
    known = await read_topic(parts.db, caller.namespace.id, topic)
    found = await list_groups(parts.db, known.id, after=query.after(str, ""), limit=query.limit + 1)
    return Page(**page(found, query.limit, GroupAnswer.of, lambda group: group.name))


@router.get(
    "/{group}",
    operation_id="getGroup",
    summary="Read a group",
    response_model_exclude_unset=True,
    responses=problems(404, 422),
)
async def get_group(topic: TopicName, group: GroupName, parts: TheParts, caller: TheCaller) -> GroupAnswer:
    """Its configuration, with every default written out."""
    known = await read_group(parts.db, caller.namespace.id, topic, group)
    if known.config.delivery.mode == "pull":
        return GroupAnswer.of(known)
    seen = await endpoints.read(parts.db, known.id)
    return GroupAnswer.of(known, endpoint=EndpointAnswer.of(seen, known.config.delivery))


@router.delete(
    "/{group}",
    operation_id="deleteGroup",
    summary="Delete a group",
    status_code=204,
    responses=problems(404, 422),
)
@needs("manage")
async def delete_group(topic: TopicName, group: GroupName, parts: TheParts, caller: TheCaller) -> None:
    """With its place, its dead letters and everything else of it. What consumers hold is stale at once."""
    await configure.delete_group(parts.db, parts.catalog, caller.namespace, topic, group)
