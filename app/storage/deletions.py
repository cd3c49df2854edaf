"""What is left to remove of topics and groups that are gone. Nobody reads it any more, so it goes in small pieces."""

from __future__ import annotations

from app.storage.database import Database, Tx

# Rows removed by one statement: a fraction of a second, whatever they hold.
PIECE = 1000

TAKE = """
select partition_id, group_id from deletions order by partition_id, group_id for update skip locked limit 1
"""
OF_GROUP = ("deferred", "past_leases", "dead_letters", "attempts")
OF_PARTITION = (*OF_GROUP, "idempotency_keys", "batches")
REMOVE_OF_GROUP = """
delete from {table} where ctid = any (array(
    select ctid from {table} where partition_id = $1 and group_id = $2 limit $3))
"""
REMOVE_OF_PARTITION = """
delete from {table} where ctid = any (array(select ctid from {table} where partition_id = $1 limit $2))
"""
DONE = "delete from deletions where partition_id = $1 and group_id = $2"


async def remove_piece(db: Database) -> bool:
    """Removes up to PIECE rows of each table of one gone partition or group. False when nothing is left to do."""
    async with db.transaction() as tx:
        row = await tx.fetchrow(TAKE)
        if row is None:
            return False
        partition_id, group_id = row
        if not await _remove(tx, partition_id, group_id):
            await tx.execute(DONE, partition_id, group_id)
        return True


async def _remove(tx: Tx, partition_id: int, group_id: int) -> bool:
    """False when there was nothing."""
    if group_id:
        results = [
            await tx.execute(REMOVE_OF_GROUP.format(table=table), partition_id, group_id, PIECE) for table in OF_GROUP
        ]
    else:
        results = [
            await tx.execute(REMOVE_OF_PARTITION.format(table=table), partition_id, PIECE) for table in OF_PARTITION
        ]
    return any(result != "DELETE 0" for result in results)
