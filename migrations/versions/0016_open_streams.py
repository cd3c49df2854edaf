"""Open streams of each namespace, as every replica reports its own."""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.execute("""
        create table open_streams (
            namespace_id int not null,
            replica_id text not null,
            count int not null,
            seen_at timestamptz not null,
            primary key (namespace_id, replica_id)
        ) with (fillfactor = 50)
    """)
