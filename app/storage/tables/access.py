"""Who may call."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text

from app.storage.tables.columns import LONG_AGO, NOW, TEXTS, TIME, key, metadata, required

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
    Column("requests_per_s", BigInteger),
    Column("bytes_per_s", BigInteger),
    Index("keys_by_namespace", "namespace_id"),
    postgresql_with={"fillfactor": 70},
)  # fmt: skip

key_quotas = Table(
    "key_quotas", metadata,
    key("prefix", Text),
    key("quota", Text),
    required("used_until", TIME, default=LONG_AGO),
    postgresql_with={"fillfactor": 50},
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
