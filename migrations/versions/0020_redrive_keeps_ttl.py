"""A dead letter past its ttlMs is not delivered again: it stays one. One that is retried before expires in time."""

from alembic import op

from migrations import function

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.execute(function("redrive"))
