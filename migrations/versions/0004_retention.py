"""Retention: what trims a topic, and indexes that find what has expired."""

from alembic import op

from migrations import function, statements

revision = "0004"
down_revision = "0003"

# Block ranges would widen for good as soon as freed pages are used again: after one window every pass would read the
# whole table. By topic, because each has a window of its own.
INDEXES = """
drop index idempotency_keys_age;
create index idempotency_keys_age on idempotency_keys ((partition_id >> 16), published_at);
drop index attempts_age;
create index attempts_age on attempts (at);
"""

FUNCTIONS = ["retained_from", "sweep"]


def upgrade() -> None:
    for statement in [*statements(INDEXES), *map(function, FUNCTIONS)]:
        op.execute(statement)
