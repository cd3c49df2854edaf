"""Topics over HTTP: declare, read, list, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, ConfigDict, Field
from pydantic.config import JsonDict

from app.api.dependencies import Db, Parts, TheCaller, TheParts, TopicName
from app.api.documents import Answer, Form, Pause, unmasked
from app.api.paging import Page, PageQuery, page
from app.api.problems import problems
from app.api.route import Route, needs
from app.broker import configure
from app.broker.configure import TopicDeclaration
from app.domain import topic as domain
from app.domain.expression import MAX_LENGTH, compile_expression
from app.domain.partition import MAX_PARTITIONS
from app.domain.schema import compile_schema
from app.domain.secret import MASK
from app.domain.topic import Topic, TopicConfig
from app.storage.topics import list_topics, read_topic
from app.webhook.address import Policy, check_url

YEAR_MS = 365 * 24 * 60 * 60 * 1000
MAX_TAGS = 32
MAX_RULES = 32

router = APIRouter(prefix="/v1/topics", tags=["topics"], route_class=Route)


def _tag(text: str) -> str:
    if not text or len(text) > 128 or not text.isprintable():
        raise ValueError("must be 1 to 128 printable characters")
    return text


Tag = Annotated[str, AfterValidator(_tag), Field(json_schema_extra={"minLength": 1, "maxLength": 128})]


class Distribution(Form):
    partitions: int = Field(1, ge=1, le=MAX_PARTITIONS)
    """Can be raised, never lowered; then most keys go to another partition, and are not in order with what they
    published before. Left out, it stays as it is; the default is the server's."""
    partition_key: str | None = Field(None, max_length=MAX_LENGTH, examples=["message.orderId"])
    """CEL over message, key, headers and meta: the key of messages published without one."""


class Retention(Form):
    """What is kept. Null keeps everything; the defaults are the server's."""

    max_age_ms: int | None = Field(None, ge=1, le=100 * YEAR_MS)
    max_count: int | None = Field(None, ge=1, le=10**15)
    """The newest so many messages of the topic are kept."""


class Rule(Form):
    """``rule`` is CEL that has to be true of every message, ``message`` what a publisher hears if it is not."""

    rule: str = Field(max_length=MAX_LENGTH, examples=["message.total >= 0"])
    message: str | None = Field(None, max_length=1000, examples=["A total is never negative."])


class Validation(Form):
    json_schema: Any = Field(
        None, alias="schema", examples=[{"type": "object"}], json_schema_extra={"type": ["object", "boolean", "null"]}
    )
    """JSON Schema, 2020-12."""
    rules: list[Rule] = Field([], max_length=MAX_RULES)


class Idempotency(Form):
    window_ms: int = Field(7 * 24 * 60 * 60 * 1000, ge=1, le=YEAR_MS)
    """How long a key is remembered."""
    cloud_events_id: bool = False
    """Take an event's source and id as its key."""


class Hooks(Form):
    """URLs that are told, in the background, of what happens in the topic."""

    on_publish: str | None = None
    on_ack: str | None = None
    on_dead: str | None = None
    secret: str | None = Field(None, examples=[None])
    """Signs the calls: ``whsec_`` and base64 of 24 to 64 bytes."""


EXAMPLE: JsonDict = {"tags": ["payments"], "distribution": {"partitions": 4}, "retention": {"maxAgeMs": 604_800_000}}


