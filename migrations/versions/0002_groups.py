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

-- Where a group is in a partition. The counters say where every message went that the cursor has passed; what none
-- of them counts, and no lease and no deferred row holds, was acked:
--   acked = passed - filtered - expired - discarded - dead - dropped + redriven - leased - deferred
-- dead counts deliveries that left a dead letter, dropped those that left none, removed the letters that are gone.
create table cursors (
    partition_id bigint not null,
    group_id int not null,
    next_offset bigint not null,
    epoch int not null default 1,
    version int not null,
    paused boolean not null default false,
    served_at timestamptz not null default '-infinity',
    passed bigint not null default 0,
    filtered bigint not null default 0,
    filter_errors bigint not null default 0,
    expired bigint not null default 0,
    lost bigint not null default 0,
    discarded bigint not null default 0,
    dead bigint not null default 0,
    dropped bigint not null default 0,
    removed bigint not null default 0,
    redriven bigint not null default 0,
    primary key (partition_id, group_id)
) with (fillfactor = 50);
create index cursors_by_group on cursors (group_id);

-- A claim of one consumer. It has more than one row while parts of it were extended to different deadlines.
-- offsets and keys, side by side, are kept where key ordering has to know which keys are in flight.
create table leases (
    partition_id bigint not null,
    group_id int not null,
    id bigint not null,
    deadline timestamptz not null,
    owner text not null,
    pending int8multirange not null,
    offsets bigint[],
    keys text[],
    deferrals boolean not null default false,
    primary key (partition_id, group_id, id, deadline)
) with (fillfactor = 70);
create index leases_by_group on leases (group_id);

-- Messages that left the straight line. attempt counts the failures so far. While lease_id is set, the message is in
-- that lease and not deferred. payload is here only where the log need not have it any more.
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
create index deferred_by_key on deferred (partition_id, group_id, key, "offset")
    where lease_id is null and state <> 'delayed';
create index deferred_due on deferred (partition_id, group_id, due_at) where lease_id is null and state <> 'held';
create index deferred_expiring on deferred (partition_id, group_id, expires_at)
    where lease_id is null and expires_at is not null;

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
create index dead_letters_newest on dead_letters (group_id, dead_at desc, partition_id, "offset");

-- What is known of deliveries that did not simply succeed, and, of pushes, of the last that did.
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

FUNCTIONS = [
    "backoff_ms", "envelopes_at", "messages_at", "offset_within", "offset_at", "in_flight", "record_attempts",
    "take_back", "held_by", "bury", "hold_followers", "fail", "expire", "expire_leases", "take_deferred", "claim",
    "ack", "nack", "discard", "extend", "hand_back", "repeated", "seek", "redrive", "purge",
]  # fmt: skip


def upgrade() -> None:
    for statement in [*statements(TABLES), *map(function, FUNCTIONS)]:
        op.execute(statement)
