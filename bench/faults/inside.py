"""Failpoints inside the database's functions: between two steps of one transaction its backend comes to an end.

They are put into the functions as they are installed, in the run's own database only. What is armed is a file in the
data directory; the backend that finds it says so in another and ends itself, and everything it had done is undone.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.faults.broken import Change
from bench.faults.cluster import Cluster

FOLDER = "failpoints"
FUNCTION = f"""
create or replace function failpoint(name text) returns void language plpgsql as $$
declare
    path text := current_setting('data_directory') || '/{FOLDER}/' || name;
begin
    if (pg_stat_file(path, true)).size is not null and (pg_stat_file(path || '.hit', true)).size is null then
        execute format('copy (select 1) to %L', path || '.hit');
        perform pg_terminate_backend(pg_backend_pid());
        perform pg_sleep(1);
    end if;
end $$;
"""


def before(function: str, step: str, name: str) -> Change:
    return Change(function, step, f"perform failpoint('{name}');\n{step}")


# By name: what has been done there, and not yet.
INSIDE = {
    # The messages are in the log, their idempotency keys are not.
    "append.inside": before("append", "    if once_keys is not null then", "append.inside"),
    # Leases and deferred messages are gone, the cursor is where it was.
    "seek.inside": before("seek", "    update cursors c\n    set next_offset = position", "seek.inside"),
    # The partition is empty, its groups do not know.
    "purge.inside": before("purge", "    perform from cursors c where c.partition_id = p", "purge.inside"),
    # The attempt is counted, and the last; the message is still among the deferred.
    "dead.inside": before("fail", "        perform bury(p, g, t, exhausted", "dead.inside"),
    # It is among the dead letters, and among the deferred.
    "bury.inside": before("bury", "    delete from deferred d where", "bury.inside"),
    # The letter is among the deferred again, and nobody has counted it.
    "redrive.inside": before("redrive", "    update cursors c set removed", "redrive.inside"),
    # Deferred messages have their copies, the log still has all.
    "sweep.inside": before("sweep", "    update batches b\n", "sweep.inside"),
}  # fmt: skip


async def install(cluster: Cluster) -> None:
    folder = folder_of(cluster)
    folder.mkdir(exist_ok=True)
    owner = cluster.postgres.cluster.stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    await cluster.execute(FUNCTION)
    for change in INSIDE.values():
        await cluster.execute(change.statement())


def folder_of(cluster: Cluster) -> Path:
    """Where a file arms one."""
    return cluster.postgres.cluster / FOLDER
