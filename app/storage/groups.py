"""Consumer groups as they are declared, and the cursors they start with. Locks: see storage/topics.py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from app.domain.errors import GroupNotFound, TopicNotFound
from app.domain.group import Group, GroupConfig
from app.domain.message import MAX_BIGINT
from app.domain.partition import NUMBER_BITS
from app.domain.position import Position
from app.domain.topic import Retention
from app.storage import endpoints
from app.storage.database import Database, Record, Tx, vault_of
from app.storage.topics import PARTITIONS_OF
from app.storage.vault import Change, Vault

COLUMNS = """
g.id, t.id as topic_id, t.name as topic, g.name, g.config, t.partitions, g.version, g.paused_since, g.pause_reason,
t.paused_since as topic_paused_since, t.pause_reason as topic_pause_reason, g.created_at, g.updated_at,
t.config -> 'retention' as retention"""

_decode_config = msgspec.json.Decoder(GroupConfig).decode
_decode_retention = msgspec.json.Decoder(Retention).decode


def _group(row: Record, vault: Vault) -> Group:
    config = _with_secrets(_decode_config(row["config"]), vault.open, row["topic_id"], row["name"])
    retention = _decode_retention(row["retention"]) if row["retention"] else Retention()
    return Group(**dict(row) | {"config": config, "retention": retention})


def _json(config: GroupConfig, vault: Vault, topic_id: int, name: str) -> str:
    return msgspec.json.encode(_with_secrets(config, vault.seal, topic_id, name)).decode()


def resealed(row: Record, vault: Vault) -> str | None:
    """The configuration in a row of (topic_id, name, config, is_over) with its secrets under the newest key, None if
    nothing is to be done. ``is_over``: the secret before this one signs no more, and goes."""
    config = _decode_config(row["config"])
    changed = _with_secrets(config, vault.reseal, row["topic_id"], row["name"])
    if row["is_over"]:
        delivery = msgspec.structs.replace(changed.delivery, previous_secret=None, previous_secret_until=None)
        changed = msgspec.structs.replace(changed, delivery=delivery)
    return None if changed == config else msgspec.json.encode(changed).decode()


def _with_secrets(config: GroupConfig, change: Change, topic_id: int, name: str) -> GroupConfig:
    """All headers count: what lets in at a receiver may have any name."""
    delivery = config.delivery
    if delivery.mode == "pull":
        return config

    def changed(secret: str | None) -> str | None:
        return None if secret is None else change(secret, ("group", topic_id, name, "secret"))

    headers = {
        header: change(value, ("group", topic_id, name, "header", header)) for header, value in delivery.headers.items()
    }
    delivery = msgspec.structs.replace(
        delivery, headers=headers, secret=changed(delivery.secret), previous_secret=changed(delivery.previous_secret)
    )
    return msgspec.structs.replace(config, delivery=delivery)


READ = f"""
select {COLUMNS} from topics t left join groups g on g.topic_id = t.id and g.name = $3
where t.namespace_id = $1 and t.name = $2
"""


async def read_group(db: Database, namespace_id: int, topic: str, name: str) -> Group:
    """Raises TopicNotFound, GroupNotFound."""
    row = await db.fetchrow(READ, namespace_id, topic, name)
    if row is None:
        raise TopicNotFound.named(topic)
    if row["id"] is None:
        raise GroupNotFound.named(topic, name)
    return _group(row, db.vault)


LIST = f"""
select {COLUMNS} from groups g join topics t on t.id = g.topic_id
where g.topic_id = $1 and g.name > $2 collate "C"
order by g.name collate "C" limit $3
"""


async def list_groups(db: Database, topic_id: int, *, after: str, limit: int) -> list[Group]:
    """Groups of a topic by name, from the one after ``after``."""
    return [_group(row, db.vault) for row in await db.fetch(LIST, topic_id, after, limit)]


LOCK = f"""
select {COLUMNS} from groups g join topics t on t.id = g.topic_id
where g.topic_id = $1 and g.name = $2
for no key update of g
"""


async def lock_group(tx: Tx, topic_id: int, name: str) -> Group | None:
    """The group, and nobody else changes it until this transaction ends."""
    row = await tx.fetchrow(LOCK, topic_id, name)
    return None if row is None else _group(row, vault_of(tx))


LOCK_ALL = "select id from groups where topic_id = $1 order by id for no key update"


async def lock_groups(tx: Tx, topic_id: int) -> list[int]:
    """The ids of a topic's groups; nobody else changes them until this transaction ends."""
    return [row["id"] for row in await tx.fetch(LOCK_ALL, topic_id)]


COUNT = "select count(*) from groups where topic_id = $1"


