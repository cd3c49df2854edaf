"""Stream tickets: kept as digests, used once, gone soon."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.storage.database import Database


@dataclass(frozen=True, slots=True)
class Ticket:
    """What it lets its bearer watch; ``group`` None is the topic itself."""

    namespace_id: int
    topic: str
    group: str | None


# What expired is removed here: there is never more than a minute's worth of tickets.
ISSUE = """
    with expired as (delete from stream_tickets where expires_at < clock_timestamp())
    insert into stream_tickets (digest, namespace_id, topic, group_name, expires_at)
    values ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))
    returning expires_at
"""


async def issue(db: Database, digest: bytes, ticket: Ticket, seconds: float) -> datetime:
    """Returns when it expires."""
    expires_at: datetime = await db.fetchval(ISSUE, digest, ticket.namespace_id, ticket.topic, ticket.group, seconds)
    return expires_at


REDEEM = """
    delete from stream_tickets where digest = $1
    returning namespace_id, topic, group_name, expires_at > clock_timestamp() as is_good
"""


async def redeem(db: Database, digest: bytes) -> Ticket | None:
    """None for a ticket that was used, has expired or never was. Afterwards it is used."""
    row = await db.fetchrow(REDEEM, digest)
    return Ticket(row[0], row[1], row[2]) if row is not None and row[3] else None
