"""Past leases: what has to be known of a lease after its row, so that only its own acks are repeated."""

from alembic import op

from migrations import function, statements

revision = "0012"
down_revision = "0011"

# Written only where something went another way than claim and ack: lost was taken from the lease before it was settled
# (discarded says which of it by a discard), until is its last deadline where that is not the one in its id. A lease
# without a row here ended as its id says and settled all it had. Rows go with their time (storage/expiry.py).
TABLES = """
create table past_leases (
    partition_id bigint not null,
    group_id int not null,
    id bigint not null,
    until timestamptz not null,
    lost int8multirange not null default '{}',
    discarded int8multirange not null default '{}',
    primary key (partition_id, group_id, id)
);
create index past_leases_age on past_leases (until);
drop function if exists repeated(bigint, int, int[], bigint[], int[], bigint[], boolean[]);
"""

FUNCTIONS = ["take_back", "expire", "ack", "discard", "repeated", "seek", "purge"]


def upgrade() -> None:
    for statement in [*statements(TABLES), *map(function, FUNCTIONS)]:
        op.execute(statement)
