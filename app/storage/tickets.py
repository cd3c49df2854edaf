"""Stream tickets: kept as digests, used once, gone soon."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.storage.database import Database


@dataclass(frozen=True, slots=True)
class Ticket:
    """What it lets its bearer watch; ``group`` None is the topic itself. ``key``: prefix of the key that asked."""

    namespace_id: int
    topic: str
    group: str | None
    key: str | None = None


# What expired is removed here: there is never more than a minute's worth of tickets.
ISSUE = """
    with expired as (delete from stream_tickets where expires_at < clock_timestamp())
    insert into stream_tickets (digest, namespace_id, topic, group_name, key_prefix, expires_at)
    values ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6))
    returning expires_at
"""


async def issue(db: Database, digest: bytes, ticket: Ticket, seconds: float) -> datetime:
    """Returns when it expires."""
    expires_at: datetime = await db.fetchval(
        ISSUE, digest, ticket.namespace_id, ticket.topic, ticket.group, ticket.key, seconds
    )  # fmt: skip
    return expires_at


REDEEM = """
    delete from stream_tickets where digest = $1
    returning namespace_id, topic, group_name, key_prefix,
        expires_at > clock_timestamp() and (key_prefix is null or exists (
            select from keys k
            where k.prefix = key_prefix and (k.expires_at is null or k.expires_at > clock_timestamp())))
"""


async def redeem(db: Database, digest: bytes) -> Ticket | None:
    """None for a ticket that was used, has expired, never was, or whose key has ended. Afterwards it is used."""
    row = await db.fetchrow(REDEEM, digest)
    return Ticket(row[0], row[1], row[2], row[3]) if row is not None and row[4] else None
