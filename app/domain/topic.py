"""Topics: a named log with a fixed number of partitions, and the configuration its publishers agree on.

A configuration is kept as the JSON document of the API with every default written out, so that what a topic does
never changes because a server's settings did.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class Rule(msgspec.Struct, frozen=True, rename="camel"):
    """A CEL expression that has to be true, and what to say when it is not."""

    rule: str
    message: str | None = None


class Validation(msgspec.Struct, frozen=True, rename="camel"):
    schema: Any = None
    rules: tuple[Rule, ...] = ()


class Retention(msgspec.Struct, frozen=True, rename="camel"):
    """``max_age_ms`` and ``max_count`` (newest N of the topic); None keeps everything."""

    max_age_ms: int | None = None
    max_count: int | None = None

    @property
    def is_limited(self) -> bool:
        return self.max_age_ms is not None or self.max_count is not None


class Idempotency(msgspec.Struct, frozen=True, rename="camel"):
    window_ms: int = 7 * 24 * 60 * 60 * 1000
    cloud_events_id: bool = False


class Hooks(msgspec.Struct, frozen=True, rename="camel"):
    """URLs that are told of what happens in the topic; ``secret`` signs the calls."""

    on_publish: str | None = None
    on_ack: str | None = None
    on_dead: str | None = None
    secret: str | None = None


class TopicConfig(msgspec.Struct, frozen=True, rename="camel"):
    partition_key: str | None = None
    retention: Retention = Retention()
    validate: Validation = Validation()
    idempotency: Idempotency = Idempotency()
    hooks: Hooks = Hooks()


class Topic(msgspec.Struct, frozen=True):
    """A topic as it was when it was read. ``version`` rises with every change that a publish has to know of.

    ``home_partitions`` is the number of partitions at its creation: what places an idempotency key for good.
    """

    id: int
    namespace_id: int
    name: str
    config: TopicConfig
    tags: tuple[str, ...]
    partitions: int
    home_partitions: int
    version: int
    paused_since: datetime | None
    pause_reason: str | None
    created_at: datetime
    updated_at: datetime
