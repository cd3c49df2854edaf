"""Cost: what the hot statements touch does not grow with what the log holds."""

from __future__ import annotations

import re

import asyncpg
import pytest

from app.storage.cursors import STANDINGS
from app.storage.expiry import EXPIRE_ATTEMPTS, EXPIRE_PAST_LEASES
from app.storage.leases import SURVEY
from tests.broker.world import Replica, replicas
from tests.servers import wait_until

SEED = """
    insert into batches (partition_id, base_offset, count, published_at, payloads)
    select p.id, n * 10 + 1, 10, now(), array_fill('"x"'::bytea, array[10])
    from partitions p cross join generate_series(0, 4999) n
"""
# The same as publishers of many partitions leave it: what follows in a partition is pages away.
SEED_MIXED = """
    insert into batches (partition_id, base_offset, count, published_at, payloads)
    select p.id, n * 10 + 1, 10, now(), array_fill(('"' || repeat('x', 100) || '"')::bytea, array[10])
    from partitions p cross join generate_series(0, 999) n
    order by n, p.id
"""
# Pages that the statements of this session have looked at, and rows read by sequential scans.
SCANNED = "select coalesce(sum(seq_tup_read), 0) from pg_stat_xact_user_tables where relname = 'batches'"


async def holding(replica: Replica, partitions: int, seed: str) -> Replica:
    await replica.topic(partitions=partitions)
    await replica.group()
    await replica.db.execute(seed)
    await replica.db.execute("analyze")
    return replica


@pytest.fixture
async def seeded(replica: Replica) -> Replica:
    """Fifty thousand messages in each of two partitions."""
    return await holding(replica, 2, SEED)


@pytest.fixture
async def mixed(replica: Replica) -> Replica:
    """Ten thousand messages in each of 16 partitions, every record batch between those of the others."""
    return await holding(replica, 16, SEED_MIXED)


@pytest.mark.parametrize(("statement", "of"), [(SURVEY, "array[{}]"), (STANDINGS, "{}")])
async def test_looking_at_a_group_reads_no_messages(seeded: Replica, statement: str, of: str) -> None:
    group = await seeded.known()
    text = statement.replace("$1", of.format(group.id))
    plan = "\n".join(row[0] for row in await seeded.db.fetch("explain (analyze, buffers, costs off) " + text))
    assert "Seq Scan on batches" not in plan, plan
    assert touched(plan) < 100, plan


def touched(plan: str) -> int:
    hit = re.search(r"Buffers: shared (?:hit=(\d+))?(?: ?read=(\d+))?", plan)
    assert hit is not None, plan
    return sum(int(pages or 0) for pages in hit.groups())


@pytest.mark.parametrize("cursor", [1, 25_000, 49_900])
async def test_a_claim_and_its_ack_touch_a_few_pages_wherever_the_cursor_is(seeded: Replica, cursor: int) -> None:
    plan, ack_plan = await claim_and_ack(seeded, cursor)
    assert touched(plan) < 400, plan
    assert touched(ack_plan) < 200, ack_plan


async def test_a_claim_reads_no_further_than_it_takes_wherever_the_record_batches_lie(mixed: Replica) -> None:
    plan, _ = await claim_and_ack(mixed, 1)
    assert touched(plan) < 400, plan


async def test_statistics_are_made_without_reading_messages(seeded: Replica) -> None:
    read = await seeded.db.fetch("select attname from pg_stats where tablename = 'batches'")
    assert {row["attname"] for row in read} == {"partition_id", "base_offset", "count", "published_at", "timed"}


async def test_a_sweep_reads_what_it_deletes_and_no_more_of_its_partition(mixed: Replica) -> None:
    place, *_ = [each.partition_id for each in (await mixed.stats()).standings]
    await mixed.db.execute("update partitions set first_offset = 9000 where id = $1", place)
    await mixed.db.fetch("explain (analyze) select sweep($1, 1)".replace("$1", str(place)))
    plan = "\n".join(row[0] for row in await mixed.db.fetch(f"explain (analyze, buffers) select sweep({place}, 50)"))
    assert await mixed.db.fetchval("select count(*) from batches where partition_id = $1", place) == 1000 - 51
    assert touched(plan) < 600, plan


async def test_expiry_looks_at_what_has_expired_and_at_nothing_else(replica: Replica) -> None:
    await replica.db.execute(
        """insert into attempts (partition_id, "offset", group_id, attempt, at, outcome)
           select 65536, n, 1, 1, clock_timestamp(), 'nacked' from generate_series(1, 20000) n"""
    )
    await replica.db.execute(
        """insert into past_leases (partition_id, group_id, id, until)
           select 65536, 1, n, clock_timestamp() + interval '1 hour' from generate_series(1, 20000) n"""
    )
    await replica.db.execute("analyze")
    for statement in (EXPIRE_ATTEMPTS, EXPIRE_PAST_LEASES):
        text = statement.replace("$1", "1000").replace("$2::interval", "interval '1 hour'")
        plan = "\n".join(row[0] for row in await replica.db.fetch("explain (analyze, buffers, costs off) " + text))
        assert touched(plan) < 20, plan


async def claim_and_ack(replica: Replica, cursor: int) -> tuple[str, str]:
    """The plans of a claim of fifty messages at that offset, and of their ack."""
    group = await replica.known()
    db = replica.db
    place, *_ = [each.partition_id for each in (await replica.stats()).standings]
    await db.execute("update cursors set next_offset = $1", cursor)
    claim = (
        f"select * from claim({place}, {group.id}, {group.version}, 'me', 50, 1000000, 30000, 'partition', 10000, 2,"
        " null, null, null, null, true)"
    )
    async with db.transaction() as tx:
        await tx.fetch("select pg_stat_clear_snapshot()")
        warming = tx.transaction()
        await warming.start()
        await tx.fetch(claim)  # plans, and what the catalog says, are read once in a session
        await warming.rollback()
        before = await tx.fetchval(SCANNED)
        plan = "\n".join(row[0] for row in await tx.fetch("explain (analyze, buffers, costs off) " + claim))
        (taken,) = await tx.fetch("select id, lower(pending), upper(pending) from leases where group_id = $1", group.id)
        lease, low, high = taken
        ack = f"select * from ack({place}, {group.id}, array[{lease}], array['{{[{low},{high})}}'])"
        ack_plan = "\n".join(row[0] for row in await tx.fetch("explain (analyze, buffers, costs off) " + ack))
        await tx.fetch("select pg_stat_clear_snapshot()")
        assert await tx.fetchval(SCANNED) == before
    assert high - low == 50
    return plan, ack_plan


async def test_a_batch_costs_a_group_a_handful_of_rows_however_many_messages_it_has(dsn: str) -> None:
    async with replicas(dsn) as (replica,):
        await replica.topic()
        await replica.group(max_in_flight=100_000)
        await replica.publish(*["x"] * 1000)
    before = await rows_written(dsn)
    async with replicas(dsn) as (replica,):
        got = await replica.pull(1000)
        assert len(got) == 1000
        assert all(await replica.ack(got))
    assert await rows_written(dsn) - before <= 4


async def rows_written(dsn: str) -> int:
    """By all that has used the database. A session's part is only sure to be counted when the session is over."""
    connection = await asyncpg.connect(dsn)
    try:
        others = (
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
            "and backend_type = 'client backend'"
        )

        async def alone() -> bool:
            return bool(await connection.fetchval(others) == 0)

        await wait_until(alone)
        written: int = await connection.fetchval(
            "select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables"
        )
        return written
    finally:
        await connection.close()
