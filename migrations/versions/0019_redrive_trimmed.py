"""Dead letters are redriven also where the group was moved back before their messages and retention took those."""

from alembic import op

from migrations import function

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.execute(function("redrive"))
