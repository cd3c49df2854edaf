"""Functions tell what became of messages, and what waits behind a key costs no claim anything."""

from alembic import op

from migrations import function, statements

revision = "0013"
down_revision = "0012"

# What a function returns cannot be changed in place.
DROPPED = """
drop function if exists claim(
    bigint, int, int, text, int, bigint, bigint, text, bigint, int, bigint, bigint, bigint[], bigint[]);
drop function if exists take_deferred(bigint, int, timestamptz, bigint, int, bigint, boolean, text[]);
drop function if exists nack(bigint, int, bigint[], bigint[], bigint[], text[], text, jsonb[]);
drop function if exists expire_leases(bigint, int);
drop function if exists expire(bigint, int, timestamptz);
drop function if exists fail(bigint, int, timestamptz, bigint[], bigint[], text[], text, jsonb[]);
"""

FUNCTIONS = ["fail", "expire", "expire_leases", "nack", "waiting_heads", "take_deferred", "claim"]


def upgrade() -> None:
    for statement in [*statements(DROPPED), *map(function, FUNCTIONS)]:
        op.execute(statement)
