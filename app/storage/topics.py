"""Topics and their partitions.

Whoever changes a topic, or the groups of one, locks the topic's row first, then its groups by id, then partitions by
id, then cursors: in that order nobody waits for somebody who waits for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.domain.errors import TopicNotFound
from app.domain.partition import NUMBER_BITS
from app.domain.topic import Topic, TopicConfig
from app.storage.database import Database, Record, Tx, vault_of
from app.storage.vault import Change, Vault

COLUMNS = """
t.id, t.namespace_id, t.name, t.config, t.tags, t.partitions, t.home_partitions, t.version, t.paused_since,
t.pause_reason, t.created_at, t.updated_at"""
# The partitions of topic $1: a range of ids.
PARTITIONS_OF = f"id between $1::bigint << {NUMBER_BITS} and ($1::bigint << {NUMBER_BITS}) + {(1 << NUMBER_BITS) - 1}"

_decode_config = msgspec.json.Decoder(TopicConfig).decode


def _topic(row: Record, vault: Vault) -> Topic:
    config = _with_secrets(_decode_config(row["config"]), vault.open, row["namespace_id"], row["name"])
    return Topic(**dict(row) | {"config": config, "tags": tuple(row["tags"])})


def _json(config: TopicConfig, vault: Vault, namespace_id: int, name: str) -> str:
    return msgspec.json.encode(_with_secrets(config, vault.seal, namespace_id, name)).decode()


def resealed(row: Record, vault: Vault) -> str | None:
    """The configuration in a row of (namespace_id, name, config) with its secret under the newest key, None if it
    cannot be read."""
    config = _decode_config(row["config"])
    changed = _with_secrets(config, vault.reseal, row["namespace_id"], row["name"])
    return None if changed == config else msgspec.json.encode(changed).decode()


def _with_secrets(config: TopicConfig, change: Change, namespace_id: int, name: str) -> TopicConfig:
    if config.hooks.secret is None:
        return config
    secret = change(config.hooks.secret, ("topic", namespace_id, name, "hooks"))
    return msgspec.structs.replace(config, hooks=msgspec.structs.replace(config.hooks, secret=secret))


READ = f"select {COLUMNS} from topics t where t.namespace_id = $1 and t.name = $2"


async def read_topic(db: Database, namespace_id: int, name: str) -> Topic:
    """Raises TopicNotFound."""
    row = await db.fetchrow(READ, namespace_id, name)
    if row is None:
        raise TopicNotFound.named(name)
    return _topic(row, db.vault)


LIST = f"""
select {COLUMNS} from topics t
where t.namespace_id = $1 and t.name > $2 collate "C" and t.tags @> $3 and t.name like any ($4)
order by t.name collate "C" limit $5
"""


async def list_topics(
    db: Database, namespace_id: int, *, after: str, tags: Sequence[str], patterns: Sequence[str], limit: int
) -> list[Topic]:
    """Topics that have all of ``tags`` and a name of one of ``patterns`` (``*`` is any text), by name, from the one
    after ``after``."""
    likes = [pattern.replace("_", r"\_").replace("*", "%") for pattern in patterns]
    return [_topic(row, db.vault) for row in await db.fetch(LIST, namespace_id, after, list(tags), likes, limit)]


LOCK = f"{READ} for no key update"


async def lock_topic(tx: Tx, namespace_id: int, name: str) -> Topic | None:
    """The topic, and nobody else changes it or its groups until this transaction ends."""
    row = await tx.fetchrow(LOCK, namespace_id, name)
    return None if row is None else _topic(row, vault_of(tx))


INSERT = f"""
insert into topics as t (namespace_id, name, config, tags, partitions, home_partitions)
values ($1, $2, $3, $4, $5, $5)
returning {COLUMNS}
"""


async def insert_topic(
    tx: Tx, namespace_id: int, name: str, *, config: TopicConfig, tags: Sequence[str], partitions: int
) -> Topic:
    """Raises asyncpg.UniqueViolationError if somebody else was faster."""
    vault = vault_of(tx)
    document = _json(config, vault, namespace_id, name)
    row = await tx.fetchrow(INSERT, namespace_id, name, document, list(tags), partitions)
    assert row is not None
    return _topic(row, vault)


UPDATE = f"""
update topics as t
set config = $2, tags = $3, partitions = $4, version = t.version + 1, updated_at = clock_timestamp()
where t.id = $1
returning {COLUMNS}
"""


async def update_topic(tx: Tx, topic: Topic, *, config: TopicConfig, tags: Sequence[str], partitions: int) -> Topic:
    """The changed topic, a version further. Its partitions have to be told: ``set_version``."""
    vault = vault_of(tx)
    document = _json(config, vault, topic.namespace_id, topic.name)
    row = await tx.fetchrow(UPDATE, topic.id, document, list(tags), partitions)
    assert row is not None
    return _topic(row, vault)


DELETE = "delete from topics where id = $1"


async def delete_topic(tx: Tx, topic_id: int) -> None:
    await tx.execute(DELETE, topic_id)


INSERT_PARTITIONS = f"""
insert into partitions (id, topic_id, number, version)
select $1::bigint << {NUMBER_BITS} | n, $1, n, $4 from generate_series($2::int, $3::int - 1) n
"""


async def insert_partitions(tx: Tx, topic_id: int, numbers: range, version: int) -> None:
    await tx.execute(INSERT_PARTITIONS, topic_id, numbers.start, numbers.stop, version)


LOCK_PARTITIONS = f"select from partitions where {PARTITIONS_OF} order by id for no key update"


async def lock_partitions(tx: Tx, topic_id: int) -> None:
    """Holds back appends until this transaction ends. Ascending, as the appender takes them."""
    await tx.execute(LOCK_PARTITIONS, topic_id)


SET_VERSION = f"update partitions set version = $2 where {PARTITIONS_OF}"


async def set_version(tx: Tx, topic_id: int, version: int) -> None:
    """Tells appends of the topic's version. Lock the partitions first."""
    await tx.execute(SET_VERSION, topic_id, version)


DELETE_PARTITIONS = f"""
with gone as (delete from partitions where {PARTITIONS_OF} returning id)
insert into deletions (partition_id, group_id) select id, 0 from gone
"""


async def delete_partitions(tx: Tx, topic_id: int) -> None:
    """Ends appends; what the partitions hold is removed later (storage/deletions.py). Lock the partitions first."""
    await tx.execute(DELETE_PARTITIONS, topic_id)
