"""How many messages of a namespace are leased, over all its groups."""

from __future__ import annotations

from app.storage.database import Database

# Leases that have ended do not count, whoever held them: so nothing is left of a replica that died.
COUNT = """
    select coalesce(sum(upper(r.r) - lower(r.r)), 0)::bigint
    from leases l
    join groups g on g.id = l.group_id
    join topics t on t.id = g.topic_id
    cross join lateral unnest(l.pending) r (r)
    where t.namespace_id = $1 and l.deadline > clock_timestamp()
"""


async def count(db: Database, namespace_id: int) -> int:
    found: int = await db.fetchval(COUNT, namespace_id)
    return found
