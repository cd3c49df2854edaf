"""Processes, and what they do in the background."""

from __future__ import annotations

from sqlalchemy import Integer, Table, Text

from app.storage.tables.columns import TEXTS, TIME, key, metadata, place, required

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

open_streams = Table(
    "open_streams", metadata,
    key("namespace_id", Integer),
    key("replica_id", Text),
    required("count", Integer),
    required("seen_at", TIME),
    postgresql_with={"fillfactor": 50},
)  # fmt: skip
