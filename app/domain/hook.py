"""Hooks: URLs that are told of what happens in a topic, as small events of their own.

Events are the messages of a log that each hook has, a topic nobody sees, whose one group pushes them: so they are as
durable, as patiently retried and as well guarded as any push, and no hook can be in the way of what it is told of.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec

from app.domain.group import DeadLetters, Delivery, GroupConfig, Retries
from app.domain.message import iso, message_id
from app.domain.names import Namespace
from app.domain.partition import number_of
from app.domain.topic import Hooks, Retention, TopicConfig

Event = Literal["published", "acked", "dead"]

# No name of a project or an environment is empty, so no caller is ever here.
PROJECT, ENVIRONMENT = "", ""
GROUP = "hook"

# How long events wait for a hook that is down: while its breaker is open they use up no attempts.
LOG_CONFIG = TopicConfig(retention=Retention(max_age_ms=3 * 24 * 60 * 60 * 1000))
# The first eleven retries double from a second to about half an hour, four more follow an hour apart.
RETRIES = Retries(max=15, strategy="exponential", base_delay=1000, max_delay=60 * 60 * 1000)
CONCURRENCY = 8
TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook that is kept. ``group_id`` 0: told of every group; ``log_id``: the topic that is its log."""

    topic_id: int
    event: Event
    group_id: int
    log_id: int

    @property
    def log_name(self) -> str:
        return log_name(self.topic_id, self.event, self.group_id)


@dataclass(frozen=True, slots=True)
class Happened:
    """One thing to tell of one message. ``published_at`` is None where the message is not retained any more, so that
    nothing but its place is known."""

    event: Event
    partition_id: int
    group_id: int
    topic: str
    group: str | None
    offset: int
    published_at: datetime | None
    key: str | None
    meta: str | None
    error: str | None
    at: datetime


class _Meta(msgspec.Struct, rename="camel"):
    headers: dict[str, str] = {}
    correlation_id: str | None = None


def log_name(topic_id: int, event: Event, group_id: int = 0) -> str:
    return f"{topic_id}.{event}" + (f".{group_id}" if group_id else "")


def namespace(namespace_id: int) -> Namespace:
    return Namespace(namespace_id, PROJECT, ENVIRONMENT)


def urls_of(hooks: Hooks) -> dict[Event, str]:
    """Where a topic's events go, without those that go nowhere."""
    urls: dict[Event, str | None] = {"published": hooks.on_publish, "acked": hooks.on_ack, "dead": hooks.on_dead}
    return {event: url for event, url in urls.items() if url is not None}


def group_config(url: str, secret: str | None) -> GroupConfig:
    """How the events of a hook are delivered. An event that nobody took is dropped and counted, not buried."""
    return GroupConfig(
        delivery=Delivery(mode="push", url=url, secret=secret, format="hook"),
        ordering="none",
        concurrency=CONCURRENCY,
        max_in_flight=CONCURRENCY,
        start_from="earliest",
        ack_timeout_ms=TIMEOUT_MS,
        retries=RETRIES,
        dead_letter=DeadLetters(enabled=False),
    )


def document(happened: Happened) -> bytes:
    """The body of the call: the event of DESIGN §3 as JSON. The message is as it is browsed, without its payload."""
    meta = _Meta() if happened.meta is None else msgspec.json.decode(happened.meta, type=_Meta)
    published_at = happened.published_at
    message: dict[str, Any] = {
        "id": None if published_at is None else message_id(happened.partition_id, published_at, happened.offset),
        "partition": number_of(happened.partition_id),
        "offset": happened.offset,
        "key": happened.key,
        "headers": meta.headers,
        "correlationId": meta.correlation_id,
        "publishedAt": None if published_at is None else iso(published_at),
    }
    return msgspec.json.encode(
        {
            "type": f"message.{happened.event}",
            "topic": happened.topic,
            "group": happened.group,
            "message": message,
            "error": happened.error,
            "at": iso(happened.at),
        }
    )
