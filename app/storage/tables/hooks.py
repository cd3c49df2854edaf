"""Hooks: what has to be told to whom (domain/hook.py)."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, Table, Text
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE, JSONB

from app.storage.tables.columns import TIME, ZERO, key, metadata, required

hooks = Table(
    "hooks", metadata,
    key("topic_id", BigInteger),
    key("event", Text),
    Column("group_id", Integer, primary_key=True, autoincrement=False, server_default=ZERO),
    required("log_id", BigInteger),
    CheckConstraint("event in ('published', 'acked', 'dead')", name="hooks_event_check"),
)  # fmt: skip

hook_cursors = Table(
    "hook_cursors", metadata,
    key("partition_id", BigInteger),
    required("next_offset", BigInteger),
    postgresql_with={"fillfactor": 50},
)  # fmt: skip

announcements = Table(
    "announcements", metadata,
    required("partition_id", BigInteger),
    required("group_id", Integer),
    required("event", Text),
    required("at", TIME),
    required("offsets", INT8MULTIRANGE),
    Column("key", Text),
    Column("meta", JSONB),
    Column("published_at", TIME),
    Column("error", Text),
    Index("announcements_oldest", "at"),
)  # fmt: skip
