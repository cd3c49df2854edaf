"""Time travel: deadlines are moved in the database, because that is the clock that counts; no test sleeps for them."""

from __future__ import annotations

from app.storage.database import Database, on_collision_again

END_LEASES = """
    update leases set deadline = clock_timestamp() - interval '1 millisecond' where $1::bigint is null or pending @> $1
"""
MAKE_DUE = "update deferred set due_at = clock_timestamp() - interval '1 millisecond' where state <> 'held'"
AGE = "update batches set published_at = published_at - make_interval(secs => $1 / 1000.0)"
AGE_LETTERS = "update dead_letters set published_at = published_at - make_interval(secs => $1 / 1000.0)"
AGE_DEFERRED = """
    update deferred set expires_at = expires_at - make_interval(secs => $1 / 1000.0),
                        due_at = due_at - make_interval(secs => $1 / 1000.0)
"""


async def end_leases(db: Database, offset: int | None = None) -> None:
    """Every lease has ended a moment ago; with an offset, only the one that holds it."""
    await on_collision_again(lambda: db.execute(END_LEASES, offset))


async def make_due(db: Database) -> None:
    """Every retry and every delayed message is due."""
    await on_collision_again(lambda: db.execute(MAKE_DUE))


async def pass_time(db: Database, milliseconds: int) -> None:
    """Everything was published so much earlier, and what is scheduled comes so much sooner. Leases stay."""
    await db.execute(AGE, milliseconds)
    await db.execute(AGE_DEFERRED, milliseconds)
    await db.execute(AGE_LETTERS, milliseconds)
