"""Consumer groups of a topic: how they are delivered to, in which order, and what happens on failure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from app.domain.secret import Sealed, require_readable
from app.domain.topic import Retention

Ordering = Literal["partition", "key", "none"]


class Delivery(msgspec.Struct, frozen=True, rename="camel"):
    """Pull, or push to ``url``. ``previous_secret`` signs too until ``previous_secret_until`` (ISO 8601).

    The format ``hook`` is for the logs of hooks only (domain/hook.py): nothing but the event, which is the message.
    """

    mode: Literal["pull", "push"] = "pull"
    url: str | None = None
    headers: dict[str, str] = {}
    secret: str | None = None
    secret_overlap_ms: int = 24 * 60 * 60 * 1000
    previous_secret: str | None = None
    previous_secret_until: datetime | None = None
    format: Literal["raw", "cloudevents-binary", "cloudevents-structured", "hook"] = "raw"

    def overlapping(self, now: datetime) -> str | None:
        """The secret before this one, while it signs too."""
        until = self.previous_secret_until
        return self.previous_secret if until is not None and now < until else None

    def require_readable(self, now: datetime) -> None:
        """Raises SecretUnreadable if something cannot be read here that a push needs."""
        require_readable((self.secret, self.overlapping(now), *self.headers.values()))

    def replacing(self, present: Delivery, now: datetime) -> Delivery:
        """This in place of ``present``: a secret that is replaced signs on for the overlap, so that receivers need not
        change at the same moment."""
        if self.secret == present.secret:
            previous, until = present.previous_secret, present.previous_secret_until
        elif self.secret is not None and _signs(present.secret) and self.secret_overlap_ms > 0:
            previous, until = present.secret, now + timedelta(milliseconds=self.secret_overlap_ms)
        else:
            previous, until = None, None
        return msgspec.structs.replace(self, previous_secret=previous, previous_secret_until=until)


def _signs(secret: str | None) -> bool:
    return secret is not None and not isinstance(secret, Sealed)


class Retries(msgspec.Struct, frozen=True, rename="camel"):
    """``max`` redeliveries after the first attempt. Delays in milliseconds."""

    max: int = 3
    strategy: Literal["exponential", "fixed"] = "exponential"
    base_delay: int = 1000
    max_delay: int = 60_000


class DeadLetters(msgspec.Struct, frozen=True, rename="camel"):
    enabled: bool = True
    on_dead: str | None = None


class RateLimit(msgspec.Struct, frozen=True, rename="camel"):
    per_second: float


class GroupConfig(msgspec.Struct, frozen=True, rename="camel"):
    delivery: Delivery = Delivery()
    ordering: Ordering = "partition"
    concurrency: int = 1
    batch_size: int = 50
    max_in_flight: int = 10_000
    filter: str | None = None
    start_from: str | int = "latest"
    ack_mode: Literal["auto", "manual"] = "auto"
    ack_timeout_ms: int = 30_000
    retries: Retries = Retries()
    dead_letter: DeadLetters = DeadLetters()
    rate_limit: RateLimit | None = None

    @property
    def max_attempts(self) -> int:
        return self.retries.max + 1

    @property
    def flight_limit(self) -> int:
        """Messages in flight at a time, over all replicas. A push that its answer settles is in flight while it is on
        the way, so that parallel pushes are counted there; one that the receiver settles later is longer."""
        if self.delivery.mode == "push" and self.ack_mode == "auto":
            return min(self.max_in_flight, self.concurrency)
        return self.max_in_flight


class Group(msgspec.Struct, frozen=True):
    """A group as it was when it was read. ``version`` rises with every change that a claim has to know of.

    ``paused`` is true while the group itself or its topic is paused. ``retention`` is the topic's.
    """

    id: int
    topic_id: int
    topic: str
    name: str
    config: GroupConfig
    partitions: int
    version: int
    paused_since: datetime | None
    pause_reason: str | None
    topic_paused_since: datetime | None
    topic_pause_reason: str | None
    created_at: datetime
    updated_at: datetime
    retention: Retention = Retention()

    @property
    def is_hook(self) -> bool:
        """Whether it pushes a hook's log (domain/hook.py), and is no group of a user's."""
        return self.config.delivery.format == "hook"

    @property
    def paused(self) -> bool:
        return self.paused_since is not None or self.topic_paused_since is not None

    @property
    def pause(self) -> tuple[datetime | None, str | None]:
        """Since when nothing is delivered, and why: its own pause, else its topic's."""
        if self.paused_since is not None or self.topic_paused_since is None:
            return self.paused_since, self.pause_reason
        said = "" if self.topic_pause_reason is None else f": {self.topic_pause_reason}"
        return self.topic_paused_since, f"the topic is paused{said}"
