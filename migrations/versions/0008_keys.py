"""API keys: found by their prefix, known by their digest. A key itself is never stored."""

from alembic import op

from migrations import statements

revision = "0008"
down_revision = "0007"

TABLES = """
create table keys (
    prefix text primary key,
    digest bytea not null,
    namespace_id int not null references namespaces,
    name text not null,
    rights text[] not null,
    patterns text[] not null,
    expires_at timestamptz,
    created_at timestamptz not null default now(),
    last_used_at timestamptz
) with (fillfactor = 70);

create index keys_by_namespace on keys (namespace_id);
"""


def upgrade() -> None:
    for statement in statements(TABLES):
        op.execute(statement)
