"""The tables, in one place to read. The migrations make them; a test holds the two equal to the last check and index.

Nothing here is queried through: statements are SQL, next to the function that runs them.
"""

from __future__ import annotations

from typing import Any

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
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)  # fmt: skip
from sqlalchemy.dialects.postgresql import ARRAY, INT8MULTIRANGE, JSONB, TIMESTAMP

metadata = MetaData()

TIME = TIMESTAMP(timezone=True)
TEXTS = ARRAY(Text)
LONG_AGO = text("'-infinity'")
NOW = text("now()")
ZERO = text("0")
ONE = text("1")
FALSE = text("false")


def key(name: str, kind: Any) -> Column[Any]:
    """A part of the primary key that the application gives."""
    return Column(name, kind, primary_key=True, autoincrement=False)


def required(name: str, kind: Any, *more: Any, default: Any = None) -> Column[Any]:
    return Column(name, kind, *more, nullable=False, server_default=default)


def place() -> list[Column[Any]]:
    """Of a group in a partition, first in the key of all that is kept there."""
    return [key("partition_id", BigInteger), key("group_id", Integer)]


# The log

namespaces = Table(
    "namespaces", metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    required("project", Text),
    required("environment", Text),
    UniqueConstraint("project", "environment"),
)  # fmt: skip

topics = Table(
    "topics", metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    required("namespace_id", Integer, ForeignKey("namespaces.id")),
    required("name", Text),
    required("config", JSONB),
    required("tags", TEXTS, default=text("'{}'")),
    required("partitions", Integer),
    required("home_partitions", Integer),
    required("version", Integer, default=ONE),
    Column("paused_since", TIME),
    Column("pause_reason", Text),
    required("created_at", TIME, default=NOW),
    required("updated_at", TIME, default=NOW),
    UniqueConstraint("namespace_id", "name"),
    CheckConstraint("partitions between 1 and 65536", name="topics_partitions_check"),
)  # fmt: skip

# The id says topic and number: app/domain/partition.py.
partitions = Table(
    "partitions", metadata,
    key("id", BigInteger),
    required("topic_id", BigInteger),
    required("number", Integer),
    required("version", Integer),
    required("first_offset", BigInteger, default=ONE),
    required("epoch", Integer, default=ONE),
    required("purged_at", TIME, default=LONG_AGO),
    postgresql_with={"fillfactor": 50},
)  # fmt: skip

batches = Table(
    "batches", metadata,
    key("partition_id", BigInteger),
    key("base_offset", BigInteger),
    required("count", Integer),
    required("published_at", TIME),
    required("timed", Boolean, default=FALSE),
    Column("keys", TEXTS),
    Column("meta", ARRAY(JSONB)),
    required("payloads", ARRAY(LargeBinary)),
    CheckConstraint("count between 1 and 1000 and cardinality(payloads) = count", name="batches_check"),
)  # fmt: skip

idempotency_keys = Table(
    "idempotency_keys", metadata,
    key("partition_id", BigInteger),
    key("key", Text),
    required("digest", LargeBinary),
    required("target_id", BigInteger),
    required("offset", BigInteger),
    required("published_at", TIME),
    Index("idempotency_keys_age", text("(partition_id >> 16)"), text("published_at")),
)  # fmt: skip

# Groups

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
    *[required(counter, BigInteger, default=ZERO) for counter in (
        "passed", "filtered", "filter_errors", "expired", "lost", "discarded", "dead", "dropped", "removed", "redriven",
    )],
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
    *[Column(name, Text) for name in ("error_class", "error", "excerpt")],
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

# Processes, and what they do in the background

replicas = Table(
    "replicas", metadata,
    key("id", Text),
    required("host", Text),
    required("pid", Integer),
    required("started_at", TIME),
    required("seen_at", TIME),
    postgresql_with={"fillfactor": 50},
)  # fmt: skip

leadership = Table(
    "leadership", metadata,
    key("duty", Text),
    required("replica_id", Text),
    required("until", TIME),
    postgresql_with={"fillfactor": 50},
)  # fmt: skip

deletions = Table(
    "deletions", metadata,
    *place(),
)  # fmt: skip

consumers = Table(
    "consumers", metadata,
    key("group_id", Integer),
    key("replica_id", Text),
    required("owners", TEXTS),
    required("seen_at", TIME),
    postgresql_with={"fillfactor": 70},
)  # fmt: skip

# Who may call

keys = Table(
    "keys", metadata,
    key("prefix", Text),
    required("digest", LargeBinary),
    required("namespace_id", Integer, ForeignKey("namespaces.id")),
    required("name", Text),
    required("rights", TEXTS),
    required("patterns", TEXTS),
    Column("expires_at", TIME),
    required("created_at", TIME, default=NOW),
    Column("last_used_at", TIME),
    Index("keys_by_namespace", "namespace_id"),
    postgresql_with={"fillfactor": 70},
)  # fmt: skip

stream_tickets = Table(
    "stream_tickets", metadata,
    key("digest", LargeBinary),
    required("namespace_id", Integer),
    required("topic", Text),
    Column("group_name", Text),
    required("expires_at", TIME),
    Column("key_prefix", Text),
)  # fmt: skip
