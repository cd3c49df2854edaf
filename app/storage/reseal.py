"""Encrypting again with the newest key what is encrypted with an older one, or not yet: rotation, row by row.

Nobody is locked out meanwhile, and nothing else changes: a row that somebody declares anew in between is theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from app.storage import groups, topics
from app.storage.database import Database, Record
from app.storage.vault import SETTING, Vault
from app.telemetry import log

# Rows read at a time.
PAGE = 200

# Secrets that do not begin with the newest key's prefix. jsonpath's "starts with" of null is unknown, which is no.
OLD = "? (!(@ starts with $newest))"
OLD_GROUPS = f"""
select g.id, g.topic_id, g.name, g.config,
       (g.config #>> '{{delivery,previousSecretUntil}}')::timestamptz <= clock_timestamp() as is_over
from groups g
where g.config #>> '{{delivery,mode}}' = 'push' and g.id > $1 and (
    jsonb_path_exists(g.config, '$.delivery.secret {OLD}', $2)
    or jsonb_path_exists(g.config, '$.delivery.previousSecret {OLD}', $2)
    or jsonb_path_exists(g.config, '$.delivery.headers.* {OLD}', $2))
order by g.id limit {PAGE}
"""
OLD_TOPICS = f"""
select t.id, t.namespace_id, t.name, t.config from topics t
where t.id > $1 and jsonb_path_exists(t.config, '$.hooks.secret {OLD}', $2)
order by t.id limit {PAGE}
"""
# Of a configuration that is still the one that was read. What it says stays the same, so its version does too.
REPLACE_GROUP = "update groups set config = $3 where id = $1 and config = $2"
REPLACE_TOPIC = "update topics set config = $3 where id = $1 and config = $2"


@dataclass(frozen=True, slots=True)
class Kind:
    """``resealed``: the configuration of a row with its secrets under the newest key, None if that cannot be."""

    name: str
    old: str
    replace: str
    resealed: Callable[[Record, Vault], str | None]


KINDS = (
    Kind("group", OLD_GROUPS, REPLACE_GROUP, groups.resealed),
    Kind("topic", OLD_TOPICS, REPLACE_TOPIC, topics.resealed),
)


async def reseal_once(db: Database) -> bool:
    """Leaves nothing under an older key but what cannot be read, which it logs. Says that there is no more to do."""
    if db.vault.newest is None:
        return False
    for kind in KINDS:
        done, unreadable = await _reseal(db, kind)
        if done:
            log.info("secrets_encrypted", kind=kind.name, rows=done)
        if unreadable:
            log.error("secrets_unreadable", kind=kind.name, rows=unreadable, keys=SETTING)
    return False


async def _reseal(db: Database, kind: Kind) -> tuple[int, int]:
    """How many rows were changed, and how many could not be."""
    newest = msgspec.json.encode({"newest": db.vault.newest_prefix}).decode()
    done = unreadable = after = 0
    while rows := await db.fetch(kind.old, after, newest):
        for row in rows:
            config = kind.resealed(row, db.vault)
            if config is None:
                unreadable += 1
            else:
                await db.execute(kind.replace, row["id"], row["config"], config)
                done += 1
        after = rows[-1]["id"]
    return done, unreadable
