"""A claim writes the keys it takes with its lease, and not after it."""

from alembic import op

from migrations import function

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.execute(function("keys_taken"))
    op.execute(function("claim"))
