"""A loop does its duty until it is stopped, whatever happens to it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator

import pytest

from app import telemetry
from app.domain.errors import DatabaseUnavailable
from app.loops import loop as looping
from app.loops.loop import Loop
from app.loops.supervisor import Supervisor
from tests.servers import PATIENCE_S, wait_until

LONG_MS = 3_600_000


@pytest.fixture
def logged() -> Iterator[Callable[[str], list[dict[str, object]]]]:
    """The events of one name logged so far."""
    out = io.StringIO()
    telemetry.configure("debug", out)

    def named(event: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]

    yield named
    telemetry.configure()


class Duty:
    """A pass that counts itself, and does what it is told to."""

    def __init__(self, *outcomes: bool | Exception) -> None:
        self.outcomes = list(outcomes)
        self.passes = 0
        self.ran = asyncio.Event()

    async def __call__(self) -> bool:
        self.passes += 1
        self.ran.set()
        outcome = self.outcomes.pop(0) if self.outcomes else False
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def after(self, passes: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.passes < passes:
                self.ran.clear()
                await self.ran.wait()


async def test_a_full_batch_is_followed_by_another_pass_at_once() -> None:
    duty = Duty(True, True, True)
    async with Supervisor() as supervisor:
        supervisor.start_loop(Loop("duty", duty, interval_ms=LONG_MS))
        await duty.after(4)
        await asyncio.sleep(0.05)
    assert duty.passes == 4


async def test_a_wake_up_runs_a_pass_and_one_during_a_pass_is_not_lost() -> None:
    duty = Duty()
    loop = Loop("duty", duty, interval_ms=LONG_MS)
    async with Supervisor() as supervisor:
        supervisor.start_loop(loop)
        await duty.after(1)
        loop.wake()
        await duty.after(2)
    assert duty.passes == 2

    async def wakes_itself_once() -> bool:
        if await duty() is False and duty.passes == 3:
            loop.wake()
        return False

    loop = Loop("duty", wakes_itself_once, interval_ms=LONG_MS)
    async with Supervisor() as supervisor:
        supervisor.start_loop(loop)
        await duty.after(4)


async def test_a_failing_pass_is_logged_once_and_does_not_stop_the_loop(
    logged: Callable[[str], list[dict[str, object]]],
) -> None:
    duty = Duty(ValueError("no"), KeyError("neither"))
    async with Supervisor() as supervisor:
        supervisor.start_loop(Loop("duty", duty, interval_ms=5))
        await duty.after(4)
    failures = logged("loop_failed")
    assert [line["loop"] for line in failures] == ["duty", "duty"]
    assert "ValueError: no" in str(failures[0]["exception"])


async def test_a_database_that_is_away_is_logged_once_and_waited_for(
    logged: Callable[[str], list[dict[str, object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_BACKOFF_S", "LAST_BACKOFF_S"):
        monkeypatch.setattr(looping, name, 1.5)  # time to look at it
    duty = Duty(*[DatabaseUnavailable("away")] * 3)
    loop = Loop("duty", duty, interval_ms=LONG_MS)
    async with Supervisor() as supervisor:
        supervisor.start_loop(loop)
        await duty.after(1)
        for _ in range(100):
            loop.wake()  # hints must not turn into a storm of connections
            await asyncio.sleep(0)
        assert duty.passes == 1
        await duty.after(4)  # backing off, not once an hour
    assert len(logged("loop_interrupted")) == 1
    assert [line["failed_passes"] for line in logged("loop_recovered")] == [3]


async def test_an_interval_of_zero_is_off() -> None:
    duty = Duty()
    async with Supervisor() as supervisor:
        owned = supervisor.start_loop(Loop("duty", duty, interval_ms=0))
        async with asyncio.timeout(PATIENCE_S):
            await owned.task
    assert duty.passes == 0


async def test_a_loop_that_may_not_run_makes_no_pass() -> None:
    duty = Duty()
    loop = Loop("duty", duty, interval_ms=1)
    allowed = False
    loop.may_run = lambda: allowed
    async with Supervisor() as supervisor:
        supervisor.start_loop(loop)
        await asyncio.sleep(0.05)
        assert duty.passes == 0
        allowed = True
        await duty.after(1)


async def test_a_duty_that_is_lost_while_the_database_is_away_rests_until_it_is_ours_again() -> None:
    """It once asked again and again without an await, and nothing else in its process ran any more."""
    duty = Duty(DatabaseUnavailable("away"))
    loop = Loop("duty", duty, interval_ms=LONG_MS)
    asked = 0

    def ours_once() -> bool:
        nonlocal asked
        asked += 1
        if asked == 100:
            loop.stop()
        return asked != 2

    loop.may_run = ours_once
    async with Supervisor() as supervisor:
        supervisor.start_loop(loop)
        await wait_until(lambda: asked >= 2)
        await asyncio.sleep(0.1)
        assert asked == 2
        loop.wake()
        await duty.after(2)


@pytest.mark.parametrize("steps", range(8))
async def test_a_loop_stops_at_whatever_moment_it_is_told(steps: int) -> None:
    for outcomes in ([], [True] * 50, [ValueError()] * 50, [DatabaseUnavailable("away")] * 50):
        for interval_ms in (1, LONG_MS):
            supervisor = Supervisor()
            duty = Duty(*outcomes)
            owned = supervisor.start_loop(Loop("duty", duty, interval_ms=interval_ms))
            for _ in range(steps):
                await asyncio.sleep(0)
            await supervisor.stop(PATIENCE_S)
            assert owned.done
            assert not owned.task.cancelled()  # it ended by itself, not by force
