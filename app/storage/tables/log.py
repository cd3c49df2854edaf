"""The log: topics, their partitions, and what is in them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.storage.tables.columns import FALSE, LONG_AGO, NOW, ONE, TEXTS, TIME, key, metadata, required

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
