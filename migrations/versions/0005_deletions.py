"""Deletions: what is left to remove of topics and groups that are gone."""

from alembic import op

from migrations import statements

revision = "0005"
down_revision = "0004"

# Deleting a topic takes its few small rows at once and leaves the rest here, so that it never depends on how much
# there is. A group_id of 0 means everything of the partition.
TABLES = """
create table deletions (
    partition_id bigint not null,
    group_id int not null,
    primary key (partition_id, group_id)
);
"""


def upgrade() -> None:
    for statement in statements(TABLES):
        op.execute(statement)
