"""The key that got a stream's ticket: when it ends, so does the stream."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("alter table stream_tickets add column key_prefix text")
