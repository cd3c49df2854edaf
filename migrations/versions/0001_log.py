"""The log: namespaces, topics, partitions, record batches, and idempotency keys."""

from alembic import op

from migrations import function, statements

revision = "0001"
down_revision = None

TABLES = """
create table namespaces (
    id int generated always as identity primary key,
    project text not null,
    environment text not null,
    unique (project, environment)
);

create table topics (
    id bigint generated always as identity primary key,
    namespace_id int not null references namespaces,
    name text not null,
    config jsonb not null,
    tags text[] not null default '{}',
    partitions int not null check (partitions between 1 and 65536),
    home_partitions int not null,
    version int not null default 1,
    paused_since timestamptz,
    pause_reason text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (namespace_id, name)
);

-- id = topic_id << 16 | number, so no other unique key is needed and the table distributes by id.
create table partitions (
    id bigint primary key,
    topic_id bigint not null,
    number int not null,
    version int not null,
    first_offset bigint not null default 1,
    epoch int not null default 1,
    purged_at timestamptz not null default '-infinity'
) with (fillfactor = 50);

create table batches (
    partition_id bigint not null,
    base_offset bigint not null,
    count int not null,
    published_at timestamptz not null,
    timed boolean not null default false,
    keys text[],
    meta jsonb[],
    payloads bytea[] not null,
    primary key (partition_id, base_offset),
    check (count between 1 and 1000 and cardinality(payloads) = count)
);
alter table batches alter column payloads set storage external;
alter table batches alter column keys set storage external;

create table idempotency_keys (
    partition_id bigint not null,
    key text not null,
    digest bytea not null,
    target_id bigint not null,
    "offset" bigint not null,
    published_at timestamptz not null,
    primary key (partition_id, key)
);
create index idempotency_keys_age on idempotency_keys using brin (published_at);

create view messages as
select b.partition_id, t.namespace_id, t.name as topic, p.number as partition, b.base_offset,
       b.base_offset + m.i - 1 as "offset", b.published_at, m.key, m.meta, m.payload
from batches b
join partitions p on p.id = b.partition_id
join topics t on t.id = p.topic_id
cross join lateral unnest(b.payloads, b.keys, b.meta) with ordinality m (payload, key, meta, i)
where b.base_offset + m.i - 1 >= p.first_offset;
"""


def upgrade() -> None:
    for statement in [*statements(TABLES), function("append")]:
        op.execute(statement)
