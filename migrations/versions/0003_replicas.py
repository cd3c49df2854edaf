"""Replicas: who is alive, and who does what for all."""

from alembic import op

from migrations import statements

revision = "0003"
down_revision = "0002"

TABLES = """
create table replicas (
    id text primary key,
    host text not null,
    pid int not null,
    started_at timestamptz not null,
    seen_at timestamptz not null
) with (fillfactor = 50);

create table leadership (
    duty text primary key,
    replica_id text not null,
    until timestamptz not null
) with (fillfactor = 50);
"""


def upgrade() -> None:
    for statement in statements(TABLES):
        op.execute(statement)
