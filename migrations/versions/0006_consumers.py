"""Consumers: who waits for messages of which group, on every replica."""

from alembic import op

from migrations import statements

revision = "0006"
down_revision = "0005"

TABLES = """
create table consumers (
    group_id int not null,
    replica_id text not null,
    owners text[] not null,
    seen_at timestamptz not null,
    primary key (group_id, replica_id)
) with (fillfactor = 70);
"""


def upgrade() -> None:
    for statement in statements(TABLES):
        op.execute(statement)
