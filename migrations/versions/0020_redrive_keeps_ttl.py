"""A dead letter that is retried past its ttlMs is expired, as any other message is, and not delivered."""

from alembic import op

from migrations import function

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.execute(function("redrive"))
