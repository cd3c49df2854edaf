"""A sweep reads the record batches it deletes, and not all that are left of the partition."""

from alembic import op

from migrations import function

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.execute(function("sweep"))
