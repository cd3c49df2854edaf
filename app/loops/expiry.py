"""Expiry: removes idempotency keys whose window has passed, attempts that were kept long enough, and what is remembered
of leases that would have ended.

Only space is at stake. Whether a key still counts is judged at publish, by its age; whether a lease does, at settle.
"""

from __future__ import annotations

from datetime import timedelta

from app.storage import expiry
from app.storage.database import Database

# Rows deleted in one statement.
BATCH_SIZE = 5000


async def expire_once(db: Database, *, attempt_retention_ms: int, batch_size: int = BATCH_SIZE) -> bool:
    """Deletes a batch of each. True if there may be more."""
    keys = await expiry.expire_keys(db, most=batch_size)
    kept_for = timedelta(milliseconds=attempt_retention_ms)
    attempts = await expiry.expire_attempts(db, kept_for=kept_for, most=batch_size)
    leases = await expiry.expire_past_leases(db, most=batch_size)
    return batch_size in (keys, attempts, leases)
