"""Streams renew what they lease, and leave alone what its consumer extended."""

from alembic import op

from migrations import function

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.execute("drop function if exists renew(bigint, int, bigint[], bigint[])")
    op.execute(function("renew"))
