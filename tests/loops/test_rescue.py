"""Messages of a consumer that died come back also where nobody reads."""

from __future__ import annotations

from app.broker.wakeups import Wakeups
from app.loops.rescue import rescue_once
from app.storage.database import Database
from tests.loops.conftest import Log, column


async def test_an_expired_lease_is_taken_back_and_readers_are_woken(db: Database, log: Log) -> None:
    await log.append(10)
    group_id = await log.group(next_offset=11)
    await log.lease(group_id, 1, 3, seconds=-1)
    await log.lease(group_id, 7, 8, seconds=60)
    wakeups = Wakeups()
    woken: list[list[int]] = []
    wakeups.listen(log.topic_id, group_id, lambda partitions: woken.append(list(partitions)))
    assert not await rescue_once(db, wakeups, batch_size=500)
    rows = await db.fetch('select "offset", state, attempt, error from deferred order by 1')
    assert [(row["offset"], row["state"], row["attempt"]) for row in rows] == [(o, "retrying", 1) for o in (1, 2, 3)]
    assert "timeout" in rows[0]["error"]
    assert await column(db, "select pending::text from leases") == ["{[7,9)}"]
    assert woken == [[log.partitions[0]]]
    assert len(wakeups.take_outgoing()) == 1


async def test_rescue_goes_in_bounded_batches(db: Database) -> None:
    log = await Log.create(db, partitions=3)
    group_id = await log.group()
    for number in range(3):
        await log.append(1, number=number)
        await log.lease(group_id, 1, 1, number=number, seconds=-10 + number)
    assert await rescue_once(db, Wakeups(), batch_size=2)
    assert await column(db, "select partition_id from leases") == [log.partitions[2]]  # the longest overdue first
    assert not await rescue_once(db, Wakeups(), batch_size=2)
    assert await column(db, "select partition_id from leases") == []


async def test_one_cursor_that_fails_does_not_keep_the_others_from_being_rescued(db: Database) -> None:
    log = await Log.create(db, partitions=2)
    group_id = await log.group()
    for number in range(2):
        await log.append(1, number=number)
        await log.lease(group_id, 1, 1, number=number, seconds=-10 + number)
    await db.execute(f"alter table deferred add check (partition_id <> {log.partitions[0]})")
    assert await rescue_once(db, Wakeups(), batch_size=2)
    assert await column(db, "select partition_id from leases") == [log.partitions[0]]
    assert not await rescue_once(db, Wakeups(), batch_size=1)  # all of them fail: rest, do not spin
