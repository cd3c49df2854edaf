"""A claim walks along the index, in steps, and is not to sort all that is behind its cursor."""

from alembic import op

from migrations import function

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.execute(function("claim"))
