"""Endpoints: how a push group's receiver is doing, shared by all replicas; and what is known of its last successes."""

from alembic import op

from migrations import statements

revision = "0007"
down_revision = "0006"

TABLES = """
-- Only groups whose endpoint fails, throttles or is limited have a row. breaker is app/domain/breaker.py's document;
-- tokens and tokens_at, in milliseconds since 1970, are app/domain/rate.py's bucket.
create table endpoints (
    group_id int primary key,
    breaker jsonb not null default '{}',
    throttled_until timestamptz,
    since timestamptz,
    reason text,
    tokens double precision,
    tokens_at bigint
) with (fillfactor = 50);

create index groups_pushed on groups (id) where config #>> '{delivery,mode}' = 'push';
create index attempts_acked on attempts (group_id, at) where outcome = 'acked';
"""


def upgrade() -> None:
    for statement in statements(TABLES):
        op.execute(statement)
