"""Claims of several partitions in one round trip and one commit."""

from alembic import op

from migrations import function

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    for name in ["may_claim_beside", "claim", "claim_several"]:
        op.execute(function(name))
