"""Consumer groups: where they are, what they hold, and what became of it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INT8MULTIRANGE, JSONB

from app.storage.tables.columns import FALSE, LONG_AGO, NOW, ONE, TEXTS, TIME, ZERO, key, metadata, place, required

groups = Table(
    "groups", metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    required("topic_id", BigInteger, ForeignKey("topics.id")),
    required("name", Text),
    required("config", JSONB),
    required("version", Integer, default=ONE),
    Column("paused_since", TIME),
    Column("pause_reason", Text),
    required("created_at", TIME, default=NOW),
    required("updated_at", TIME, default=NOW),
    UniqueConstraint("topic_id", "name"),
    Index("groups_pushed", "id", postgresql_where=text("config #>> '{delivery,mode}' = 'push'")),
)  # fmt: skip

cursors = Table(
    "cursors", metadata,
    *place(),
    required("next_offset", BigInteger),
    required("epoch", Integer, default=ONE),
    required("version", Integer),
    required("paused", Boolean, default=FALSE),
    required("served_at", TIME, default=LONG_AGO),
    required("passed", BigInteger, default=ZERO),
    required("filtered", BigInteger, default=ZERO),
    required("filter_errors", BigInteger, default=ZERO),
    required("expired", BigInteger, default=ZERO),
    required("lost", BigInteger, default=ZERO),
    required("discarded", BigInteger, default=ZERO),
    required("dead", BigInteger, default=ZERO),
    required("dropped", BigInteger, default=ZERO),
    required("removed", BigInteger, default=ZERO),
    required("redriven", BigInteger, default=ZERO),
    Index("cursors_by_group", "group_id"),
    postgresql_with={"fillfactor": 50},
)  # fmt: skip

leases = Table(
    "leases", metadata,
    *place(),
    key("id", BigInteger),
    key("deadline", TIME),
    required("owner", Text),
    required("pending", INT8MULTIRANGE),
    Column("offsets", ARRAY(BigInteger)),
    Column("keys", TEXTS),
    required("deferrals", Boolean, default=FALSE),
    Index("leases_by_group", "group_id"),
    postgresql_with={"fillfactor": 70},
)  # fmt: skip

past_leases = Table(
    "past_leases", metadata,
    *place(),
    key("id", BigInteger),
    required("until", TIME),
    required("lost", INT8MULTIRANGE, default=text("'{}'")),
    required("discarded", INT8MULTIRANGE, default=text("'{}'")),
    Index("past_leases_age", "until"),
)  # fmt: skip

deferred = Table(
    "deferred", metadata,
    *place(),
    key("offset", BigInteger),
    Column("key", Text),
    required("state", Text),
    required("attempt", Integer, default=ZERO),
    required("due_at", TIME, default=LONG_AGO),
    Column("expires_at", TIME),
    Column("error", Text),
    Column("lease_id", BigInteger),
    required("redriven", Boolean, default=FALSE),
    Column("published_at", TIME),
    Column("meta", JSONB),
    Column("payload", LargeBinary),
    CheckConstraint("state in ('retrying', 'held', 'delayed')", name="deferred_state_check"),
    Index("deferred_by_key", "partition_id", "group_id", "key", "offset",
          postgresql_where=text("lease_id is null and state <> 'delayed'")),
    Index("deferred_due", "partition_id", "group_id", "due_at",
          postgresql_where=text("lease_id is null and state <> 'held'")),
    Index("deferred_expiring", "partition_id", "group_id", "expires_at",
          postgresql_where=text("lease_id is null and expires_at is not null")),
)  # fmt: skip

dead_letters = Table(
    "dead_letters", metadata,
    *place(),
    key("offset", BigInteger),
    Column("key", Text),
    Column("meta", JSONB),
    required("payload", LargeBinary),
    required("published_at", TIME),
    Column("error", Text),
    required("attempts", Integer),
    required("dead_at", TIME),
    Index("dead_letters_newest", "group_id", text("dead_at desc"), "partition_id", "offset"),
)  # fmt: skip

attempts = Table(
    "attempts", metadata,
    required("partition_id", BigInteger),
    required("offset", BigInteger),
    required("group_id", Integer),
    required("attempt", Integer),
    required("at", TIME),
    required("outcome", Text),
    Column("latency_ms", Integer),
    Column("status", Integer),
    Column("error_class", Text),
    Column("error", Text),
    Column("excerpt", Text),
    Index("attempts_by_message", "partition_id", "offset", "group_id", "at"),
    Index("attempts_age", "at"),
    Index("attempts_acked", "group_id", "at", postgresql_where=text("outcome = 'acked'")),
)  # fmt: skip

endpoints = Table(
    "endpoints", metadata,
    key("group_id", Integer),
    required("breaker", JSONB, default=text("'{}'")),
    Column("throttled_until", TIME),
    Column("since", TIME),
    Column("reason", Text),
    Column("tokens", Double),
    Column("tokens_at", BigInteger),
    postgresql_with={"fillfactor": 50},
)  # fmt: skip
