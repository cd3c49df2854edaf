"""API keys: their digests and what they may do. A key itself is never here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.domain.key import Key, Right
from app.domain.names import Namespace
from app.storage.database import Database, Record

COLUMNS = """
k.prefix, k.namespace_id, n.project, n.environment, k.name, k.rights, k.patterns, k.expires_at, k.created_at,
k.last_used_at, k.requests_per_s, k.bytes_per_s"""


def _key(row: Record) -> Key:
    return Key(
        prefix=row["prefix"],
        namespace=Namespace(row["namespace_id"], row["project"], row["environment"]),
        name=row["name"],
        rights=frozenset(row["rights"]),
        patterns=tuple(row["patterns"]),
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        requests_per_s=row["requests_per_s"],
        bytes_per_s=row["bytes_per_s"],
    )


# The limit holds for any number of calls at a time: each locks the namespace before it counts.
LOCK_NAMESPACE = "select from namespaces where id = $1 for no key update"
COUNT = "select count(*) from keys where namespace_id = $1"
INSERT = f"""
with k as (
    insert into keys (
        prefix, digest, namespace_id, name, rights, patterns, expires_at, requests_per_s, bytes_per_s)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning *)
select {COLUMNS} from k join namespaces n on n.id = k.namespace_id
"""


async def insert_key(
    db: Database,
    prefix: str,
    digest: bytes,
    namespace_id: int,
    *,
    name: str,
    rights: Sequence[Right],
    patterns: Sequence[str],
    expires_at: datetime | None,
    requests_per_s: int | None,
    bytes_per_s: int | None,
    most: int,
) -> Key | None:
    """The new key, or None where the namespace has ``most`` already."""
    async with db.transaction() as tx:
        await tx.execute(LOCK_NAMESPACE, namespace_id)
        if await tx.fetchval(COUNT, namespace_id) >= most:
            return None
        row = await tx.fetchrow(
            INSERT, prefix, digest, namespace_id, name, rights, patterns, expires_at, requests_per_s, bytes_per_s
        )
    assert row is not None
    return _key(row)


LIST = f"""
select {COLUMNS} from keys k join namespaces n on n.id = k.namespace_id
where ($1::text is null or n.project = $1) and ($2::text is null or n.environment = $2)
    and k.prefix > $3 collate "C"
order by k.prefix collate "C" limit $4
"""


async def list_keys(db: Database, *, project: str | None, environment: str | None, after: str, limit: int) -> list[Key]:
    """Keys of the namespaces of these names, or of any, by prefix, from the one after ``after``."""
    return [_key(row) for row in await db.fetch(LIST, project, environment, after, limit)]


READ = f"select {COLUMNS} from keys k join namespaces n on n.id = k.namespace_id where k.prefix = $1"


async def read_key(db: Database, prefix: str) -> Key | None:
    row = await db.fetchrow(READ, prefix)
    return None if row is None else _key(row)


VALID = f"""
select k.digest, {COLUMNS} from keys k join namespaces n on n.id = k.namespace_id
where k.prefix = $1 and (k.expires_at is null or k.expires_at > clock_timestamp())
"""


async def read_valid(db: Database, prefix: str) -> tuple[bytes, Key] | None:
    """The digest of the key with this prefix, and the key, unless it has expired by the database's clock."""
    row = await db.fetchrow(VALID, prefix)
    return None if row is None else (row["digest"], _key(row))


STILL_VALID = """
select prefix from keys
where prefix = any ($1::text[]) and (expires_at is null or expires_at > clock_timestamp())
"""


async def still_valid(db: Database, prefixes: Sequence[str]) -> set[str]:
    """Those of these prefixes whose keys were neither revoked nor have expired."""
    return {row["prefix"] for row in await db.fetch(STILL_VALID, prefixes)}


DELETE = """
with quotas as (delete from key_quotas where prefix = $1)
delete from keys where prefix = $1 returning true
"""


async def delete_key(db: Database, prefix: str) -> bool:
    """Whether there was one."""
    return bool(await db.fetchval(DELETE, prefix))


USED = "update keys set last_used_at = clock_timestamp() where prefix = any ($1::text[])"


async def set_used(db: Database, prefixes: Sequence[str]) -> None:
    """Notes that these keys have been used just now."""
    await db.execute(USED, prefixes)
