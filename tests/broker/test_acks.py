"""Acks share commits, and neither another's fault nor another's lock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import asyncpg
import pytest

from app.broker import acks
from app.domain import lease
from app.domain.errors import DatabaseUnavailable
from app.storage.database import SERVER_SETTINGS
from tests.broker.world import Replica, replicas
from tests.servers import wait_until


@pytest.mark.parametrize("bad", [1, 2, 3])
async def test_an_ack_the_database_refuses_fails_alone(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a", "b", "c", "d")
    got = await replica.pull()
    may_go = asyncio.Event()
    send = acks.Acks._send

    async def slow_send(of: acks.Acks, calls: Iterable[Any]) -> Any:
        await may_go.wait()
        return await send(of, calls)

    def multirange(offsets: Iterable[int]) -> str:
        return "no range" if got[bad].offset in {*offsets} else lease.multirange(offsets)

    monkeypatch.setattr(acks.Acks, "_send", slow_send)
    monkeypatch.setattr(acks, "multirange", multirange)
    # The first is under way while the others gather, so that these share a commit.
    acking = [asyncio.create_task(replica.ack([each])) for each in got]
    await wait_until(lambda: len(replica.settler._acks._queue) == 3)
    may_go.set()
    results = await asyncio.gather(*acking, return_exceptions=True)
    assert isinstance(results.pop(bad), asyncpg.DataError)
    assert results == [[True]] * 3
    assert await replica.lag() == 1


LOCK = "select from leases where group_id = $1 for update"
IN_THE_WAY = "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


async def test_acks_of_a_group_wait_for_no_lock_on_another_groups_leases(replica: Replica) -> None:
    await replica.topic()
    locked = await replica.group(name="locked")
    await replica.group(name="free")
    await replica.publish("a", "b", "c")
    stuck, free = [await replica.pull(1, group=name) for name in ("locked", "free")]
    async with replica.db.transaction() as somebody:
        await somebody.fetch(LOCK, locked.id)
        acking = asyncio.create_task(replica.ack(stuck, group="locked"))
        await wait_until(lambda: replica.db.fetchval(IN_THE_WAY))
        again = asyncio.create_task(replica.ack(stuck, group="locked"))
        assert await replica.ack(free, group="free") == [True]
        assert await replica.ack(await replica.pull(1, group="free"), group="free") == [True]
        assert not acking.done()
        assert not again.done()
    assert await acking == [True]
    assert await again == [True]


async def test_acks_that_shared_a_commit_with_a_locked_group_go_on_without_it(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SERVER_SETTINGS, "lock_timeout", "500ms")
    may_go = asyncio.Event()
    send = acks.Acks._send

    async def slow_send(of: acks.Acks, calls: Iterable[Any]) -> Any:
        await may_go.wait()
        return await send(of, calls)

    monkeypatch.setattr(acks.Acks, "_send", slow_send)
    monkeypatch.setattr(acks, "SLOW_S", 60.0)  # until they have parted
    async with replicas(dsn) as (replica,):
        await replica.topic()
        names = ("first", "locked", "free", "other")
        groups = {name: await replica.group(name=name) for name in names}
        await replica.publish("a")
        got = {name: await replica.pull(group=name) for name in names}
        async with replica.db.transaction() as somebody:
            await somebody.fetch(LOCK, groups["locked"].id)
            acking = {name: asyncio.create_task(replica.ack(got[name], group=name)) for name in names}
            await wait_until(lambda: len(replica.settler._acks._queue) == 3)
            monkeypatch.setattr(acks, "SLOW_S", 0.05)
            may_go.set()
            assert [await acking[name] for name in ("first", "free", "other")] == [[True]] * 3
            with pytest.raises(DatabaseUnavailable):
                await acking["locked"]
        assert await replica.ack(got["locked"], group="locked") == [True]
        assert [*replica.settler._acks._apart] == [groups["locked"].id]


async def test_an_ack_whose_turn_comes_as_it_is_given_up_leaves_the_turn_to_the_next(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replica.topic()
    await replica.group()
    await replica.publish("a", "b", "c")
    got = await replica.pull()
    may_go = asyncio.Event()
    send, end = acks.Acks._send, acks.Acks._end

    async def slow_send(of: acks.Acks, calls: Iterable[Any]) -> Any:
        await may_go.wait()
        return await send(of, calls)

    def end_and_give_up(of: acks.Acks, commit: acks.Commit) -> None:
        end(of, commit)
        second.cancel()  # it has the turn now, and has not heard of it

    monkeypatch.setattr(acks.Acks, "_send", slow_send)
    monkeypatch.setattr(acks.Acks, "_end", end_and_give_up)
    first, second, third = [asyncio.create_task(replica.ack([each])) for each in got]
    await wait_until(lambda: len(replica.settler._acks._queue) == 2)
    may_go.set()
    assert await first == [True]
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await third == [True]
    assert not replica.settler._acks._commits
