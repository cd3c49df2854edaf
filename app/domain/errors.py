"""What can go wrong, as the caller should hear it. ``api/problems.py`` alone turns these into status codes.

LogpostError
├── Refused                  the request itself is wrong; nothing was stored
│   ├── InvalidJson          the bytes are not the JSON we accept
│   ├── InvalidField         a field, header, name or parameter is out of its range
│   ├── InvalidExpression    a CEL expression does not compile, with line and column
│   ├── InvalidSchema        a JSON Schema does not compile
│   ├── MessageRejected      the topic's schema or rules refuse the message
│   ├── IdempotencyKeyReused the key was used with another payload
│   ├── TooLarge             a body, message or batch is over its limit
│   └── UnsupportedMedia     a content type or encoding we do not take
├── Unauthorized             no key, or not one of ours
├── Forbidden                the caller may not do that
├── TooMany                  the caller does too much of it, and may again later
├── NotFound                 topic, group, message or dead letter
├── Conflict                 the state forbids it now (stale ackIds, fewer partitions, a moved log epoch)
└── Unavailable              try again: queue full, database away, outcome of a commit unknown
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request.

    ``field`` is where, in the caller's own words (``messages[3].options.ttlMs``, ``Delay-Ms``, ``retries.baseDelay``);
    ``index`` the position in a batch; ``path`` a JSON pointer into the message where a schema refused it.
    """

    reason: str
    field: str | None = None
    index: int | None = None
    path: str | None = None


@dataclass(eq=False)
class LogpostError(Exception):
    """``code`` is stable and part of the wire contract; ``detail`` is a sentence for a person."""

    code: ClassVar[str] = "internal"

    detail: str
    faults: Sequence[Fault] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.detail


class Refused(LogpostError):
    code = "refused"


class InvalidJson(Refused):
    code = "invalid_json"


class InvalidField(Refused):
    code = "invalid_field"

    @classmethod
    def of(cls, name: str, reason: str, *, index: int | None = None) -> InvalidField:
        return cls(f"{name}: {reason}", [Fault(reason, name, index)])


class InvalidExpression(Refused):
    code = "invalid_expression"


class InvalidSchema(Refused):
    code = "invalid_schema"


class MessageRejected(Refused):
    code = "message_rejected"


class IdempotencyKeyReused(Refused):
    code = "idempotency_key_reused"


class TooLarge(Refused):
    code = "too_large"


class UnsupportedMedia(Refused):
    code = "unsupported_media_type"


class Unauthorized(LogpostError):
    code = "unauthorized"


class Forbidden(LogpostError):
    code = "forbidden"


class LimitReached(Forbidden):
    """As many as are allowed: waiting does not help, removing something does."""

    code = "limit_reached"

    @classmethod
    def of(cls, what: str, most: int, setting: str) -> LimitReached:
        """``setting``: the one that raises the limit, for whoever runs the server."""
        reason = f"at most {most} {what} are allowed ({setting})"
        return cls(f"There are as many {what} as may be: {reason}.", [Fault(reason)])


@dataclass(eq=False)
class TooMany(LogpostError):
    """``retry_after`` seconds until it can be done, if nobody else does it meanwhile."""

    code = "too_many"

    retry_after: int = 1


class RateLimited(TooMany):
    code = "rate_limited"


class NotFound(LogpostError):
    code = "not_found"


class TopicNotFound(NotFound):
    code = "topic_not_found"

    @classmethod
    def named(cls, name: str) -> TopicNotFound:
        return cls(f"There is no topic named {name!r}.", [Fault("no such topic", "topic")])


class GroupNotFound(NotFound):
    code = "group_not_found"

    @classmethod
    def named(cls, topic: str, name: str) -> GroupNotFound:
        return cls(f"Topic {topic!r} has no group named {name!r}.", [Fault("no such group", "group")])


class MessageNotFound(NotFound):
    code = "message_not_found"

    @classmethod
    def of(cls, message_id: str) -> MessageNotFound:
        return cls(f"There is no message {message_id!r} in this topic.", [Fault("no such message", "messageId")])


class DeadLetterNotFound(NotFound):
    code = "dead_letter_not_found"

    @classmethod
    def of(cls, message_id: str) -> DeadLetterNotFound:
        return cls(f"This group has no dead letter {message_id!r}.", [Fault("no such dead letter", "messageId")])


class KeyNotFound(NotFound):
    code = "key_not_found"

    @classmethod
    def of(cls, key_id: str) -> KeyNotFound:
        return cls(f"There is no key {key_id!r}.", [Fault("no such key", "keyId")])


class Conflict(LogpostError):
    code = "conflict"


class NothingSettled(Conflict):
    code = "nothing_settled"


class NotPushed(Conflict):
    code = "group_not_pushed"


class FewerPartitions(Conflict):
    code = "partitions_cannot_shrink"


class LogEpochChanged(Conflict):
    code = "log_epoch_changed"


class Unavailable(LogpostError):
    """``retry_after`` seconds until it is worth trying again."""

    code = "unavailable"
    retry_after: ClassVar[int] = 1


class QueueFull(Unavailable):
    code = "queue_full"


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"


class CommitUnknown(Unavailable):
    code = "commit_unknown"


class ShuttingDown(Unavailable):
    code = "shutting_down"


class TooSlow(Unavailable):
    code = "too_slow"


class SecretUnreadable(Unavailable):
    """A stored secret cannot be decrypted: whoever runs the server has to give it the key again."""

    code = "secret_unreadable"
    retry_after = 60
