"""Streams: tickets that open one, and the renewal of the leases a stream holds."""

from alembic import op

from migrations import function, statements

revision = "0009"
down_revision = "0008"

TABLES = """
create table stream_tickets (
    digest bytea primary key,
    namespace_id int not null,
    topic text not null,
    group_name text,
    expires_at timestamptz not null
);
"""


def upgrade() -> None:
    for statement in [*statements(TABLES), function("renew")]:
        op.execute(statement)
