"""The supervisor owns every task: restarts what crashes, and stops everything in the right order."""

from __future__ import annotations

import asyncio

import pytest

from app.loops import supervisor as supervising
from app.loops.supervisor import Supervisor
from tests.servers import PATIENCE_S


class Stoppable:
    """Runs until asked to stop, and then until it is released."""

    def __init__(self, name: str, ended: list[str], *, released: bool = True) -> None:
        self.name = name
        self.ended = ended
        self.stopped = asyncio.Event()
        self.released = asyncio.Event()
        if released:
            self.released.set()

    def stop(self) -> None:
        self.stopped.set()

    async def run(self) -> None:
        await self.stopped.wait()
        await self.released.wait()
        self.ended.append(self.name)


async def test_a_crashed_task_is_started_again() -> None:
    runs = 0
    running = asyncio.Event()

    async def crash_twice() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError("boom")
        if runs == 2:
            raise asyncio.CancelledError  # what it waited for was cancelled, it was not
        running.set()
        await asyncio.Event().wait()

    async with Supervisor() as supervisor:
        supervisor.start("crash", crash_twice)
        async with asyncio.timeout(PATIENCE_S):
            await running.wait()
    assert runs == 3


async def test_a_task_that_returns_is_done_and_its_name_free() -> None:
    runs = 0

    async def once() -> None:
        nonlocal runs
        runs += 1

    async with Supervisor() as supervisor:
        await supervisor.start("once", once).task
        await asyncio.sleep(0)
        assert supervisor.names == []
        await supervisor.start("once", once).task
    assert runs == 2


async def test_a_name_runs_once() -> None:
    async with Supervisor() as supervisor:
        supervisor.start("one", asyncio.Event().wait)
        with pytest.raises(RuntimeError):
            supervisor.start("one", asyncio.Event().wait)


async def test_foundations_are_stopped_after_everything_that_stands_on_them() -> None:
    ended: list[str] = []
    supervisor = Supervisor()
    parts = {name: Stoppable(name, ended, released=name != "push") for name in ("append", "settle", "push", "rescue")}
    for name, part in parts.items():
        supervisor.start(name, part.run, stop=part.stop, foundation=name in ("append", "settle"))
    stopping = asyncio.ensure_future(supervisor.stop(PATIENCE_S))
    await parts["rescue"].stopped.wait()
    await asyncio.sleep(0.02)
    assert not parts["settle"].stopped.is_set()  # push still drains into it
    parts["push"].released.set()
    await stopping
    assert ended == ["rescue", "push", "settle", "append"]


async def test_what_does_not_drain_in_time_is_cut_off() -> None:
    ended: list[str] = []
    supervisor = Supervisor()
    slow = Stoppable("slow", ended, released=False)
    base = Stoppable("base", ended)
    supervisor.start("base", base.run, stop=base.stop, foundation=True)
    owned = supervisor.start("slow", slow.run, stop=slow.stop)
    async with asyncio.timeout(PATIENCE_S):
        await supervisor.stop(0.05)
    assert owned.task.cancelled()
    assert ended == ["base"]  # the foundation still got its chance


async def test_what_refuses_to_end_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "CANCEL_GRACE_S", 0.05)
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    supervisor = Supervisor()
    owned = supervisor.start("stubborn", stubborn, stop=lambda: None)
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await supervisor.stop(0.05)
    assert not owned.done
    release.set()
    await owned.task


async def test_nothing_starts_while_the_process_stops() -> None:
    supervisor = Supervisor()
    await supervisor.stop(0)
    with pytest.raises(RuntimeError):
        supervisor.start("late", asyncio.Event().wait)


async def test_one_task_can_be_ended_while_the_others_run() -> None:
    ended: list[str] = []
    one, other = Stoppable("one", ended), Stoppable("other", ended)
    async with Supervisor() as supervisor:
        owned = supervisor.start("one", one.run, stop=one.stop)
        supervisor.start("other", other.run, stop=other.stop)
        await supervisor.end(owned, PATIENCE_S)
        assert ended == ["one"]
        assert supervisor.names == ["other"]


async def test_a_task_between_two_tries_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "backoff_s", lambda _crashes: 3600.0)

    async def crash() -> None:
        raise ValueError("always")

    supervisor = Supervisor()
    owned = supervisor.start("crash", crash, stop=lambda: None)
    await asyncio.sleep(0.01)
    await supervisor.stop(PATIENCE_S)
    assert owned.done
    assert not owned.task.cancelled()
