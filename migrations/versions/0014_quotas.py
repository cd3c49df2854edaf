"""Quotas of API keys: what one may be given in place of the server's, and up to when it has used them."""

from alembic import op

from migrations import function, statements

revision = "0014"
down_revision = "0013"

TABLES = """
alter table keys add column requests_per_s bigint, add column bytes_per_s bigint;
create table key_quotas (
    prefix text not null,
    quota text not null,
    used_until timestamptz not null default '-infinity',
    primary key (prefix, quota)
) with (fillfactor = 50);
"""


def upgrade() -> None:
    for statement in [*statements(TABLES), function("lease_quota")]:
        op.execute(statement)