async def count_groups(tx: Tx, topic_id: int) -> int:
    """Lock the topic first: then it stays so until this transaction ends."""
    count: int = await tx.fetchval(COUNT, topic_id)
    return count


INSERT = f"""
with g as (
    insert into groups (topic_id, name, config) values ($1, $2, $3) returning *)
select {COLUMNS} from g join topics t on t.id = g.topic_id
"""


async def insert_group(tx: Tx, topic_id: int, name: str, config: GroupConfig) -> Group:
    vault = vault_of(tx)
    row = await tx.fetchrow(INSERT, topic_id, name, _json(config, vault, topic_id, name))
    assert row is not None
    return _group(row, vault)


UPDATE = f"""
with g as (
    update groups set config = $2, version = version + 1, updated_at = clock_timestamp() where id = $1 returning *)
select {COLUMNS} from g join topics t on t.id = g.topic_id
"""


async def update_group(tx: Tx, group: Group, config: GroupConfig) -> Group:
    """The changed group, a version further. Its cursors have to be told: ``tell_cursors``."""
    vault = vault_of(tx)
    row = await tx.fetchrow(UPDATE, group.id, _json(config, vault, group.topic_id, group.name))
    assert row is not None
    return _group(row, vault)


BUMP = "update groups set version = version + 1 where id = any ($1::int[])"


async def bump_versions(tx: Tx, group_ids: Sequence[int]) -> None:
    """Makes every process read these groups again. Their cursors have to be told: ``tell_cursors``."""
    await tx.execute(BUMP, group_ids)


LOCK_CURSORS = """
select from cursors where group_id = any ($1::int[]) order by partition_id, group_id for no key update
"""
TELL_CURSORS = """
update cursors c set version = g.version from groups g where g.id = c.group_id and c.group_id = any ($1::int[])
"""


async def tell_cursors(tx: Tx, group_ids: Sequence[int]) -> None:
    """Gives the cursors of these groups the version of their group, which claims compare."""
    await tx.execute(LOCK_CURSORS, group_ids)
    await tx.execute(TELL_CURSORS, group_ids)


# Clamped to what exists: the first retained message at the least, the next one to be published at the most.
INSERT_CURSORS = f"""
insert into cursors (partition_id, group_id, next_offset, version, paused)
select p.id, $2, least(greatest(
           case when $4::timestamptz is null then $3 else offset_at(p.id, $4) end,
           p.first_offset), e.ahead), $5, $6
from partitions p
cross join lateral (
    select greatest(p.first_offset, (
        select b.base_offset + b.count from batches b where b.partition_id = p.id
        order by b.base_offset desc limit 1)) as ahead) e
where p.{PARTITIONS_OF}
"""
PLACES = {"earliest": 1, "latest": MAX_BIGINT}


async def insert_cursors(tx: Tx, group: Group, start: Position) -> None:
    """Places a new group in every partition. Lock the partitions first: then nothing is published past the cursors
    before they are there, and nothing that is published after the commit lies before them."""
    moment = start if isinstance(start, datetime) else None
    offset = MAX_BIGINT if isinstance(start, datetime) else PLACES[start] if isinstance(start, str) else start
    await tx.execute(INSERT_CURSORS, group.topic_id, group.id, offset, moment, group.version, group.paused)


INSERT_CURSORS_OF_NEW = f"""
insert into cursors (partition_id, group_id, next_offset, version, paused)
select $1::bigint << {NUMBER_BITS} | n, g.id, 1, g.version,
       g.paused_since is not null or t.paused_since is not null
from topics t
join groups g on g.topic_id = t.id
cross join generate_series($2::int, $3::int - 1) n
where t.id = $1
"""


async def insert_cursors_of_new(tx: Tx, topic_id: int, numbers: range) -> None:
    """Gives every group of a topic its cursor in new partitions: at their start, whatever startFrom said, because
    nothing in them was published before the group was declared."""
    await tx.execute(INSERT_CURSORS_OF_NEW, topic_id, numbers.start, numbers.stop)


DELETE_CURSORS = """
with gone as (delete from cursors where group_id = any ($1::int[]) returning partition_id, group_id)
insert into deletions (partition_id, group_id) select partition_id, group_id from gone
"""
DELETE_LEASES = "delete from leases where group_id = any ($1::int[])"
DELETE = "delete from groups where id = any ($1::int[])"


async def delete_groups(tx: Tx, group_ids: Sequence[int]) -> None:
    """Ends claims and settles of these groups; their rows of single messages go later (storage/deletions.py)."""
    await tx.execute(LOCK_CURSORS, group_ids)
    await tx.execute(DELETE_CURSORS, group_ids)
    await tx.execute(DELETE_LEASES, group_ids)
    await endpoints.forget(tx, group_ids)
    await tx.execute(DELETE, group_ids)