class TopicForm(Form):
    """What a topic should be. Left out, a field is its default."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    tags: list[Tag] = Field([], max_length=MAX_TAGS, examples=[["payments"]])
    distribution: Distribution = Distribution()
    retention: Retention = Retention()
    validation: Validation = Field(Validation(), alias="validate")
    idempotency: Idempotency = Idempotency()
    hooks: Hooks = Hooks()

    def config(self, present: TopicConfig | None, defaults: TopicConfig, policy: Policy) -> TopicConfig:
        """Raises InvalidField, InvalidExpression, InvalidSchema."""
        if self.distribution.partition_key is not None:
            compile_expression(self.distribution.partition_key, "partitionKey", "distribution.partitionKey")
        replace = msgspec.structs.replace
        return TopicConfig(
            partition_key=self.distribution.partition_key,
            retention=replace(defaults.retention, **self.retention.given()),
            validate=self._validation(),
            idempotency=replace(defaults.idempotency, **self.idempotency.given()),
            hooks=self._hooks(present.hooks if present else None, policy),
        )

    def _validation(self) -> domain.Validation:
        schema = self.validation.json_schema
        if schema is not None:
            compile_schema(schema, "validate.schema")
        for at, rule in enumerate(self.validation.rules):
            compile_expression(rule.rule, "rule", f"validate.rules[{at}].rule")
        return domain.Validation(schema, tuple(domain.Rule(rule.rule, rule.message) for rule in self.validation.rules))

    def _hooks(self, present: domain.Hooks | None, policy: Policy) -> domain.Hooks:
        urls = {
            name: None if url is None else check_url(url, policy, f"hooks.{alias}").url
            for name, alias, url in (
                ("on_publish", "onPublish", self.hooks.on_publish),
                ("on_ack", "onAck", self.hooks.on_ack),
                ("on_dead", "onDead", self.hooks.on_dead),
            )
        }
        secret = unmasked(self.hooks.secret, present.secret if present else None, "hooks.secret")
        return domain.Hooks(**urls, secret=secret)


class DistributionAnswer(Answer):
    partitions: int
    partition_key: str | None


class RetentionAnswer(Answer):
    max_age_ms: int | None
    max_count: int | None


class RuleAnswer(Answer):
    rule: str
    message: str | None


class ValidationAnswer(Answer):
    json_schema: Any = Field(alias="schema")
    rules: list[RuleAnswer]


class IdempotencyAnswer(Answer):
    window_ms: int
    cloud_events_id: bool


class HooksAnswer(Answer):
    on_publish: str | None
    on_ack: str | None
    on_dead: str | None
    secret: str | None
    """Masked."""


class TopicAnswer(Answer):
    """A topic as it is, with every default written out."""

    name: str = Field(examples=["orders"])
    tags: list[str]
    distribution: DistributionAnswer
    retention: RetentionAnswer
    validation: ValidationAnswer = Field(alias="validate")
    idempotency: IdempotencyAnswer
    hooks: HooksAnswer
    paused: bool
    pause: Pause | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, topic: Topic) -> TopicAnswer:
        config = topic.config
        masked = msgspec.structs.replace(config.hooks, secret=None if config.hooks.secret is None else MASK)
        shown = msgspec.to_builtins(msgspec.structs.replace(config, hooks=masked))
        return cls(
            name=topic.name,
            tags=list(topic.tags),
            distribution=DistributionAnswer(partitions=topic.partitions, partition_key=config.partition_key),
            retention=shown["retention"],
            validation=shown["validate"],
            idempotency=shown["idempotency"],
            hooks=shown["hooks"],
            paused=topic.paused_since is not None,
            pause=Pause.of(topic.paused_since, topic.pause_reason),
            created_at=topic.created_at,
            updated_at=topic.updated_at,
        )


NOTHING_SAID = TopicForm()


class TopicsQuery(PageQuery):
    tag: Annotated[list[Tag], Query(description="Only topics that have this tag; may be given several times.")] = Field(
        []
    )


@router.put(
    "/{topic}",
    operation_id="declareTopic",
    summary="Declare a topic",
    responses={201: {"model": TopicAnswer, "description": "It is new"}, **problems(403, 409)},
)
@needs("manage")
async def declare_topic(
    topic: TopicName, parts: TheParts, caller: TheCaller, response: Response, form: TopicForm = NOTHING_SAID
) -> TopicAnswer:
    """Creates the topic (201), or changes it to what the body says (200). Saying the same again changes nothing."""
    declared = await configure.declare_topic(
        parts.db, parts.catalog, caller.namespace, topic, _declaration(form, parts)
    )  # fmt: skip
    response.status_code = 201 if declared.created else 200
    return TopicAnswer.of(declared.value)


def _declaration(form: TopicForm, parts: Parts) -> TopicDeclaration:
    return TopicDeclaration(
        config=lambda present: form.config(present, parts.defaults.topic, parts.policy),
        tags=tuple(dict.fromkeys(form.tags)),
        partitions=form.distribution.given().get("partitions"),
        default_partitions=parts.defaults.partitions,
        limits=parts.limits,
    )


@router.get("", operation_id="listTopics", summary="List topics", responses=problems(422))
async def list_all(db: Db, caller: TheCaller, query: Annotated[TopicsQuery, Query()]) -> Page[TopicAnswer]:
    """By name; of those that the key allows."""
    found = await list_topics(
        db, caller.namespace.id, after=query.after(str, ""), tags=query.tag, patterns=caller.patterns,
        limit=query.limit + 1,
    )  # fmt: skip
    return Page(**page(found, query.limit, TopicAnswer.of, lambda topic: topic.name))


@router.get("/{topic}", operation_id="getTopic", summary="Read a topic", responses=problems(404, 422))
async def get_topic(topic: TopicName, db: Db, caller: TheCaller) -> TopicAnswer:
    """Its configuration, with every default written out."""
    return TopicAnswer.of(await read_topic(db, caller.namespace.id, topic))


@router.delete(
    "/{topic}",
    operation_id="deleteTopic",
    summary="Delete a topic",
    status_code=204,
    responses=problems(404, 422),
)
@needs("manage")
async def delete_topic(topic: TopicName, parts: TheParts, caller: TheCaller) -> None:
    """With all its messages and groups. The name is free at once."""
    await configure.delete_topic(parts.db, parts.catalog, caller.namespace, topic)
