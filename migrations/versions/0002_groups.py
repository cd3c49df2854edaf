"""Consumer groups: cursors, leases, and the rows that exist only for exceptions."""

from alembic import op

from migrations import function, statements

revision = "0002"
down_revision = "0001"

TABLES = """
create table groups (
    id int generated always as identity primary key,
    topic_id bigint not null references topics,
    name text not null,
    config jsonb not null,
    version int not null default 1,
    paused_since timestamptz,
    pause_reason text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (topic_id, name)
);

-- The counters say where every message that the cursor passed has gone; what none of them counts was acked.
create table cursors (
    partition_id bigint not null,
    group_id int not null,
    next_offset bigint not null,
    epoch int not null default 1,
    version int not null,
    paused boolean not null default false,
    passed bigint not null default 0,
    filtered bigint not null default 0,
    filter_errors bigint not null default 0,
    expired bigint not null default 0,
    lost bigint not null default 0,
    discarded bigint not null default 0,
    dead bigint not null default 0,
    redriven bigint not null default 0,
    dropped bigint not null default 0,
    primary key (partition_id, group_id)
) with (fillfactor = 50);
create index cursors_by_group on cursors (group_id);

-- One lease may have several rows when parts of it were extended to different deadlines.
create table leases (
    partition_id bigint not null,
    group_id int not null,
    id bigint not null,
    deadline timestamptz not null,
    owner text not null,
    pending int8multirange not null,
    revoked int8multirange not null default '{}',
    offsets bigint[],
    keys text[],
    retries boolean not null default false,
    extended boolean not null default false,
    primary key (partition_id, group_id, id, deadline)
) with (fillfactor = 70);
create index leases_by_group on leases (group_id);

create table deferred (
    partition_id bigint not null,
    group_id int not null,
    "offset" bigint not null,
    key text,
    state text not null check (state in ('retrying', 'held', 'delayed')),
    attempt int not null default 0,
    due_at timestamptz not null default '-infinity',
    expires_at timestamptz,
    error text,
    lease_id bigint,
    redriven boolean not null default false,
    published_at timestamptz,
    meta jsonb,
    payload bytea,
    primary key (partition_id, group_id, "offset")
);
create index deferred_waiting on deferred (partition_id, group_id, due_at) where lease_id is null;

create table dead_letters (
    partition_id bigint not null,
    group_id int not null,
    "offset" bigint not null,
    key text,
    meta jsonb,
    payload bytea not null,
    published_at timestamptz not null,
    error text,
    attempts int not null,
    dead_at timestamptz not null,
    primary key (partition_id, group_id, "offset")
);
create index dead_letters_newest on dead_letters (group_id, dead_at desc);

create table attempts (
    partition_id bigint not null,
    "offset" bigint not null,
    group_id int not null,
    attempt int not null,
    at timestamptz not null,
    outcome text not null,
    latency_ms int,
    status int,
    error_class text,
    error text,
    excerpt text
);
create index attempts_by_message on attempts (partition_id, "offset", group_id, at);
create index attempts_age on attempts using brin (at);
"""


FUNCTIONS = ["backoff_ms", "keys_at", "messages_at", "bury", "hold_followers", "fail", "expire"]


def upgrade() -> None:
    for statement in [*statements(TABLES), *map(function, FUNCTIONS)]:
        op.execute(statement)
