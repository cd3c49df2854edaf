"""Hooks: which topics have some, and what is to be told and has not reached the hooks' own logs yet."""

from alembic import op

from migrations import function, statements

revision = "0010"
down_revision = "0009"

TABLES = """
-- What is told of a topic, group_id <> 0: of one group of it. log_id is the topic that keeps the events of this hook
-- and whose one group calls it; it is in the namespace without a name, where nobody else gets.
create table hooks (
    topic_id bigint not null,
    event text not null check (event in ('published', 'acked', 'dead')),
    group_id int not null default 0,
    log_id bigint not null,
    primary key (topic_id, event, group_id)
);
insert into namespaces (project, environment) values ('', '') on conflict do nothing;

-- Published messages are told of from the log itself: up to here that is done.
create table hook_cursors (
    partition_id bigint primary key,
    next_offset bigint not null
) with (fillfactor = 50);

-- The other events, written by the transaction that they tell of. A row has all offsets of an ack; what may be gone
-- from the log when the event is told stands beside the one offset of a death.
create table announcements (
    partition_id bigint not null,
    group_id int not null,
    event text not null,
    at timestamptz not null,
    offsets int8multirange not null,
    key text,
    meta jsonb,
    published_at timestamptz,
    error text
);
create index announcements_oldest on announcements (at);
"""


def upgrade() -> None:
    for statement in [*statements(TABLES), function("ack"), function("fail")]:
        op.execute(statement)
