"""Quotas of API keys: up to when each has used what its rate allows, as all replicas know it."""

from __future__ import annotations

from app.domain.quota import Question
from app.storage.database import Database, on_collision_again

LEASE = "select granted, behind from lease_quota($1, $2, $3, $4, $5)"


async def lease(db: Database, prefix: str, quota: str, question: Question, burst: float) -> tuple[float, float]:
    """What is granted and how far ahead of now the quota is used then, in seconds. Raises DatabaseUnavailable."""
    row = await on_collision_again(
        lambda: db.fetchrow(LEASE, prefix, quota, question.need, question.want, burst)
    )  # fmt: skip
    assert row is not None
    return row[0], row[1]
