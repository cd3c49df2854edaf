"""Tickets: what lets a browser open a stream, since its EventSource can send no key. Used once, and soon."""

from __future__ import annotations

import secrets
from datetime import datetime
from hashlib import sha256

from app.domain.errors import Unauthorized
from app.storage import tickets
from app.storage.database import Database
from app.storage.tickets import Ticket

PREFIX = "tkt_"
LIFETIME_S = 60.0


async def issue_ticket(db: Database, ticket: Ticket) -> tuple[str, datetime]:
    """The ticket's text, which only its bearer has, and when it expires."""
    text = PREFIX + secrets.token_urlsafe(32)
    return text, await tickets.issue(db, _digest(text), ticket, LIFETIME_S)


async def redeem_ticket(db: Database, text: str, topic: str, group: str | None) -> Ticket:
    """The ticket of that text. Raises Unauthorized; the ticket is used up in any case."""
    ticket = await tickets.redeem(db, _digest(text))
    if ticket is None or (ticket.topic, ticket.group) != (topic, group):
        raise Unauthorized("This ticket was used, has expired, or is not for this stream.")
    return ticket


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
